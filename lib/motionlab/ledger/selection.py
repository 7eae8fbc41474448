"""Rates are chosen by a rule that code applies, on dev rows that are committed; `verify` applies it again.

`motionlab sweep PAPER --choose` measures every arm's grid on dev, commits the rows as raw/choose_full.csv, and writes
chosen.yaml beside them: per arm the chosen values, and the table that they follow from. Arms say `lr: chosen`.
"""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, located, one_of
from motionlab.core.files import shown, write_atomic
from motionlab.core.protocol import RULED
from motionlab.core.yamls import read_yaml
from motionlab.ledger.detectable import item_means, rounded
from motionlab.ledger.soundness import MOTION, READERS
from motionlab.ledger.verdict import Table, read_raw

RAW, FILE, MARGIN = "choose_full.csv", "chosen.yaml", 0.05
RULE = (f"lowest mean of {' and '.join(READERS)} on dev among the points whose {MOTION} is at most {MARGIN} below the comparator's, "
        "paired by prompt; ties to the smaller rate. Where no point keeps the motion: the one that loses least of it")
BY = {"less": "lowest mean of {by} on dev; ties to the smaller rate", "more": "highest mean of {by} on dev; ties to the smaller rate"}


@dataclass(frozen=True)
class Point:
    """One point of an arm's grid. row: its arm in the raw file. value: what is compared, of structure the mean of both readers.
    motion: paired difference of move_ok to the comparator's chosen point (the comparator's own: to its point that moves best), None
    where another column than structure is compared. n: units."""

    arm: str
    row: str
    values: dict[str, float]
    value: float | None = None
    motion: float | None = None
    n: int = 0

    @property
    def keeps_motion(self) -> bool:
        return self.motion is None or self.motion >= -MARGIN - 1e-9


@dataclass(frozen=True)
class Chosen:
    """chosen.yaml. arms: {arm: values}; lost: arms that keep the motion at no point; table: all points, arm by arm in the order of
    their rates. by, better: the column that was compared, and which way; "" for structure beside motion that is not lost."""

    comparator: str
    rule: str
    arms: dict[str, dict[str, float]]
    table: tuple[Point, ...]
    lost: tuple[str, ...] = ()
    by: str = ""
    better: str = "less"


def choose(rows: Table, grid: Iterable[Point], comparator: str, by: str = "", better: str = "less") -> Chosen:
    """Apply the rule.

    Args:
        rows: of dev, a column `move_ok` and the readers', or the column `by`. grid: points of all arms, those of an arm in the order
            of their rates. by: compare the mean of this column instead, of which `better` ("less" or "more") is wanted.

    Raises:
        MotionLabError: the comparator has no points, a point has no rows.
    """
    points: dict[str, list[Point]] = {}
    for point in sorted(grid, key=lambda point: tuple(point.values.values())):
        points.setdefault(point.arm, []).append(point)
    measured = _by_column(points, rows, by) if by else _by_structure(points, rows, comparator)
    best = {arm: chosen_of(own, better) for arm, own in measured.items()}
    return Chosen(comparator, BY[better].format(by=by) if by else RULE, {arm: point.values for arm, point in best.items()},
                  tuple(p for own in measured.values() for p in own), tuple(arm for arm, point in best.items() if not point.keeps_motion),
                  by, better)


def _by_column(points, rows, column):
    """Points with the mean of a column, {arm: points}."""
    means = {point.row: item_means(rows, column, point.row, {}) for own in points.values() for point in own}
    return {arm: [dataclasses.replace(point, value=rounded(float(means[point.row].mean())), n=len(means[point.row])) for point in own]
            for arm, own in points.items()}


def _by_structure(points, rows, comparator):
    """Points with structure and what they lose of the comparator's motion, {arm: points}."""
    one_of(comparator, points, "comparator of the choice")
    best_moving = max(points[comparator], key=lambda point: item_means(rows, MOTION, point.row, {}).mean())
    measured = {comparator: [scored(point, rows, best_moving.row) for point in points[comparator]]}
    reference = chosen_of(measured[comparator])
    return measured | {arm: [scored(point, rows, reference.row) for point in own] for arm, own in points.items() if arm != comparator}


def scored(point: Point, rows: Table, reference: str) -> Point:
    """A point with what its rows say, in four digits: what a table shows is what was compared."""
    values = [item_means(rows, reader, point.row, {}) for reader in READERS]
    motion = item_means(rows, MOTION, point.row, {}, minus=reference)
    structure = sum(float(one.mean()) for one in values) / len(values)
    return Point(point.arm, point.row, point.values, rounded(structure), rounded(float(motion.mean())), len(motion))


def chosen_of(points: list[Point], better: str = "less") -> Point:
    """The rule, among the points of one arm in the order of their rates (`min` and `max` take the first of equals)."""
    keeping, sign = [point for point in points if point.keeps_motion], 1 if better == "less" else -1
    return min(keeping, key=lambda point: sign * point.value) if keeping else max(points, key=lambda point: point.motion)


