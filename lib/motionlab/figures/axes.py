"""An empty figure and intervals: what every drawing begins with."""
from __future__ import annotations

import numpy as np

from motionlab.figures.painting import enlarge
from motionlab.figures.style import ACCENT, DARK


def figure(width, height, rows=1, columns=1, **options):
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = fig.subplots(rows, columns, **options)
    return fig, axes


def plain(ax):
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def film(rows: dict[str, np.ndarray], every: int = 4):
    """Named strips of frames {label: (f, h, w, 3)}, time from left to right."""
    strips = {name: np.concatenate(list(enlarge(frames[::every], 96)), axis=1) for name, frames in rows.items()}
    tallest = max(strip.shape[0] / strip.shape[1] for strip in strips.values())
    fig, axes = figure(9, (7.4 * tallest + 0.12) * len(strips) + 0.3, len(strips), 1, squeeze=False)
    for ax, (name, strip) in zip(axes[:, 0], strips.items()):
        ax.imshow(strip, interpolation="nearest", aspect="equal")
        ax.set_ylabel(name, rotation=0, ha="right", va="center", color=DARK)
        ax.set_xticks([]), ax.set_yticks([])
    axes[-1, 0].set_xlabel("time", color=DARK)
    return fig


def interval(values, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval over items, NaN left out; (nan, nan, nan) where nothing is defined."""
    from motionlab.core.stats import bootstrap_interval

    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return (values.mean(), *bootstrap_interval(values, resamples=2000, seed=seed)) if len(values) else (np.nan,) * 3


def rung(ax, row, found, mark):
    """One arm: its interval as a bar with ends, its mean as a mark; `mark` counts the arms that stand out."""
    mean, low, high = found
    if np.isnan(mean):
        ax.text(0.5, row, "undefined", transform=ax.get_yaxis_transform(), ha="center", va="center", fontsize=8,
                color=ACCENT if mark is not None else DARK)
        return
    shape, size, colour = ("o", 4, DARK) if mark is None else ("Ds^"[mark], 7, ACCENT)
    ax.errorbar(mean, row, xerr=[[max(0, mean - low)], [max(0, high - mean)]], fmt=shape, ms=size, color=colour, lw=2, capsize=5)
