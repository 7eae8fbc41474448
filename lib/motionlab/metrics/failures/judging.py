"""Every detector on the evidence of one clip, and the percentile of clean clips above which a score is a failure."""
from __future__ import annotations

import numpy as np

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


DETECTORS = {d.__name__: d for d in (same_leg_gait, extra_part, missing_part, interpenetration, rotation_period,
                                     heading_error, frozen, appearing_vanishing)}
