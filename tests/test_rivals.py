"""What other papers' ways to take a motion from one clip do here: adapters of tables and of two LoRAs, guidance, spectral losses."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from motionlab import cli
from motionlab.core.errors import MotionLabError
from motionlab.core.noise import SampleNoise
from motionlab.data.prompts import load_prompts
from motionlab.data.sidecars import CAPTION, Sidecar, captions, encoded
from motionlab.data.sources import Listed
from motionlab.diffusion import euler, inverted, time_grid
from motionlab.experiments.arms import read_arm
from motionlab.experiments.rows import sampled
from motionlab.methods import open_method
from motionlab.methods.dmt import Guided, Guiding, difference_energy, low
from motionlab.methods.files import load_method, save_method
from motionlab.methods.motion_director import LowRank, debiased, use
from motionlab.methods.motion_inversion import Tables, TablesSampling, show_appearance, token_grid
from motionlab.methods.plain import Prediction
from motionlab.methods.sma import global_loss, haar_details, local_loss, low_frequency_weights
from motionlab.models import size
from motionlab.models.open import open_pipe
from motionlab.training import TrainConfig, train
from motionlab.training.trained import trained_state
from small import small_model
from snapshots import CLIP, SIZES

CLASSES = ("cogvideox-2b", "wan", "ltx", "hunyuanvideo")
TRAINED = ("motion_inversion", "motion_director", "sma")
SAID = ["a red dog runs to the left over the meadow", "a blue fish swims to the right under the sea"]


@pytest.fixture
def opened(folders):
    return lambda name: small() if name == "small" else open_pipe(str(folders(name)), *SIZES.get(name, CLIP), dtype=torch.float32)


def small(length=2):
    return small_model(layers=2, length=length, stir=0.1)


def inputs(pipe, b=2, f=None):
    """Latents, times and text of a call."""
    g = torch.Generator().manual_seed(5)
    said = SAID[:b] if pipe.kind == "motionlab" else ["a cat walks.", "a dog runs."][:b]
    return torch.randn(b, f or pipe.shape[0], *pipe.shape[1:], generator=g), torch.tensor([0.3, 0.7])[:b], pipe.text(said)


def stirred(pipe):
    """The pipe with noise on all that is trained."""
    g = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for p in pipe.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn(p.shape, generator=g))
    return pipe


class OneClip:
    """The same clip in every batch."""

    def __init__(self, pipe, n=1):
        g = torch.Generator().manual_seed(7)
        self.x1, self.single = (torch.randn(1, *pipe.shape, generator=g) for _ in range(2))
        self.text, self.n = pipe.text(SAID[:1]), n

    def __len__(self):
        return self.n

    def batch(self, indices):
        return {key: value.expand(len(indices), *value.shape[1:]) for key, value in (("x1", self.x1), ("single", self.single))} | {
            "text": {name: value.expand(len(indices), *value.shape[1:]) for name, value in self.text.items()}}


def settings(folder, steps, **more):
    return TrainConfig(**{"steps": steps, "out_dir": str(folder), "batch_size": 1, "warmup": 0, "checkpoint_every": 0, "log_every": 0,
                          "lr": 1e-2} | more)


def told(method, pipe, progress=0.99, seeds=range(4)):
    """The mean loss on the clip at fixed noise and times."""
    with torch.no_grad():
        return float(torch.stack([method.loss(pipe)(pipe, OneClip(pipe).batch([0]), SampleNoise(1, k, range(1), progress=progress))[0]
                                  for k in seeds]).mean())


# ---------------------------------------------------------------------------------------------- all that are trained
@pytest.mark.parametrize("method, name", [(method, name) for name in ("small", *CLASSES) for method in TRAINED
                                          if method != "sma" or name in ("small", "hunyuanvideo")])        # its LoRA is method lora's
def test_a_rival_begins_as_the_base_is_counted_and_comes_back(method, name, opened, folders, tmp_path):
    pipe, method = opened(name), open_method(method)
    x, t, text = inputs(pipe)
    base, before = pipe.velocity(x, t, text), sum(p.numel() for p in pipe.parameters())
    said, options = ["a cat walks."] if name != "small" else SAID[:1], method.Sampling(steps=2)
    start = pipe.sample(said, [3], steps=2)
    method.attach(pipe)
    assert torch.equal(pipe.velocity(x, t, text), base)
    added = sum(p.numel() for p in pipe.parameters()) - before
    assert added == sum(value.numel() for value in trained_state(pipe).values()) == sum(p.numel() for p in pipe.parameters() if p.requires_grad)
    if name != "small":
        counting = open_method("motion_inversion", grid=token_grid(pipe)) if method.name == "motion_inversion" else method
        assert size.measure(str(folders(name)), *SIZES.get(name, CLIP), attach=counting.attach_to).added == added
    path = save_method(method, stirred(pipe), tmp_path / "m.safetensors", dtype=torch.float32)
    clips = method.sample(pipe, said, [3], options)
    again = load_method(method, opened(name), path)
    assert torch.equal(method.sample(again, said, [3], options), clips)
    assert not torch.allclose(clips, start, atol=1e-4)


@pytest.mark.parametrize("method, settings_of_it", [("motion_inversion", {}), ("sma", {}), ("motion_director", {"spatial_share": 0.25})])
def test_one_clip_is_learned(method, settings_of_it, tmp_path):
    pipe, method = small(), open_method(method, **settings_of_it, text_dropout=0.0, first=0.0, first_last=0.0)
    method.attach(pipe)
    before = told(method, pipe)
    train(pipe, method.loss(pipe), OneClip(pipe), settings(tmp_path, 30))
    assert told(method, pipe) < 0.97 * before


def test_the_row_of_lora_is_as_large_as_the_paper_has_it():
    """Rank d / 16 at k and v of every block: 2 x 2 x 192 x 12 = 9 216 parameters a block of the testbed's base."""
    from motionlab.models.small.backbone import Backbone, BackboneConfig

    network = Backbone(BackboneConfig(layers=2)).transformer.requires_grad_(False)
    open_method("lora").attach_to(network, 24)
    for block in network.transformer_blocks:
        assert sum(p.numel() for p in block.parameters() if p.requires_grad) == 9216
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 2 * 9216


