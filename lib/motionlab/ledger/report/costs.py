"""What the data behind a verdict took, in sentences: the rows of a sweep, the notebook, the weights that were trained before.

The seconds of a record end where its notebook judged it, and a notebook that reads committed rows is done in seconds. What
those rows took stands beside them (`raw/<sweep>.json`), what the weights took in their model cards (`checkpoints/*.md`).
"""
from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError
from motionlab.core.files import parse_json
from motionlab.core.yamls import read_yaml
from motionlab.ledger.criteria import Claim
from motionlab.ledger.report.bands import is_finite
from motionlab.ledger.standings import Standing

WEIGHTS = re.compile(r"(?:data )?(reproductions/\S+/checkpoints/(\w+))\.safetensors")


def seconds_text(seconds: float | None) -> str:
    """A duration for people."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Row:
    """A row of a sweep (an arm and a seed): what it took, by which function at which commit, on which weights."""

    arm: str
    seconds: float
    resumed: bool
    function: str
    commit: str
    weights: tuple[str, ...]


class Costs:
    """What measurements took, read from the files beside the raw data; each file once."""

    def __init__(self, root: Path):
        self.root = root

    @functools.cache
    def rows(self, paper: str, raw: str) -> tuple[Row, ...]:
        """Rows of the sweep that a raw file of a paper is; none where it is no sweep's."""
        path = self.root / "reproductions" / paper / "raw" / f"{raw.removesuffix('.csv')}.json"
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ()
        return tuple(filter(None, map(read_row, data))) if isinstance(data, list) else ()

    @functools.cache
    def planned(self, paper: str, tier: str) -> dict:
        """{notebook: its measured minutes} of a tier, as reproductions/<paper>/params/<tier>.yaml has them."""
        try:
            stems = read_yaml(self.root / "reproductions" / paper / "params" / f"{tier}.yaml")
        except (MotionLabError, OSError):
            return {}
        entries = stems.items() if isinstance(stems, dict) else ()
        costs = {stem: values.get("_cost") for stem, values in entries if isinstance(values, dict)}
        return {stem: cost["minutes"] for stem, cost in costs.items() if isinstance(cost, dict) and is_finite(cost.get("minutes"))}

    def to_come(self, claim: Claim) -> str:
        """What measuring a claim would cost, as far as it is known."""
        if claim.not_run and claim.not_run.cost:
            return claim.not_run.cost
        known = {tier: self.planned(claim.paper, tier).get(claim.notebook) for tier in ("laptop", "full")}
        told = [f"{seconds_text(60 * minutes)} at tier {tier}" for tier, minutes in known.items() if minutes]
        return " or ".join(told) and f"about {' or '.join(told)}, beside what its sweeps take"

    @functools.cache
    def training_minutes(self, card: str) -> float:
        """Minutes in the table of a model card, given by its path without the ending; 0 where there is none."""
        path = self.root / f"{card}.md"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        cells = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in lines if line.startswith("|")]
        column = next((row.index("minutes") for row in cells if "minutes" in row), None)
        return sum(float(row[column]) for row in cells if column is not None and len(row) > column and re.fullmatch(r"[\d.]+", row[column]))

    def sentences(self, row: Standing, result: dict | None) -> list[str]:
        """What the record behind a claim took. result: the notebook run that it comes from, where that is known."""
        record = row.record or row.yours
        own = {raw: rows for raw in record["raw"] if (rows := self.rows(row.claim.paper, raw))}
        read = {one["file"] for one in (result or {}).get("raw", [])} - set(own)
        also = {raw: rows for raw in sorted(read) if (rows := self.rows(row.claim.paper, raw))}
        seconds = (result or record).get("seconds")
        found = [compared(raw, rows, record["parts"]) for raw, rows in own.items()]
        found.append(f"The notebook that judged it took {seconds_text(seconds)} on {record['device']}"
                     + ("." if own else ", which is where its numbers were measured." if not also else "."))
        found += [f"The same notebook reads the {len(rows)} committed rows of {raw}, which took {total(rows)}."
                  for raw, rows in also.items()]
        return found + self.weights_sentence([one for rows in own.values() for one in rows])

    def weights_sentence(self, rows: list[Row]) -> list[str]:
        """What had been trained before those rows began."""
        minutes = {card.rpartition("/")[2]: self.training_minutes(card) for row in rows for card in row.weights}
        longest = sorted(((took, name.replace("_", " ")) for name, took in minutes.items() if took), reverse=True)
        told = [f"{name} {seconds_text(60 * took)}" for took, name in longest]
        return [f"Before that, the shipped weights it starts from were trained: {', '.join(told)}."] if told else []


def read_row(data: Any) -> Row | None:
    """A row of a sweep's file; None where it is none."""
    if not isinstance(data, dict) or not isinstance(data.get("arm"), str) or not is_finite(data.get("seconds")):
        return None
    settings = data["settings"] if isinstance(data.get("settings"), dict) else {}
    weights = tuple(found[1] for name in map(str, settings) if (found := WEIGHTS.fullmatch(name)))
    function, commit = str(settings.get("row") or ""), str(data.get("commit") or "")[:7]
    return Row(data["arm"], float(data["seconds"]), bool(data.get("resumed")), function, commit, weights)


def compared(raw: str, rows: tuple[Row, ...], parts: list[dict]) -> str:
    """What the rows took that a claim compares, and the sweep to which they belong."""
    mine = [part for part in parts if part["raw"] == raw]
    named = [arm for part in mine for arm in (part["arm"], part["minus"], part.get("over"), *part.get("minus_best", []))]
    chosen = [row for row in rows if row.arm in named]
    whole = f"the whole sweep behind {raw} ({len(rows)} rows, an arm and a seed each) took {total(rows)}"
    if not chosen or len(chosen) == len(rows):
        return f"{whole[0].upper()}{whole[1:]}."
    return f"The {len(chosen)} rows that it compares took {total(chosen)}; {whole}, and arms share trainings."


def total(rows) -> str:
    """The time of several rows; "at least" where some were resumed, whose time before the break is not counted."""
    return ("at least " if any(row.resumed for row in rows) else "") + seconds_text(sum(row.seconds for row in rows))
