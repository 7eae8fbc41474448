"""How a clip changes: dynamic degree and smoothness in VBench's style; even change along the clip (VTG, AID)."""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError, one_of
from motionlab.metrics.motion.checks import checked_flow, checked_frames

VBENCH_SMOOTHNESS_RANGE = (0.706, 0.9975)


@dataclass(frozen=True)
class DynamicDegree:
    """`dynamic`: VBench's verdict on the clip. `top5`: mean over pairs of the mean of the fastest 5 % of pixels, in
    pixels per sampled pair. `relative`: the same as a multiple of the threshold, comparable between sizes. `share`:
    share of pairs above the threshold."""

    dynamic: bool
    top5: float
    relative: float
    share: float


def dynamic_degree(flow, fps: float, sample_fps: float = 8.0, threshold: float = 6.0,
                   count: float = 4.0) -> DynamicDegree:
    """VBench-style dynamic degree of one clip, from any flow (VBench itself runs RAFT on the sampled frames).

    A sampled pair moves if the mean of its top 5 % of speeds exceeds 6 min(h, w) / 256 pixels; the clip is dynamic if
    at least round(4 n / 16) pairs move (never fewer than one), n the number of sampled frames. Frames are sampled
    every k = round(fps / 8) frames; as no flow between sampled frames is at hand, that of a frame and its neighbour
    is taken k times, which is exact for motion that is straight over k frames. VBench's RAFT runs 20 iterations on frames
    padded to multiples of 8, ours 12 on frames as they are. A clip of fewer than two sampled frames is judged here by the
    one pair that it has; VBench then needs no moving pair at all and calls even a still one dynamic.

    Args:
        flow: (f-1, 2, h, w), pixels per frame; numpy or torch.
        fps: frames per second of the clip.
        sample_fps, threshold, count: VBench's constants.

    Raises:
        MotionLabError: wrong shape, flow that is not finite, fps <= 0.
    """
    field = checked_flow(flow)
    if not fps > 0:
        raise MotionLabError(f"fps is {fps}.", fix="Give the clip's frame rate, as read from its file.")
    stride = max(1, round(fps / sample_fps))
    sampled = field[:max(1, len(field) // stride) * stride:stride]      # whole strides only: the last frame has no partner
    speed = stride * torch.linalg.vector_norm(sampled, dim=1).flatten(1)
    top5 = speed.topk(max(1, int(speed.shape[1] * 0.05)), dim=1).values.mean(dim=1)
    limit = threshold * min(field.shape[-2:]) / 256
    moving = top5 > limit
    needed = max(1, round(count * (len(sampled) + 1) / 16))
    mean = float(top5.mean())
    return DynamicDegree(bool(moving.sum() >= needed), mean, mean / limit, float(moving.double().mean()))


def motion_smoothness(frames, flow, normalise: bool = False) -> float:
    """VBench-style motion smoothness: drop every other frame, rebuild it, 1 - mean |error| (in [0, 1] of full scale).

    VBench rebuilds with the AMT-S interpolation network. Here both neighbours are warped half-way along the given
    flow (the two-frame displacement, chained from the two flows, halved: motion is taken as straight over two frames)
    and averaged; occlusion is not handled. So numbers compare between clips under this function, not with VBench's
    tables. A frozen clip scores 1: smoothness rewards it.

    Args:
        frames: (f, h, w, 3) uint8, or float in [0, 1].
        flow: (f-1, 2, h, w), forward, pixels per frame.
        normalise: VBench's min-max step to its published range 0.706-0.9975.

    Raises:
        MotionLabError: wrong shapes, fewer than three frames, a flow of another clip or size, values that are not
        finite.
    """
    video, field = checked_frames(frames), checked_flow(flow)
    if len(video) < 3:
        raise MotionLabError(f"The clip has {len(video)} frames.", fix="Smoothness needs at least three frames.")
    if (len(field) + 1, *field.shape[-2:]) != (len(video), *video.shape[-2:]):
        raise MotionLabError(f"The flow {tuple(field.shape)} does not belong to frames {tuple(np.shape(frames))}.",
                             fix="Flow is (f-1, 2, h, w) for frames (f, h, w, 3), at the same size.")
    field = field.to(video)
    dropped = torch.arange(1, len(video) - 1, 2)
    two_frames = field[dropped - 1] + _sample(field[dropped], field[dropped - 1])
    half = two_frames / 2
    for _ in range(3):  # the displacement is needed at the dropped frame, where the point has already gone half of it
        half = _sample(two_frames / 2, -half)
    rebuilt = (_sample(video[dropped - 1], -half) + _sample(video[dropped + 1], half)) / 2
    score = 1 - float((rebuilt - video[dropped]).abs().mean())
    low, high = VBENCH_SMOOTHNESS_RANGE
    return (score - low) / (high - low) if normalise else score


def _sample(images: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """images (b, c, h, w) read bilinearly at each pixel plus offset (b, 2, h, w); edges extend outwards."""
    h, w = images.shape[-2:]
    x = torch.arange(w, dtype=images.dtype, device=images.device) + offset[:, 0]
    y = torch.arange(h, dtype=images.dtype, device=images.device)[:, None] + offset[:, 1]
    grid = torch.stack([2 * x / max(w - 1, 1) - 1, 2 * y / max(h - 1, 1) - 1], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def adjacent_distances(items, distance: str | Callable = "rmse") -> np.ndarray:
    """Distance of each item to the next, (f-1,): VTG and AID use LPIPS on frames, which plugs in as a callable.

    Args:
        items: (f, ...) frames or per-frame features. Bytes are read as [0, 1].
        distance: 'rmse' (root mean square difference), 'cosine' (1 - cosine of the flattened items) or a function of
            two items that returns a number.

    Raises:
        MotionLabError: fewer than three items, values that are not finite, an unknown name.
    """
    tensor = torch.as_tensor(np.asarray(items) if not isinstance(items, torch.Tensor) else items)
    if tensor.ndim < 2 or len(tensor) < 3:
        raise MotionLabError(f"Items of shape {tuple(tensor.shape)} leave fewer than two distances to compare.",
                             fix="Give at least three frames or features: (f, ...).")
    if callable(distance):
        return np.array([float(distance(items[t], items[t + 1])) for t in range(len(tensor) - 1)])
    one_of(distance, ("rmse", "cosine"), "distance")
    flat = (tensor.double() / (255 if tensor.dtype == torch.uint8 else 1)).flatten(1)
    if not torch.isfinite(flat).all():
        raise MotionLabError("Items hold values that are not finite.", fix="Check the features or frames first.")
    if distance == "rmse":
        return (flat.diff(dim=0) ** 2).mean(dim=1).sqrt().cpu().numpy()
    return (1 - F.cosine_similarity(flat[:-1], flat[1:], dim=1)).cpu().numpy()


def gini(distances) -> float:
    """G = sum_ij |d_i - d_j| / (2 M^2 mean(d)), in [0, 1 - 1/M]; NaN where all distances are zero (0/0)."""
    d = np.asarray(distances, float)
    if d.ndim != 1 or len(d) < 2:
        raise MotionLabError(f"Distances have shape {d.shape}.", fix="Give at least two distances: (M,).")
    if not d.any():
        return math.nan
    return float(np.abs(d[:, None] - d[None]).sum() / (2 * len(d) ** 2 * d.mean()))


def vtg_smoothness(items, distance: str | Callable = "rmse", form: str = "1-G") -> float:
    """VTG's smoothness: the Gini coefficient G of adjacent distances, turned so that larger is smoother.

    Blind to the amount of motion: a nearly frozen clip with even leftovers scores high, so show `consistency` beside
    it.

    Args:
        items, distance: see `adjacent_distances`.
        form: '1-G' (default: bounded, and what AID's code returns) or '1/G' (VTG's wording, "reciprocal"); the latter
            is infinite for perfectly even change.

    Returns:
        the score; NaN for an exactly frozen clip (0/0).
    """
    one_of(form, ("1-G", "1/G"), "form")
    g = gini(adjacent_distances(items, distance))
    if form == "1-G":
        return 1 - g
    return math.inf if g == 0 else 1 / g


def consistency(items, distance: str | Callable = "rmse") -> dict[str, float]:
    """AID's companion of smoothness: {'mean', 'max'} of adjacent distances; smaller is steadier, frozen 0."""
    d = adjacent_distances(items, distance)
    return {"mean": float(d.mean()), "max": float(d.max())}
