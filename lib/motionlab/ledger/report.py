"""The two faces of the ledger: the README's table and `reproductions/report/index.html`, both rendered from data.

The report is one static page with relative links (templates/report.html): it opens from disk, needs no network and no
script, and is rendered again after each notebook in a fraction of a second. It works before anything is measured.
"""
from __future__ import annotations

import functools
import html
import os
import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from motionlab.core.errors import MotionLabError
from motionlab.core.files import write_atomic
from motionlab.core.paths import repo_root
from motionlab.ledger import verdict as judging
from motionlab.ledger.claims import canonical_sha
from motionlab.ledger.escaping import html_text, markdown_cell, visible
from motionlab.ledger.standings import Chapter, Standing, chapters, counted

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
SIGNS = {"holds": "✔", "fails": "✘", "inconclusive": "≈", "not transferable": "⇸", "not run": "○"}
SOURCES = {
    "stated": "stated in the paper",
    "code": "from the released code",
    "inferred": "inferred from the paper",
    "reported": "reported by others",
    "unverified": "unverified",
    "measured": "our own expectation, not the paper's",
}


# ------------------------------------------------------------------------------------------------------- README's table


def render_readme_table(root: str | Path | None = None) -> str:
    """The Markdown between the README's markers: a line of counts, then a table per paper.

    A comment at its end carries a digest of all claims and records, so that a change of the data asks for a new table.

    Raises:
        MotionLabError: malformed claims or records.
    """
    root = Path(root) if root else repo_root()
    all_chapters = chapters(root)
    total = sum((one.counts for one in all_chapters), Counter())
    summary = ", ".join(f"{count} {SIGNS[word]} {word}" for word, count in counted(total)) or "no claims yet"
    blocks = [f"**{sum(total.values())} claims**: {summary}."] + [markdown_chapter(one) for one in all_chapters]
    return "\n\n".join([*blocks, f"<!-- data: {data_digest(root)} -->"])


def data_digest(root: Path) -> str:
    """Sixteen hex digits of all YAML and CSV below reproductions/, digit by digit.

    It covers what no record points at: protocol, parameters, and raw rows that no claim is judged from yet.
    """
    folder = Path(root) / "reproductions"
    found = [*folder.rglob("*.yaml"), *folder.rglob("*.csv")]
    files = sorted(path for path in found if "report" not in path.relative_to(folder).parts)
    texts = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}
    return canonical_sha(texts)[:16]


def without_digest(text: str) -> str:
    """A README's text without the digest of the data: what of the table a reader sees."""
    return re.sub(r"<!-- data: [0-9a-f]{16} -->", "", text)


def markdown_chapter(one: Chapter) -> str:
    """One paper as a foldable table; open where something is judged."""
    counts = ", ".join(f"{count} {word}" for word, count in counted(one.counts))
    head = [
        f"<details{' open' if one.judged else ''}>",
        f"<summary><b>{html.escape(visible(one.claims.title))}</b>: {counts}</summary>",
        "",
        "| claim | says | paper | ours | verdict |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(markdown_row(row) for row in one.standings), "", "</details>"])


def markdown_row(row: Standing) -> str:
    """One claim as a table row."""
    ours = [row.reason]
    if row.record:
        parts = row.record["parts"]
        ours = [*(ours_text(part, len(parts) > 1) for part in parts), f"tier {row.record['tier']}"]
    cells = [markdown_cell(text) for text in (row.claim.id, row.claim.says, row.claim.paper_value or "no number")]
    return "| " + " | ".join([*cells, "<br>".join(map(markdown_cell, ours)), f"**{SIGNS[row.verdict]} {row.verdict}**"]) + " |"


def ours_text(part: dict, named: bool) -> str:
    """Estimate, interval, what was wanted and n of one part; with its name where there are several."""
    name = f"{judging.name_of(part)}: " if named else ""
    return f"{name}{judging.measured_text(part)}, n = {part['n']}, wanted {judging.wanted(part['within'])}"


def readme_with_table(text: str, root: Path) -> str:
    """A README's text with the table between its markers rendered anew.

    Raises:
        MotionLabError: the markers are missing.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise MotionLabError("README.md has no place for the claims table.", fix=f"Put the lines {BEGIN} and {END} where it belongs.")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{render_readme_table(root)}\n{END}{rest.split(END)[1]}"


def update_readme(root: str | Path | None = None) -> bool:
    """Render the README's table anew; True when it changed.

    Raises:
        MotionLabError: no README.md, no markers, malformed data, a place that cannot be written.
    """
    root = Path(root) if root else repo_root()
    path = root / "README.md"
    if not path.exists():
        raise MotionLabError(f"There is no README.md in {root}.", fix="Restore it with git.")
    old = path.read_text(encoding="utf-8")
    new = readme_with_table(old, root)
    if new != old:
        write_atomic(path, new)
    return new != old


# ----------------------------------------------------------------------------------------------------------- the report


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
    page.globals |= {"judging": judging, "SIGNS": SIGNS, "SOURCES": SOURCES, "counted": counted, "interval": interval,
                     "facts": facts, "media": media}
    total = sum((one.counts for one in found), Counter())
    style = safe((templates / "report.css").read_text(encoding="utf-8"))
    return write_atomic(target, page.get_template("report.html").render(chapters=found, total=total, style=style))


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
        "Criterion": "; ".join([f"version {record['criterion_version']}", *whys]),
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
    marks = [low, high, *(bound for bound in within if bound is not None)] + ([0.0] if part["minus"] or part["against"] else [])
    pad = (max(marks) - min(marks) or abs(max(marks)) or 1.0) * 0.15
    left, right = min(marks) - pad, max(marks) + pad
    place = functools.partial(_place, left=left, right=right)
    found = {"low": place(low), "high": max(place(high), place(low) + 1), "estimate": place(part["estimate"]),
             "start": 0 if within[0] is None else place(within[0]), "stop": 300 if within[1] is None else place(within[1])}
    return found | ({"zero": place(0.0)} if left < 0 < right else {})


def _place(value: float, left: float, right: float) -> float:
    return round(300 * (value - left) / (right - left), 1)
