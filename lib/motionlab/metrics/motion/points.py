"""Which points lie on the subject, by its mask."""
from __future__ import annotations

import numpy as np
import torch

from motionlab.core.errors import MotionLabError
from motionlab.metrics.motion.checks import frame_size


def points_in_mask_box(points, mask, size=None, exclude_last: bool = True):
    """Which points lie in the bounding box of a mask: how DeT's evaluation keeps grid points, for both clips alike.

    Args:
        points: (n, 2), (x, y) in pixels.
        mask: (h, w), bool or any number ("foreground" is not 0), of the source's first frame.
        size: (h, w) of the frames, to check the mask against.
        exclude_last: leave out the box's last row and column, as the release's half-open slices do.

    Returns:
        (n,) bool, numpy for numpy points, torch for torch.

    Raises:
        MotionLabError: empty or wrong-sized mask, points of another shape or NaN, or no point inside the mask's
        frame.
    """
    xy, inside = _checked_points(points), _checked_mask(mask, size)
    _check_same_frame(xy, inside)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    low, high = (columns[0], rows[0]), (columns[-1], rows[-1])
    below = xy < high if exclude_last else xy <= high
    return _as_given(((xy >= low) & below).all(1), points)


def points_in_mask(points, mask, size=None):
    """Which points (n, 2) lie on a mask (h, w), by nearest pixel, as `points_in_mask_box`; False outside the frame."""
    xy, inside = _checked_points(points), _checked_mask(mask, size)
    _check_same_frame(xy, inside)
    h, w = inside.shape
    column, row = np.rint(xy).astype(int).T
    within = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    return _as_given(within & inside[row.clip(0, h - 1), column.clip(0, w - 1)], points)


def _checked_points(points) -> np.ndarray:
    """(n, 2), finite."""
    xy = points.detach().cpu().numpy() if isinstance(points, torch.Tensor) else np.asarray(points)
    if xy.ndim != 2 or xy.shape[-1] != 2 or not len(xy):
        raise MotionLabError(f"Points have shape {xy.shape}.",
                             fix="Points are (n, 2), (x, y) in pixels: tracks[0] for the first frame.")
    if not np.isfinite(xy).all():
        raise MotionLabError("Points hold NaN or infinite positions.", fix="Keep finite points only.")
    return xy


def _checked_mask(mask, size) -> np.ndarray:
    """(h, w) bool with something in it."""
    inside = (mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)) != 0
    if inside.ndim != 2:
        raise MotionLabError(f"The mask has shape {inside.shape}.", fix="Pass one frame's mask (h, w): masks[0].")
    if size is not None and inside.shape != tuple(int(side) for side in frame_size(size)):
        raise MotionLabError(f"The mask is {inside.shape[0]} x {inside.shape[1]}, "
                             f"the frames {size[0]} x {size[1]} (h x w).",
                             fix="Resize the mask to the frames, nearest neighbour.")
    if not inside.any():
        raise MotionLabError("The mask is empty: no pixel of the first frame is foreground.",
                             fix="Check the mask's file and object id, or use all points.")
    return inside


def _check_same_frame(xy: np.ndarray, inside: np.ndarray) -> None:
    h, w = inside.shape
    if not ((xy > -1) & (xy < (w, h))).all(1).any():
        raise MotionLabError(f"No point lies within the mask's {h} x {w} pixels.",
                             fix="Points are (x, y) in pixels of the mask's frame: "
                                 "check the mask's size and the points' scale.")


def _as_given(kept: np.ndarray, given):
    return torch.from_numpy(kept).to(given.device) if isinstance(given, torch.Tensor) else kept
