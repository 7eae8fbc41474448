"""A clip of one's own: its cuts, and whether a generator has seen anything like it."""
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

import videos
from motionlab import figures
from motionlab.analyses import domain
from motionlab.analyses.inputs import your_clip
from motionlab.core.errors import MotionLabError
from motionlab.core.protocol import split_seeds
from motionlab.models.open import open_pipe
from motionlab.video import RealClip, find_cuts, find_sample_clip, find_shots, read_shot, read_video, uneven_said, write_mp4
from motionlab.world import random_scene, render
from small import small_model


def world(seed, place="", size=48, frames=17):
    scene = random_scene(seed)
    return render(scene.with_attributes(place=place) if place else scene, size, frames).frames


def texture(seed, dx=0, dy=0, frames=17, side=48):
    """A texture that moves by (dx, dy) pixels per frame, uint8 (f, side, side, 3)."""
    margin = frames * max(abs(dx), abs(dy)) + 1
    big = videos.texture(side + 2 * margin, side + 2 * margin, seed)
    return np.stack([big[margin - t * dy:, margin - t * dx:][:side, :side] for t in range(frames)])


def joined(one, other, at):
    return np.concatenate([one[:at], other[at:]])


def lit(frames, *at):
    """The same with a flash in frames `at`."""
    out = frames.copy()
    out[list(at)] = 255
    return out


# ---------------------------------------------------------------------------------------------- cuts
def test_ten_cuts_are_found_where_they_are():
    """At the beginning, in the middle, at the end; the last five between pictures of the same colours."""
    place = random_scene(300).place
    pairs = [(world(300), world(301)), (world(302), texture(1, 1)), (texture(2, 0, 2), world(303)), (world(304), world(305)),
             (texture(3, 2), world(306)), (world(300), world(307, place)), (world(308, place), world(309, place)),
             (world(300), world(310, place)), (texture(4), texture(5)), (texture(6, 1), texture(7, 0, 1))]
    places = [9, 1, 2, 15, 8, 7, 14, 10, 6, 11]
    assert [find_cuts(joined(*pair, at)) for pair, at in zip(pairs, places)] == [[at] for at in places]


def test_ten_clips_without_a_cut_have_none():
    """Fast motion, a camera that shakes, a flash at three places and over two frames, light that changes, noise, a real camera."""
    grain = np.random.default_rng(0).normal(0, 20, (17, 48, 48, 3))
    fading = world(312) * np.linspace(0.3, 1, 17)[:, None, None, None]
    clips = [world(311), texture(8, 9, -7), texture(9, 0, 12), texture(10, -6), lit(world(313), 8), lit(world(314), 1), lit(texture(11, 1), 9, 10),
             fading.astype(np.uint8), np.clip(texture(12, 2) + grain, 0, 255).astype(np.uint8),
             read_video(find_sample_clip(), size=48, max_frames=60).frames]
    assert [find_cuts(clip) for clip in clips] == [[]] * 10


def test_cuts_of_a_real_film_and_clips_too_short_to_tell():
    film = read_video(find_sample_clip("bikes"), size=(64, 64), crop=None, max_frames=142).frames
    assert find_cuts(film) == [30, 76, 137]
    assert find_cuts(film[:1]) == find_cuts(film[29:31]) == []


@pytest.fixture(scope="module")
def cut_clip(tmp_path_factory):
    """Shots of 9, 20 and 4 frames."""
    path = tmp_path_factory.mktemp("cut") / "cut.mp4"
    write_mp4(path, np.concatenate([world(315, size=64)[:9], world(316, size=64, frames=20), world(317, size=64)[:4]]), 16, crf=10)
    return path


def test_a_shot_is_read_by_its_length_or_number(cut_clip):
    assert [(one.first, one.last) for one in find_shots(cut_clip)] == [(0, 8), (9, 28), (29, 32)]
    whole = read_video(cut_clip)
    for shot, first, last in (("longest", 9, 25), (2, 9, 25), ("1", 0, 8), (3, 29, 32)):
        part = read_shot(cut_clip, 48, 17, shot)
        assert np.array_equal(part.frames, read_video(cut_clip, 48).frames[first:last + 1])
        assert part.times[0] == whole.times[first]


def test_cuts_are_told_with_the_line_to_set(cut_clip, capsys):
    clip = read_shot(cut_clip, 48, 17)
    said = capsys.readouterr().out
    assert len(clip.frames) == 17 and "a cut at frame 9" in said and "have 9, 20, 4 frames" in said
    assert 'shot = "longest"    # frames 9 to 28; or its number, 1 to 3' in said
    read_shot(cut_clip, 48, 8), read_shot(cut_clip, 48, 17, "longest")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("shot, says", [("3", "Shot 3 .* has 4 frames; this needs 9. Its shots have 9, 20, 4 frames"), (4, "has 3 shots, and shot=4"),
                                        ("longer", "is none of them"), (0, "from 1 to 3"), (-1, "from 1 to 3")])
def test_shots_that_are_not_there_or_too_short(cut_clip, shot, says):
    with pytest.raises(MotionLabError, match=says):
        read_shot(cut_clip, 48, 17, shot, needed=9)


