"""What stands where, as Markdown from data: the README's matrix of papers and verdicts, and each paper's RESULTS.md.

The papers' claims and the kit's own are never added up: a kit that says much about itself would look like papers that hold.
"""
from __future__ import annotations

from collections import Counter
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.files import write_atomic
from motionlab.core.paths import repo_root
from motionlab.ledger import manifest
from motionlab.ledger import verdict as judging
from motionlab.ledger.criteria import VERDICTS
from motionlab.ledger.escaping import markdown_cell
from motionlab.ledger.soundness import protocol_of
from motionlab.ledger.standings import Chapter, Standing, chapters, counted, totals

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
SIGNS = {"holds": "✔", "fails": "✘", "inconclusive": "≈", "blind": "⊘", "not transferable": "⇸", "not run": "○"}
WHOSE = {"paper": "What the papers claim", "kit": "What the kit claims of itself"}


# ------------------------------------------------------------------------------------------------------ README's matrix


def render_readme_table(root: str | Path | None = None, found: list[Chapter] | None = None) -> str:
    """The Markdown between the README's markers: papers x verdicts, once for their claims and once for the kit's.

    Args:
        found: the chapters, where they have been read already.

    Raises:
        MotionLabError: malformed claims or records.
    """
    found = found or chapters(Path(root) if root else repo_root())
    blocks = [matrix(found, about, counts) for about, counts in totals(found).items() if counts]
    return "\n\n".join(blocks or ["no claims yet"])


def matrix(found: list[Chapter], about: str, total: Counter) -> str:
    """Papers x verdicts of one kind of claims; each row leads to its RESULTS.md."""
    rows = [(f"[{markdown_cell(one.claims.title)}](reproductions/{one.claims.paper}/RESULTS.md)", one.counts_of(about)) for one in found]
    lines = [f"**{WHOSE[about]}: {total.total()}**, {summary(total)}.", "",
             f"| | {' | '.join(f'{SIGNS[word]} {word}' for word in VERDICTS)} |", f"|---|{'---:|' * len(VERDICTS)}"]
    lines += [f"| {name} | {' | '.join(str(counts[word] or '') for word in VERDICTS)} |" for name, counts in rows if counts]
    return "\n".join(lines)


def summary(counts: Counter) -> str:
    """ "2 ✔ holds, 4 ✘ fails"."""
    return ", ".join(f"{count} {SIGNS[word]} {word}" for word, count in counted(counts)) or "none"


def readme_with_table(text: str, root: Path, found: list[Chapter] | None = None) -> str:
    """A README's text with the table between its markers rendered anew.

    Raises:
        MotionLabError: the markers are missing.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise MotionLabError("README.md has no place for the claims table.", fix=f"Put the lines {BEGIN} and {END} where it belongs.")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{render_readme_table(root, found)}\n{END}{rest.split(END)[1]}"


def update_readme(root: str | Path | None = None) -> bool:
    """Render the README's matrix and every RESULTS.md anew, and enter what people wrote in MANIFEST; True when one of them changed.

    Raises:
        MotionLabError: no README.md, no markers, malformed data, a place that cannot be written.
    """
    root = Path(root) if root else repo_root()
    path = root / "README.md"
    if not path.exists():
        raise MotionLabError(f"There is no README.md in {root}.", fix="Restore it with git.")
    found = chapters(root)
    texts = {path: readme_with_table(path.read_text(encoding="utf-8"), root, found), **render_results(root, found)}
    changed = {place: text for place, text in texts.items() if not place.exists() or place.read_text(encoding="utf-8") != text}
    for place, text in changed.items():
        write_atomic(place, text)
    return bool(changed) | bool(manifest.enter_written(root))


# ----------------------------------------------------------------------------------------------------------- RESULTS.md


def render_results(root: Path, found: list[Chapter] | None = None) -> dict[Path, str]:
    """{path: text} of each paper's RESULTS.md.

    Raises:
        MotionLabError: malformed claims or records.
    """
    return {root / "reproductions" / one.claims.paper / "RESULTS.md": results_text(one) for one in found or chapters(root)}


def results_text(one: Chapter) -> str:
    """One paper's claims with everything that a verdict is read by: numbers, what was wanted, bearing, why, controls."""
    blocks = [f"# {markdown_cell(one.claims.title)}: results",
              "Rendered by `motionlab report` from claims.yaml, measured.yaml and raw/; `motionlab verify` checks it. "
              "What the six words mean is in the [README](../../README.md#claims-and-verdicts)."]
    for about, heading in WHOSE.items():
        rows = [row for row in one.standings if row.claim.about == about]
        if rows:
            blocks.append(f"## {heading.replace('papers claim', 'paper claims')}\n\n{len(rows)} claims: {summary(one.counts_of(about))}.")
            blocks.append("\n".join(["| claim | says | paper | ours | verdict |", "|---|---|---|---|---|", *map(markdown_row, rows)]))
    return "\n\n".join(blocks) + "\n"


def markdown_row(row: Standing) -> str:
    """One claim as a table row."""
    parts = row.record["parts"] if row.record else []
    ours = [ours_text(part, len(parts) > 1) for part in parts] + ([told_by(row)] if row.record else [])
    ours += [row.reason] if row.reason else []
    claim = row.claim
    says = [claim.says] + ([f"{claim.bearing}: {claim.because}"] if claim.because else [])
    says += [f"control: {', '.join(claim.control)}"] if claim.control else []
    columns = [[claim.id], says, [claim.paper_value or "no number"], ours, [f"**{SIGNS[row.verdict]} {row.verdict}**"]]
    return "| " + " | ".join("<br>".join(map(markdown_cell, lines)) for lines in columns) + " |"


def told_by(row: Standing) -> str:
    """Tier and protocol of a record; and where a claim about a paper stands without a control, that too."""
    alone = row.claim.about == "paper" and not row.claim.control
    return f"tier {row.record['tier']}, protocol {protocol_of(row.record)}" + (", no control was asked for" if alone else "")


def ours_text(part: dict, named: bool) -> str:
    """Estimate, interval, what was wanted and n of one part; with its name where there are several."""
    name = f"{judging.name_of(part)}: " if named else ""
    return f"{name}{judging.measured_text(part)}, n = {part['n']}, wanted {judging.wanted(part['within'])}"
