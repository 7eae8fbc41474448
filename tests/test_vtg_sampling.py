"""Sampling between two pictures: every setting of VTG and its rivals does what it says, and bad input is told before anything long."""
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.methods import open_method
from motionlab.models.exchange import Exchange
from motionlab.models.residuals import Residual
from motionlab.papers import vtg
from motionlab.papers.vtg import ends, sampling
from small import small_model, small_unet

SAID = ["a red dog runs to the left over the meadow", "a blue fish swims to the right under the sea"]
STEPS = 2


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 2, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def pipe():
    unet = small_unet(frames=3, stir=0.05).requires_grad_(False)
    unet.autocast = lambda: torch.autocast("cpu", enabled=False)
    return unet


def between(pipe, pictures, first=None, last=None, **options):
    method = open_method("between")
    if not hasattr(pipe, "exchange"):
        method.attach(pipe)
    given = options.pop("given", None)
    lasts = options.pop("prompts_last", None)
    return method.sample(pipe, SAID, [0, 1], method.Sampling(steps=STEPS, **options), first=pictures[0] if first is None else first,
                         last=pictures[1] if last is None else last, given=given, prompts_last=lasts)


def test_the_default_is_the_generators_own_way(pipe, pictures):
    own = pipe.sample(SAID, [0, 1], mode="first_last", first=pictures[0], last=pictures[1], steps=STEPS)
    assert torch.allclose(between(pipe, pictures), own, atol=1e-5)
    untrained = open_method("vtg")
    other = small_unet(frames=3, stir=0.05)
    untrained.attach(other)
    other.autocast, other._codec = pipe.autocast, pipe._codec
    plain = untrained.sample(other, SAID, [0, 1], untrained.Sampling(steps=STEPS, option="none"), first=pictures[0], last=pictures[1])
    assert torch.allclose(plain, own, atol=1e-5)


def test_flip_closes_the_order_gap_by_construction_and_the_plain_base_does_not(pipe, pictures):
    """Swapped ends, swapped noise, swapped output: the same clip, whatever the network."""
    for option, closed in (("P", True), ("none", False)):
        one = between(pipe, pictures, option=option, w=1.0)
        other = between(pipe, pictures, option=option, w=1.0, first=pictures[1], last=pictures[0], swapped=True)
        assert torch.allclose(one, vtg.reverse(other), atol=1e-4) == closed


def test_starts_are_what_they_say(pipe, pictures):
    z = pipe.encode_video(pictures.flatten(0, 1)[:, None])[:, 0]
    noises = ends.inverted(pipe, z, pipe.text([*SAID, *SAID]), pipe.grid(STEPS))
    seen = []
    real, pipe.solve = pipe.solve, lambda u, x0, **how: seen.append((x0, how["grid"])) or x0
    found = {how: between(pipe, pictures, start=how) for how in ("iid", "slerp", "lerp")}
    half, early = between(pipe, pictures, start="slerp", g=0.5), between(pipe, pictures, start="slerp", early=0.2)
    pipe.solve = real
    assert torch.allclose(found["slerp"][:, 0], noises[:2], atol=1e-5) and torch.allclose(found["slerp"][:, -1], noises[2:], atol=1e-5)
    assert torch.equal(found["iid"], pipe.noise([0, 1])) and torch.allclose(found["lerp"][:, 1], (noises[:2] + noises[2:]) / 2, atol=1e-5)
    assert torch.allclose(half, 0.5 ** 0.5 * (found["slerp"] + found["iid"]), atol=1e-5)
    assert seen[-1][1][0] == pytest.approx(0.2) and seen[-1][1][-1] == 1 and seen[0][1] is None
    at_early = ends.inverted(pipe, z, pipe.text([*SAID, *SAID]), pipe.grid(STEPS), 0.2)
    assert torch.allclose(early[:, 0], at_early[:2], atol=1e-5)
    true = torch.randn(2, *pipe.shape)
    again = between(pipe, pictures, start="true", given={"x1": true}, w=0.0)
    assert (again - true).abs().mean() < (found["iid"] - true).abs().mean()
    with pytest.raises(MotionLabError, match="needs its latents"):
        between(pipe, pictures, start="true")


def test_text_and_loras_act_by_frame(pipe, pictures):
    plain = between(pipe, pictures)
    text = between(pipe, pictures, text="slerp", prompts_last=[SAID[1], SAID[0]])
    assert not torch.allclose(text, plain, atol=1e-3)
    assert torch.allclose(between(pipe, pictures, text="slerp"), plain, atol=1e-4)                        # one caption twice is one caption
    lora = between(pipe, pictures, lora=2, lora_steps=3, lora_lr=1e-2)
    factor = between(pipe, pictures, lora=2, lora_steps=3, lora_lr=1e-2, mix="factor", option="P")
    assert not torch.allclose(lora, plain, atol=1e-4) and not torch.allclose(factor, lora, atol=1e-4)


