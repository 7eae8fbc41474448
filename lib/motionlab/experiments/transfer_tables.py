"""Rows of a transfer sweep put side by side: hard bodies against easy ones on one route, corners in order, readers one under another."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motionlab.data.transfer import TIERS, load_transfer
from motionlab.figures import interval, look, metric
from motionlab.metrics.transfer_corners import BLENDS, GONE

READERS = ("0", "1")
BY_TIER = ("m_0", "m_1", "edit_0", "edit_1", "leak")


def judged_tasks(tier: str, n: int | None = None) -> list:
    """Tasks that a notebook measures on: of the set that judges, route by route; at tier smoke of `transfer_examples`."""
    return load_transfer(*(("transfer_examples", min(n or 2, 2)) if tier == "smoke" else ("transfer", n)))


def by_tier(table, arms: Sequence[str], columns: Sequence[str] = BY_TIER) -> list[dict]:
    """Rows {item, arm, seed, <metric>_<tier>, <metric>_hard_minus_easy}, one per route: the same way of a body that bends and of one
    that does not. The reader's number stays last: m_0 gives m_hard_minus_easy_0.

    Args:
        table: rows of `experiments.transfer`. arms: those of it that are there.

    Returns:
        no row for a route of which either end is missing.
    """
    out = []
    for (arm, seed, route), rows in table[table["arm"].isin(arms)].groupby(["arm", "seed", "route"], sort=False):
        means = rows.groupby("kind")[[c for c in columns if c in rows]].mean()
        if {"hard", "easy"} <= set(means.index):
            row = {"item": f"route {route}", "arm": arm, "seed": seed}
            row |= {_named(c, tier): means.loc[tier, c] for c in means for tier in TIERS if tier in means.index}
            out.append(row | {_named(c, "hard_minus_easy"): means.loc["hard", c] - means.loc["easy", c] for c in means})
    return out


def _named(column, said):
    stem, _, reader = column.rpartition("_")
    return f"{stem}_{said}_{reader}" if reader in READERS else f"{column}_{said}"


def in_order(rows: Sequence[dict]) -> list[dict]:
    """Rows {item, arm, seed, in_order, ...} of `metrics.transfer_corners.corner_rows`, one per metric and reader: do its means move in
    order, mf and route falling as more of the route goes, leak rising as more clutter is blended in?

    in_order is 1 or 0, of means over tasks; steps_in_order: share of single steps of single tasks in the right order. The item is the
    reader; leak needs none, and there are two of it: of tasks on even and on odd routes.
    """
    import pandas as pd

    table = pd.DataFrame(rows)
    gone = ["truth", *(f"route_{share}" for share in GONE)]
    blended = ["truth", *(f"clutter_{share}" for share in BLENDS)]
    asked = [(metric, reader, table, f"{metric}_{reader}", gone, -1) for metric in ("mf", "route") for reader in READERS]
    halves = {"even": table[table["route"] % 2 == 0], "odd": table[table["route"] % 2 == 1]}
    asked += [("leak", f"{name} routes", half, "leak", blended, 1) for name, half in halves.items() if len(half)]
    return [{"item": item, "arm": metric, "seed": 0} | _order(part, column, arms, sign) for metric, item, part, column, arms, sign in asked]


def _order(table, column, arms, sign):
    first = table[table["target"] == "a"].pivot_table(index="task", columns="arm", values=column)
    first = first.reindex(columns=arms)
    means, steps = first.mean(), sign * first.diff(axis=1).iloc[:, 1:]
    found = {f"at_{k}": float(value) for k, value in enumerate(means)}
    right = steps.to_numpy()[np.isfinite(steps.to_numpy())] > 0
    return {"in_order": int((sign * np.diff(means) > 0).all()), "steps_in_order": float(right.mean()) if len(right) else np.nan} | found


def corner_doses(table):
    """Rows {item, kind, reader, dose, value} of corner rows, for drawing: kind is mf, route or leak, dose the per cent that is gone (or of
    the clutter that is there), 0 the true answer."""
    import pandas as pd

    table, parts = table[table["target"] == "a"], []
    for metric, prefix in (("mf", "route"), ("route", "route"), ("leak", "clutter")):
        mine = table[(table["arm"] == "truth") | table["arm"].str.startswith(f"{prefix}_")]
        dose = mine["arm"].str.extract(r"_(\d+)$")[0].astype(float).fillna(0)
        for reader in READERS if metric != "leak" else READERS[:1]:
            values = mine[f"{metric}_{reader}" if metric != "leak" else metric]
            parts.append(pd.DataFrame({"item": mine["item"], "kind": metric, "reader": reader, "dose": dose, "value": values}))
    return pd.concat(parts, ignore_index=True)


def all_seeds(table, ending: str = "_12"):
    """The table with the further seeds of an arm under its own name: arm det_12, seeds 1 and 2, is det too."""
    return table.assign(arm=table["arm"].str.removesuffix(ending))


def behind(table, arm: str, rivals: Sequence[str], columns: Sequence[str], paper: str = "") -> str:
    """In words: in how many of (rival, column) the rival lies below the arm by more than the paired 95 % interval, such as
    "11 of 15 comparisons are behind; not so: LoRA in temporal consistency".

    Args:
        columns: of which more is better. paper: whose arms.yaml names the rivals.
    """

    ahead, total, odd = 0, 0, []
    for rival in of_all(table, rivals):
        for column in columns:
            wide = table[table["arm"].isin([arm, rival])].pivot_table(index=["item", "seed"], columns="arm", values=column)
            gap = (wide[rival] - wide[arm]).groupby("item").mean().dropna() if {arm, rival} <= set(wide) else []
            total, below = total + 1, len(gap) and interval(gap)[2] < 0
            ahead += bool(below)
            odd += [] if below else [f"{look(rival, paper)[0]} in " + metric(column).label.replace("\n", " ")]
    return f"{ahead} of {total} comparisons are behind" + (f"; not so: {', '.join(odd)}" if odd else "")


def of_all(table, arms: Sequence[str]) -> list[str]:
    """Those of the named arms that the table has, in order: rounds of a sweep that were not run are left out, not an error."""
    there = set(table["arm"])
    return [arm for arm in arms if arm in there]


def paired(table, arms: Sequence[str]):
    """The table's rows of the named arms on the tasks that all of them have, seed 0: arms of twelve tasks beside arms of all."""
    chosen = table[table["arm"].isin(arms) & (table["seed"] == 0)]
    each = chosen.groupby("item")["arm"].nunique()
    return chosen[chosen["item"].isin(each.index[each == chosen["arm"].nunique()])]