def test_the_size_command_counts_them_and_says_what_it_cannot_count(capsys):
    for words, says in ((["motion_inversion", "-p", "grid=[5, 12, 12]"], "0.229 M trained"),                          # 8 x (5 + 12 x 12) x 192
                        (["motion_director"], "0.147 M trained")):                                                   # twice lora's 73 728
        assert cli.main(["size", *words, "--backbone", "small", "--tflops", "1"]) == 0 and says in capsys.readouterr().out
    for words, says in ((["motion_inversion"], "give grid=(frames, height, width)"), (["dmt"], "dmt is not trained")):
        assert cli.main(["size", *words, "--backbone", "small", "--tflops", "1"]) == 2 and says in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- motion_inversion
@pytest.mark.parametrize("name", ("small", *CLASSES))
def test_tables_are_added_to_video_tokens_and_no_other(name, opened):
    """At every block: what the projections read, less what they were given; motion by frame, appearance by place, text nothing."""
    pipe = opened(name)
    given, read = {}, {}
    layers = {n: m for n, m in pipe.denoiser.named_modules() if n.endswith((".to_q", ".to_k", ".to_v"))}
    for n, layer in layers.items():
        layer.register_forward_pre_hook(lambda m, a, n=n: given.__setitem__(n, a[0].detach()))
    open_method("motion_inversion").attach(pipe)
    for n, layer in layers.items():
        layer.register_forward_pre_hook(lambda m, a, n=n: read.__setitem__(n, a[0].detach()))
    pipe.velocity(*inputs(stirred(pipe)))
    f, h, w = token_grid(pipe)
    attentions = {n: m for n, m in pipe.denoiser.named_modules() if isinstance(getattr(m, "tables", None), Tables)}
    assert len(attentions) == 2 and attentions[next(iter(attentions))].tables.call[0] == (f, h, w)
    for n, attention in attentions.items():
        words = given[f"{n}.to_q"].shape[1] - f * h * w
        first = words if name in ("small", "cogvideox-2b") else 0
        assert words == (0 if name in ("wan", "ltx") or n.startswith("transformer_blocks") and name == "hunyuanvideo" else attention.tables.call[1])
        for layer, rows in (("to_q", attention.tables.motion[:, None, None]), ("to_k", attention.tables.motion[:, None, None]),
                            ("to_v", attention.tables.appearance[None])):
            added = read[f"{n}.{layer}"] - given[f"{n}.{layer}"]
            video = added[:, first:first + f * h * w].unflatten(1, (f, h, w))
            torch.testing.assert_close(video, rows.detach().expand(2, f, h, w, -1), atol=1e-5, rtol=1e-5)
            assert not added[:, :first].any() and not added[:, first + f * h * w:].any()
    others = [n for n in read if n.rpartition(".")[0] not in attentions]
    assert all(torch.equal(read[n], given[n]) for n in others) and bool(others) == (name in ("wan", "ltx", "hunyuanvideo"))


