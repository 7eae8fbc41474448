"""What a record and a result must look like before anything is done with them: both are files, and files come from anywhere."""
from __future__ import annotations

import re
from numbers import Real
from typing import Any

from motionlab.ledger.criteria import TIERS, VERDICTS

FILE_NAME = re.compile(r"(?!\.)[\w.,+=@ -]{1,200}(?<![. ])")
RECORD = {"tier": str, "notebook": str, "params": dict, "criterion_version": int, "claim_sha": str, "raw": dict, "date": str,
          "device": str, "versions": dict, "checksum": str, "parts": list}
PART = {"raw": str, "metric": str, "arm": str, "statistic": str, "where": dict, "n": int, "n_undefined": int, "verdict": str,
        "within": list, "ci95": list}
RESULT = {"paper": str, "notebook": str, "tier": str, "claims": dict}


def is_file_name(name: Any) -> bool:
    """A plain name of a file in a folder: no path, nothing hidden, the same on every system."""
    return isinstance(name, str) and FILE_NAME.fullmatch(name) is not None


def record_problem(record: Any) -> str | None:
    """What a record of measured.yaml or of a result lacks, in words; None when it is one."""
    if problem := _fields(record, RECORD):
        return problem
    if record.get("verdict") not in VERDICTS:
        return f"its verdict is {record.get('verdict')!r}"
    if record["tier"] not in TIERS:
        return f"its tier is {record['tier']!r}"
    if not isinstance(record.get("commit"), str | None) or not isinstance(record.get("seconds", 0), Real):
        return "its commit or seconds are of another kind"
    if bad := next((name for name, sha in record["raw"].items() if not is_file_name(name) or not isinstance(sha, str)), None):
        return f"its raw file {bad!r} is no name of a file"
    return next((f"part {k + 1}: {problem}" for k, part in enumerate(record["parts"]) if (problem := part_problem(part))), None)


def part_problem(part: Any) -> str | None:
    """What a part of a record lacks."""
    if problem := _fields(part, PART):
        return problem
    for name in ("within", "ci95"):
        if len(part[name]) != 2 or not all(_number(value) for value in part[name]):
            return f"its {name} is {part[name]!r}"
    known = part.get("estimate") is not None
    if not _number(part.get("estimate")) or (known and None in part["ci95"]):
        return "its estimate or interval is no number"
    if part["verdict"] not in VERDICTS or part["within"] == [None] * 2:
        return "its bounds or verdict are none"
    if not isinstance(part.get("minus_best", []), list):
        return "its minus_best is no list"
    texts = ("minus", "over", "against", "reason")
    return next((f"its {name} is no text" for name in texts if not isinstance(part.get(name), str | None)), None)


def result_problem(result: Any, records: bool = True) -> str | None:
    """What a result.json lacks, or which path of it is no name inside its folder.

    Args:
        records: whether the records of its claims are looked at too.
    """
    if problem := _fields(result, RESULT):
        return problem
    for name in ("paper", "notebook"):
        if not is_file_name(result[name]):
            return f"its {name} {result[name]!r} is no plain name"
    if result["tier"] not in TIERS:
        return f"its tier is {result['tier']!r}"
    if not _number(result.get("seconds")) or not isinstance(result.get("params", {}), dict):
        return "its seconds or params are of another kind"
    for kind in ("raw", "figures", "videos"):
        listed = result.get(kind, [])
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            return f"its {kind} are no list of files"
        for name in (one.get(key) for one in listed for key in ("file", "poster") if key == "file" or one.get(key) is not None):
            if not is_file_name(name):
                return f"{kind} names {name!r}, which is no name inside its folder"
        if any(map(_odd_entry, listed)):
            return f"an entry of its {kind} is of another kind"
    bad = {claim: problem for claim, record in (result["claims"] if records else {}).items() if (problem := record_problem(record))}
    return next((f"claim {claim}: {problem}" for claim, problem in bad.items()), None)


def _odd_entry(one: dict) -> bool:
    texts = all(isinstance(one.get(key), str | None) for key in ("sha256", "caption", "alt"))
    size = one.get("size") or [1, 1]
    sized = isinstance(size, list) and len(size) == 2 and all(_number(side) for side in size)
    claims = one.get("claims", [])
    return not (texts and sized and isinstance(claims, list) and all(isinstance(claim, str) for claim in claims))


def _fields(data: Any, fields: dict[str, type]) -> str | None:
    if not isinstance(data, dict):
        return "it is no mapping"
    for name, kind in fields.items():
        if not isinstance(data.get(name), kind) or isinstance(data.get(name), bool):
            return f"it lacks '{name}'" if name not in data else f"its {name} is {str(data[name])[:60]!r}"
    return None


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, Real) and not isinstance(value, bool) and value == value)
