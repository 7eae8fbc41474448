"""A real clip, and what counts as frames."""
from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError

# More than this in memory is a mistake (a minute of 4K), not a clip: better a sentence than a machine out of memory. With the
# decoder's own frames a process that reads stays below 2 GiB.
MAX_BYTES = 3 * 1024**3 // 2
MAX_PIXELS = 16384 * 8192  # of one frame
MAX_FPS = 1000


@dataclass(frozen=True)
class RealClip:
    """A clip read from a file.

    Attributes:
        frames: uint8 (f, h, w, 3), RGB.
        times: float64 (f,), seconds from the start of the stream at which the file shows each frame.
        fps: frames per second of *these* frames: what was asked for, or their mean rate over `times`.
        path: where they came from.
        source_size: (height, width) as the file shows them, before resizing.
        source_fps: mean frame rate of the file.
    """

    frames: np.ndarray
    times: np.ndarray
    fps: float
    path: str
    source_size: tuple[int, int]
    source_fps: float


def check_frames(frames: np.ndarray, at_least: int = 1, who: str = "This function") -> np.ndarray:
    """Return `frames` as a uint8 array (f, h, w, 3).

    Raises:
        MotionLabError: another type or shape, or fewer than `at_least` frames.
    """
    if isinstance(frames, RealClip):
        frames = frames.frames
    try:
        frames = np.asarray(frames)
    except (ValueError, TypeError) as error:
        raise MotionLabError(f"{who} got frames that do not form one array ({error}).",
                             fix="Give all frames the same size: uint8 (f, h, w, 3).") from None
    if frames.ndim != 4 or frames.shape[-1] != 3:
        hint = " These look like model tensors: rearrange to '(f h w c)' first." if 3 in frames.shape[1:3] else ""
        raise MotionLabError(f"{who} needs RGB frames (f, h, w, 3), got shape {frames.shape}.",
                             fix=f"Add the frame axis with frames[None] for one picture.{hint}")
    if frames.dtype != np.uint8:
        raise MotionLabError(f"{who} needs uint8 frames, got {frames.dtype}.",
                             fix="From [-1, 1]: ((x + 1) * 127.5).round().clip(0, 255).astype('uint8').")
    if len(frames) < at_least:
        raise MotionLabError(f"{who} needs at least {at_least} frame{'s' * (at_least > 1)}, got {len(frames)}.",
                             fix="Read more of the clip, or choose another one." if at_least > 1 else None)
    if 0 in frames.shape:
        raise MotionLabError(f"{who} got frames without pixels: shape {frames.shape}.")
    return frames


def is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
