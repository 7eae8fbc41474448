"""Scores of transitions as papers publish them, whose weak sides are known: a hard cut wins the first, a frozen clip has no last.

FID of frames in between against all ends (DiffMorpher, arXiv 2312.07409), perceptual path length (StyleGAN's scaling, as it must be in
DiffMorpher's tables), smoothness 1 - Gini and consistency (AID, arXiv 2403.17924). Distances have LPIPS's form (arXiv 1801.03924) on a
given image encoder. Sources: method card vtg, 6.1 to 6.4.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError
from motionlab.metrics.frechet import frechet_distance, unshrunk_distance
from motionlab.models.image_encoder import ImageEncoder
from motionlab.video import as_video

DRAWS, PER_CLIP = 10, 2          # repeats of the FID, and frames drawn from each clip
WIDTH = 16                       # directions that features are projected on: few enough for a covariance from 64 pictures


# ---------------------------------------------------------------------------------------------- distances of neighbours
@torch.no_grad()
def perceptual_steps(frames: np.ndarray, encoder: ImageEncoder) -> np.ndarray:
    """Distances (f - 1,) of neighbouring frames uint8 (f, h, w, 3) in LPIPS's form: per layer and place the squared distance of features
    of unit length, averaged over places, then over layers (LPIPS weighs channels and sums layers: those weights are trained)."""
    steps = []
    for features in encoder.every_layer(as_video(frames)):
        z = F.normalize(features, dim=-1)
        steps.append((z[1:] - z[:-1]).square().sum(-1).mean(-1))
    return torch.stack(steps).mean(0).numpy().astype(float)


def path_length(steps: np.ndarray) -> float:
    """PPL = (1/M) sum_i d_i / eps^2 with eps = 1/M, that is M sum_i d_i, of M distances of neighbours: never quote it without M."""
    steps = np.asarray(steps, float)
    return float(len(steps) * steps.sum())


def gini(steps: np.ndarray) -> float:
    """G = sum_ij |d_i - d_j| / (2 M^2 mean d), 0 for equal steps; NaN where nothing changes."""
    d = np.asarray(steps, float)
    return float(np.abs(d[:, None] - d[None]).sum() / (2 * len(d) ** 2 * d.mean())) if d.sum() > 0 else float("nan")


def smoothness(steps: np.ndarray) -> dict[str, float]:
    """smooth, 1 - G, as AID's code has it; smooth_inverse, 1 / G, as VTG's text; consistency and consistency_max, mean and largest
    distance, without which the first two mean nothing: they do not ask how much moves."""
    steps = np.asarray(steps, float)
    g = gini(steps)
    return {"smooth": 1 - g, "smooth_inverse": 1 / g if g > 0 else float("nan"), "consistency": float(steps.mean()),
            "consistency_max": float(steps.max())}


# ---------------------------------------------------------------------------------------------- by thresholds on one embedding
def completion_by_embedding(features: np.ndarray, ends: np.ndarray, threshold: float = 0.9) -> dict[str, float]:
    """tcr_clip, the share of frames whose embedding (f, d) is within a threshold of either end's (2, d), by cosine, and tc_clip, the mean
    cosine of neighbours: VTG's wording of TCR and TC-Score, whose threshold is not known. A frozen clip has both in full."""
    x, e = (one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12) for one in (np.asarray(features), np.asarray(ends)))
    return {"tcr_clip": float(((x @ e.T).max(1) >= threshold).mean()), "tc_clip": float((x[1:] * x[:-1]).sum(1).mean())}


# ---------------------------------------------------------------------------------------------- FID against the ends
@dataclass(frozen=True)
class EndsFid:
    """value: mean over draws of the distance between frames drawn in between and all ends; pictures: how many of either; per_pair (n,):
    what each pair contributes (jackknife pseudo-values, n value - (n - 1) value without it), so that intervals over pairs can be taken
    of raw rows: their mean is the value less its bias of order 1/n."""

    value: float
    pictures: int
    per_pair: np.ndarray


def fid_of_ends(features: np.ndarray, ends: np.ndarray, seed: int = 0) -> EndsFid:
    """Frechet distance of two frames drawn from each clip's in-betweens to all ends, the mean of ten draws.

    Args:
        features: (n, f, d) of the clips' frames, the first and the last of which are never drawn. ends: (n, 2, d) of the given pictures.
        seed: of the draws, the same for every arm, so that pairs of arms are compared frame by frame.

    Raises:
        MotionLabError: shapes that do not fit, fewer than four pairs.
    """
    features, ends = np.asarray(features, float), np.asarray(ends, float)
    n = len(features)
    if features.ndim != 3 or ends.shape != (n, 2, features.shape[-1]) or n < 4 or features.shape[1] < 3:
        raise MotionLabError(f"A distance of frames {features.shape} to ends {ends.shape} was asked for.",
                             fix="Give features (n, f, d) and ends (n, 2, d) of four pairs or more, three frames or more.")
    rng, inside = np.random.default_rng(seed), np.arange(1, features.shape[1] - 1)
    drawn = [np.stack([one[rng.choice(inside, min(PER_CLIP, len(inside)), replace=False)] for one in features]) for _ in range(DRAWS)]

    def value(kept):
        return float(np.mean([frechet_distance(one[kept].reshape(-1, one.shape[-1]), ends[kept].reshape(-1, one.shape[-1]))
                              for one in drawn]))

    whole, every = value(np.arange(n)), np.arange(n)
    left_out = np.array([value(every[every != k]) for k in every])
    return EndsFid(whole, n * ends.shape[1], n * whole - (n - 1) * left_out)


def fid_of_frames(drawn: np.ndarray, ends: np.ndarray) -> float:
    """The same as published, of features of drawn frames (n, k, d), k of each clip, to all ends (n, 2, d): covariances as they are, however
    few pictures there are for their d directions, so that values compare at equal numbers only (card 6.1)."""
    return unshrunk_distance(drawn.reshape(-1, drawn.shape[-1]), ends.reshape(-1, ends.shape[-1]))


def draws_of(lengths: Sequence[int], seed: int = 0) -> list[list[np.ndarray]]:
    """Ten draws of two frame numbers from the in-betweens of clips of these lengths."""
    rng = np.random.default_rng(seed)
    return [[rng.choice(np.arange(1, f - 1), min(PER_CLIP, f - 2), replace=False) for f in lengths] for _ in range(DRAWS)]


def projected(features: np.ndarray, width: int = WIDTH) -> np.ndarray:
    """Features (..., d) on `width` orthonormal directions, drawn once; (..., width)."""
    features = np.asarray(features, float)
    basis, _ = np.linalg.qr(np.random.default_rng(20262).normal(size=(features.shape[-1], min(width, features.shape[-1]))))
    return features @ basis
