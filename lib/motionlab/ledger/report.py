"""The ledger's face for people: `reproductions/report/index.html`, rendered from data (its Markdown is in `results`).

The report is one static page with relative links (templates/report.html): it opens from disk, needs no network and no
script, and is rendered again after each notebook in a fraction of a second. It works before anything is measured.
"""
from __future__ import annotations

import functools
import os
from pathlib import Path
from urllib.parse import quote

from motionlab.core.files import write_atomic
from motionlab.core.paths import repo_root
from motionlab.ledger import verdict as judging
from motionlab.ledger.escaping import html_text, visible
from motionlab.ledger.results import SIGNS, WHOSE
from motionlab.ledger.soundness import protocol_of
from motionlab.ledger.standings import Chapter, Standing, chapters, counted, totals

SOURCES = {
    "stated": "stated in the paper",
    "code": "from the released code",
    "inferred": "inferred from the paper",
    "reported": "reported by others",
    "unverified": "unverified",
    "measured": "our own expectation, not the paper's",
}


def render_report(root: str | Path | None = None, runs_dir: str | Path | None = None) -> Path:
    """Render reproductions/report/index.html in one step; return its path.

    Args:
        runs_dir: folder of the reader's runs, <tier>/<notebook>/result.json; default: runs/ in the root.

    Raises:
        MotionLabError: malformed claims or records, a place that cannot be written.
    """
    import jinja2
    from jinja2.filters import do_mark_safe as safe

    root = Path(root) if root else repo_root()
    target = root / "reproductions" / "report" / "index.html"
    found = chapters(root, Path(runs_dir) if runs_dir else root / "runs")
    templates = Path(__file__).with_name("templates")
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(templates), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              finalize=visible)
    page.filters |= {
        "code": lambda text: safe(html_text(text)),
        "link": lambda path: quote(Path(os.path.relpath(path, target.parent)).as_posix()),
        "seconds": seconds_text,
    }
    page.globals |= {"judging": judging, "SIGNS": SIGNS, "SOURCES": SOURCES, "WHOSE": WHOSE, "counted": counted, "interval": interval,
                     "facts": facts, "media": media}
    style = safe((templates / "report.css").read_text(encoding="utf-8"))
    return write_atomic(target, page.get_template("report.html").render(chapters=found, totals=totals(found), style=style))


def seconds_text(seconds: float | None) -> str:
    """A duration for people."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def facts(row: Standing) -> dict[str, str]:
    """Criterion, cost and provenance of the record shown."""
    record, criterion = row.record or row.yours, row.claim.criterion
    whys = dict.fromkeys(one.why for one in ([criterion, *criterion.leaves()] if criterion else []) if one.why)
    found = {
        "Criterion": "; ".join([f"version {record['criterion_version']}", f"protocol {protocol_of(record)}", *whys]),
        "Bearing": f"{row.claim.bearing}: {row.claim.because}" if row.claim.because else "",
        "Controls": ", ".join(row.claim.control),
        "Cost": seconds_text(record.get("seconds")),
        "Notebook": record["notebook"],
        "Seeds": ", ".join(sorted({seed for part in record["parts"] for seed in part.get("by_seed", {})})),
        "Parameters": ", ".join(f"{key} = {value}" for key, value in record["params"].items()),
        "Commit": f"{record['commit'] or 'unknown'}" + (" with uncommitted changes" if record.get("dirty") else ""),
        "Device": record["device"],
        "Date": record["date"],
        "Versions": ", ".join(f"{key} {value}" for key, value in record["versions"].items() if value),
        "Raw data": ", ".join(f"{name} (sha256 {sha[:12]})" for name, sha in record["raw"].items()),
    }
    return {key: value for key, value in found.items() if value}


def media(one: Chapter) -> list[dict]:
    """The figures and videos of each run that are still there, published ones in place of the reader's."""
    runs = {name: (*run, True) for name, run in one.your_runs.items()} | {name: (*run, False) for name, run in one.runs.items()}
    found = []
    for name, (result, folder, own) in sorted(runs.items()):
        entries = [{**entry, "path": folder / entry["file"], "poster": entry.get("poster") and folder / entry["poster"]}
                   for entry in result.get("figures", []) + result.get("videos", [])]
        executed = folder.parent / ("executed.ipynb" if own else f"executed/{name}.ipynb")
        found.append({"name": name, "own": own, "result": result, "executed": executed if executed.exists() else None,
                      "entries": [entry for entry in entries if entry["path"].exists()]})
    return [run for run in found if run["entries"]]


def interval(part: dict) -> dict[str, float] | None:
    """Places on a line of 300 units for the interval (`low`, `high`), `estimate`, the band wanted (`start`, `stop`) and `zero`."""
    if part["estimate"] is None:
        return None
    (low, high), within = part["ci95"], part["within"]
    difference = part["minus"] or part["against"] or part.get("minus_best")
    marks = [low, high, *(bound for bound in within if bound is not None)] + ([0.0] if difference else [])
    pad = (max(marks) - min(marks) or abs(max(marks)) or 1.0) * 0.15
    left, right = min(marks) - pad, max(marks) + pad
    place = functools.partial(_place, left=left, right=right)
    found = {"low": place(low), "high": max(place(high), place(low) + 1), "estimate": place(part["estimate"]),
             "start": 0 if within[0] is None else place(within[0]), "stop": 300 if within[1] is None else place(within[1])}
    return found | ({"zero": place(0.0)} if left < 0 < right else {})


def _place(value: float, left: float, right: float) -> float:
    return round(300 * (value - left) / (right - left), 1)