def test_appearance_is_dropped_at_sampling_and_back_for_training():
    pipe, method = small(), open_method("motion_inversion")
    method.attach(pipe)
    stirred(pipe)
    dropped, kept = (method.sample(pipe, SAID, [0, 1], TablesSampling(steps=2, appearance=on)) for on in (False, True))
    assert all(module.shown for module in pipe.modules() if isinstance(module, Tables))
    with torch.no_grad():
        for module in pipe.modules():
            if isinstance(module, Tables):
                module.appearance.zero_()
    without = method.sample(pipe, SAID, [0, 1], TablesSampling(steps=2, appearance=True))
    assert torch.allclose(dropped, without, atol=1e-6) and not torch.allclose(dropped, kept, atol=1e-3)


def test_another_grid_reads_the_tables_stretched_ends_to_ends(tmp_path):
    pipe, method = small(3), open_method("motion_inversion", grid=(2, 6, 12))
    method.attach(pipe)
    tables = next(module for module in stirred(pipe).modules() if isinstance(module, Tables))
    pipe.velocity(*inputs(pipe))
    motion, appearance = (tables.rows(name).detach().unflatten(0, (3, 12, 12)) for name in ("motion", "appearance"))
    ends, middle = tables.motion.detach(), tables.motion.detach().mean(0)
    torch.testing.assert_close(motion, torch.stack([ends[0], middle, ends[1]])[:, None, None].expand(3, 12, 12, -1))
    wanted = tables.appearance.detach()
    torch.testing.assert_close(appearance[1, [0, -1]], wanted[[0, -1]])
    torch.testing.assert_close(appearance[0, 1], wanted[0] * 6 / 11 + wanted[1] * 5 / 11)
    own = open_method("motion_inversion")
    path = save_method(own, attached(own, small(2)), tmp_path / "m.safetensors")
    with pytest.raises(MotionLabError, match="not the trained part"):
        load_method(own, small(3), path)
    shorter = load_method(own, small(2), path)
    assert shorter.velocity(*inputs(shorter, f=1)).isfinite().all()


def attached(method, pipe):
    method.attach(pipe)
    return pipe


