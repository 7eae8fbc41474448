"""Methods on the small generator and on snapshots: they train what they say, sample, come back from their file, refuse others."""
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.data.bank import BankConfig
from motionlab.data.sidecars import Sidecar
from motionlab.data.sources import World
from motionlab.data.store import open_data
from motionlab.methods import METHODS, method_class, open_method
from motionlab.methods.files import load_method, read_about, save_method
from motionlab.models.open import open_pipe
from motionlab.training import SampleNoise, TrainConfig, train
from small import small_model
from snapshots import CLIP, SIZES, SNAPSHOTS

SAID = ["a red dog runs to the left over the meadow", "a blue fish swims to the right under the sea"]
# What a method needs that is not shipped is the world's own truth here.
SETTINGS = {"sam2videox": {"teacher": "exact"}, "mask": {"teacher": "exact"}}
QUICK = {"batch_size": 2, "warmup": 1, "checkpoint_every": 0, "log_every": 0, "lr": 1e-2}


@pytest.fixture
def pipe():
    return small_model(layers=2, length=3, stir=0.1)


def go(method, pipe, folder, steps=3):
    data = open_data(World(BankConfig("examples", clips=4, frames=pipe.frames)), pipe, method.wants(), folder / "data", say=lambda text: None)
    method.attach(pipe)
    result = train(pipe, method.loss(pipe), data, TrainConfig(steps=steps, out_dir=str(folder / "run"), **QUICK))
    return pipe.eval(), result


@pytest.mark.parametrize("name", [name for name in METHODS if method_class(name).trains])
def test_every_method_trains_samples_and_comes_back(name, pipe, tmp_path):
    method, untouched = open_method(name, **SETTINGS.get(name, {})), small_model(layers=2, length=3, stir=0.1)
    method.attach(untouched)
    given = {"d1": torch.randn(2, *pipe.shape)} if method.truth(method.Sampling()) else None
    start = method.sample(untouched, SAID, [0, 1], method.Sampling(steps=2), given=given)
    trained, result = go(method, pipe, tmp_path)
    clips = method.sample(trained, SAID, [0, 1], method.Sampling(steps=2), given=given)
    assert result.step == 3 and not torch.allclose(clips, start) and method.video(clips).shape == (2, *pipe.shape)
    path = save_method(method, trained, tmp_path / "m.safetensors", dtype=torch.float32)
    again = load_method(method, small_model(layers=2, length=3, stir=0.1), path)
    assert torch.equal(method.sample(again, SAID, [0, 1], method.Sampling(steps=2), given=given), clips)
    assert len(method.columns(trained, clips)) == 2 and read_about(path)["method"] == name


def test_true_motion_leads_the_joint_model_along_its_own_noise(pipe, tmp_path):
    """At every step the motion half is the true one noised to that step's t, and it ends as the true one."""
    method, d1, seen = open_method("videojam", new_lr=20.0), torch.randn(2, *pipe.shape), []
    pipe, _ = go(method, pipe, tmp_path)
    options = method.Sampling(steps=4, motion="true")
    states = method.sample(pipe, SAID, [0, 1], options, given={"d1": d1}, callback=lambda at: seen.append((at["t"], at["x"].chunk(2, 2)[1])))
    d0 = seen[0][1]
    assert all(torch.allclose(d_t, t * d1 + (1 - t) * d0, atol=1e-5) for t, d_t in seen)
    assert torch.allclose(method.streams(states)["motion"], d1, atol=1e-5)
    own = method.sample(pipe, SAID, [0, 1], method.Sampling(steps=4))
    assert not torch.allclose(method.video(own), method.video(states), atol=1e-3)
    with pytest.raises(MotionLabError, match="true clips' motion"):
        method.sample(pipe, SAID, [0, 1], options)


