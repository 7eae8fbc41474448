"""Motion failures by name: what VideoJAM (arXiv 2502.02492, Fig. 2 and 6) shows in pictures, in numbers, no network.

VideoJAM names how a base model fails: steps with the same leg twice, extra or missing limbs, one body passing through
another, rotation that follows no simple period, motion opposite to the heading, a frozen subject, objects that appear
or vanish. Each has a detector here. It reads the limbs of the subject that the caption asked for (`palette.read_limbs`)
and returns one number, larger = worse, NaN where the failure cannot occur or cannot be read.

No detector is 0 on every clean clip: limbs hide one another, subjects slow down by nature. A rate is therefore the
share of clips above the 95th percentile of clean clips, or of their reconstructions (`thresholds`, `failure_rates`).

    same_leg_gait        | phase difference of near and far leg - the gait's own | / half a cycle        walk, run
    extra_part           share of frames with a shade in more pieces or larger than clean renders show   every motion
    missing_part         share of frames in which a limb is absent beyond what clean renders show        every motion
    interpenetration     share of the subject's pixels below the ground or in front of its pillar        on the ground
    rotation_period      rms distance (radians) of the subject's angle to the simplest course           what turns
    heading_error        speed against the heading asked for / the motion's usual speed                 what goes, turns
    frozen               share of steps at which nothing of the subject moves, camera motion removed    every motion
    appearing_vanishing  largest change of the visible area between two frames, in doublings            every motion

Which damage sets off which detector besides its own, by the nature of pictures (`tests/test_failures.py` measures it):
- A far leg that is not drawn and a far leg that is always behind the near one are the same picture: the former sets off
  `same_leg_gait`, legs in step may set off `missing_part`.
- A limb that is not drawn uncovers what was behind it, which can be new pieces: `extra_part`.
- A pasted limb moves the centre of the limb whose shade it has (`same_leg_gait`, `rotation_period`) and can lie over
  another one (`missing_part`).
- A time-warped clip holds nearly still somewhere: `frozen`. Held frames in the midst of a turn: `rotation_period`.
- A clip frozen at a moment when one limb hides another hides it for good: `missing_part`.
`frozen` alone does not set off `heading_error`: standing still is not going the wrong way. A subject that turns the
wrong way evenly has a `heading_error`, not a `rotation_period`; one that does not turn at all has neither.

Limits. One subject. Where a pillar is asked for, the subject is never seen whole: no `extra_part`, `missing_part`,
`rotation_period`, `appearing_vanishing` there. A pillar is looked for only where the motion asks for one. The ground
line assumes the world's layout (`motions.GROUND`) and a zoom that is neutral in the middle of the clip. Which way a
dancer faces is not read.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.metrics.palette import CUTOFF, LimbReading, background_colours, limb_table, read_limbs
from motionlab.world.captions import parse_caption
from motionlab.world.motions import GROUND, MOTIONS
from motionlab.world.palette import shade
from motionlab.world.puppets import species as anatomy_of

PERCENTILE = 95.0      # of clean clips: a detector's threshold
STILL = 0.2            # pixels at 48 px height: edges that move less from frame to frame stand still
MIN_SWING = 0.5        # pixels at 48 px height: legs that swing less have no phase
MIN_SHARE = 0.1        # of the usual speed: slower than this against the heading is standing, not going
MIN_FRAMES = 6         # fewer readable frames give no gait, no course and no heading
SUBJECT = 0.25         # a frame shows the subject when its area is this share of the median
LARGER = 1.4           # a limb larger than this times the largest clean one has an extra piece grown on
_LIMIT_SEEDS = range(9200, 9206)
_PILLAR_COLOURS = 3    # the last rows of `background_colours`
_LEGS = {"person": (("near_leg", "far_leg"),), "dog": (("near_hind", "far_hind"), ("near_fore", "far_fore"))}
_MARKS = {"ball": (("body", "dot"),), "wheel": (("hub", "spoke0"),), "pendulum": (("rod", "bob"),),
          "spinner": (("blade2", "blade0"), ("blade3", "blade1")), "person": (("torso", "head"),)}
_CAMERA_PRIOR = (1e2, 1e4)     # grey levels squared: keeps a ground without texture still
_LONG = ("snake",)     # as long as the frame is wide, so always at an edge
_TURNING = ("roll", "spin", "pass_behind", "bounce", "swing", "flip")


def detect_failures(frames: np.ndarray, asked: dict | str, fps: float = 16.0) -> dict[str, float]:
    """Every failure of one clip: name -> score, larger = worse, NaN where it does not apply.

    Args:
        frames: uint8 (f, h, w, 3) RGB in the look of the world.
        asked: the caption, or its parsed form (`captions.describe`), with one actor.
        fps: frames per second.

    Raises:
        MotionLabError: frames of a wrong shape or type, a caption outside the grammar, more than one actor.
    """
    seen = observe(frames, asked, fps)
    return {name: float(detector(seen)) for name, detector in DETECTORS.items()}


def thresholds(clips, transform=None) -> dict[str, float]:
    """The 95th percentile of each detector on clean clips.

    Args:
        clips: rendered `Clip`s with one actor each.
        transform: uint8 frames -> uint8 frames applied first, for example a codec's reconstruction.

    Raises:
        MotionLabError: no clips.
    """
    rows = [detect_failures(transform(c.frames) if transform else c.frames, c.attributes, c.fps) for c in clips]
    return _percentiles(rows)


def failure_rates(rows, floor_rows) -> dict[str, float]:
    """Share of clips above the 95th percentile of `floor_rows`, by detector.

    Args:
        rows, floor_rows: results of `detect_failures`, of the clips that are judged and of clean ones. Give both the
            same prompts: a floor from other motions is another floor, and a percentile of a few walkers is a guess.

    Returns:
        shares among the clips to which a detector applies; NaN where it applies to none, here or in the floor.

    Raises:
        MotionLabError: no rows.
    """
    limits, values = _percentiles(floor_rows), _columns(rows)
    return {name: _share_above(values[name], limits[name]) for name in DETECTORS}


def _share_above(values, limit):
    values = values[~np.isnan(values)]
    return float((values > limit).mean()) if len(values) and not np.isnan(limit) else float("nan")


def _percentiles(rows):
    values = {name: v[~np.isnan(v)] for name, v in _columns(rows).items()}
    return {name: float(np.percentile(v, PERCENTILE)) if len(v) else float("nan") for name, v in values.items()}


def _columns(rows):
    rows = list(rows)
    if not rows:
        raise MotionLabError("There are no clips to take failures from.", fix="Give at least one row, best a hundred.")
    return {name: np.array([row[name] for row in rows], dtype=float) for name in DETECTORS}


# ---------------------------------------------------------------------------------------------- one shared reading
@dataclass(frozen=True)
class Evidence:
    """What all detectors look at; lengths in pixels.

    Attributes:
        reading: limbs of the subject asked for. actor: {species, colour, motion, heading}.
        shades: (f, h, w) int, index of the subject's shade that a pixel is nearest to, -1 off the subject.
        pillar: (f, w) bool, columns of the pillar; all False if none is asked for.
        shift, zoom: (f,) horizontal shift of the ground and log scale of the picture since the first frame.
        change: (f-1,) rms pixels that the subject's edges move from frame to frame, the camera's motion removed; NaN
            where no subject is seen.
    """

    reading: LimbReading
    actor: dict
    shades: np.ndarray
    pillar: np.ndarray
    shift: np.ndarray
    zoom: np.ndarray
    change: np.ndarray
    fps: float

    @property
    def unit(self) -> float:
        """Pixels of this picture per pixel at 48 px height."""
        return self.reading.size[0] / 48

    @property
    def mask(self) -> np.ndarray:
        """(f, h, w) bool: pixels of the subject."""
        return self.shades >= 0

    @cached_property
    def solid(self) -> np.ndarray:
        """`shades` at least two pixels wide: on blurred clips an edge between two shades looks like a third."""
        import cv2

        kernel, out = np.ones((2, 2), np.uint8), np.full_like(self.shades, -1)
        for t, k in np.ndindex(len(out), len(_shades_of(self.reading.species))):
            out[t][cv2.morphologyEx((self.shades[t] == k).astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0] = k
        return out

    def at(self, limb: str) -> np.ndarray:
        """Centre of a limb, (f, 2); NaN where absent."""
        return self.reading.centres[:, self.reading.names.index(limb)]

    @cached_property
    def visible(self) -> np.ndarray:
        """(f,) bool: the subject is there, with at least a quarter of its usual area."""
        area = self.reading.area.sum(1)
        return area > SUBJECT * np.median(area[area > 0]) if (area > 0).any() else np.zeros(len(area), bool)

    @cached_property
    def clear(self) -> np.ndarray:
        """(f,) bool: no part of the subject is at the left or right edge; never where a pillar may hide some of it."""
        if self.actor["motion"] == "pass_behind":
            return np.zeros(len(self.shades), bool)
        at_edge = self.mask[:, :, [0, -1]].any((1, 2))
        return ~at_edge | (self.actor["species"] in _LONG)

    @property
    def whole(self) -> np.ndarray:
        """(f,) bool: visible and clear."""
        return self.visible & self.clear

    @cached_property
    def middle(self) -> np.ndarray:
        """Area-weighted centre of the subject, (f, 2); NaN where nothing is seen."""
        area = self.reading.area[..., None]
        with np.errstate(invalid="ignore"):
            return (np.nan_to_num(self.reading.centres) * area).sum(1) / area.sum(1)


def observe(frames: np.ndarray, asked: dict | str, fps: float = 16.0) -> Evidence:
    """Read a clip once for all detectors; arguments and errors as `detect_failures`."""
    parsed = parse_caption(asked) if isinstance(asked, str) else asked
    if len(parsed["actors"]) != 1:
        raise MotionLabError(f"The caption asks for {len(parsed['actors'])} subjects; failures are read of one.",
                             fix="Use single-actor scenes: random_scene(seed).")
    actor = parsed["actors"][0]
    reading = read_limbs(frames, actor["species"], actor["colour"], parsed["place"])
    shades = _nearest_shade(frames, reading)
    pillar = _pillar_columns(frames, reading) if actor["motion"] == "pass_behind" else np.zeros(shades.shape[::2], bool)
    camera, change = _motion(frames, shades >= 0, pillar)
    return Evidence(reading, actor, shades, pillar, *np.cumsum(camera, axis=0).T, change, fps)


def _nearest_shade(frames, reading):
    mine = _distances(frames, [255.0 * shade(reading.colour, s) for s in _shades_of(reading.species)])
    least = mine.min(0)
    off = (least > CUTOFF) | (least > _distances(frames, background_colours(reading.place)).min(0))
    return np.where(off, -1, mine.argmin(0))


@lru_cache(maxsize=None)
def _shades_of(species):
    return tuple(dict.fromkeys(s for limb in limb_table(species) for s in limb.slots))


def _distances(frames, colours):
    """RGB distance of each pixel to each of `colours` (n, 3): (n, f, h, w)."""
    rgb, known = frames.reshape(-1, 3).astype(np.float32), np.asarray(colours, np.float32)
    squared = (known ** 2).sum(1)[:, None] - 2 * known @ rgb.T + (rgb ** 2).sum(1)
    return np.sqrt(np.maximum(squared, 0)).reshape(-1, *frames.shape[:-1])


def _pillar_columns(frames, reading):
    """Columns in which most of the picture above every subject shows the pillar's colours, (f, w) bool."""
    h = reading.size[0]
    known = background_colours(reading.place)
    sky = frames[:, int(0.1 * h):int(0.3 * h)]
    stone, rest = (_distances(sky, k).min(0) for k in (known[-_PILLAR_COLOURS:], known[:-_PILLAR_COLOURS]))
    return ((stone < CUTOFF) & (stone < rest)).mean(1) > 0.5


