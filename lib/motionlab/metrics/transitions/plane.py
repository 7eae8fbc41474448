"""Edge and jump: a transition should stay crisp and move evenly. A cross-fade does the second only, a hard cut the first only.

    edge = strongest gradients of the middle frames / those of the two ends          1 crisp, 0.5 to 0.6 a ghost
    jump = largest distance between neighbours / sum of all                          1 / (n - 1) even, 1 a cut

Edges that both ends share (the horizon of a still background) stay crisp in any fade and are left out.
"""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError

STRONGEST = 0.02         # share of the picture's pixels whose gradients are "the strongest": about a subject's outline
SHARED = 8.0             # levels per pixel from which on both ends have an edge at a place
MIXED_EDGE = 0.75        # a middle less crisp than this is two pictures at once, no mixture of species


def middle_frames(n: int) -> slice:
    """The middle third of n frames, at least one: 3, 4, 5 of nine."""
    third = max(1, n // 3)
    return slice((n - third) // 2, (n - third) // 2 + third)


def edge(frames: np.ndarray, ends: np.ndarray) -> float:
    """Strength of the middle frames' edges as a share of the ends', mean over them; as of `edge_strengths`."""
    return float(edge_strengths(frames, ends)[middle_frames(len(frames))].mean())


def edge_strengths(frames: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Of each frame (f,): mean of its strongest gradients / the mean of both ends'. NaN where the ends have no edge of their own.

    Args:
        frames: uint8 (f, h, w, 3). ends: (2, h, w, 3), the given pictures as the clip could show them at best: through the same codec.

    Raises:
        MotionLabError: other shapes.
    """
    frames, ends = np.asarray(frames), np.asarray(ends)
    if frames.ndim != 4 or ends.shape != (2, *frames.shape[1:]) or frames.shape[-1] != 3:
        raise MotionLabError(f"Edges of frames {frames.shape} were asked for between ends {ends.shape}.",
                             fix="Give uint8 frames (f, h, w, 3) and the two ends (2, h, w, 3).")
    of_ends = gradients(ends)
    own = ~_widened(of_ends.min(0) > SHARED)
    count = max(8, round(STRONGEST * own.size))
    if own.sum() < count:
        return np.full(len(frames), np.nan)
    reference = np.mean([_strongest(one[own], count) for one in of_ends])
    found = np.array([_strongest(one[own], count) for one in gradients(frames)])
    return found / reference if reference > 1 else np.full(len(frames), np.nan)


def edge_fall(strengths: np.ndarray) -> float:
    """How much edge is lost per frame: minus the slope of a line through the strengths of all frames (f,)."""
    strengths = np.asarray(strengths, float)
    return float(-np.polyfit(np.arange(len(strengths)), strengths, 1)[0]) if np.isfinite(strengths).all() else float("nan")


def gradients(frames: np.ndarray) -> np.ndarray:
    """Length of the colour gradient (f, h, w) in levels per pixel of frames uint8 (f, h, w, 3), by Sobel's 3x3."""
    import cv2

    x = frames.astype(np.float32)
    both = [np.stack([cv2.Sobel(frame, cv2.CV_32F, *order, ksize=3) for frame in x]) / 8 for order in ((1, 0), (0, 1))]
    return np.sqrt(sum((one ** 2).sum(-1) for one in both))


def _strongest(values, count):
    return float(np.partition(values, len(values) - count)[-count:].mean())


def _widened(mask):
    import cv2

    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


# ---------------------------------------------------------------------------------------------- the other axis, and what stands beside
def jump(steps: np.ndarray) -> float:
    """Largest of the distances between neighbours (f - 1,) / their sum; NaN for a clip that never changes."""
    steps = np.asarray(steps, float)
    return float(steps.max() / steps.sum()) if steps.sum() > 0 else float("nan")


def mix(p_first: float, p_last: float, crisp: float) -> float:
    """2 min(p_A, p_B) of the middle frame read alone, for the species of both ends: 1 where it is as much the one as the other, 0 where it
    is one of them; and 0 where the edge `crisp` of the clip is below 0.75: a ghost of both is no mixture. NaN where that is not known."""
    if np.isnan(crisp):
        return float("nan")
    return float(2 * min(p_first, p_last)) if crisp >= MIXED_EDGE else 0.0


def background_flicker(frames: np.ndarray, background: np.ndarray) -> float:
    """Deviation over time of a pixel's colour, mean over channels and median over background pixels, in levels of 255.

    Args:
        frames: uint8 (f, h, w, 3) of a still camera. background: (h, w) bool, where nothing but background shows in any frame. NaN without.
    """
    if not background.any():
        return float("nan")
    return float(np.median(frames.astype(np.float64)[:, background].std(0).mean(-1)))
