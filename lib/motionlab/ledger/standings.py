"""Where each claim stands now: its verdict and the record behind it, or the reason why there is none."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from motionlab.core.files import read_json, shown
from motionlab.ledger.claims import VERDICTS, Claim, PaperClaims, load_all, load_measured
from motionlab.ledger.shapes import result_problem


@dataclass(frozen=True)
class Standing:
    """A claim with its verdict now, the published record behind it or the reason why there is none, and `yours`."""

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

    @property
    def counts(self) -> Counter:
        return Counter(one.verdict for one in self.standings)

    @property
    def judged(self) -> bool:
        return any(one.record for one in self.standings)


def standing(claim: Claim, records: list[dict], yours: dict | None = None) -> Standing:
    """Where a claim stands: fixed by itself, judged by its newest record, or not run with the reason.

    Args:
        records: the claim's published records, oldest first.
        yours: the record of the reader's own run.
    """
    if claim.not_transferable:
        return Standing(claim, "not transferable", reason=claim.not_transferable.reason)
    if records and records[-1].get("claim_sha") == claim.sha and claim.status == "final":
        return Standing(claim, records[-1]["verdict"], records[-1], yours=yours)
    return Standing(claim, "not run", reason=why_not_run(claim, records), yours=yours)


def why_not_run(claim: Claim, records: list[dict]) -> str:
    """The reason in words why there is no verdict."""
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
    return sorted(built, key=lambda one: not one.judged and not one.your_runs)


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
    """(verdict, how many) of those that occur, in the order of the five words."""
    return [(word, counts[word]) for word in VERDICTS if counts[word]]
