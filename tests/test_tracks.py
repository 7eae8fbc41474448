"""Tracks and masks beside a clip: exact, from files, followed; one video as training data; `motionlab train METHOD --video`."""
import argparse
import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from motionlab import cli
from motionlab.core.errors import MotionLabError
from motionlab.data.bank import BankConfig
from motionlab.data.sidecars import Sidecar
from motionlab.data.sources import Folder, Single, World
from motionlab.data.store import open_data
from motionlab.data.tracks import COLUMNS, load_mask, load_tracks, read_mask, read_tracks
from motionlab.methods import open_method
from motionlab.methods.files import read_about
from motionlab.video import read_video, write_mp4
from small import small_model
from snapshots import wan_snapshot
from videos import moving_texture

FPS, STEP = 16, (2, 1)                                     # pixels a frame, of the moving texture


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A video of 12 frames of 48 x 64 whose content moves by STEP, tracks of two of its points, a mask of a block of frame 0."""
    folder = tmp_path_factory.mktemp("clip")
    write_mp4(folder / "v.mp4", moving_texture(12, 48, 64, STEP), FPS)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 12:40] = 90                                 # any grey
    Image.fromarray(mask).save(folder / "mask.png")
    xy = np.array([[20, 12], [30, 20]]) + np.arange(9)[:, None, None] * np.array(STEP)
    tracks = np.concatenate([xy, np.ones((9, 2, 1))], -1)
    tracks[5:, 1, 2] = 0
    np.savez(folder / "tracks.npz", tracks=tracks)
    return folder, tracks


def single(folder, frames=9, size=(48, 64), **more):
    return Single(folder / "v.mp4", "a cat walks.", frames, size, FPS, **more)


def drawn(source, **settings):
    return Sidecar("tracks").draw(source, 0, **settings)


# ---------------------------------------------------------------------------------------------- the world
def test_tracks_of_the_world_are_exact_and_on_the_subject_of_frame_0():
    world = World(BankConfig("examples", clips=3, frames=9))
    for i in range(3):
        found, clip = Sidecar("tracks").draw(world, i), world.clip(i)
        at = found[0, :, :2].astype(int)
        assert found.shape == (9, 100, 3) and clip.object_mask(None)[0][at[:, 1], at[:, 0]].all()
        xy, visible = clip.tracks(found[0, :, :2].astype(float))
        np.testing.assert_allclose(found[..., :2], xy, atol=1e-3)
        assert np.array_equal(found[..., 2] > 0.5, visible)
    assert np.array_equal(drawn(world), drawn(world)) and not np.array_equal(drawn(world), drawn(world, radius=4.0))
    followed = drawn(world, teacher="lucas_kanade", points=20)
    assert followed.shape == (9, 20, 3) and not np.array_equal(followed, drawn(world, points=20))
    for teacher, says in (("file", "come without tracks"), ("cotracker", "without weights of CoTracker3"), ("exakt", "Did you mean 'exact'")):
        with pytest.raises(MotionLabError, match=says):
            drawn(world, teacher=teacher)


def test_a_subject_that_comes_later_has_points_that_are_never_seen():
    class Empty:
        exact, name = True, "empty"

        def clip(self, i):
            return self

        frames = np.zeros((5, 8, 8, 3), np.uint8)

        def object_mask(self, actor):
            return np.zeros((5, 8, 8), bool)

    assert not drawn(Empty()).any() and drawn(Empty()).shape == (5, 100, 3)


def test_stored_tracks_are_cells_of_the_latents(tmp_path):
    world, pipe = World(BankConfig("examples", clips=2, frames=9)), small_model(length=3)
    wanted = (Sidecar("tracks", {"points": 30}), Sidecar("mask"))
    batch = open_data(world, pipe, wanted, tmp_path, lambda text: None).batch(torch.tensor([1, 0]))
    found = Sidecar("tracks").draw(world, 1, points=30)[::4]
    assert batch["tracks"].shape == (2, 3, 30, 3) and batch["mask"].shape == (2, 3, 12, 12)
    expected = np.concatenate([np.clip(np.trunc(found[..., :2] / 4), 0, 11), found[..., 2:]], -1)       # a cell is 4 pixels
    assert np.array_equal(batch["tracks"][0].numpy(), expected)
    mask = world.clip(1).object_mask(None)[::4]
    torch.testing.assert_close(batch["mask"][0], torch.from_numpy(mask.reshape(3, 12, 4, 12, 4).mean((2, 4))).float(), atol=1e-3, rtol=0)


# ---------------------------------------------------------------------------------------------- one video
def test_a_track_file_follows_the_crop_of_its_clip(files):
    folder, tracks = files
    whole = drawn(single(folder, tracks_file=str(folder / "tracks.npz")))
    assert np.allclose(whole, tracks)
    square = drawn(single(folder, size=(24, 24), tracks_file=str(folder / "tracks.npz")))              # 8 columns cut off on each side, then halved
    assert np.allclose(square[..., :2], (tracks[..., :2] - [8, 0] + 0.5) / 2 - 0.5)
    stretched = drawn(single(folder, size=(24, 64), crop=False, tracks_file=str(folder / "tracks.npz")))
    assert np.allclose(stretched[..., 0], tracks[..., 0]) and np.allclose(stretched[..., 1], (tracks[..., 1] + 0.5) / 2 - 0.5)


def test_csv_says_what_npz_says(files, tmp_path):
    _, tracks = files
    with open(tmp_path / "t.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([f, n, *tracks[f, n]] for n in (1, 0) for f in range(9))
    assert np.allclose(load_tracks(tmp_path / "t.csv"), tracks)


def test_points_of_a_mask_are_followed(files):
    folder, _ = files
    found = drawn(single(folder, mask_file=str(folder / "mask.png")), points=25)
    x, y = found[0, :, 0], found[0, :, 1]
    assert found.shape == (9, 25, 3) and (12 <= x).all() and (x < 40).all() and (10 <= y).all() and (y < 30).all()
    moved = (found[8, :, :2] - found[0, :, :2])[found[8, :, 2] > 0.5]
    assert len(moved) > 12 and np.abs(np.median(moved, 0) - 8 * np.array(STEP)).max() < 0.5


def test_cotracker_is_asked_with_the_weights_of_the_source(files, monkeypatch):
    folder, seen = files[0], []

    def predictor(frames, points, query_frame=0, checkpoint=None):
        from motionlab.teachers.points import Tracks

        seen.append((len(frames), query_frame, checkpoint))
        return Tracks(np.repeat(points[None], len(frames), 0), np.ones((len(frames), len(points)), bool))

    monkeypatch.setitem(__import__("motionlab.teachers.tracks", fromlist=["x"]).TRACK_TEACHERS, "cotracker", predictor)
    drawn(single(folder, mask_file=str(folder / "mask.png"), cotracker="w.pth"))
    assert seen == [(9, 0, "w.pth")]                        # frame 0, not 1 (R2 of the card)


def test_a_mask_lies_on_frame_0_of_the_clip(files):
    folder, _ = files
    mask = Sidecar("mask").draw(single(folder, size=(24, 24), mask_file=str(folder / "mask.png")), 0)
    expected = np.zeros((24, 24), np.uint8)
    expected[5:15, 2:16] = 1                                # rows 10 to 30 halved; columns 12 to 40, less 8, halved
    assert mask.shape == (1, 24, 24) and np.array_equal(mask[0], expected)
    encoded = Sidecar("mask").encode(np.stack([mask]), small_model(length=3))
    assert encoded.shape == (1, 1, 12, 12) and encoded.sum() * 4 == mask.sum()


@pytest.mark.parametrize("make, message", [
    (lambda d: d / "none.npz", "There is no track file"), (lambda d: d / "mask.png", "unknown ending '.png'"),
    (lambda d: np.savez(d / "a.npz", other=np.ones((2, 2, 3))) or d / "a.npz", "no readable array 'tracks'"),
    (lambda d: (d / "b.npz").write_bytes(b"PK cut") and d / "b.npz", "no readable array"),
    (lambda d: np.savez(d / "c.npz", tracks=np.ones((9, 4, 2))) or d / "c.npz", r"tracks are \(9, 4, 2\)"),
    (lambda d: np.savez(d / "d.npz", tracks=np.full((9, 4, 3), [np.inf, 3.0, 1.0])) or d / "d.npz", "not finite"),
    (lambda d: np.savez(d / "e.npz", tracks=np.ones((9, 4, 3))) or d / "e.npz", "look like fractions"),
    (lambda d: (d / "f.csv").write_text("frame,point,x\n0,0,1\n") and d / "f.csv", "cannot be read as tracks"),
    (lambda d: (d / "g.csv").write_text("frame,point,x,y,visible\n0,0,9,9,1\n1,1,9,9,1\n") and d / "g.csv", "not one row for every"),
    (lambda d: (d / "h.csv").write_text("frame,point,x,y,visible\n") and d / "h.csv", "cannot be read as tracks")])
def test_bad_track_files_are_named(files, make, message):
    with pytest.raises(MotionLabError, match=message):
        load_tracks(make(files[0]))


def test_hidden_places_may_be_unknown(tmp_path):
    np.savez(tmp_path / "t.npz", tracks=np.array([[[5.0, 6, 1]], [[np.nan, np.nan, 0]]]))
    assert load_tracks(tmp_path / "t.npz").tolist() == [[[5, 6, 1]], [[0, 0, 0]]]


def test_bad_masks_and_tracks_of_a_clip_are_named(files, tmp_path):
    folder, tracks = files
    clip = read_video(folder / "v.mp4", max_frames=9)
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "empty.png")
    Image.fromarray(np.full((40, 64), 9, np.uint8)).save(tmp_path / "other.png")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    np.savez(tmp_path / "short.npz", tracks=tracks[:7])
    np.savez(tmp_path / "hidden.npz", tracks=tracks * [1, 1, 0])
    corner = np.zeros((48, 64), np.uint8)
    corner[0, 0] = 255
    Image.fromarray(corner).save(tmp_path / "corner.png")
    for call, says in ((lambda: load_mask(tmp_path / "empty.png"), "is empty"), (lambda: load_mask(tmp_path / "none.png"), "There is no mask"),
                       (lambda: load_mask(tmp_path / "cut.png"), "cannot be read"), (lambda: read_mask(tmp_path / "other.png", clip), "40x64 pixels and its video 48x64"),
                       (lambda: read_tracks(tmp_path / "short.npz", clip), "tracks of 7 frames, and 9"),
                       (lambda: drawn(single(folder, tracks_file=str(tmp_path / "hidden.npz"))), "no point is ever visible"),
                       (lambda: drawn(single(folder, size=(24, 24), mask_file=str(tmp_path / "corner.png"))), "nothing is left at 24x24"),
                       (lambda: drawn(single(folder)), "without a mask"), (lambda: drawn(single(folder), teacher="exact"), "without exact truth"),
                       (lambda: drawn(Folder(folder, 9, (48, 64))), "without a mask")):
        with pytest.raises(MotionLabError, match=says):
            call()
    with pytest.raises(MotionLabError, match="tracks have 9 frames and the clip 17"):
        Sidecar("tracks").encode(tracks[None].astype(np.float32), small_model(length=5))


def test_one_video_is_known_by_its_files_and_read_once(files, tmp_path, monkeypatch):
    import motionlab.data.sources as sources

    folder, read = files[0], []
    monkeypatch.setattr(sources, "read_video", lambda *a, **k: read.append(a) or read_video(*a, **k))
    source, pipe = single(folder, size=(48, 48), mask_file=str(folder / "mask.png")), small_model(length=3)
    one = dataclasses.replace(source, caption="a red dog runs to the left over the meadow")
    data = open_data(one, pipe, (Sidecar("tracks"),), tmp_path, lambda text: None)
    assert len(data) == 1 and len(read) == 1 and data.batch(torch.tensor([0]))["tracks"].shape == (1, 3, 100, 3)
    assert len({source.hash(), one.hash(), single(folder).hash(), single(folder, crop=False).hash()}) == 4
    with pytest.raises(MotionLabError, match="has 12 of the 13 frames"):
        single(folder, frames=13).clip()


# ---------------------------------------------------------------------------------------------- motionlab train METHOD --video
def call(folder, out, *words, method="det", size=(32, 48)):
    usual = ["-p", "frames=9", "-p", f"height={size[0]}", "-p", f"width={size[1]}", "-p", f"fps={FPS}", "-p", "batch_size=1", "-p", "lr=1e-2",
             "-p", "bf16=false", "-p", "cpu=true", "--steps", "2"]
    return cli.main(["train", method, "--backbone", str(folder / "wan"), "--out", str(out), *usual, *words])


@pytest.fixture(scope="module")
def wan(files):
    return wan_snapshot(files[0] / "wan")


def test_one_video_and_a_mask_or_tracks_become_an_adapter_that_samples(files, wan, tmp_path, capsys):
    folder, _ = files
    video = ["--video", str(folder / "v.mp4"), "--caption", "a cat walks."]
    assert call(folder, tmp_path / "a", *video, "--mask", str(folder / "mask.png")) == 0
    assert call(folder, tmp_path / "b", *video, "--tracks", str(folder / "tracks.npz"), "-p", "target=features") == 0
    assert call(folder, tmp_path / "c", *video, method="lora") == 0                     # any method
    masked, tracked = (load_file(tmp_path / name / "det.safetensors") for name in "ab")
    assert masked.keys() == tracked.keys() and len(masked) == 4 and all(value.any() for value in masked.values())
    assert read_about(tmp_path / "a" / "det.safetensors")["method"] == "det" and (tmp_path / "c" / "lora.safetensors").is_file()
    (tmp_path / "p.txt").write_text("a dog walks.\n")
    sample = ["sample", "det", "--backbone", str(wan), "--weights", str(tmp_path / "a" / "det.safetensors"), "--prompts", str(tmp_path / "p.txt"),
              "--steps", "2", "-p", "bf16=false", "-p", "cpu=true"]
    assert cli.main([*sample, "--out", str(tmp_path / "s"), "-p", "keep=1.0"]) == 0
    assert cli.main([*sample, "--out", str(tmp_path / "t"), "-p", "keep=[5]"]) == 2
    assert "Block 5 has no branch; the nearest that has one is 1" in capsys.readouterr().err
    assert read_video(tmp_path / "s" / "000.mp4").frames.shape == (9, 32, 48, 3)


def test_what_cannot_be_is_told_before_a_generator_is_opened(files, tmp_path, capsys, monkeypatch):
    from motionlab.experiments import tuning

    monkeypatch.setattr(tuning, "open_pipe", lambda *a, **k: pytest.fail("opened"))
    folder, tracks = files
    np.savez(tmp_path / "short.npz", tracks=tracks[:7])
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "empty.png")
    Image.fromarray(np.ones((40, 64), np.uint8)).save(tmp_path / "other.png")
    (tmp_path / "cut.mp4").write_bytes((folder / "v.mp4").read_bytes()[:300])
    video, said = ["--video", str(folder / "v.mp4")], ["--caption", "a cat walks."]
    for words, says in (([*video], "has no caption"), ([*video, *said], "follows points of"), ([*said, "--videos", str(folder)], "have no caption"),
                        ([*video, *said, "--videos", str(folder)], "and a folder of videos too"), (said, "--videos is missing"),
                        ([*video, *said, "--tracks", str(tmp_path / "short.npz")], "tracks of 7 frames, and 9"),
                        ([*video, *said, "--mask", str(tmp_path / "empty.png")], "is empty"),
                        ([*video, *said, "--mask", str(tmp_path / "other.png")], "40x64 pixels and its video 48x64"),
                        (["--video", str(tmp_path / "cut.mp4"), *said, "--mask", str(folder / "mask.png")], "cut.mp4"),
                        (["--video", str(tmp_path / "none.mp4"), *said, "--mask", str(folder / "mask.png")], "no video file"),
                        ([*video, *said, "--mask", str(folder / "mask.png"), "-p", "cotracker=none.pth"], "no weights of CoTracker3"),
                        ([*video, *said, "--mask", str(folder / "mask.png"), "-p", "k=4"], "no middle one")):
        assert cli.main(["train", "det", "--out", str(tmp_path / "o"), "-p", "frames=9", *words]) == 2
        assert says in capsys.readouterr().err, words
    (folder / "captions.csv").write_text("file,caption\nv.mp4,a cat walks.\n")
    assert cli.main(["train", "det", "--out", str(tmp_path / "o"), "--videos", str(folder)]) == 2
    assert "given a folder of videos" in capsys.readouterr().err


def test_a_clip_too_short_for_the_kernel_is_told_before_it_is_encoded(files, wan, tmp_path, capsys, monkeypatch):
    from motionlab.experiments import tuning

    monkeypatch.setattr(tuning, "open_data", lambda *a, **k: pytest.fail("encoded"))
    folder, _ = files
    words = ["--video", str(folder / "v.mp4"), "--caption", "a cat walks.", "--mask", str(folder / "mask.png")]
    assert call(folder, tmp_path / "a", *words, "-p", "frames=5") == 2
    assert "fewer than the kernel's 3" in capsys.readouterr().err


def test_size_counts_the_kernel_with_its_settings(capsys):
    for words, added in (([], "0.0737 M trained"), (["-p", "m=16"], "0.147 M trained"), (["-p", "module=full_width"], "0.885 M trained")):
        assert cli.main(["size", "det", "--backbone", "small", "--tflops", "1", *words]) == 0
        assert added in capsys.readouterr().out
    assert cli.main(["size", "det", "--backbone", "small", "-p", "modul=mlp"]) == 2 and "Did you mean 'module'" in capsys.readouterr().err


def test_presets_of_the_paper_are_settings_of_a_training():
    from motionlab.cli.models import _settings
    from motionlab.experiments.tuning import TuneConfig

    presets = sorted((Path(__file__).parents[1] / "reproductions" / "det" / "presets").glob("*.yaml"))
    found = {}
    for path in presets:
        options = argparse.Namespace(config=str(path), parameters=[], out_dir="o", video="v.mp4", caption="c")
        found[path.stem] = _settings(TuneConfig, type(open_method("det")), options, ("videos", "out_dir"), ("video", "caption"))
    assert found.keys() == {"cogvideox-5b", "hunyuanvideo-a", "hunyuanvideo-b"}
    method, config = found["cogvideox-5b"]
    assert (method.k, method.m, method.weight, method.v_loss, config.steps, config.lr, config.training().warmup) == (3, 128, 0.1, True, 500, 1e-5, 0)
    assert config.weight_decay == 1e-4 and config.beta2 == 0.95 and (config.frames, config.height, config.width) == (49, 480, 720)
    assert [(m.k, m.stack, m.weight, c.lr, c.height, c.warmup) for m, c in (found["hunyuanvideo-a"], found["hunyuanvideo-b"])] == [
        (5, "transformer_blocks", 0.0, 1e-5, 512, 100), (3, "single_transformer_blocks", 0.0, 5e-6, 480, 100)]
