"""Methods with a head on a tapped block: plain at weight 0, gradients where they belong, the head in no file, targets by the equations."""
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.correlation import OUTSIDE, exact_transport, inside, local_correlation, packed, unit, unpacked
from motionlab.data import seen
from motionlab.data.bank import BankConfig
from motionlab.data.seen import Seen
from motionlab.data.sidecars import Sidecar, encoded
from motionlab.data.sources import Listed, World
from motionlab.data.store import held_data, open_data
from motionlab.methods import open_method
from motionlab.methods.files import load_method, save_method
from motionlab.methods.sam2videox import TAUS
from motionlab.models.heads import head, heads_alone, width
from motionlab.models.open import open_pipe
from motionlab.papers.sam2videox import gram_flow as paper
from motionlab.training import SampleNoise, TrainConfig, train
from motionlab.world import random_scene, render
from small import small_model
from snapshots import SNAPSHOTS

SAID = ["a red dog runs to the left over the meadow", "a blue fish swims to the right under the sea"]
ON = {"sam2videox": {"teacher": "exact"}, "repa": {}, "mask": {"teacher": "exact"}}
QUICK = {"batch_size": 2, "warmup": 1, "checkpoint_every": 2, "log_every": 0, "lr": 1e-2}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fresh():
    """The same generator at every call, its codec too."""
    torch.manual_seed(0)
    return small_model(layers=4, length=3, stir=0.1)


@pytest.fixture
def pipe():
    return fresh()


@pytest.fixture(autouse=True)
def nothing_seen_before(monkeypatch):
    """What a teacher saw last is kept by clips and name: stand-ins of several tests share both."""
    monkeypatch.setattr("motionlab.data.correlations._LAST", {})


@pytest.fixture(scope="module")
def clips():
    return [render(random_scene(seed, motion=motion, camera=False), 48, 9) for seed, motion in ((3, "slide"), (5, "run"))]


@pytest.fixture
def tracker(monkeypatch):
    """A stand-in for a tracker: features that are drawn once per clip and place, the backward pass's others; the second clip is lost."""
    def look(teacher, pictures, subjects, checkpoint="", skip=False, detector=""):
        n, t = pictures.shape[:2]
        forward, backward = drawn(n, t, 6, 6, 8, seed=1), drawn(n, t, 6, 6, 8, seed=2)
        return Seen(forward, backward, torch.full((n, t - 1), 0.5), torch.arange(n) != 1, torch.from_numpy(subjects))

    monkeypatch.setattr("motionlab.data.correlations.look", look)
    monkeypatch.setattr("motionlab.data.correlations.identity", lambda teacher, checkpoint="", *more: {"teacher": f"{teacher} {checkpoint}"})


def batch_of(method, pipe, clips):
    return held_data(Listed(clips), SAID, pipe, method.wants()).batch(torch.arange(len(clips)))


def loss_of(method, pipe, batch, model=None):
    pipe.zero_grad(set_to_none=True)
    loss, about = method.loss(pipe)(model or pipe, batch, SampleNoise(0, 1, range(len(batch["x1"]))))
    loss.backward()
    return loss.detach(), about


def gradients(pipe):
    return {name: p.grad.clone() for name, p in pipe.named_parameters() if p.grad is not None}


# ---------------------------------------------------------------------------------------------- plain, and the head's place
@pytest.mark.parametrize("name", ON)
def test_at_weight_0_it_is_plain_to_the_bit(name, clips, tmp_path):
    def go(method, folder):
        pipe = fresh()
        method.attach(pipe)
        data = held_data(Listed(clips), SAID, pipe, method.wants())
        train(pipe, method.loss(pipe), data, TrainConfig(steps=3, out_dir=str(tmp_path / folder), **QUICK))
        return pipe.state_dict()

    plain, ours = go(open_method("plain"), "plain"), go(open_method(name, **ON[name], weight=0.0), name)
    assert plain.keys() == ours.keys() and all(torch.equal(plain[key], ours[key]) for key in plain)


