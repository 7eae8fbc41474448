"""The four tasks between two frames, and what is trained on: exact truths, ends as they say, nothing held out."""
import dataclasses

import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.core.protocol import held_out, read_protocol, split_seeds
from motionlab.data.bank import BankConfig
from motionlab.data.transitions import FPS, FRAMES, HALVES, TASKS, HalfDissolved, changed, dissolve, load_ends
from motionlab.world import parse_caption, random_scene, render
from motionlab.world.captions import describe

FULL = {"between": 64, "pose": 32, "blend": 48, "change": 32}


def test_sets_have_their_sizes_halves_and_seeds_of_their_own():
    taken = []
    for task, n in FULL.items():
        found = load_ends(task)
        assert len(found) == n and len({e.id for e in found}) == n
        assert all(e.seed in split_seeds("test", None) for e in found)
        taken += [e.seed for e in found]
    assert len(set(taken)) == len(taken) == sum(FULL.values())
    assert {e.seed for e in load_ends("between_dev")} <= set(split_seeds("dev", None))
    assert [e.half for e in load_ends("between")].count("reversible") == 32 and [e.half for e in load_ends("change")].count("colour") == 16
    with pytest.raises(MotionLabError, match="Did you mean 'blend"):
        load_ends("blends")
    with pytest.raises(MotionLabError, match="has 32 pairs, not 33"):
        load_ends("pose", 33)


def test_nothing_shows_a_held_out_pair_a_camera_or_a_path():
    for task in FULL:
        for e in load_ends(f"{task}_dev", 12):
            for scene in (e.first, e.last):
                said = describe(scene)
                assert not held_out(said, read_protocol()) and not said["camera"] and not scene.actors[0].path


def test_between_is_a_whole_clip_whose_caption_leaves_the_heading_to_the_ends():
    found = load_ends("between_examples")
    assert {e.first.actors[0].motion for e in found} == {m for half in HALVES.values() for m in half}
    for e in found[:3]:
        truth, (first, last) = e.truth(), e.pictures()
        assert truth.shape == (FRAMES, 48, 48, 3) and (truth[0] == first).all() and (truth[-1] == last).all()
        assert (e.truth(frames=17)[::2] == truth).all()
        assert e.text_first == e.text_last and parse_caption(e.text_first)["actors"][0]["heading"] is None
        assert describe(e.first)["actors"][0] | {"heading": None} == parse_caption(e.text_first)["actors"][0]


def test_pose_and_blend_share_what_they_should_and_have_no_truth():
    for e in load_ends("pose_examples"):
        a, b = e.first.actors[0], e.last.actors[0]
        assert (a.species, a.colour, a.heading, e.first.place) == (b.species, b.colour, b.heading, e.last.place) and a.size != b.size
        assert e.truth() is None
    for e in load_ends("blend_examples"):
        a, b = e.first.actors[0], e.last.actors[0]
        assert a.species != b.species and a.colour == b.colour and e.first.place == e.last.place and e.text_first != e.text_last
        first, last = e.pictures()
        assert (first == e.clips()[0].frames[4]).all() and (last == e.clips()[1].frames[4]).all() and e.truth() is None


def test_change_dissolves_one_motion_into_its_other_look():
    for e in load_ends("change_examples", 4):
        a, b = e.clips()
        truth = e.truth()
        assert (truth[0] == a.frames[0]).all() and (truth[-1] == b.frames[-1]).all() and (truth == dissolve(a.frames, b.frames)).all()
        assert np.abs(truth[4].astype(float) - (a.frames[4].astype(float) + b.frames[4]) / 2).max() <= 0.5
        assert dataclasses.replace(e.first.actors[0], colour=e.last.actors[0].colour) == e.last.actors[0]
        assert (e.half == "place") == (e.first.place != e.last.place) and (a.ids == b.ids).all()


@pytest.mark.parametrize("species, motion", [("ball", "roll"), ("wheel", "roll"), ("box", "pass_behind")])
def test_a_reversible_clip_reversed_is_a_clip_of_the_other_heading(species, motion):
    """Its way and outline exactly; a box slows down, so that one reversed is no clip of either heading."""
    scene = random_scene(7, species_name=species, motion=motion, camera=False, paths=False)
    actor = scene.actors[0]
    turned = scene.with_actor(0, heading={"left": "right", "right": "left"}[actor.heading], phase=-actor.phase)
    a, b = render(scene, frames=FRAMES, fps=FPS), render(turned, frames=FRAMES, fps=FPS)
    way = lambda clip: np.stack([p["centre"] for p in clip.pose().values()]).mean(0)
    assert np.allclose(way(a)[::-1], way(b), atol=0.6) and not np.allclose(way(a), way(b), atol=2)
    assert (a.object_mask()[::-1] == b.object_mask()).mean() > 0.995
    slide = random_scene(7, species_name="box", motion="slide", camera=False, paths=False)
    back = slide.with_actor(0, heading={"left": "right", "right": "left"}[slide.actors[0].heading])
    c, d = render(slide, frames=FRAMES, fps=FPS), render(back, frames=FRAMES, fps=FPS)
    assert np.abs(way(c)[::-1] - way(d)).max() > 1


def test_half_of_the_training_clips_dissolve_and_the_rest_are_the_worlds_own():
    source = HalfDissolved(BankConfig("examples", clips=6, frames=FRAMES))
    own = [render(random_scene(seed), 48, FRAMES, FPS).frames for seed in source.seeds]
    assert all((source.clip(i).frames == own[i]).all() == (i % 2 == 0) for i in range(6))
    assert all((source.clip(i).frames[0] == own[i][0]).all() for i in range(6)) and len(source.captions) == 6
    assert source.hash() != HalfDissolved(BankConfig("examples", clips=7, frames=FRAMES)).hash() and "half_dissolved" in source.name
    scene = random_scene(source.seeds[1])
    assert changed(scene, "place", np.random.default_rng(0)).actors == scene.actors and set(TASKS) == set(FULL)
