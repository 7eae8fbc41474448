"""`motionlab report`, `motionlab verify` and `motionlab power`."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from motionlab.cli import common
from motionlab.core.errors import MotionLabError


def add_commands(commands) -> None:
    """Add them to the parser."""
    common.add(commands, "report", report, "render the README's table, every RESULTS.md and reproductions/report/index.html")
    common.add(commands, "power", power, "write into protocol.yaml what differences the prompts can show, from the raw rows it names")
    parser = common.add(commands, "verify", verify, "recompute every verdict and table from the committed raw data; hold files and git's "
                        "history to what is promised")
    parser.add_argument("--ref", metavar="REV", help="of git's history only what came after REV, for who reviews a change")
    parser.add_argument("--write", action="store_true", help="first list every file of evidence as it is now in reproductions/MANIFEST")


def power(options: argparse.Namespace) -> int:
    """`motionlab power`."""
    from motionlab.ledger import detectable, manifest

    changed = detectable.write(common.root())
    manifest.enter(common.root(), [detectable.protocol_file(common.root())])
    print(detectable.text(detectable.read(common.root())[1]))
    print(f"reproductions/protocol.yaml: {'written' if changed else 'up to date'}")
    return 0


def report(options: argparse.Namespace) -> int:
    """`motionlab report`."""
    from motionlab.figures import style
    from motionlab.ledger import manifest
    from motionlab.ledger.report import render_report
    from motionlab.ledger.results import update_readme
    from motionlab.ledger.standings import left_out

    path = render_report(common.root(), words=style)
    for note in left_out(common.root() / "runs"):
        print(f"  note: {note}")
    _tell_changes(manifest.enter_written(common.root()))
    update_readme(common.root())
    print(f"report: {path}")
    return 0


def render(root: Path, changed: bool, published: bool) -> None:
    """The report grows after each notebook; a broken report never costs a result."""
    if not changed and (root / "reproductions" / "report" / "index.html").exists():
        return
    from motionlab.figures import style
    from motionlab.ledger import manifest
    from motionlab.ledger.report import render_report
    from motionlab.ledger.results import update_readme

    try:
        render_report(root, words=style)
        if published:
            _tell_changes(manifest.enter_written(root))
            update_readme(root)
    except MotionLabError as error:
        print(f"  note: {error}")


def verify(options: argparse.Namespace) -> int:
    """`motionlab verify`."""
    from motionlab.ledger import manifest
    from motionlab.ledger import verify as checks

    if options.write:
        _tell_changes(manifest.enter_all(common.root()))
    try:
        found = checks.examine(common.root(), options.ref)
    except MotionLabError as error:
        return common.tell(error, common.FAILED)
    for problem in found.problems:
        print(problem, file=sys.stderr)
    for note in found.notes:
        print(f"  {note}")
    counted = f"{len(found.problems)} problem{'s' if len(found.problems) != 1 else ''}"
    print(f"verify: {counted if found.problems else 'every verdict and table follows from the raw data, every file is the one listed'}")
    return common.FAILED if found.problems else 0


def _tell_changes(lines: list[str]) -> None:
    for line in lines:
        print(f"  MANIFEST, {line}")
