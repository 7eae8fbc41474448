"""Tables of rows: a line per unit and metric, or a line per item with a column per metric."""

from __future__ import annotations

from typing import Any

from motionlab.core.errors import MotionLabError
from motionlab.runner.sweep.rows import Row

LONG, WIDE = ["arm", "seed", "unit", "metric", "value"], ["item", "arm", "seed"]  # first columns of the two forms


def table(row: Row, returned: Any):
    """The returned rows as a sorted DataFrame: arm, seed, unit, metric, value, ...; or item, arm, seed, metrics...

    Raises:
        MotionLabError: no rows, a column that is missing, a value that is no number, a row that stands twice.
    """
    import pandas

    fix = "A row function returns [{unit: prompt id, metric: name, value: number}, ...], or [{item: id, metrics...}]."
    frame = pandas.DataFrame(returned)
    form = WIDE if "item" in frame.columns else LONG
    missing = [column for column in form if column not in [*frame.columns, "arm", "seed"]]
    if frame.empty or missing:
        what = f"lack the column '{missing[0]}'" if missing and not frame.empty else "are none"
        raise MotionLabError(f"The rows returned for {row.name} {what}.", fix=fix)
    frame = frame.assign(arm=row.arm, seed=row.seed)
    try:
        frame = frame if form is WIDE else frame.assign(value=frame["value"].astype(float))
    except (TypeError, ValueError) as error:
        raise MotionLabError(f"A value returned for {row.name} is no number ({error}).", fix=fix) from None
    twice = frame[frame.duplicated([column for column in frame.columns if frame[column].dtype.kind != "f"])]
    if len(twice):
        what = ", ".join(str(twice.iloc[0][name]) for name in form if name in ("item", "unit", "metric"))
        raise MotionLabError(f"{row.name} has {what} twice.", fix=fix)
    return in_order(frame)


def in_order(frame):
    """Rows in an order that depends on their contents only: by arm and seed, then as text; first columns first."""
    form = WIDE if "item" in frame.columns else LONG
    frame = frame[[*form, *(column for column in frame.columns if column not in form)]]
    keys = ["arm", "seed", *(column for column in frame.columns if column not in ("arm", "seed", "value"))]

    def order(column):
        return column.astype(int) if column.name == "seed" else column.map(str)

    return frame.sort_values(keys, key=order, kind="stable").reset_index(drop=True)