# ---------------------------------------------------------------------------------------------- careless users
def test_what_is_no_video_for_this(tmp_path):
    model = small_model(length=3)
    write_mp4(tmp_path / "short.mp4", videos.moving_texture(3, 64, 64), 8)
    from PIL import Image

    Image.fromarray(videos.texture(64, 64)).save(tmp_path / "picture.png")
    for path, says in ((tmp_path / "nowhere.mp4", "no video file"), (tmp_path / "picture.png", "1 frame; this needs 9.*\n.*one frame is a picture"),
                       (tmp_path / "short.mp4", "3 frames; this needs 9"), (videos.write_sound_only(tmp_path / "a.wav"), "no picture track"),
                       (tmp_path, "is a folder")):
        with pytest.raises(MotionLabError, match=says):
            your_clip(str(path), model)
    with pytest.raises(MotionLabError, match="ends before its frame 3"):
        read_video(tmp_path / "short.mp4", first=3)


def test_portrait_and_uneven_clips(tmp_path, capsys):
    write_mp4(tmp_path / "portrait.mp4", videos.moving_texture(9, 128, 72), 16)
    assert your_clip(str(tmp_path / "portrait.mp4"), small_model(length=3)).frames.shape == (9, 48, 48, 3)
    assert "frames for" not in capsys.readouterr().out
    uneven = videos.write_variable_rate(tmp_path / "uneven.mp4", videos.moving_texture(9, 64, 64), [0, 40, 80, 120, 320, 360, 400, 440, 480])
    your_clip(str(uneven), small_model(length=3))
    assert "frames for 0.040 to 0.200 s" in capsys.readouterr().out
    assert uneven_said(RealClip(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1), 16, "x", (8, 8), 16)) == ""


# ---------------------------------------------------------------------------------------------- what the base has seen
@pytest.fixture(scope="module")
def base():
    return open_pipe()


def test_clips_of_the_world_lie_inside(base):
    """Eight of another split than the one that they are compared with (of 20 all are)."""
    low, high = np.percentile(domain.world_errors(base, 17), [5, 95], axis=0)
    errors = domain.errors_of(np.stack([world(seed) for seed in split_seeds("dev", 8)]), base)
    assert (errors <= domain.FAR * high).all(1).sum() >= 7 and (low < np.median(errors, 0)).all()


def test_a_real_camera_noise_and_a_blank_clip_lie_outside(base, tmp_path, capsys):
    write_mp4(tmp_path / "world.mp4", world(4000123, size=96), 16, crf=10)
    mine = your_clip(str(tmp_path / "world.mp4"), base)
    assert mine.domain.inside and mine.domain.sentence in capsys.readouterr().out and "Within what 'base' has seen" in mine.domain.sentence
    noise = np.random.default_rng(0).integers(0, 256, (17, 48, 48, 3), dtype=np.uint8)
    bikes = read_video(find_sample_clip("bikes"), size=(48, 48), max_frames=17)          # the darkest and smoothest shot of the two films
    for clip in (read_video(find_sample_clip(), size=144, max_frames=49), bikes, SimpleNamespace(frames=noise),
                 SimpleNamespace(frames=np.full_like(noise, 128))):
        found = domain.domain_of(clip, base)
        assert found.inside is False and "No conclusion about the clip is drawn" in found.sentence
        assert domain.concluded(found, "It walks.") == found.sentence
    assert domain.concluded(mine, "It walks.") == domain.concluded(SimpleNamespace(frames=noise), "It walks.") == "It walks."


def test_errors_of_the_world_are_kept_for_the_weights_that_made_them(base, tmp_path, monkeypatch):
    calls, made = [], np.arange(64.0).reshape(32, 2)
    monkeypatch.setattr(domain, "repo_root", lambda: tmp_path)
    monkeypatch.setattr(domain, "errors_of", lambda frames, model: calls.append(len(frames)) or made)
    domain._world_errors.cache_clear()
    try:
        assert np.array_equal(domain.world_errors(base, 5), made) and calls == [32]
        (path,) = tmp_path.rglob("*.json")
        assert path.name.startswith(base.codec_name[:16]) and "5x48x48" in path.name
        for text, asked in ((path.read_text(), 1), ("[1.0]", 2), ("{", 3), ('["a"]', 4)):
            path.write_text(text)
            domain._world_errors.cache_clear()
            assert np.array_equal(domain.world_errors(base, 5), made) and len(calls) == asked
    finally:
        domain._world_errors.cache_clear()


def test_a_generator_without_a_world_says_that_nothing_is_known():
    model = small_model(length=3)
    model.kind, model.name = "wan", "<wan>"
    found = domain.domain_of(SimpleNamespace(frames=world(3)), model)
    assert found.inside is None and found.low is None and "no world to compare with" in found.sentence
    assert "&lt;wan&gt;" in found._repr_html_() and "<wan>" not in found._repr_html_()
    assert domain.concluded(found, "It walks.") == "It walks."


def test_figures_say_it_in_their_last_line():
    found = domain.Domain("base", domain.Errors(20.0, 1.5), domain.Errors(2.0, 0.1), domain.Errors(5.0, 0.3), False)
    yours, anothers = SimpleNamespace(domain=found), SimpleNamespace(frames=None)
    fig = figures.stamped(figures.film({"yours": world(3)}), yours, yours)
    said = fig._supxlabel.get_text()
    assert said.replace("\n", " ") == f"Your clip: {found.sentence}" and max(map(len, said.split("\n"))) <= 13.5 * 9
    fig.draw_without_rendering()
    box, whole = fig._supxlabel.get_window_extent(), fig.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0
    assert figures.stamped(Figure(), anothers)._supxlabel is None
