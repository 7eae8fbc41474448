"""The palette reader: within half a pixel on clean renders, hand-made pictures with known answers, bad input."""
from __future__ import annotations

import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.metrics.palette import limb_links, limb_table, read_limbs
from motionlab.metrics.reconstruction import limb_truth
from motionlab.world import random_scene, render
from motionlab.world.palette import PLACES, shade


def clips(seeds, **options):
    return [render(random_scene(seed), **options) for seed in seeds]


def errors_of(clip):
    """Distances in pixels between read centres and the centroids of the true masks, of limbs of >= 4 pixels."""
    actor, truth = clip.scene.actors[0], limb_truth(clip)[0]
    reading = read_limbs(clip.frames, actor.species, actor.colour, clip.scene.place)
    return np.linalg.norm(reading.centres - truth, axis=-1)[~np.isnan(truth[..., 0])]


def canvas(f=3, place="snow"):
    sky = (255 * np.array(PLACES[place].sky[0])).round().astype(np.uint8)
    return np.broadcast_to(sky, (f, 48, 48, 3)).copy()


def paint(frames, rows, cols, slot, colour="red"):
    frames[:, slice(*rows), slice(*cols)] = np.round(255 * shade(colour, slot))


def test_limbs_of_60_clean_clips_are_within_half_a_pixel():
    found = np.concatenate([errors_of(c) for c in clips(range(400, 460), frames=3, fps=3)])
    assert np.isnan(found).mean() < 0.01
    found = found[~np.isnan(found)]
    assert np.median(found) < 0.25 and np.mean(found) < 0.5
    assert (found <= 0.5).mean() > 0.90


def test_hand_made_ball_has_known_centres_and_areas():
    frames = canvas()
    paint(frames, (10, 30), (12, 32), "body")
    paint(frames, (18, 22), (12, 32), "pale")
    reading = read_limbs(frames, "ball", "red", "snow")
    body, band, dot = (reading.names.index(n) for n in ("body", "band", "dot"))
    assert np.allclose(reading.centres[:, body], (21.5, 19.5), atol=0.05)
    assert np.allclose(reading.centres[:, band], (21.5, 19.5), atol=0.05)
    assert np.allclose(reading.area[:, band], 80, atol=2) and np.allclose(reading.area[:, body], 320, atol=2)
    assert not reading.present[:, dot].any()
    assert np.isnan(reading.centres[:, dot]).all()


def test_an_edge_pixel_is_shared_and_the_centre_follows():
    frames = canvas(1)
    paint(frames, (10, 20), (10, 20), "body")
    half = (frames[0, 12, 12].astype(float) + frames[0, 40, 40]) / 2
    frames[0, 10:20, 20] = half.round()
    reading = read_limbs(frames, "ball", "red", "snow")
    body = reading.names.index("body")
    assert reading.area[0, body] == pytest.approx(105, abs=1.5)
    assert reading.centres[0, body, 0] == pytest.approx((100 * 14.5 + 5 * 20) / 105, abs=0.1)


def test_foreign_colours_belong_to_nothing():
    frames = canvas()
    frames[:, 10:20, 10:20] = (0, 255, 255)
    reading = read_limbs(frames, "person", "red", "snow")
    assert not reading.present.any()


def test_specks_are_no_limbs():
    frames = canvas()
    paint(frames, (10, 30), (10, 30), "body")
    paint(frames, (40, 41), (5, 6), "body")
    reading = read_limbs(frames, "ball", "red", "snow")
    assert reading.area[0, reading.names.index("body")] == pytest.approx(400, abs=2)


def test_limbs_of_one_shade_are_told_apart_by_anchor_or_joined():
    assert {"ear", "tail"} <= {limb.name for limb in limb_table("dog")}
    assert {"beak", "tail"} <= {limb.name for limb in limb_table("bird")}
    assert "spoke1+spoke2+spoke3+spoke4" in [limb.name for limb in limb_table("wheel")]
    names = [limb.name for limb in limb_table("person")]
    joined = {(names[a], names[b]) for a, b in limb_links("person")}
    assert joined == {("torso", "head"), ("torso", "near_arm"), ("torso", "far_arm")}


def test_reading_moves_with_the_picture_and_is_per_frame():
    clip = render(random_scene(7, species_name="dog", camera=False), frames=4)
    colour = clip.scene.actors[0].colour
    whole = read_limbs(clip.frames, "dog", colour, clip.scene.place)
    single = read_limbs(clip.frames[2], "dog", colour, clip.scene.place)
    assert np.allclose(whole.centres[2], single.centres[0], equal_nan=True)
    rolled = read_limbs(np.roll(clip.frames, 1, axis=2)[:, :, 1:], "dog", colour, clip.scene.place)
    inside = clip.object_mask()[:, :, -2:].sum() == 0
    if inside:
        assert np.nanmedian(np.abs(rolled.centres - whole.centres)) < 0.05


@pytest.mark.parametrize("call, message", [
    (lambda f: read_limbs(f, "dgo", "red", "snow"), "Did you mean 'dog'"),
    (lambda f: read_limbs(f, "dog", "rde", "snow"), "Did you mean 'red'"),
    (lambda f: read_limbs(f, "dog", "red", "meadw"), "Did you mean 'meadow'"),
    (lambda f: read_limbs(f.astype(np.float32), "dog", "red", "snow"), "uint8"),
    (lambda f: read_limbs(np.moveaxis(f, -1, 1), "dog", "red", "snow"), "channels last"),
    (lambda f: read_limbs(f[:0], "dog", "red", "snow"), "shape"),
])
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(MotionLabError, match=message):
        call(canvas())
