"""The notebook's side of the ledger: raw numbers, figures and videos in; judged claims out.

    book = open_book()
    book.raw("09_world.csv", rows)
    book.figure(fig, "response_matrix", caption="...", alt="...")
    book.judge("audit.A1")
    book.close()

Everything of a run lies in its `out_dir`; `publishing` copies a finished run's evidence into `reproductions/<paper>/`.
"""
from __future__ import annotations

import html
import math
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import ensure_writable, shown, write_atomic, write_json
from motionlab.core.paths import repo_root
from motionlab.core.protocol import protocol_version
from motionlab.core.provenance import environment
from motionlab.ledger import verdict as judging
from motionlab.ledger.claims import load_claims
from motionlab.ledger.criteria import TIERS, Claim, checksum
from motionlab.ledger.media import enlarged, frame_png, small_png
from motionlab.ledger.notebooks import Notebook, parameters_now, this_notebook

FIRST = ["item", "arm", "seed"]  # columns of every raw file


def open_book(notebook: str | None = None) -> Book:
    """Start the record of this notebook's run, with all that it was run with.

    Its parameters are the names in its cell tagged `parameters`, with the values that they have now; among them `tier`,
    and `out_dir`, where the run's files go (made if missing; a relative one counts from the repository's root).

    Args:
        notebook: its stem, such as "09_motion_metrics_audit": only needed where nothing else tells it.

    Raises:
        MotionLabError: no notebook of that name, a parameter that is not set, unknown tier, malformed claims, an output
            folder that cannot be written; tier paper of a notebook that takes a `backbone`, without one.
    """
    root = repo_root()
    values = namespace(sys._getframe(1).f_globals)
    return Book(this_notebook(values, root, notebook), values, root)


