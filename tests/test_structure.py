"""Structure error: it answers known damage in the right order, hand-made readings have known answers, bad input."""
from __future__ import annotations

import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.metrics.palette import LimbReading, limb_table, read_limbs
from motionlab.metrics.structure import DAMAGES, damage, joint_lengths, structure_error, subject_size
from motionlab.world import random_scene, render

SPECIES = ("person", "dog", "bird", "person", "dog", "bird", "person", "dog", "bird", "person")


@pytest.fixture(scope="module")
def clips():
    return [render(random_scene(700 + k, species_name=s), frames=13) for k, s in enumerate(SPECIES)]


@pytest.fixture(scope="module")
def means(clips):
    """(damage, dose) -> term -> mean over the clips."""
    out = {}
    for number, clip in enumerate(clips):
        rng, actor = np.random.default_rng([0, number]), clip.scene.actors[0]
        look = (actor.species, actor.colour, clip.scene.place)
        for name, dose in ((name, dose) for name, doses in DAMAGES.items() for dose in doses):
            found = structure_error(read_limbs(damage(clip, name, dose, rng), *look), read_limbs(clip.frames, *look))
            out.setdefault((name, dose), []).append(found)
    return {at: {k: float(np.nanmean([r[k] for r in found])) for k in found[0]} for at, found in out.items()}


def rising(means, name, term):
    values = [means["clean", 0][term]] + [row[term] for (n, _), row in means.items() if n == name]
    return all(a < b for a, b in zip(values, values[1:]))


@pytest.mark.parametrize("name, term", [("hide", "missing"), ("shift", "length_error"), ("blur", "missing"),
                                        ("shuffled", "jump"), ("species", "length_error")])
def test_each_damage_is_seen_by_its_term(means, name, term):
    damaged = [row[term] for (n, _), row in means.items() if n == name]
    assert damaged[-1] > 2 * means["clean", 0][term] + 0.01


def test_a_clean_clip_is_near_zero_and_every_damage_above_it(means):
    clean = means["clean", 0]
    assert clean["articulation"] < 0.5 and clean["part_error"] == 0
    for name in ("frozen", "shuffled", "species"):
        assert means[name, 1]["part_error"] > 0.1


def test_shift_is_measured_in_fractions_of_the_subject(clips):
    clip = clips[0]
    actor = clip.scene.actors[0]
    reading = read_limbs(clip.frames, actor.species, actor.colour, clip.scene.place)
    moved = LimbReading(**{**vars(reading), "centres": reading.centres + (3.0, 4.0)})
    assert structure_error(moved, reading)["part_error"] == pytest.approx(5.0 / subject_size(reading))


def ball(centres, area=100.0):
    """A ball's reading whose three limbs move as `centres` (f, 2) says."""
    f, limbs = len(centres), len(limb_table("ball"))
    area = np.full((f, limbs), area)
    centres, names = np.repeat(np.asarray(centres, float)[:, None], limbs, 1), tuple(b.name for b in limb_table("ball"))
    return LimbReading(centres, area, names, "ball", "red", "snow", (48, 48))


def test_hand_made_readings_have_known_terms():
    way = np.stack([np.arange(8.0), np.zeros(8)], 1)
    steady = structure_error(ball(way))
    assert steady["jump"] == 0 and steady["flicker"] == 0 and steady["length_variation"] == 0
    gone = ball(way)
    gone.area[4:], gone.centres[4:] = 0, np.nan
    assert structure_error(gone)["flicker"] == pytest.approx(1 / 7)
    assert joint_lengths(ball(way)).shape[0] == 8 and np.nanmax(joint_lengths(ball(way))) == 0


def test_one_frame_and_no_subject_give_nan_not_an_exception():
    one = structure_error(ball(np.zeros((1, 2))))
    assert np.isnan(one["jump"])
    empty = read_limbs(np.full((4, 48, 48, 3), 255, np.uint8), "person", "red", "snow")
    assert structure_error(empty)["articulation"] > 1


def test_same_clip_gives_same_numbers(clips):
    one, two = (damage(clips[0], "shuffled", 1, np.random.default_rng(0)) for _ in range(2))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("call, message", [
    (lambda: structure_error(np.zeros(3)), "read_limbs"),
    (lambda: structure_error(ball(np.zeros((4, 2))), ball(np.zeros((5, 2)))), "4 frames, the reference 5"),
    (lambda: damage(None, "hied", 1, None), "Did you mean 'hide'"),
])
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(MotionLabError, match=message):
        call()


def test_articulation_rises_with_what_breaks_a_body_and_not_with_what_colours_it(means):
    clean = means["clean", 0]["articulation"]
    assert rising(means, "hide", "articulation") and rising(means, "shift", "articulation")
    assert means["shuffled", 1]["articulation"] > 3 * clean and means["species", 1]["articulation"] > 1.5 * clean


def test_a_learned_readers_limbs_go_through_the_same_error(clips):
    from motionlab.metrics.structure import reading_of
    from motionlab.models.evaluator import LIMBS, true_limbs

    for clip in clips[:3]:
        species = clip.scene.actors[0].species
        positions, visible = (a[:, :len(LIMBS[species])] for a in true_limbs(clip))
        exact = structure_error(reading_of(positions, visible, LIMBS[species], species, clip.size))
        seen = structure_error(read_limbs(clip.frames, species, clip.scene.actors[0].colour, clip.scene.place))
        assert exact["articulation"] == pytest.approx(seen["articulation"], abs=0.25)
        gone = visible.copy()
        gone[:, :2] = 0
        assert structure_error(reading_of(positions, gone, LIMBS[species], species, clip.size))["articulation"] > exact["articulation"] + 0.1
        wild = positions + 8 * np.random.default_rng(0).standard_normal(positions.shape)
        assert structure_error(reading_of(wild, visible, LIMBS[species], species, clip.size))["articulation"] > exact["articulation"] + 0.5


def test_joined_limbs_are_where_the_middle_of_their_visible_ones_is():
    from motionlab.metrics.structure import reading_of

    names = ("pole", "axle", "blade0", "blade1", "blade2", "blade3", "cap")
    positions = np.zeros((1, 7, 2))
    positions[0, 1], positions[0, 6] = (10, 10), (14, 10)
    visible = np.ones((1, 7))
    reading = reading_of(positions, visible, names, "spinner", (48, 48))
    assert reading.centres[0, reading.names.index("axle+cap")].tolist() == [12, 10]
    visible[0, 6] = 0
    again = reading_of(positions, visible, names, "spinner", (48, 48))
    assert again.centres[0, again.names.index("axle+cap")].tolist() == [10, 10]
