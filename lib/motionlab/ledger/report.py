"""The two faces of the ledger: the README's table and `reproductions/report/index.html`, both rendered from data.

The report is one static page with relative links: it opens from disk, needs no network and no script, and is rendered
again after each notebook in a fraction of a second. It works from the first minute, when nothing is measured yet.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.ledger import verdict as judging
from motionlab.ledger.claims import Claim, PaperClaims, canonical_sha, load_all, load_measured
from motionlab.core.files import write_atomic
from motionlab.core.paths import repo_root

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


# ------------------------------------------------------------------------------------------------- where a claim stands


@dataclass(frozen=True)
class Standing:
    """A claim with its verdict now, the published record behind it or the reason why there is none, and `yours`."""

    claim: Claim
    verdict: str
    record: dict | None = None
    reason: str | None = None
    yours: dict | None = None


@dataclass(frozen=True)
class Chapter:
    """One paper: its claims in the order written, and its notebook runs as {notebook: (result, figures folder)}."""

    claims: PaperClaims
    standings: tuple[Standing, ...]
    runs: dict[str, tuple[dict, Path]] = field(default_factory=dict)
    your_runs: dict[str, tuple[dict, Path]] = field(default_factory=dict)

    @property
    def paper(self) -> str:
        return self.claims.paper

    @property
    def counts(self) -> Counter:
        return Counter(one.verdict for one in self.standings)

    @property
    def judged(self) -> bool:
        return any(one.record for one in self.standings)


def standing(claim: Claim, records: list[dict], yours: dict | None = None) -> Standing:
    """Where a claim stands: fixed by itself, judged by its newest record, or not run with the reason.

    Args:
        records: the claim's published records, oldest first.
        yours: the record of the reader's own run.
    """
    if claim.not_transferable:
        return Standing(claim, "not transferable", reason=claim.not_transferable)
    if records and records[-1].get("claim_sha") == claim.sha and claim.status == "final":
        return Standing(claim, records[-1]["verdict"], records[-1], yours=yours)
    return Standing(claim, "not run", reason=why_not_run(claim, records), yours=yours)


def why_not_run(claim: Claim, records: list[dict]) -> str:
    """The reason in words why there is no verdict."""
    if records:
        return "the claim or its criterion changed since it was measured; it waits for a new run"
    if claim.not_run:
        return claim.not_run.reason
    return "its criterion is a draft" if claim.status == "draft" else "not measured yet"


def command_of(claim: Claim) -> str | None:
    """The command that would measure the claim."""
    if claim.not_run and claim.not_run.command:
        return claim.not_run.command
    return f"motionlab run {claim.notebook}" if claim.notebook and claim.criterion else None


def chapters(root: Path, runs_dir: Path | None = None) -> list[Chapter]:
    """All papers, those with verdicts first; with the reader's runs where a folder of runs is given.

    Raises:
        MotionLabError: malformed claims or records.
    """
    yours = newest_runs(runs_dir) if runs_dir else {}
    built = [chapter(claims, root, yours) for claims in load_all(root).values()]
    return sorted(built, key=lambda one: not one.judged and not one.your_runs)


def chapter(claims: PaperClaims, root: Path, yours: dict[str, tuple[dict, Path]]) -> Chapter:
    """One paper's claims, records and runs put together."""
    measured = load_measured(claims.paper, root)
    mine = {name: run for name, run in yours.items() if run[0]["paper"] == claims.paper}
    own = {claim_id: record for result, _ in mine.values() for claim_id, record in result["claims"].items()}
    standings = tuple(standing(one, measured.get(one.id, []), own.get(one.id)) for one in claims.claims.values())
    folder = root / "reproductions" / claims.paper
    published = {
        path.stem: (result, folder / "figures")
        for path in sorted((folder / "executed").glob("*.json"))
        if (result := read_json(path))
    }
    return Chapter(claims, standings, published, mine)


