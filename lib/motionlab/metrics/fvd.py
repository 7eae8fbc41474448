"""Frechet video distance to redraws: does a set of clips differ from the world, beyond what the set's size and its prompts explain?

True clips of the very prompts are a poor reference: they pair content with content, and a perfect model would score as a second draw of
it does. The reference is therefore several *redraws* of each prompt's caption (same sentence, other phase, path and size), and the floor
one more of them, of as many clips as are judged.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.metrics.frechet import frechet_distance

REDRAWS = 8


@dataclass(frozen=True)
class Fvd:
    """value: squared Frechet distance to the redraws; floor: of one further redraw; low, high: 95 % interval of log(value / floor) over
    prompts, redrawn together; n: clips judged."""

    value: float
    floor: float
    low: float
    high: float
    n: int

    @property
    def excess(self) -> float:
        """value - floor: what is not explained by a finite set of right clips."""
        return self.value - self.floor


def fvd(made: np.ndarray, redraws: np.ndarray, ninth: np.ndarray, resamples: int = 200, seed: int = 0) -> Fvd:
    """Of features of clips made (n, d), of the redraws of the same prompts (n, k, d), and of one further redraw (n, d).

    Raises:
        MotionLabError: other shapes, fewer than two prompts, values that are not finite.
    """
    _check(made, redraws, ninth)
    value, floor = (frechet_distance(one, redraws.reshape(-1, redraws.shape[-1])) for one in (made, ninth))
    rng, n, ratios = np.random.default_rng(seed), len(made), []
    for _ in range(resamples):
        rows = rng.integers(0, n, n)
        reference = redraws[rows].reshape(-1, redraws.shape[-1])
        ratios.append(np.log(frechet_distance(made[rows], reference) / max(frechet_distance(ninth[rows], reference), 1e-12)))
    low, high = np.quantile(ratios, [0.025, 0.975]) if ratios else (np.nan, np.nan)
    return Fvd(value, floor, float(low), float(high), n)


def log_ratios(made: np.ndarray, rival: np.ndarray, redraws: np.ndarray) -> np.ndarray:
    """log(distance of `made` / distance of `rival`) to the redraws, as one number per prompt (n,): the jackknife's n r - (n - 1) r_i, r_i
    without prompt i (Efron 1982, section 2). Their mean is r less its bias of order 1/n, and an interval of their mean is one of r, so
    that a ratio of two sets can be judged like any mean over prompts.

    Args:
        made, rival: features (n, d) of clips of the same prompts. redraws: (n, k, d) of them.

    Raises:
        MotionLabError: other shapes, fewer than four prompts, values that are not finite.
    """
    _check(made, redraws, rival)
    n = len(made)
    if n < 4:
        raise MotionLabError(f"A ratio of distances of {n} prompts has no interval.", fix="Give four prompts or more.")

    def ratio(rows):
        reference = redraws[rows].reshape(-1, redraws.shape[-1])
        one, other = (frechet_distance(clips[rows], reference) for clips in (made, rival))
        return np.log(max(one, 1e-12) / max(other, 1e-12))

    whole = ratio(np.arange(n))
    return np.array([n * whole - (n - 1) * ratio(np.delete(np.arange(n), i)) for i in range(n)])


def bias_by_n(made: np.ndarray, redraws: np.ndarray, ninth: np.ndarray, sizes: Sequence[int], draws: int = 8, seed: int = 0) -> list[dict]:
    """Rows {n, value, floor}: means over random subsets of n prompts; both fall with n, and what they part by is not bias."""
    _check(made, redraws, ninth)
    rng, out = np.random.default_rng(seed), []
    for n in sizes:
        if not 2 <= n <= len(made):
            raise MotionLabError(f"A distance of {n} of {len(made)} clips was asked for.", fix="Give sizes from 2 to the number of clips.")
        found = []
        for _ in range(draws):
            rows = rng.permutation(len(made))[:n]
            reference = redraws[rows].reshape(-1, redraws.shape[-1])
            found.append([frechet_distance(one[rows], reference) for one in (made, ninth)])
        value, floor = np.mean(found, 0)
        out.append({"n": int(n), "value": float(value), "floor": float(floor)})
    return out


def sees(damaged: np.ndarray, redraws: np.ndarray, ninth: np.ndarray, resamples: int = 200) -> bool:
    """Whether these features, at this number of clips, tell damaged clips from a further redraw: the interval of log(value / floor) lies
    above 0. Features that do not judge nothing."""
    return fvd(damaged, redraws, ninth, resamples).low > 0


def _check(made, redraws, ninth):
    made, redraws, ninth = map(np.asarray, (made, redraws, ninth))
    if made.ndim != 2 or redraws.ndim != 3 or made.shape != ninth.shape or redraws.shape[::2] != made.shape or len(made) < 2:
        raise MotionLabError(f"Clips {made.shape}, redraws {redraws.shape} and the further one {ninth.shape} do not fit.",
                             fix="Give (n, d), (n, k, d) and (n, d) of the same n prompts, two or more.")
