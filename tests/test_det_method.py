"""DeT on real classes with oblong grids: where the branch reads and adds, which blocks keep it, training with tracks, what goes with it."""
import copy
import dataclasses

import pytest
import torch
from snapshots import SNAPSHOTS

from motionlab.core.errors import MotionLabError
from motionlab.methods import open_method
from motionlab.methods.files import load_method, save_method
from motionlab.models import size as sizes
from motionlab.models.branches import PLACES, add_branches, branches, only
from motionlab.models.open import open_pipe
from motionlab.papers.det import MODULES, along_tracks, late_enough
from motionlab.taps import attention, features
from motionlab.training import SampleNoise
from small import small_model

# Three frames of 2 x 3 tokens each; version 1.5, whose positions end at its own size, of 2 x 1. HunyuanVideo: one block of two streams, one of a single stream.
CLIPS = {"cogvideox-2b": (9, 32, 48), "cogvideox-5b": (9, 32, 48), "cogvideox-1.5": (17, 32, 16), "cogvideox-1.5-image": (17, 32, 16),
         "hunyuanvideo": (9, 32, 48), "wan": (9, 32, 48), "wan-image": (9, 32, 48), "ltx": (17, 64, 96)}
FOUR = ("cogvideox-5b", "hunyuanvideo", "wan", "ltx")
GRID, SAID, T = (3, 2, 3), ["a cat walks.", "a dog runs."], torch.tensor([0.3, 0.8])


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("snapshots"), {}

    def build(name):
        """A pipe of one's own of a snapshot that is read once."""
        if name not in made:
            made[name] = open_pipe(str(SNAPSHOTS[name](root / name)), *CLIPS[name], dtype=torch.float32)
            made[name].text(["", *SAID])
        pipe, twin = made[name], copy.copy(made[name])
        twin._modules, twin._behind = {pipe.network: copy.deepcopy(pipe.denoiser)}, pipe._behind
        return twin

    build.folder = lambda name: str(root / name)
    return build


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(pipe, size=0.05):
    """All that a method added, drawn: what is zero at first acts too."""
    with torch.no_grad():
        for k, (name, p) in enumerate(pipe.denoiser.named_parameters()):
            if ".branch." in name or "lora_" in name:
                p.copy_(size * drawn(*p.shape, seed=k))
    return pipe


def known(pipe, b=2):
    first = drawn(b, 3, *pipe.size).clamp(-1, 1)
    return pipe.mode_inputs(pipe.modes[0], first, None) if pipe.modes[0] == "first" else {}


@torch.no_grad()
def say(pipe, x=None, **settings):
    x = drawn(2, *pipe.shape) if x is None else x
    return pipe(x, T[:len(x)], pipe.text(SAID[:len(x)]), settings.get("known", known(pipe, len(x))))


def attached(opened, name, **settings):
    pipe = opened(name)
    open_method("det", **settings).attach(pipe)
    return pipe


# ---------------------------------------------------------------------------------------------- where it reads and adds
@pytest.mark.parametrize("name", CLIPS)
def test_untrained_it_is_the_base_to_the_bit_and_trains_only_its_branches(opened, name):
    base = say(opened(name))
    pipe = attached(opened, name)
    assert torch.equal(say(pipe), base) and {b.total for b in branches(pipe.denoiser).values()} == {2}
    trained = {n: p for n, p in pipe.named_parameters() if p.requires_grad}
    width = next(iter(branches(pipe.denoiser).values())).module.up.shape[0]
    assert set(n.rpartition(".branch.")[2] for n in trained) == {"module.down", "module.up"}
    assert sum(p.numel() for p in trained.values()) == len(branches(pipe.denoiser)) * 2 * width * max(1, width // 24) * 3
    assert len(branches(pipe.denoiser)) == (1 if name == "hunyuanvideo" else 2)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FOUR)