# ------------------------------------------------------------------------------------------------------------- the file


def read_chosen(folder: Path) -> Chosen | None:
    """A paper's chosen.yaml; None where nothing was chosen yet."""
    path = folder / FILE
    if not path.is_file():
        return None
    with located(shown(path)):
        return from_values(Chosen, read_yaml(path), "file")


def write_chosen(chosen: Chosen, folder: Path) -> Path:
    """Write a paper's chosen.yaml."""
    import yaml

    def line(values: Any) -> str:
        return yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=10_000).strip()

    lines = ["# Written by `motionlab sweep PAPER --choose`, never by hand; `motionlab verify` chooses again from the committed dev rows.",
             f"comparator: {chosen.comparator}", f"by: {line(chosen.by)}", f"better: {chosen.better}", f'rule: "{chosen.rule}"', "arms:",
             *(f"  {arm}: {line(values)}" for arm, values in chosen.arms.items()), f"lost: {line(list(chosen.lost))}", "table:",
             *(f"  - {line(vars(point))}" for point in chosen.table)]
    return write_atomic(folder / FILE, "\n".join(lines) + "\n")


def sweep_problems(folder: Path) -> list[str]:
    """All that protocol 7 asks of a paper's published sweeps: the choice follows from its rows, arms from the choice, budgets are equal."""
    try:
        return chosen_problems(folder) + budget_problems(folder) + rate_problems(folder)
    except MotionLabError as error:
        return [str(error)]


def chosen_problems(folder: Path) -> list[str]:
    """Does a paper's chosen.yaml follow from its committed dev rows?"""
    try:
        chosen = read_chosen(folder)
        if chosen is None or _again(chosen, folder) == chosen:
            return []
    except MotionLabError as error:
        return [str(error)]
    return [f"{shown(folder / FILE)} is not what the rule chooses from raw/{RAW}; run `motionlab sweep {folder.name} --choose`."]


def _again(chosen, folder):
    return choose(read_raw(folder / "raw" / RAW), chosen.table, chosen.comparator, chosen.by, chosen.better)


# -------------------------------------------------------------------------------------------------------------- budgets


def budget_of(train: Mapping[str, Any]) -> dict[str, int]:
    """Of a training: clips seen in total and of how many, or steps on one clip; 0 for the protocol's."""
    return {name: train[name] for name in ("clip_steps", "clips", "steps") if train.get(name)}


def check_budgets(trained: Mapping[str, tuple[Mapping[str, Any], str | None]]) -> None:
    """Refuse arms that were given more or less than the others.

    Args:
        trained: {arm: (its `train`, why its budget may be another, or None)}.

    Raises:
        MotionLabError: naming the arm, its budget and the usual one.
    """
    equal = [(arm, budget_of(train)) for arm, (train, unequal) in trained.items() if not unequal]
    for arm, budget in equal:
        if budget != equal[0][1]:
            (first, usual), said = equal[0], "that the protocol says"
            raise MotionLabError(f"arm '{arm}' has the budget {budget or said}, and arm '{first}' {usual or said}: budgets are equal.",
                                 fix="Give it the same, or say in the arm why it may differ: unequal: \"...\"")


def rate_problems(folder: Path) -> list[str]:
    """Were the arms of a published sweep trained with what was chosen for them?"""
    chosen, found = read_chosen(folder), []
    for path in sorted(set((folder / "raw").glob("*.json")) - {(folder / "raw" / RAW).with_suffix(".json")}):
        for one in ruled_settings(path):
            rates = {field: (chosen.arms if chosen else {}).get(owner, {}).get(field) for field, owner in one.get("rates", {}).items()}
            given = (one.get("arm sample") or {}) | one["arm train"]
            wrong = [field for field, value in rates.items() if value != given.get(field)]
            if wrong or not rates:
                what = f"{wrong[0]} {given.get(wrong[0])}, chosen was {rates[wrong[0]]}" if wrong else "rates that nobody chose"
                found.append(f"{shown(path)}: arm '{one['arm name']}' was made with {what}; choose, and measure it again.")
    return found


def ruled_settings(path: Path) -> list[dict]:
    """Settings of the trained rows of a published sweep that follow protocol 7 or later.

    Raises:
        MotionLabError: the file is no list of records.
    """
    try:
        settings = [record["settings"] for record in json.loads(path.read_text(encoding="utf-8"))]
        return [one for one in settings if one.get("protocol", 0) >= RULED and "arm train" in one]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MotionLabError(f"{shown(path)} is no list of rows' records.", fix="Restore it with git.") from error


def budget_problems(folder: Path) -> list[str]:
    """Were all arms of a published sweep given the same budget?"""
    found = []
    for path in sorted((folder / "raw").glob("*.json")):
        try:
            check_budgets({one["arm name"]: (one["arm train"], one.get("unequal")) for one in ruled_settings(path)})
        except MotionLabError as error:
            found.append(f"{shown(path)}: {error}")
    return found
