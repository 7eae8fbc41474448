"""`motionlab sweep PAPER --choose`: every arm's grid of rates measured on dev, the rule applied, the choice committed."""
from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.ledger.manifest import enter
from motionlab.ledger.selection import RAW, Chosen, Point, choose, write_chosen
from motionlab.ledger.verdict import read_raw
from motionlab.runner.sweep.ablations import CHOSEN, Sweep, label, parts_of, tuned_as, with_values
from motionlab.runner.sweep.publish import publish
from motionlab.runner.sweep.rows import Row

DEV = "dev."  # begins the names of a grid's rows: they lie beside those that judge


def grids(sweep: Sweep) -> tuple[Sweep, list[Point]]:
    """The sweep of all arms' grids on dev, and their points.

    Raises:
        MotionLabError: a file that is not the paper's ablations.yaml, or says no grid; an arm that takes one rate from its own grid
            and another from an arm's.
    """
    if sweep.choose is None or sweep.path.stem != "ablations":
        raise MotionLabError(f"{sweep.path.name} has nothing to choose.",
                             fix="In the paper's ablations.yaml, write protocol: 7, choose: {grid: {lr: [...]}}, and lr: chosen in arms.")
    written = read_written_arms(sweep)
    found = [(point, arm) for name, arm in written.items() for point, arm in points(name, arm, written, sweep.choose)]
    arms = {point.row: arm for point, arm in found}
    seeds = {name: sweep.choose.seeds for name in arms}
    unequal = {point.row: sweep.unequal[point.arm] for point, _ in found if point.arm in sweep.unequal}
    return dataclasses.replace(sweep, arms=arms, seeds=seeds, unequal=unequal, rates={}), [point for point, _ in found]


def read_written_arms(sweep: Sweep) -> dict[str, dict]:
    """The arms with `chosen` still in the place of what an earlier choice put there."""
    return {name: {**arm, **sweep.written[name]} for name, arm in sweep.arms.items()}


def points(name: str, arm: dict, arms: dict[str, dict], how) -> Iterator[tuple[Point, dict]]:
    """(point, arm on dev) for each point of one arm's grid; none where it shares another's training, or another's choice."""
    words = {field: value for fields in parts_of(arm).values() for field, value in fields.items()}
    own = [field for field, value in words.items() if value == CHOSEN]
    if not own or tuned_as(arm, arms) != name:
        return
    borrowed = [field for field, value in words.items() if isinstance(value, str) and value.startswith(f"{CHOSEN}@")]
    if borrowed:
        raise MotionLabError(f"Arm '{name}' takes {own[0]} from its own grid and {borrowed[0]} from another arm's.",
                             fix="Write one or the other.")
    for values in itertools.product(*(how.grid[field] for field in own)):
        point = dict(zip(own, map(float, values)))
        row = f"{DEV}{name.replace('@', '.')}@{','.join(f'{field}={label(value)}' for field, value in point.items())}"
        measure = {**(arm.get("measure") or {}), **how.measure}
        yield Point(name, row, point), {**with_values(arm, point), "name": row, "measure": measure}


def settle(sweep: Sweep, rows: list[Row], grid: list[Point], say: Callable[[str], None] = print) -> Path:
    """Commit the dev rows, apply the rule, and write chosen.yaml; return its path. Of a smoke sweep nothing is chosen.

    Raises:
        MotionLabError: rows that are not finished, tier smoke.
    """
    missing = [row.name for row in rows if not row.measured]
    if missing:
        raise MotionLabError(f"These points are not finished: {', '.join(missing)}.", fix="The same command goes on with them.")
    folder = publish(sweep, rows, say, name=RAW.rpartition("_")[0]).parent.parent
    chosen = choose(read_raw(folder / "raw" / RAW), grid, sweep.choose.comparator, sweep.choose.by, sweep.choose.better)
    say(told(chosen))
    path = write_chosen(chosen, folder)
    enter(sweep.root, [path])
    return path


def told(chosen: Chosen) -> str:
    """The table of a choice for people."""
    lines = []
    for point in chosen.table:
        mark = "chosen" if chosen.arms[point.arm] == point.values else ""
        values = ", ".join(f"{field} {label(value)}" for field, value in point.values.items())
        moved = "" if point.motion is None else f"  move_ok {point.motion:+.3f}"
        lines.append(f"  {point.arm:<24} {values:<24} {chosen.by or 'structure'} {point.value:.4f}{moved}   n = {point.n}  {mark}")
    lost = [f"  {arm}: no point keeps the motion; the one that loses least of it was taken" for arm in chosen.lost]
    return "\n".join(lines + lost)