def test_places_add_what_the_branch_makes_of_what_attention_reads(opened, name, place):
    """In the first block: the base's own attention, given what was recorded, beside the branch's module on video tokens."""
    pipe = awake(attached(opened, name, place=place))
    block, seen = getattr(pipe.denoiser, "blocks" if name == "wan" else "transformer_blocks")[0], {}
    attn = block.attn if name == "hunyuanvideo" else block.attn1
    handle = attn.register_forward_hook(lambda m, args, kwargs, out: seen.update(args=args, kwargs=kwargs, out=out), with_kwargs=True)
    say(pipe)
    handle.remove()
    read = seen["args"][0] if seen["args"] else seen["kwargs"]["hidden_states"]
    made = attn.branch.module(read.unflatten(1, GRID)).flatten(1, 3)
    assert read.shape[1] == 18 and made.abs().max() > 1e-3
    pick = lambda out: out if torch.is_tensor(out) else out[0]
    with torch.no_grad(), only(branches(pipe.denoiser), ()):
        plain = attn(*seen["args"], **seen["kwargs"])
        if place == "skip":
            torch.testing.assert_close(pick(seen["out"]), pick(plain) + made)
            assert torch.is_tensor(plain) or torch.equal(plain[1], seen["out"][1])              # text is not touched inside the block
            return
        over = lambda whole: (torch.nn.functional.pad(made, (0, 0, whole.shape[1] - 18, 0)) if name.startswith("cog") else
                              torch.nn.functional.pad(made, (0, 0, 0, whole.shape[1] - 18)))
        handles = [attn.to_out[0].register_forward_pre_hook(lambda m, args: (args[0] + over(args[0]),))] if place == "before_out" else \
            [getattr(attn, f"to_{part}").register_forward_hook(lambda m, args, out: out + over(out)) for part in place]
        torch.testing.assert_close(pick(seen["out"]), pick(attn(*seen["args"], **seen["kwargs"])))
        for handle in handles:
            handle.remove()
        assert not torch.allclose(pick(plain), pick(seen["out"]))


def test_single_stream_blocks_have_branches_where_they_are_asked_for(opened):
    pipe = attached(opened, "hunyuanvideo", stack="single_transformer_blocks")
    base, (index,) = say(pipe), branches(pipe.denoiser)
    assert index == 1 and not torch.allclose(say(awake(pipe)), base)
    with pytest.raises(MotionLabError, match="no output projection"):
        attached(opened, "hunyuanvideo", stack="single_transformer_blocks", place="before_out")
    with pytest.raises(MotionLabError, match="Did you mean 'transformer_blocks'"):
        attached(opened, "ltx", stack="transformer_block")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_fits_every_class(opened, module):
    for name in FOUR:
        base = say(opened(name))
        pipe = attached(opened, name, module=module)
        assert torch.equal(say(pipe), base) and not torch.allclose(say(awake(pipe)), base)