def test_in_a_mirrored_task_loras_texts_and_ends_mirror_too(pipe, pictures):
    """With everything on, the fused clip of swapped ends is still the reversed one, which a mixture left in one order would break."""
    settings = {"option": "P", "text": "slerp", "start": "slerp", "lora": 2, "lora_steps": 3, "lora_lr": 1e-2, "w": 1.0}
    lasts = SAID[::-1]
    one = between(pipe, pictures, prompts_last=lasts, **settings)
    method = open_method("between")
    other = method.sample(pipe, lasts, [0, 1], method.Sampling(steps=STEPS, swapped=True, **settings), first=pictures[1], last=pictures[0],
                          prompts_last=SAID)
    assert torch.allclose(one, vtg.reverse(other), atol=1e-3)


def test_kept_ends_are_read_again_and_those_of_others_refused(pipe, pictures, tmp_path, monkeypatch):
    settings = {"lora": 2, "lora_steps": 3, "lora_lr": 1e-2, "start": "slerp", "kept": str(tmp_path)}
    first = between(pipe, pictures, **settings)
    assert len(paths := sorted(tmp_path.glob("*.safetensors"))) == 2                     # LoRAs, and the noises made with them
    path = paths[0]
    for name in ("fit_loras", "inverted"):
        monkeypatch.setattr(sampling, name, lambda *a, **k: pytest.fail("made again"))
    assert torch.allclose(between(pipe, pictures, **settings), first, atol=1e-6)
    with pytest.raises(MotionLabError, match="made of other ends"):
        ends.load_ends(path, "0123")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MotionLabError, match="holds no LoRAs or noises"):
        between(pipe, pictures, **settings)


