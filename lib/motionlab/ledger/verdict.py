"""From raw per-item numbers to holds, fails or inconclusive, by pure functions of arrays and a criterion.

A single test gives a percentile bootstrap interval (95 %, 10 000 resamples over items, `numpy.random.default_rng(0)`)
and compares it with `within`: inside holds, disjoint fails, anything else is inconclusive. Values of several seeds of
an item are averaged first; with two seeds or more, `holds` also asks that every seed's own estimate lies within. Rows
whose metric is not a finite number are dropped and counted; when more than half are, or fewer than two items remain,
the test is inconclusive.
"""
from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError, located, nearest
from motionlab.ledger.criteria import Combined, Criterion
from motionlab.core.files import shown
from motionlab.core.stats import bootstrap_interval, estimate, lead_of_least, lead_of_most, ratio

ASKED = ("raw", "metric", "arm", "minus", "over", "against", "statistic", "where", "within", "minus_best")  # in a record's order
Table = dict[str, np.ndarray]  # column -> array of text, all of one length


# ------------------------------------------------------------------------------------------------------------ intervals


def compare(interval: tuple[float, float], within: tuple[float | None, float | None]) -> str:
    """An interval inside the bounds (None: unbounded) holds, a disjoint one fails, any other is inconclusive."""
    low, high = bounds(within)
    if low <= interval[0] and interval[1] <= high:
        return "holds"
    return "fails" if interval[1] < low or high < interval[0] else "inconclusive"


def bounds(within: tuple[float | None, float | None]) -> tuple[float, float]:
    """`within` with infinities for None."""
    return (-np.inf if within[0] is None else within[0], np.inf if within[1] is None else within[1])


def combine(how: str, verdicts: list[str]) -> str:
    """One of several: "all" holds if all hold and fails if any fails; "any" is its mirror; "agree" is what all say; or inconclusive."""
    if how == "agree":
        return verdicts[0] if len(set(verdicts)) == 1 else "inconclusive"
    wins, loses = ("holds", "fails") if how == "any" else ("fails", "holds")
    if wins in verdicts:
        return wins
    return loses if all(verdict == loses for verdict in verdicts) else "inconclusive"


# ------------------------------------------------------------------------------------------------------------- raw data


def read_raw(path: str | Path) -> Table:
    """Read a raw CSV: {column: array of text}. Needs the columns item, arm and seed, and full rows.

    Raises:
        MotionLabError: missing file or column, ragged rows, no rows.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError as error:
        raise MotionLabError(f"The raw file {shown(path)} is missing.", fix="Run its notebook, or restore it with git.") from error
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise MotionLabError(f"The raw file {shown(path)} is no readable CSV: {error}.") from error
    missing = [column for column in ("item", "arm", "seed") if column not in header]
    if missing:
        raise MotionLabError(f"{shown(path)} lacks the column '{missing[0]}'.",
                             fix="A raw CSV has the columns item, arm, seed and its metrics.")
    ragged = [number for number, row in enumerate(rows, start=2) if len(row) != len(header)]
    if ragged or not rows:
        what = f"line {ragged[0]} has another number of cells than the header" if ragged else "there are no rows"
        raise MotionLabError(f"{shown(path)}: {what}.", fix="Raw files are written by book.raw(); restore it with git or run again.")
    return dict(zip(header, np.array(rows, dtype=str).T))


def file_sha(path: str | Path) -> str:
    """sha256 (hex) of a file; of text files (.csv) with Unix newlines, so that a checkout on Windows agrees."""
    data = Path(path).read_bytes()
    return hashlib.sha256(data.replace(b"\r\n", b"\n") if Path(path).suffix == ".csv" else data).hexdigest()


def numbers(table: Table, column: str) -> np.ndarray:
    """A column as floats (rows,): "" and nan are NaN, True/False are 1/0.

    Raises:
        MotionLabError: unknown column, or a cell that is no number.
    """
    cells = table[known(column, table, "metric")]
    plain = np.where(cells == "", "nan", np.where(cells == "True", "1", np.where(cells == "False", "0", cells)))
    try:
        return plain.astype(float)
    except ValueError as error:
        raise MotionLabError(f"Column '{column}' holds a cell that is no number: {error}.") from error


def known(name: str, options, kind: str) -> str:
    """`name` when the raw data has it.

    Raises:
        MotionLabError: it has not; the nearest is named.
    """
    options = [str(option) for option in options]
    if name in options:
        return name
    raise MotionLabError(f"The raw data has no {kind} '{name}'.{nearest(name, options)}", fix=f"It has: {', '.join(sorted(options))}.")


def rows_of(table: Table, arm: str, where: dict) -> np.ndarray:
    """Indices of the rows of one arm that pass the row filter {column: value or list of values}.

    Raises:
        MotionLabError: unknown arm or column, or no row left.
    """
    chosen = table["arm"] == known(arm, np.unique(table["arm"]), "arm")
    for column, value in where.items():
        wanted = value if isinstance(value, list) else [value]
        cells = table[known(column, table, "column")]
        chosen &= np.array([any(same(cell, one) for one in wanted) for cell in cells])
    if not chosen.any():
        raise MotionLabError(f"No row of arm '{arm}' passes the filter {where}.", fix="Mend `where` in the criterion, or the raw "
                             "data; a parameter that was changed (-p) may have left these rows out.")
    return np.flatnonzero(chosen)


def same(cell: str, value) -> bool:
    """Does a CSV cell mean this YAML value? Numbers compare as numbers."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(cell) == float(value)
        except ValueError:
            return False
    return cell == str(value)


