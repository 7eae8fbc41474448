"""What every tracker takes and gives: points of a query frame in, `Tracks` out.

Tracks are (x, y) in pixels, (f, n, 2), with visibility bool (f, n); pixel (row j, column i) has its centre at x = i,
y = j.
"""
from __future__ import annotations

import numbers
from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError


@dataclass(frozen=True)
class Tracks:
    """Tracks of n points through f frames.

    Attributes:
        xy: float32 (f, n, 2), (x, y) in pixels.
        visible: bool (f, n). Where False, `xy` is a placeholder or a guess, never a measurement.
    """

    xy: np.ndarray
    visible: np.ndarray


def check_points(points: np.ndarray, height: int, width: int, who: str = "This function") -> np.ndarray:
    """Return `points` as float32 (n, 2), n >= 1.

    Raises:
        MotionLabError: another shape, no points, NaN, or points outside the frame.
    """
    try:
        points = np.asarray(points, dtype=np.float32)
    except (ValueError, TypeError):
        raise MotionLabError(f"{who} needs points as numbers (n, 2).") from None
    if points.ndim != 2 or points.shape[-1] != 2 or not len(points):
        raise MotionLabError(f"{who} needs at least one point, (n, 2) as (x, y) pixels; got shape {points.shape}.")
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(-1))[0])
        raise MotionLabError(f"{who}: point {bad} is {points[bad].tolist()}.", fix="Leave NaN points out.")
    outside = ~inside(points, height, width)
    if outside.any():
        bad = int(np.flatnonzero(outside)[0])
        swapped = inside(points[:, ::-1], height, width).all()
        hint = " Swapped they would all fit: points are (x, y), not (row, column)." if swapped else ""
        raise MotionLabError(f"{who}: {int(outside.sum())} of {len(points)} points lie outside the {width}x{height} "
                             f"frame, the first is point {bad} at {points[bad].tolist()}.",
                             fix=f"Query points inside the frame only.{hint}")
    return points


def inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels reach half a pixel beyond their centres."""
    x, y = points[..., 0], points[..., 1]
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def check_query(query_frame, count: int, who: str) -> int:
    if not isinstance(query_frame, numbers.Integral) or not 0 <= query_frame < count:
        raise MotionLabError(f"{who}: query_frame must be a whole number from 0 to {count - 1}, got {query_frame!r}.")
    return int(query_frame)
