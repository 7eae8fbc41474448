"""Motion failures: each detector sees its own damage, on clean and on softened clips, and mostly not the others'."""
from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.metrics import failures
from motionlab.metrics.failures import DETECTORS, courses, PERCENTILE, detect_failures, observe
from motionlab.world import motions, random_scene, render
from motionlab.world.puppets import species

CAST = (("person", "walk"), ("dog", "walk"), ("ball", "roll"), ("wheel", "spin"), ("box", "pass_behind"))
BLACK = np.zeros((3, 48, 48, 3), np.uint8)
SEEDS = (300, 301, 4_000_000)


def scenes(*cast):
    return [random_scene(seed, species_name=s, motion=m) for s, m in cast or CAST for seed in SEEDS]


# ---------------------------------------------------------------------------------------------- hand-made damage
def legs_in_step(scene, clean):
    """The far legs half a cycle off; `motions._gait` is put back by the caller."""
    true = motions._gait

    def in_step(actor, t, **how):
        off = true(dataclasses.replace(actor, phase=actor.phase + 0.5), t, **how)
        far = {name: angle for name, angle in off.items() if name.startswith(("far_leg", "far_hind", "far_fore"))}
        return true(actor, t, **how) | far

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motions, "_gait", in_step)
        return render(scene).frames


def pasted_limb(scene, clean):
    """A second copy of the second largest limb, in the upper corner away from it."""
    masks, out = clean.limb_masks(), clean.frames.copy()
    limb = masks[sorted(masks, key=lambda k: masks[k].sum())[-2]]
    for t in range(len(out)):
        y, x = np.nonzero(limb[t])
        if len(y):
            dx = 4 - x.min() if x.mean() > 24 else 43 - x.max()
            out[t, y + 4 - y.min(), x + dx] = clean.frames[t, y, x]
    return out


def hidden_limb(scene, clean):
    limb = {"person": "near_arm", "dog": "head", "ball": "dot", "wheel": "hub", "box": "lid"}[scene.actors[0].species]
    return render(scene.with_actor(0, hide=(limb,))).frames


def sunk(scene, clean):
    return render(scene.with_actor(0, y=0.08)).frames


def in_front(scene, clean):
    bare = render(dataclasses.replace(scene, occluders=()))
    return np.where(bare.object_mask()[..., None], bare.frames, clean.frames)


def time_warped(scene, clean):
    fine = render(scene, frames=257, fps=256.0).frames
    return fine[np.round(256 * np.linspace(0, 1, 17) ** 2).astype(int)]


def reversed_(scene, clean):
    return clean.frames[::-1]


def held(scene, clean):
    return np.repeat(clean.frames[:1], 17, axis=0)


def dropped(scene, clean):
    parts = {p.group for p in species(scene.actors[0].species).parts}
    out, empty = clean.frames.copy(), render(scene.with_actor(0, hide=tuple(parts))).frames
    out[6:10] = empty[6:10]
    return out


# detector, damage, whom it befalls, which other detectors it sets off by its nature (see the module's docstring)
PROOFS = (
    ("same_leg_gait", legs_in_step, CAST[:2], {"missing_part"}),
    ("extra_part", pasted_limb, CAST[:3], {"same_leg_gait", "rotation_period", "missing_part"}),
    ("missing_part", hidden_limb, CAST[:3], {"extra_part"}),
    ("interpenetration", sunk, CAST[::2][:2], set()),
    ("interpenetration", in_front, CAST[4:], set()),
    ("rotation_period", time_warped, CAST[2:4], {"frozen"}),
    ("heading_error", reversed_, CAST[1:3], set()),
    ("frozen", held, CAST[3:], set()),
    ("appearing_vanishing", dropped, CAST[1:3], set()),
)


def soften(frames, seed=0):
    """Gaussian blur of 0.5 px and uniform noise of +-4 of 255, about what a codec does."""
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.5) for frame in frames]).astype(int)
    return np.clip(blurred + np.random.default_rng(seed).integers(-4, 5, frames.shape), 0, 255).astype(np.uint8)


def failure_rates(rows, floor):
    """Share of clips above the floor's 95th percentile, by detector; NaN where it applies to none."""
    rates = {}
    for name in DETECTORS:
        values, known = (np.array([row[name] for row in some if not np.isnan(row[name])]) for some in (rows, floor))
        rates[name] = (values > np.percentile(known, PERCENTILE)).mean() if len(values) and len(known) else np.nan
    return rates