def _motion(frames, mask, pillar):
    """Steps of the camera (f, 2) and what moves on the subject besides (f-1,), by gradients.

    A camera step is d = (a + s (x - cx), s (y - cy)): least squares of I[t] - I[t+1] = grad I . d on the ground,
    without the subject, the pillar and their edges. What of the change around the subject d does not explain, over the
    rms gradient there, is a length.
    """
    import cv2

    f, h, w = mask.shape
    grey = np.stack([cv2.GaussianBlur(frame.mean(-1, dtype=np.float32), (0, 0), 1.0) for frame in frames])
    near, edge = (np.stack([cv2.dilate(m.astype(np.uint8), np.ones((k, k), np.uint8)) for m in solid]) > 0
                  for solid, k in ((mask, 3), (mask | pillar[:, None], 7)))
    y, x = np.mgrid[:h, :w].astype(np.float32)
    low, camera, change = y > 0.79 * h, np.zeros((f, 2)), np.full(f - 1, np.nan)
    for t in range(f - 1):
        gy, gx = np.gradient((grey[t] + grey[t + 1]) / 2)
        rows = np.stack([gx, gx * (x - (w - 1) / 2) + gy * (y - (h - 1) / 2)], -1)
        ground, subject, seen = low & ~edge[t] & ~edge[t + 1], near[t] | near[t + 1], grey[t] - grey[t + 1]
        a = rows[ground]
        camera[t + 1] = np.linalg.solve(a.T @ a + np.diag(_CAMERA_PRIOR), a.T @ seen[ground])
        if subject.any():
            left = seen - rows @ camera[t + 1]
            change[t] = np.sqrt((left[subject] ** 2).sum() / ((gx ** 2 + gy ** 2)[subject].sum() + 1e-6))
    return camera, change


