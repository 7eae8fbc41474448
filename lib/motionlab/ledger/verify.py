"""Recompute every verdict and table from the committed raw data; say in sentences what does not agree.

Runs in seconds and needs neither models nor torch. Three things are looked at: whether verdicts, tables and choices follow from
the raw rows (here), whether every file of evidence is the one listed (`manifest`), and, where git is at hand, whether criteria
were committed before their measurements and nothing was lost since (`history`).
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.files import read_json
from motionlab.core.paths import repo_root
from motionlab.ledger import detectable, history, manifest
from motionlab.ledger import verdict as judging
from motionlab.ledger.claims import load_claims, load_measured
from motionlab.ledger.criteria import Claim, PaperClaims, checksum, papers
from motionlab.ledger.history import Examined
from motionlab.ledger.selection import sweep_problems
from motionlab.ledger.shapes import record_problem, result_problem
from motionlab.ledger.snapshots import read_records, seen
from motionlab.ledger.soundness import reading_problems

TOLERANCE = 1e-6
Load = Callable[[str], judging.Table]
NUMBERS = ("estimate", "ci95", "n", "n_undefined", "by_seed")


def verify(root: str | Path | None = None, since: str | None = None) -> list[str]:
    """Check everything committed under reproductions/, each RESULTS.md, the README's table, and the history of all this.

    Args:
        since: a git revision; of history only what came after it is looked at.

    Returns:
        One sentence per problem; an empty list when all is well.

    Raises:
        MotionLabError: no such revision, exceptions that are none.
    """
    return examine(root, since).problems


def examine(root: str | Path | None = None, since: str | None = None) -> Examined:
    """`verify`, with notes on what was looked at and what could not be."""
    root = Path(root) if root else repo_root()
    found = history.examine(root, since)
    problems = power_problems(root) + [problem for paper in papers(root) for problem in paper_problems(paper, root)]
    problems = problems or rendered_problems(root)
    return Examined(problems + manifest.problems(root) + found.problems, found.notes)


def paper_problems(paper: str, root: Path) -> list[str]:
    """Problems of one paper's claims, records, raw data, chosen rates, budgets and published runs."""
    folder = root / "reproductions" / paper
    try:
        claims, measured = load_claims(paper, root), load_measured(paper, root)
    except MotionLabError as error:
        return [str(error)]
    found, raw = format_problems(paper, measured, root), folder / "raw"
    load = functools.cache(lambda name: judging.read_raw(raw / name))  # many claims are judged from one file
    found += [f"reproductions/{paper}/measured.yaml: {problem}" for claim_id, records in measured.items()
             for problem in history_problems(claim_id, records, claims, raw, load)]
    found += sweep_problems(folder)
    return found + [problem for path in sorted((folder / "executed").glob("*.json")) for problem in run_problems(path, root)]


def format_problems(paper: str, measured: dict, root: Path) -> list[str]:
    """Is a measured.yaml written as publishing writes it? Otherwise its history would be read differently."""
    path = root / "reproductions" / paper / "measured.yaml"
    lines = read_records(path.read_text(encoding="utf-8")) if path.exists() else {}
    if lines == {claim: list(map(seen, records)) for claim, records in measured.items()}:
        return []
    return [f"reproductions/{paper}/measured.yaml is not as publishing writes it; restore it with git."]


def history_problems(claim_id: str, records: list[dict], claims: PaperClaims, raw: Path, load: Load) -> list[str]:
    """Problems of one claim's list of records: each record's checksum, the versions, and all of the newest record."""
    if claim_id not in claims.claims:
        return [f"{claim_id} is measured, but claims.yaml has no such claim."]
    if not records:
        return [f"{claim_id} has an empty list of records."]
    broken = [index for index, record in enumerate(records) if record.get("checksum") != checksum(record)]
    if broken:
        return [f"record {index + 1} of {claim_id} was edited after it was written (its checksum differs); restore it with git."
                for index in broken]
    return [f"{claim_id}: {problem}" for problem in version_problems(records) + record_problems(claims[claim_id], records[-1], raw, load)]


def version_problems(records: list[dict]) -> list[str]:
    """A criterion that changed between two records must carry another version."""
    asked: dict[int, list] = {}
    for record in records:
        now = [{key: part.get(key) or None for key in judging.ASKED} for part in record["parts"]]
        if asked.setdefault(record["criterion_version"], now) != now:
            return [f"its criterion changed without a new version (both are version {record['criterion_version']}); "
                    "raise `version` in claims.yaml, give the reason in `history`, and measure again."]
    return []