@pytest.mark.parametrize("name", ON)
def test_its_loss_reaches_the_head_and_the_blocks_up_to_the_tap(name, pipe, clips):
    method = open_method(name, **ON[name], weight=1.0, block=2)
    method.attach(pipe)
    batch = batch_of(method, pipe, clips)
    parts = method.parts(pipe, batch, SampleNoise(0, 1, range(2)))
    grads = dict(zip(dict(pipe.named_parameters()), torch.autograd.grad(parts.own.mean(), list(pipe.parameters()), allow_unused=True)))
    reached = {name for name, grad in grads.items() if grad is not None and grad.abs().max() > 0}
    assert any(".heads." in name for name in reached) and any("transformer_blocks.1." in name for name in reached)
    assert not any(f"transformer_blocks.{k}." in name or "proj_out" in name for name in reached for k in (2, 3))
    total, about = loss_of(method, pipe, batch)
    assert torch.allclose(about["per_sample"], parts.plain) and torch.allclose(total, (parts.plain + parts.own).mean(), rtol=1e-5)
    half, _ = loss_of(dataclasses.replace(method, weight=0.5), pipe, batch)
    assert torch.allclose(half, (parts.plain + 0.5 * parts.own).mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ON)
def test_gradients_with_checkpointing_are_those_without(name, pipe, clips):
    method = open_method(name, **ON[name], weight=1.0)
    method.attach(pipe)
    batch = batch_of(method, pipe, clips)
    loss, _ = loss_of(method, pipe.train(), batch)
    plain = gradients(pipe)
    pipe.denoiser.enable_gradient_checkpointing()
    again, _ = loss_of(method, pipe, batch)
    found = gradients(pipe)
    assert torch.equal(loss, again) and plain.keys() == found.keys() and all(torch.allclose(plain[key], found[key], atol=1e-7) for key in plain)
    assert any(".heads." in key for key in plain)


