"""What stands in the report in words: tests, reasons, findings. Arms and columns appear under their labels, never as names of code."""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from motionlab.ledger import verdict as judging
from motionlab.ledger.soundness import protocol_of
from motionlab.ledger.standings import Standing

SOURCES = {
    "stated": "stated in the paper",
    "code": "from the released code",
    "inferred": "inferred from the paper",
    "reported": "reported by others",
    "unverified": "unverified",
    "measured": "our own expectation, not the paper's",
}
BEARING = {"direct": "Tests the sentence itself", "proxy": "Tests something that stands for it"}
MEANING = {
    "holds": "the whole 95 % interval lies inside what was wanted.",
    "fails": "the whole interval lies outside of it.",
    "inconclusive": "the interval reaches over the edge of what was wanted, or what the paper means is open.",
    "blind": "the test could not have seen what it looks for: a control that must hold does not, or there is no room for the effect.",
    "not transferable": "what the paper found at its size says nothing about a model of ours.",
    "not run": "not measured; the command and its cost stand there.",
}
TOGETHER = {"all": "All of these must hold", "any": "One of these is enough", "agree": "These readers must say the same"}
LIE = {"holds": "lie inside", "fails": "lie outside", "inconclusive": "reach over the edge of"}
LIES = {"holds": "lies inside", "fails": "lies outside", "inconclusive": "reaches over the edge of"}


class Words(Protocol):
    """How arms and columns are called: `motionlab.figures.style` is one."""

    def look(self, name, paper: str = "", column: str = "arm") -> tuple[str, str]: ...

    def metric(self, column: str) -> Any: ...


@dataclass(frozen=True)
class Wording:
    """Sentences on one paper's tests. words: labels; without them a name is read as it stands, with blanks."""

    paper: str
    words: Words | None = None

    def arm(self, name: Any) -> str:
        """An arm in words."""
        return self._called(name, "arm")

    def value(self, column: str, value: Any) -> str:
        """A value of a column by which rows are chosen, in words."""
        values = value if isinstance(value, list) else [value]
        called = [(self._called(one, column), one) for one in values]
        return " or ".join(f"{self.column(column)} {text}" if text == str(one) and is_number(text) else text for text, one in called)

    def column(self, name: str) -> str:
        """A column in words."""
        label = self.words.metric(name).label if self.words else name
        return spaced(name) if label == name else " ".join(label.replace("-\n", "-").split())

    def _called(self, name: Any, column: str) -> str:
        label = self.words.look(name, self.paper, column)[0] if self.words else str(name)
        return spaced(name) if label == str(name) else " ".join(label.split())

    def test(self, part: dict) -> str:
        """What one test compares: "structure error (evaluator 0): VideoJAM minus the base"."""
        kind = {"median": "median of ", "share_true": "share of "}.get(part["statistic"], "")
        what = self.column(part["metric"]) + (f" minus {self.column(part['against'])}" if part.get("against") else "")
        who = self.arm(part["arm"]) + (f" minus {self.arm(part['minus'])}" if part.get("minus") else "")
        who += f" divided by {self.arm(part['over'])}" if part.get("over") else ""
        who += f" minus the best of {', '.join(map(self.arm, part['minus_best']))}" if part.get("minus_best") else ""
        where = ", ".join(self.value(str(column), value) for column, value in part["where"].items())
        return f"{kind}{what}: {who}" + (f" ({where})" if where else "")

    def finding(self, row: Standing) -> str:
        """What was found, in one or two sentences with the interval; the test that decides where there are several."""
        parts = row.record["parts"]
        if not parts:
            return ""
        part, held = deciding(parts, row.record["verdict"]), sum(one["verdict"] == "holds" for one in parts)
        told = f"{self.test(part)} is {judging.measured_text(part)}, wanted {judging.wanted(part['within'])}."
        told = told[:1].upper() + told[1:]
        return told if len(parts) == 1 else f"{told} {how_many(held, len(parts))}"


def how_many(held: int, tests: int) -> str:
    """How many of several tests hold, in a sentence."""
    if not held:
        return f"None of its {tests} tests holds."
    if held == tests:
        return "Both of its tests hold." if tests == 2 else f"All of its {tests} tests hold."
    return f"Of its {tests} tests {held} hold{'s' * (held == 1)}."


def spaced(name: Any) -> str:
    """A name of code as text, where nobody has given it a label."""
    return re.sub(r"[_@]+", " ", str(name)).replace("=", " = ").strip()


def is_number(text: str) -> bool:
    """A value that says nothing without its column."""
    return re.fullmatch(r"[-+\d.]+", text) is not None


def deciding(parts: Sequence[dict], verdict: str) -> dict:
    """The part that says most of how a claim fared: the first with the claim's own word, else the first that does not hold."""
    same = [part for part in parts if part["verdict"] == verdict]
    return (same or [part for part in parts if part["verdict"] != "holds"] or list(parts))[0]


def reasons(row: Standing, how: str | None) -> list[str]:
    """Why a measured claim has its verdict, in sentences. how: "all", "any", "agree", or None for a single test."""
    parts, word = row.record["parts"], row.record["verdict"]
    counts = {one: sum(part["verdict"] == one for part in parts) for one in LIES}
    if len(parts) == 1:
        found = [f"The interval {LIES.get(parts[0]['verdict'], 'is not compared with')} what was wanted, so its criterion says: {word}."]
    else:
        found = [f"{places(counts, len(parts))}. {TOGETHER.get(how, TOGETHER['all'])}, so its criterion says: {word}."]
    found += [f"{part['reason'][:1].upper()}{part['reason'][1:]}." for part in parts[:1] if part.get("reason")]
    if row.verdict != word:
        found.append(f"It is shown as {row.verdict}: {row.reason}.")
    n = sorted({part["n"] for part in parts})
    seeds = sorted({seed for part in parts for seed in (part.get("by_seed") or {})}) if parts else []
    found.append(f"Measured on {n[0] if len(n) == 1 else f'{n[0]} to {n[-1]}'} items" if n else "Measured")
    found[-1] += f", {len(seeds)} seeds" if len(seeds) > 1 else ""
    found[-1] += f", at tier {row.record['tier']}, under protocol {protocol_of(row.record)}."
    return found


def places(counts: dict[str, int], tests: int) -> str:
    """Where the intervals of several tests lie."""
    same = next((word for word, count in counts.items() if count == tests), None)
    if same:
        return f"{'Both' if tests == 2 else f'All {tests}'} intervals {LIE[same]} what was wanted"
    told = (f"{count} {LIES[word] if count == 1 else LIE[word]} what was wanted" for word, count in counts.items() if count)
    return f"Of {tests} intervals {', '.join(told)}"
