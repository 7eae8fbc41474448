"""Which points lie on the subject, and which tracks are seen."""
from __future__ import annotations

import numpy as np

from motionlab.metrics.motion.checks import as_given, checked_mask, checked_points, same_frame


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
    xy, inside = checked_points(points), checked_mask(mask, size)
    same_frame(xy, inside)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    low, high = (columns[0], rows[0]), (columns[-1], rows[-1])
    below = xy < high if exclude_last else xy <= high
    return as_given(((xy >= low) & below).all(1), points)


def points_in_mask(points, mask, size=None):
    """Which points (n, 2) lie on a mask (h, w), by nearest pixel, as `points_in_mask_box`; False outside the frame."""
    xy, inside = checked_points(points), checked_mask(mask, size)
    same_frame(xy, inside)
    h, w = inside.shape
    column, row = np.rint(xy).astype(int).T
    within = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    return as_given(within & inside[row.clip(0, h - 1), column.clip(0, w - 1)], points)
