"""`motionlab list` and `motionlab run`."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from motionlab.cli import common
from motionlab.cli.evidence import render
from motionlab.core.errors import MotionLabError, nearest, one_of


def add_commands(commands) -> None:
    """Add them to the parser."""
    common.add(commands, "list", list_notebooks, "notebooks, their claims, and what each tier costs")
    parser = common.add(commands, "run", run, "run notebooks headless, skipping those that are up to date")
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="a stem, the start of one such as 09, or all")
    parser.add_argument("--tier", default="laptop", help="smoke, laptop (default), full or paper")
    common.add_parameters(parser, "override a parameter")
    parser.add_argument("--paper", help="of the named notebooks, only those of this paper")
    parser.add_argument("--force", action="store_true", help="run even when nothing has changed")
    parser.add_argument("--publish", action="store_true", help="copy the results into reproductions/ as evidence")


def list_notebooks(options: argparse.Namespace) -> int:
    """`motionlab list`."""
    from motionlab.ledger.criteria import TIERS
    from motionlab.ledger.notebooks import notebook_paths, read_notebook
    from motionlab.runner.params import tier_values

    root = common.root()
    stems = list(notebook_paths(root))
    for notebook in (read_notebook(stem, root) for stem in stems):
        print(f"{notebook.stem}  ({notebook.paper})  {notebook.title}")
        print(f"    claims: {', '.join(notebook.claims) or 'none'}")
        for tier in TIERS:
            if found := tier_values(notebook, tier, root):
                print(f"    {tier:<7} {found[1]}")
    if not stems:
        print(f"No notebooks under {root / 'notebooks'}.")
    return 0


def run(options: argparse.Namespace) -> int:
    """`motionlab run`."""
    from motionlab.runner import runs

    root = common.root()
    plans = _plans(options, common.given(options.parameters), root)
    if options.publish:
        runs.refuse_smoke(options.tier)
    common.stop_politely()
    failed = []
    for todo in plans:
        try:
            result = runs.run_plan(todo, publish=options.publish, force=options.force)
        except KeyboardInterrupt:
            return _interrupted(todo)
        except MotionLabError as error:
            common.tell(error, common.FAILED)
            failed.append(todo.stem)
            continue
        render(root, result.status == "finished" or result.published, result.published)
    if len(failed) and len(plans) > 1:
        print(f"{len(failed)} of {len(plans)} notebooks failed: {', '.join(failed)}", file=sys.stderr)
    return common.FAILED if failed else 0


def _plans(options: argparse.Namespace, given: dict[str, str], root: Path) -> list:
    """Check every notebook before the first one starts. With several, each gets those of the -p that it knows."""
    from motionlab.ledger.criteria import TIERS
    from motionlab.runner import params, runs

    one_of(options.tier, TIERS, "tier")
    notebooks = _chosen(options, root)
    if "all" in options.notebooks and options.tier != "laptop":
        having = [notebook for notebook in notebooks if params.tier_values(notebook, options.tier, root) is not None]
        for notebook in [notebook for notebook in notebooks if notebook not in having]:
            print(f"{notebook.stem}  has no tier {options.tier}: left out")
        notebooks = having
    known = [name for notebook in notebooks for name in notebook.parameters]
    for name in given if len(notebooks) > 1 else ():
        if name not in known:
            raise MotionLabError(f"None of the notebooks has a parameter '{name}'.{nearest(name, known)}",
                                 fix=f"They take: {', '.join(dict.fromkeys(known))}.")
    plans = []
    for notebook in notebooks:
        own = {name: value for name, value in given.items() if len(notebooks) == 1 or name in notebook.parameters}
        plans.append(runs.plan(notebook.stem, options.tier, own, root))
    return plans


def _chosen(options: argparse.Namespace, root: Path) -> list:
    from motionlab.ledger.notebooks import find_notebook, notebook_paths, read_notebook

    stems = []
    for name in options.notebooks:
        stems += list(notebook_paths(root)) if name == "all" else [find_notebook(name, root)]
    notebooks = [read_notebook(stem, root) for stem in dict.fromkeys(stems)]
    if options.paper:
        one_of(options.paper, dict.fromkeys(notebook.paper for notebook in notebooks), "paper")
        notebooks = [notebook for notebook in notebooks if notebook.paper == options.paper]
    if not notebooks:
        raise MotionLabError(f"There are no notebooks under {root / 'notebooks'}.", fix="Check MOTIONLAB_ROOT.")
    return notebooks


def _interrupted(todo) -> int:
    failed = todo.folders.failed
    kept = f"; the half-run notebook is in {todo.shown(failed)}" if failed.exists() else ""
    print(f"\ninterrupted in {todo.stem}{kept}. What was finished is kept: the same command goes on from there.", file=sys.stderr)
    return common.INTERRUPTED
