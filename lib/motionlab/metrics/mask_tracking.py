"""How well masks follow an object, and what is there without a tracker: the first mask copied, or carried along by optical flow."""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError

HIDES = 0.3              # share of an object that an occluder must hide once, before anything is said of what comes after


def frame_iou(masks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union per frame (f,), of bool (f, h, w) twice; 1 where both are empty, as nothing was missed.

    Raises:
        MotionLabError: shapes that differ, or no masks.
    """
    if masks.ndim != 3 or masks.shape != truth.shape:
        raise MotionLabError(f"Masks have shape {masks.shape}, their truth {truth.shape}.", fix="Give bool (f, h, w) twice.")
    both, either = (masks & truth).sum((1, 2)), (masks | truth).sum((1, 2))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def mean_iou(masks: np.ndarray, truth: np.ndarray) -> float:
    """Mean of `frame_iou` over all frames but the first, which is the prompt's."""
    return float(frame_iou(masks, truth)[1:].mean())


def copied(mask: np.ndarray, frames: int) -> np.ndarray:
    """A mask (h, w) that stays where it is: (frames, h, w)."""
    return np.repeat(np.asarray(mask, bool)[None], frames, 0)


def warped(mask: np.ndarray, flow_backward: np.ndarray) -> np.ndarray:
    """A mask (h, w) carried from frame to frame by flow from t + 1 to t (f - 1, 2, h, w): (f, h, w) bool; soft in between."""
    import cv2

    h, w = mask.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    soft = [np.asarray(mask, np.float32)]
    for dx, dy in flow_backward.astype(np.float32):
        soft.append(cv2.remap(soft[-1], x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))
    return np.stack(soft) > 0.5


def after_hiding(visible: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """(f,) bool: frames after an occluder hid most of the object, from where it hides at most half as much as at its most.

    Args:
        visible, whole: (f, h, w) bool, the object with the occluder and without; none where it never hides `HIDES` of it.
    """
    hidden = 1 - visible.sum((1, 2)) / np.maximum(whole.sum((1, 2)), 1)
    past = np.arange(len(hidden)) > hidden.argmax()
    return past & (hidden <= 0.5 * hidden.max()) & (hidden.max() >= HIDES)
