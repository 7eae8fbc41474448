"""Frames to a size: short side, centre crop, area-true resizing."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.video.clip import is_whole


def fitter(size, crop) -> Callable[[np.ndarray], np.ndarray]:
    if crop is not None:
        one_of(crop, ["center"], "crop")
    if size is None:
        return lambda picture: picture
    values = [size] if is_whole(size) else list(size) if isinstance(size, (tuple, list)) and len(size) == 2 else []
    if not values or not all(is_whole(value) and 1 <= value <= 16384 for value in values):
        raise MotionLabError(f"size must be (height, width) or the short side, in whole pixels, got {size!r}.")
    if len(values) == 1:
        return lambda picture: _resize(picture, _short_side(picture.shape, values[0]))
    target = int(values[0]), int(values[1])
    if crop is None:
        return lambda picture: _resize(picture, target)
    return lambda picture: _resize(_center_crop(picture, target), target)


def _short_side(shape, short: int) -> tuple[int, int]:
    scale = short / min(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def placed(xy: np.ndarray, source: tuple[int, int], target: tuple[int, int], crop: bool) -> np.ndarray:
    """Where points (..., 2), (x, y) in pixels of a picture of size `source`, lie when a fitter to `target` is done with it.

    Sizes are (height, width); a pixel's centre is at integer (x, y). crop: its middle was cut out; else it was stretched.
    """
    top, left, h, w = _middle(source, target) if crop else (0, 0, *source)
    scale, corner = np.array([target[1] / w, target[0] / h]), np.array([left, top])
    return (xy - corner + 0.5) * scale - 0.5


def unplaced(xy: np.ndarray, source: tuple[int, int], target: tuple[int, int], crop: bool) -> np.ndarray:
    """The reverse of `placed`: from pixels of the fitted picture to those of its source."""
    top, left, h, w = _middle(source, target) if crop else (0, 0, *source)
    return (xy + 0.5) / np.array([target[1] / w, target[0] / h]) - 0.5 + np.array([left, top])


def _middle(shape, target: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest middle part with the aspect of `target`."""
    height, width = shape[:2]
    scale = min(height / target[0], width / target[1])
    h, w = max(1, min(height, round(target[0] * scale))), max(1, min(width, round(target[1] * scale)))
    return (height - h) // 2, (width - w) // 2, h, w


def _center_crop(picture, target: tuple[int, int]) -> np.ndarray:
    top, left, h, w = _middle(picture.shape, target)
    return picture[top:top + h, left:left + w]


def _resize(picture, target: tuple[int, int]) -> np.ndarray:
    if picture.shape[:2] == target:
        return np.ascontiguousarray(picture)
    import cv2

    shrinking = target[0] <= picture.shape[0] and target[1] <= picture.shape[1]
    how = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(picture), (target[1], target[0]), interpolation=how)
