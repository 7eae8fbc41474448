"""Turning and going: does the subject's angle follow a simple course, does it go where it heads?"""
from __future__ import annotations

import numpy as np

from motionlab.metrics.failures.evidence import MIN_FRAMES, Evidence, shades_of
from motionlab.world.motions import MOTIONS

MIN_SHARE = 0.1        # of the usual speed: slower than this against the heading is standing, not going
_MARKS = {"ball": (("body", "dot"),), "wheel": (("hub", "spoke0"),), "pendulum": (("rod", "bob"),),
          "spinner": (("blade2", "blade0"), ("blade3", "blade1")), "person": (("torso", "head"),)}
_TURNING = ("roll", "spin", "pass_behind", "bounce", "swing", "flip")


def rotation_period(seen: Evidence) -> float:
    """Rms distance in radians of the subject's angle to the simplest course (rolls, spins, flips, bounces; swings).

    The course: a straight line; for a swing the nearest sinusoid with a period that the motion has.
    """
    angle, time = _angle(seen)
    if len(time) < MIN_FRAMES:
        return np.nan
    if seen.actor["motion"] != "swing":
        return _misfit(angle, np.stack([np.ones_like(time), time], 1))
    periods = MOTIONS["swing"].period * np.linspace(0.92, 1.12, 9)
    return min(_misfit(angle, np.stack([np.ones_like(time), np.cos(w * time), np.sin(w * time)], 1))
               for w in 2 * np.pi / periods)


def _misfit(values, basis):
    return np.sqrt(np.mean((values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]) ** 2))


def _angle(seen):
    """Angle of the subject's marks (radians, clockwise on the screen, unwrapped) and its times (s); empty if none."""
    if seen.actor["motion"] not in _TURNING or seen.actor["species"] not in _MARKS:
        return np.zeros(0), np.zeros(0)
    marks = _MARKS[seen.actor["species"]]
    arms = np.stack([_mark(seen, end) - seen.at(start) for start, end in marks], 1)
    ok = ~np.isnan(arms).any((1, 2)) & seen.whole
    angles = np.unwrap(np.arctan2(arms[ok, :, 1], arms[ok, :, 0]), axis=0)
    return angles.mean(1), np.nonzero(ok)[0] / seen.fps


def _mark(seen, limb):
    """Centre of a marked limb, (f, 2). A wheel's spoke is thin, and blurred edges of the rim look like it: its core."""
    if limb != "spoke0":
        return seen.at(limb)
    core = seen.solid == shades_of(seen.reading.species).index("pale")
    out = np.full((len(core), 2), np.nan)
    for t in np.nonzero(core.any((1, 2)))[0]:
        out[t] = np.mean(np.nonzero(core[t])[::-1], axis=1)
    return out


def heading_error(seen: Evidence) -> float:
    """Speed against the heading asked for / the motion's usual speed: 0 standing or as asked, 1 the exact opposite.

    Travel relative to the ground, so a pan does not count; for spins and flips the sense of turning.
    """
    motion = MOTIONS[seen.actor["motion"]]
    turns = seen.actor["motion"] in ("spin", "flip")
    if not seen.actor["heading"] or not (turns or motion.speed):
        return np.nan
    course, time = _angle(seen) if turns else _way(seen)
    if len(time) < MIN_FRAMES:
        return np.nan
    usual = 2 * np.pi / motion.period if turns else motion.speed
    ahead = np.polyfit(time, course, 1)[0] / usual * (1 if seen.actor["heading"] == "right" else -1)
    return -ahead if ahead < -MIN_SHARE else 0.0


def _way(seen):
    """Horizontal way of the subject over the ground (frame heights) and its times (s)."""
    ok = seen.whole if seen.whole.sum() >= MIN_FRAMES else seen.visible
    return (seen.middle[ok, 0] - seen.shift[ok]) / seen.reading.size[0], np.nonzero(ok)[0] / seen.fps