def test_repeated_steps_keep_the_noise_level(pipe):
    """On the true velocity of unit Gaussian data every state of the sampler has the deviation of its time."""
    u = lambda x, t: x * ((2 * t - 1) / (t ** 2 + (1 - t) ** 2)).view(-1, 1, 1, 1, 1)
    x = torch.randn(64, 5, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    grid = torch.linspace(0, 1, 201)
    out = sampling.renoised(u, x, grid, 2, range(64))
    assert out.std() == pytest.approx(1.0, abs=0.03)
    still = sampling.renoised(u, x, grid, 0, range(64))
    assert not torch.allclose(out, still, atol=0.1) and torch.allclose(still, pipe.solve(u, x, grid=grid), atol=1e-4)


@torch.no_grad()
def test_one_end_a_branch_hides_the_other(pipe, pictures):
    for which in (0, 1):
        changed = pictures.clone()
        changed[1 - which] = -changed[1 - which]
        lam = float(which)                                       # the forward branch alone, or the backward one alone
        same = [between(pipe, p, option="P", ends="one", lam=lam) for p in (pictures, changed)]
        both = [between(pipe, p, option="P", lam=lam) for p in (pictures, changed)]
        assert torch.allclose(*same, atol=1e-5) and not torch.allclose(*both, atol=1e-3)


@pytest.mark.parametrize("kind", ["cross_fade", "cut", "frozen", "latent_slerp"])
def test_fades_begin_and_end_where_they_should(kind, pipe, pictures):
    method = open_method("fades")
    z = method.sample(pipe, SAID, [0, 1], method.Sampling(kind=kind), first=pictures[0], last=pictures[1])
    a, b = (pipe.encode_video(p[:, None])[:, 0] for p in pictures)
    assert z.shape == (2, *pipe.shape) and torch.allclose(z[:, 0], a, atol=1e-5) and torch.allclose(z[:, -1], a if kind == "frozen" else b, atol=1e-5)
    if kind == "cut":
        assert torch.allclose(z[:, 1], b, atol=1e-5)
    if kind == "cross_fade":
        assert torch.allclose(z[:, 1], pipe.encode_video(pictures.mean(0)[:, None])[:, 0], atol=1e-5)
    with pytest.raises(MotionLabError, match="first and a last picture"):
        method.sample(pipe, SAID, [0, 1], method.Sampling(kind=kind), first=pictures[0])


def test_morphs_interpolate_what_they_name(pipe, pictures):
    method = open_method("morphing")
    method.attach(pipe)
    found = {}
    for kind in ("tei", "di", "aid", "diffmorpher"):
        options = method.Sampling(steps=STEPS, kind=kind, rank=2, lora_steps=2, lora_lr=1e-2)
        found[kind] = method.sample(pipe, SAID, [0, 1], options, first=pictures[0], last=pictures[1], prompts_last=SAID[::-1])
        assert found[kind].shape == (2, *pipe.shape) and torch.isfinite(found[kind]).all()
    kinds = list(found)
    assert all(not torch.allclose(found[a], found[b], atol=1e-3) for i, a in enumerate(kinds) for b in kinds[:i])
    assert torch.allclose(found["tei"][:, 0], found["di"][:, 0], atol=1e-4)               # the first frame knows the first caption alone
    alone = method.sample(pipe, SAID[1:], [1], method.Sampling(steps=STEPS, kind="aid"), first=pictures[0, 1:], last=pictures[1, 1:], prompts_last=SAID[:1])
    assert torch.allclose(alone[0], found["aid"][1], atol=1e-4)                            # no pair reads another's ends


def test_keys_of_the_ends_by_hand(pipe):
    from motionlab.models.end_keys import EndKeys

    keys = EndKeys(pipe.denoiser)
    q, k, v = (torch.randn(6, 2, 7, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    shares = torch.tensor([0, 0.5, 1.0] * 2)
    attend = lambda q, k, v: torch.softmax(q @ k.mT / 8 ** 0.5, -1) @ v
    with keys.between(shares, 3):
        out = keys.attend(q, k, v)
    assert torch.allclose(out[4], attend(q[4], (k[3] + k[5]) / 2, (v[3] + v[5]) / 2), atol=1e-5) and torch.allclose(out[3], attend(q[3], k[3], v[3]), atol=1e-5)
    with keys.between(shares, 3, fused=True):
        out = keys.attend(q, k, v)
    one, other = (attend(q[1], torch.cat([k[e], k[1]], 1), torch.cat([v[e], v[1]], 1)) for e in (0, 2))
    assert torch.allclose(out[1], (one + other) / 2, atol=1e-5)


@pytest.mark.parametrize("change, says", [
    ({"last": torch.zeros(2, 3, 48, 64)}, "two ends have the sizes"),
    ({"prompts_last": ["a red dog runs over the meadow"]}, "1 captions"),
    ({"start": "slurp"}, "start of a transition"),
    ({"g": 1.5}, "out of range")])
def test_bad_pairs_are_refused_before_anything_is_sampled(change, says, pipe, pictures, monkeypatch):
    monkeypatch.setattr(sampling, "transition", lambda *a, **k: pytest.fail("sampled"))
    with pytest.raises(MotionLabError, match=says):
        between(pipe, pictures, **change)


def test_a_mode_hides_pictures_and_one_picture_twice_is_told(pipe, pictures):
    own = pipe.sample(SAID, [0, 1], mode="first", first=pictures[0], steps=STEPS)
    assert torch.allclose(between(pipe, pictures, mode="first"), own, atol=1e-5)
    with pytest.warns(UserWarning, match="Pair 1 has one picture twice"):
        between(pipe, torch.stack([pictures[0], torch.stack([pictures[1, 0], pictures[0, 1]])]))
    with pytest.raises(MotionLabError, match="begins at the last frame"):
        between(pipe, pictures, mode="first", option="P")


def test_what_a_generator_cannot_do_is_said(pictures):
    dit, short = small_model(layers=1, length=3), small_unet(frames=2)
    for settings, says in (({"text": "slerp"}, "one text for the whole clip"), ({"lora": 2}, "one text for the whole clip")):
        with pytest.raises(MotionLabError, match=says):
            between(dit, pictures, **settings)
    with pytest.raises(MotionLabError, match="nothing between its ends"):
        between(short, pictures)
    method = open_method("between")
    with pytest.raises(MotionLabError, match="both pictures"):
        method.sample(dit, SAID, [0, 1], method.Sampling(start="slerp"), first=pictures[0])
    assert method.sample(dit, SAID, [0, 1], method.Sampling(steps=1, mode="text")).shape == (2, *dit.shape)


def test_a_trained_dit_samples_by_each_option(pictures):
    dit, method = small_model(layers=2, length=3, stir=0.1), open_method("vtg")
    method.attach(dit)
    with torch.no_grad():
        for m in dit.modules():
            if isinstance(m, Residual):
                m.lora_B.normal_(generator=torch.Generator().manual_seed(0))
    found = [method.sample(dit, SAID, [0, 1], method.Sampling(steps=2, option=o), first=pictures[0], last=pictures[1]) for o in ("E", "R", "P", "none")]
    assert all(not torch.allclose(a, b, atol=1e-3) for i, a in enumerate(found) for b in found[:i]) and isinstance(dit.exchange, Exchange)


def test_a_method_samples_as_it_was_trained(pictures):
    """Own maps stay own, two forward branches are not reversed, and two whole networks are not sampled at all."""
    found = {}
    for name, settings in {"bmp": {}, "own_maps": {"shared": False}, "two_forward": {"reversed_time": False}}.items():
        pipe, method = small_unet(frames=3, stir=0.05), open_method("vtg", **settings)
        method.attach(pipe)
        pipe.autocast = lambda: torch.autocast("cpu", enabled=False)
        found[name] = method.sample(pipe, SAID, [0, 1], method.Sampling(steps=STEPS), first=pictures[0], last=pictures[1])
        if name == "two_forward":                            # with dW = 0 both branches are the base
            own = method.sample(pipe, SAID, [0, 1], method.Sampling(steps=STEPS, option="none"), first=pictures[0], last=pictures[1])
            assert torch.allclose(found[name], own, atol=1e-4)
    pipe, method = small_unet(frames=3), open_method("vtg", trained="temporal")
    method.attach(pipe)
    with pytest.raises(MotionLabError, match="by their losses only"):
        method.sample(pipe, SAID, [0, 1], first=pictures[0], last=pictures[1])