def namespace(caller: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names of the notebook's kernel; outside of one, those of the module that asks."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell.user_ns if shell else caller


class Record(dict):
    """A judged claim's record: a dict that shows itself as a small table in a notebook."""

    def __init__(self, claim: Claim, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.claim = claim

    def _repr_html_(self) -> str:
        cells = [(judging.name_of(part), judging.part_text(part), part["verdict"]) for part in self["parts"]]
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
        paper = f" The paper: {html.escape(self.claim.paper_value)}." if self.claim.paper_value else ""
        head = f"{html.escape(self.claim.id)}: {html.escape(self['verdict'])}"
        return f"<p><b>{head}</b>. {html.escape(self.claim.says)}{paper}</p><table>{rows}</table>"

    def __repr__(self) -> str:
        return judging.record_text(self.claim.id, self)


class Book:
    """One notebook run being recorded; made by `open_book`.

    Args:
        values: names and values, among them the notebook's parameters.
    """

    def __init__(self, notebook: Notebook, values: Mapping[str, Any], root: Path):
        self.notebook, self.root = notebook.stem, root
        self.tier = one_of(values.get("tier", "laptop"), TIERS, "tier")
        self.params = plain(parameters_now(notebook, values))
        if self.tier == "paper" and self.params.get("backbone") == "":
            raise MotionLabError(f"Tier paper of {notebook.stem} runs on a pretrained backbone, and none was named.",
                                 fix="Add -p backbone=FOLDER, a diffusers snapshot on this machine (and -p device=cuda).")
        self.claims = load_claims(notebook.paper, root)
        self.out_dir = ensure_writable((root / values.get("out_dir", f"runs/{self.tier}/{notebook.stem}")).resolve())
        self.started, self.environment = time.perf_counter(), environment(root, self.params.get("device"))
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
        missing = [column for column in FIRST if column not in frame.columns]
        if missing or frame.empty:
            raise MotionLabError(f"Raw data '{name}' " + (f"lacks the column '{missing[0]}'." if missing else "has no rows."),
                                 fix="Give one row per item, arm and seed, with the metrics as further columns.")
        frame = frame[FIRST + [column for column in frame.columns if column not in FIRST]]
        frame = frame.assign(item=frame["item"].map(str), arm=frame["arm"].map(str))
        return self._keep_raw(name, csv_text(frame), frame)

    def committed(self, name: str = "sweep_full.csv"):
        """Rows that `motionlab sweep --publish` committed, byte by byte as this run's raw data too; as a DataFrame.

        Raises:
            MotionLabError: nothing of that name was published; the command is named.
        """
        import pandas

        check_name(name, r"[\w.-]+\.csv", "raw file")
        source = self.root / "reproductions" / self.claims.paper / "raw" / name
        if not source.is_file():
            paper, stem, main = self.claims.paper, name.rpartition("_")[0], source.parents[1] / "ablations.yaml"
            mains = stem == "sweep" or main.is_file() and f"\npublishes: {stem}\n" in main.read_text(encoding="utf-8")
            arms = paper if mains else f"reproductions/{paper}/{stem}.yaml"
            raise MotionLabError(f"{shown(source, self.root)} is not there: its arms have not been published.",
                                 fix=f"motionlab sweep {arms} --tier full --publish")
        return self._keep_raw(name, source.read_bytes(), pandas.read_csv(source, dtype={"item": str, "arm": str}))

    def _keep_raw(self, name: str, data: str | bytes, frame):
        path = write_atomic(self.out_dir / "raw" / name, data)
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
        about = {"caption": caption, "alt": alt or caption, "claims": [self.claims[claim_id].id for claim_id in claims]}
        path = write_atomic(self.out_dir / "figures" / f"{name}.png", small_png(fig))
        self.figures[name] = {"file": path.name, **about, "sha256": judging.file_sha(path)}
        return path

    def video(self, frames: np.ndarray, name: str, fps: float, caption: str = "", claims: tuple[str, ...] = ()) -> Path:
        """Save a short clip as out_dir/figures/<name>.mp4 with a poster beside it; return its path.

        Args:
            frames: uint8 (f, h, w, 3) RGB.
            fps: frames per second.

        Raises:
            MotionLabError: a bad name, other frames, a folder that cannot be written, no H.264 encoder.
        """
        from motionlab.video import write_mp4

        check_name(name, r"[\w-]+", "video")
        frames = np.asarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size or not fps > 0:
            raise MotionLabError(f"Video '{name}' is {frames.dtype} of shape {frames.shape} at {fps} fps.",
                                 fix="Give uint8 (frames, height, width, 3) with at least one frame, and fps above 0.")
        about = {"caption": caption, "fps": fps, "claims": [self.claims[claim_id].id for claim_id in claims]}
        path, frames = self.out_dir / "figures" / f"{name}.mp4", enlarged(frames)
        write_mp4(path, frames, fps, crf=20)
        poster = write_atomic(path.with_suffix(".poster.png"), frame_png(frames[len(frames) // 2]))
        size = [int(frames.shape[2]), int(frames.shape[1])]
        self.videos[name] = {"file": path.name, "poster": poster.name, **about, "size": size, "sha256": judging.file_sha(path)}
        return path

    def judge(self, claim_id: str) -> Record:
        """Judge a claim from the raw files written so far; print one line; return the record.

        Raises:
            MotionLabError: unknown claim, a draft, no criterion, raw data that lacks what the criterion names.
        """
        claim = self.claims[claim_id]
        if claim.not_transferable:
            record = Record(claim, verdict="not transferable", reason=claim.not_transferable.reason, parts=[])
        elif claim.status == "draft" or claim.criterion is None:
            what = "a draft" if claim.status == "draft" else "without a criterion"
            raise MotionLabError(f"Claim '{claim_id}' is {what}, so it cannot be judged.",
                                 fix=f"Settle its criterion in reproductions/{claim.paper}/claims.yaml before measuring.")
        else:
            record = self.records[claim_id] = Record(claim, plain(self._record(claim)))
            record["checksum"] = checksum(record)
        print("\n".join([judging.record_text(claim_id, record), *read_with(claim)]))
        return record

    def final_claims(self) -> list[str]:
        """Ids of this notebook's claims whose criterion is settled, in the file's order."""
        mine = [claim for claim in self.claims.claims.values() if claim.notebook == self.notebook]
        return [claim.id for claim in mine if claim.status == "final" and claim.criterion is not None]

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
        return write_json(self.out_dir / "result.json", plain({
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
        }))

    def _table(self, name: str):
        if name not in self.raws:
            raise MotionLabError("this run has not written that raw file.", fix=f'Call book.raw("{name}", rows) before judging.')
        return judging.read_raw(self.out_dir / "raw" / name)

    def _seconds(self) -> float:
        return round(time.perf_counter() - self.started, 2)

    def _record(self, claim: Claim) -> dict:
        word, parts = judging.judge(claim.criterion, self._table)
        return {
            "verdict": word,
            "parts": parts,
            "tier": self.tier,
            "notebook": self.notebook,
            "params": self.params,
            "criterion_version": claim.version,
            "protocol": protocol_version(self.root),
            "control": list(claim.control),
            "claim_sha": claim.sha,
            "raw": {name: self.raws[name]["sha256"] for name in sorted({leaf.raw for leaf in claim.criterion.leaves()})},
            **{key: self.environment[key] for key in ("commit", "dirty", "date", "device", "versions")},
            "seconds": self._seconds(),
        }


def read_with(claim: Claim) -> list[str]:
    """What a reader of a record must know before the report tells how its claim stands: a ruling, or controls; a line or none."""
    if claim.ruling:
        return [f"    shown as {claim.ruling.verdict}: {claim.ruling.reason}"]
    if claim.control:
        return [f"    counts only while {' and '.join(claim.control)} hold{'s' * (len(claim.control) == 1)}, else it is blind"]
    return []


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
    raise MotionLabError(f"{value!r} ({type(value).__name__}) has no JSON form.", fix="Keep numbers, text, lists and dicts.")


def csv_text(frame) -> str:
    """A DataFrame as CSV text: floats with nine significant digits, missing values empty, Unix newlines."""
    return frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
