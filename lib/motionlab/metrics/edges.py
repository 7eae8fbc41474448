"""Edge contrast at the subject's border: is its contour as sharp as the colours on both sides of it are apart?

Across the border, the colour one pixel inside against one pixel outside, as a share of the colour further in against further out: 1 is a
sharp edge, 0 none. Read by the palette alone, and meant for comparison at equal speed: a fast subject's contour is what blurs first.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NEAR, FAR = 1, 3         # pixels from the border, at 48 pixels of height
LEAST = 20.0             # distance of far colours, of 441, below which there is no edge to look at


def edge_contrast(frames: np.ndarray, subject: np.ndarray) -> float:
    """Mean over border pixels and frames, in [0, 1]; NaN where no border is seen.

    Args:
        frames: uint8 (f, h, w, 3). subject: (f, h, w) bool.
    """
    unit = max(1, round(frames.shape[1] / 48))
    found = [value for frame, mask in zip(frames.astype(np.float32), subject) for value in _of_frame(frame, mask, unit)]
    return float(np.mean(found)) if found else float("nan")


def _of_frame(frame, mask, unit):
    """The contrasts at one frame's border pixels."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any() or mask.all():
        return []
    inside, (iy, ix) = distance_transform_edt(mask, return_indices=True)           # nearest pixel outside
    outward = np.stack([iy, ix], -1) - np.stack(np.mgrid[:mask.shape[0], :mask.shape[1]], -1)
    border = np.argwhere(mask & (inside < 1.5))
    step = outward[border[:, 0], border[:, 1]] / inside[border[:, 0], border[:, 1], None]
    at = {reach: _colours(frame, border + reach * step) for reach in (-(FAR - 1) * unit, -(NEAR - 1) * unit, NEAR * unit, FAR * unit)}
    deep, shallow, close, away = (at[reach] for reach in sorted(at))
    apart = np.linalg.norm(away - deep, axis=-1)
    there = apart > LEAST
    return (np.linalg.norm(close - shallow, axis=-1)[there] / apart[there]).clip(0, 1)


def _colours(frame, places):
    rows, columns = np.round(places).astype(int).T
    return frame[rows.clip(0, frame.shape[0] - 1), columns.clip(0, frame.shape[1] - 1)]


def terciles(speeds: Sequence[float]) -> np.ndarray:
    """0, 1 or 2 for each speed: slow, middle, fast, by terciles of these speeds; -1 where it is not known."""
    speeds = np.asarray(speeds, float)
    limits = np.nanquantile(speeds, [1 / 3, 2 / 3])
    return np.where(np.isnan(speeds), -1, np.digitize(speeds, limits))
