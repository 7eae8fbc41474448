"""Between frames and models' tensors, and clips on one sheet."""
from __future__ import annotations

import numpy as np


def as_video(frames: np.ndarray):
    """uint8 (..., f, h, w, 3) -> float32 tensor (..., f, 3, h, w) in [-1, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3))).float() / 127.5 - 1


def as_frames(video) -> np.ndarray:
    """Inverse of `as_video`, clipped."""
    return np.moveaxis(((video.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8), -3, -1)


def contact_sheet(frames: np.ndarray, every: int = 2, columns: int = 2, gap: int = 2) -> np.ndarray:
    """Clips uint8 (n, f, h, w, 3) as one picture: a row of frames per clip, `columns` clips side by side."""
    rows = [np.concatenate(list(clip[::every]), axis=1) for clip in frames]
    rows = [np.pad(row, ((gap, 0), (0, 2 * gap), (0, 0)), constant_values=255) for row in rows]
    rows += [np.full_like(rows[0], 255)] * (-len(rows) % columns)
    return np.concatenate([np.concatenate(rows[i:i + columns], axis=1) for i in range(0, len(rows), columns)], axis=0)
