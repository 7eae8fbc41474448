"""Curves: means with a band over items, along noise levels, blocks, frames or minutes."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motionlab.figures.axes import figure, interval, plain
from motionlab.figures.style import ACCENT, DARK, MARKERS, SOFT, STYLES, labels, look, metric


def curves(table, x: str, y: str, by: str, names: Sequence, xlabel: str | None = None, ylabel: str | None = None, *,
           paper: str = "", zero: float | None = None, ax=None, item: str = "item"):
    """Mean of y per value of x with a 95 % band over items, one line per series; line styles differ as well as colours.

    Args:
        table: rows with columns x, y, by and item. names: values of `by`, in order. xlabel, ylabel: None takes the columns' own.
        paper: whose arms.yaml labels and colours the series. zero: a level drawn dotted.
    """
    fig = None
    if ax is None:
        fig, ax = figure(7.5, 3.8)
    for k, name in enumerate(names):
        part = table[table[by] == name]
        found = [(value, *interval(rows.groupby(item)[y].mean())) for value, rows in part.groupby(x)]
        if not found:
            continue
        at, mean, low, high = np.array(found, dtype=float).T
        label, colour = look(name, paper, by)
        ax.fill_between(at, low, high, color=colour, alpha=0.18, lw=0)
        ax.plot(at, mean, color=colour, ls=STYLES[k % 6], lw=1.8, marker=MARKERS[k % 6], ms=3.5, label=label)
    if zero is not None:
        ax.axhline(zero, color=SOFT, lw=1, ls=":", zorder=0)
    ax.set_xlabel(_said(x, xlabel)), ax.set_ylabel(_said(y, ylabel))
    if (table[x].astype(float) % 1 == 0).all():      # blocks, frame offsets: there is nothing between them
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=8)
    plain(ax)
    return fig


def curve_panels(table, panel: str, panels: Sequence, x: str, y: str, by: str, names: Sequence, xlabel: str | None = None,
                 ylabel: str | None = None, *, paper: str = "", zero: float | None = None, bars: tuple = (), columns: int = 3):
    """`curves` for each of `panels`, values of the column `panel`: small multiples on shared axes, one legend below them.

    Args:
        bars: levels that a claim asks for, drawn dashed. columns: panels side by side, at most.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    fig, axes = figure(3.2 * columns + 0.6, 2.9 * rows + 0.7, rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, value, title in zip(axes.flat, panels, labels(panels, paper, panel)):
        curves(table[table[panel] == value], x, y, by, names, "", "", paper=paper, zero=zero, ax=ax)
        ax.set_title(title, fontsize=10, color=DARK)
        for level in bars:
            ax.axhline(level, color=ACCENT, lw=1, ls="--", zorder=0)
        ax.get_legend().remove()
    for ax in list(axes.flat)[len(panels):]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel(_said(x, xlabel))
    fig.supylabel(_said(y, ylabel), fontsize=10)             # the legend lies where a label of all columns would
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=min(len(names), columns + 1), frameon=False, fontsize=9)
    return fig


def by_quantile(table, x: str, y: str, by: str, names: Sequence, xlabel: str | None = None, ylabel: str | None = None, *,
                paper: str = "", zero: float | None = None, parts: int = 4):
    """`curves` over `parts` equally large parts of the items by their value of x, each drawn at its median."""
    import pandas as pd

    values = table.groupby("item")[x].first()
    part = pd.qcut(values.rank(method="first"), min(parts, len(values)), labels=False)
    middle = values.groupby(part).median()
    table = table.assign(part=table["item"].map(part).map(middle))
    return curves(table, "part", y, by, names, _said(x, xlabel), ylabel, paper=paper, zero=zero)


def _said(column, label):
    return metric(column).line if label is None else label


def end_to_end(curves: dict):
    """Curves of several stages, {stage: DataFrame}, as one, minutes counted on."""
    import pandas as pd

    parts, before = [], 0.0
    for stage, curve in curves.items():
        parts.append(curve.assign(stage=stage, minutes=curve["minutes"] + before))
        before += curve["minutes"].max()
    return pd.concat(parts, ignore_index=True)


def training_curves(curve, title: str = ""):
    """A training's loss against minutes: all of it, and by noise level from noise (dark) to clean (light).

    Args:
        curve: columns minutes, loss, loss_0 ... loss_9 (`curves/<stage>.csv`), and held_out/mean where it was taken.
    """
    from matplotlib import colormaps

    fig, axes = figure(9, 3.2, 1, 2)
    axes[0].plot(curve["minutes"], curve["loss"], color=DARK, lw=1, label="training")
    if "held_out/mean" in curve:
        seen = curve.dropna(subset=["held_out/mean"])
        axes[0].plot(seen["minutes"], seen["held_out/mean"], "D", color=ACCENT, ms=6, label="held-out clips (averaged weights)")
    for k in range(10):
        axes[1].plot(curve["minutes"], curve[f"loss_{k}"], color=colormaps["viridis"](k / 10), lw=1)
        last = curve[f"loss_{k}"].dropna()
        if k in (0, 4, 9) and len(last):
            axes[1].annotate(f" t = {k / 10 + 0.05:.2f}", (curve["minutes"].iloc[-1], last.iloc[-1]), fontsize=8, va="center")
    for ax in axes:
        ax.set_xlabel("minutes of training"), ax.set_ylabel("loss")
        ax.set_yscale("log")
        plain(ax)
    axes[0].legend(frameon=False, fontsize=8)
    axes[0].set_title(title, fontsize=10), axes[1].set_title("by time t: noise (dark) to clean (light)", fontsize=10)
    return fig