def newest_runs(runs_dir: Path) -> dict[str, tuple[dict, Path]]:
    """The reader's newest finished run of each notebook, {notebook: (result, figures folder)}; never a smoke run."""
    found: dict[str, tuple[dict, Path]] = {}
    for path in sorted(runs_dir.glob("*/*/result.json"), key=lambda path: path.stat().st_mtime):
        if path.parent.name.startswith(".") or path.parent.name.endswith(".failed"):
            continue                                    # half a run, or one that broke: no evidence
        result = read_json(path)
        if result and result.get("tier") != "smoke" and {"paper", "claims", "notebook"} <= set(result):
            found[result["notebook"]] = (result, path.parent / "figures")
    return dict(sorted(found.items()))


def read_json(path: Path) -> dict | None:
    """A JSON mapping, or None for a file that is broken or half there (the report goes on without it)."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None
    return data if isinstance(data, dict) else None


def counted(counts: Counter) -> list[tuple[str, int]]:
    """(verdict, how many) of those that occur, in the order of the five words."""
    return [(word, counts[word]) for word in judging.VERDICTS if counts[word]]


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
        f"<summary><b>{html.escape(one.claims.title)}</b>: {counts}</summary>",
        "",
        "| claim | says | paper | ours | verdict |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(markdown_row(row) for row in one.standings), "", "</details>"])


def markdown_row(row: Standing) -> str:
    """One claim as a table row."""
    if row.record:
        ours = "<br>".join(ours_text(part, len(row.record["parts"]) > 1) for part in row.record["parts"])
        ours += f"<br>tier {row.record['tier']}"
    else:
        ours = f"{row.reason}"
    cells = [
        row.claim.id,
        row.claim.says,
        row.claim.paper_value or "no number",
        ours,
        f"**{SIGNS[row.verdict]} {row.verdict}**",
    ]
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"


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
        raise MotionLabError(
            "README.md has no place for the claims table.", fix=f"Put the lines {BEGIN} and {END} where it belongs."
        )
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
    root = Path(root) if root else repo_root()
    runs_dir = Path(runs_dir) if runs_dir else root / "runs"
    target = root / "reproductions" / "report" / "index.html"
    page = Page(target.parent)
    return write_atomic(target, page.render(chapters(root, runs_dir)))


def esc(text) -> str:
    """Text for HTML, with `code` in backticks set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(str(text)))


def badge(word: str, prefix: str = "") -> str:
    """A verdict as a badge: a word and a sign, never colour alone."""
    sign = f'<span aria-hidden="true">{SIGNS[word]}</span>'
    return f'<span class="badge {word.replace(" ", "-")}">{sign} {prefix}{word}</span>'


