"""The notebook's side of the ledger: raw numbers, figures and videos in; judged claims out; and publishing a run.

    book = open_book("audit", notebook="09_motion_metrics_audit", tier=tier, out_dir=out_dir, params={...})
    book.raw("09_world.csv", rows)
    book.figure(fig, "response_matrix", caption="...", alt="...")
    book.judge("audit.A1")
    book.close()

Everything of a run lies in its `out_dir`; `publish` copies a finished run's evidence into `reproductions/<paper>/`.
"""

from __future__ import annotations

import html
import io
import json
import math
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.ledger import verdict as judging
from motionlab.ledger.claims import TIERS, Claim, checksum, load_claims, load_measured
from motionlab.core.files import ensure_writable, replacing, shown, write_atomic
from motionlab.core.provenance import environment
from motionlab.core.paths import repo_root

FIGURE_BYTES = 200 * 1024
VIDEO_SIDE = 192  # small clips are enlarged by a whole factor to at least this many pixels


# -------------------------------------------------------------------------------------------------------- in a notebook


def open_book(paper: str, notebook: str, tier: str, out_dir: str | Path, params: dict | None = None) -> Book:
    """Start the record of one notebook run.

    Args:
        paper: folder in reproductions/ whose claims this notebook judges.
        notebook: its stem, such as "09_motion_metrics_audit".
        tier: smoke, laptop, full or paper.
        out_dir: where this run's files go (made if missing); a relative one counts from the repository's root, so that
            a notebook opened in JupyterLab writes where the runner would.
        params: the notebook's parameters, for the record.

    Raises:
        MotionLabError: unknown paper or tier, malformed claims, an output folder that cannot be written; tier paper of a
            notebook that takes a `backbone`, without one.
    """
    one_of(tier, TIERS, "tier")
    if tier == "paper" and dict(params or {}).get("backbone") == "":
        raise MotionLabError(
            f"Tier paper of {notebook} runs on a pretrained backbone, and none was named.",
            fix="Add -p backbone=FOLDER, a diffusers snapshot on this machine (and -p device=cuda).",
        )
    root = repo_root()
    return Book(
        load_claims(paper, root), notebook, tier, ensure_writable((root / out_dir).resolve()), dict(params or {}), root
    )


class Record(dict):
    """A judged claim's record: a dict that shows itself as a small table in a notebook."""

    def __init__(self, claim: Claim, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.claim = claim

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(judging.name_of(part))}</td><td>{html.escape(judging.part_text(part))}</td>"
            f"<td>{part['verdict']}</td></tr>"
            for part in self["parts"]
        )
        paper = f" The paper: {html.escape(self.claim.paper_value)}." if self.claim.paper_value else ""
        return (
            f"<p><b>{html.escape(self.claim.id)}: {self['verdict']}</b>. {html.escape(self.claim.says)}{paper}</p>"
            f"<table>{rows}</table>"
        )

    def __repr__(self) -> str:
        return judging.record_text(self.claim.id, self)