def test_another_grid_is_taken_from_the_call(opened):
    pipe = awake(attached(opened, "wan"))
    for shape in ((4, 4, 6, 6), (3, 4, 6, 4)):                                    # the second has as many tokens as 2 x 3, the other way
        x = drawn(1, *shape)
        with torch.no_grad():
            shapes = []
            handle = next(iter(branches(pipe.denoiser).values())).module.register_forward_hook(lambda m, a, out: shapes.append(out.shape[1:4]))
            pipe(x, T[:1], pipe.text(SAID[:1]))
            handle.remove()
        assert shapes == [torch.Size((shape[0], shape[2] // 2, shape[3] // 2))]


def test_a_copy_of_the_network_has_branches_of_its_own(opened):
    pipe = awake(attached(opened, "wan"))
    twin, before = copy.deepcopy(pipe.denoiser), say(pipe)
    with torch.no_grad():
        next(iter(branches(twin).values())).module.up.zero_()
    assert torch.equal(say(pipe), before)
    pipe._modules = {pipe.network: twin}
    assert not torch.allclose(say(pipe), before)


# ---------------------------------------------------------------------------------------------- which blocks, and which way
def test_blocks_that_drop_their_branch_are_the_bases_given_equal_inputs(opened):
    """Card 9.2: what block 1 gives follows from what it is given, by the base's own weights."""
    pipe, base = awake(attached(opened, "cogvideox-5b")), opened("cogvideox-5b")
    for network, kept in ((pipe, [0]), (pipe, [])):
        seen = {}
        handle = network.denoiser.transformer_blocks[1].register_forward_hook(lambda m, a, k, out: seen.update(k=k, out=out), with_kwargs=True)
        with only(branches(network.denoiser), kept):
            said = say(network)
        handle.remove()
        with torch.no_grad():
            theirs = base.denoiser.transformer_blocks[1](**seen["k"])
        assert all(torch.equal(a, b) for a, b in zip(theirs, seen["out"]))
    assert torch.equal(said, say(base))                                           # none kept: the base


def test_sampling_keeps_a_share_a_number_or_a_list(opened):
    method, pipe = open_method("det"), awake(attached(opened, "wan"), 0.3)
    sample = lambda **options: method.sample(pipe, SAID[:1], [0], method.Sampling(steps=2, w=0.0, solver="euler", **options))
    every, first, last, none = sample(keep=1.0), sample(keep=1), sample(keep=(-1,)), sample(keep=0)
    assert torch.equal(none, opened("wan").sample(SAID[:1], [0], steps=2, w=0.0, solver="euler"))
    assert torch.equal(sample(keep=(0, 1)), every) and torch.equal(sample(keep=0.35), first) and torch.equal(sample(keep=[1]), last)
    assert len({a.sum().item() for a in (every, first, last, none, sample(keep=1.0, flip=True))}) == 5
    assert torch.equal(sample(keep=1.0), every)                                    # what one sampling asks for is gone with it
    for keep, says in ((3, "first 3 blocks are kept, and 2"), ((2,), "Block 2 has no branch; the nearest that has one is 1"), (1.2, "share of 1.2")):
        with pytest.raises(MotionLabError, match=says):
            sample(keep=keep)


def test_flip_is_the_taps_reversed(opened):
    pipe = awake(attached(opened, "wan"))
    with only(branches(pipe.denoiser), (0, 1), flip=True):
        flipped = say(pipe)
    with torch.no_grad():
        for branch in branches(pipe.denoiser).values():
            branch.module.down.copy_(branch.module.down.flip(-1)), branch.module.up.copy_(branch.module.up.flip(-1))
    torch.testing.assert_close(say(pipe), flipped)


# ---------------------------------------------------------------------------------------------- training
def batch_of(pipe, points=5, seed=4):
    f, _, h, w = pipe.shape
    g = torch.Generator().manual_seed(seed)
    cells = [torch.randint(0, n, (2, f, points), generator=g) for n in (w, h)]
    return {"x1": drawn(2, *pipe.shape, seed=5), "text": pipe.text(SAID), "tracks": torch.stack([*cells, torch.randint(0, 2, cells[0].shape, generator=g)], -1).float()}


def late(pipe):
    """One sample behind the gate of the tracking loss and one before it."""
    pipe.times = lambda noise: torch.tensor([0.9, 0.2])
    return pipe


def step(pipe, method, batch):
    pipe.zero_grad(set_to_none=True)
    loss, seen = method.loss(pipe)(pipe, batch, SampleNoise(0, 0, range(2)))
    loss.backward()
    return loss.item(), seen["per_sample"].detach(), {n: p.grad.clone() for n, p in pipe.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize("target", ["x1", "features"])
def test_gradients_with_checkpointing_are_those_without(opened, name, target):
    """Its blocks run again when the network's call is over: the branch knows its grid still."""
    pipe, method = late(awake(attached(opened, name))).train(), open_method("det", target=target, weight=0.5)
    batch, found = batch_of(pipe), []
    for on in (False, True):
        if on:
            pipe.denoiser.enable_gradient_checkpointing()
        found.append(step(pipe, method, batch))
    assert found[0][0] == pytest.approx(found[1][0]) and found[0][2].keys() == found[1][2].keys() and len(found[0][2]) >= 2
    for n, grad in found[0][2].items():
        assert grad.abs().max() > 0
        torch.testing.assert_close(found[1][2][n], grad)


@pytest.mark.parametrize("target", ["x1", "features"])
def test_the_loss_is_the_diffusion_loss_and_the_gated_term(opened, target):
    pipe, weight = late(awake(attached(opened, "wan"))), 0.5
    batch, method = batch_of(pipe), open_method("det", weight=weight, target=target)
    loss, per_sample, _ = step(pipe, method, batch)
    plain, same, _ = step(pipe, dataclasses.replace(method, weight=0.0), batch)
    assert plain == pytest.approx(same.mean().item()) and torch.equal(per_sample, same)
    if target == "x1":
        noise = SampleNoise(0, 0, range(2))
        x0, t = noise.randn(*pipe.shape), torch.tensor([0.9, 0.2])
        x_t = t[:, None, None, None, None] * batch["x1"] + (1 - t)[:, None, None, None, None] * x0
        with torch.no_grad():
            u = pipe(x_t, t, batch["text"])
        term = along_tracks(x_t + (1 - t)[:, None, None, None, None] * u, batch["tracks"])
        assert late_enough(t).tolist() == [True, False]
        assert loss - plain == pytest.approx(weight * term[0].item() / 2, rel=1e-4)
    else:
        assert loss > plain
    pipe.times = lambda noise: torch.tensor([0.1, 0.2])
    assert step(pipe, method, batch)[0] == step(pipe, dataclasses.replace(method, weight=0.0), batch)[0]      # too noisy: no term


def test_weight_0_is_training_without_tracks_to_the_bit(opened):
    found = []
    for weight in (0.0, 0.1):
        pipe, method = attached(opened, "wan"), open_method("det", weight=weight)
        pipe.times = lambda noise: torch.tensor([0.1, 0.2])
        batch = batch_of(pipe)
        found.append(step(pipe, method, {k: v for k, v in batch.items() if weight or k != "tracks"}))
    assert open_method("det", weight=0.0).wants() == () and open_method("det").wants()[0].kind == "tracks"
    assert found[0][0] == found[1][0] and all(torch.equal(found[0][2][n], grad) for n, grad in found[1][2].items())


def test_v_loss_weighs_each_clip_by_its_time(opened):
    pipe = late(attached(opened, "wan"))
    batch = {k: v for k, v in batch_of(pipe).items() if k != "tracks"}
    _, per_sample, _ = step(pipe, open_method("det", weight=0.0), batch)
    loss, same, _ = step(pipe, open_method("det", weight=0.0, v_loss=True), batch)
    assert torch.equal(per_sample, same) and loss == pytest.approx((per_sample * torch.tensor([0.82, 0.68])).mean().item())


@pytest.mark.parametrize("name", FOUR)
def test_hook_taps_and_lora_go_together(opened, name):
    """Whichever is attached first; taps see the branch in what attention gives, and change nothing."""
    said = []
    for order in (("det", "lora"), ("lora", "det")):
        pipe = opened(name)
        for method in order:
            open_method(method, **{"lora": {"rank": 2}}.get(method, {})).attach_to(pipe.denoiser, pipe.channels)
        with torch.no_grad():
            for n, p in sorted(pipe.denoiser.named_parameters()):
                if ".branch." in n or "lora_" in n:
                    p.copy_(0.1 * drawn(*p.shape, seed=len(n)))
        said.append(say(pipe))
    torch.testing.assert_close(*said)
    with features(pipe.denoiser, [0], at="attention") as inside, attention(pipe.denoiser) as maps:
        assert torch.equal(say(pipe), said[1])
    with only(branches(pipe.denoiser), ()), features(pipe.denoiser, [0], at="attention") as without:
        silent = say(pipe)
    ((entry,),), ((other,),) = (list(seen.values()) for seen in (inside, without))
    assert entry.shape[1:4] == GRID and not torch.allclose(entry, other) and len(maps.calls) == 1
    assert not torch.allclose(silent, said[1])


@pytest.mark.parametrize("name", FOUR)
def test_adapters_come_back_to_the_bit_and_to_their_own_base(opened, name, tmp_path):
    method, pipe = open_method("det"), awake(attached(opened, name))
    path = save_method(method, pipe, tmp_path / "d.safetensors", dtype=torch.float32)
    again = load_method(method, opened(name), path)
    assert torch.equal(say(again), say(pipe)) and path.stat().st_size < 40_000
    other = opened(name)
    with torch.no_grad():
        next(other.denoiser.parameters()).add_(1)
    with pytest.raises(MotionLabError, match="trained on another base"):
        load_method(method, other, path)


@pytest.mark.parametrize("name", ["wan", "hunyuanvideo"])
def test_what_it_adds_is_counted_without_memory(opened, name):
    pipe, method = attached(opened, name), open_method("det")
    counted = sizes.measure(opened.folder(name), *CLIPS[name], attach=method.attach_to)
    assert counted.added == sum(p.numel() for p in pipe.parameters() if p.requires_grad) and counted.tokens == 18


def test_losses_tell_the_tracking_loss_and_its_floor(opened):
    pipe, method = attached(opened, "wan"), open_method("det")
    batch, noise = batch_of(pipe), {"x1": drawn(2, *pipe.shape, seed=9)}
    found = method.losses(pipe, drawn(2, *pipe.shape), T, batch["text"], batch, noise)
    assert found.keys() == {"loss", "tracking", "floor"} and all(value.shape == (2,) for value in found.values())
    torch.testing.assert_close(found["floor"], along_tracks(batch["x1"], batch["tracks"]))


def test_a_branch_learns_its_clip(opened):
    """The loss on noise that it was not trained on falls; without the branch nothing has changed."""
    pipe, method = attached(opened, "wan"), open_method("det", weight=0.0)
    batch = {"x1": drawn(1, *pipe.shape, seed=5).expand(2, -1, -1, -1, -1), "text": pipe.text(SAID[:1] * 2)}
    moved = [p for p in pipe.parameters() if p.requires_grad]
    optimizer, base = torch.optim.AdamW(moved, lr=3e-3), say(opened("wan"))

    def judged():
        pipe.times = lambda noise: torch.tensor([0.3, 0.6])
        with torch.no_grad():
            return method.loss(pipe)(pipe, batch, SampleNoise(1, 0, range(2)))[0].item()

    before = judged()
    pipe.times = lambda noise: noise.rand()
    for k in range(60):
        optimizer.zero_grad()
        method.loss(pipe)(pipe, batch, SampleNoise(0, k, range(2)))[0].backward()
        optimizer.step()
    assert judged() < 0.9 * before
    with only(branches(pipe.denoiser), ()):
        assert torch.equal(say(pipe), base)


# ---------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("settings, message", [
    ({"k": 4}, "no middle one"), ({"module": "kernal"}, "Did you mean 'kernel'"), ({"place": "skp"}, "Did you mean 'skip'"), ({"weight": -1.0}, "weight -1"),
    ({"target": "feature"}, "Did you mean 'features'"), ({"teacher": "cotraker"}, "Did you mean 'cotracker'"), ({"points": 0}, "points 0"),
    ({"begin": "x"}, "Unknown start"), ({"wieght": 1.0}, "Did you mean 'weight'")])
def test_bad_settings_are_named(settings, message):
    with pytest.raises(MotionLabError, match=message):
        open_method("det", **settings)


def test_clips_of_fewer_latent_frames_than_the_kernel_are_refused():
    with pytest.raises(MotionLabError, match="5 frames is 2 frames of tokens, fewer than the kernel's 3.*\n.*Give 9 frames or more"):
        open_method("det").attach(small_model(length=2))
    open_method("det", module="mlp", k=1).attach(small_model(length=2))


def test_branches_are_added_once():
    pipe = small_model(length=3)
    open_method("det").attach(pipe)
    with pytest.raises(MotionLabError, match="has branches already"):
        open_method("det").attach(pipe)


def test_sampling_without_a_branch_is_refused():
    method, pipe = open_method("det"), small_model(length=3)
    with pytest.raises(MotionLabError, match="has no branch"):
        method.sample(pipe, ["a red dog runs to the left over the meadow"], [0])


def test_networks_without_a_grid_are_refused(tmp_path):
    with pytest.raises(MotionLabError, match="U-Net has no one grid"):
        add_branches(open_pipe(str(SNAPSHOTS["svd"](tmp_path / "s")), 9, 32, 32).denoiser, lambda width: torch.nn.Identity())
