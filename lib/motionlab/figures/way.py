"""How far arms come on the way from a comparator to what real clips reach: where a cure stops, and what would have been possible."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.core.stats import bootstrap_interval
from motionlab.figures.axes import figure, interval, plain, row_labels, rung
from motionlab.figures.style import DARK, SOFT, labels, look, metric

READERS = ("structure_0", "structure_1")
COLUMNS = (*READERS, "move_ok")


def way(table, names: Sequence[str], paper: str = "", comparator: str = "plain", floor: str = "reconstruction"):
    """A ladder: one rung per arm, in the order of what it was given, a panel per reader's structure and one for motion as asked.

    Means with their 95 % intervals over items (seeds averaged first), joined by a line; dashed the comparator, dotted real clips after
    the codec. The title says what share of the way between the two each arm has gone, by both readers together.

    Args:
        table: rows {item, arm, seed, structure_0, structure_1, move_ok}. names: rungs from top to bottom, without comparator and floor.
        paper: as `dots.arms`.

    Raises:
        MotionLabError: comparator or floor have no rows.
    """
    per_item = table.groupby(["arm", "item"], sort=False)[list(COLUMNS)].mean()
    for arm in (comparator, floor):
        if arm not in per_item.index:
            raise MotionLabError(f"There are no rows of '{arm}'.", fix="Measure the comparator, and real clips after the codec.")
    rungs = [comparator, *(name for name in names if name in per_item.index), floor]
    fig, axes = figure(8.6, 1.5 + 0.36 * len(rungs), 1, len(COLUMNS), sharey=True)
    for ax, column in zip(axes, COLUMNS):
        _panel(ax, per_item[column], rungs, paper, comparator, floor)
        said = f"structure error, reader {column[-1]}" if column in READERS else "motion as asked"
        ax.set_title(said, fontsize=9, color=DARK)
        ax.set_xlabel(metric(column).axis(), fontsize=8, color=DARK)
    row_labels(axes[0], labels(rungs, paper))
    fig.suptitle(told(per_item, rungs, paper), fontsize=10, color=DARK)
    return fig


def _panel(ax, values, rungs, paper, comparator, floor):
    found = [interval(values.loc[arm]) for arm in rungs]
    ax.plot([mean for mean, _, _ in found], range(len(rungs)), color=SOFT, lw=1, zorder=0)
    for k, (arm, one) in enumerate(zip(rungs, found)):
        rung(ax, k, one, look(arm, paper)[1])
    ax.axvline(values.loc[comparator].mean(), color=DARK, lw=1, ls="--", zorder=0)
    ax.axvline(values.loc[floor].mean(), color=SOFT, lw=1.2, ls=":", zorder=0)
    ax.tick_params(labelsize=8)
    ax.margins(x=0.12)
    plain(ax)


def told(per_item, rungs: Sequence[str], paper: str = "") -> str:
    """In words: the share of the way that each arm has gone, in per cent with its interval."""
    said = [f"{look(arm, paper)[0]} {100 * mean:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
            for arm in rungs[1:-1] for mean, low, high in [share(per_item, arm, rungs[0], rungs[-1])]]
    lines = [", ".join(said[k:k + 2]) for k in range(0, len(said), 2)]
    return f"Of the way from {look(rungs[0], paper)[0]} to real clips:\n" + ",\n".join(lines) if said else ""


def share(per_item, arm: str, comparator: str, floor: str) -> tuple[float, float, float]:
    """(comparator - arm) / (comparator - floor) of structure error, the mean of both readers: 0 at the comparator, 1 at the floor.

    Items are resampled jointly, the ratio being of the means.

    Returns:
        Estimate and 95 % interval; NaN where the comparator lies at the floor.
    """
    both = per_item[list(READERS)].mean(axis=1).unstack("arm")[[arm, comparator, floor]].dropna()
    pairs = np.stack([both[comparator] - both[arm], both[comparator] - both[floor]], axis=1)
    if not len(pairs) or pairs[:, 1].mean() == 0:
        return (np.nan,) * 3
    return float(pairs[:, 0].mean() / pairs[:, 1].mean()), *bootstrap_interval(pairs, resamples=2000)
