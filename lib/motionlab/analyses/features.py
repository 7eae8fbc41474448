"""PCA of DiT features, and what it is meant to show, as numbers (DeT, section 3 and Fig. 2; method card C4, C5).

The paper's picture: colour the first three principal components of a block's features; the subject keeps its colour
over time while the background drifts, and in some frames the two cannot be told apart until features are smoothed along
time. Here the basis is fitted once over all tokens of all frames and reused; separability is the AUC, frame by frame,
of a linear probe that was fitted on the *other* frames of the same clip; constancy is the variance over time along
exact tracks against fixed positions. Baselines that any of these must beat: an untrained network, and the position of
the token alone.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from motionlab import taps
from motionlab.analyses.depth import block_labels, third
from motionlab.analyses.inputs import GROUP, item_seed, own_frames
from motionlab.models.pipe import Pipe
from motionlab.analyses.prompt_switch import text_blocks
from motionlab.diffusion import interpolate
from motionlab.core.errors import MotionLabError

CELL = 4                    # pixels per token of the kit's codec
FOREGROUND, BACKGROUND = 0.5, 0.05     # share of a token's pixels over its frames; what lies between counts as neither


# ---------------------------------------------------------------------------------------------- rows
def feature_rows(model: Pipe, clips: dict, t: float = 0.5, blocks=None, at: str = "attention") -> Iterator[dict]:
    """Rows {item, arm, seed, block, depth, ...} of clips {item: clip} noised to t, one per block.

    Args:
        t: noise level of the forward pass (the release: step 500 of 1000). blocks, at: as of `taps.features`; the
            paper's feature is what the 3-D attention returns.

    Columns: explained (share of the variance in three components); of clips with truth also those of `separability`
    and, of the features and as pca3_<name> of their three components, those of `temporal_variance`.
    """
    total = len(text_blocks(model.denoiser))
    for item, clip in clips.items():
        for block, x in block_features(model, clip, item, t, blocks, at).items():
            basis = fit_basis(x)
            row = {"item": item, "arm": model.name, "seed": 0, "block": block, "depth": third(block, total)}
            known = _truths(x, basis, clip, item, model.cell) if has_truth(clip) else {}
            yield row | {"explained": float(basis.explained.sum())} | known


def has_truth(clip) -> bool:
    """Is it a clip of the world, whose masks and tracks are known?"""
    return hasattr(clip, "object_mask")


def _truths(x, basis, clip, item, cell):
    along = {"": temporal_variance(x, clip, cell=cell), "pca3_": temporal_variance(basis.project(x), clip, cell=cell)}
    return separability(x, basis, token_labels(clip, cell=cell), item_seed(item)) | {
        prefix + name: value for prefix, found in along.items() for name, value in found.items()}


def separability(x: np.ndarray, basis: Basis, labels: np.ndarray, seed: int = 0) -> dict[str, float]:
    """`frame_auc` of features (f', h', w', d): mean over frames and, as <name>_worst, the smallest.

    Columns: auc; auc_smoothed (averaged over three latent frames first); auc_pca3 and auc_pca3_smoothed (the same of
    the three components that the paper's pictures show); auc_shuffled (labels permuted within each frame: chance).
    """
    rng = np.random.default_rng(seed)
    shown = {"auc": x, "auc_smoothed": smoothed(x), "auc_pca3": basis.project(x),
             "auc_pca3_smoothed": basis.project(smoothed(x))}
    found = {name: frame_auc(values, labels) for name, values in shown.items()}
    permuted = np.stack([rng.permutation(frame.ravel()).reshape(frame.shape) for frame in labels])
    means, worst = ({name: of(values) for name, values in found.items()} for of in (_mean, _worst))
    chance = {"auc_shuffled": _mean(frame_auc(x, permuted))}
    return means | {f"{name}_worst": value for name, value in worst.items()} | chance


def position_rows(model: Pipe, clips: dict) -> Iterator[dict]:
    """The baseline that knows a token's position and nothing else, the same for every block; as `feature_rows`."""
    total = len(text_blocks(model.denoiser))
    for item, clip in clips.items():
        labels = token_labels(clip, cell=model.cell)
        found = frame_auc(position_features(*labels.shape), labels)
        for k in range(total):
            row = {"item": item, "arm": "position", "seed": 0, "block": k, "depth": third(k, total)}
            yield row | {"auc": _mean(found), "auc_worst": _worst(found)}


@torch.no_grad()
def block_features(model: Pipe, clip, item: str, t: float = 0.5, blocks=None,
                   at: str = "attention") -> dict[int, np.ndarray]:
    """{block: (f', h', w', d) float32} of one clip noised to t, under its own caption."""
    x1 = model.encode([clip])
    x_t = interpolate(model.noise([item_seed(item)], x1), x1, t)
    with taps.features(model.denoiser, blocks, at=at) as seen:
        model.bound([clip.caption], own_frames(model, [clip]))(x_t, torch.full((1,), float(t), device=x1.device))
    where = block_labels(model, seen)
    return {where[name]["block"]: calls[0][0].float().cpu().numpy() for name, calls in seen.items()}


def _mean(values):
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _worst(values):
    return float(np.nanmin(values)) if np.isfinite(values).any() else float("nan")


# ---------------------------------------------------------------------------------------------- rows for drawing
def by_smoothing(table, kinds: dict[str, str]):
    """Rows {kind, series, auc, ...}, raw and smoothed apart, of `feature_rows`; series is "<arm> raw" or "<arm>
    smoothed".

    Args:
        kinds: column (auc, auc_pca3, auc_worst, auc_pca3_worst) -> what it is called.
    """
    import pandas as pd

    parts = []
    for column, label in kinds.items():
        stem, worst = column.removesuffix("_worst"), "_worst" if column.endswith("_worst") else ""
        for name, of in (("raw", column), ("smoothed", f"{stem}_smoothed{worst}")):
            parts.append(table.assign(kind=label, series=table["arm"] + f" {name}", auc=table[of]))
    return pd.concat(parts, ignore_index=True).dropna(subset="auc")


def by_way(table, prefix: str = ""):
    """Rows {point, series, variance, ...} of columns of `temporal_variance`; series is "<arm> track" or "<arm> fixed".

    Args:
        prefix: "pca3_" for those of the three components.
    """
    import pandas as pd

    pairs = [(point, way) for point in ("foreground", "background") for way in ("track", "fixed")]
    parts = [table.assign(point=point, series=table["arm"] + f" {way}", variance=table[f"{prefix}{point}_{way}"])
             for point, way in pairs]
    return pd.concat(parts, ignore_index=True)


# ---------------------------------------------------------------------------------------------- principal components
@dataclass(frozen=True)
class Basis:
    """mean (d,), components (k, d) with orthonormal rows, largest variance first; explained (k,), their shares of
    it."""

    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray

    def project(self, features: np.ndarray) -> np.ndarray:
        """Coordinates (..., k) of features (..., d)."""
        return (np.asarray(features, dtype=np.float64) - self.mean) @ self.components.T


def fit_basis(features: np.ndarray, k: int = 3) -> Basis:
    """Principal components of all tokens together, (..., d). Signs are fixed: the largest entry of each is positive.

    Raises:
        MotionLabError: fewer tokens than components, values that are not finite.
    """
    x = np.asarray(features, dtype=np.float64).reshape(-1, np.shape(features)[-1])
    if min(x.shape) < k or not np.isfinite(x).all():
        raise MotionLabError(f"{x.shape[0]} tokens of width {x.shape[1]} give no {k} principal components.",
                             fix="Give finite features of more tokens.")
    mean = x.mean(0)
    values, vectors = np.linalg.eigh(np.cov((x - mean).T, bias=True))
    rows = vectors[:, ::-1][:, :k].T
    rows = rows * np.sign(rows[np.arange(k), np.abs(rows).argmax(1)])[:, None]
    return Basis(mean, rows, values[::-1][:k] / values.sum())


def colours(coordinates: np.ndarray, low=None, high=None) -> np.ndarray:
    """Coordinates (..., 3) as uint8 RGB; one minimum and maximum for all, so that a colour means the same
    everywhere."""
    low = coordinates.min() if low is None else low
    high = coordinates.max() if high is None else high
    return np.clip(255 * (coordinates - low) / max(high - low, 1e-12), 0, 255).round().astype(np.uint8)


def smoothed(features: np.ndarray, width: int = 3) -> np.ndarray:
    """Features (f, h, w, d) averaged over `width` latent frames at the same position, at the ends over what exists.

    Raises:
        MotionLabError: an even width, which would shift time.
    """
    if width % 2 == 0 or width < 1:
        raise MotionLabError(f"A smoothing width of {width} has no middle.", fix="Use an odd number, for example 3.")
    f, r = len(features), width // 2
    return np.stack([features[max(0, t - r):t + r + 1].mean(0) for t in range(f)])


# ---------------------------------------------------------------------------------------------- truth per token
def token_share(clip, actor: int | None = None, cell: int = CELL, group: int = GROUP) -> np.ndarray:
    """Share (f', h', w') of each token's pixels, over the frames that its latent holds, that show the subject.

    Args:
        cell: pixels per token (16 for Wan and CogVideoX: 8 by the VAE, 2 by the patches). group: frames per latent.

    Raises:
        MotionLabError: frames that do not divide into cells.
    """
    h, w = clip.size
    if h % cell or w % cell:
        raise MotionLabError(f"Frames of {h}x{w} do not divide into tokens of {cell} pixels.",
                             fix=f"Render at multiples of {cell}.")
    mask = clip.object_mask(actor).astype(float)
    cells = mask.reshape(len(mask), h // cell, cell, w // cell, cell).mean((2, 4))
    return np.stack([cells[:1].mean(0)] + [cells[k:k + group].mean(0) for k in range(1, len(cells), group)])


def token_labels(clip, cell: int = CELL, group: int = GROUP) -> np.ndarray:
    """1 where a token shows the subject, 0 where it shows background, -1 in between; (f', h', w') int."""
    share = token_share(clip, cell=cell, group=group)
    return np.where(share >= FOREGROUND, 1, np.where(share <= BACKGROUND, 0, -1))


# ---------------------------------------------------------------------------------------------- separability
def frame_auc(features: np.ndarray, labels: np.ndarray, ridge: float = 1e-2) -> np.ndarray:
    """AUC (f',) of foreground against background in each frame, by a linear probe fitted on the clip's other frames.

    Args:
        features: (f', h', w', d). labels: (f', h', w'), 1, 0, or -1 for tokens that are left out.

    Returns:
        NaN for frames that show only one of the two, and where the other frames do.

    Raises:
        MotionLabError: shapes that do not fit.
    """
    if features.shape[:3] != labels.shape:
        raise MotionLabError(f"Features {features.shape} and labels {labels.shape} do not belong together.",
                             fix="One label per token.")
    out = np.full(len(features), np.nan)
    for t in range(len(features)):
        others = np.arange(len(features)) != t
        x, y = features[others][labels[others] >= 0], labels[others][labels[others] >= 0]
        new, truth = features[t][labels[t] >= 0], labels[t][labels[t] >= 0]
        if 0 < y.sum() < len(y) and 0 < truth.sum() < len(truth):
            out[t] = auc(_score(x.astype(np.float64), y, ridge)(new.astype(np.float64)), truth)
    return out


def _score(x, y, ridge):
    """Ridge regression onto the two classes, each with half of the weight."""
    weight = np.where(y == 1, 0.5 / y.sum(), 0.5 / (len(y) - y.sum()))
    mean = weight @ x
    scale = np.sqrt(weight @ (x - mean) ** 2) + 1e-8
    z = (x - mean) / scale
    weighted = (z * weight[:, None]).T
    solution = np.linalg.solve(weighted @ z + ridge * np.eye(x.shape[1]), weighted @ (2.0 * y - 1))
    return lambda new: ((new - mean) / scale) @ solution


def auc(score: np.ndarray, truth: np.ndarray) -> float:
    """Probability that a foreground token (truth 1) scores higher than a background one (0); ties count half."""
    from scipy.stats import rankdata

    ranks, ones = rankdata(score), int(truth.sum())
    return float((ranks[truth == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(truth) - ones)))


def position_features(f: int, h: int, w: int) -> np.ndarray:
    """What a token knows from where it is alone, (f, h, w, 14): low powers and waves of its coordinates."""
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    waves = [g(k * a) for k in (2, 4) for a in (x, y) for g in (np.sin, np.cos)]
    terms = [x, y, x * y, x ** 2, y ** 2, x ** 2 * y, x * y ** 2, *waves]
    return np.broadcast_to(np.stack(terms[:14], -1), (f, h, w, 14)).copy()


# ---------------------------------------------------------------------------------------------- constancy over time
def temporal_variance(features: np.ndarray, clip, points: int = 64, seed: int = 0, cell: int = CELL,
                      group: int = GROUP) -> dict[str, float]:
    """Variance of features over time along exact tracks of the subject and of the background, and at fixed positions.

    All as shares of the variance over all tokens, so that 0 is "the same at all times" and 1 "as different as any two
    tokens".

    Returns:
        foreground_track: along tracks of foreground points while they are visible. foreground_fixed: at the same
        points' first cells. background_track, background_fixed: the same for points off the subject.
    """
    times = np.arange(0, len(clip.frames), group)
    total = float(features.reshape(-1, features.shape[-1]).var(0).sum())
    out = {}
    for name, query in query_points(clip, points, seed).items():
        tracks, visible = clip.tracks(query)
        moving = _variance(features, tracks[times], visible[times], cell)
        fixed = _variance(features, np.broadcast_to(tracks[:1], tracks.shape)[times], visible[times], cell)
        out |= {f"{name}_track": moving / total, f"{name}_fixed": fixed / total}
    return out


def query_points(clip, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """{"foreground", "background"}: n pixels (n, 2) each of the first frame, on the subject and off it."""
    rows, cols = np.nonzero(~clip.object_mask(None)[0])
    pick = np.random.default_rng([seed, 1]).choice(len(rows), size=n, replace=len(rows) < n)
    background = np.stack([cols[pick], rows[pick]], -1).astype(np.float64)
    return {"foreground": clip.foreground_points(n, seed), "background": background}


def _variance(features, tracks, visible, cell):
    """Mean over points of the summed variance over the times at which a point is seen (two or more)."""
    _, h, w, _ = features.shape
    cells = token_cells(tracks, cell, h, w)
    values = features[np.arange(len(tracks))[:, None], cells[..., 1], cells[..., 0]]            # (f', n, d)
    kept = [values[visible[:, k], k].var(0).sum() for k in range(tracks.shape[1]) if visible[:, k].sum() > 1]
    return float(np.mean(kept)) if kept else float("nan")


def token_cells(points: np.ndarray, cell: int, h: int, w: int) -> np.ndarray:
    """Tokens (..., 2) as (x, y) of pixels (..., 2), the nearest of the h x w grid for what lies outside."""
    return np.clip(np.floor((points + 0.5) / cell).astype(int), 0, [w - 1, h - 1])
