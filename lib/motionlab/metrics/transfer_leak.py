"""How much of a source's clutter came along: the background of a clip, regressed on the pattern that the source shows.

A generated background is a place of the world at some scroll, which no caption says. Its clouds, hills and stripes would pass for
clutter by chance, so the place and scroll that fit best are taken out first. Over 24 clean clips on other scrolls a leak then spreads
by less than 0.01, where with row means alone taken out it spread by 0.06 to 0.08. A codec softens discs: all of the clutter reads 0.91.
"""
from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import binary_closing, binary_fill_holes

from motionlab.core.errors import MotionLabError
from motionlab.world import Scene, render
from motionlab.world.palette import PLACES
from motionlab.world.render import background, with_clutter

SCROLLS, COARSE = 200, 4        # backgrounds are looked for at scrolls of 0 to 2 in this many steps, at first at every fourth

CHANGE = 0.15                   # of full brightness: a background that only flickers stays below it
LEAST = 24                      # pixels of a quarter of the picture that a background can be told from


def leak(frames: np.ndarray, source: Scene) -> float:
    """Slope of a clip's background on the source's clutter: 0 none of it, 1 all of it, as strong as in the source.

    The background is the median over frames. The best fitting place is taken out of it, then the mean of each of its bands (sky,
    hills, ground), for colours may drift. The pattern is what the source's clutter would make of that place. Pixels that the
    source's subject covers in any frame, and those that the clip's own passes or fills, tell nothing and are left out.

    Args:
        frames: uint8 (f, h, w, 3). source: the scene of the source clip, with clutter.

    Returns:
        the slope, all colours and pixels weighed alike; below 0 where the background happens to be opposite. NaN where the source
        shows no clutter outside its subject, or where the two subjects leave hardly any background.

    Raises:
        MotionLabError: frames of another shape or type.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise MotionLabError(f"leak takes uint8 frames (f, h, w, 3); got {frames.dtype} {frames.shape}.",
                             fix="One clip at a time, channels last.")
    h, w = frames.shape[1:3]
    seen = np.median(frames, axis=0).astype(np.float32) / 255
    free = _free(source, h, w, len(frames)) & ~_passed(frames / np.float32(255), seen)
    if free[::2, ::2].sum() < LEAST:
        return float("nan")
    plain, bands = fitting_background(seen, free)
    pattern, rest = with_clutter(source, plain) - plain, seen - plain
    free &= np.abs(rest).max(-1) <= 1.25 * np.abs(pattern).max()               # no disc is as strong: a subject that stands still
    for band in np.unique(bands[free]):
        mine = free & (bands == band)
        pattern[mine], rest[mine] = pattern[mine] - pattern[mine].mean(0), rest[mine] - rest[mine].mean(0)
    power = float((pattern[free].astype(float) ** 2).sum())
    return float((pattern[free].astype(float) * rest[free]).sum() / power) if power > 1e-9 else float("nan")


def fitting_background(picture: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The world's background nearest to a picture (h, w, 3) in [0, 1] on the pixels `free` (h, w), by mean absolute difference.

    Returns:
        its picture (h, w, 3) and bands (h, w), as `world.render.background`.
    """
    h, w = free.shape
    sparse = (slice(None, None, 2), slice(None, None, 2))
    mine = free[sparse]
    names, coarse = _backgrounds(h, w)
    far = np.abs(coarse[:, mine] - picture[sparse][mine]).mean((1, 2))
    place, step = names[int(far.argmin())]
    near = [_background(place, (step + k) % SCROLLS, h, w) for k in range(1 - COARSE, COARSE)]
    return min(near, key=lambda one: np.abs(one[0][free] - picture[free]).mean())


def _passed(video, still):
    """Pixels (h, w) where something moves over the still picture, and what such pixels enclose: the inside of a body keeps its colour."""
    moves = (np.abs(video - still) > CHANGE).any(-1).any(0)
    return binary_fill_holes(binary_closing(np.pad(moves, 1, mode="edge"))[1:-1, 1:-1])


@lru_cache(maxsize=4)
def _backgrounds(h, w):
    names = [(place, step) for place in PLACES for step in range(0, SCROLLS, COARSE)]
    return names, np.stack([_background(place, step, h, w)[0][::2, ::2] for place, step in names])


@lru_cache(maxsize=2048)
def _background(place, step, h, w):
    return background(place, 2.0 * step / SCROLLS, h, w)


@lru_cache(maxsize=64)
def _free(source, h, w, frames):
    return ~render(source, (h, w), frames).object_mask(None).any(0)
