"""What sweep rows are compared by beyond their own columns: failures counted, smoothness at equal speed, votes between two arms."""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.metrics.failures import DETECTORS, PERCENTILE
from motionlab.metrics.frechet import frechet
from motionlab.metrics.fvd import REDRAWS, fvd

QUESTIONS = ("text", "quality", "motion")


def flagged(table, floor: str = "reconstruction"):
    """The table with broken_<detector>, 1 where a clip's failure score lies above the 95th percentile of the arm `floor` (real
    clips after the codec), NaN where the detector does not apply; and broken, the share of those that do apply.

    Args:
        table: sweep rows as DataFrame, with failure_<detector> columns.

    Raises:
        MotionLabError: the floor has no rows.
    """
    clean = _rows_of(table, floor)
    out = {}
    for name in DETECTORS:
        values = table[f"failure_{name}"].to_numpy(dtype=float)
        known = clean[f"failure_{name}"].dropna()
        limit = np.percentile(known, PERCENTILE) if len(known) else np.nan
        out[f"broken_{name}"] = np.where(np.isnan(values) | np.isnan(limit), np.nan, values > limit)
    table = table.assign(**out)
    return table.assign(broken=table[list(out)].mean(axis=1))


def at_equal_speed(table, arms: list[str]):
    """The table with smoothness_matched: smoothness less what it owes to speed, by one line through all clips of `arms`.

    Smoothness of any clip falls with its speed; comparing two arms that move differently compares their speeds.

    Raises:
        MotionLabError: an arm has no rows.
    """
    import pandas as pd

    rows = pd.concat([_rows_of(table, arm) for arm in arms]).dropna(subset=["speed", "smoothness"])
    x = np.log1p(rows["speed"])
    slope, _ = np.polyfit(x, rows["smoothness"], 1) if x.std() > 1e-9 else (0.0, 0.0)
    return table.assign(smoothness_matched=table["smoothness"] - slope * (np.log1p(table["speed"]) - x.mean()))


def votes(table, arm: str, minus: str, name: str = "") -> list[dict]:
    """Two-alternative votes of the instruments, per prompt and seed: 1 for `arm`, 0 for `minus`, 0.5 for a tie.

    The stand-in for a study with raters. text: more of look and motion recognised as asked. quality: smaller structure error by
    both learned readers together (the palette reader judges nothing). motion: motion and heading recognised; where both or neither
    are, fewer failures.

    Args:
        table: rows of `flagged`. name: of the resulting arm; by default "<arm>_vs_<minus>".

    Returns:
        rows {item, arm, seed, text, quality, motion}; an arm with one seed stands against every seed of the other.

    Raises:
        MotionLabError: an arm has no rows.
    """
    only = table.loc[table["arm"] == minus, "seed"].unique()
    return [{"item": row["item"], "arm": name or f"{arm}_vs_{minus}", "seed": row["seed"]} | _vote(row, rival)
            for row, rival in _pairs(table, arm, minus, only[0] if len(only) == 1 else None)]


def gains(parts: dict, arm: str, minus: str, metrics) -> list[dict]:
    """Paired differences arm - minus per prompt and seed, rows {item, arm: part, seed, metrics}, for each part of the rows and for all.

    Args:
        parts: {name of the part: DataFrame of sweep rows}. Parts may overlap; "all" counts every prompt once.
    """
    out, seen = [], {}
    for name, table in parts.items():
        for row, rival in _pairs(table, arm, minus):
            gap = {"item": row["item"], "seed": row["seed"]} | {m: row[m] - rival[m] for m in metrics}
            out.append(gap | {"arm": name})
            seen[row["item"], row["seed"]] = gap
    return [row | {"arm": "all"} for row in seen.values()] + out


def _pairs(table, arm, minus, only=None):
    """(row of `arm`, row of `minus`) of the same item and seed; only: the one seed of `minus`, which stands against every other."""
    a, b = _rows_of(table, arm), _rows_of(table, minus)
    other = {(row["item"], row["seed"]): row for row in b.to_dict("records")}
    for row in a.to_dict("records"):
        rival = other.get((row["item"], row["seed"] if only is None else only))
        if rival is not None:
            yield row, rival


def frechet_to(table, arms: list[str], reference: str = "original") -> dict:
    """{arm: `metrics.frechet.Frechet`} of the clips of each arm to those of `reference`, from the fd_ columns of sweep rows (first seed).

    An arm is compared with the reference's clips of the same prompts, so that sets are equally large.

    Raises:
        MotionLabError: an arm has no rows.
    """
    columns = sorted(c for c in table.columns if c.startswith("fd_"))
    true = _rows_of(table, reference).drop_duplicates("item").set_index("item")[columns]
    out = {}
    for arm in arms:
        made = _rows_of(table, arm).drop_duplicates("item").set_index("item")[columns]
        out[arm] = frechet(made.to_numpy(), true.loc[true.index.intersection(made.index)].to_numpy())
    return out


def fvd_to_redraws(table, arms: list[str], redraws: str = "redraw") -> dict:
    """{arm: `metrics.fvd.Fvd`} of the clips of each arm (first seed), from the fd_ columns: the reference is the arm `redraws` but for its
    last seed, which is the floor.

    Raises:
        MotionLabError: an arm has no rows; fewer than two redraws; a redraw of other prompts.
    """
    columns = sorted(c for c in table.columns if c.startswith("fd_"))
    drawn = {seed: rows.set_index("item")[columns] for seed, rows in _rows_of(table, redraws).groupby("seed")}
    if len(drawn) < 2:
        raise MotionLabError(f"Arm '{redraws}' has {len(drawn)} seed.", fix=f"Draw {REDRAWS} for the reference and one more for the floor.")
    *reference, ninth = (drawn[seed] for seed in sorted(drawn))
    out = {}
    for arm in arms:
        made = _rows_of(table, arm).drop_duplicates("item").set_index("item")[columns]
        lacking = [item for item in made.index if any(item not in one.index for one in drawn.values())]
        if lacking:
            raise MotionLabError(f"Arm '{redraws}' has no redraw of {len(lacking)} prompts of '{arm}', first {lacking[0]}.",
                                 fix="Measure both on the same prompts.")
        stacked = np.stack([one.loc[made.index].to_numpy() for one in reference], 1)
        out[arm] = fvd(made.to_numpy(), stacked, ninth.loc[made.index].to_numpy())
    return out


def _vote(a, b):
    return {"text": _better(a["look_ok"] + a["move_ok"], b["look_ok"] + b["move_ok"]),
            "quality": _better(-_learned(a), -_learned(b)),
            "motion": _better((a["move_ok"], -a["broken"]), (b["move_ok"], -b["broken"]))}


def _learned(row):
    return (row["structure_0"] + row["structure_1"]) / 2


def _better(a, b):
    """1 where a wins, 0 where b does; tuples in the order of their entries, undefined entries tie."""
    for x, y in zip(np.atleast_1d(a), np.atleast_1d(b)):
        if np.isfinite(x) and np.isfinite(y) and x != y:
            return float(x > y)
    return 0.5


def _rows_of(table, arm):
    rows = table[table["arm"] == arm]
    if rows.empty:
        raise MotionLabError(f"There are no rows of arm '{arm}'.", fix=f"Arms: {', '.join(sorted(set(table['arm'])))}.")
    return rows
