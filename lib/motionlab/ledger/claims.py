"""The two data files behind every verdict.

`reproductions/<paper>/claims.yaml` is written by people: what a paper says, and the criterion chosen before measuring.
`reproductions/<paper>/measured.yaml` is written by published runs only: a list of records per claim, appended and never
edited. Both are checked here, so that a slip of the pen is found at the door and not in a table.
"""
from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, located, nearest, one_of
from motionlab.core.files import shown
from motionlab.core.paths import repo_root
from motionlab.core.yamls import read_yaml

TIERS = ("smoke", "laptop", "full", "paper")
VERDICTS = ("holds", "fails", "inconclusive", "not transferable", "not run")
READING_ORDER = ("audit", "testbed", "videojam", "det", "sam2videox", "vtg")


@dataclass(frozen=True)
class Criterion:
    """One interval test: the `statistic` over items of `metric` in `arm` must lie `within` (None is unbounded).

    `minus` names an arm and `against` a column that are subtracted item by item; with `over` (an arm) it is the ratio of
    the two arms' statistics. `where` keeps rows {column: value}.

    Raises:
        MotionLabError: a raw file that is no plain name, bounds that nothing could fail or pass.
    """

    raw: str
    metric: str
    arm: str
    within: tuple[float | None, float | None]
    minus: str | None = None
    over: str | None = None
    against: str | None = None
    statistic: Literal["mean", "median", "share_true"] = "mean"
    where: dict = field(default_factory=dict)
    why: str | None = None

    def __post_init__(self):
        if not re.fullmatch(r"[\w.-]+\.csv", self.raw):
            raise MotionLabError(f"'raw' is '{self.raw}', where the plain name of a .csv file is needed.")
        ends = [bound for bound in self.within if bound is not None]
        if not ends or not all(map(math.isfinite, ends)):
            raise MotionLabError(f"'within' is {list(self.within)}: unbounded on both sides, or no number, so nothing could fail.",
                                 fix="Give at least one bound; null is unbounded.")
        if ends != sorted(ends):
            raise MotionLabError(f"'within' is {list(self.within)}: the lower bound is above the upper one.", fix="Swap them.")

    def leaves(self) -> list[Criterion]:
        """The single tests in this criterion: itself."""
        return [self]


@dataclass(frozen=True)
class Combined:
    """Several criteria that must hold together (`how` = "all") or of which one suffices ("any")."""

    how: str
    parts: tuple[Criterion | Combined, ...]
    why: str | None = None

    def leaves(self) -> list[Criterion]:
        """The single tests in the order written."""
        return [leaf for part in self.parts for leaf in part.leaves()]


@dataclass(frozen=True)
class NotRun:
    """Why a claim was not measured, the command that would, and its cost."""

    reason: str
    command: str | None = None
    cost: str | None = None


@dataclass(frozen=True)
class NotTransferable:
    """Why what the paper found at its size says nothing about ours."""

    reason: str


@dataclass(frozen=True)
class Written:
    """A claim as its file has it."""

    says: str
    where: str
    source: Literal["stated", "code", "inferred", "reported", "unverified", "measured"]
    status: Literal["final", "draft"]
    paper_value: str | None = None
    notebook: str | None = None
    differs: tuple[str, ...] = ()
    criterion: Criterion | Combined | None = None
    not_run: NotRun | None = None
    not_transferable: NotTransferable | None = None


@dataclass(frozen=True, kw_only=True)
class Claim(Written):
    """One falsifiable sentence of a paper. `version` is the file's; `sha` identifies wording and criterion together.

    Raises:
        MotionLabError: an id of another paper, an empty sentence, a final claim that could not be judged.
    """

    id: str
    paper: str
    version: int
    sha: str

    def __post_init__(self):
        if not re.fullmatch(rf"{re.escape(self.paper)}\..+", self.id):
            raise MotionLabError(f"its id must start with '{self.paper}.'", fix=f"Rename it, for example to '{self.paper}.C1'.")
        if not self.says.strip() or not self.where.strip():
            raise MotionLabError("'says' or 'where' is empty.", fix="Say what is claimed, and where in the paper.")
        if self.not_transferable and self.criterion:
            raise MotionLabError("it has a criterion and is also not transferable.", fix="Keep one of the two.")
        if self.status == "final" and not (self.criterion or self.not_run or self.not_transferable):
            raise MotionLabError("it is final, but has neither criterion nor not_run nor not_transferable.",
                                 fix="Add one, or set status: draft.")


@dataclass(frozen=True)
class Change:
    """A version of a file of claims, and why it came."""

    version: int
    date: str
    reason: str


@dataclass(frozen=True)
class ClaimsFile:
    """A claims.yaml as written; `claims` are still plain values.

    Raises:
        MotionLabError: a version that the history does not explain.
    """

    version: int
    history: tuple[Change, ...]
    claims: dict
    title: str | None = None

    def __post_init__(self):
        numbers = [entry.version for entry in self.history]
        if not numbers or numbers != list(range(1, len(numbers) + 1)) or self.version != len(numbers):
            raise MotionLabError(f"'history' must have one entry for each version from 1 to {self.version}, in order.",
                                 fix="Add {version, date, reason} for the change; every change of a criterion gets its reason.")