@pytest.mark.parametrize("name", ON)
def test_the_head_is_in_the_resume_checkpoint_and_in_no_file(name, clips, tmp_path):
    from safetensors.torch import load_file

    def go(until, folder):
        pipe = fresh()
        method.attach(pipe)
        data = held_data(Listed(clips), SAID, pipe, method.wants())
        result = train(pipe, method.loss(pipe), data, TrainConfig(steps=4, out_dir=str(tmp_path / folder), **QUICK), until=until)
        return pipe, result

    method = open_method(name, **ON[name], weight=1.0)
    whole, result = go(None, "whole")
    assert any(".heads." in key for key in load_file(result.checkpoint / "model.safetensors"))
    go(2, "parts")
    resumed, _ = go(None, "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    path = save_method(method, whole, tmp_path / "m.safetensors", dtype=torch.float32)
    assert not any("heads" in key for key in load_file(path))
    again = load_method(method, fresh(), path)
    assert not any(".heads." in key for key in again.state_dict())
    assert torch.equal(method.sample(again, SAID, [0, 1], method.Sampling(steps=2)), method.sample(whole.eval(), SAID, [0, 1], method.Sampling(steps=2)))


def test_the_head_alone_learns_and_nothing_else_moves(pipe, clips, tmp_path):
    method = open_method("sam2videox", teacher="exact", tau=0.1)
    method.attach(pipe)
    data, before = held_data(Listed(clips), SAID, pipe, method.wants()), {name: p.clone() for name, p in pipe.named_parameters()}
    needs = {name: p.requires_grad for name, p in pipe.named_parameters()}
    batch, noise = data.batch(torch.arange(2)), SampleNoise(0, 9, range(2))
    first = method.head_loss(pipe)(pipe, batch, noise)[0]
    with heads_alone(pipe):
        train(pipe, method.head_loss(pipe), data, TrainConfig(steps=20, out_dir=str(tmp_path), **QUICK | {"lr": 3e-3}))
    moved = {name for name, p in pipe.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all(".heads." in name for name in moved) and needs == {name: p.requires_grad for name, p in pipe.named_parameters()}
    assert (method.head_loss(pipe)(pipe, batch, noise)[0] < 0.9 * first).item()


def test_the_tap_is_a_share_of_the_depth_counted_from_one():
    method = open_method("sam2videox", teacher="exact")
    eight, four = small_model(layers=8, length=3), small_model(layers=4, length=3)
    assert method.tap(eight) == 4 and method.tap(four) == 1 and open_method("repa", block=4).tap(four) == 3
    with pytest.raises(MotionLabError, match="has 4.\n.*1 to 4"):
        open_method("repa", block=5).attach(four)
    with pytest.raises(MotionLabError, match="fewer than two"):
        method.attach(small_model(layers=4, length=1))


# ---------------------------------------------------------------------------------------------- adapters
def test_as_an_adapter_it_trains_no_weight_and_loads_in_stock_diffusers(tmp_path):
    from diffusers import DiffusionPipeline

    folder = SNAPSHOTS["cogvideox-2b"](tmp_path / "s")
    pipe, method = open_pipe(str(folder), 9, 32, 48), open_method("sam2videox", teacher="exact", rank=2, targets="to_k, to_v")
    method.attach(pipe)
    mine = [name for name, p in pipe.named_parameters() if p.requires_grad]
    assert all(".heads." in name or "lora_" in name for name in mine) and len([name for name in mine if "lora_" in name]) == 2 * 2 * 2
    save_method(method, pipe, tmp_path / "lora" / "pytorch_lora_weights.safetensors", dtype=torch.float32)
    stock = DiffusionPipeline.from_pretrained(str(folder))
    stock.load_lora_weights(str(tmp_path / "lora"))
    assert any("lora_" in name for name, _ in stock.transformer.named_parameters())


# ---------------------------------------------------------------------------------------------- targets
def test_the_exact_target_is_the_transport_of_latent_steps(pipe, clips):
    drawn_ = Sidecar("transport").draw(Listed(clips), 0)
    p, known = exact_transport(clips[0].flow_between([0, 4, 8]), clips[0].visible_between([0, 4, 8]), (12, 12))
    maps = unpacked(torch.from_numpy(drawn_), (12, 12), outside=0.0)
    assert np.array_equal(maps.isfinite().all(-1).numpy(), known) and torch.allclose(maps.nan_to_num(), torch.from_numpy(p) * torch.from_numpy(known)[..., None])
    near = unpacked(torch.from_numpy(Sidecar("transport", {"where": "subject"}).draw(Listed(clips), 0)), (12, 12), outside=0.0).isfinite().all(-1)
    subject = clips[0].object_mask(None)[[0, 4]].reshape(2, 12, 4, 12, 4).any((2, 4))
    grown = np.stack([np.stack([np.roll(m, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]).any(0) for m in np.pad(subject, ((0, 0), (1, 1), (1, 1)))])[:, 1:-1, 1:-1]
    assert np.array_equal(near.numpy(), grown & known) and near.any() and not near.all()


def test_displaced_targets_and_targets_of_another_clip(pipe, clips):
    exact, other = (Sidecar("transport", settings) for settings in ({}, {"other": True}))
    assert np.array_equal(other.draw(Listed(clips), 0), exact.draw(Listed(clips), 1), equal_nan=True)
    reach = np.array([(dy, dx) for dy in range(-3, 4) for dx in range(-3, 4)])

    def mean(noise):
        maps = unpacked(torch.from_numpy(Sidecar("transport", {"noise": noise}).draw(Listed(clips), 0)), (12, 12), outside=0.0)[:, 3:9, 3:9]
        return maps.nan_to_num().numpy() @ reach, maps.isfinite().all(-1).numpy()

    (still, a), (moved, b) = mean(0.0), mean(1.0)
    apart = (moved - still)[a & b]
    assert 0.6 < apart.std() < 1.3 and abs(apart.mean()) < 0.3
    assert np.array_equal(mean(1.0)[0], moved)                                          # the same in every run


def test_the_loss_is_the_papers_on_what_the_head_says(pipe, clips):
    method = open_method("sam2videox", teacher="exact", where="subject", weight=1.0, tau=0.2, out=16)
    method.attach(pipe)
    batch, hidden = batch_of(method, pipe, clips), drawn(2, 3, 12, 12, width(pipe.denoiser))
    maps = local_correlation(head(pipe.denoiser, "sam2videox")(hidden))
    target = unpacked(batch["target"], (12, 12), outside=0.0)
    where = target.isfinite().all(-1)
    log_q = (maps / 0.2).log_softmax(-1)
    kl = (torch.xlogy(target, target) - target * log_q).nan_to_num().sum(-1)
    expected = (kl * where).flatten(1).sum(1) / where.flatten(1).sum(1)
    assert torch.allclose(method.own_loss(head(pipe.denoiser, "sam2videox"), hidden, batch), expected, rtol=1e-4)


FUSED = {"lgf_logit": {}, "lgf_prob": {"fusion": "lgf_prob"}, "fwd_only": {"fusion": "fwd_only"}, "bwd_only": {"fusion": "bwd_only"},
         "feature": {"fusion": "feature"}, "lgf_l2": {"loss_of": "lgf_l2"}, "a5": {"reverse_backward": True}}


@pytest.mark.parametrize("name", FUSED)
def test_tracker_targets_are_fused_as_asked_and_a_lost_clip_counts_nothing(name, pipe, clips, tracker):
    method = open_method("sam2videox", **FUSED[name], weight=1.0, tau=0.1, out=16)
    method.attach(pipe)
    batch, hidden = batch_of(method, pipe, clips), drawn(2, 3, 12, 12, width(pipe.denoiser))
    found = method.own_loss(head(pipe.denoiser, "sam2videox"), hidden, batch)
    f, b = (seen.on_grid(drawn(2, 3, 6, 6, 8, seed=k), (12, 12)) for k in (1, 2))
    student, back = (local_correlation(head(pipe.denoiser, "sam2videox")(hidden), reverse=turned) for turned in (False, True))
    how = FUSED[name].get("fusion", "lgf_logit")
    target = paper.fuse(f, b, how, tau=0.1)
    expected = {"lgf_l2": lambda: paper.lgf_l2(target, student), "a5": lambda: 0.5 * paper.lgf_kl(local_correlation(f), student) + 0.5 * paper.lgf_kl(
        local_correlation(b, reverse=True), back)}.get(name, lambda: paper.lgf_kl(target, student))()
    assert torch.allclose(found[0], expected[0], rtol=1e-2) and found[1] == 0              # kept in half precision
    loss_of(method, pipe, batch)
    assert all(torch.isfinite(grad).all() for grad in gradients(pipe).values())


@pytest.mark.parametrize("loss", ["feat_cos", "feat_l2"])
def test_features_themselves_and_their_channels(loss, pipe, clips, tracker):
    method = open_method("sam2videox", loss_of=loss, weight=1.0, out=8)
    method.attach(pipe)
    batch = batch_of(method, pipe, clips)
    assert batch["target"].shape == (2, 3, 12, 12, 8)
    found = method.own_loss(head(pipe.denoiser, "sam2videox"), drawn(2, 3, 12, 12, width(pipe.denoiser)), batch)
    assert found[0] > 0 and found[1] == 0
    with pytest.raises(MotionLabError, match="grids of"):
        open_method("sam2videox", loss_of=loss, out=16).own_loss(nn.Linear(4, 16), drawn(2, 3, 12, 12, 4), batch)


def test_a_pair_with_one_valid_direction_has_its_map_twice(pipe, clips, monkeypatch):
    f, b = drawn(2, 3, 12, 12, 8, seed=1), drawn(2, 3, 12, 12, 8, seed=2)
    alpha = torch.tensor([[0.0, 0.5], [1.0, 1.0]])
    monkeypatch.setattr("motionlab.data.correlations.look", lambda *a: Seen(f, b, alpha, torch.ones(2, dtype=torch.bool)))
    maps = encoded(Listed(clips), [Sidecar("correlation", {"teacher": "sam2"})], pipe)["correlation"]
    one, other = (packed(local_correlation(x)) for x in (f, b))
    assert torch.equal(maps[0, 0, 0], other[0, 0]) and torch.equal(maps[0, 1, 0], other[0, 0])
    assert torch.equal(maps[0, :, 1], torch.stack([one[0, 1], other[0, 1]])) and torch.equal(maps[1, 1], one[1])
    # in the order of pairs that each has, and of raw features too
    turned = encoded(Listed(clips), [Sidecar("correlation", {"teacher": "sam2", "how": "reversed"})], pipe)["correlation"]
    back = [packed(local_correlation(x, reverse=True)) for x in (f, b)]
    assert torch.equal(turned[0, :, 0], torch.stack([other[0, 0], back[1][0, 0]])) and torch.equal(turned[1], torch.stack([one[1], back[0][1]]))
    mixed = encoded(Listed(clips), [Sidecar("correlation", {"teacher": "sam2", "how": "feature"})], pipe)["correlation"]
    assert torch.equal(mixed[0, 0, 0], other[0, 0]) and torch.equal(mixed[1, 0], one[1])
    assert torch.equal(mixed[0, 0, 1], packed(local_correlation(unit(f) + unit(b)))[0, 1])


def test_prompts_are_settings_of_what_a_tracker_sees_and_of_nothing_else(tmp_path):
    """Card 2.6: pairs beside the prompt from the other pass; a detector that looks again. They name the sidecar, and decide its content."""
    settings = {"checkpoint": "a.pt", "detector": str(tmp_path), "skip_prompt_pairs": True}
    one, = open_method("sam2videox", **settings).targets_of()
    assert one.settings == {"teacher": "sam2"} | settings and "skip_prompt_pairs=True" in one.label
    assert "skip_prompt_pairs" not in open_method("sam2videox").targets_of()[0].settings
    assert "detector" not in open_method("sam2videox", teacher="image", detector=str(tmp_path)).targets_of()[0].settings
    features, = open_method("sam2videox", loss_of="feat_cos", detector=str(tmp_path)).targets_of()
    masks, = open_method("mask", detector=str(tmp_path)).targets_of()
    assert features.settings["detector"] == masks.settings["detector"] == str(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    before = seen.identity("patches", detector=str(tmp_path))["detector"]
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert seen.identity("patches", detector=str(tmp_path))["detector"] != before and "detector" not in seen.identity("patches")
    with pytest.raises(MotionLabError, match="nothing at 'nowhere'"):
        seen.identity("patches", detector="nowhere")


def test_the_temperature_is_the_one_nearest_to_exact_transport(pipe):
    """Logits whose softmax at 0.05 is the transport itself."""
    p = drawn(3, 2, 12, 12, 49, seed=4).masked_fill(~inside(12, 12), OUTSIDE).mul(2).softmax(-1)
    batch = {"transport": packed(p), "target": packed(0.05 * p.clamp(min=1e-9).log())[:, None]}
    method = open_method("sam2videox", teacher="image")
    assert method.chosen(batch, (12, 12)).tau == 0.05 and 0.05 in TAUS
    assert dataclasses.replace(method, tau=0.3).judged() == () and method.chosen({}, (12, 12)).tau == paper.TAU
    assert [one.kind for one in method.judged()] == ["transport"]


# ---------------------------------------------------------------------------------------------- on disk, bad input
def test_sidecars_of_another_teacher_or_clips_are_refused_and_a_killed_extraction_goes_on(pipe, tmp_path, tracker, monkeypatch):
    world = World(BankConfig("examples", clips=3, frames=9))
    method = open_method("sam2videox", checkpoint="a.pt")
    say, home = (lambda text: None), tmp_path / "d"
    monkeypatch.setattr("motionlab.data.store.SHARD", 2)
    whole = open_data(world, pipe, method.wants(), tmp_path / "whole", say)
    calls = []

    def dies(*args, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return kept(*args, **settings)

    import motionlab.data.correlations as correlations
    kept = correlations.look
    monkeypatch.setattr(correlations, "look", dies)
    with pytest.raises(KeyboardInterrupt):
        open_data(world, pipe, method.wants(), home, say)
    again = open_data(world, pipe, method.wants(), home, say)
    assert len(calls) == 3                                                              # the first shard is not made again
    rows = torch.arange(3)
    assert all(torch.equal(again.batch(rows)[key].nan_to_num(9), whole.batch(rows)[key].nan_to_num(9)) for key in ("x1", "target"))
    monkeypatch.setattr(correlations, "identity", lambda *a: {"teacher": "sam2 another"})
    with pytest.raises(MotionLabError, match="another teacher"):
        open_data(world, pipe, method.wants(), home, say)


@pytest.mark.parametrize("settings, says", [
    ({"tau": -1.0}, "tau -1.0"), ({"teacher": "sam"}, "Did you mean"), ({"loss_of": "lgf"}, "loss_of of sam2videox"), ({"weight": -2.0}, "weight of"),
    ({"teacher": "exact", "loss_of": "lgf_l2"}, "do not go together"), ({"noise": 1.0}, "do not go together"), ({"projector": "last"}, "projector"),
    ({"skip_prompt_pairs": True, "fusion": "fwd_only"}, "skip_prompt_pairs True do not go"), ({"skip_prompt_pairs": True, "loss_of": "feat_l2"}, "do not go"),
    ({"alpha": 2.0}, "alpha 2.0"), ({"share": 0.0}, "share 0.0"), ({"where": "subjects"}, "Did you mean 'subject'")])
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(MotionLabError, match=says):
        open_method("sam2videox", **settings)


def test_windows_and_grids_that_do_not_fit_are_told_before_anything_long(pipe, clips):
    with pytest.raises(MotionLabError, match="window of 27 places is larger"):
        batch_of(open_method("sam2videox", teacher="exact", radius=13), pipe, clips)
    with pytest.raises(MotionLabError, match="nothing moves between fewer than two"):
        Sidecar("transport", {"every": 9}).draw(Listed(clips), 0)
    method = open_method("sam2videox", teacher="exact")
    batch = batch_of(method, pipe, clips)
    with pytest.raises(MotionLabError, match="do not fit a grid of .8, 8."):
        method.own_loss(nn.Linear(8, 8), drawn(2, 3, 8, 8, 8), batch)
    with pytest.raises(MotionLabError, match="out=128"):
        open_method("repa", out=64).own_loss(nn.Linear(8, 64), drawn(2, 3, 12, 12, 8), {"target": drawn(2, 3, 12, 12, 128)})
    assert method.own_loss(nn.Linear(8, 8), drawn(2, 3, 12, 12, 8), batch).isfinite().all()
