"""What a claim's card says: its tests as drawings, its controls, why it has its verdict, its pictures and what stands behind it."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from motionlab.ledger import verdict as judging
from motionlab.ledger.criteria import Combined, Criterion
from motionlab.ledger.report.bands import Band, band
from motionlab.ledger.report.costs import Costs
from motionlab.ledger.report.pictures import Picture, Run
from motionlab.ledger.report.sources import Source, Sources
from motionlab.ledger.report.wording import TOGETHER, Wording, deciding, reasons
from motionlab.ledger.soundness import protocol_of
from motionlab.ledger.standings import Standing


@dataclass(frozen=True)
class Test:
    """One interval test: in words, what was measured and wanted, and its drawing. verdict: None where nothing was measured."""

    __test__ = False      # no test of pytest's

    name: str
    wanted: str
    band: Band
    measured: str | None = None
    verdict: str | None = None
    n: str = ""
    reason: str | None = None
    why: str | None = None

    @property
    def alt(self) -> str:
        """The drawing in words."""
        return f"{self.name}: {f'{self.measured}, ' if self.measured else ''}wanted {self.wanted}"


@dataclass(frozen=True)
class Group:
    """Tests that are judged together; `how` says how."""

    how: str
    verdict: str | None
    members: tuple[Test | Group, ...]
    why: str | None = None

    @property
    def heading(self) -> str:
        return TOGETHER[self.how]


class Desk:
    """What cards are made from: files behind claims, costs, runs, and how things are called."""

    def __init__(self, sources: Sources, costs: Costs, runs: dict[str, dict[str, Run]], standings: dict[str, Standing], words=None):
        self.sources, self.costs, self.runs, self.words, self.standings = sources, costs, runs, words, standings
        self.controlled: dict[str, list[Standing]] = {}
        for row in standings.values():
            for control in row.claim.control:
                self.controlled.setdefault(control, []).append(row)

    def card(self, row: Standing) -> Card:
        return Card(row, self)


@dataclass(frozen=True)
class Card:
    """A claim's card; what takes reading is read when the page asks for it."""

    row: Standing
    desk: Desk

    @property
    def claim(self):
        return self.row.claim

    @property
    def word(self) -> str:
        """The word by which the card is found and coloured."""
        return self.row.verdict

    @cached_property
    def wording(self) -> Wording:
        return Wording(self.claim.paper, self.desk.words)

    @property
    def controls(self) -> list[Standing]:
        """The claims that must hold for this test to have seen anything."""
        return [self.desk.standings[name] for name in self.claim.control if name in self.desk.standings]

    @property
    def controls_for(self) -> list[Standing]:
        """The claims whose control this one is."""
        return self.desk.controlled.get(self.claim.id, [])

    @cached_property
    def run(self) -> Run | None:
        """The notebook run behind the record that is shown."""
        record = self.row.record or self.row.yours
        run = self.desk.runs.get(self.claim.paper, {}).get(record["notebook"]) if record else None
        return run if run and run.own == (self.row.record is None) else None

    @cached_property
    def tests(self) -> list[Test | Group]:
        """The criterion with what came out."""
        return self.tree(self.row.record["parts"] if self.row.record else None)

    @property
    def decisive(self) -> Test:
        """The test that says most of how the claim fared."""
        return self.test(deciding(self.row.record["parts"], self.row.record["verdict"]))

    @cached_property
    def your_tests(self) -> list[Test | Group]:
        """The same of the reader's own run."""
        return self.tree(self.row.yours["parts"])

    def tree(self, parts: list[dict] | None) -> list[Test | Group]:
        """The criterion with the parts of a record, in its own nesting; the bare parts where they are those of another criterion."""
        criterion = self.claim.criterion
        leaves = criterion.leaves() if criterion else []
        if parts is None:
            return [self.node(criterion, iter([None] * len(leaves)))] if criterion else []
        if [(leaf.metric, leaf.arm) for leaf in leaves] != [(part["metric"], part["arm"]) for part in parts]:
            return [self.test(part) for part in parts]
        return [self.node(criterion, iter(parts))]

    def node(self, criterion: Criterion | Combined, parts: Iterator[dict | None]) -> Test | Group:
        """A criterion with the next parts of a record."""
        if isinstance(criterion, Criterion):
            part = next(parts)
            return self.test(vars(criterion) if part is None else part, criterion.why)
        members = tuple(self.node(one, parts) for one in criterion.parts)
        if len(members) == 1:
            return members[0]
        verdicts = [member.verdict for member in members]
        return Group(criterion.how, None if None in verdicts else judging.combine(criterion.how, verdicts), members, criterion.why)

    def test(self, part: dict, why: str | None = None) -> Test:
        """One part of a record, or a leaf of a criterion that was not measured."""
        told = {"name": self.wording.test(part), "wanted": judging.wanted(part["within"]), "why": why,
                "band": band(part, self.desk.sources.floor(self.claim.paper, part))}
        if "estimate" in part:
            n = f"n = {part['n']}" + (f", {part['n_undefined']} undefined" if part["n_undefined"] else "")
            told |= {"measured": judging.measured_text(part), "verdict": part["verdict"], "n": n, "reason": part.get("reason")}
        return Test(**told)

    @property
    def why(self) -> list[str]:
        """Why it has its verdict, in sentences."""
        return reasons(self.row, getattr(self.claim.criterion, "how", None)) if self.row.record else []

    @property
    def cost(self) -> list[str]:
        """What the data behind it took; for one that waits, what it would take."""
        if self.row.record or self.row.yours:
            record, result = self.row.record or self.row.yours, self.run.result if self.run else None
            known = result and result["claims"].get(self.claim.id, {}).get("checksum") == record["checksum"]
            return self.desk.costs.sentences(self.row, result if known else None)
        return [self.desk.costs.to_come(self.claim)]

    @cached_property
    def pictures(self) -> list[Picture]:
        """Every figure and video that names the claim, of the runs that are shown."""
        return [one for run in self.desk.runs.get(self.claim.paper, {}).values() for one in run.of(self.claim.id)]

    @cached_property
    def sources(self) -> list[Source]:
        """The files behind it."""
        return self.desk.sources.of(self.claim, self.row.record, self.run)

    @property
    def facts(self) -> dict[str, str]:
        """Provenance of the record that is shown."""
        record = self.row.record or self.row.yours
        found = {
            "Criterion": f"version {record['criterion_version']}, protocol {protocol_of(record)}",
            "Parameters": ", ".join(f"`{key} = {value}`" for key, value in record["params"].items()),
            "Seeds": ", ".join(sorted({str(seed) for part in record["parts"] for seed in (part.get("by_seed") or {})})),
            "Rows measured by": ", ".join(dict.fromkeys(f"`{row.function}` at commit {row.commit or 'unknown'}" for raw in record["raw"]
                                                        for row in self.desk.costs.rows(self.claim.paper, raw) if row.function)),
            "Commit": f"{record['commit'] or 'unknown'}" + (" with uncommitted changes" if record.get("dirty") else ""),
            "Device": record["device"],
            "Date": record["date"],
            "Versions": ", ".join(f"{key} {value}" for key, value in record["versions"].items() if value),
            "Raw data": ", ".join(f"{name} (sha256 {sha[:12]})" for name, sha in record["raw"].items()),
        }
        return {key: value for key, value in found.items() if value}
