"""Where each claim stands now: its verdict and the record behind it, or the reason why there is none.

A record says what its criterion said, for good. How a claim stands is read from it, anew each time: a ruling or a control
that does not hold weakens it, and the record's own word stays beside it.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from motionlab.core.files import read_json, shown
from motionlab.ledger.claims import load_all, load_measured
from motionlab.ledger.criteria import VERDICTS, Claim, PaperClaims
from motionlab.ledger.shapes import result_problem
from motionlab.ledger.soundness import protocol_of


@dataclass(frozen=True)
class Standing:
    """A claim with its verdict now, the published record behind it, the reason why there is none or why its verdict is weaker than
    the record's own, and `yours`."""

    claim: Claim
    verdict: str
    record: dict | None = None
    reason: str | None = None
    yours: dict | None = None

    @property
    def command(self) -> str | None:
        """The command that would measure the claim."""
        if self.claim.not_run and self.claim.not_run.command:
            return self.claim.not_run.command
        return f"motionlab run {self.claim.notebook}" if self.claim.notebook and self.claim.criterion else None


@dataclass(frozen=True)
class Chapter:
    """One paper: its claims in the order written, and its notebook runs as {notebook: (result, figures folder)}."""

    claims: PaperClaims
    standings: tuple[Standing, ...]
    runs: dict[str, tuple[dict, Path]] = field(default_factory=dict)
    your_runs: dict[str, tuple[dict, Path]] = field(default_factory=dict)

    def counts_of(self, about: str) -> Counter:
        """Verdicts of the claims about a "paper", or of the "kit"'s own."""
        return Counter(one.verdict for one in self.standings if one.claim.about == about)

    @property
    def judged(self) -> bool:
        return any(one.record for one in self.standings)


def standing(claim: Claim, records: list[dict], yours: dict | None = None) -> Standing:
    """Where a claim stands by itself: fixed, judged by its newest record, ruled over, or not run with the reason.

    Args:
        records: the claim's published records, oldest first.
        yours: the record of the reader's own run.
    """
    if claim.not_transferable:
        return Standing(claim, "not transferable", reason=claim.not_transferable.reason)
    newest = records[-1] if records else {}
    if newest.get("claim_sha") != claim.sha or claim.status != "final" or protocol_of(newest) < claim.protocol:
        return Standing(claim, "not run", reason=why_not_run(claim, records), yours=yours)
    found = Standing(claim, newest["verdict"], newest, yours=yours)
    return weakened(found, claim.ruling.verdict, claim.ruling.reason) if claim.ruling else found


def weakened(one: Standing, verdict: str, reason: str) -> Standing:
    """A standing under a weaker word, with the reason and what its criterion said."""
    return replace(one, verdict=verdict, reason=f"{reason}; by its criterion alone: {one.record['verdict']}")


def under_controls(alone: Mapping[str, Standing]) -> dict[str, Standing]:
    """Every claim's standing once its controls are looked at: blind where one of them does not hold.

    Args:
        alone: {id: standing by itself} of all claims of all papers, whose controls stand in no circle.
    """
    found: dict[str, Standing] = {}

    def settle(claim_id: str) -> Standing:
        if claim_id not in found:
            one = alone[claim_id]
            judged = one.record is not None and one.reason is None
            failing = next(filter(None, (silent(settle(control), one) for control in one.claim.control)), None) if judged else None
            found[claim_id] = weakened(one, "blind", failing) if failing else one
        return found[claim_id]

    return {claim_id: settle(claim_id) for claim_id in alone}


def silent(control: Standing, judged: Standing) -> str | None:
    """Why a control says nothing for a claim that was judged: it does not hold, or holds on a later ground only."""
    name = control.claim.id
    if control.verdict != "holds":
        return f"its control {name} does not hold ({control.verdict}), so this test could not have seen it"
    later, earlier = protocol_of(control.record), protocol_of(judged.record)
    return f"its control {name} holds under protocol {later}, and this was measured under protocol {earlier}" if later > earlier else None


def why_not_run(claim: Claim, records: list[dict]) -> str:
    """The reason in words why there is no verdict."""
    if records and records[-1].get("claim_sha") == claim.sha and protocol_of(records[-1]) < claim.protocol:
        return (f"not measured under protocol {claim.protocol} yet; under protocol {protocol_of(records[-1])} its record said: "
                f"{records[-1]['verdict']}")
    if records:
        return "the claim or its criterion changed since it was measured; it waits for a new run"
    if claim.not_run:
        return claim.not_run.reason
    return "its criterion is a draft" if claim.status == "draft" else "not measured yet"


def chapters(root: Path, runs_dir: Path | None = None) -> list[Chapter]:
    """All papers, those with verdicts first; with the reader's runs where a folder of runs is given.

    Raises:
        MotionLabError: malformed claims or records.
    """
    yours = newest_runs(runs_dir) if runs_dir else {}
    built = [chapter(claims, root, yours) for claims in load_all(root).values()]
    settled = under_controls({one.claim.id: one for chapter_ in built for one in chapter_.standings})
    built = [replace(one, standings=tuple(settled[row.claim.id] for row in one.standings)) for one in built]
    return sorted(built, key=lambda one: not one.judged and not one.your_runs)


def totals(found: list[Chapter]) -> dict[str, Counter]:
    """{"paper": verdicts of the papers' claims, "kit": of the kit's own}: never one number for both."""
    return {about: sum((one.counts_of(about) for one in found), Counter()) for about in ("paper", "kit")}


def chapter(claims: PaperClaims, root: Path, yours: dict[str, tuple[dict, Path]]) -> Chapter:
    """One paper's claims, records and runs put together."""
    measured, folder = load_measured(claims.paper, root), root / "reproductions" / claims.paper
    mine = {name: run for name, run in yours.items() if run[0]["paper"] == claims.paper}
    own = {claim_id: record for result, _ in mine.values() for claim_id, record in result["claims"].items()}
    standings = tuple(standing(one, measured.get(one.id, []), own.get(one.id)) for one in claims.claims.values())
    results = {path.stem: read_json(path) for path in sorted((folder / "executed").glob("*.json"))}
    sound = {name: (result, folder / "figures") for name, result in results.items() if result_problem(result) is None}
    return Chapter(claims, standings, sound, mine)


def newest_runs(runs_dir: Path) -> dict[str, tuple[dict, Path]]:
    """The reader's newest finished run of each notebook, {notebook: (result, figures folder)}; never a smoke run."""
    found: dict[str, tuple[dict, Path]] = {}
    for path in sorted(runs_dir.glob("*/*/result.json"), key=_changed):
        if path.parent.name.startswith(".") or path.parent.name.endswith(".failed"):
            continue  # half a run, or one that broke: no evidence
        result = read_json(path)
        if result_problem(result) is None and result["tier"] != "smoke":
            found[result["notebook"]] = (result, path.parent / "figures")
    return dict(sorted(found.items()))


def left_out(runs_dir: Path) -> list[str]:
    """Sentences on finished runs that the report cannot show: they are no results."""
    paths = [path for path in sorted(runs_dir.glob("*/*/result.json")) if not path.parent.name.startswith(".")]
    problems = {path: result_problem(read_json(path)) for path in paths if not path.parent.name.endswith(".failed")}
    return [f"{shown(path)} is left out: {problem}" for path, problem in problems.items() if problem]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # moved away meanwhile
        return 0.0


def counted(counts: Counter) -> list[tuple[str, int]]:
    """(verdict, how many) of those that occur, in the order of VERDICTS."""
    return [(word, counts[word]) for word in VERDICTS if counts[word]]
