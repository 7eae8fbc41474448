"""Where a place is found again: windows of matches, rungs from a target to samples."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from motionlab.figures.axes import figure, interval, plain, titled
from motionlab.figures.inside import outline
from motionlab.figures.style import DARK, MARKERS, SOFT, look, metric


def windows(frames: np.ndarray, place: tuple[int, int], found: Mapping[str, np.ndarray], grid: tuple[int, int], paper: str = "",
            truth: str = "exact", says: str = ""):
    """One place of a frame and the window of the next in which it is looked for, and where each of several finds it.

    Args:
        frames: uint8 (2, h, w, 3). place: (y, x) of the grid. found: name -> probabilities (n, n) over the window, rows from top to bottom.
        truth: the name whose arg-max is marked in all windows.
    """
    fig, axes = figure(2.0 * (2 + len(found)) + 0.4, 2.9, 1, 2 + len(found), squeeze=False)
    (y, x), (h, w), (height, width) = place, grid, frames.shape[1:3]
    reach = next(iter(found.values())).shape[0] // 2
    for ax, frame, title in zip(axes[0], frames, ("a place of this frame", "is looked for in this window")):
        ax.imshow(frame, interpolation="nearest")
        ax.set_title(title, fontsize=9, color=DARK)
    outline(axes[0, 0], (y, x), height / h, width / w)
    outline(axes[0, 1], (y - reach, x - reach), height / h, width / w, 2 * reach + 1)
    best = np.unravel_index(found[truth].argmax(), found[truth].shape) if truth in found else None
    for ax, (name, p) in zip(axes[0, 2:], found.items()):
        ax.imshow(p, cmap="Greys", vmin=0, vmax=max(float(p.max()), 1e-9), interpolation="nearest")
        ax.plot(reach, reach, "+", color=SOFT, ms=9, mew=1.5)
        if best is not None:
            ax.plot(best[1], best[0], "o", mfc="none", color=look(truth, paper)[1], ms=13, mew=2)
        ax.set_title(f"{look(name, paper)[0]}\n(most: {p.max():.2f})", fontsize=9, color=look(name, paper)[1])
    for ax in axes[0]:
        ax.set_xticks([]), ax.set_yticks([])
    axes[0, 2].set_xlabel("ring: exact; cross: stays", fontsize=8, color=DARK)
    return titled(fig, says)


def rungs(table, names: Sequence[str], panels: Mapping[str, str], comparator: str, ceilings: Mapping[str, str] | None = None,
          paper: str = "", says: str = ""):
    """Arms at each rung between a target and samples: mean and 95 % interval over items, the comparator dashed, a ceiling dotted.

    Args:
        table: rows {item, arm, rung, value}. panels: rung -> the column whose unit and direction it has (`style.metric`). ceilings: rung ->
            the arm of which the mean is the best that there can be.
    """
    there = [name for name in names if name in set(table["arm"])]
    fig, axes = figure(2.2 + 2.2 * len(panels), 1.3 + 0.3 * len(there), 1, len(panels), sharey=True, squeeze=False)
    per_item = table.groupby(["rung", "arm", "item"], sort=False)["value"].mean()
    for k, (ax, (rung, column)) in enumerate(zip(axes[0], panels.items())):
        here = per_item.loc[rung] if rung in per_item.index.get_level_values(0) else per_item.iloc[:0].droplevel(0)
        for row, arm in enumerate(there):
            if arm in here.index.get_level_values(0):
                mean, low, high = interval(here.loc[arm])
                ax.errorbar(mean, row, xerr=[[max(0, mean - low)], [max(0, high - mean)]], fmt=MARKERS[row % len(MARKERS)], ms=5, lw=2,
                            capsize=4, color=look(arm, paper)[1])
            else:
                ax.text(0.5, row, "-", transform=ax.get_yaxis_transform(), ha="center", va="center", fontsize=8, color=SOFT)
        for arm, style in ((comparator, "--"), ((ceilings or {}).get(rung), ":")):
            if arm in here.index.get_level_values(0):
                ax.axvline(here.loc[arm].mean(), color=look(arm, paper)[1], lw=1.2, ls=style, zorder=0)
        ax.set_title(f"{k + 1}. {look(rung, paper, 'rung')[0]}", fontsize=9, color=DARK)
        ax.set_xlabel("\n".join(filter(None, (metric(column).label.replace("\n", " "), metric(column).axis()))), fontsize=8, color=DARK)
        ax.tick_params(labelsize=8), ax.margins(x=0.15)
        plain(ax)
    axes[0, 0].set_yticks(range(len(there)), [look(name, paper)[0] for name in there])
    axes[0, 0].set_ylim(len(there) - 0.5, -0.5)
    return titled(fig, says)


def gap(table, arm: str, minus: str, column: str, digits: int = 3) -> str:
    """In words: the difference of two arms' column, paired by item (seeds averaged first), with its 95 % interval."""
    wide = table[table["arm"].isin([arm, minus])].pivot_table(index="item", columns="arm", values=column)
    if not {arm, minus} <= set(wide):
        return "not measured"
    mean, low, high = interval((wide[arm] - wide[minus]).dropna())
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def mean_of(table, arm: str, column: str, digits: int = 2) -> str:
    """In words: an arm's mean over items with its 95 % interval."""
    mean, low, high = interval(table[table["arm"] == arm].groupby("item")[column].mean())
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def best_arm(table, names: Sequence[str], column: str, paper: str = "") -> str:
    """In words: the arm whose mean is best, by the column's direction, and that mean."""
    means = table[table["arm"].isin(names)].groupby("arm")[column].mean().dropna()
    if means.empty:
        return "none"
    first = means.idxmin() if metric(column).better == "less" else means.idxmax()
    return f"{look(first, paper)[0]} ({means[first]:.2f})"