# ------------------------------------------------------------------------------------------------------------- verdicts


def arm_values(table: Table, arm: str, criterion: Criterion) -> dict[tuple[str, str], float]:
    """{(item, seed): value} of one arm: metric, minus the `against` column where asked; as 0/1 for share_true.

    Raises:
        MotionLabError: unknown arm or column, or two rows for one item and seed.
    """
    index = rows_of(table, arm, criterion.where)
    values = table_values(table, criterion.metric, criterion.statistic)[index]
    if criterion.against is not None:
        values = values - table_values(table, criterion.against, criterion.statistic)[index]
    keys = list(zip(table["item"][index].tolist(), table["seed"][index].tolist()))
    found = dict(zip(keys, values.tolist()))
    if len(found) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise MotionLabError(f"Arm '{arm}' has more than one row for item '{twice[0]}', seed {twice[1]}.",
                             fix="Add `where: {column: value}` to the criterion, so that one row per item and seed is left.")
    return found


def table_values(table: Table, column: str, statistic: str) -> np.ndarray:
    """A metric column (rows,) with everything that is not finite as NaN; 0/1 for share_true."""
    values = numbers(table, column)
    values = np.where(np.isfinite(values), values, np.nan)
    return np.where(np.isnan(values), np.nan, values != 0) if statistic == "share_true" else values


def per_item(table: Table, criterion: Criterion) -> tuple[np.ndarray, list[str]]:
    """Values (items, seeds), NaN where undefined, and the seeds' names; items sorted, so that row order plays no role.

    With `minus`, a value is the difference to the other arm's row of the same item and seed (of its only seed, where it
    has just one); a row without a partner is undefined. With `over`, values are pairs (items, seeds, 2), with `minus_best` rows
    (items, seeds, 1 + arms).
    """
    values, absent = arm_values(table, criterion.arm, criterion), np.inf
    if criterion.minus is not None:
        pairs = with_partner(values, table, criterion.minus, criterion)
        values = {key: value - other for key, (value, other) in pairs.items()}
    if criterion.over is not None:
        values, absent = with_partner(values, table, criterion.over, criterion), (np.inf, np.inf)
    if criterion.minus_best:
        pairs = [with_partner(values, table, arm, criterion) for arm in criterion.minus_best]
        values = {key: (value, *(other[key][1] for other in pairs)) for key, value in values.items()}
        absent = (np.inf,) * (1 + len(pairs))
    items, seeds = (sorted({key[axis] for key in values}) for axis in (0, 1))
    grid = [[values.get((item, seed), absent) for seed in seeds] for item in items]  # inf: there is no such row
    return np.array(grid), seeds


def with_partner(values: dict, table: Table, arm: str, criterion: Criterion) -> dict[tuple[str, str], tuple[float, float]]:
    """Each value beside the other arm's of the same item and seed (of its only seed, where it has just one)."""
    other = arm_values(table, arm, criterion)
    only = {seed for _, seed in other}
    single = only.pop() if len(only) == 1 else None
    return {(item, seed): (value, other.get((item, seed if single is None else single), np.nan))
            for (item, seed), value in values.items()}


def judge_values(grid: np.ndarray, criterion: Criterion) -> dict:
    """Judge values (items, seeds[, k]): estimate, ci95, n, n_undefined, each seed's estimate, verdict and its reason.

    NaN is an undefined value (a row of k with one NaN is undefined); +inf marks an (item, seed) that was never run.
    """
    pairs = grid if grid.ndim == 3 else grid[..., None]
    undefined, run = np.isnan(pairs).any(axis=-1), ~np.isinf(pairs).any(axis=-1)
    n_undefined, n_rows = int(undefined.sum()), int(run.sum())
    good = run & ~undefined
    pairs = np.where(good[..., None], pairs, np.nan)
    defined = pairs[good.any(axis=1)]
    items = np.nanmean(defined, axis=1) if len(defined) else np.empty((0, pairs.shape[-1]))
    columns = [pairs[good[:, k], k] for k in range(pairs.shape[1])]
    if grid.ndim == 2:
        items, columns = items[:, 0], [column[:, 0] for column in columns]
    reduce = reduction(criterion)
    by_seed = [estimate(column, criterion.statistic, reduce) if len(column) else None for column in columns]
    found = {"estimate": None, "ci95": [None, None], "n": len(items), "n_undefined": n_undefined}
    if len(items):
        interval = bootstrap_interval(items, criterion.statistic, reduce=reduce)
        found |= {"estimate": estimate(items, criterion.statistic, reduce), "ci95": list(interval)}
    verdict, reason = decide(found, by_seed, n_rows, criterion)
    return found | {"by_seed": by_seed, "verdict": verdict, "reason": reason}


