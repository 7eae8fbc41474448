"""A single test as a drawing: the wanted range as a band, on it the interval and the estimate, with zero (or one) and the floor."""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real

from motionlab.ledger.verdict import number

WIDTH = 320           # units of the drawing, about a CSS pixel each, so that its text stays 12 px wherever it fits
LETTER = 7.2          # width of a digit of that text


@dataclass(frozen=True)
class Mark:
    """A labelled place on the axis: a bound of what was wanted, "zero", "one" or "floor"."""

    kind: str
    at: float
    text: str


@dataclass(frozen=True)
class Band:
    """Places on a line of WIDTH units. start, stop: of what was wanted. low, high, estimate: None where nothing was measured.

    seeds: each seed's own estimate, where there are several. marks: lines across; labels: those of them whose text has room.
    """

    start: float
    stop: float
    marks: tuple[Mark, ...]
    labels: tuple[Mark, ...]
    low: float | None = None
    high: float | None = None
    estimate: float | None = None
    seeds: tuple[float, ...] = ()


def band(part: dict, floor: float | None = None) -> Band:
    """The drawing of a part of a record, or of a criterion that was not measured (no `estimate`).

    Args:
        floor: the same number of reconstructions: what the codec alone costs.
    """
    within, measured = part["within"], part.get("estimate") is not None
    seeds = seed_estimates(part) if measured else ()
    interval = list(part["ci95"]) if measured else []
    lines = list(reference_lines(part, floor))
    values = [*interval, *seeds, *(value for _, value in lines)]
    left, right = ends(values, padding=0.15 if measured else 0.6)

    def place(value: float) -> float:
        return round(WIDTH * (value - left) / (right - left), 1)

    marks = tuple(Mark(kind, place(value), "floor" if kind == "floor" else number(value)) for kind, value in lines)
    found = {"start": 0.0 if within[0] is None else place(within[0]), "stop": float(WIDTH) if within[1] is None else place(within[1])}
    if measured:
        found |= {"low": place(interval[0]), "high": place(interval[1]), "estimate": place(part["estimate"]),
                  "seeds": tuple(map(place, seeds))}
    return Band(marks=marks, labels=tuple(roomy(marks)), **found)


def reference_lines(part: dict, floor: float | None) -> Iterator[tuple[str, float]]:
    """(kind, value) of the lines across, the ones that must be labelled first."""
    yield from (("bound", bound) for bound in part["within"] if bound is not None)
    if part.get("minus") or part.get("against") or part.get("minus_best"):
        yield "zero", 0.0
    if part.get("over"):
        yield "one", 1.0
    if floor is not None and math.isfinite(floor):
        yield "floor", floor


def seed_estimates(part: dict) -> tuple[float, ...]:
    """Each seed's own estimate, where there are two or more."""
    by_seed = part.get("by_seed")
    found = [value for value in by_seed.values() if is_finite(value)] if isinstance(by_seed, dict) else []
    return tuple(found) if len(found) > 1 else ()


def is_finite(value) -> bool:
    """A number that has a place on a line."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def ends(values: list[float], padding: float) -> tuple[float, float]:
    """Left and right end of the axis: all values, and some room beside them."""
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * padding
    return low - room, high + room


def joined(marks: tuple[Mark, ...]) -> list[Mark]:
    """The marks, with two bounds that lie too near for a text each as one: "0.98 to 1.02"."""
    bounds = [mark for mark in marks if mark.kind == "bound"]
    room = LETTER * sum(len(mark.text) for mark in bounds) / 2 + 4
    if len(bounds) < 2 or abs(bounds[1].at - bounds[0].at) > room:
        return list(marks)
    texts = dict.fromkeys(mark.text for mark in bounds)
    return [Mark("bound", (bounds[0].at + bounds[1].at) / 2, " to ".join(texts)), *(mark for mark in marks if mark.kind != "bound")]


def roomy(marks: tuple[Mark, ...]) -> Iterator[Mark]:
    """Marks whose texts do not run into those before them; moved inside where they would leave the drawing."""
    taken: list[tuple[float, float]] = []
    for mark in joined(marks):
        half = LETTER * len(mark.text) / 2
        at = min(max(mark.at, half), WIDTH - half)
        if all(at + half + 4 < start or stop < at - half - 4 for start, stop in taken):
            taken.append((at - half, at + half))
            yield Mark(mark.kind, round(at, 1), mark.text)
