"""Arms side by side: a mark and an interval for each."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motionlab.figures.axes import figure, interval, plain, row_labels, rung
from motionlab.figures.style import DARK, SOFT, labels, look, metric

NOTHING = (np.nan,) * 3


def arms(table, metrics: Sequence[str], names: Sequence[str], paper: str = "", floor: str | None = None,
         bars: dict[str, float] | None = None, columns: int = 4, panel: float = 1.9):
    """Each arm's mean with its 95 % interval over items (seeds averaged first), one panel per metric, arms from top to bottom.

    Args:
        table: rows {item, arm, seed, <metric>}. metrics: columns, one panel each. names: arms, in order.
        paper: whose arms.yaml labels and colours them.
        floor: an arm whose mean is drawn as a dotted line: what the instruments say of real clips.
        bars: metric -> a bar that a claim asks for, drawn dashed. columns: panels side by side, at most; panel: inches of each.
    """
    wide, rows = min(columns, len(metrics)), -(-len(metrics) // columns)
    fig, axes = figure(2.0 + panel * wide, rows * (0.9 + 0.26 * len(names)), rows, wide, sharey=True, squeeze=False)
    per_item = table.groupby(["arm", "item"], sort=False)[list(metrics)].mean()
    for ax, name in zip(axes.flat, metrics):
        for i, arm in enumerate(names):
            found = interval(per_item.loc[arm, name]) if arm in per_item.index else NOTHING
            rung(ax, i, found, look(arm, paper)[1])
        if floor:
            ax.axvline(interval(per_item.loc[floor, name])[0], color=SOFT, lw=1.2, ls=":", zorder=0)
        if bars and name in bars:
            ax.axvline(bars[name], color=DARK, lw=1, ls="--", zorder=0)
        _head(ax, name)
        ax.tick_params(labelsize=8)
        ax.margins(x=0.12)
    for ax in list(axes.flat)[len(metrics):]:
        ax.set_visible(False)
    row_labels(axes[0, 0], labels(names, paper))
    return fig


def seed_spread(table, metrics: Sequence[str], minus: str, names: Sequence[str], paper: str = ""):
    """Differences of arms to the arm `minus`, paired by item and seed: a ring per seed, mean and 95 % interval over items.

    Args:
        table: rows {item, arm, seed, <metric>}. metrics: columns, one panel each. names: arms, in order. paper: as `arms`.
    """
    fig, axes = figure(2.0 + 1.9 * len(metrics), 1.2 + 0.45 * len(names), 1, len(metrics), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], metrics):
        wide = table.pivot_table(index=["item", "seed"], columns="arm", values=name)
        for i, arm in enumerate(names):
            gap = (wide[arm] - wide[minus]).dropna() if {arm, minus} <= set(wide) else wide.iloc[:0, 0]
            if len(gap):
                by_seed = gap.groupby("seed").mean()
                ax.plot(by_seed, [i + 0.22] * len(by_seed), "o", mfc="none", color=SOFT, ms=6)
            rung(ax, i, interval(gap.groupby("item").mean()) if len(gap) else NOTHING, look(arm, paper)[1])
        ax.axvline(0, color=DARK, lw=1, ls="--", zorder=0)
        _head(ax, name)
        ax.margins(x=0.15)
    row_labels(axes[0, 0], labels(names, paper), below=0.4)
    return fig


def distances(found: dict, names: Sequence[str], xlabel: str, paper: str = ""):
    """Frechet distances {arm: Frechet} with their intervals; an open mark is the floor, two samples of real clips."""
    fig, ax = figure(7, 0.8 + 0.4 * len(names))
    for i, arm in enumerate(names):
        rung(ax, i, (found[arm].value, found[arm].low, found[arm].high) if arm in found else NOTHING, look(arm, paper)[1])
        if arm in found:
            ax.plot(found[arm].floor, i, "D", mfc="none", color=SOFT, ms=6)
    row_labels(ax, labels(names, paper))
    ax.set_xlim(left=0)
    ax.set_xlabel(xlabel)
    plain(ax)
    return fig


def columns(table, names: Sequence[str], xlabel: str):
    """Means of several columns of the same items with their 95 % intervals, one under another, in order."""
    fig, ax = figure(7, 0.8 + 0.4 * len(names))
    for i, column in enumerate(names):
        rung(ax, i, interval(table.groupby("item")[column].mean()))
    row_labels(ax, [metric(name).line for name in names])
    ax.set_xlabel(xlabel)
    plain(ax)
    return fig


def _head(ax, name):
    """A panel's head and foot: what the metric is called, its unit, and which way is better."""
    ax.set_title(metric(name).label, fontsize=9, color=DARK)
    ax.set_xlabel(metric(name).axis(), fontsize=8, color=DARK)
    plain(ax)
