"""`motionlab sweep`."""
from __future__ import annotations

import argparse
import shlex
import sys

from motionlab.cli import common
from motionlab.core.errors import MotionLabError


def add_commands(commands) -> None:
    """Add it to the parser."""
    parser = common.add(commands, "sweep", sweep, "measure an ablations.yaml row by row, skipping finished rows")
    parser.add_argument("file", metavar="FILE", help="an ablations.yaml, or the name of its paper")
    parser.add_argument("--tier", default="full", help="full (default) or smoke")
    parser.add_argument("--arm", nargs="+", action="extend", default=[], metavar="NAME", help="only these arms")
    parser.add_argument("--seed", nargs="+", action="extend", type=int, default=[], metavar="N", help="only these seeds")
    parser.add_argument("--jobs", type=int, default=1, help="rows measured at the same time (default 1)")
    parser.add_argument("--slurm", nargs="?", const="", metavar="KEY=VALUE,...",
                        help="queue rows on Slurm, such as --slurm partition=gpu,time=120,gpus_per_node=1 (time in minutes)")
    parser.add_argument("--dry-run", action="store_true", help="tell what is finished and what the rest costs")
    parser.add_argument("--redo", action="store_true", help="measure again rows whose settings or code have changed")
    parser.add_argument("--publish", action="store_true", help="write all finished rows to reproductions/PAPER/raw/")
    parser.add_argument("--choose", action="store_true", help="measure the grids of rates on dev and commit what the rule chooses")
    parser.add_argument("--out", metavar="DIR", help="where rows are kept (default runs/sweep)")


def sweep(options: argparse.Namespace) -> int:
    """`motionlab sweep`."""
    from motionlab.runner import sweep as sweeps
    from motionlab.runner.sweep import slurm

    if options.jobs < 1:
        raise MotionLabError(f"--jobs {options.jobs} runs nothing.", fix="Give at least 1.")
    read, grid = sweeps.read_sweep(options.file, common.root()), None
    if options.choose:
        read, grid = sweeps.grids(read)
    rows = sweeps.plan(read, options.tier, options.arm, options.seed, options.out)
    sweeps.refuse_unchosen(read, rows)
    everything = sweeps.plan(read, options.tier, out=options.out)
    settings = None if options.slurm is None else slurm.read_settings(options.slurm)
    queued = None if settings is None else slurm.queued(rows)
    todo = sweeps.announce(read, rows, options.redo, options.jobs, queued)
    if todo:
        sweeps.check_apart(read)
    if options.dry_run:
        return 0
    if not options.redo:
        sweeps.refuse_stale(rows)
    if options.publish:
        sweeps.check_publishable(options.tier, everything, todo)
    if settings is not None and (todo or queued):
        return _queue(options, read, rows, todo, settings)
    common.stop_politely()
    try:
        failed = sweeps.run_sweep(read, todo, options.jobs, options.redo)
    except KeyboardInterrupt:
        print(f"\ninterrupted. This goes on from there:\n  {_command(options)}", file=sys.stderr)
        return common.INTERRUPTED
    print(f"\n{sweeps.summary(rows)}")
    if grid and not failed and options.tier == "full" and not (options.arm or options.seed):
        print(f"chosen: {sweeps.settle(read, everything, grid)}")
    elif options.publish:
        print(f"published: {sweeps.publish(read, everything)}")
    if failed:
        print(f"{len(failed)} of {len(todo)} rows failed: {', '.join(failed)}", file=sys.stderr)
    return common.FAILED if failed else 0


def _queue(options: argparse.Namespace, sweep, rows: list, todo: list, settings: dict) -> int:
    """Queue what is missing, and say how to go on."""
    from motionlab.runner.sweep import slurm, summary

    if todo:
        slurm.submit(sweep, todo, settings, options.redo)
    then = "; then it chooses" if options.choose else "; then it publishes" if options.publish else ""
    print(f"\n{summary(rows)}\nnot finished yet: the same command tells how far Slurm is{then}.")
    return 0


def _command(options: argparse.Namespace) -> str:
    words = ["motionlab", "sweep", options.file, "--tier", options.tier]
    words += ["--arm", *options.arm] if options.arm else []
    words += ["--seed", *options.seed] if options.seed else []
    words += ["--jobs", options.jobs] if options.jobs != 1 else []
    words += ["--out", options.out] if options.out else []
    words += [f"--{name}" for name in ("redo", "choose", "publish") if getattr(options, name)]
    return shlex.join(map(str, words))