class Book:
    """One notebook run being recorded; made by `open_book`."""

    def __init__(self, claims, notebook: str, tier: str, out_dir: Path, params: dict, root: Path):
        self.claims, self.notebook, self.tier, self.out_dir, self.root = claims, notebook, tier, out_dir, root
        self.params = plain(params)
        self.started = time.perf_counter()
        self.environment = environment(root, self.params.get("device"))
        self.records: dict[str, Record] = {}
        self.raws: dict[str, dict] = {}
        self.figures: dict[str, dict] = {}
        self.videos: dict[str, dict] = {}
        self.notes: dict[str, Any] = {}

    def raw(self, name: str, rows):
        """Write per-item numbers to out_dir/raw/<name>; return them as a DataFrame.

        Args:
            name: file name ending in .csv.
            rows: list of dicts or DataFrame with the columns item, arm, seed and the metrics.

        Raises:
            MotionLabError: a bad name, no rows, a missing column, a folder that cannot be written.
        """
        import pandas

        check_name(name, r"[\w.-]+\.csv", "raw file")
        frame = pandas.DataFrame(rows).reset_index(drop=True)
        missing = [column for column in ("item", "arm", "seed") if column not in frame.columns]
        if missing or frame.empty:
            raise MotionLabError(
                f"Raw data '{name}' " + (f"lacks the column '{missing[0]}'." if missing else "has no rows."),
                fix="Give one row per item, arm and seed, with the metrics as further columns.",
            )
        frame = frame[
            ["item", "arm", "seed"] + [column for column in frame.columns if column not in ("item", "arm", "seed")]
        ]
        frame = frame.assign(item=frame["item"].map(str), arm=frame["arm"].map(str))
        path = write_atomic(self.out_dir / "raw" / name, csv_text(frame))
        self.raws[name] = {"file": name, "sha256": judging.file_sha(path), "rows": len(frame)}
        return frame

    def committed(self, name: str = "sweep_full.csv"):
        """Rows that `motionlab sweep --publish` committed, byte by byte as this run's raw data too; as a DataFrame.

        Raises:
            MotionLabError: nothing of that name was published; the command is named.
        """
        import pandas

        check_name(name, r"[\w.-]+\.csv", "raw file")
        source = self.root / "reproductions" / self.claims.paper / "raw" / name
        if not source.is_file():
            paper, stem = self.claims.paper, name.rpartition("_")[0]
            arms = paper if stem == "sweep" else f"reproductions/{paper}/{stem}.yaml"
            raise MotionLabError(
                f"{shown(source, self.root)} is not there: its arms have not been published.",
                fix=f"motionlab sweep {arms} --tier full --publish",
            )
        path = write_atomic(self.out_dir / "raw" / name, source.read_bytes())
        frame = pandas.read_csv(path, dtype={"item": str, "arm": str})
        self.raws[name] = {"file": name, "sha256": judging.file_sha(path), "rows": len(frame)}
        return frame

    def figure(self, fig, name: str, caption: str = "", alt: str = "", claims: tuple[str, ...] = ()) -> Path:
        """Save a matplotlib Figure as out_dir/figures/<name>.png of at most 200 KB; return its path.

        Args:
            caption: what the reader sees and should take from it.
            alt: what is drawn, for those who cannot see it.
            claims: ids of the claims it belongs to.

        Raises:
            MotionLabError: a bad name, an unknown claim, a folder that cannot be written.
        """
        check_name(name, r"[\w-]+", "figure")
        for claim_id in claims:
            self.claims[claim_id]
        path = write_atomic(self.out_dir / "figures" / f"{name}.png", small_png(fig))
        self.figures[name] = {
            "file": path.name,
            "caption": caption,
            "alt": alt or caption,
            "claims": list(claims),
            "sha256": judging.file_sha(path),
        }
        return path

    def video(self, frames: np.ndarray, name: str, fps: float, caption: str = "", claims: tuple[str, ...] = ()) -> Path:
        """Save a short clip as out_dir/figures/<name>.mp4 with a poster beside it; return its path.

        Args:
            frames: uint8 (f, h, w, 3) RGB.
            fps: frames per second.

        Raises:
            MotionLabError: a bad name, other frames, a folder that cannot be written, no H.264 encoder.
        """
        check_name(name, r"[\w-]+", "video")
        frames = np.asarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size or not fps > 0:
            raise MotionLabError(
                f"Video '{name}' is {frames.dtype} of shape {frames.shape} at {fps} fps.",
                fix="Give uint8 (frames, height, width, 3) with at least one frame, and fps above 0.",
            )
        for claim_id in claims:
            self.claims[claim_id]
        from motionlab.video import write_mp4

        folder, frames = self.out_dir / "figures", enlarged(frames)
        write_mp4(folder / f"{name}.mp4", frames, fps, crf=20)
        write_atomic(folder / f"{name}.poster.png", png_bytes(frames[len(frames) // 2]))
        self.videos[name] = {
            "file": f"{name}.mp4",
            "poster": f"{name}.poster.png",
            "caption": caption,
            "fps": fps,
            "size": [int(frames.shape[2]), int(frames.shape[1])],
            "claims": list(claims),
            "sha256": judging.file_sha(folder / f"{name}.mp4"),
        }
        return folder / f"{name}.mp4"

    def judge(self, claim_id: str) -> Record:
        """Judge a claim from the raw files written so far; print one line; return the record.

        Raises:
            MotionLabError: unknown claim, a draft, no criterion, raw data that lacks what the criterion names.
        """
        claim = self.claims[claim_id]
        if claim.not_transferable:
            record = Record(claim, verdict="not transferable", reason=claim.not_transferable, parts=[])
            print(judging.record_text(claim_id, record))
            return record
        if claim.status == "draft" or claim.criterion is None:
            what = "a draft" if claim.status == "draft" else "without a criterion"
            raise MotionLabError(
                f"Claim '{claim_id}' is {what}, so it cannot be judged.",
                fix=f"Settle its criterion in reproductions/{claim.paper}/claims.yaml before measuring.",
            )
        word, parts = judging.judge(claim.criterion, self._table)
        record = Record(claim, plain(self._record(claim, word, parts)))
        record["checksum"] = checksum(record)
        self.records[claim_id] = record
        print(judging.record_text(claim_id, record))
        return record

    def final_claims(self) -> list[str]:
        """Ids of this notebook's claims whose criterion is settled, in the file's order."""
        return [
            claim.id
            for claim in self.claims.claims.values()
            if claim.notebook == self.notebook and claim.status == "final" and claim.criterion is not None
        ]

    def note(self, key: str, value: Any) -> None:
        """Keep any measured JSON value with the run.

        Raises:
            MotionLabError: the value has no JSON form.
        """
        self.notes[key] = plain(value)

    def close(self) -> Path:
        """Write out_dir/result.json in one step, which marks the run as finished; return its path.

        Raises:
            MotionLabError: full disk, read-only folder.
        """
        result = {
            "notebook": self.notebook,
            "paper": self.claims.paper,
            "tier": self.tier,
            "params": self.params,
            "claims": self.records,
            "figures": list(self.figures.values()),
            "videos": list(self.videos.values()),
            "raw": list(self.raws.values()),
            "notes": self.notes,
            "seconds": self._seconds(),
            "environment": self.environment,
        }
        return write_atomic(self.out_dir / "result.json", json_text(result))

    def _table(self, name: str):
        if name not in self.raws:
            raise MotionLabError(
                "this run has not written that raw file.", fix=f'Call book.raw("{name}", rows) before judging.'
            )
        return judging.read_raw(self.out_dir / "raw" / name)

    def _seconds(self) -> float:
        return round(time.perf_counter() - self.started, 2)

    def _record(self, claim: Claim, word: str, parts: list[dict]) -> dict:
        files = sorted({leaf.raw for leaf in claim.criterion.leaves()})
        return {
            "verdict": word,
            "parts": parts,
            "tier": self.tier,
            "notebook": self.notebook,
            "params": self.params,
            "criterion_version": claim.version,
            "claim_sha": claim.sha,
            "raw": {name: self.raws[name]["sha256"] for name in files},
            **{key: self.environment[key] for key in ("commit", "dirty", "date", "device", "versions")},
            "seconds": self._seconds(),
        }


# -------------------------------------------------------------------------------------------------------- what it needs


def check_name(name: str, pattern: str, what: str) -> None:
    """Refuse names that are no plain file names.

    Raises:
        MotionLabError: letters, digits, _ and - only (and the ending where it belongs).
    """
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        ending = " and the ending .csv" if "csv" in pattern else ", and no ending"
        raise MotionLabError(f"'{name}' is no good name for a {what}.", fix=f"Use letters, digits, _ and -{ending}.")


def plain(value: Any) -> Any:
    """The JSON form of a value: numpy and pathlib become plain types, NaN and infinities become None.

    Raises:
        MotionLabError: the value has none.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    raise MotionLabError(
        f"{value!r} ({type(value).__name__}) has no JSON form.", fix="Keep numbers, text, lists and dicts."
    )


def json_text(data: Any) -> str:
    """Plain data as indented JSON with a final newline."""
    return json.dumps(plain(data), indent=1, ensure_ascii=False) + "\n"


def csv_text(frame) -> str:
    """A DataFrame as CSV text: floats with nine significant digits, missing values empty, Unix newlines."""
    return frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")


# ----------------------------------------------------------------------------------------------------- pictures, videos


def small_png(fig, limit: int = FIGURE_BYTES) -> bytes:
    """A matplotlib Figure as PNG of at most `limit` bytes: first a palette, then lower resolutions."""
    from PIL import Image

    for dpi in (144, 110, 80, 56, 40, 28):
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
        if buffer.tell() <= limit:
            return buffer.getvalue()
        image = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
        if len(data := palette_png(image)) <= limit:
            return data
    while len(data) > limit:  # a huge figure: halve the pixels until it fits
        image = image.resize((max(1, image.width * 7 // 10), max(1, image.height * 7 // 10)))
        data = palette_png(image)
    return data


def palette_png(image) -> bytes:
    """A PIL image as PNG with 256 colours."""
    from PIL import Image

    buffer = io.BytesIO()
    image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        buffer, format="PNG", optimize=True
    )
    return buffer.getvalue()


def png_bytes(frame: np.ndarray) -> bytes:
    """One frame, uint8 (h, w, 3), as PNG of at most the figures' size."""
    from PIL import Image

    image = Image.fromarray(frame)
    data = palette_png(image)
    while len(data) > FIGURE_BYTES:
        image = image.resize((image.width * 7 // 10, image.height * 7 // 10))
        data = palette_png(image)
    return data


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames (f, h, w, 3) repeated by a whole factor to at least VIDEO_SIDE, then to even sides."""
    factor = max(1, -(-VIDEO_SIDE // min(frames.shape[1:3])))
    frames = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    return np.ascontiguousarray(np.pad(frames, odd, mode="edge"))


# ----------------------------------------------------------------------------------------------------------- publishing


def read_result(run_dir: str | Path) -> dict:
    """The result.json of a finished run.

    Raises:
        MotionLabError: there is none, or it is no JSON.
    """
    path = Path(run_dir) / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MotionLabError(
            f"{shown(run_dir)} holds no finished run: result.json is missing.",
            fix="Run the notebook to its end first (its last cell calls book.close()).",
        ) from error
    except (ValueError, OSError) as error:
        raise MotionLabError(f"{shown(path)} cannot be read: {error}.", fix="Run the notebook again.") from error
    if not isinstance(result, dict) or not {"paper", "notebook", "tier", "claims"} <= set(result):
        raise MotionLabError(f"{shown(path)} is no result of a notebook.", fix="Run the notebook again.")
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
        raise MotionLabError(
            f"{shown(run_dir)} is a smoke run, which proves that code runs and is never evidence.",
            fix="Publish a run of tier laptop, full or paper.",
        )
    paper = result["paper"]
    measured = load_measured(paper, root)
    check_publishable(run_dir, result, measured, root)
    copy_evidence(run_dir, result, root / "reproductions" / paper)
    new = [
        claim_id
        for claim_id, record in result["claims"].items()
        if record["checksum"] not in [old.get("checksum") for old in measured.get(claim_id, [])]
    ]
    for claim_id in new:
        measured.setdefault(claim_id, []).append(result["claims"][claim_id])
    if new:
        write_atomic(root / "reproductions" / paper / "measured.yaml", measured_text(measured))
    return new


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
    from motionlab.ledger.verify import record_problems

    claims, again = load_claims(result["paper"], root), f"Run {result['notebook']} again, then publish."
    for claim_id, record in result["claims"].items():
        problems = record_problems(claims[claim_id], record, run_dir / "raw")
        if problems:
            raise MotionLabError(f"{claim_id} cannot be published: {problems[0]}", fix=again)
    folder = root / "reproductions" / result["paper"] / "raw"
    changed = {one["file"] for one in result.get("raw", []) if one["sha256"] != sha_or_none(folder / one["file"])}
    for claim_id, records in measured.items():
        newest = records[-1]
        touched = sorted(changed & set(newest["raw"]))
        if touched and claim_id not in result["claims"]:
            raise MotionLabError(
                f"raw/{touched[0]} also stands behind {claim_id}, which this run did not judge.",
                fix=f"Judge {claim_id} in the notebook, or write to a raw file of another name.",
            )
        if claim_id in result["claims"] and TIERS.index(result["tier"]) < TIERS.index(newest["tier"]):
            raise MotionLabError(
                f"{claim_id} is published at tier {newest['tier']}; this run is only {result['tier']}.",
                fix="It appears in the report as your run; publish a run of the higher tier instead.",
            )


def sha_or_none(path: Path) -> str | None:
    """A file's sha256, or None where it is missing."""
    return judging.file_sha(path) if path.exists() else None


def copy_evidence(run_dir: Path, result: dict, target: Path) -> None:
    """Copy raw data, pictures, notebook and result of a run; each file in one step."""
    for one in result.get("raw", []):
        copy(run_dir / "raw" / one["file"], target / "raw" / one["file"])
    for name in media_files(result):
        owner = [
            path.stem
            for path in (target / "executed").glob("*.json")
            if path.stem != result["notebook"] and name in media_files(json.loads(path.read_text(encoding="utf-8")))
        ]
        if owner:
            raise MotionLabError(
                f"figures/{name} belongs to notebook {owner[0]}.", fix="Give this figure another name."
            )
        copy(run_dir / "figures" / name, target / "figures" / name)
    if (run_dir / "executed.ipynb").exists():
        copy(run_dir / "executed.ipynb", target / "executed" / f"{result['notebook']}.ipynb")
    result = {**result, "checksum": checksum(result)}
    write_atomic(target / "executed" / f"{result['notebook']}.json", json_text(result))


def media_files(result: dict) -> list[str]:
    """File names of a result's figures, videos and posters."""
    return [
        entry[key]
        for entry in result.get("figures", []) + result.get("videos", [])
        for key in ("file", "poster")
        if entry.get(key)
    ]


def copy(source: Path, target: Path) -> None:
    """Copy one file so that the target is whole at any moment.

    Raises:
        MotionLabError: the source is missing, or the target cannot be written.
    """
    if not source.exists():
        raise MotionLabError(
            f"{shown(source)} is missing, though the run's result names it.", fix="Run the notebook again."
        )
    with replacing(target) as draft:
        shutil.copyfile(source, draft)
