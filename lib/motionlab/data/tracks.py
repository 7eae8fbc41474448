"""Point tracks and masks as sidecars: drawn from a clip's truth, from files or by a tracker, and laid on the latents' cells.

Tracks are (x, y) in pixels of the clip that is trained on, with visibility; points are given in its frame 0. A source whose clips
carry no truth says where tracks or a mask of frame 0 lie (`data.sources.Single`).
"""
from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import torch

from motionlab.core.errors import MotionLabError, located, one_of

TRACKERS = ("auto", "exact", "file", "lucas_kanade", "cotracker")
LIMIT = 4096             # pixels of a mask whose neighbours are counted
RADIUS, WORLD_RADIUS = 5.0, 2.0      # pixels: of real video at 480 lines; half a pixel of the world's 48 would be no neighbourhood


# ---------------------------------------------------------------------------------------------- points on a mask
def distance_weighted_points(mask: np.ndarray, n: int = 100, radius: float = RADIUS, seed=0, limit: int = LIMIT) -> np.ndarray:
    """n points of a mask, (n, 2) float64 as (x, y), each pixel drawn with weight 1 / (pixels of the mask nearer than `radius`).

    Thin parts, such as limbs, have few neighbours and get more than their share of area (DeT as released, card det 5.3; it draws
    its 4096 candidates with replacement, which counts some pixels twice: here without).

    Args:
        mask: (h, w), not 0 on the subject. seed: of numpy's generator, any that it takes.
        limit: at most so many pixels, drawn at random, are candidates and neighbours; 0: all.

    Raises:
        MotionLabError: an empty mask, one that is no picture, no points asked for, a radius that is not above 0.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or n < 1 or not radius > 0:
        raise MotionLabError(f"{n} points with radius {radius} were asked of a mask of shape {mask.shape}.",
                             fix="Give a mask (h, w), one point or more, and a radius above 0.")
    found, generator = np.argwhere(mask != 0), np.random.default_rng(seed)
    if not len(found):
        raise MotionLabError("The mask is empty: it marks no subject.", fix="Mark the subject in frame 0 by any value but 0.")
    if limit and len(found) > limit:
        found = found[generator.choice(len(found), limit, replace=False)]
    weight = 1 / (neighbours(found, radius) + 1e-6)
    rows = generator.choice(len(found), n, replace=n > len(found), p=weight / weight.sum())
    return found[rows, ::-1].astype(np.float64)


def neighbours(pixels: np.ndarray, radius: float) -> np.ndarray:
    """How many of the pixels (n, 2) lie nearer than `radius` to each, itself included: (n,)."""
    from scipy.spatial import cKDTree

    return cKDTree(pixels).query_ball_point(pixels, np.nextafter(float(radius), 0), return_length=True)      # it counts <=


# ---------------------------------------------------------------------------------------------- pixels to latent cells
def align_tracks(xy: torch.Tensor, visible: torch.Tensor, size: tuple[int, int], latents: tuple[int, int, int],
                 group: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Tracks of a clip on the cells of its latents: the last frame of each latent is picked, the cell is trunc(x / width columns).

    A latent frame stands for `group` frames, the first for frame 0 alone: of 49 frames, 0, 4, ..., 48 are picked. Latent frames in
    front that only fill a patch (CogVideoX 1.5) are frame 0 again. Places outside the frame are clamped to its border
    (DeT as released, card det 3.2).

    Args:
        xy: (..., F, n, 2) pixels. visible: (..., F, n). size: (height, width) of the clip. latents: (f, h, w).

    Returns:
        (column, row), int64 (..., f, n, 2), and visibility bool (..., f, n).
    """
    f, h, w = latents
    frames = (xy.shape[-3] - 1 - group * torch.arange(f - 1, -1, -1)).clamp(min=0)
    scale = torch.tensor([w / size[1], h / size[0]], dtype=torch.float64)
    cells = (xy.index_select(-3, frames).double() * scale).trunc().long()
    return torch.stack([cells[..., 0].clamp(0, w - 1), cells[..., 1].clamp(0, h - 1)], -1), visible.index_select(-2, frames).bool()
