"""Percentile bootstrap over items: the one kind of interval of the kit."""
from __future__ import annotations

import numpy as np

RESAMPLES, LEVEL = 10_000, 0.95
Z_INTERVAL, Z_POWER = 1.96, 0.84          # 95 % two-sided interval, 80 % power
CHUNK = 1_000_000  # resampled values held at once: 16 MB


def estimate(values: np.ndarray, statistic: str = "mean") -> float:
    """The statistic of values (n,): "mean", "median", or "share_true" (the mean of 0/1 values).

    Of pairs (n, 2): the statistic of the first column over that of the second.
    """
    out = (np.median if statistic == "median" else np.mean)(values, axis=0)
    return float(ratio(out) if values.ndim == 2 else out)


def ratio(statistics: np.ndarray) -> np.ndarray:
    """(..., 2) -> first over second (...); a denominator of 0 gives NaN."""
    return statistics[..., 0] / np.where(statistics[..., 1] == 0, np.nan, statistics[..., 1])


def bootstrap_interval(
    values: np.ndarray, statistic: str = "mean", resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval (low, high) of a statistic over items.

    Args:
        values: (n,) one finite number per item, or pairs (n, 2) for a ratio.
        statistic: "mean", "median" or "share_true".
    """
    rng, n = np.random.default_rng(seed), len(values)
    rows = max(1, CHUNK // n)
    draws = [resample(values, statistic, rng, min(rows, resamples - start)) for start in range(0, resamples, rows)]
    draws = np.concatenate(draws)
    if np.isnan(draws).any():  # a replicate without any denominator bounds nothing
        return -np.inf, np.inf
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def detectable_difference(spread: float, n: int) -> float:
    """Smallest mean difference that n paired items show with 80 % power: (1.96 + 0.84) spread / sqrt(n), the spread being the
    standard deviation of the paired differences."""
    return (Z_INTERVAL + Z_POWER) * spread / float(np.sqrt(n))


def resample(values: np.ndarray, statistic: str, rng: np.random.Generator, rows: int) -> np.ndarray:
    """`rows` bootstrap replicates of the statistic, (rows,); both members of a pair are drawn together."""
    drawn = values[rng.integers(0, len(values), size=(rows, len(values)))]
    out = np.median(drawn, axis=1, overwrite_input=True) if statistic == "median" else drawn.mean(axis=1)
    return ratio(out) if values.ndim == 2 else out
