"""`motionlab train METHOD` and `sample METHOD` on the kit's own generator and on snapshots: videos become weights, prompts clips."""
import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from motionlab import cli
from motionlab.core.errors import MotionLabError
from motionlab.core.locks import held
from motionlab.experiments import own_videos, tuning
from motionlab.methods import METHODS, method_class, open_method
from motionlab.models.open import open_pipe
from motionlab.training import SampleNoise, checkpoints
from motionlab.video import read_video, write_mp4
from snapshots import SIZES, SNAPSHOTS, cogvideox_snapshot, wan_snapshot
from videos import moving_texture

FPS = 16
KINDS = {"wan": wan_snapshot, "cogvideox": cogvideox_snapshot}
OTHERS = [name for name in SNAPSHOTS if name not in ("wan", "cogvideox-2b")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("snapshots")
    return {name: make(root / name) for name, make in KINDS.items()}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, step in (("left", (-3, 0)), ("right", (2, 1))):
        write_mp4(folder / f"{name}.mp4", moving_texture(12, 48, 64, step), FPS)
    (folder / "captions.csv").write_text("file,caption\nleft.mp4,a cat walks.\nright.mp4,a dog runs.\n")
    return folder


@pytest.fixture
def config(folders, videos, tmp_path):
    def build(kind="wan", **changes):
        usual = {"backbone": str(folders[kind]), "videos": str(videos), "out_dir": str(tmp_path / "run"), "frames": 9, "height": 32, "width": 32,
                 "fps": FPS, "steps": 2, "batch_size": 2, "log_every": 1, "lr": 1e-2, "bf16": False, "cpu": True}
        return tuning.TuneConfig(**usual | changes)

    return build


def interrupted(monkeypatch, method, config):
    """A run that is stopped after its first step."""
    import motionlab.training.loop as loop

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "train", lambda *a, train=loop.train, **k: train(*a, until=1, **k) and (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tuning.tune(method, config)


def test_the_oracle_needs_clips_whose_motion_is_known(config):
    with pytest.raises(MotionLabError, match="without exact flow"):
        tuning.tune(open_method("oracle"), config())


def test_what_is_trained_between_two_frames_needs_a_generator_of_two_frames(config):
    with pytest.raises(MotionLabError, match="Use a generator of mode first_last"):
        tuning.tune(open_method("vtg"), config())


# Every method on one class, and on the other those that stand for a way into the network: its own weights, adapters, wider projections, taps.
ON_BOTH = ("plain", "lora", "videojam", "sam2videox")
TRAINED = [name for name in METHODS if name not in ("oracle", "sma", "vtg") and method_class(name).trains]


@pytest.mark.parametrize("name, kind", [(name, kind) for name in TRAINED for kind in KINDS if kind == "cogvideox" or name in ON_BOTH])
def test_videos_become_weights_and_prompts_become_clips(config, name, kind, monkeypatch, tmp_path, capsys):
    method = open_method(name, **dict.fromkeys(("det", "sam2videox", "mask"), {"weight": 0.0}).get(name, {}))     # without tracks and boxes: a folder has none
    whole = tuning.tune(method, config(kind))
    assert "parameters are trained" in capsys.readouterr().out and whole.name == f"{name}.safetensors"
    cut = config(kind, out_dir=str(tmp_path / "cut"))
    interrupted(monkeypatch, method, cut)
    assert [p.name for p in checkpoints(tmp_path / "cut")] == ["step_00000001"]
    first, second = load_file(whole), load_file(tuning.tune(method, cut))
    assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)

    (tmp_path / "prompts.csv").write_text("prompt,category\na cat walks.,basic\na wheel turns.,rotational motion\n")
    sampling = tuning.SampleConfig(backbone=config(kind).backbone, weights=str(whole), prompts=str(tmp_path / "prompts.csv"),
                                   out_dir=str(tmp_path / "clips"), bf16=False, cpu=True)
    paths = tuning.sample(sampling, method.Sampling(steps=2))
    clips = [read_video(path) for path in paths]
    assert [c.frames.shape for c in clips] == 2 * [(9, 32, 32, 3)] and clips[0].fps == FPS and not np.array_equal(clips[0].frames, clips[1].frames)
    assert (tmp_path / "clips" / "prompts.csv").read_text() == "file,category,prompt\n000.mp4,basic,a cat walks.\n001.mp4,rotation,a wheel turns.\n"
    beside = paths[0].with_stem("000_motion")
    assert beside.is_file() == (name == "videojam") and (name != "videojam" or read_video(beside).frames.shape == (9, 32, 64, 3))
    before = [path.stat().st_mtime_ns for path in paths]
    assert tuning.sample(sampling, method.Sampling(steps=2)) == paths and [p.stat().st_mtime_ns for p in paths] == before
    with pytest.raises(MotionLabError, match="belongs to another run"):
        tuning.sample(sampling, method.Sampling(steps=3))


@pytest.mark.parametrize("name", OTHERS)
def test_lora_is_swept_samples_and_comes_back_on_every_class(name, videos, tmp_path):
    """Pictures for image-to-video come from the videos in training and from the prompt file in sampling."""
    folder, (frames, height, width) = SNAPSHOTS[name](tmp_path / "s"), SIZES.get(name, (9, 32, 32))
    common = {"weights": str(folder), "videos": str(videos), "held_out": 1, "draws": 3, "frames": frames, "height": height, "width": width, "fps": FPS}
    method, row = open_method("lora", rank=2), tmp_path / "sweep" / "mine" / "full" / "row"
    arms = {"as_it_is": {}, "lora": {"method": "lora", "rank": 2, "train": {"lr": 1e-1, "steps": 2}}}
    base, tuned = (own_videos.run_row({"name": arm} | fields, 0, row, "full", **common)[0] for arm, fields in arms.items())
    assert base["item"] == tuned["item"] == "right.mp4" and base["loss"] != tuned["loss"] and math.isfinite(tuned["loss"])
    made, = (tmp_path / "sweep" / "trained").rglob("lora.safetensors")
    assert all("_without_1" in path.name for path in (made.parent / "clips").iterdir())           # what it saw is not what it is measured on
    assert all(value.isfinite().all() for value in load_file(made).values())
    modes = open_pipe(str(folder), frames, height, width, dtype=torch.float32).modes
    needs = [] if "text" in modes else ["first"] + ["last"] * ("first" not in modes)
    Image.fromarray(np.full((80, 80, 3), 99, np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "p.csv").write_text(",".join(["prompt", *needs]) + "\n" + ",".join(["a cat walks.", *["x.png"] * len(needs)]) + "\n")
    sampling = tuning.SampleConfig(backbone=str(folder), weights=str(made), prompts=str(tmp_path / "p.csv"), out_dir=str(tmp_path / "clips"),
                                   bf16=False, cpu=True)
    (path,) = tuning.sample(sampling, method.Sampling(steps=2))
    assert read_video(path).frames.shape == (frames, height, width, 3)
    if needs:
        (tmp_path / "q.csv").write_text("prompt\na cat walks.\n")
        with pytest.raises(MotionLabError, match="needs the first frame of every task, and 1 of 1"):
            tuning.sample(dataclasses.replace(sampling, prompts=str(tmp_path / "q.csv"), out_dir=str(tmp_path / "none")), method.Sampling(steps=2))


def test_a_damaged_video_is_named_before_anything_long(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "v")
    whole = (tmp_path / "v" / "right.mp4").read_bytes()
    (tmp_path / "v" / "right.mp4").write_bytes(whole[:len(whole) // 3])
    with pytest.raises(MotionLabError, match="right.mp4"):
        tuning.check_inputs("", str(tmp_path / "v"))
    with pytest.raises(MotionLabError, match="Of the 2 videos"):
        tuning.check_inputs("", str(videos), leave_out=2)


def test_two_samplings_into_one_folder_do_not_mix(config, tmp_path):
    method = open_method("plain")
    made = tuning.tune(method, config("wan", steps=1))
    (tmp_path / "p.txt").write_text("a cat walks.\n")
    out = tmp_path / "clips"
    out.mkdir()
    wanted = tuning.SampleConfig(backbone=config("wan").backbone, weights=str(made), prompts=str(tmp_path / "p.txt"), out_dir=str(out), bf16=False,
                                 cpu=True)
    with held(out / ".lock-sampling", "a test"):
        with pytest.raises(MotionLabError, match="sampling to"):
            tuning.sample(wanted, method.Sampling(steps=1))
    assert not list(out.glob("*.mp4")) and len(tuning.sample(wanted, method.Sampling(steps=1))) == 1


def test_training_times_are_those_of_the_base(folders):
    noise, wan, cogvideox = SampleNoise(0, 0, range(400)), open_pipe(str(folders["wan"]), 9, 32, 32), open_pipe(str(folders["cogvideox"]), 9, 32, 32)
    z = torch.logit(wan.times(noise)) + math.log(3.0)  # logit-normal, shifted by 3
    assert abs(z.mean()) < 0.15 and abs(z.std() - 1) < 0.1
    timesteps = cogvideox.border.timestep(cogvideox.times(noise)) / 1000
    assert (timesteps.sort().values - torch.linspace(0, 1, 400)).abs().max() < 0.08  # Kolmogorov: p = 0.01


@pytest.mark.parametrize("change, message", [
    ({"steps": 0}, "steps must be more than 0"), ({"fps": -1.0}, "fps is -1"), ({"lr": float("inf")}, "lr")])
def test_bad_settings_of_a_training_are_named(config, change, message):
    with pytest.raises(MotionLabError, match=message):
        config(**change)


@pytest.mark.parametrize("change, message", [
    ({"frames": 10}, "lengths are 1"), ({"videos": "nowhere"}, "There is no folder 'nowhere'"), ({"backbone": "nowhere"}, "There is no folder 'nowhere'"),
    ({"frames": 13}, "has 12 of the 13 frames"), ({"fps": 24.0}, "at 24 some would repeat")])
def test_what_cannot_be_trained_on_is_told_first(config, change, message):
    with pytest.raises(MotionLabError, match=message):
        tuning.tune(open_method("lora"), config(**change))


def test_a_folder_keeps_to_one_run(config, tmp_path):
    tuning.tune(open_method("lora"), config(steps=1))
    with pytest.raises(MotionLabError, match="belongs to another run: lr was 0.01 and is now 0.001"):
        tuning.tune(open_method("lora"), config(lr=1e-3))
    with pytest.raises(MotionLabError, match="method was lora and is now plain"):
        tuning.tune(open_method("plain"), config())


@pytest.mark.parametrize("captions, message", [
    ("file,caption\nleft.mp4,a cat walks.\n", "1 of 2 videos .* have no caption, first 'right.mp4'"),
    ("file,caption\nleft.mp4,a\nrigth.mp4,b\n", "Did you mean 'right.mp4'"), ("name,text\nleft.mp4,a\n", "cannot be read as captions")])
def test_mistakes_in_captions_are_told(videos, tmp_path, captions, message):
    shutil.copytree(videos, tmp_path / "v")
    (tmp_path / "v" / "captions.csv").write_text(captions)
    with pytest.raises(MotionLabError, match=message):
        tuning.check_inputs("", str(tmp_path / "v"))


def test_the_command_line_fills_the_settings(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(tuning, "tune", lambda *given: seen.append(given))
    (tmp_path / "c.yaml").write_text("videos: clips\nlr: 1.0e-6\nsteps: 5\n")
    words = ["train", "lora", "--backbone", "wan", "--out", "o", "--config", str(tmp_path / "c.yaml"), "--steps", "9", "-p", "bf16=false", "-p", "rank=3"]
    assert cli.main(words) == 0
    assert seen == [(open_method("lora", rank=3), tuning.TuneConfig(backbone="wan", videos="clips", out_dir="o", lr=1e-6, steps=9, bf16=False))]
    for words, says in ((["train", "lroa"], "Did you mean 'lora'"), (["train", "lora", "--backbone", "b"], "--videos is missing"),
                        (["train", "lora", "--videos", "v", "--out", "o", "-p", "rnak=3"], "Did you mean 'rank'"),
                        (["sample", "videojam", "--weights", "w", "--prompts", "p", "--out", "o", "-p", "rule=iner"], "Did you mean 'inner'"),
                        (["size", "videojm"], "Did you mean 'videojam'")):
        assert cli.main(words) == 2 and says in capsys.readouterr().err


def test_the_size_command_counts_what_a_method_adds_and_trains(capsys):
    assert cli.main(["size", "videojam", "--backbone", "small", "--tflops", "1"]) == 0
    said = capsys.readouterr().out
    assert "0.00924 M of them added by the method" in said and "of video and of a second stream" in said  # 2 x 24 x 192 + 24 = 9 240
    assert cli.main(["size", "lora", "--backbone", "small", "--tflops", "1"]) == 0
    assert "0.0737 M trained" in capsys.readouterr().out                                                 # 8 x 2 x 2 x 12 x 192


def test_accelerate_reads_its_config():
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(Path(__file__).parents[1] / "reproductions" / "videojam" / "accelerate.yaml"))
    assert config.num_processes == 8 and config.mixed_precision == "bf16" and config.distributed_type.value == "MULTI_GPU"
