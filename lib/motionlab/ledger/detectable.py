"""What difference could the prompts show at all? A table in protocol.yaml, made from raw rows, that refuses criteria beyond it.

The entry `power` of protocol.yaml says which rows; `motionlab power` writes the entry `detectable` below it: for each metric and
category of motion, the spread of paired differences, the smallest difference that n prompts show with 80 % power, and the
values between which a metric can move at all (floor and ceiling: those of real clips after the codec, and 0 and 1 of shares).
"""
from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import numpy as np

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, located
from motionlab.core.files import shown, write_atomic
from motionlab.core.protocol import protocol_file, read_protocol
from motionlab.core.stats import detectable_difference
from motionlab.ledger.criteria import Criterion
from motionlab.ledger.verdict import Table, number, per_item, read_raw

BEGIN, END = "# detectable:begin", "# detectable:end"
ALL = "all"


@dataclass(frozen=True)
class Power:
    """Entry `power`. rows: a CSV below reproductions/; arm, minus: the contrast whose spread counts; floor: the arm of real clips
    after the codec; by: the column of categories; n: prompts; metrics: which way each is better; judges: the raw files whose
    criteria the table judges."""

    rows: str
    arm: str
    minus: str
    floor: str
    by: str
    n: tuple[int, ...]
    metrics: dict[str, Literal["less", "more", "neither"]]
    judges: str


@dataclass(frozen=True)
class Shown:
    """What one metric can show in one category. pairs: prompts behind it (seeds averaged); comparator: the mean of `minus`; floor,
    ceiling: the lowest and highest mean that can be reached (None: no bound); spread: standard deviation of the paired
    differences; shows: {n: smallest difference that n prompts show with 80 % power}."""

    pairs: int
    comparator: float
    spread: float
    shows: dict[int, float]
    floor: float | None = None
    ceiling: float | None = None


Detectable = dict[str, dict[str, Shown]]  # metric -> "all" or category -> Shown


# ---------------------------------------------------------------------------------------------------------- making it


def made(root: Path) -> Detectable:
    """The table as the raw rows give it now.

    Raises:
        MotionLabError: no entry `power`, a row file, arm or metric that is not there, fewer than three pairs.
    """
    power = read_power(root)
    table = read_raw(root / "reproductions" / power.rows)
    kinds = sorted(set(table[power.by][table["arm"] == power.minus].tolist()) - {""})
    with located(power.rows):
        return {metric: {kind: shown_by(table, power, metric, better, {} if kind == ALL else {power.by: kind}) for kind in (ALL, *kinds)}
                for metric, better in power.metrics.items()}


def read_power(root: Path) -> Power:
    """Entry `power` of protocol.yaml."""
    values = read_protocol(root).get("power")
    if values is None:
        raise MotionLabError("protocol.yaml has no entry 'power', which says from which rows power is computed.",
                             fix="Restore it with git: git checkout reproductions/protocol.yaml.")
    return from_values(Power, values, "entry power of protocol.yaml")


def shown_by(table: Table, power: Power, metric: str, better: str, where: dict) -> Shown:
    """One entry of the table: prompts of one category, or of all."""
    gaps = item_means(table, metric, power.arm, where, power.minus)
    comparator, real = item_means(table, metric, power.minus, where), item_means(table, metric, power.floor, where)
    if len(gaps) < 3:
        raise MotionLabError(f"There are {len(gaps)} pairs of {metric} {where or ''}.", fix="Measure at least three prompts in both arms.")
    share = set(np.unique(real)) <= {0.0, 1.0}      # and so for single clips of a seed
    floor, ceiling = (0.0, 1.0) if share else (None, None)
    best = float(real.mean())
    floor, ceiling = (best, ceiling) if better == "less" else (floor, best) if better == "more" else (floor, ceiling)
    spread = float(np.std(gaps, ddof=1))
    shows = {n: rounded(detectable_difference(spread, n)) for n in power.n}
    return Shown(len(gaps), rounded(comparator.mean()), rounded(spread), shows, rounded(floor), rounded(ceiling))


def item_means(table: Table, metric: str, arm: str, where: dict, minus: str | None = None) -> np.ndarray:
    """(items,) means over seeds of an arm, or of its paired difference to another; undefined ones left out."""
    grid, _ = per_item(table, Criterion("rows.csv", metric, arm, (0.0, None), minus=minus, where=where))
    grid = np.where(np.isfinite(grid), grid, np.nan)
    return np.nanmean(grid[~np.isnan(grid).all(axis=1)], axis=1)


def rounded(value: float | None) -> float | None:
    """Four significant digits: as many as a table can be read by, and far more than a spread is known to."""
    return None if value is None else float(f"{value:.4g}")


def text(table: Detectable) -> str:
    """The entry `detectable` as YAML, a line per metric and category."""
    def flow(values: dict) -> str:
        cells = {key: flow(value) if isinstance(value, dict) else "null" if value is None else value for key, value in values.items()}
        return f"{{{', '.join(f'{key}: {value}' for key, value in cells.items())}}}"

    lines = ["detectable:"]
    for metric, kinds in table.items():
        lines.append(f"  {metric}:")
        lines += [f"    {kind}: {flow(vars(one))}" for kind, one in kinds.items()]
    return "\n".join(lines)


