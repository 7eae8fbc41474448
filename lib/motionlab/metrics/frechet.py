"""Frechet distance between two sets of features, with its interval and its floor.

d^2 = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the squared 2-Wasserstein distance of the Gaussians with these
means and covariances (Dowson and Landau, 1982; FID: Heusel et al., arXiv 1706.08500). As usual the square is reported.

Small samples. The value is biased upwards by about 1/n, the more the larger d is: two samples of one distribution are
never at distance 0. So compare sets of equal size only, and draw `bias_floor` beside every value. When a set has fewer
than 2 d rows, its covariance is rank deficient or nearly so, and both are shrunk towards a multiple of the identity
with the weight of Ledoit and Wolf (2004), which minimises the expected squared error and needs no setting.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError


@dataclass(frozen=True)
class Frechet:
    """value: the distance; low, high: 95 % interval; floor: `bias_floor` of the reference; n: rows of both; shrunk:
    whether the covariances were."""

    value: float
    low: float
    high: float
    floor: float
    n: tuple[int, int]
    shrunk: bool


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of feature sets (n, d) and (m, d), float64; in squared units of the features.

    Raises:
        MotionLabError: not two-dimensional, other widths, fewer than two rows, values that are not finite.
    """
    a, b = _checked(a, b)
    return _distance(a, b, _is_small(a, b))


def unshrunk_distance(a: np.ndarray, b: np.ndarray) -> float:
    """`frechet_distance` with covariances as they are, as published values have it; errors as there."""
    return _distance(*_checked(a, b), shrink=False)


def frechet(a: np.ndarray, reference: np.ndarray, resamples: int = 200, seed: int = 0) -> Frechet:
    """Distance of a (n, d) to a reference (m, d) with a 95 % bootstrap interval over rows of both, and the floor.

    The interval is the basic (reflected) bootstrap's, 2 value - quantiles, cut at 0: a resample repeats rows, so its
    covariances are poorer and its distance too large by about the bias of the value itself; reflection takes both out.
    It may therefore lie below the value.

    Raises:
        MotionLabError: as `frechet_distance`, or a reference of fewer than four rows.
    """
    a, reference = _checked(a, reference)
    shrunk, rng = _is_small(a, reference), np.random.default_rng(seed)
    value = _distance(a, reference, shrunk)
    draws = [_distance(_resample(a, rng), _resample(reference, rng), shrunk) for _ in range(resamples)]
    high, low = np.maximum(0, 2 * value - np.quantile(draws, [0.025, 0.975])).tolist()
    return Frechet(value, low, high, bias_floor(reference, len(a), seed=seed), (len(a), len(reference)), shrunk)


def bias_floor(reference: np.ndarray, rows: int | None = None, splits: int = 8, seed: int = 0) -> float:
    """What the distance is between samples of one distribution: mean over random disjoint halves of the reference.

    Args:
        reference: (n, d). rows: at most this many rows in each half (the size of the set that is judged); the floor
            falls with their number, so smaller halves than that set overstate it.

    Raises:
        MotionLabError: as `frechet_distance`, or fewer than four rows.
    """
    reference, _ = _checked(reference, reference)
    half = min(len(reference) // 2, rows or len(reference))
    if half < 2:
        raise MotionLabError(f"A reference of {len(reference)} rows has no two halves.", fix="Give at least four.")
    rng, found = np.random.default_rng(seed), []
    for _ in range(splits):
        order = rng.permutation(len(reference))
        one, other = reference[order[:half]], reference[order[half:2 * half]]
        found.append(_distance(one, other, _is_small(one, other)))
    return float(np.mean(found))


def _checked(a, b):
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] == 0:
        raise MotionLabError(f"Feature sets {a.shape} and {b.shape} cannot be compared; wanted (n, d) and (m, d).",
                             fix="One row per clip, from one network: evaluator.features(video) gives (b, d).")
    for x in (a, b):
        if len(x) < 2:
            raise MotionLabError(f"A feature set of {len(x)} rows has no covariance.",
                                 fix="Give at least two, better twice as many as features.")
        if not np.isfinite(x).all():
            raise MotionLabError("A feature set holds values that are not finite.",
                                 fix="Look for NaN in the clips or in the network.")
    return a, b


def _resample(x, rng):
    return x[rng.integers(0, len(x), len(x))]


def _is_small(a, b):
    """Both covariances are shrunk when one must be: shrinking one alone would itself be a distance."""
    return min(len(a), len(b)) < 2 * a.shape[1]


def _moments(x, shrink):
    """Mean (d,) and covariance (d, d)."""
    mean = x.mean(0)
    centred = x - mean
    covariance = centred.T @ centred / (len(x) - 1)
    return mean, _shrunk(centred, covariance) if shrink else covariance


def _shrunk(centred, covariance):
    """Ledoit and Wolf (2004): (1 - s) S + s mu I, with s = min(1, mean_k |x_k x_k' - S|^2 / n / |S - mu I|^2)."""
    n, d = centred.shape
    plain = covariance * (n - 1) / n
    mu = np.trace(plain) / d
    distance = (plain ** 2).sum() - d * mu ** 2
    spread = ((centred ** 2).sum(1) ** 2).mean() - (plain ** 2).sum()
    s = min(1.0, spread / n / distance) if distance > 0 else 1.0
    return (1 - s) * covariance + s * np.trace(covariance) / d * np.eye(d)


def _distance(a, b, shrink):
    """tr (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2): no complex root, and none is negative."""
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a, shrink), _moments(b, shrink)
    cross = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False).sum()
    return float(max(0.0, ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def _root(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
