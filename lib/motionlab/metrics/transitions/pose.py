"""Limbs of the frames in between, in pixels: against the true clip's, and of a run against the run whose ends were swapped.

A model that treats its two ends alike gives the same clip, read backwards, when they are swapped: the distance of the two is the *order
gap*. A base fused with itself read backwards has none by construction, so the gap never stands without the error: the *order cost* is
by how much the error against the truth is larger in the swapped run.
"""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.metrics.reconstruction import VISIBLE
from motionlab.models.evaluator import LIMBS, true_limbs
from motionlab.world import Clip


def true_pose(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Limbs (f, n, 2) of a clip's first subject as (x, y) in pixels, and which of them show (f, n): 4 pixels or more at 48."""
    positions, shown = true_limbs(clip, least=VISIBLE * (clip.size[0] / 48) ** 2)
    n = len(LIMBS[clip.scene.actors[0].species])
    return positions[:, :n].astype(float), shown[:, :n]


def limb_distance(one: np.ndarray, other: np.ndarray, shown: np.ndarray) -> float:
    """Mean distance in pixels of limbs (f, n, 2) over those that show (f, n), the first and the last frame left out; NaN without any.

    Raises:
        MotionLabError: shapes that differ, fewer than three frames.
    """
    if one.shape != other.shape or one.shape[:2] != shown.shape or len(one) < 3:
        raise MotionLabError(f"Limbs {one.shape} were to be compared with {other.shape}, where {shown.shape} show.",
                             fix="Give both (f, n, 2) with shown (f, n), f of three or more.")
    counted = shown[1:-1]
    gap = np.linalg.norm(one - other, axis=-1)[1:-1][counted]
    return float(gap.mean()) if gap.size else float("nan")


def pose_error(read: np.ndarray, clip: Clip) -> float:
    """`limb_distance` of limbs read (f, n, 2), in the order of `models.evaluator.LIMBS`, to the true clip's."""
    truth, shown = true_pose(clip)
    return limb_distance(read, truth, shown)


def order_gap(read: np.ndarray, swapped: np.ndarray, shown: np.ndarray) -> float:
    """`limb_distance` of a run's limbs (f, n, 2) to those of the run with its ends swapped, which is reversed here."""
    return limb_distance(read, swapped[::-1], shown)