@dataclass(frozen=True)
class PaperClaims:
    """The claims of one paper: `claims` maps id to Claim in the order written."""

    paper: str
    title: str
    version: int
    history: tuple[Change, ...]
    claims: dict[str, Claim]

    def __getitem__(self, claim_id: str) -> Claim:
        if claim_id in self.claims:
            return self.claims[claim_id]
        raise MotionLabError(
            f"Unknown claim '{claim_id}' in reproductions/{self.paper}/claims.yaml.{nearest(claim_id, self.claims)}",
            fix=f"Claims there: {', '.join(self.claims)}.")


# -------------------------------------------------------------------------------------------------- finding and loading


def papers(root: Path | None = None) -> list[str]:
    """Names of the folders in reproductions/ that hold a claims.yaml, in reading order."""
    found = {path.parent.name for path in ((root or repo_root()) / "reproductions").glob("*/claims.yaml")}
    return [name for name in READING_ORDER if name in found] + sorted(found - set(READING_ORDER))


def load_claims(paper: str, root: Path | None = None) -> PaperClaims:
    """Read and check reproductions/<paper>/claims.yaml.

    Raises:
        MotionLabError: unknown paper, malformed file, unknown key, duplicate id, bad criterion; naming file and claim.
    """
    root = root or repo_root()
    one_of(paper, papers(root), "paper")
    path = root / "reproductions" / paper / "claims.yaml"
    data, name = read_yaml(path), shown(path, root)
    with located(name):
        file = from_values(ClaimsFile, data, "file")
    claims = {}
    for key, values in file.claims.items():
        with located(f"{name}: claim '{key}'"):
            claims[str(key)] = read_claim(str(key), values, paper, file.version)
    return PaperClaims(paper, file.title or heading(path.with_name("README.md")) or paper, file.version, file.history, claims)


def read_claim(claim_id: str, values: Any, paper: str, version: int) -> Claim:
    """One claim of a file as typed data.

    Raises:
        MotionLabError: anything that `Claim` and `Criterion` do not allow.
    """
    typed = dict(values) if isinstance(values, dict) else values
    if isinstance(values, dict) and values.get("criterion") is not None:
        typed["criterion"] = read_criterion(values["criterion"], "criterion")
    written = from_values(Written, typed, "claim")
    return Claim(**vars(written), id=claim_id, paper=paper, version=version, sha=canonical_sha({"id": claim_id, **values}))


def read_criterion(values: Any, what: str) -> Criterion | Combined:
    """A single test, or several under `all:` or `any:`."""
    how = next((how for how in ("all", "any") if isinstance(values, dict) and how in values), None)
    if how is None:
        with located(what):
            return from_values(Criterion, values, "criterion")
    if values.keys() - {how, "why"} or not isinstance(values[how], list) or not values[how]:
        raise MotionLabError(f"'{how}' of the {what} must be a list of criteria with at least one entry, and stand alone but for why.")
    parts = [read_criterion(part, f"{what}, {how} [{index}]") for index, part in enumerate(values[how])]
    return Combined(how, tuple(parts), values.get("why"))


def load_all(root: Path | None = None) -> dict[str, PaperClaims]:
    """Every paper's claims, {paper: PaperClaims}, in reading order."""
    root = root or repo_root()
    return {paper: load_claims(paper, root) for paper in papers(root)}


def load_measured(paper: str, root: Path | None = None) -> dict[str, list[dict]]:
    """Read reproductions/<paper>/measured.yaml: {claim id: [record, ...]}, oldest first; empty when there is none.

    Raises:
        MotionLabError: malformed file.
    """
    root = root or repo_root()
    path = root / "reproductions" / paper / "measured.yaml"
    data = (read_yaml(path) or {}) if path.exists() else {}
    lists = list(data.values()) if isinstance(data, dict) else [None]
    if not all(isinstance(records, list) and all(isinstance(record, dict) for record in records) for records in lists):
        raise MotionLabError(f"{shown(path, root)} is not a mapping of claim ids to lists of records.",
                             fix="It is written by published runs only: restore it with git.")
    from motionlab.ledger.shapes import record_problem

    for claim_id, records in data.items():
        for index, record in enumerate(records):
            if problem := record_problem(record):
                raise MotionLabError(f"{shown(path, root)}: record {index + 1} of {claim_id} is none: {problem}.",
                                     fix="It is written by published runs only: restore it with git.")
    return data


def heading(readme: Path) -> str | None:
    """The first `# heading` of a Markdown file, else None."""
    found = re.search(r"^# +(.+)$", readme.read_text(encoding="utf-8"), flags=re.MULTILINE) if readme.exists() else None
    return found.group(1).strip() if found else None


def canonical_sha(data: Any) -> str:
    """sha256 (hex) of the canonical JSON of plain data: sorted keys, no spaces, UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def checksum(record: dict) -> str:
    """The checksum a record must carry: canonical_sha of everything in it but `checksum`."""
    return canonical_sha({key: value for key, value in record.items() if key != "checksum"})