def write(root: Path) -> bool:
    """Put the table as it is now between its markers in protocol.yaml; True when that changed the file.

    Raises:
        MotionLabError: the markers are missing, and as `made`.
    """
    path = protocol_file(root)
    old = path.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise MotionLabError(f"{shown(path, root)} has no place for the table.",
                             fix=f"Put the lines {BEGIN} and {END} below the entry `power`.")
    new = re.sub(rf"({BEGIN}[^\n]*\n).*?({END})", lambda found: f"{found[1]}{text(made(root))}\n{found[2]}", old, flags=re.DOTALL)
    if new != old:
        write_atomic(path, new)
    return new != old


# --------------------------------------------------------------------------------------------------- refusing criteria


def read(root: Path) -> tuple[Power, Detectable] | None:
    """The committed table with what it was made from; None where protocol.yaml has none."""
    values = read_protocol(root) if protocol_file(root).is_file() else {}
    if not values.get("detectable"):
        return None
    with located("reproductions/protocol.yaml"):
        return read_power(root), {metric: {kind: from_values(Shown, one, f"{kind} of {metric}") for kind, one in kinds.items()}
                                  for metric, kinds in values["detectable"].items()}


def check_leaf(leaf: Criterion, power: Power, table: Detectable) -> None:
    """Refuse a criterion that nothing could meet, or whose minimum effect its prompts do not show.

    Raises:
        MotionLabError: with the number that would do.
    """
    other = leaf.over or leaf.against or leaf.minus_best or leaf.statistic == "median"      # the table says nothing of these
    if other or not fnmatch(leaf.raw, power.judges) or leaf.metric not in table:
        return
    for kind, one in chosen(leaf, power, table[leaf.metric]).items():
        what = f"{leaf.metric} of {leaf.arm}{f' - {leaf.minus}' if leaf.minus else ''}{'' if kind == ALL else f', {kind}'}"
        if leaf.minus is None:
            check_between(leaf, one, what)
        else:
            check_head_room(leaf, one, what)
            check_seen(leaf, one, what, power.n[0])


def chosen(leaf: Criterion, power: Power, kinds: dict[str, Shown]) -> dict[str, Shown]:
    """The entries that a criterion's row filter means; of several categories, each must be able to show it."""
    asked = leaf.where.get(power.by, ALL)
    return {str(kind): kinds[str(kind)] for kind in (asked if isinstance(asked, list) else [asked]) if str(kind) in kinds}


def check_between(leaf: Criterion, one: Shown, what: str) -> None:
    """Refuse a level above the ceiling or below the floor."""
    low, high = leaf.within
    if low is not None and one.ceiling is not None and low > one.ceiling:
        raise MotionLabError(f"it asks {what} for at least {number(low)}, above its ceiling.",
                             fix=f"Ask for at most {number(one.ceiling)}.")
    if high is not None and one.floor is not None and high < one.floor:
        raise MotionLabError(f"it asks {what} for at most {number(high)}, below its floor.", fix=f"Ask for at least {number(one.floor)}.")


def check_head_room(leaf: Criterion, one: Shown, what: str) -> None:
    """Refuse a gain that is larger than what lies between comparator and floor or ceiling."""
    low, high = leaf.within
    for bound, end, way in ((low, one.ceiling, 1), (high, one.floor, -1)):
        if bound is None or end is None or bound * way <= 0:
            continue
        room = max(0.0, way * (end - one.comparator))
        if way * bound > room:
            raise MotionLabError(f"it asks {what} for {number(bound, True)}, where {number(one.comparator)} can move by {number(room)} "
                                 f"only (to {number(end)}).", fix=f"Ask for at most {number(room)}, or judge a metric with head-room.")


def check_seen(leaf: Criterion, one: Shown, what: str, usual: int) -> None:
    """Refuse a minimum effect, or a margin, below what the prompts show with 80 % power."""
    n, effect = leaf.n or usual, minimum_effect(leaf.within)
    least = detectable_difference(one.spread, n)
    if effect < least * 0.995:          # the table carries four digits
        enough = f", or n: {math.ceil(n * (least / effect) ** 2)}" if effect else ""
        raise MotionLabError(f"its minimum effect {number(effect)} in {what} is below {number(least)}, what {n} prompts show with "
                             "80 % power.", fix=f"Ask for at least {number(rounded_up(least))}{enough}.")


def minimum_effect(within: tuple[float | None, float | None]) -> float:
    """How far the nearest bound lies from no difference: the least effect worth naming, or a margin of equivalence."""
    return min(abs(bound) for bound in within if bound is not None)


def rounded_up(value: float) -> float:
    """Two significant digits, never less than the value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return math.ceil(value / step - 1e-9) * step
