"""The two data files behind every verdict.

`reproductions/<paper>/claims.yaml` is written by people: what a paper says, and the criterion chosen before measuring.
`reproductions/<paper>/measured.yaml` is written by published runs only: a list of records per claim, appended and never
edited. Both are checked here, so that a slip of the pen is found at the door and not in a table.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.core.files import shown
from motionlab.core.yamls import read_yaml
from motionlab.core.paths import repo_root

SOURCES = ("stated", "code", "inferred", "reported", "unverified", "measured")
STATUSES = ("final", "draft")
STATISTICS = ("mean", "median", "share_true")
TIERS = ("smoke", "laptop", "full", "paper")
READING_ORDER = ("audit", "testbed", "videojam", "det", "sam2videox", "vtg")


@dataclass(frozen=True)
class Criterion:
    """One interval test: the `statistic` over items of `metric` in `arm` must lie `within` (None is unbounded).

    `minus` names an arm and `against` a column that are subtracted item by item; with `over` (an arm) it is the ratio of
    the two arms' statistics. `where` keeps rows {column: value}.
    """

    raw: str
    metric: str
    arm: str
    within: tuple[float | None, float | None]
    minus: str | None = None
    over: str | None = None
    against: str | None = None
    statistic: str = "mean"
    where: dict = field(default_factory=dict)
    why: str | None = None

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
class Claim:
    """One falsifiable sentence of a paper. `version` is the file's; `sha` identifies wording and criterion together."""

    id: str
    paper: str
    version: int
    says: str
    where: str
    source: str
    status: str
    sha: str
    paper_value: str | None = None
    notebook: str | None = None
    differs: tuple[str, ...] = ()
    criterion: Criterion | Combined | None = None
    not_run: NotRun | None = None
    not_transferable: str | None = None


@dataclass(frozen=True)
class PaperClaims:
    """One claims.yaml: `claims` maps id to Claim in the order written."""

    paper: str
    title: str
    version: int
    history: tuple[dict, ...]
    claims: dict[str, Claim]

    def __getitem__(self, claim_id: str) -> Claim:
        if claim_id in self.claims:
            return self.claims[claim_id]
        raise MotionLabError(
            f"Unknown claim '{claim_id}' in reproductions/{self.paper}/claims.yaml."
            f"{nearest(claim_id, self.claims)}",
            fix=f"Claims there: {', '.join(self.claims)}.",
        )


# -------------------------------------------------------------------------------------------------- finding and loading


def papers(root: Path | None = None) -> list[str]:
    """Names of the folders in reproductions/ that hold a claims.yaml, in reading order."""
    found = {path.parent.name for path in ((root or repo_root()) / "reproductions").glob("*/claims.yaml")}
    return [name for name in READING_ORDER if name in found] + sorted(found - set(READING_ORDER))


def load_claims(paper: str, root: Path | None = None) -> PaperClaims:
    """Read and check reproductions/<paper>/claims.yaml.

    Raises:
        MotionLabError: unknown paper, malformed file, unknown key, duplicate id, bad criterion, unquoted date.
    """
    root = root or repo_root()
    one_of(paper, papers(root), "paper")
    path = root / "reproductions" / paper / "claims.yaml"
    return parse_claims(read_yaml(path), paper, shown(path, root), title=heading(path.with_name("README.md")))


def load_all(root: Path | None = None) -> dict[str, PaperClaims]:
    """Every paper's claims, {paper: PaperClaims}, in reading order."""
    root = root or repo_root()
    return {paper: load_claims(paper, root) for paper in papers(root)}


def find_claim(claim_id: str, root: Path | None = None) -> Claim:
    """The claim of this id in any paper.

    Raises:
        MotionLabError: no such claim; the nearest id is named.
    """
    known = {one.id: one for book in load_all(root).values() for one in book.claims.values()}
    if claim_id in known:
        return known[claim_id]
    raise MotionLabError(
        f"Unknown claim '{claim_id}'.{nearest(claim_id, known)}", fix="`motionlab list` shows every claim."
    )


def load_measured(paper: str, root: Path | None = None) -> dict[str, list[dict]]:
    """Read reproductions/<paper>/measured.yaml: {claim id: [record, ...]}, oldest first; empty when there is none.

    Raises:
        MotionLabError: malformed file.
    """
    root = root or repo_root()
    path = root / "reproductions" / paper / "measured.yaml"
    if not path.exists():
        return {}
    data = read_yaml(path) or {}
    good = isinstance(data, dict) and all(
        isinstance(records, list) and all(isinstance(record, dict) for record in records) for records in data.values()
    )
    if not good:
        raise MotionLabError(
            f"{shown(path, root)} is not a mapping of claim ids to lists of records.",
            fix="It is written by published runs only: restore it with git.",
        )
    return data