# ---------------------------------------------------------------------------------------------- legs and parts
def same_leg_gait(seen: Evidence) -> float:
    """Distance of the legs' phase difference from the gait's own, in half cycles: 0 right, 1 the opposite (walk, run).

    For swings n, f of equal amplitude, cos(phase difference) = 2 <n, f> / (<n, n> + <f, f>). A far leg that is not seen
    is behind the near one. A dog has two pairs of legs; their mean.
    """
    pairs = _LEGS.get(seen.actor["species"], ()) if seen.actor["motion"] in ("walk", "run") else ()
    found = [abs(_phase_difference(seen, near, far) - _own_phase_difference(seen.actor)) for near, far in pairs]
    return _mean(np.array(found) / np.pi)


def _own_phase_difference(actor):
    """Radians between near and far legs, as `motions._gait` has it: a running dog's are nearly together."""
    return 0.5 if (actor["species"], actor["motion"]) == ("dog", "run") else np.pi


def _phase_difference(seen, near, far):
    body = seen.at("torso")[:, 0]
    n, f = seen.at(near)[:, 0] - body, seen.at(far)[:, 0] - body
    f = np.where(np.isnan(f), n, f)
    ok = seen.visible & ~np.isnan(n)
    if ok.sum() < MIN_FRAMES:
        return np.nan
    n, f = n[ok] - n[ok].mean(), f[ok] - f[ok].mean()
    if max(n.std(), f.std()) < MIN_SWING * seen.unit:
        return np.nan
    return np.arccos(np.clip(2 * (n * f).sum() / ((n ** 2).sum() + (f ** 2).sum()), -1, 1))


