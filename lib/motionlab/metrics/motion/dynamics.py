"""How much and how steadily a clip moves, in VBench's style: dynamic degree and motion smoothness."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError
from motionlab.metrics.vbench import normalised


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
    padded to multiples of 8 all around; `teachers.flow.raft_flow` runs 12 and pads, where it must, right and below.
    A clip of fewer than two sampled frames is judged here by the one pair that it has; VBench needs 0 moving pairs of
    it and so calls even a static two-frame clip dynamic.

    Args:
        flow: (f-1, 2, h, w), pixels per frame; numpy or torch.
        fps: frames per second of the clip.
        sample_fps, threshold, count: VBench's constants.

    Raises:
        MotionLabError: wrong shape, flow that is not finite, fps <= 0.
    """
    field = _checked_flow(flow)
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
    video, field = _checked_frames(frames), _checked_flow(flow)
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
    return normalised("motion_smoothness", score) if normalise else score


def _sample(images: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """images (b, c, h, w) read bilinearly at each pixel plus offset (b, 2, h, w); edges extend outwards."""
    h, w = images.shape[-2:]
    x = torch.arange(w, dtype=images.dtype, device=images.device) + offset[:, 0]
    y = torch.arange(h, dtype=images.dtype, device=images.device)[:, None] + offset[:, 1]
    grid = torch.stack([2 * x / max(w - 1, 1) - 1, 2 * y / max(h - 1, 1) - 1], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _checked_flow(flow) -> torch.Tensor:
    """(f-1, 2, h, w) in float, finite."""
    tensor = flow if isinstance(flow, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(flow))
    if tensor.ndim != 4 or tensor.shape[1] != 2 or 0 in tensor.shape:
        raise MotionLabError(f"The flow has shape {tuple(tensor.shape)}.",
                             fix="Flow is (f-1, 2, h, w), pixels per frame.")
    tensor = tensor.detach() if tensor.dtype in (torch.float32, torch.float64) else tensor.detach().float()
    if not torch.isfinite(tensor).all():
        raise MotionLabError("The flow holds values that are not finite.", fix="Set them to 0 or mask them out first.")
    return tensor


def _checked_frames(frames) -> torch.Tensor:
    """(f, h, w, 3) bytes or [0, 1] -> (f, 3, h, w) float in [0, 1]."""
    tensor = frames if isinstance(frames, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(frames))
    if tensor.ndim != 4 or tensor.shape[-1] != 3 or 0 in tensor.shape:
        raise MotionLabError(f"Frames have shape {tuple(tensor.shape)}.", fix="Frames are (f, h, w, 3), RGB.")
    scale = 255 if tensor.dtype == torch.uint8 else 1
    tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
    tensor = tensor.movedim(-1, 1) / scale
    if not torch.isfinite(tensor).all() or tensor.min() < 0 or tensor.max() > 1:
        raise MotionLabError("Float frames lie outside [0, 1] or are not finite.",
                             fix="Pass uint8 frames, or rescale: (video + 1) / 2 for [-1, 1].")
    return tensor
