"""From evidence to shares: every detector, its threshold on clean clips, and rates."""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.metrics.failures.courses import heading_error, rotation_period
from motionlab.metrics.failures.evidence import observe
from motionlab.metrics.failures.limbs import extra_part, missing_part, same_leg_gait
from motionlab.metrics.failures.solid import appearing_vanishing, frozen, interpenetration

PERCENTILE = 95.0      # of clean clips: a detector's threshold


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


DETECTORS = {d.__name__: d for d in (same_leg_gait, extra_part, missing_part, interpenetration, rotation_period,
                                     heading_error, frozen, appearing_vanishing)}