def extra_part(seen: Evidence) -> float:
    """Share of frames in which a shade has more pieces, or is larger, than in any clean render of this motion."""
    if not seen.whole.any():
        return np.nan
    limits, (pieces, area) = clean_limits(seen.actor["species"], seen.actor["motion"]), _solid(seen)
    extra = (pieces > limits.pieces) | (area > LARGER * limits.area)
    return extra[seen.whole].any(1).mean()


def missing_part(seen: Evidence) -> float:
    """Share of frames in which a limb is absent beyond the clean render of this motion that shows it least; worst limb.

    1 for a subject that is never seen. Frames without a subject count in `appearing_vanishing`, not here.
    """
    if not seen.visible.any():
        return 1.0
    if not seen.whole.any():
        return np.nan
    present = seen.reading.present[seen.whole].mean(0)
    return np.maximum(0, clean_limits(seen.actor["species"], seen.actor["motion"]).present - present).max()


@dataclass(frozen=True)
class Limits:
    """Of clean renders of a motion. present: smallest share of frames, by limb. pieces, area: largest, by shade."""

    present: np.ndarray
    pieces: np.ndarray
    area: np.ndarray


@lru_cache(maxsize=None)
def clean_limits(species: str, motion: str) -> Limits:
    """What clean renders of a motion show: fixed seeds, camera and paths included.

    Raises:
        MotionLabError: unknown species or motion, or one that the other does not do.
    """
    from motionlab.world import random_scene, render

    clips = [render(random_scene(s, species_name=species, motion=motion)) for s in _LIMIT_SEEDS]
    found = [observe(clip.frames, clip.attributes) for clip in clips]
    found = [seen for seen in found if seen.whole.any()]
    pieces, area = (np.concatenate(v).max(0) for v in zip(*((a[seen.whole] for a in _solid(seen)) for seen in found)))
    return Limits(np.min([seen.reading.present[seen.whole].mean(0) for seen in found], axis=0), pieces, area)


def _solid(seen):
    """Pieces of each shade and their area (pixels at 48 px height), (f, shades) each, of what is two pixels wide."""
    import cv2

    pieces, area = np.zeros((2, len(seen.shades), len(_shades_of(seen.reading.species))))
    for t, k in np.ndindex(pieces.shape):
        solid = (seen.solid[t] == k).astype(np.uint8)
        pieces[t, k], area[t, k] = cv2.connectedComponents(solid)[0] - 1, solid.sum()
    return pieces, area / seen.unit ** 2


# ---------------------------------------------------------------------------------------------- solid things
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


# ---------------------------------------------------------------------------------------------- turning and going
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
    core = seen.solid == _shades_of(seen.reading.species).index("pale")
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


# ---------------------------------------------------------------------------------------------- being there at all
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


def _mean(values):
    values = values[~np.isnan(values)]
    return values.mean() if values.size else np.nan


DETECTORS = {d.__name__: d for d in (same_leg_gait, extra_part, missing_part, interpenetration, rotation_period,
                                     heading_error, frozen, appearing_vanishing)}

__all__ = ["DETECTORS", "Evidence", "Limits", "clean_limits", "detect_failures", "failure_rates", "observe",
           "thresholds", *DETECTORS]