def reduction(criterion: Criterion) -> Callable:
    """How several arms' statistics become one number."""
    if not criterion.minus_best:
        return ratio
    return lead_of_most if criterion.within[1] is None else lead_of_least


def decide(found: dict, by_seed: list[float | None], n_rows: int, criterion: Criterion) -> tuple[str, str | None]:
    """The verdict of one test, and why it is inconclusive where the interval alone does not say so."""
    if found["n"] < 2:
        return "inconclusive", "fewer than two items have a value"
    if found["n_undefined"] > n_rows / 2:
        return "inconclusive", f"{found['n_undefined']} of {n_rows} values are undefined"
    verdict = compare(found["ci95"], criterion.within)
    low, high = bounds(criterion.within)
    agree = all(value is not None and low <= value <= high for value in by_seed)
    if verdict == "holds" and len(by_seed) > 1 and not agree:
        return "inconclusive", "the seeds do not agree"
    return verdict, None


def judge_leaf(criterion: Criterion, table: Table) -> dict:
    """One part of a record: what was tested, what came out, and its verdict."""
    grid, seeds = per_item(table, criterion)
    result = judge_values(grid, criterion)
    result["by_seed"] = dict(zip(seeds, result["by_seed"]))
    asked = {name: getattr(criterion, name) for name in ASKED}
    return asked | {"where": dict(criterion.where), "within": list(criterion.within), "minus_best": list(criterion.minus_best)} | result


def judge(criterion: Criterion | Combined, load: Callable[[str], Table]) -> tuple[str, list[dict]]:
    """The verdict of a criterion, and its parts in the order written.

    Args:
        load: gives the table of a raw file's name.

    Raises:
        MotionLabError: the raw data lacks a file, column, arm or row that the criterion names.
    """
    if isinstance(criterion, Criterion):
        with located(criterion.raw):
            part = judge_leaf(criterion, load(criterion.raw))
        return part["verdict"], [part]
    verdicts, parts = zip(*(judge(part, load) for part in criterion.parts))
    return combine(criterion.how, list(verdicts)), [part for group in parts for part in group]


# ---------------------------------------------------------------------------------------------------------------- words


def number(value: float | None, signed: bool = False) -> str:
    """A number for people: three significant digits, whole numbers above a thousand, a sign where asked for."""
    if value is None:
        return "undefined"
    if value == 0:
        return "0"
    sign = "+" if signed else ""
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.3g}"


def wanted(within: list | tuple) -> str:
    """ "≥ 0.05", "≤ 2" or "0.9 to 1.1"."""
    low, high = within
    if high is None:
        return f"≥ {number(low)}"
    return f"≤ {number(high)}" if low is None else f"{number(low)} to {number(high)}"


def measured_text(part: dict) -> str:
    """ "+0.123 [0.10, 0.15]" of one part of a record."""
    signed = bool(part["minus"] or part["against"] or part.get("minus_best"))
    if part["estimate"] is None:
        return "undefined"
    return f"{number(part['estimate'], signed)} [{number(part['ci95'][0])}, {number(part['ci95'][1])}]"


def part_text(part: dict) -> str:
    """ "+0.123 [0.10, 0.15]  wanted ≥ 0.05  (n=200)", with the undefined ones and the reason where there are any."""
    undefined = f", {part['n_undefined']} undefined" if part["n_undefined"] else ""
    reason = f"  because {part['reason']}" if part.get("reason") else ""
    return f"{measured_text(part)}  wanted {wanted(part['within'])}  (n={part['n']}{undefined}){reason}"


def name_of(part: dict) -> str:
    """ "median of mf_paper: reversed - identity (kind=turn)": what one part tested."""
    share = {"median": "median of ", "share_true": "share of "}.get(part["statistic"], "")
    metric = f"{part['metric']} - {part['against']}" if part["against"] else part["metric"]
    arm = f"{part['arm']} - {part['minus']}" if part["minus"] else part["arm"]
    arm = f"{arm} over {part['over']}" if part.get("over") else arm
    arm = f"{arm} - best of {', '.join(part['minus_best'])}" if part.get("minus_best") else arm
    where = f" ({', '.join(f'{key}={value}' for key, value in part['where'].items())})" if part["where"] else ""
    return f"{share}{metric}: {arm}{where}"


def record_text(claim_id: str, record: dict) -> str:
    """The one line of a judged claim; a combined criterion shows its parts below it."""
    parts = record["parts"]
    if len(parts) == 1:
        return f"{claim_id}  {record['verdict']}  {part_text(parts[0])}"
    lines = [f"{claim_id}  {record['verdict']}" + (f"  {record['reason']}" if record.get("reason") else "")]
    return "\n".join(lines + [f"    {part['verdict']:<12}  {name_of(part)}  {part_text(part)}" for part in parts])