def record_problems(claim: Claim, record: dict, raw: Path, load: Load | None = None) -> list[str]:
    """Problems of a claim's newest record, judged again from the raw files in folder `raw`, which `load` may have read before.

    Used by `verify` on what is committed and by `publish` on what is about to be.
    """
    if problem := record_problem(record):
        return [f"the record is none: {problem}."]
    if record.get("checksum") != checksum(record):
        return ["the record was edited after it was written (its checksum differs)."]
    if record["tier"] == "smoke":
        return ["its record is of tier smoke, which is never evidence."]
    if record["claim_sha"] != claim.sha:
        return [f"the claim changed after it was measured (on {record['date']}); raise `version` in claims.yaml with the "
                f"reason, run {record['notebook']} again and publish it."]
    if claim.status == "draft" or claim.criterion is None:
        return ["it is measured, but the claim is a draft or has no criterion."]
    if problems := reading_problems(claim, record):
        return problems
    files = [f"raw/{name} is not the file that was judged (its sha256 differs or it is missing); restore it with git, "
             f"or run {record['notebook']} again." for name, sha in record["raw"].items() if sha != sha_of(raw / name)]
    return files or recomputed_problems(claim, record, load or (lambda name: judging.read_raw(raw / name)))


def recomputed_problems(claim: Claim, record: dict, load: Load) -> list[str]:
    """Differences between a record and its verdict recomputed now."""
    try:
        word, parts = judging.judge(claim.criterion, functools.cache(load))
    except MotionLabError as error:
        return [str(error)]
    found = [] if word == record["verdict"] else [f"recorded as '{record['verdict']}', recomputed as '{word}'."]
    if len(parts) != len(record["parts"]):
        return found + [f"{len(record['parts'])} parts recorded, {len(parts)} recomputed."]
    for now, then in zip(parts, ({"minus_best": []} | part for part in record["parts"])):       # older records know no such field
        found += [f"{judging.name_of(now)}: {key} recorded as {then.get(key)}, recomputed as {now[key]}."
                  for key in (*judging.ASKED, *NUMBERS, "verdict") if not close(now[key], then.get(key))]
    return found


def close(a, b) -> bool:
    """Equal plain data, with floats compared to a relative 1e-6."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12)
    return a == b


def run_problems(path: Path, root: Path) -> list[str]:
    """Problems of one published run (executed/<notebook>.json): its checksum, and its raw files and figures."""
    name, folder = path.relative_to(root).as_posix(), path.parent.parent
    result = read_json(path)
    if result is None:
        return [f"{name} cannot be read; restore it with git."]
    if problem := result_problem(result):
        return [f"{name} is no result of a notebook ({problem}); restore it with git."]
    if result.get("checksum") != checksum(result):
        return [f"{name} was edited after it was written (its checksum differs); restore it with git."]
    named = [("figures" if key != "raw" else key, one) for key in ("raw", "figures", "videos") for one in result.get(key, [])]
    return [f"{name}: {place}/{one['file']} is missing or was changed; restore it with git, or publish the run again."
            for place, one in named if one.get("sha256") != sha_of(folder / place / one["file"])]


def sha_of(path: Path) -> str | None:
    """A file's sha256, or None where it is missing."""
    return judging.file_sha(path) if path.exists() else None


def power_problems(root: Path) -> list[str]:
    """Is the protocol's table of detectable differences the one that the raw rows give?"""
    try:
        committed = detectable.read(root)
        if committed is None or committed[1] == detectable.made(root):
            return []
    except MotionLabError as error:
        return [str(error)]
    return ["reproductions/protocol.yaml: the table of detectable differences is not the one that its rows give; run `motionlab power`."]


def rendered_problems(root: Path) -> list[str]:
    """Are every RESULTS.md and the README's table the ones rendered from the data?"""
    from motionlab.ledger.results import readme_with_table, render_results
    from motionlab.ledger.standings import chapters

    try:
        found = chapters(root)
        texts = {root / "README.md": readme_with_table((root / "README.md").read_text(encoding="utf-8"), root, found),
                 **render_results(root, found)}
    except OSError:
        return ["README.md is missing; restore it with git."]
    except MotionLabError as error:
        return [str(error)]
    return [f"{path.relative_to(root).as_posix()}{': the claims table' if path.name == 'README.md' else ''} is not the one rendered from "
            "claims.yaml and measured.yaml; run `motionlab report`."
            for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