@pytest.fixture(scope="module")
def clean():
    return [render(scene) for scene in scenes()]


@pytest.fixture(scope="module")
def floors(clean):
    """Rows of the clean clips, as they are and softened."""
    return {name: [detect_failures(change(c.frames), c.attributes) for c in clean]
            for name, change in (("as rendered", np.asarray), ("softened", soften))}


@pytest.mark.parametrize("detector, damage, cast, others", PROOFS, ids=[f"{p[0]}-{p[1].__name__}" for p in PROOFS])
def test_a_detector_sees_its_damage_and_the_others_mostly_do_not(detector, damage, cast, others, clean, floors):
    of = [c for c in clean if (c.scene.actors[0].species, c.scene.actors[0].motion) in cast]
    damaged = [damage(c.scene, c) for c in of]
    rates = failure_rates([detect_failures(f, c.attributes) for f, c in zip(damaged, of)], floors["as rendered"])
    softened = [detect_failures(soften(f), c.attributes) for f, c in zip(damaged, of)]
    soft = failure_rates(softened, floors["softened"])
    assert rates[detector] >= 0.8 and soft[detector] >= 0.8
    spurious = {k: v for k, v in rates.items() if k not in others | {detector} and v > 0.25}
    assert not spurious


def test_clean_clips_of_other_seeds_stay_below_the_floor(floors):
    clips = [render(random_scene(seed, species_name=s, motion=m)) for s, m in CAST for seed in (310, 311)]
    rates = failure_rates([detect_failures(c.frames, c.attributes) for c in clips], floors["as rendered"])
    assert np.nanmean(list(rates.values())) < 0.15


def test_a_detector_is_nan_where_its_failure_cannot_occur(clean, floors):
    row = dict(zip([(c.scene.actors[0].species, c.scene.actors[0].motion) for c in clean], floors["as rendered"]))
    assert np.isnan(row["ball", "roll"]["same_leg_gait"]) and np.isnan(row["wheel", "spin"]["interpenetration"])
    assert np.isnan(row["person", "walk"]["rotation_period"]) and np.isnan(row["box", "pass_behind"]["extra_part"])
    swing = render(random_scene(1, species_name="pendulum", motion="swing"))
    assert np.isnan(failures.heading_error(observe(swing.frames, swing.attributes)))


def test_a_pan_is_no_travel_and_a_frozen_subject_under_it_is_frozen():
    scene = random_scene(4, species_name="box", motion="slide", camera=False, paths=False).with_actor(0, speed=1e-6)
    clip = render(dataclasses.replace(scene, camera=dataclasses.replace(scene.camera, pan=(0.12, 0.0))))
    seen = observe(clip.frames, clip.attributes)
    assert seen.shift[-1] == pytest.approx(-0.12 * 48, abs=0.6)
    assert failures.frozen(seen) == 1 and failures.heading_error(seen) == 0


def test_an_angle_of_known_course_has_a_known_misfit():
    t = np.linspace(0, 1, 101)
    line = np.stack([np.ones_like(t), t], 1)
    assert courses._misfit(3 * t - 1, line) == pytest.approx(0, abs=1e-9)
    assert courses._misfit(t ** 2, line) == pytest.approx(1 / np.sqrt(180), rel=0.05)


def test_no_subject_is_missing_not_an_exception(clean):
    empty = np.full((17, 48, 48, 3), 255, np.uint8)
    row = detect_failures(empty, clean[0].attributes)
    assert row["missing_part"] == 1 and np.isnan([v for k, v in row.items() if k != "missing_part"]).all()


def test_a_caption_and_its_parsed_form_give_the_same(clean, floors):
    assert detect_failures(clean[0].frames, clean[0].caption) == pytest.approx(floors["as rendered"][0], nan_ok=True)


@pytest.mark.parametrize("call, message", [
    (lambda: detect_failures(BLACK, "a red dgo runs to the left at dusk"), "Did you mean 'dog'"),
    (lambda: detect_failures(BLACK / 255, "a red dog runs to the left at dusk"), "uint8"),
    (lambda: observe(BLACK, {"actors": [{}, {}], "place": "snow", "camera": ""}), "2 subjects"),
])
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(MotionLabError, match=message):
        call()
