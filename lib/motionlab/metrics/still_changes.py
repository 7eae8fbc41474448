"""Changes of the pictures in which nothing moves: each the same in every frame, of a size that a generator's colours differ by.

A metric of motion or structure should not answer them. One that does takes a codec's or a fine-tune's colours for broken bodies.
"""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import one_of

# Sizes: factor about mid-grey; levels of 255; standard deviation in levels; Gaussian sigma in pixels at 48 px height.
SIZES = {"contrast": (0.9, 0.8), "brightness": (10, 20), "blotches": (12, 24), "blur": (0.7, 1)}
ARMS = tuple(f"{name}_{size}" for name, sizes in SIZES.items() for size in sizes)
BLOTCH = 3.0            # sigma of a blotch, pixels at 48 px height


def still_change(frames: np.ndarray, name: str, size: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """Frames uint8 (f, h, w, 3) with one change of `SIZES`; only blotches draw from `rng`, one pattern for all frames.

    Raises:
        MotionLabError: an unknown change.
    """
    one_of(name, SIZES, "static change")
    return {"contrast": _contrast, "brightness": _brightness, "blotches": _blotches, "blur": _blur}[name](frames, size, rng)


def by_arm(frames: np.ndarray, arm: str, rng: np.random.Generator | None = None) -> np.ndarray:
    """`still_change` by the name of an arm, such as "contrast_0.9".

    Raises:
        MotionLabError: an unknown arm.
    """
    name, _, size = one_of(arm, ARMS, "static change").rpartition("_")
    return still_change(frames, name, float(size), rng)


def _contrast(frames, size, rng):
    return _rounded(127.5 + size * (frames.astype(np.float32) - 127.5))


def _brightness(frames, size, rng):
    return _rounded(frames.astype(np.float32) + size)


def _blotches(frames, size, rng):
    import cv2

    h, w = frames.shape[1:3]
    noise = cv2.GaussianBlur(rng.standard_normal((h, w, 3)), (0, 0), BLOTCH * h / 48, borderType=cv2.BORDER_REFLECT)
    return _rounded(frames.astype(np.float32) + size * noise / noise.std())


def _blur(frames, size, rng):
    import cv2

    return np.stack([cv2.GaussianBlur(frame, (0, 0), float(size) * frames.shape[1] / 48) for frame in frames])


def _rounded(values):
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
