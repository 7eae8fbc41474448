"""What a claim is made of: criterion, reading, ruling; and which folders of reproductions/ hold claims. Nothing is read here."""
from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from motionlab.core.errors import MotionLabError, nearest
from motionlab.core.paths import repo_root
from motionlab.core.protocol import RULED

TIERS = ("smoke", "laptop", "full", "paper")
VERDICTS = ("holds", "fails", "inconclusive", "blind", "not transferable", "not run")
READING = ("about", "bearing", "because", "control", "protocol", "ruling")  # how a verdict is read: apart from a claim's sha
READING_ORDER = ("audit", "testbed", "videojam", "det", "sam2videox", "vtg")


@dataclass(frozen=True)
class Criterion:
    """One interval test: the `statistic` over items of `metric` in `arm` must lie `within` (None is unbounded).

    `n`: items that it will be judged on (None: the protocol's usual number): what they can show at all is asked when it is read.
    `minus` names an arm and `against` a column that are subtracted item by item; with `over` (an arm) it is the ratio of
    the two arms' statistics; with `minus_best` (arms) the best of their statistics is subtracted, the highest where `within` asks
    for more and the lowest where it asks for less, found anew in every resample. `where` keeps rows {column: value}.

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
    n: int | None = None
    minus_best: tuple[str, ...] = ()
    why: str | None = None

    def __post_init__(self):
        if self.minus_best and (self.minus or self.over or None not in self.within):
            raise MotionLabError("'minus_best' stands beside 'minus' or 'over', or between two bounds.",
                                 fix="Compare with the best of several arms alone, and give one bound: it says which way is better.")
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
    """Several criteria that must hold together (`how` = "all"), of which one suffices ("any"), or that must say the same
    ("agree": two readers of one thing; holds or fails only where all of them do)."""

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
class Ruling:
    """A weaker word than the criterion's, with the reason: what was measured stays, and is shown beside it.

    No ruling can say that a claim holds or fails: only a measurement can.
    """

    verdict: Literal["inconclusive", "blind", "not transferable", "not run"]
    reason: str


@dataclass(frozen=True)
class Written:
    """A claim as its file has it.

    about: whose sentence it is, a paper's or the kit's own; the two are counted apart. bearing: whether the criterion tests the
    sentence itself or something that stands for it. because: why it tests it. control: ids of claims that must hold, in this
    folder or another, for the test to have been able to see anything. protocol: the version of protocol.yaml that the criterion
    was written for (None: the file's); a record of an earlier one judges nothing.
    """

    says: str
    where: str
    source: Literal["stated", "code", "inferred", "reported", "unverified", "measured"]
    status: Literal["final", "draft"]
    about: Literal["paper", "kit"]
    bearing: Literal["direct", "proxy"] | None = None
    because: str | None = None
    control: tuple[str, ...] = ()
    protocol: int | None = None
    ruling: Ruling | None = None
    paper_value: str | None = None
    notebook: str | None = None
    differs: tuple[str, ...] = ()
    criterion: Criterion | Combined | None = None
    not_run: NotRun | None = None
    not_transferable: NotTransferable | None = None


@dataclass(frozen=True, kw_only=True)
class Claim(Written):
    """One falsifiable sentence. `version` is the file's; `sha` identifies wording and criterion together, and nothing of READING.

    Raises:
        MotionLabError: an id of another paper, an empty sentence, a final claim that could not be judged, a criterion that does
            not say what it has to do with the sentence, a judged claim about a paper without a control.
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
        self._check_reading()

    def _check_reading(self):
        if self.criterion and not (self.bearing and self.because and self.because.strip()):
            raise MotionLabError(f"it has a criterion without '{'because' if self.bearing else 'bearing'}'.",
                                 fix="Add bearing: direct or proxy, and because: why this criterion tests the sentence.")
        if self.ruling and not self.criterion:
            raise MotionLabError("it has a ruling, but no criterion over which it could rule.", fix="Write not_run or not_transferable.")
        if self.id in self.control:
            raise MotionLabError("it is its own control.", fix="Name a claim that must hold for this one to be seen, or none.")
        judged_paper = self.about == "paper" and self.criterion and self.status == "final"
        if judged_paper and self.protocol >= RULED and not (self.control or self.ruling):
            raise MotionLabError(f"it is about a paper, is judged under protocol {self.protocol}, and names no control.",
                                 fix="Add control: [testbed.P-oracle], or whichever claims must hold for its test to see anything.")


@dataclass(frozen=True)
class Change:
    """A version of a file of claims, and why it came."""

    version: int
    date: str
    reason: str


@dataclass(frozen=True)
class ClaimsFile:
    """A claims.yaml as written; `claims` are still plain values. protocol: of the claims that name none themselves.

    Raises:
        MotionLabError: a version that the history does not explain.
    """

    version: int
    protocol: int
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


def papers(root: Path | None = None) -> list[str]:
    """Names of the folders in reproductions/ that hold a claims.yaml, in reading order."""
    found = {path.parent.name for path in ((root or repo_root()) / "reproductions").glob("*/claims.yaml")}
    return [name for name in READING_ORDER if name in found] + sorted(found - set(READING_ORDER))


def canonical_sha(data: Any) -> str:
    """sha256 (hex) of the canonical JSON of plain data: sorted keys, no spaces, UTF-8."""
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except TypeError:        # keys of several kinds, which have no order: YAML allows them
        text = json.dumps(_with_text_keys(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _with_text_keys(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _with_text_keys(value) for key, value in data.items()}
    return [_with_text_keys(value) for value in data] if isinstance(data, (list, tuple)) else data


def checksum(record: dict) -> str:
    """The checksum a record must carry: canonical_sha of everything in it but `checksum`."""
    return canonical_sha({key: value for key, value in record.items() if key != "checksum"})