def heading(readme: Path) -> str | None:
    """The first `# heading` of a Markdown file, else None."""
    if not readme.exists():
        return None
    found = re.search(r"^# +(.+)$", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found.group(1).strip() if found else None


# ----------------------------------------------------------------------------------------------------------------- YAML


def canonical_sha(data: Any) -> str:
    """sha256 (hex) of the canonical JSON of plain data: sorted keys, no spaces, UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def checksum(record: dict) -> str:
    """The checksum a record must carry: canonical_sha of everything in it but `checksum`."""
    return canonical_sha({key: value for key, value in record.items() if key != "checksum"})


# ------------------------------------------------------------------------------------------------------------- checking


class Place:
    """Where we are in a file; raises with that place in front of the sentence."""

    def __init__(self, file: str, claim: str | None = None):
        self.file, self.claim = file, claim

    def fail(self, what: str, fix: str | None = None):
        """Raise a MotionLabError that names the file and the claim."""
        where = f"{self.file}: claim '{self.claim}'" if self.claim else self.file
        raise MotionLabError(f"{where}: {what}", fix=fix)

    def keys(self, data: Any, allowed: tuple[str, ...], needed: tuple[str, ...], what: str) -> dict:
        """`data` when it is a mapping of allowed keys with all the needed ones."""
        if not isinstance(data, dict):
            self.fail(f"{what} is {kind(data)}, where a mapping (key: value) is needed.")
        for key in data:
            if key not in allowed:
                self.fail(
                    f"unknown key '{key}' in {what}.{nearest(key, allowed)}", fix=f"Known keys: {', '.join(allowed)}."
                )
        missing = [key for key in needed if data.get(key) is None]
        if missing:
            self.fail(f"{what} lacks '{missing[0]}'.", fix=f"Needed: {', '.join(needed)}.")
        return data

    def text(self, data: dict, key: str, what: str, optional: bool = False) -> str | None:
        """`data[key]` when it is non-empty text (or None where optional)."""
        value = data.get(key)
        if value is None and optional:
            return None
        if not isinstance(value, str) or not value.strip():
            self.fail(
                f"'{key}' of {what} is {kind(value)} ({value!r}), where text is needed.",
                fix=f'Write it in quotes: {key}: "{value}".',
            )
        return value

    def choice(self, value: Any, options: tuple[str, ...], key: str) -> str:
        """`value` when it is one of `options`."""
        if value not in options:
            self.fail(f"'{key}' is '{value}'.{nearest(value, options)}", fix=f"Choose one of: {', '.join(options)}.")
        return value


def kind(value: Any) -> str:
    """A value's type in words."""
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true/false",
        int: "a number",
        float: "a number",
        type(None): "empty",
    }
    return "a date" if isinstance(value, datetime.date) else names.get(type(value), type(value).__name__)


