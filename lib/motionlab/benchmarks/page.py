"""What is written of a scored folder: scores.csv, summary.csv, and one static HTML page of both."""
from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from motionlab.benchmarks.base import Column
from motionlab.core.files import write_atomic
from motionlab.ledger import escaping

if TYPE_CHECKING:
    from motionlab.benchmarks.scoring import Scoring

DIGITS = 6                         # significant ones, in the files
FIRST = ("group", "tier")
NAMED = ("prompt", "video", "draw", "status", "reason")


def write(scoring: Scoring, rows: Sequence[dict], columns: Sequence[Column], summary: Sequence[dict]) -> None:
    """The three files, each in one step.

    Args:
        rows: of `Scoring.rows`. columns: of all parts. summary: of `summary.table`.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    about = list(dict.fromkeys(name for item in scoring.items for name in item.facts))
    facts = [name for part in scoring.parts for name in part.facts]
    names = [*FIRST, *about, *NAMED, *(column.name for column in columns), *facts]
    write_atomic(scoring.out / "scores.csv", csv_text(rows, names))
    write_atomic(scoring.out / "summary.csv", csv_text(summary, list(summary[0])))
    write_atomic(scoring.out / "index.html", _html(scoring, rows, columns, summary, about))


def csv_text(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Rows as CSV with a header; what a row lacks is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _cell(value):
    return "" if value is None else f"{value:.{DIGITS}g}" if isinstance(value, float) else value


def _html(scoring, rows, columns, summary, about):
    import jinja2
    from jinja2.filters import do_mark_safe as safe

    here, base = Path(__file__).with_name("templates"), Path(escaping.__file__).with_name("templates")
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(here), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              finalize=escaping.visible)
    page.filters |= {"code": lambda text: safe(escaping.html_text(text)), "number": _number}
    facts = [name for part in scoring.parts for name in part.facts if not any(name in column.draws for column in columns)]
    return page.get_template("score.html").render(
        scoring=scoring, benchmark=scoring.benchmark, rows=rows, columns=columns, summary=summary, about=about, facts=facts,
        by_status={status: [row for row in rows if row["status"] == status] for status in dict.fromkeys(row["status"] for row in rows)},
        link=lambda video: quote(Path(os.path.relpath(scoring.folder / video, scoring.out)).as_posix()),
        style=safe((base / "report.css").read_text(encoding="utf-8")))


def _number(value):
    """A score for people; a dash where there is none."""
    if value is None:
        return "–"
    return (f"{value:.1f}" if abs(value) >= 1 else f"{value:.3f}") if isinstance(value, float) else value