def test_the_oracle_begins_as_the_base_and_then_reads_the_motion_that_it_is_given(pipe, tmp_path):
    method, d1 = open_method("oracle", motion_dropout=0.5), torch.randn(2, *pipe.shape)
    base = pipe.sample(SAID, [0, 1], steps=2, w=2.0)
    method.attach(pipe)
    assert torch.allclose(method.sample(pipe, SAID, [0, 1], method.Sampling(steps=2, w=2.0), given={"d1": d1}), base, atol=1e-5)
    trained, _ = go(method, small_model(layers=2, length=3, stir=0.1), tmp_path)
    none = method.sample(trained, SAID, [0, 1], method.Sampling(steps=2, motion="none"))
    seen = [method.sample(trained, SAID, [0, 1], method.Sampling(steps=2), given={"d1": value}) for value in (d1, -d1, 0 * d1)]
    assert not torch.allclose(seen[0], seen[1]) and torch.allclose(seen[2], none, atol=1e-6)
    with pytest.raises(MotionLabError, match="true clips' motion"):
        method.sample(trained, SAID, [0, 1])
    noisy, = method.truth(method.Sampling(noise=2.0))
    assert noisy.settings == {"teacher": "exact", "noise": 2.0} and method.truth(method.Sampling(motion="none", noise=2.0)) == ()
    with pytest.raises(MotionLabError, match="pixels per frame"):
        method.Sampling(noise=-1.0)


def test_every_method_draws_the_same_noise_times_and_dropouts(pipe, monkeypatch):
    """From protocol 7 on, what an arm adds must not change what all arms see: a difference between them would else be one of luck."""
    monkeypatch.setattr("motionlab.papers.videojam.noise_version", lambda: 7)
    batch = {"x1": torch.randn(4, *pipe.shape), "d1": torch.randn(4, *pipe.shape), "text": {"tokens": pipe.text(SAID * 2)["tokens"]}}
    seen = {}
    alike = {"text_dropout": 0.4, "attribute_dropout": 0.3, "first": 0.3, "first_last": 0.3}
    for name in ("plain", "oracle", "videojam"):
        def model(x_t, t, text, known, extra=None, name=name):
            seen[name] = [x_t, t, text["tokens"], known["cond_mask"]]
            return torch.zeros_like(x_t).repeat(1, 1, 2 if name == "videojam" else 1, 1, 1)

        open_method(name, **alike).loss(pipe)(model, batch, SampleNoise(0, 3, range(4)))
    assert all(torch.equal(a, b) for name in ("oracle", "videojam") for a, b in zip(seen["plain"], seen[name]))


def test_lora_starts_as_the_base_trains_little_and_writes_little(pipe, tmp_path):
    method, x, t = open_method("lora", rank=2), torch.randn(1, *pipe.shape), torch.tensor([0.3])
    text = pipe.text(SAID[:1])
    before, total = pipe.velocity(x, t, text), sum(p.numel() for p in pipe.parameters())
    method.attach(pipe)
    assert torch.equal(pipe.velocity(x, t, text), before)
    mine = [name for name, p in pipe.named_parameters() if p.requires_grad]
    assert len(mine) == 2 * 2 * 2 and all("lora_" in name and (".to_k." in name or ".to_v." in name) for name in mine)
    path = save_method(method, pipe, tmp_path / "l.safetensors")
    assert path.stat().st_size < 2 * total


WITHOUT_A_LOADER = ("svd", "i2vgenxl")          # their stock pipelines have no load_lora_weights