def dates_in(data: Any, trail: str = "") -> Iterator[str]:
    """Dotted places of every date object: an unquoted date in the file."""
    if isinstance(data, datetime.date):
        yield trail
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from dates_in(value, f"{trail}.{key}" if trail else str(key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from dates_in(value, f"{trail}[{index}]")


def parse_claims(data: Any, paper: str, file: str, title: str | None = None) -> PaperClaims:
    """Check the parsed content of a claims.yaml and give it types; `file` is the name used in errors.

    Raises:
        MotionLabError: anything that the contract in the module's docstring forbids.
    """
    place = Place(file)
    for trail in dates_in(data):
        place.fail(
            f"the date at '{trail}' is not quoted, so YAML turns it into an object.",
            fix='Write "2026-01-31" with quotes.',
        )
    top = place.keys(data, ("title", "version", "history", "claims"), ("version", "history", "claims"), "the file")
    version = check_history(top, place)
    if not isinstance(top["claims"], dict):
        place.fail(f"'claims' is {kind(top['claims'])}, where a mapping of claim ids is needed.")
    claims = {str(key): parse_claim(str(key), value, paper, version, file) for key, value in top["claims"].items()}
    return PaperClaims(paper, top.get("title") or title or paper, version, tuple(top["history"]), claims)


def check_history(top: dict, place: Place) -> int:
    """The file's version, after checking that the history explains every version up to it."""
    version, history = top["version"], top["history"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        place.fail(f"'version' is {version!r}, where a whole number from 1 is needed.")
    if not isinstance(history, list):
        place.fail(f"'history' is {kind(history)}, where a list is needed.")
    for entry in history:
        place.keys(entry, ("version", "date", "reason"), ("version", "date", "reason"), "a history entry")
        place.text(entry, "date", "a history entry"), place.text(entry, "reason", "a history entry")
    if [entry["version"] for entry in history] != list(range(1, version + 1)):
        place.fail(
            f"'history' must have one entry for each version from 1 to {version}, in order.",
            fix="Add {version, date, reason} for the change; every change of a criterion gets its reason.",
        )
    return version


CLAIM_KEYS = (
    "says",
    "where",
    "source",
    "paper_value",
    "status",
    "notebook",
    "differs",
    "criterion",
    "not_run",
    "not_transferable",
)


def parse_claim(claim_id: str, data: Any, paper: str, version: int, file: str) -> Claim:
    """Check one claim and give it types.

    Raises:
        MotionLabError: naming file and claim.
    """
    place = Place(file, claim_id)
    if not claim_id.startswith(f"{paper}.") or claim_id == f"{paper}.":
        place.fail(
            f"its id must start with '{paper}.'", fix=f"Rename it, for example to '{paper}.{claim_id.split('.')[-1]}'."
        )
    data = place.keys(data, CLAIM_KEYS, ("says", "where", "source", "status"), "the claim")
    criterion = None if data.get("criterion") is None else parse_criterion(data["criterion"], place)
    not_run = parse_not_run(data.get("not_run"), place)
    fixed = data.get("not_transferable")
    if fixed is not None:
        fixed = place.text(
            place.keys(fixed, ("reason",), ("reason",), "not_transferable"), "reason", "not_transferable"
        )
    status = place.choice(data["status"], STATUSES, "status")
    if fixed and criterion:
        place.fail("it has a criterion and is also not transferable.", fix="Keep one of the two.")
    if status == "final" and not (criterion or not_run or fixed):
        place.fail(
            "it is final, but has neither criterion nor not_run nor not_transferable.",
            fix="Add one, or set status: draft.",
        )
    return Claim(
        claim_id,
        paper,
        version,
        place.text(data, "says", "the claim"),
        place.text(data, "where", "the claim"),
        place.choice(data["source"], SOURCES, "source"),
        status,
        canonical_sha({"id": claim_id, **data}),
        place.text(data, "paper_value", "the claim", optional=True),
        place.text(data, "notebook", "the claim", optional=True),
        parse_differs(data.get("differs"), place),
        criterion,
        not_run,
        fixed,
    )


def parse_not_run(data: Any, place: Place) -> NotRun | None:
    """The optional not_run block."""
    if data is None:
        return None
    data = place.keys(data, ("reason", "command", "cost"), ("reason",), "not_run")
    return NotRun(
        *(place.text(data, key, "not_run", optional=key != "reason") for key in ("reason", "command", "cost"))
    )


def parse_differs(data: Any, place: Place) -> tuple[str, ...]:
    """The optional list of differences from the paper."""
    if data is None:
        return ()
    if not isinstance(data, list) or not all(isinstance(line, str) for line in data):
        place.fail("'differs' must be a list of texts.", fix="Write differs: [first difference, second difference].")
    return tuple(data)


def parse_criterion(data: Any, place: Place, what: str = "criterion") -> Criterion | Combined:
    """Check a criterion, alone or combined by all/any, and give it types.

    Raises:
        MotionLabError: naming file and claim.
    """
    hows = [how for how in ("all", "any") if isinstance(data, dict) and how in data]
    if not hows:
        return parse_leaf(data, place, what)
    how = hows[0]
    place.keys(data, (how, "why"), (how,), what)
    if not isinstance(data[how], list) or not data[how]:
        place.fail(f"'{how}' of {what} must be a list of criteria with at least one entry.")
    parts = [parse_criterion(part, place, f"{what}, {how} [{index}]") for index, part in enumerate(data[how])]
    return Combined(how, tuple(parts), data.get("why"))


def parse_leaf(data: Any, place: Place, what: str) -> Criterion:
    """One interval test."""
    allowed = tuple(one.name for one in fields(Criterion)) + ("all", "any")
    data = place.keys(data, allowed, ("raw", "metric", "arm", "within"), what)
    texts = {
        key: place.text(data, key, what, optional=key in ("minus", "over", "against", "why"))
        for key in ("raw", "metric", "arm", "minus", "over", "against", "why")
    }
    if not re.fullmatch(r"[\w.-]+\.csv", texts["raw"]):
        place.fail(f"'raw' of {what} is '{texts['raw']}', where the plain name of a .csv file is needed.")
    where = data.get("where") or {}
    if not isinstance(where, dict):
        place.fail(f"'where' of {what} is {kind(where)}, where a mapping (column: value) is needed.")
    statistic = place.choice(data.get("statistic", "mean"), STATISTICS, "statistic")
    return Criterion(within=parse_within(data["within"], place, what), statistic=statistic, where=where, **texts)


def parse_within(value: Any, place: Place, what: str) -> tuple[float | None, float | None]:
    """[low, high] with null for unbounded; at least one bound, low <= high."""
    if not isinstance(value, list) or len(value) != 2:
        place.fail(f"'within' of {what} is {value!r}, where two bounds are needed.", fix="Write within: [0.05, null].")
    for bound in value:
        if (
            isinstance(bound, bool)
            or not isinstance(bound, (int, float, type(None)))
            or (bound is not None and not math.isfinite(bound))
        ):
            place.fail(
                f"the bound {bound!r} in 'within' of {what} is no number.",
                fix="Write 0.001 or 1.0e-3 (YAML reads 1e-3 as text), and null for unbounded.",
            )
    low, high = value
    if low is None and high is None:
        place.fail(
            f"'within' of {what} is unbounded on both sides, so nothing could fail.", fix="Give at least one bound."
        )
    if low is not None and high is not None and low > high:
        place.fail(f"'within' of {what} is [{low}, {high}]: the lower bound is above the upper one.", fix="Swap them.")
    return (None if low is None else float(low), None if high is None else float(high))
