"""Solid things, turning, heading, being there."""
from __future__ import annotations

import numpy as np

from motionlab.metrics.failures.evidence import Evidence, MIN_FRAMES, MIN_SHARE, STILL, MARKS, TURNING, shades_of
from motionlab.world.motions import GROUND, MOTIONS
from motionlab.world.puppets import species as anatomy_of


def interpenetration(seen: Evidence) -> float:
    """Share of the subject's pixels where none can be, mean of the worst quarter of frames (what stands or rolls).

    That is more than a pixel below the ground line, or inside the columns of the pillar that it should pass behind.
    """
    anatomy = anatomy_of(seen.actor["species"])
    stands = MOTIONS[seen.actor["motion"]].place == "ground" and (anatomy.feet or anatomy.radius)
    stands = stands and seen.actor["motion"] != "flip"                  # the world lets a somersault dip below the line
    if not stands or not seen.visible.any():
        return np.nan
    h = seen.reading.size[0]
    zoom = np.exp(seen.zoom - np.median(seen.zoom))
    ground = h * (0.5 + (GROUND - 0.5) * zoom) - 0.5
    below = np.arange(h) > ground[:, None] + seen.unit
    inside = np.pad(seen.pillar, ((0, 0), (1, 1)))
    inside = inside[:, 1:-1] & inside[:, :-2] & inside[:, 2:]           # without its antialiased edges
    wrong = seen.mask & (below[:, :, None] | inside[:, None])
    share = wrong.sum((1, 2))[seen.visible] / seen.mask.sum((1, 2))[seen.visible].clip(1)
    return np.sort(share)[-max(1, len(share) // 4):].mean()


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
    if seen.actor["motion"] not in TURNING or seen.actor["species"] not in MARKS:
        return np.zeros(0), np.zeros(0)
    marks = MARKS[seen.actor["species"]]
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


def frozen(seen: Evidence) -> float:
    """Share of steps at which the subject's edges move by less than 0.2 px rms (at 48 px height), camera removed."""
    change = seen.change[~np.isnan(seen.change)]
    return (change < STILL * seen.unit).mean() if len(change) else np.nan


def appearing_vanishing(seen: Evidence) -> float:
    """Largest change of the visible area from a frame to the next, in doublings; gone counts as a 50th of the median.

    Steps at the left or right edge by a subject that is less than half in the frame are left out (it leaves or
    enters); NaN where a pillar is asked for.
    """
    area, at_edge = seen.reading.area.sum(1), ~seen.clear
    if not (area > 0).any() or seen.actor["motion"] == "pass_behind":
        return np.nan
    usual = np.median(area[area > 0])
    crossing = (at_edge[1:] | at_edge[:-1]) & (np.maximum(area[1:], area[:-1]) < usual / 2)
    change = np.abs(np.diff(np.log2(np.maximum(area, 0.02 * usual))))[~crossing]
    return change.max() if len(change) else np.nan


def mean_of(values):
    values = values[~np.isnan(values)]
    return values.mean() if values.size else np.nan