def seconds_text(seconds: float | None) -> str:
    """A duration for people."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Page:
    """Renders the report for a file in `folder`, from where links to pictures are relative."""

    def __init__(self, folder: Path):
        self.folder = folder

    def render(self, all_chapters: list[Chapter]) -> str:
        """The whole page."""
        total = sum((one.counts for one in all_chapters), Counter())
        style = Path(__file__).with_name("report_style.css").read_text(encoding="utf-8")
        nav = "".join(f'<a href="#{one.paper}">{esc(one.claims.title)}</a>' for one in all_chapters)
        body = "".join(self.chapter(one) for one in all_chapters) or "<p>No claims yet.</p>"
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<title>motionlab: claims and verdicts</title>\n<link rel="icon" href="data:,">\n'
            f"<style>\n{style}</style>\n</head>\n<body>\n<header>\n<h1>What holds?</h1>\n{self.lead(total)}"
            f'<nav aria-label="Papers">{nav}</nav>\n</header>\n<main>\n{body}\n</main>\n{FOOTER}\n</body>\n</html>\n'
        )

    def lead(self, total: Counter) -> str:
        """The counts, and one sentence on how to read them."""
        chips = "".join(f'<li>{badge(word, f"{count} ")}</li>' for word, count in counted(total))
        note = (
            ""
            if any(total[word] for word in judging.VERDICTS[:3])
            else '<p class="empty">Nothing is published yet. Run <code>make reproduce</code>: verdicts appear here.</p>'
        )
        return (
            f"<p>{sum(total.values())} claims that papers make about motion in video diffusion, and what we measured. "
            f"Each verdict is computed from raw numbers and a criterion chosen beforehand.</p>\n"
            f'<ul class="counts">{chips}</ul>\n{note}'
        )

    def chapter(self, one: Chapter) -> str:
        """One paper: judged claims as cards, pictures, then the rest folded."""
        shown = [row for row in one.standings if row.record or row.yours]
        rest = [row for row in one.standings if not (row.record or row.yours)]
        chips = " ".join(badge(word, f"{count} ") for word, count in counted(one.counts))
        cards = "".join(self.card(row) for row in shown)
        runs = {name: (*run, True) for name, run in one.your_runs.items()}
        runs |= {name: (*run, False) for name, run in one.runs.items()}  # published pictures come before the reader's
        media = "".join(self.gallery(name, *run) for name, run in sorted(runs.items()))
        return (
            f'<section id="{one.paper}">\n<h2>{esc(one.claims.title)}</h2>\n<p class="chips">{chips}</p>\n'
            f"{cards}{media}{self.rest(rest, bool(shown))}</section>\n"
        )

    def card(self, row: Standing) -> str:
        """A judged claim: verdict, sentence, numbers, the reader's run, and what stands behind it."""
        claim, parts = row.claim, (row.record or {}).get("parts", [])
        head = badge(row.verdict) if row.record or not row.yours else badge(row.yours["verdict"], "your run: ")
        ours = "".join(self.part(part, len(parts) > 1) for part in parts) or f"<p>{esc(row.reason)}</p>"
        differs = "".join(f"<li>{esc(line)}</li>" for line in claim.differs)
        differs = (
            f'<div class="differs"><h4>What differs from the paper</h4><ul>{differs}</ul></div>' if differs else ""
        )
        return (
            f'<article id="{claim.id}" class="card {row.verdict.replace(" ", "-")}">\n'
            f'<h3>{head} <a href="#{claim.id}">{claim.id}</a></h3>\n<p class="says">{esc(claim.says)}</p>\n'
            f'<div class="columns"><div><h4>The paper</h4><p>{esc(claim.paper_value or "gives no number")}</p>'
            f'<p class="quiet">{esc(claim.where)}; {SOURCES[claim.source]}</p></div>\n'
            f"<div><h4>Ours{self.tier(row.record)}</h4>{ours}</div>\n{self.yours(row)}</div>\n"
            f"{differs}{self.behind(row)}</article>\n"
        )

    def tier(self, record: dict | None) -> str:
        return f' <span class="quiet">tier {esc(record["tier"])}</span>' if record else ""

    def part(self, part: dict, named: bool) -> str:
        """One test: its numbers and a drawing of the interval against what was wanted."""
        word = f'{badge(part["verdict"])} ' if named else ""
        name = f'<p class="quiet">{word}{esc(judging.name_of(part))}</p>'
        undefined = f", {part['n_undefined']} undefined" if part["n_undefined"] else ""
        reason = f'<p class="quiet">{esc(part["reason"])}</p>' if part.get("reason") else ""
        return (
            f'<div class="part">{name}<p><strong>{esc(judging.measured_text(part))}</strong> '
            f'<span class="quiet">wanted {esc(judging.wanted(part["within"]))}; '
            f'<span class="whole">n = {part["n"]}{undefined}</span></span></p>'
            f"{interval_svg(part)}{reason}</div>"
        )

    def yours(self, row: Standing) -> str:
        """The reader's own run beside the committed one."""
        if not row.yours:
            return ""
        record = row.yours
        stale = "" if record.get("claim_sha") == row.claim.sha else "<p>The claim changed since this run.</p>"
        same = row.record is not None and record.get("checksum") == row.record.get("checksum")
        parts = (
            "<p>This is the published run.</p>"
            if same
            else "".join(self.part(part, len(record["parts"]) > 1) for part in record["parts"])
        )
        return (
            f'<div class="yours"><h4>Your run{self.tier(record)}</h4><p>{badge(record["verdict"])} '
            f'<span class="quiet">{esc(record["date"][:10])}</span></p>{stale}{parts}</div>\n'
        )

    def behind(self, row: Standing) -> str:
        """Criterion, cost and provenance of the record shown, folded."""
        record = row.record or row.yours
        whys = list(dict.fromkeys(one.why for one in self.criteria(row.claim.criterion) if one.why))
        seeds = sorted({seed for part in record["parts"] for seed in part.get("by_seed", {})})
        facts = {
            "Criterion": f"version {record['criterion_version']}" + "".join(f"; {why}" for why in whys),
            "Cost": seconds_text(record.get("seconds")),
            "Notebook": record["notebook"],
            "Seeds": ", ".join(seeds),
            "Parameters": ", ".join(f"{key} = {value}" for key, value in record["params"].items()),
            "Commit": f"{record['commit'] or 'unknown'}" + (" with uncommitted changes" if record.get("dirty") else ""),
            "Device": record["device"],
            "Date": record["date"],
            "Versions": ", ".join(f"{key} {value}" for key, value in record["versions"].items() if value),
            "Raw data": ", ".join(f"{name} (sha256 {sha[:12]})" for name, sha in record["raw"].items()),
        }
        rows = "".join(f"<dt>{key}</dt><dd>{esc(value)}</dd>" for key, value in facts.items() if value)
        commit = (record["commit"] or "unknown")[:7]
        summary = f"{seconds_text(record.get('seconds'))} on {esc(record['device'])}, commit {esc(commit)}"
        return f'<details class="behind"><summary>Why this verdict: {summary}</summary><dl>{rows}</dl></details>\n'

    def criteria(self, criterion) -> list:
        """A criterion, with those it combines."""
        return [criterion, *criterion.leaves()] if criterion else []

    def gallery(self, notebook: str, result: dict, folder: Path, own: bool) -> str:
        """Figures and videos of one notebook run."""
        items = [self.figure(one, folder) for one in result.get("figures", [])] + [
            self.video(one, folder) for one in result.get("videos", [])
        ]
        items = [item for item in items if item]
        if not items:
            return ""
        whose = "your run, " if own else ""
        executed = folder.parent / ("executed.ipynb" if own else f"executed/{notebook}.ipynb")
        link = f' <a href="{self.link(executed)}">executed notebook</a>' if executed.exists() else ""
        return (
            f'<div class="gallery"><h3>{esc(notebook)} <span class="quiet">{whose}tier {esc(result["tier"])}, '
            f'{seconds_text(result.get("seconds"))}{link}</span></h3>{"".join(items)}</div>\n'
        )

    def figure(self, one: dict, folder: Path) -> str:
        """A picture with its caption; nothing when the file is gone."""
        path = folder / one["file"]
        if not path.exists():
            return ""
        return (
            f'<figure><a href="{self.link(path)}"><img src="{self.link(path)}" '
            f'alt="{html.escape(one.get("alt", ""))}"></a>'
            f"{self.caption(one)}</figure>\n"
        )

    def video(self, one: dict, folder: Path) -> str:
        """A short clip with controls and a poster; nothing when the file is gone."""
        path, poster = folder / one["file"], folder / one.get("poster", "")
        if not path.exists():
            return ""
        drawn = f' poster="{self.link(poster)}"' if poster.is_file() else ""
        width, height = one.get("size", (320, 320))
        return (
            f'<figure><video controls loop muted playsinline preload="metadata" '
            f'width="{int(width)}" height="{int(height)}"{drawn} '
            f'src="{self.link(path)}"></video>{self.caption(one)}</figure>\n'
        )

    def caption(self, one: dict) -> str:
        links = " ".join(
            f'<a href="#{html.escape(claim_id)}">{html.escape(claim_id)}</a>' for claim_id in one.get("claims", [])
        )
        text = f"{esc(one.get('caption', ''))} {links}".strip()
        return f"<figcaption>{text}</figcaption>" if text else ""

    def link(self, path: Path) -> str:
        """A relative URL from the report to a file."""
        from urllib.parse import quote

        return quote(Path(os.path.relpath(path, self.folder)).as_posix())

    def rest(self, rows: list[Standing], folded: bool) -> str:
        """The claims without a measurement, as a table that scrolls in its own box."""
        if not rows:
            return ""
        body = "".join(
            f'<tr id="{row.claim.id}"><td>{badge(row.verdict)}</td><th scope="row">{row.claim.id}</th>'
            f"<td>{esc(row.claim.says)}"
            f'<div class="quiet">{esc(row.claim.where)}</div></td><td>{esc(row.claim.paper_value or "no number")}</td>'
            f"<td>{self.reason(row)}</td></tr>\n"
            for row in rows
        )
        return (
            f'<details class="rest"{"" if folded else " open"}><summary>{len(rows)} claims without a measurement, '
            'with the reason</summary><div class="scroll" tabindex="0" role="region" '
            'aria-label="Claims without a measurement"><table><thead><tr><th>verdict</th><th>claim</th><th>says</th>'
            "<th>paper</th><th>why, and what it takes</th></tr></thead>"
            f"<tbody>\n{body}</tbody></table></div></details>\n"
        )

    def reason(self, row: Standing) -> str:
        """Why a claim has no measurement, with command and cost."""
        cost = f"; cost: {esc(row.claim.not_run.cost)}" if row.claim.not_run and row.claim.not_run.cost else ""
        command = command_of(row.claim) if row.verdict == "not run" else None
        return f"{esc(row.reason)}{cost}" + (f"<div><code>{esc(command)}</code></div>" if command else "")


