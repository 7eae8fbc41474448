"""The two data files behind every verdict.

`reproductions/<paper>/claims.yaml` is written by people: what a paper says, the criterion chosen before measuring, and how
its verdict is to be read (whose claim it is, what else must hold for the test to have seen anything).
`reproductions/<paper>/measured.yaml` is written by published runs only: a list of records per claim, appended and never
edited. Both are checked here, so that a slip of the pen is found at the door and not in a table.
"""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, located, one_of
from motionlab.core.files import shown
from motionlab.core.paths import repo_root
from motionlab.core.yamls import read_yaml
from motionlab.ledger.criteria import READING, Claim, ClaimsFile, Combined, Criterion, PaperClaims, Written, canonical_sha, papers
from motionlab.ledger.shapes import record_problem
from motionlab.ledger.soundness import check_order, check_sound


def load_claims(paper: str, root: Path | None = None) -> PaperClaims:
    """Read and check reproductions/<paper>/claims.yaml.

    Raises:
        MotionLabError: unknown paper, malformed file, unknown key, duplicate id, bad criterion, and whatever
            `soundness.check_sound` refuses; naming file and claim.
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
            claims[str(key)] = read_claim(str(key), values, paper, file)
    found = PaperClaims(paper, file.title or heading(path.with_name("README.md")) or paper, file.version, file.history, claims)
    check_sound(found, root)
    return found


def read_claim(claim_id: str, values: Any, paper: str, file: ClaimsFile) -> Claim:
    """One claim of a file as typed data.

    Raises:
        MotionLabError: anything that `Claim` and `Criterion` do not allow.
    """
    typed = dict(values) if isinstance(values, dict) else values
    if isinstance(values, dict) and values.get("criterion") is not None:
        typed["criterion"] = read_criterion(values["criterion"], "criterion")
    written = from_values(Written, typed, "claim")
    asked = {key: value for key, value in values.items() if key not in READING}
    fields = vars(written) | {"protocol": file.protocol if written.protocol is None else written.protocol}
    return Claim(**fields, id=claim_id, paper=paper, version=file.version, sha=canonical_sha({"id": claim_id, **asked}))


def read_criterion(values: Any, what: str) -> Criterion | Combined:
    """A single test, or several under `all:`, `any:` or `agree:`."""
    how = next((how for how in ("all", "any", "agree") if isinstance(values, dict) and how in values), None)
    if how is None:
        with located(what):
            return from_values(Criterion, values, "criterion")
    if values.keys() - {how, "why"} or not isinstance(values[how], list) or not values[how]:
        raise MotionLabError(f"'{how}' of the {what} must be a list of criteria with at least one entry, and stand alone but for why.")
    parts = [read_criterion(part, f"{what}, {how} [{index}]") for index, part in enumerate(values[how])]
    return Combined(how, tuple(parts), values.get("why"))


def load_all(root: Path | None = None) -> dict[str, PaperClaims]:
    """Every paper's claims, {paper: PaperClaims}, in reading order.

    Raises:
        MotionLabError: as `load_claims`; controls in a circle.
    """
    root = root or repo_root()
    found = {paper: load_claims(paper, root) for paper in papers(root)}
    check_order([claim for claims in found.values() for claim in claims.claims.values()])
    return found


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
