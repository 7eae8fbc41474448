"""Pages and files of the report: an index, a page per paper with its claims, one for the kit's own; a style sheet and a script.

It is rendered again after each notebook, and works before anything is measured.
"""
from __future__ import annotations

import functools
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from motionlab.core.files import write_atomic
from motionlab.core.paths import repo_root
from motionlab.ledger.criteria import VERDICTS
from motionlab.ledger.escaping import html_text, visible
from motionlab.ledger.report.cards import Desk, Group
from motionlab.ledger.report.costs import Costs
from motionlab.ledger.report.pictures import Run, runs_of
from motionlab.ledger.report.sources import Sources
from motionlab.ledger.report.wording import BEARING, MEANING, SOURCES, Words
from motionlab.ledger.results import SIGNS, WHOSE
from motionlab.ledger.standings import Chapter, Standing, chapters, counted, totals

KIT = "kit"                                   # name of the page of the kit's own claims
TEMPLATES = Path(__file__).parents[1] / "templates"
MARKUP = re.compile(r"(<[^>]*>|&[#\w]+;)")    # tags and entities
PLAIN = ("report.css", "report.js")


@dataclass(frozen=True)
class Section:
    """Claims of one folder under one heading, and the pictures of its notebooks that name no claim."""

    name: str
    title: str
    rows: tuple[Standing, ...]
    runs: tuple[Run, ...] = field(default=())

    @property
    def counts(self) -> Counter:
        return Counter(row.verdict for row in self.rows)

    @property
    def told(self) -> list[Standing]:
        """The claims with a verdict of a measurement, the decided ones first."""
        return sorted((row for row in self.rows if row.record or row.yours), key=lambda row: VERDICTS.index(row.verdict))

    @property
    def waiting(self) -> list[Standing]:
        return [row for row in self.rows if not (row.record or row.yours)]


def render_report(root: str | Path | None = None, runs_dir: str | Path | None = None, words: Words | None = None) -> Path:
    """Render the pages below reproductions/report/, each in one step; return the index's path.

    Args:
        runs_dir: folder of the reader's runs, <tier>/<notebook>/result.json; default: runs/ in the root.
        words: how arms and columns are called in figures (`motionlab.figures.style`); without it they appear as they stand.

    Raises:
        MotionLabError: malformed claims or records, a place that cannot be written.
    """
    root = Path(root) if root else repo_root()
    folder = root / "reproductions" / "report"
    pages = pages_of(root, folder, Path(runs_dir) if runs_dir else root / "runs", words)
    for name in PLAIN:
        write_atomic(folder / name, (TEMPLATES / name).read_text(encoding="utf-8"))
    for name, text in pages.items():
        write_atomic(folder / f"{name}.html", text)
    for path in folder.glob("*.html"):
        if path.stem not in pages:            # of a paper that is gone
            path.unlink(missing_ok=True)
    return folder / "index.html"


def pages_of(root: Path, folder: Path, runs_dir: Path, words: Words | None) -> dict[str, str]:
    """{name: HTML} of all pages, the index last: whoever finds it finds the others."""
    found = chapters(root, runs_dir)
    standings = {row.claim.id: row for one in found for row in one.standings}
    runs = {one.claims.paper: runs_of(one) for one in found}
    costs = Costs(root)
    desk = Desk(Sources(root, costs), costs, runs, standings, words)
    papers = [section(one, "paper", runs) for one in found if one.counts_of("paper")]
    own = [section(one, "kit", runs, with_runs=not one.counts_of("paper")) for one in found if one.counts_of("kit")]
    shared = {"papers": papers, "own": own, "totals": totals(found), "place": Place(folder, standings), "card_of": desk.card}
    claims = environment().get_template("report_claims.html")
    pages = {one.name: claims.render(shared, page=one.name, title=one.title, sections=[one], about="paper") for one in papers}
    if own:
        pages[KIT] = claims.render(shared, page=KIT, title=WHOSE["kit"], sections=own, about="kit")
    measured = any(one.judged or one.your_runs for one in found)
    return pages | {"index": environment().get_template("report_index.html").render(shared, page="index", measured=measured)}


def section(one: Chapter, about: str, runs: dict[str, dict[str, Run]], with_runs: bool = True) -> Section:
    """A chapter's claims about its paper, or the kit's own."""
    rows = tuple(row for row in one.standings if row.claim.about == about)
    return Section(one.claims.paper, one.claims.title, rows, tuple(runs[one.claims.paper].values()) if with_runs else ())


class Place:
    """Where things are, as links from the report's folder."""

    def __init__(self, folder: Path, standings: dict[str, Standing]):
        self.folder, self.standings = folder, standings
        names = "|".join(map(re.escape, sorted(standings, key=len, reverse=True)))
        self.names = re.compile(rf"(?<![\w.-])(?:{names})(?![\w-])" if names else "(?!)")

    def href(self, row: Standing) -> str:
        """A claim's card."""
        return f"{quote(row.claim.paper if row.claim.about == 'paper' else KIT)}.html#{quote(row.claim.id)}"

    def link(self, path: Path) -> str:
        """A file."""
        return quote(Path(os.path.relpath(path, self.folder)).as_posix())

    def told(self, text: Any) -> str:
        """Text as HTML, with the claims that it names as links."""
        from jinja2.filters import do_mark_safe

        pieces = MARKUP.split(html_text(text))          # text and markup by turns
        return do_mark_safe("".join(piece if k % 2 else self.names.sub(self.linked, piece) for k, piece in enumerate(pieces)))

    def linked(self, found: re.Match) -> str:
        """A claim's name as a link to its card."""
        return f'<a href="{self.href(self.standings[found[0]])}">{found[0]}</a>'


@functools.cache
def environment():
    """Jinja's, with everything escaped that is not said to be HTML; kept, since compiling takes longer than rendering."""
    import jinja2
    from jinja2.filters import do_mark_safe

    page = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              finalize=visible, undefined=jinja2.StrictUndefined)
    page.filters["code"] = lambda text: do_mark_safe(html_text(text))
    page.globals |= {"SIGNS": SIGNS, "WHOSE": WHOSE, "MEANING": MEANING, "BEARING": BEARING, "SOURCES": SOURCES, "VERDICTS": VERDICTS,
                     "KIT": KIT, "counted": counted, "is_group": lambda node: isinstance(node, Group)}
    return page