FOOTER = (
    "<footer><p>Five words, no others: holds (the 95 % interval lies inside what was wanted), fails (it lies outside), "
    "inconclusive (neither), not transferable, not run. Intervals: percentile bootstrap over items. "
    "<code>motionlab verify</code> recomputes every verdict from the raw data.</p></footer>"
)


def interval_svg(part: dict) -> str:
    """The interval as a bar with its estimate as a dot, over the band of wanted values; zero as a thin line."""
    if part["estimate"] is None:
        return ""
    low, high = part["ci95"]
    bounds = [bound for bound in part["within"] if bound is not None]
    marks = [low, high, *bounds] + ([0.0] if part["minus"] or part["against"] else [])
    left, right = min(marks), max(marks)
    pad = (right - left or abs(right) or 1.0) * 0.15
    left, right = left - pad, right + pad

    def x(value: float | None, edge: float) -> float:
        return edge if value is None else round(300 * (value - left) / (right - left), 1)

    start, stop = x(part["within"][0], 0), x(part["within"][1], 300)
    zero = f'<line class="zero" x1="{x(0.0, 0)}" x2="{x(0.0, 0)}" y1="2" y2="26"/>' if left < 0 < right else ""
    label = html.escape(f"interval {judging.measured_text(part)}, wanted {judging.wanted(part['within'])}")
    return (
        f'<svg class="interval" viewBox="0 0 300 28" role="img" aria-label="{label}">'
        f'<rect class="wanted" x="{start}" y="4" width="{max(stop - start, 1.5):.1f}" height="20"/>{zero}'
        f'<line class="bar" x1="{x(low, 0)}" x2="{max(x(high, 0), x(low, 0) + 1)}" y1="14" y2="14"/>'
        f'<circle class="dot" cx="{x(part["estimate"], 0)}" cy="14" r="4.5"/></svg>'
    )
