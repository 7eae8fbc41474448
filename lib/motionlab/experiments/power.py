"""With so many prompts, what difference can be seen? Minimum effects are chosen from this, before the test split is measured.

For a pilot in a notebook; the protocol's own table, which refuses criteria beyond it, is `ledger.detectable`.
"""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.core.stats import detectable_difference


def detectable(table, metric: str, arm: str, minus: str, n: int = 64) -> dict[str, float]:
    """Smallest mean difference of a metric that n paired prompts would show with 80 % power, from a pilot's spread.

    Args:
        table: a pilot's rows {item, arm, seed, <metric>} as DataFrame; seeds of an item are averaged first.
        arm, minus: the two arms whose difference per item is taken. n: prompts of the experiment to come.

    Returns:
        difference: of the pilot; spread: standard deviation of the paired differences; detectable: (1.96 + 0.84) spread / sqrt(n);
        items: pairs in the pilot.

    Raises:
        MotionLabError: an arm or metric that the pilot lacks, fewer than three pairs.
    """
    missing = [name for name, known in ((metric, table.columns), (arm, set(table["arm"])), (minus, set(table["arm"]))) if name not in known]
    if missing:
        raise MotionLabError(f"The pilot has no '{missing[0]}'.", fix=f"Arms: {', '.join(sorted(set(table['arm'])))}.")
    wide = table.pivot_table(index="item", columns="arm", values=metric)
    gap = (wide[arm] - wide[minus]).dropna().to_numpy()
    if len(gap) < 3:
        raise MotionLabError(f"The pilot has {len(gap)} pairs of {metric}.", fix="Measure at least three prompts in both arms.")
    spread = float(np.std(gap, ddof=1))
    return {"difference": float(gap.mean()), "spread": spread, "detectable": detectable_difference(spread, n), "items": len(gap)}


def power_table(table, metrics, arm: str, minus: str, n: int = 64):
    """`detectable` of several metrics as a DataFrame, one row per metric."""
    import pandas as pd

    return pd.DataFrame({metric: detectable(table, metric, arm, minus, n) for metric in metrics}).T
