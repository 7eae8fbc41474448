"""Finished rows together: merged, summed up, and published as raw data."""
from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.protocol import protocol_version
from motionlab.core.files import read_json, shown, write_atomic, write_json
from motionlab.ledger.book import FIRST, csv_text
from motionlab.ledger.manifest import enter
from motionlab.runner.sweep.ablations import Sweep
from motionlab.runner.sweep.rows import Row, refuse_stale
from motionlab.runner.sweep.tables import in_order


def merged(rows: list[Row]):
    """The measured rows' CSVs as one sorted DataFrame of text; empty where none is measured."""
    import pandas

    rows = sorted((row for row in rows if row.measured), key=lambda row: (row.arm, row.seed))  # decides the order of columns
    tables = [pandas.read_csv(row.csv, dtype=str, keep_default_na=False) for row in rows]
    return in_order(pandas.concat(tables).fillna("")) if tables else pandas.DataFrame(columns=FIRST)


def summary(rows: list[Row]) -> str:
    """Arms x metrics as text: the mean over items and seeds of what is finished, undefined values left out."""
    import pandas

    frame = merged(rows)
    if frame.empty:
        return "no row is finished yet"
    means = frame.drop(columns=FIRST).apply(pandas.to_numeric, errors="coerce").dropna(axis=1, how="all").groupby(frame["arm"]).mean()
    means.insert(0, "seeds", frame.groupby("arm")["seed"].nunique())
    means.insert(1, "items", frame.groupby("arm")["item"].nunique())
    means = means.loc[[name for name in dict.fromkeys(row.arm for row in rows) if name in means.index]]
    means.index.name = None
    shown_as = means.T if means.shape[1] > 10 else means  # many metrics read better below each other
    return shown_as.to_string(float_format=lambda value: f"{value:.4g}", na_rep="-")


def check_publishable(tier: str, rows: list[Row], selected: Sequence[Row] = ()) -> None:
    """Refuse before hours are spent what `publish` would refuse after.

    Args:
        rows: all rows of the sweep. selected: those that are about to be measured.

    Raises:
        MotionLabError: tier smoke, or a stale row that is not measured again.
    """
    if tier == "smoke":
        raise MotionLabError("A smoke sweep is never evidence, so it cannot be published.", fix="Use --tier full.")
    refuse_stale([row for row in rows if row not in selected])


def publish(sweep: Sweep, rows: list[Row], say: Callable[[str], None] = print, name: str | None = None) -> Path:
    """Write all finished rows of the sweep as reproductions/<paper>/raw/sweep_<tier>.csv; return its path.

    The rows' records (settings, code, commit, seconds) go beside it as sweep_<tier>.json. In the place of "sweep" stands what the
    sweep `publishes`, and `name` where it is given.

    Raises:
        MotionLabError: tier smoke, a stale row, nothing finished, a protocol that is not in force yet, or published rows that would
            be lost.
    """
    tier, in_force = rows[0].tier, protocol_version(sweep.root)
    if in_force is not None and sweep.protocol > in_force:
        raise MotionLabError(f"These arms follow protocol {sweep.protocol}, but protocol.yaml is at version {in_force}.",
                             fix="Raise protocol.yaml, then measure them again: it decides their noise.")
    check_publishable(tier, rows)
    done = [row for row in rows if row.measured]
    if not done:
        raise MotionLabError("No row is finished, so there is nothing to publish.", fix="Run the sweep first.")
    path = sweep.root / "reproductions" / sweep.paper / "raw" / f"{name or sweep.publishes}_{tier}.csv"
    missing = [row.name for row in rows if row not in done]
    lost = sorted(set(missing) & _published(path))
    if lost:
        raise MotionLabError(f"{shown(path, sweep.root)} holds rows that are not finished here: {', '.join(lost)}.",
                             fix="Measure them here too, or take them out of the ablations.yaml: nothing is dropped silently.")
    if missing:
        say(f"  note: not finished, so not published: {', '.join(missing)}")
    records = sorted((read_json(row.record) for row in done), key=lambda record: (record["arm"], record["seed"]))
    if len({record["code"] for record in records}) > 1:
        commits = sorted({str(record["commit"])[:9] for record in records})
        say(f"  note: measured by different code, at commits {', '.join(commits)}")
    write_atomic(path, csv_text(merged(rows)))
    enter(sweep.root, [path, write_json(path.with_suffix(".json"), records)])
    return path


def _published(path: Path) -> set[str]:
    """Names of the rows in a published CSV."""
    if not path.is_file():
        return set()
    with open(path, newline="", encoding="utf-8") as file:
        return {f"{row['arm']}-{row['seed']}" for row in csv.DictReader(file)}
