"""Arms side by side, and curves by arm."""
from __future__ import annotations

import numpy as np

from motionlab.figures.axes import figure, plain, rung, interval
from motionlab.figures.style import ACCENT, DARK, SERIES, SOFT, STYLES


def arms(table, metrics: dict[str, str], names: dict[str, str], floor: str | None = None, bars: dict[str, float] | None = None,
         columns: int = 4):
    """Each arm's mean with its 95 % interval over items (seeds averaged first), one panel per metric, arms from top to bottom.

    Args:
        table: rows {item, arm, seed, <metric>}. metrics: column -> panel title. names: arm -> label, in order.
        floor: an arm whose mean is drawn as a dotted line: what the instruments say of real clips.
        bars: metric -> a bar that a claim asks for, drawn dashed.
    """
    rows = -(-len(metrics) // columns)
    fig, axes = figure(2.0 + 1.9 * min(columns, len(metrics)), rows * (0.7 + 0.26 * len(names)), rows, min(columns, len(metrics)),
                        sharey=True, squeeze=False)
    per_item = table.groupby(["arm", "item"], sort=False)[list(metrics)].mean()
    for ax, (metric, title) in zip(axes.flat, metrics.items()):
        for i, arm in enumerate(names):
            rung(ax, i, interval(per_item.loc[arm, metric]) if arm in per_item.index else (np.nan,) * 3, None)
        if floor:
            ax.axvline(interval(per_item.loc[floor, metric])[0], color=SOFT, lw=1.2, ls=":", zorder=0)
        if bars and metric in bars:
            ax.axvline(bars[metric], color=ACCENT, lw=1.2, ls="--", zorder=0)
        ax.set_title(title, fontsize=9, color=DARK)
        ax.tick_params(labelsize=8)
        ax.margins(x=0.12)
        plain(ax)
    for ax in list(axes.flat)[len(metrics):]:
        ax.set_visible(False)
    axes[0, 0].set_yticks(range(len(names)), list(names.values()))
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return fig


def seed_spread(table, metrics: dict[str, str], minus: str, names: dict[str, str]):
    """Differences of arms to the arm `minus`, paired by item and seed: a ring per seed, mean and 95 % interval over items.

    Args:
        table: rows {item, arm, seed, <metric>}. metrics: column -> panel title. names: arm -> label.
    """
    fig, axes = figure(2.0 + 1.9 * len(metrics), 1.0 + 0.45 * len(names), 1, len(metrics), sharey=True, squeeze=False)
    for ax, (metric, title) in zip(axes[0], metrics.items()):
        wide = table.pivot_table(index=["item", "seed"], columns="arm", values=metric)
        for i, arm in enumerate(names):
            gap = (wide[arm] - wide[minus]).dropna() if {arm, minus} <= set(wide) else wide.iloc[:0, 0]
            if len(gap):
                by_seed = gap.groupby("seed").mean()
                ax.plot(by_seed, [i + 0.22] * len(by_seed), "o", mfc="none", color=SOFT, ms=6)
            rung(ax, i, interval(gap.groupby("item").mean()) if len(gap) else (np.nan,) * 3, None)
        ax.axvline(0, color=ACCENT, lw=1, ls="--", zorder=0)
        ax.set_title(title, fontsize=9, color=DARK)
        ax.margins(x=0.15)
        plain(ax)
    axes[0, 0].set_yticks(range(len(names)), list(names.values()))
    axes[0, 0].set_ylim(len(names) - 0.4, -0.5)
    return fig


def distances(found: dict, names: dict[str, str], xlabel: str):
    """Frechet distances {arm: Frechet} with their intervals; an open mark is the floor, two samples of real clips."""
    fig, ax = figure(7, 0.8 + 0.4 * len(names))
    for i, arm in enumerate(names):
        rung(ax, i, (found[arm].value, found[arm].low, found[arm].high) if arm in found else (np.nan,) * 3, None)
        if arm in found:
            ax.plot(found[arm].floor, i, "D", mfc="none", color=SOFT, ms=6)
    ax.set_yticks(range(len(names)), list(names.values()))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel(xlabel)
    plain(ax)
    return fig


def columns(table, names: dict[str, str], xlabel: str):
    """Means of several columns of the same items with their 95 % intervals, one under another: column -> label, in order."""
    fig, ax = figure(7, 0.8 + 0.4 * len(names))
    for i, column in enumerate(names):
        rung(ax, i, interval(table.groupby("item")[column].mean()), None)
    ax.set_yticks(range(len(names)), list(names.values()))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    plain(ax)
    return fig


def curves(table, x: str, y: str, by: str, names: dict[str, str], xlabel: str, ylabel: str, zero: float | None = None, ax=None,
           item: str = "item"):
    """Mean of y per value of x with a 95 % band over items, one line per series; line styles differ as well as colours.

    Args:
        table: rows with columns x, y, by and item. names: value of `by` -> label, in order. zero: a level drawn dotted.
    """
    fig = None
    if ax is None:
        fig, ax = figure(7.5, 3.8)
    for k, (name, label) in enumerate(names.items()):
        part = table[table[by] == name]
        found = [(value, *interval(rows.groupby(item)[y].mean())) for value, rows in part.groupby(x)]
        if not found:
            continue
        at, mean, low, high = np.array(found, dtype=float).T
        ax.fill_between(at, low, high, color=SERIES[k % 6], alpha=0.18, lw=0)
        ax.plot(at, mean, color=SERIES[k % 6], ls=STYLES[k % 6], lw=1.8, marker="osD^vP"[k % 6], ms=3.5, label=label)
    if zero is not None:
        ax.axhline(zero, color=SOFT, lw=1, ls=":", zorder=0)
    ax.set_xlabel(xlabel), ax.set_ylabel(ylabel)
    if (table[x].astype(float) % 1 == 0).all():      # blocks, frame offsets: there is nothing between them
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=8)
    plain(ax)
    return fig


def curve_panels(table, panel: str, panels: dict, x: str, y: str, by: str, names: dict[str, str], xlabel: str, ylabel: str,
                 zero: float | None = None, bars: tuple = (), columns: int = 3):
    """`curves` for each value of the column `panel` ({value: title}), small multiples on shared axes, one legend below them.

    Args:
        bars: levels that a claim asks for, drawn dashed. columns: panels side by side, at most.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    fig, axes = figure(3.2 * columns + 0.6, 2.9 * rows + 0.7, rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, (value, title) in zip(axes.flat, panels.items()):
        curves(table[table[panel] == value], x, y, by, names, "", "", zero, ax)
        ax.set_title(title, fontsize=10, color=DARK)
        for level in bars:
            ax.axhline(level, color=ACCENT, lw=1, ls="--", zorder=0)
        ax.get_legend().remove()
    for ax in list(axes.flat)[len(panels):]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    fig.supylabel(ylabel, fontsize=10)                       # the legend lies where a label of all columns would
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=min(len(names), columns + 1), frameon=False, fontsize=9)
    return fig


def by_quantile(table, x: str, y: str, by: str, names: dict[str, str], xlabel: str, ylabel: str, zero: float | None = None, parts: int = 4):
    """`curves` over `parts` equally large parts of the items by their value of x, each drawn at its median."""
    import pandas as pd

    values = table.groupby("item")[x].first()
    part = pd.qcut(values.rank(method="first"), min(parts, len(values)), labels=False)
    middle = values.groupby(part).median()
    return curves(table.assign(part=table["item"].map(part).map(middle)), "part", y, by, names, xlabel, ylabel, zero)


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
