"""What a teacher's state knows of motion: linear probes for the limb that a cell shows and for how fast that limb turns.

Features of a single picture show a limb and its pose; how fast it turns is in the frames before. Probes are linear and judged on other
clips, so what they read lies open in the features; an untrained network of the same shape knows something too.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.metrics.probes import RIDGES, linear_probe, patch_parts

LEAST = 2                # test clips at least


def cell_rotation(clip, order: Sequence[int], cell: int, actor: int = 0) -> np.ndarray:
    """Turn in radians, from the frame before in `order` to this one, of the layer that shows most in each cell, (t, h, w) float64.

    NaN where that layer is not the actor's, and in the first frame, which has none before it. As seen: camera and heading included.
    """
    transforms = np.stack([layer.transform for layer in clip.layers], 1)[list(order)]              # (t, layers, 3, 3)
    angle = np.arctan2(transforms[..., 1, 0], transforms[..., 0, 0])
    turn = np.angle(np.exp(1j * np.diff(angle, axis=0)))                                           # (t - 1, layers), in (-pi, pi]
    ids = clip.ids[list(order)]
    t, h, w = ids.shape
    cells = ids.reshape(t, h // cell, cell, w // cell, cell).transpose(0, 1, 3, 2, 4).reshape(t, h // cell, w // cell, -1)
    most = (cells[..., None] == np.arange(len(clip.layers))).sum(-2).argmax(-1)                    # (t, h, w)
    out = np.full(most.shape, np.nan)
    mine = clip.layer_objects == actor
    out[1:] = np.where(mine[most[1:]], np.take_along_axis(turn[:, None, None], most[1:, ..., None], -1)[..., 0], np.nan)
    return out


def ridge_fit(x: np.ndarray, y: np.ndarray, ridge: float):
    """A function from features (m, d) to values (m,): ridge regression on standardised features, the intercept not shrunk.

    Raises:
        MotionLabError: no rows, values that are not finite.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.shape != (len(x),) or not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise MotionLabError(f"A probe got features {x.shape} and values {y.shape}.", fix="Give finite (n, d) and (n,), one row or more.")
    mean, scale, middle = x.mean(0), x.std(0) + 1e-8, y.mean()
    z = (x - mean) / scale
    weights = np.linalg.solve(z.T @ z / len(z) + ridge * np.eye(z.shape[1]), z.T @ (y - middle) / len(z))
    return lambda new: (np.asarray(new, float) - mean) / scale @ weights + middle


def probe_state(features: np.ndarray, clips: Sequence, order: Sequence[int], cell: int, test_share: float = 0.3,
                ridges: Sequence[float] = RIDGES) -> list[dict]:
    """Rows {clip, limb, rotation} of the last `test_share` of the clips, probed by the others.

    limb: mean over the limbs and the background that the clip shows of the share of cells read right. rotation: 1 - squared error /
    variance of the clip's turns around the training's mean (1: perfect, 0: as the mean alone; NaN where nothing turns).

    Args:
        features: (n, t, h, w, C) of frames `order`; the first of them is left out of both, so that all frames have one before them.

    Raises:
        MotionLabError: too few clips.
    """
    last = len(clips) - round(len(clips) * test_share)
    inner = last - max(1, last // 4)
    if not 0 < inner < last <= len(clips) - LEAST:
        raise MotionLabError(f"{len(clips)} clips do not divide into training, choice and test.", fix="Give at least ten.")
    turns = np.stack([cell_rotation(clip, order, cell) for clip in clips])[:, 1:]
    h, w = turns.shape[2:]
    parts = np.stack([patch_parts(clip, order, cell).reshape(len(order), h, w) for clip in clips])[:, 1:]
    x = np.asarray(features, float)[:, 1:]
    return [{"clip": i} | row for i, row in zip(range(last, len(clips)), _limb_and_turn(x, parts, turns, inner, last, ridges))]


def _limb_and_turn(x, parts, turns, inner, last, ridges):
    thinned = (parts > 0) | (np.random.default_rng(0).random(parts.shape) < 0.1)

    def limb(ridge, first, stop, to):
        return linear_probe(x[:first][thinned[:first]], parts[:first][thinned[:first]], x[stop:to].reshape(-1, x.shape[-1]),
                            parts[stop:to].flatten(), ridge)

    def turn(ridge, first, stop, to):
        known = ~np.isnan(turns[:first])
        fit = ridge_fit(x[:first][known], turns[:first][known], ridge)
        return fit(x[stop:to].reshape(-1, x.shape[-1])).reshape(turns[stop:to].shape)

    best = max(ridges, key=lambda r: limb(r, inner, inner, last).balanced_accuracy)
    best_turn = min(ridges, key=lambda r: np.nanmean((turn(r, inner, inner, last) - turns[inner:last]) ** 2))
    read, said = limb(best, last, last, len(x)), turn(best_turn, last, last, len(x))
    right, truth = (values.reshape(len(x) - last, -1) for values in (read.guess == read.truth, read.truth))
    middle = np.nanmean(turns[:last])
    for ok, shown, guess, true in zip(right, truth, said, turns[last:]):
        apart = np.nansum((true - middle) ** 2)
        yield {"limb": float(np.mean([ok[shown == c].mean() for c in np.unique(shown)])),
               "rotation": float(1 - np.nansum((guess - true) ** 2) / apart) if apart > 1e-6 else float("nan")}