@pytest.mark.parametrize("name", [name for name in SNAPSHOTS if name not in WITHOUT_A_LOADER])
def test_lora_on_a_snapshot_loads_in_stock_diffusers(name, tmp_path):
    from diffusers import DiffusionPipeline

    folder = SNAPSHOTS[name](tmp_path / "s")
    pipe, method = open_pipe(str(folder), *SIZES.get(name, CLIP)), open_method("lora", rank=2)
    method.attach(pipe)
    with torch.no_grad():
        for p in pipe.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))
    save_method(method, pipe, tmp_path / "lora" / "pytorch_lora_weights.safetensors", dtype=torch.float32)
    stock = DiffusionPipeline.from_pretrained(str(folder))
    stock.load_lora_weights(str(tmp_path / "lora"))
    ours = {n.replace(".default.", "."): p for n, p in pipe.denoiser.named_parameters() if "lora_" in n}
    theirs = {n.replace(".default_0.", "."): p for n, p in stock.transformer.named_parameters() if "lora_" in n}
    assert ours.keys() <= theirs.keys() and all(torch.allclose(ours[n], theirs[n]) for n in ours)
    more = [p for n, p in theirs.items() if n not in ours and "lora_B" in n]                 # Wan's loader adds its own for pictures, at zero
    assert not any(p.any() for p in more) and (bool(more) == (type(stock).__name__ == "WanImageToVideoPipeline"))


def test_classes_whose_pipelines_load_no_lora_are_really_such():
    import diffusers

    assert not any(hasattr(getattr(diffusers, kind), "load_lora_weights") for kind in ("StableVideoDiffusionPipeline", "I2VGenXLPipeline"))


def test_files_of_others_are_refused(pipe, tmp_path):
    lora = open_method("lora", rank=2)
    lora.attach(pipe)
    path = save_method(lora, pipe, tmp_path / "l.safetensors")
    other = small_model(layers=2, length=3, stir=0.2)
    for call, says in ((lambda: load_method(open_method("plain"), other, path), "trained by method lora"),
                       (lambda: load_method(lora, other, path), "another base"),
                       (lambda: load_method(lora, other, tmp_path / "none"), "There is no file")):
        with pytest.raises(MotionLabError, match=says):
            call()
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:100])
    with pytest.raises(MotionLabError, match="may be truncated"):
        read_about(tmp_path / "cut.safetensors")


def test_names_and_settings_are_checked(pipe):
    for call, says in ((lambda: method_class("lroa"), "Did you mean 'lora'"), (lambda: open_method("lora", rnak=3), "Did you mean 'rank'"),
                       (lambda: open_method("lora", targets="to_kk").attach(pipe), "no linear layer named"),
                       (lambda: Sidecar("motoin"), "Did you mean 'motion'"), (lambda: Sidecar("motion", {"techer": "dis"}), "Did you mean 'teacher'")):
        with pytest.raises(MotionLabError, match=says):
            call()


def test_the_example_of_contributing_is_a_whole_method(pipe, tmp_path, monkeypatch):
    """It trains, samples, comes back, is an arm and is counted, with a line in METHODS and no other."""
    import re
    import sys
    from pathlib import Path

    from motionlab import methods
    from motionlab.experiments.arms import read_arm
    from motionlab.models import size

    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n# lib/motionlab/methods/bias.py\n(.*?)```", text, re.S)[1]
    (tmp_path / "bias_of_contributing.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(methods.METHODS, "bias", "bias_of_contributing:Bias")
    method, untouched = open_method("bias", only="to_k"), small_model(layers=2, length=3, stir=0.1)
    start = method.sample(untouched, SAID, [0, 1], method.Sampling(steps=2))
    trained, _ = go(method, pipe, tmp_path)
    clips = method.sample(trained, SAID, [0, 1], method.Sampling(steps=2))
    path = save_method(method, trained, tmp_path / "b.safetensors", dtype=torch.float32)
    again = load_method(method, untouched, path)
    assert not torch.allclose(clips, start) and torch.equal(method.sample(again, SAID, [0, 1], method.Sampling(steps=2)), clips)
    assert path.stat().st_size < 4096 and read_arm({"name": "b", "method": "bias", "train": {"lr": 1e-3, "only": "to_k"}}).method == method
    counted = size.measure("small", attach=lambda network, channels: (network.requires_grad_(False), method.attach_to(network, channels)))
    assert counted.trained == 8 * 192
    sys.modules.pop("bias_of_contributing")
