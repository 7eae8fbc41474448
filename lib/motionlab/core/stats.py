"""Percentile bootstrap over items: the one kind of interval of the kit."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

RESAMPLES, LEVEL = 10_000, 0.95
Z_INTERVAL, Z_POWER = 1.96, 0.84          # 95 % two-sided interval, 80 % power
CHUNK = 1_000_000  # resampled values held at once: 16 MB


def ratio(statistics: np.ndarray) -> np.ndarray:
    """(..., 2) -> first over second (...); a denominator of 0 gives NaN."""
    return statistics[..., 0] / np.where(statistics[..., 1] == 0, np.nan, statistics[..., 1])


def lead_of_most(statistics: np.ndarray) -> np.ndarray:
    """(..., 1 + k) -> how far the first lies above the highest of the others (...)."""
    return statistics[..., 0] - statistics[..., 1:].max(axis=-1)


def lead_of_least(statistics: np.ndarray) -> np.ndarray:
    """(..., 1 + k) -> how far the first lies above the lowest of the others (...): below 0 where it is the lowest."""
    return statistics[..., 0] - statistics[..., 1:].min(axis=-1)


def estimate(values: np.ndarray, statistic: str = "mean", reduce: Callable = ratio) -> float:
    """The statistic of values (n,): "mean", "median", or "share_true" (the mean of 0/1 values).

    Of rows (n, k): the statistics of the columns, reduced to one number.
    """
    out = (np.median if statistic == "median" else np.mean)(values, axis=0)
    return float(reduce(out) if values.ndim == 2 else out)


def bootstrap_interval(
    values: np.ndarray, statistic: str = "mean", resamples: int = RESAMPLES, seed: int = 0, reduce: Callable = ratio
) -> tuple[float, float]:
    """95 % percentile bootstrap interval (low, high) of a statistic over items.

    Args:
        values: (n,) one finite number per item, or rows (n, k) whose columns' statistics are reduced, in every replicate, to one.
        statistic: "mean", "median" or "share_true".
        reduce: of rows: `ratio`, `lead_of_most` or `lead_of_least`. The best of several is found anew in each replicate.
    """
    rng, n = np.random.default_rng(seed), len(values)
    rows = max(1, CHUNK // n)
    draws = [resample(values, statistic, rng, min(rows, resamples - start), reduce) for start in range(0, resamples, rows)]
    draws = np.concatenate(draws)
    if np.isnan(draws).any():  # a replicate without any denominator bounds nothing
        return -np.inf, np.inf
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def detectable_difference(spread: float, n: int) -> float:
    """Smallest mean difference that n paired items show with 80 % power: (1.96 + 0.84) spread / sqrt(n), the spread being the
    standard deviation of the paired differences."""
    return (Z_INTERVAL + Z_POWER) * spread / float(np.sqrt(n))


def resample(values: np.ndarray, statistic: str, rng: np.random.Generator, rows: int, reduce: Callable = ratio) -> np.ndarray:
    """`rows` bootstrap replicates of the statistic, (rows,); the members of a row are drawn together."""
    drawn = values[rng.integers(0, len(values), size=(rows, len(values)))]
    out = np.median(drawn, axis=1, overwrite_input=True) if statistic == "median" else drawn.mean(axis=1)
    return reduce(out) if values.ndim == 2 else out
