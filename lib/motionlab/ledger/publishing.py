"""A finished run becomes evidence: its files are copied into `reproductions/<paper>/`, its records appended."""
from __future__ import annotations

from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.files import copy_file, read_json, shown, write_atomic, write_json
from motionlab.core.locks import turn
from motionlab.core.paths import repo_root
from motionlab.ledger import manifest
from motionlab.ledger.claims import load_claims, load_measured
from motionlab.ledger.criteria import TIERS, checksum
from motionlab.ledger.shapes import result_problem
from motionlab.ledger.verify import record_problems, sha_of


def read_result(run_dir: str | Path) -> dict:
    """The result.json of a finished run.

    Raises:
        MotionLabError: there is none, or it is no result.
    """
    path = Path(run_dir) / "result.json"
    if not path.exists():
        raise MotionLabError(f"{shown(run_dir)} holds no finished run: result.json is missing.",
                             fix="Run the notebook to its end first (its last cell calls book.close()).")
    result = read_json(path)
    if result is None or not {"paper", "notebook", "tier", "claims"} <= set(result):
        raise MotionLabError(f"{shown(path)} cannot be read, or is no result of a notebook.", fix="Run the notebook again.")
    if problem := result_problem(result, records=False):
        raise MotionLabError(f"{shown(path)} is no result of a notebook: {problem}.", fix="Run the notebook again.")
    return result


def publish(run_dir: str | Path, root: Path | None = None) -> list[str]:
    """Copy a finished run's evidence into reproductions/<paper>/ and append its records; return the ids appended.

    Raw CSV go to raw/, figures and videos to figures/, the notebook and the run's result to executed/. The records go
    last, in one step, so that a run broken off halfway can be published again. The same run twice appends nothing.

    Raises:
        MotionLabError: a smoke run, an unfinished one, records that do not fit raw data or claims as they are now.
    """
    root, run_dir = root or repo_root(), Path(run_dir)
    result = read_result(run_dir)
    if result["tier"] == "smoke":
        raise MotionLabError(f"{shown(run_dir)} is a smoke run, which proves that code runs and is never evidence.",
                             fix="Publish a run of tier laptop, full or paper.")
    with turn(root / "runs" / f".lock-publish-{result['paper']}", f"publishing to {result['paper']}"):
        return _publish(run_dir, result, root)


def _publish(run_dir: Path, result: dict, root: Path) -> list[str]:
    """Two that publish at once would lose one's records: only for who has the turn."""
    home = root / "reproductions" / result["paper"]
    measured = load_measured(result["paper"], root)
    check_publishable(run_dir, result, measured, root)
    places = copy_evidence(run_dir, result, home)
    known = {claim_id: [old.get("checksum") for old in records] for claim_id, records in measured.items()}
    new = {claim_id: record for claim_id, record in result["claims"].items() if record["checksum"] not in known.get(claim_id, [])}
    for claim_id, record in new.items():
        measured.setdefault(claim_id, []).append(record)
    if new:
        write_atomic(home / "measured.yaml", measured_text(measured))
    manifest.enter(root, [*places, home / "measured.yaml"])
    return list(new)


def measured_text(measured: dict[str, list[dict]]) -> str:
    """measured.yaml's text."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    body = yaml.dump(measured, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120) if measured else ""
    return "# Written by published runs only; records are appended, never edited (each carries a checksum).\n" + body


def check_publishable(run_dir: Path, result: dict, measured: dict, root: Path) -> None:
    """Refuse a run that would break what is committed.

    Raises:
        MotionLabError: naming the claim or file and what to do.
    """
    claims, judged = load_claims(result["paper"], root), result["claims"]
    for claim_id, record in judged.items():
        problems = record_problems(claims[claim_id], record, run_dir / "raw")
        if problems:
            raise MotionLabError(f"{claim_id} cannot be published: {problems[0]}", fix=f"Run {result['notebook']} again, then publish.")
    folder = root / "reproductions" / result["paper"] / "raw"
    changed = {one["file"] for one in result.get("raw", []) if one["sha256"] != sha_of(folder / one["file"])}
    for claim_id, records in measured.items():
        newest = records[-1]
        touched = sorted(changed & set(newest["raw"]))
        if touched and claim_id not in judged:
            raise MotionLabError(f"raw/{touched[0]} also stands behind {claim_id}, which this run did not judge.",
                                 fix=f"Judge {claim_id} in the notebook, or write to a raw file of another name.")
        if claim_id in judged and TIERS.index(result["tier"]) < TIERS.index(newest["tier"]):
            raise MotionLabError(f"{claim_id} is published at tier {newest['tier']}; this run is only {result['tier']}.",
                                 fix="It appears in the report as your run; publish a run of the higher tier instead.")


def copy_evidence(run_dir: Path, result: dict, target: Path) -> list[Path]:
    """Copy raw data, pictures, notebook and result of a run, each file in one step; return their new places."""
    others = [path for path in (target / "executed").glob("*.json") if path.stem != result["notebook"]]
    owners = {name: path.stem for path in others if not result_problem(found := read_json(path)) for name in media_files(found)}
    places = [copy(run_dir / "raw" / one["file"], target / "raw" / one["file"]) for one in result.get("raw", [])]
    for name in media_files(result):
        if name in owners:
            raise MotionLabError(f"figures/{name} belongs to notebook {owners[name]}.", fix="Give this figure another name.")
        places.append(copy(run_dir / "figures" / name, target / "figures" / name))
    if (run_dir / "executed.ipynb").exists():
        places.append(copy(run_dir / "executed.ipynb", target / "executed" / f"{result['notebook']}.ipynb"))
    return [*places, write_json(target / "executed" / f"{result['notebook']}.json", {**result, "checksum": checksum(result)})]


def media_files(result: dict) -> list[str]:
    """File names of a result's figures, videos and posters."""
    entries = result.get("figures", []) + result.get("videos", [])
    return [entry[key] for entry in entries for key in ("file", "poster") if entry.get(key)]


def copy(source: Path, target: Path) -> Path:
    """Copy one file so that the target is whole at any moment; return the target.

    Raises:
        MotionLabError: the source is missing, or the target cannot be written.
    """
    if not source.is_file() or not source.resolve().is_relative_to(source.parent.parent.resolve()):
        raise MotionLabError(f"{shown(source)} is missing, though the run's result names it.", fix="Run the notebook again.")
    return copy_file(source, target)
