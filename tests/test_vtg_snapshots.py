"""VTG on snapshots: Stable Video Diffusion is trained and sampled, CogVideoX and Wan are sampled, by option E; bad pairs are refused."""
import csv
import dataclasses
import shutil

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import videos
from motionlab import cli
from motionlab.core.errors import MotionLabError
from motionlab.core.yamls import read_yaml
from motionlab.experiments import tuning
from motionlab.experiments.pairs import PairConfig, given_pairs, sample_pairs
from motionlab.methods import method_class, open_method
from motionlab.models.open import open_pipe
from motionlab.models.residuals import Residual
from motionlab.papers import vtg
from motionlab.papers.vtg.branches import framewise_text
from motionlab.video import read_video, write_mp4
from snapshots import SNAPSHOTS

KINDS = ("svd", "cogvideox-5b-image", "wan-last")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("snapshots")
    return {kind: SNAPSHOTS[kind](top / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Two pictures of one size."""
    top, clip = tmp_path_factory.mktemp("ends"), videos.moving_texture(9, 32, 32, (2, 1))
    iio.imwrite(top / "a.png", clip[0]), iio.imwrite(top / "b.png", clip[-1])
    return top


def pictures(ends, size=(32, 32)):
    return tuple(torch.from_numpy(iio.imread(ends / f"{name}.png")).permute(2, 0, 1)[None].float() / 127.5 - 1 for name in "ab")


def stir(pipe):
    with torch.no_grad():
        for m in pipe.modules():
            if isinstance(m, Residual):
                for p in m.parameters():
                    p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_between_two_pictures_by_the_command(kind, folders, ends, tmp_path):
    words = ["sample", "vtg", "--backbone", str(folders[kind]), "--first", str(ends / "a.png"), "--last", str(ends / "b.png"),
             "--text-first", "a cat", "--text-last", "a dog", "--out", str(tmp_path), "--steps", "2", "-pframes=9", "-pheight=32", "-pwidth=32", "-pcpu=true"]
    assert cli.main(words) == 0
    assert len(read_video(tmp_path / "000.mp4").frames) == 9
    assert cli.main([*words, "-pseed=3"]) != 0                                          # another run's folder


@pytest.mark.parametrize("kind, text", [("svd", "slerp"), ("wan-last", "slerp"), ("cogvideox-5b-image", "one")])
def test_either_branch_counts_and_texts_of_frames_are_read(kind, text, folders, ends):
    pipe, method = open_pipe(folders[kind], 9, 32, 32), open_method("vtg")
    method.attach(pipe)
    stir(pipe)
    first, last = pictures(ends)
    one = {"first": first, "last": last, "prompts_last": ["a dog"]}
    end = "both" if kind == "wan-last" else "one"
    made = {name: method.sample(pipe, ["a cat"], [0], dataclasses.replace(method.Sampling(steps=2, ends=end), **how), **one)
            for name, how in {"whole": {"text": text}, "one text": {}, "forward": {"lam": 0.0}, "backward": {"lam": 1.0}, "own": {"shared": False}}.items()}
    assert all(z.shape == (1, *pipe.shape) and torch.isfinite(z).all() for z in made.values())
    for name in ("forward", "backward", "own"):
        assert not torch.allclose(made[name], made["one text"], atol=1e-4), name
    if text == "slerp":
        assert not torch.allclose(made["whole"], made["one text"], atol=1e-5)


def test_d4_a_mirrored_condition_and_no_residual_give_the_forward_sample_read_backwards_positions_apart(folders, ends):
    """Wan: what the backward half is shown is the forward one's condition, latents mirrored, pictures in the other order."""
    from motionlab.papers.vtg.sampling import Pair, Settings, _both_known, mode_of

    pipe = open_pipe(folders["wan-last"], 9, 32, 32)
    first, last = pictures(ends)
    pair, s = Pair(["a cat"], ["a dog"], [0], first, last), Settings(option="E")
    known = pipe.mode_inputs(mode_of(pipe, pair, s), first, last)
    _, second = _both_known(pipe, pair, s, "first_last", known, True)
    assert torch.equal(second["condition"], known["condition"].flip(1)) and torch.equal(second["seen"], known["seen"].flip(1))


def test_one_text_in_every_frame_is_the_classes_own_way_on_wan(folders, ends):
    pipe, x = open_pipe(folders["wan-last"], 9, 32, 32), None
    first, last = pictures(ends)
    known, text = pipe.known(first, last), pipe.text(["a cat"])
    x, t = torch.randn(1, *pipe.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0.4])
    states = framewise_text(pipe, text)
    assert torch.allclose(pipe.velocity(x, t, {"states": states[:, None].expand(-1, pipe.shape[0], -1, -1)}, known), pipe.velocity(x, t, text, known), atol=1e-5)
    own = vtg.text_of_frames(states, framewise_text(pipe, pipe.text(["a dog"])), vtg.frame_weights(pipe.shape[0]))
    moved = pipe.velocity(x, t, {"states": own}, known)
    assert not torch.allclose(moved, pipe.velocity(x, t, text, known), atol=1e-5)
    assert torch.equal(pipe.velocity(x, t, text, known), pipe.velocity(x, t, text, known))            # nothing is left behind


def test_stable_video_is_trained_and_sampled(folders, ends, tmp_path):
    clips = tmp_path / "videos"
    clips.mkdir()
    for k in range(2):
        write_mp4(clips / f"{k}.mp4", videos.moving_texture(9, 32, 32, (k + 1, 1)), 7)
    (clips / "captions.csv").write_text("file,caption\n0.mp4,a cat\n1.mp4,a dog\n")
    config = tuning.TuneConfig(backbone=str(folders["svd"]), videos=str(clips), out_dir=str(tmp_path / "out"), frames=9, height=32, width=32, steps=2,
                               batch_size=2, lr=1e-2, ema=0.0, bf16=False, cpu=True)
    path = tuning.tune(open_method("vtg"), config)
    found = sample_pairs("vtg", PairConfig(str(folders["svd"]), str(path), first=str(ends / "a.png"), last=str(ends / "b.png"), out_dir=str(tmp_path / "made"),
                                           cpu=True), method_class("vtg").Sampling(steps=2))
    plain = sample_pairs("vtg", PairConfig(str(folders["svd"]), first=str(ends / "a.png"), last=str(ends / "b.png"), out_dir=str(tmp_path / "plain"), cpu=True,
                                           frames=9, height=32, width=32), method_class("vtg").Sampling(steps=2))
    a, b = (read_video(paths[0]).frames for paths in (found, plain))
    assert a.shape == b.shape == (9, 32, 32, 3) and read_yaml(tmp_path / "made" / "sampling.yaml")["weights"] == str(path)


def test_a_class_of_two_frames_learns_from_both_and_its_mirror(folders):
    from motionlab.core.noise import SampleNoise

    pipe, method = open_pipe(folders["wan-last"], 9, 32, 32), open_method("vtg")
    method.attach(pipe)
    batch = {"x1": torch.randn(1, *pipe.shape), "ends": torch.rand(1, 2, 3, 32, 32) * 2 - 1, "text": pipe.text(["a cat"])}
    loss, _ = method.loss(pipe)(pipe, batch, SampleNoise(0, 0, range(1)))
    loss.backward()
    trained = {name for name, p in pipe.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert trained and all("attn1" in name for name in trained)


def test_bad_pairs_are_refused_before_anything_long(folders, ends, tmp_path):
    small = tmp_path / "small.png"
    iio.imwrite(small, np.zeros((16, 32, 3), np.uint8))
    good = {"first": str(ends / "a.png"), "last": str(ends / "b.png")}
    for given, says in (({}, "No pictures"), ({"first": good["first"]}, "no last picture"), (good | {"last": str(small)}, "32x32 and 16x32"),
                        (good | {"text_first": "a cat"}, "one text of two"), (good | {"pairs": "x.csv"}, "Both a file"), ({"pairs": str(tmp_path / "x.csv")}, "There is no"),
                        (good | {"last": str(tmp_path / "none.png")}, "There is no")):
        with pytest.raises(MotionLabError, match=says):
            given_pairs(PairConfig(**given))
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        table = csv.DictWriter(file, ["first", "last", "text_first", "text_last"])
        table.writeheader(), table.writerow({"first": "a.png", "last": "b.png", "text_first": "", "text_last": ""})
    shutil.copy(ends / "a.png", tmp_path), shutil.copy(ends / "b.png", tmp_path)
    assert given_pairs(PairConfig(pairs=str(tmp_path / "pairs.csv")))[0].last == tmp_path / "b.png"
    with pytest.raises(MotionLabError, match="makes no clip between two"):
        sample_pairs("lora", PairConfig(**good))
    with pytest.raises(MotionLabError, match="nothing between its ends"):
        sample_pairs("vtg", PairConfig(str(folders["wan-last"]), **good, out_dir=str(tmp_path / "short"), frames=5, height=32, width=32, cpu=True))
    with pytest.raises(MotionLabError, match="makes no clip without known frames"):
        sample_pairs("vtg", PairConfig(str(folders["svd"]), **good, out_dir=str(tmp_path / "lora"), frames=9, height=32, width=32, cpu=True),
                     method_class("vtg").Sampling(lora=2))
    same = PairConfig(str(folders["svd"]), first=good["first"], last=good["first"], out_dir=str(tmp_path / "twice"), frames=9, height=32, width=32, cpu=True)
    with pytest.warns(UserWarning, match="one picture twice"):
        sample_pairs("vtg", same, method_class("vtg").Sampling(steps=1))


def test_clips_of_a_picture_that_was_edited_do_not_pass_for_new_ones_and_a_mistake_leaves_no_trace(folders, ends, tmp_path):
    shutil.copy(ends / "a.png", tmp_path), shutil.copy(ends / "b.png", tmp_path)
    (tmp_path / "pairs.csv").write_text("first,last,text_first,text_last\na.png,b.png,,\n")
    config = PairConfig(str(folders["svd"]), pairs=str(tmp_path / "pairs.csv"), out_dir=str(tmp_path / "made"), frames=9, height=32, width=32, cpu=True)
    one = method_class("vtg").Sampling(steps=1)
    with pytest.raises(MotionLabError, match="is not given"):
        sample_pairs("vtg", dataclasses.replace(config, backbone=str(SNAPSHOTS["wan"](tmp_path / "wan"))), one)
    made = sample_pairs("vtg", config, one)[0]
    before = made.read_bytes()
    sample_pairs("vtg", config, one)
    assert made.read_bytes() == before
    shutil.copy(ends / "b.png", tmp_path / "a.png"), shutil.copy(ends / "a.png", tmp_path / "b.png")
    with pytest.raises(MotionLabError, match="belongs to another run: contents was"):
        sample_pairs("vtg", config, one)


@pytest.mark.parametrize("kind", ("svd", "wan-last"))
def test_what_a_training_takes_is_told_without_weights(kind, folders, capsys):
    assert cli.main(["size", "vtg", "--backbone", str(folders[kind]), "--frames", "9", "--height", "32", "--width", "32", "--tflops", "1", "--steps", "10"]) == 0
    assert "10 steps: " in capsys.readouterr().out
