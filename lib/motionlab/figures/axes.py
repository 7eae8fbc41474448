"""What every drawing begins with: an empty figure, intervals, a row for each arm."""
from __future__ import annotations

import textwrap

import numpy as np

from motionlab.figures.painting import enlarge
from motionlab.figures.style import ACCENT, DARK, labels, metric


def figure(width, height, rows=1, columns=1, **options):
    """A matplotlib figure of so many inches and its axes, without pyplot's global state."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = fig.subplots(rows, columns, **options)
    return fig, axes


def plain(ax):
    """Take away the frame's upper and right side."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def film(rows: dict[str, np.ndarray], every: int = 4, paper: str = ""):
    """Named strips of frames {name: (f, h, w, 3)}, time from left to right; names are labelled as arms (`style.look`)."""
    strips = {name: np.concatenate(list(enlarge(frames[::every], 96)), axis=1) for name, frames in rows.items()}
    tallest = max(strip.shape[0] / strip.shape[1] for strip in strips.values())
    fig, axes = figure(9, (7.4 * tallest + 0.12) * len(strips) + 0.3, len(strips), 1, squeeze=False)
    for ax, strip, label in zip(axes[:, 0], strips.values(), labels(strips, paper)):
        ax.imshow(strip, interpolation="nearest", aspect="equal")
        said = label if "\n" in label else textwrap.fill(label, 20)
        ax.set_ylabel(said, rotation=0, ha="right", va="center", color=DARK)
        ax.set_xticks([]), ax.set_yticks([])
    axes[-1, 0].set_xlabel("time", color=DARK)
    return fig


def interval(values, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval over items, NaN left out; (nan, nan, nan) where nothing is defined."""
    from motionlab.core.stats import bootstrap_interval

    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return (values.mean(), *bootstrap_interval(values, resamples=2000, seed=seed)) if len(values) else (np.nan,) * 3


def rung(ax, row, found, colour=DARK, shape="o", size=4):
    """One row: an interval (mean, low, high) as a bar with ends, its mean as a mark; undefined ones say so."""
    mean, low, high = found
    if np.isnan(mean):
        ax.text(0.5, row, "undefined", transform=ax.get_yaxis_transform(), ha="center", va="center", fontsize=8, color=colour)
        return
    ax.errorbar(mean, row, xerr=[[max(0, mean - low)], [max(0, high - mean)]], fmt=shape, ms=size, color=colour, lw=2, capsize=5)


def row_labels(ax, said, below: float = 0.5):
    """Rows 0, 1, ... from top to bottom, each with its label."""
    ax.set_yticks(range(len(said)), said)
    ax.set_ylim(len(said) - below, -0.5)


def titled(fig, says: str):
    """The figure under the finding that its numbers give, in words."""
    if says:
        fig.suptitle("\n".join(textwrap.fill(line, int(12.5 * fig.get_figwidth())) for line in says.split("\n")), fontsize=10, color=DARK)
    return fig


def stamped(fig, *clips):
    """The figure with what must be said of your clips that it was made of as its last line: `clip.domain.sentence`, each once.

    Args:
        clips: anything; what has no `domain`, as clips of the world, adds nothing.
    """
    domains = [getattr(clip, "domain", None) for clip in clips]
    said = dict.fromkeys(f"Your clip: {one.sentence}" for one in domains if one is not None)
    if said:
        lines = [textwrap.fill(line, int(13.5 * fig.get_figwidth())) for line in said]
        outside = any(one is not None and one.inside is False for one in domains)
        fig.supxlabel("\n".join(lines), fontsize=9, color=ACCENT if outside else DARK)
    return fig


def said_of(column: str) -> str:
    """A column in one line for an axis: what it is, its unit, and which way is better."""
    one = metric(column)
    foot = one.axis(between=", ").replace("\n", " ")
    return one.label.replace("\n", " ") + (f" ({foot})" if foot else "")
