"""Damage to motion alone: what is damaged, by how much, and that everything else of the clip stays as it was."""
import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.metrics.motion_damage import FAULTS, RETIMINGS, break_motion, can_break, chosen_limb, retime
from motionlab.world import Scene, random_scene, render
from motionlab.world.faults import DONORS, Fault, moving_limbs
from motionlab.world.motions import pose
from motionlab.world.puppets import SPECIES
from motionlab.world.render import place_parts

TIMES = np.arange(17) / 16


def scene(species="person", motion="run", seed=31):
    return random_scene(seed, species_name=species, motion=motion, camera=False, paths=False)


def joints(one):
    from motionlab.world.faults import faulty_pose

    return faulty_pose(one.actors[0], TIMES, one.duration).joints


def turned(one, name, dose):
    """How far the joints are from where they should be, radians, mean over joints and frames."""
    wrong = joints(one.with_actor(0, faults=(Fault(name, dose, "" if name == "gait" else chosen_limb(one)),)))
    return np.mean([np.abs(wrong[k] - angle).mean() for k, angle in joints(one).items()])


@pytest.mark.parametrize("species", DONORS)
@pytest.mark.parametrize("name", FAULTS)
def test_no_dose_is_the_clip_itself_and_more_dose_changes_more(species, name):
    clip = render(random_scene(5, species_name=species))
    assert np.array_equal(break_motion(clip, name, 0), clip.frames)
    assert (break_motion(clip, name, 0.25) != clip.frames).any()
    assert 0 < turned(clip.scene, name, 0.25) < turned(clip.scene, name, 1.0)


def test_a_late_limb_lags_by_its_dose_and_the_others_do_not():
    one = scene()
    late = joints(one.with_actor(0, faults=(Fault("late", 0.5, "near_leg"),)))
    actor = one.actors[0]
    before = pose(actor, TIMES - actor.period / 4, one.duration).joints          # 0.5 x 180 degrees are a quarter of a cycle
    for name, angle in joints(one).items():
        assert np.allclose(late[name], before[name] if name.startswith("near_leg") else angle)
    assert not np.allclose(late["near_leg_upper"], joints(one)["near_leg_upper"])


def test_a_stuck_limb_holds_still_from_where_the_dose_says():
    angle = joints(scene().with_actor(0, faults=(Fault("stuck", 0.5, "near_leg"),)))["near_leg_upper"]
    assert np.ptp(angle[8:]) == 0 and np.allclose(angle[:9], joints(scene())["near_leg_upper"][:9])
    assert np.ptp(joints(scene().with_actor(0, faults=(Fault("stuck", 1.0, "near_leg"),)))["near_leg_upper"]) == 0


def test_a_foreign_gait_keeps_the_way_and_the_mean_posture():
    one = scene("fish", "swim")
    wrong = one.with_actor(0, faults=(Fault("gait", 1.0),))
    for name, angle in joints(one).items():
        assert np.mean(joints(wrong)[name]) == pytest.approx(np.mean(angle), abs=1e-9)
    here, there = (place_parts(s.actors[0], TIMES, s.duration)["head"][:, 0, 2] for s in (one, wrong))
    assert np.allclose(here, there, atol=0.1) and not np.allclose(joints(one)["spine2"], joints(wrong)["spine2"], atol=0.05)


@pytest.mark.parametrize("species", DONORS)
def test_anatomy_survives_every_fault(species):
    """Bones keep their length: the joint of a part stays where its parent carries it."""
    one = random_scene(5, species_name=species, camera=False)
    for fault in (Fault("late", 1.0, chosen_limb(one)), Fault("stuck", 0.7, chosen_limb(one)), Fault("gait", 1.0)):
        actor = one.with_actor(0, faults=(fault,)).actors[0]
        placed = place_parts(actor, TIMES, one.duration)
        for part in SPECIES[species].parts:
            if part.parent:
                gap = placed[part.name][:, :2, 2] - placed[part.parent][:, :2, 2]
                assert np.allclose(np.linalg.norm(gap, axis=-1), actor.size * np.hypot(*part.at), rtol=1e-6)


def test_the_limb_is_one_that_moves_and_not_the_trunk():
    assert chosen_limb(scene()) in ("near_leg", "far_leg") and chosen_limb(scene("bird", "fly")).endswith("wing")
    assert "torso" in moving_limbs(scene().actors[0])
    assert can_break(scene()) and not can_break(scene("ball", "roll")) and not can_break(scene("jelly", "hop"))


def test_faults_are_part_of_a_scene_file():
    wrong = scene().with_actor(0, faults=(Fault("late", 0.5, "near_leg"),))
    assert Scene.from_dict(wrong.to_dict()) == wrong


@pytest.mark.parametrize("name", RETIMINGS)
def test_retiming_shows_only_the_clips_own_frames_and_dose_0_all_of_them_in_order(name):
    frames = np.arange(17)
    assert np.array_equal(retime(frames, name, 0, np.random.default_rng(0)), frames)
    changed = [np.mean(retime(frames, name, dose, np.random.default_rng(0)) != frames) for dose in (0.25, 0.5, 1.0)]
    assert changed == sorted(changed) and 0 < changed[0] < changed[2]
    for dose in (0.25, 1.0):
        assert set(retime(frames, name, dose, np.random.default_rng(3))) <= set(frames)


def test_a_warp_never_runs_backwards_a_stutter_catches_up_and_a_shuffle_loses_no_frame():
    rng, frames = np.random.default_rng(0), np.arange(17)
    warp, stutter, shuffle = (retime(frames, name, 1.0, rng) for name in RETIMINGS)
    assert (np.diff(warp) >= 0).all() and warp[0] == 0 and warp[-1] == 16 and np.diff(warp).max() == 2
    assert np.array_equal(stutter[::2], frames[::2]) and np.array_equal(stutter[1::2], frames[0:16:2])
    assert sorted(shuffle) == list(frames)


@pytest.mark.parametrize("call, message", [
    (lambda: Fault("late", 1.5), "The nearest is 1"),
    (lambda: Fault("lte", 0.5), "Did you mean 'late'"),
    (lambda: break_motion(render(scene()), "stuk", 0.5), "Did you mean 'stuck'"),
    (lambda: break_motion(render(scene()), "late", 0.5, limb="near_lge"), "Did you mean 'near_leg'"),
    (lambda: break_motion(render(scene("ball", "roll")), "late", 0.5), "no limb that moves of its own"),
    (lambda: break_motion(render(scene("ball", "roll")), "gait", 0.5), "no gait that another species"),
    (lambda: retime(np.arange(9), "warp", -1, None), "The nearest is 0"),
    (lambda: retime(np.arange(9), "wrap", 0.5, None), "Did you mean 'warp'"),
])
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(MotionLabError, match=message):
        call()
