"""The table of a row: a line per item, with a column per metric."""
from __future__ import annotations

from typing import Any

from motionlab.core.errors import MotionLabError
from motionlab.ledger.book import FIRST


def table(name: str, arm: str, seed: int, returned: Any):
    """What the row function of row `name` returned as a sorted DataFrame: item, arm, seed, metrics...

    Raises:
        MotionLabError: no rows, no column `item`, a row that stands twice.
    """
    import pandas

    fix = "A row function returns [{item: prompt id, a metric: number, ...}, ...]."
    frame = pandas.DataFrame(returned)
    if frame.empty or "item" not in frame.columns:
        raise MotionLabError(f"The rows returned for {name} {'are none' if frame.empty else 'lack the column item'}.", fix=fix)
    frame = frame.assign(arm=arm, seed=seed)
    twice = frame[frame.duplicated([column for column in frame.columns if frame[column].dtype.kind != "f"])]
    if len(twice):
        raise MotionLabError(f"{name} has {twice.iloc[0]['item']} twice.", fix=fix)
    return in_order(frame)


def in_order(frame):
    """Rows in an order that depends on their contents only: by arm and seed, then as text; first columns first."""
    rest = [column for column in frame.columns if column not in FIRST]

    def order(column):
        return column.astype(int) if column.name == "seed" else column.map(str)

    return frame[FIRST + rest].sort_values(["arm", "seed", "item", *rest], key=order, kind="stable").reset_index(drop=True)
