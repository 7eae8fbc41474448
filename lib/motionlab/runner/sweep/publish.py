"""Finished rows together: merged, summed up, and published as raw data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.files import shown, write_atomic
from motionlab.runner.runs import read_json
from motionlab.runner.sweep.ablations import Sweep
from motionlab.runner.sweep.rows import Row, refuse_stale
from motionlab.runner.sweep.tables import LONG, WIDE, in_order


def finished_rows(rows: list[Row]) -> list[Row]:
    """Those whose numbers count."""
    return [row for row in rows if row.state()[0] in ("finished", "other code")]


def merged(rows: list[Row]):
    """The finished rows' CSVs as one sorted DataFrame of text; empty where none is finished.

    Raises:
        MotionLabError: rows of both forms.
    """
    import pandas

    rows = sorted(finished_rows(rows), key=lambda row: (row.arm, row.seed))  # decides the order of further columns
    tables = [pandas.read_csv(row.csv, dtype=str, keep_default_na=False) for row in rows]
    if not tables:
        return pandas.DataFrame(columns=LONG)
    if len({"item" in table.columns for table in tables}) > 1:
        raise MotionLabError("Some rows have a column per metric, some a line per metric.", fix="Measure with --redo.")
    return in_order(pandas.concat(tables).fillna(""))


def summary(rows: list[Row]) -> str:
    """Arms x metrics as text: the mean over units and seeds of what is finished, undefined values left out."""
    import pandas

    frame = merged(rows)
    if frame.empty:
        return "no row is finished yet"
    if "item" in frame.columns:
        means = frame.drop(columns=WIDE).apply(pandas.to_numeric, errors="coerce").dropna(axis=1, how="all")
        means = means.groupby(frame["arm"]).mean()
        extra = []
    else:
        frame["value"] = pandas.to_numeric(frame["value"])
        means = frame.pivot_table(index="arm", columns="metric", values="value", aggfunc="mean", dropna=False)
        extra = [column for column in frame.columns if column not in LONG]
    unit = "item" if "item" in frame.columns else "unit"
    means.insert(0, "seeds", frame.groupby("arm")["seed"].nunique())
    means.insert(1, f"{unit}s", frame.groupby("arm")[unit].nunique())
    means = means.loc[[name for name in dict.fromkeys(row.arm for row in rows) if name in means.index]]
    means.index.name = means.columns.name = None
    note = f"\n(means also run over: {', '.join(extra)})" if extra else ""
    shown_as = means.T if means.shape[1] > 10 else means  # many metrics read better below each other
    return shown_as.to_string(float_format=lambda value: f"{value:.4g}", na_rep="-") + note


def check_publishable(tier: str, rows: list[Row], selected: Sequence[Row] = ()) -> None:
    """Refuse before hours are spent what `publish` would refuse after.

    Args:
        rows: all rows of the sweep. selected: those that are about to be measured.

    Raises:
        MotionLabError: tier smoke, or a stale row that is not measured again.
    """
    if tier == "smoke":
        raise MotionLabError("A smoke sweep is never evidence, so it cannot be published.", fix="Use --tier full.")
    names = {row.name for row in selected}
    refuse_stale([row for row in rows if row.name not in names])


def publish(sweep: Sweep, rows: list[Row], say: Callable[[str], None] = print) -> Path:
    """Write all finished rows of the sweep as reproductions/<paper>/raw/sweep_<tier>.csv; return its path.

    The rows' records (settings, code, commit, seconds) go beside it as sweep_<tier>.json. Of a file other than
    ablations.yaml, its own name stands in the place of "sweep".

    Raises:
        MotionLabError: tier smoke, a stale row, nothing finished, or published rows that would be lost.
    """
    from motionlab.ledger.book import csv_text

    tier = rows[0].tier
    check_publishable(tier, rows)
    done = finished_rows(rows)
    if not done:
        raise MotionLabError("No row is finished, so there is nothing to publish.", fix="Run the sweep first.")
    name = "sweep" if sweep.path.stem == "ablations" else sweep.path.stem
    path = sweep.root / "reproductions" / sweep.paper / "raw" / f"{name}_{tier}.csv"
    missing = [row for row in rows if row not in done]
    lost = sorted({row.name for row in missing} & _published(path))
    if lost:
        raise MotionLabError(
            f"{shown(path, sweep.root)} holds rows that are not finished here: {', '.join(lost)}.",
            fix="Measure them here too, or take them out of the ablations.yaml: nothing is dropped silently.",
        )
    if missing:
        say(f"  note: not finished, so not published: {', '.join(row.name for row in missing)}")
    records = sorted((read_json(row.record) for row in done), key=lambda record: (record["arm"], record["seed"]))
    commits = {(record["code"], record["commit"]) for record in records}
    if len({code for code, _ in commits}) > 1:
        say(f"  note: measured by different code, at commits {', '.join(sorted(str(one)[:9] for _, one in commits))}")
    write_atomic(path, csv_text(merged(rows)))
    write_atomic(path.with_suffix(".json"), json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    return path


def _published(path: Path) -> set[str]:
    """Names of the rows in a published CSV."""
    import csv

    if not path.is_file():
        return set()
    with open(path, newline="", encoding="utf-8") as file:
        return {f"{row['arm']}-{row['seed']}" for row in csv.DictReader(file)}