@pytest.mark.parametrize("name", ("cogvideox-2b", "hunyuanvideo"))
@pytest.mark.parametrize("method", ("motion_inversion", "motion_director"))
def test_gradient_checkpointing_changes_no_gradient(name, method, opened):
    pipe = attached(open_method(method), opened(name)).train()
    stirred(pipe)
    use(pipe.denoiser, "still", "trained")
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            pipe.denoiser.enable_gradient_checkpointing()
        pipe.zero_grad()
        pipe(*inputs(pipe)).square().mean().backward()
        found.append([p.grad for p in pipe.parameters() if p.requires_grad])
    for plain, again in zip(*found):
        assert (plain is None) == (again is None)
        assert plain is None or (plain.abs().sum() > 0 and torch.allclose(plain, again, atol=1e-7, rtol=1e-4))
    assert sum(g is None for g in found[0]) == (len(found[0]) // 2 if method == "motion_director" else 0)       # the spatial LoRA's


def test_what_tables_cannot_be_laid_on_is_told(tmp_path):
    class SomeUNet(nn.Module):
        pass

    pipe = small()
    for call, says in ((lambda: open_method("motion_inversion", grid=(2, 3, 3)).attach_to(SomeUNet(), 4), "motion_inversion: A U-Net has no one grid"),
                       (lambda: open_method("motion_inversion").attach_to(pipe.denoiser, 4), "its tables have no size"),
                       (lambda: open_method("motion_inversion", grid=(2, 0, 3)).attach(pipe), r"grid is \(2, 0, 3\)"),
                       (lambda: open_method("motion_inversion", gird=(1, 1, 1)), "Did you mean 'grid'")):
        with pytest.raises(MotionLabError, match=says):
            call()
    attached(open_method("motion_inversion"), pipe)
    show_appearance(pipe, False)
    out = pipe(*inputs(pipe))
    pipe.denoiser.transformer_blocks[0].attn1.tables.call = ((1, 2, 2), 0, 0)
    with pytest.raises(MotionLabError, match="Attention reads 320 tokens, of a clip of 4"):
        pipe.denoiser.transformer_blocks[0].attn1(out.new_zeros(1, 288, 32), encoder_hidden_states=out.new_zeros(1, 32, 32))


# ---------------------------------------------------------------------------------------------- motion_director
def test_debiased_velocities_are_the_formula_frame_by_frame():
    g = torch.Generator().manual_seed(0)
    e, anchor = torch.randn(3, 4, 2, 5, 5, generator=g), torch.tensor([0, 3, 2])
    found = debiased(e, anchor)
    for b in range(3):
        for f in range(4):
            torch.testing.assert_close(found[b, f], math.sqrt(2) * e[b, f] - e[b, anchor[b]])


def test_the_loss_has_both_terms_and_draws_its_anchor_last():
    pipe, method = small(3), open_method("motion_director", debias=0.5)
    batch, noise = OneClip(pipe).batch([0, 0]), SampleNoise(0, 3, range(2), progress=0.9)
    u = torch.randn(2, *pipe.shape, generator=torch.Generator().manual_seed(1))
    seen = {}
    method.attach(pipe)
    loss, parts = method.loss(pipe)(lambda x_t, *_: seen.setdefault("x_t", x_t) * 0 + u, batch, noise)
    t = parts["t"].view(-1, 1, 1, 1, 1)
    v = (batch["x1"] - seen["x_t"]) / (1 - t)                              # x_t = t x1 + (1 - t) x0, so v = (x1 - x_t) / (1 - t)
    terms = []
    for a in range(3):
        gap = math.sqrt(2) * (u - v) - (u - v)[:, a:a + 1]
        terms.append(gap.square().flatten(1).mean(1))
    plain = (u - v).square().flatten(1).mean(1)
    choices = [(plain + 0.5 * torch.stack([terms[a][0], terms[b][1]])).mean() for a in range(3) for b in range(3)]
    assert min(abs(float(loss - choice)) for choice in choices) < 1e-4 * float(loss)
    torch.testing.assert_close(parts["per_sample"], plain, rtol=1e-4, atol=1e-4)
    other, x = open_method("plain"), {}
    other.loss(pipe)(lambda x_t, *_: x.setdefault("x_t", x_t), batch, SampleNoise(0, 3, range(2), progress=0.9))
    assert torch.equal(x["x_t"], seen["x_t"])                              # the same noise and times as without the term


def adapters(pipe):
    pairs = [(m.spatial, m.temporal) for m in pipe.denoiser.modules() if isinstance(getattr(m, "temporal", None), LowRank)]
    return [[p.detach().clone() for pair in pairs for p in pair[k].parameters()] for k in (0, 1)]


def test_the_spatial_lora_learns_frames_first_and_then_stays_bit_for_bit(tmp_path):
    """Weight decay and momentum would move it too, where it only had a gradient of zero. A run cut in each phase ends the same."""
    method, seen = open_method("motion_director", spatial_share=0.5), []

    def run(folder, cuts=()):
        pipe = small(3)
        method.attach(pipe)
        states, start = [adapters(pipe)], 0
        for until in (*cuts, 4):
            result = train(pipe, method.loss(pipe), OneClip(pipe), settings(folder, 4, weight_decay=0.1), until=until)
            states.append(adapters(pipe))
            assert result.step == until
            pipe = attached(method, small(3)) if until < 4 else pipe       # a new process knows what the checkpoint holds
        return states, pipe

    (begun, phase_one, whole), pipe = run(tmp_path / "a", (2,))
    same = lambda a, b: all(torch.equal(p, q) for p, q in zip(a, b))
    assert not same(begun[0], phase_one[0]) and same(begun[1], phase_one[1])                # steps 1, 2: the spatial alone
    assert same(phase_one[0], whole[0]) and not same(phase_one[1], whole[1])                # steps 3, 4: the temporal alone
    states, _ = run(tmp_path / "b")
    cut, _ = run(tmp_path / "c", (1, 3))
    assert all(same(states[-1][k], other[k]) for other in (whole, cut[-1]) for k in (0, 1))


def test_single_frames_are_shown_alone_and_sampling_has_the_second_lora_only(monkeypatch):
    pipe, method, shapes = small(3), open_method("motion_director"), []
    method.attach(pipe)
    batch = OneClip(pipe).batch([0, 0])
    assert [s.kind for s in method.wants()] == ["stills"] and method.wants()[0].key == "single"
    method.loss(pipe)(lambda x_t, *_: shapes.append(x_t.shape) or x_t, batch, SampleNoise(0, 0, range(2)))
    assert shapes == [(2, 1, *pipe.shape[1:])]
    stirred(pipe)
    clips = method.sample(pipe, SAID, [0, 1], method.Sampling(steps=2))
    for p in (p for m in pipe.modules() if isinstance(getattr(m, "spatial", None), LowRank) for p in m.spatial.parameters()):
        p.data.zero_()
    assert torch.equal(method.sample(pipe, SAID, [0, 1], method.Sampling(steps=2)), clips)
    for share in (-0.1, 1.0):
        with pytest.raises(MotionLabError, match="spatial_share is"):
            open_method("motion_director", spatial_share=share)
    monkeypatch.setattr(type(pipe), "reads", ("ends",))
    with pytest.raises(MotionLabError, match="trains on single frames"):
        method.attach(pipe)


@pytest.mark.parametrize("name", CLASSES)
def test_both_phases_run_on_every_class(name, opened):
    pipe, method = opened(name), open_method("motion_director")
    method.attach(pipe)
    x, _, text = inputs(pipe)
    for progress in (0.0, 0.9):
        pipe.zero_grad()
        loss, _ = method.loss(pipe)(pipe, {"x1": x, "single": x, "text": text}, SampleNoise(0, 0, range(2), progress=progress))
        loss.backward()
        moved = {n for n, p in pipe.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved and all((".temporal." if progress else ".spatial.") in n for n in moved)


# ---------------------------------------------------------------------------------------------- sma
def test_spectral_losses_are_their_formulas():
    g = np.random.default_rng(0)
    ours, theirs = g.normal(size=(2, 2, 5, 3, 4, 6))
    h, w = 4, 6
    rows, columns = np.meshgrid(np.arange(h) - h / 2, np.arange(w) - w / 2, indexing="ij")                      # zero frequency in the middle
    weight = ((h / 2) ** 2 + (w / 2) ** 2) ** 0.05 - (rows ** 2 + columns ** 2) ** 0.05 + 1
    spectra = [np.fft.fftshift(np.fft.fft2(np.abs(x[:, 1:] - x[:, :-1])), axes=(-2, -1)) for x in (ours, theirs)]
    turned = np.abs(np.angle(spectra[0]) - np.angle(spectra[1]))
    gap = np.abs(np.abs(spectra[0]) - np.abs(spectra[1])) + np.minimum(turned, 2 * np.pi - turned)                # around the circle
    found = local_loss(torch.tensor(ours), torch.tensor(theirs))
    np.testing.assert_allclose(found, (gap * weight).reshape(2, -1).mean(1), rtol=1e-4)
    np.testing.assert_allclose(torch.fft.fftshift(low_frequency_weights(h, w)), weight, rtol=1e-6)
    assert weight.argmax() == (h // 2) * w + w // 2

    def haar(x, levels):
        bands = []
        for _ in range(levels):
            x = np.concatenate([x, x[:, -1:]], 1) if x.shape[1] % 2 else x
            bands.append(np.stack([(x[:, k] - x[:, k + 1]) / np.sqrt(2) for k in range(0, x.shape[1], 2)], 1))
            x = np.stack([(x[:, k] + x[:, k + 1]) / np.sqrt(2) for k in range(0, x.shape[1], 2)], 1)
        return bands

    wanted = sum(np.abs(a - b).reshape(2, -1).mean(1) for a, b in zip(haar(ours, 3), haar(theirs, 3)))
    np.testing.assert_allclose(global_loss(torch.tensor(ours), torch.tensor(theirs)), wanted, rtol=1e-5)


def test_wavelets_of_short_clips_have_the_levels_that_there_are():
    assert [[band.shape[1] for band in haar_details(torch.randn(1, f, 2))] for f in (1, 2, 3, 5, 13)] == [[], [1], [2, 1], [3, 2, 1], [7, 4, 2]]
    still = torch.randn(1, 1, 3, 4, 4).expand(1, 5, 3, 4, 4)
    assert all(not band.any() for band in haar_details(still))                               # looks are in no band: also not the last frame's
    assert global_loss(still, 2 * still) == 0 and local_loss(still, 2 * still) == 0
    x = still.clone().requires_grad_()
    (local_loss(x, torch.randn(1, 5, 3, 4, 4)) + global_loss(x, torch.randn(1, 5, 3, 4, 4))).sum().backward()
    assert x.grad.isfinite().all()                                                           # phase and size of nothing
    one = torch.randn(2, 1, 3, 4, 4)
    assert torch.equal(local_loss(one, -one), torch.zeros(2)) and torch.equal(global_loss(one, -one), torch.zeros(2))


def test_spectral_losses_are_added_on_the_clean_estimate():
    pipe, method, t = small(3), open_method("sma", local=0.3, band=0.2), torch.tensor([0.2, 0.6])
    x0, x1, u = (torch.randn(2, *pipe.shape, generator=torch.Generator().manual_seed(k)) for k in range(3))
    at = t.view(-1, 1, 1, 1, 1)
    said = Prediction(u, at * x1 + (1 - at) * x0, t, x1, x0)
    hat = said.x_t + (1 - at) * u
    torch.testing.assert_close(method._spectral(said, None, None), 0.3 * local_loss(hat, x1) + 0.2 * global_loss(hat, x1))
    assert torch.allclose(method._spectral(said._replace(u=x1 - x0), None, None), torch.zeros(2), atol=1e-3)                   # a perfect one
    method.attach(pipe)
    noise = lambda: SampleNoise(0, 0, range(2))
    with torch.no_grad():
        loss, parts = method.loss(pipe)(pipe, OneClip(pipe).batch([0, 0]), noise())
        none, same = open_method("sma", local=0.0, band=0.0).loss(pipe)(pipe, OneClip(pipe).batch([0, 0]), noise())
    assert loss > none == same["per_sample"].mean() and torch.equal(parts["per_sample"], same["per_sample"])
    with pytest.raises(MotionLabError, match="local is -1"):
        open_method("sma", local=-1.0)
    with pytest.raises(MotionLabError, match="no linear layer named"):
        open_method("sma", targets="to_x").attach(small())


# ---------------------------------------------------------------------------------------------- dmt
def given(pipe, said=SAID):
    """A source clip of noise and its caption, per prompt."""
    letters = np.stack([np.frombuffer(text.encode().ljust(CAPTION, b"\0"), np.uint8) for text in said])
    return {"source": torch.randn(len(said), *pipe.shape, generator=torch.Generator().manual_seed(3)), "said": torch.from_numpy(letters)}


def test_the_energy_is_its_sum_over_pairs_of_frames():
    g, s = torch.randn(2, 2, 4, 7, generator=torch.Generator().manual_seed(0))
    wanted = torch.zeros(2)
    for i in range(4):
        for j in range(4):
            wanted += ((g[:, i] - g[:, j]) - (s[:, i] - s[:, j])).square().sum(1)
    torch.testing.assert_close(difference_energy(g, s), wanted)
    torch.testing.assert_close(difference_energy(g + 3.0, s), wanted, rtol=1e-4, atol=1e-3)        # what all frames share does not count


def test_inversion_undoes_sampling_in_the_limit_of_small_steps():
    x1 = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    u = lambda x, t: torch.sin(2 * x) + t.view(-1, 1, 1)
    gaps = []
    for steps in (10, 20, 40):
        grid = time_grid(steps)
        path = inverted(u, x1, grid)
        assert [t for t, _ in path] == [float(t) for t in grid] and torch.equal(path[-1][1], x1)
        gaps.append(float((euler(u, path[0][1], grid) - x1).abs().max()))
    assert gaps[0] > 1.7 * gaps[1] > 1.7 ** 2 * gaps[2]
    t, before = path[-2]
    torch.testing.assert_close(before, x1 - (1 - t) * u(x1, torch.ones(2)))
    with pytest.raises(MotionLabError, match="increasing times"):
        inverted(u, x1, torch.tensor([1.0, 0.0]))


def test_guidance_lowers_the_energy_and_off_is_the_base():
    pipe, method = small(3), open_method("dmt")
    source = given(pipe)
    base = pipe.sample(SAID, [0, 1], steps=4)
    for off in (Guiding(steps=4, moves=0, begin="noise"), Guiding(steps=4, share=0.0, begin="noise"), Guiding(steps=4, rate=0.0, begin="noise")):
        assert torch.equal(method.sample(pipe, SAID, [0, 1], off, given=source), base)
    steps = []
    clips = method.sample(pipe, SAID, [0, 1], Guiding(steps=4, begin="noise"), given=source, callback=steps.append)
    start, noise = steps[0]["x"], pipe.noise([0, 1])
    assert not torch.allclose(clips, base) and len(steps) == 4 and not torch.equal(start, noise)
    torch.testing.assert_close(steps[0]["x1_hat"], start + steps[0]["u"])
    torch.testing.assert_close(steps[3]["x"], steps[2]["x"] + (steps[3]["t"] - steps[2]["t"]) * steps[2]["u"])       # the second half is left alone
    guide = Guided(pipe, pipe.text(SAID), pipe.guided(SAID), source["source"], pipe.text(SAID), Guiding(steps=4))
    x, t = noise, torch.zeros(2)
    s = guide.features(guide.source_at(0.0), t, guide.said)
    energies = [difference_energy(guide.features(x, t, guide.text), s)]
    for _ in range(3):
        after = guide.descend(x, t, s)
        torch.testing.assert_close((after - x).square().flatten(1).mean(1).sqrt(), torch.full((2,), 0.02))
        x = after
        energies.append(difference_energy(guide.features(x, t, guide.text), s))
    assert all((later < earlier).all() for earlier, later in zip(energies, energies[1:]))
    assert all(p.grad is None for p in pipe.parameters())


def test_generation_begins_with_the_sources_low_frequencies():
    pipe, method = small(2), open_method("dmt")
    source, begun = given(pipe, SAID[::-1]), {}
    for begin in ("noise", "low", "inverted"):
        steps = []
        method.sample(pipe, SAID, [0, 1], Guiding(steps=2, moves=0, begin=begin), given=source, callback=steps.append)
        begun[begin] = steps[0]["x"]
    inverse = inverted(pipe.bound(SAID[::-1]), source["source"], pipe.grid(2))[0][1]                    # under the source's own caption
    assert torch.equal(begun["noise"], pipe.noise([0, 1])) and torch.equal(begun["inverted"], inverse)
    torch.testing.assert_close(begun["low"], begun["noise"] + low(inverse - begun["noise"]))
    flat = torch.ones(1, 1, 1, 12, 12)
    torch.testing.assert_close(low(flat), flat)
    board = (torch.arange(12)[:, None] + torch.arange(12)) % 2 * 2.0 - 1
    assert low(board.view(1, 1, 1, 12, 12)).abs().max() < 0.1


@pytest.mark.parametrize("name", CLASSES)
def test_guidance_runs_on_every_class_by_its_own_scheduler(name, opened):
    pipe, method = opened(name), open_method("dmt")
    method.attach(pipe)
    source = given(pipe, ["a dog runs."])
    guided, free = (method.sample(pipe, ["a cat walks."], [3], Guiding(steps=2, moves=moves, rate=0.1, begin="noise"), given=source)
                    for moves in (1, 0))
    assert guided.isfinite().all() and not torch.allclose(guided, free, atol=1e-5)
    assert torch.equal(free, pipe.sample(["a cat walks."], [3], steps=2))


def test_it_is_an_arm_without_training_and_is_given_the_true_clips(tmp_path):
    arm, prompts = read_arm({"name": "dmt", "method": "dmt", "sample": {"steps": 2, "block": 1, "moves": 1}}), load_prompts("examples", 2)
    assert arm.budget is None and arm.method.truth(arm.sampling) == (Sidecar("x1", key="source"), Sidecar("caption", key="said"))
    found = encoded(Listed([p.clip(frames=5) for p in prompts]), arm.method.truth(arm.sampling), small(2))
    assert captions(found["said"]) == [p.clip(frames=5).caption for p in prompts] and found["source"].shape == (2, *small(2).shape)
    assert sampled(arm, small(2), prompts, 0).shape == (2, 5, 48, 48, 3)
    with pytest.raises(MotionLabError, match="trains method dmt, which acts while sampling"):
        read_arm({"name": "dmt", "method": "dmt", "train": {"lr": 1e-3}})
    path = save_method(arm.method, attached(arm.method, small(2)), tmp_path / "d.safetensors")
    assert not trained_state(load_method(arm.method, small(2), path))                        # its file holds which method, and no weights


def test_what_guidance_cannot_do_is_told():
    from motionlab.experiments.tuning import TuneConfig, tune

    pipe, method = small(2), open_method("dmt")
    source = given(pipe)
    frame = torch.zeros(2, 3, 48, 48)
    for call, says in ((lambda: method.sample(pipe, SAID, [0, 1]), "given=.*'source'"),
                       (lambda: method.sample(pipe, SAID, [0, 1], given={"source": source["source"]}), "given=.*'said'"),
                       (lambda: Sidecar("caption").draw(Listed([type("", (), {"caption": "a" * 3000})()]), 0), "caption of 3000 bytes"),
                       (lambda: method.sample(pipe, SAID, [0, 1], Guiding(steps=1), given=source | {"source": torch.randn(2, 3, 4, 12, 12)}), r"are \(2, 3, 4"),
                       (lambda: method.sample(pipe, SAID, [0, 1], Guiding(steps=1), given=source | {"source": source["source"][:1]}), "a row per prompt"),
                       (lambda: method.sample(pipe, SAID, [0, 1], Guiding(steps=1, mode="first"), given=source, first=frame), "known frames"),
                       (lambda: method.sample(pipe, SAID, [0, 1], Guiding(steps=1, block=9), given=source), "no block 9"),
                       (lambda: Guiding(begin="lwo"), "Did you mean 'low'"), (lambda: Guiding(solver="heun"), "solver of method dmt"),
                       (lambda: Guiding(share=1.5), "share 1.5"), (lambda: Guiding(rate=-1.0), "rate is -1"),
                       (lambda: tune(method, TuneConfig(videos="v")), "dmt is not trained")):
        with pytest.raises(MotionLabError, match=says):
            call()
