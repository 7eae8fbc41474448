"""Measures rows in processes of their own: what it tells before, while and after, and how it stops.

The pool is our own and not submitit's LocalExecutor, which starts everything at once, hides the GPUs from rows that ask
for none, and gives a stopped row one second to write its checkpoint.
"""
from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.files import shown
from motionlab.core.locks import Busy, holder, only_one
from motionlab.runner.memory import short_of
from motionlab.runner.params import Cost
from motionlab.runner.progress import duration
from motionlab.runner.sweep.ablations import Sweep
from motionlab.runner.sweep.job import RowJob, job_of
from motionlab.runner.sweep.rows import REDONE, TO_DO, Row

HEARTBEAT_S = 60.0
ELSEWHERE_S = 1.0  # between two looks at a row that another sweep has
GRACE_S = 60.0  # a stopped row may take this long to write its checkpoint
FAILED, BUSY, INTERRUPTED = 1, 75, 130  # exit codes of a row's process
Say = Callable[[str], None]


def announce(sweep: Sweep, rows: list[Row], redo: bool = False, jobs: int = 1,
             queued: Mapping[str, str] | None = None, say: Say = print) -> list[Row]:
    """Tell what is finished and what the rest costs; return the rows to measure. Writes nothing.

    Args:
        queued: where Slurm measures: rows that wait or run there, and what is known of them; they are not measured again.
    """
    here, queued = queued is None, queued or {}
    states = [(row, *row.state()) for row in rows]
    again = (*TO_DO, *REDONE) if redo else TO_DO
    todo = [row for row, state, _ in states if state in again and row.name not in queued]
    minutes, together = getattr(sweep.cost.minutes_per_row, rows[0].tier), min(jobs, len(todo))
    cost = Cost(minutes * math.ceil(len(todo) / max(jobs, 1)), sweep.cost.ram_gb * together)
    price = f": {cost}" if todo and here else ""
    each = f" ({minutes:g} min each{f', {together} at a time' if here else ''})" if todo and minutes else ""
    finished = sum(state in ("finished", "other code") for _, state, _ in states)
    on_slurm = f", {len(queued)} on Slurm" if queued else ""
    say(f"{sweep.paper}  tier {rows[0].tier}: {len(rows)} rows, {finished} finished{on_slurm}, {len(todo)} to measure{price}{each}")
    if todo and here and (note := short_of(cost.ram_gb)):
        say(note)
    for row, state, changed in states:
        if row.name in queued or state != "new":
            say(f"  {row.name:<32} {queued.get(row.name) or _state_text(state, changed, redo)}")
    return todo


def _state_text(state: str, changed: list[str], redo: bool) -> str:
    again = "measured again" if redo else "--redo measures it again"
    return {
        "finished": "finished",
        "other code": f"finished, with code that has changed since: {again}",
        "stale": f"stale, changed: {', '.join(changed)}: {again}",
        "damaged": "its CSV is not what was measured: measured again",
        "begun": "begun: goes on from what it kept",
    }[state]


@dataclass
class Process:
    """A row's process. It stops when its lifeline closes, for whatever reason: our end of it is in no other process."""

    row: Row
    process: multiprocessing.process.BaseProcess
    lifeline: multiprocessing.connection.Connection
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, job: RowJob) -> Process:
        context = multiprocessing.get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        process = context.Process(target=_in_process, args=(job, theirs), name=job.row.name)
        process.start()
        theirs.close()
        return cls(job.row, process, ours)

    def problem(self) -> str | None:
        """What went wrong, in a sentence; None when the row is finished."""
        code, state = self.process.exitcode, self.row.state()[0]
        if state == "finished" or (code == 0 and state == "other code"):
            return None
        killed = f"killed by signal {-code} (out of memory?)" if code < 0 else None
        return f"{killed or last_line(self.row.log) or f'exit code {code}'}  log: {shown(self.row.log)}"


def _in_process(job: RowJob, lifeline: multiprocessing.connection.Connection) -> None:
    """The whole life of a row's process."""
    if hasattr(os, "setsid"):
        os.setsid()  # a terminal's Ctrl-C is the sweep's to pass on
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a sweep begun in the background ignores it, its rows must listen
    sys.stdout.reconfigure(line_buffering=True)
    threading.Thread(target=_until_closed, args=(lifeline,), daemon=True).start()
    try:
        job()
    except Busy:
        sys.exit(BUSY)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception:
        sys.exit(FAILED)  # told in the log


def _until_closed(lifeline: multiprocessing.connection.Connection) -> None:
    """Stop as on Ctrl-C once the sweep is gone or asks for it; a row that does not listen is ended."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    if os.name == "nt":
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)  # a real signal also ends a sleep
    time.sleep(GRACE_S)
    os._exit(INTERRUPTED)


def run_sweep(sweep: Sweep, todo: list[Row], jobs: int = 1, redo: bool = False, say: Say = print) -> dict[str, str]:
    """Measure rows, `jobs` at a time, each in a process of its own; {row: what went wrong} of those that failed.

    A row that fails does not stop the others. One that another sweep has is left to it, and taken over if it ends unfinished.
    However this process ends, the rows' processes end with it.

    Raises:
        MotionLabError: a folder that cannot be written.
        KeyboardInterrupt: Ctrl-C; what the rows kept stays.
    """
    if jobs < 1:
        raise MotionLabError(f"--jobs {jobs} runs nothing.", fix="Give at least 1.")
    waiting, running, failed, took, spoke = list(todo), [], {}, [], time.monotonic()
    elsewhere: list[Row] = []  # rows that another sweep has
    if jobs > 1:  # rows side by side share the cores instead of fighting for them
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    try:
        while waiting or running or elsewhere:
            if elsewhere and not waiting:
                waiting += _given_back(elsewhere, redo, say)
            while waiting and len(running) < jobs:
                running.append(Process.start(job_of(sweep, waiting.pop(0), redo)))
                say(f"  {running[-1].row.name}  started")
            time.sleep(0.05)
            for child in [child for child in running if not child.process.is_alive()]:
                running.remove(child)
                if child.process.exitcode == BUSY:
                    say(f"  {child.row.name}  is being measured by process {holder(child.row.lock)}: left to it")
                    elsewhere.append(child.row)
                    continue
                took.append(time.monotonic() - child.began)
                if problem := child.problem():
                    failed[child.row.name] = problem
                what, spoke = f"failed: {problem}" if problem else f"finished in {duration(took[-1])}", time.monotonic()
                say(f"  {child.row.name}  {what}  ({len(took)} of {len(todo)}{_left(took, len(todo), jobs)})")
            if time.monotonic() - spoke > HEARTBEAT_S:
                spoke = time.monotonic()
                for child in running:
                    say(f"  {child.row.name}  {duration(spoke - child.began)}  {last_line(child.row.log)}")
    except KeyboardInterrupt:
        say(f"  stopping {', '.join(child.row.name for child in running)}: it may write a checkpoint first")
        raise
    finally:
        _stop(running)
    return failed


def _given_back(elsewhere: list[Row], redo: bool, say: Say) -> list[Row]:
    """Rows that other sweeps let go of unfinished; those that they finished are dropped."""
    back = []
    for row in list(elsewhere):
        with only_one(row.lock) as other:
            if other:
                continue
        elsewhere.remove(row)
        state = row.state()[0]
        if state == "finished" or (state == "other code" and not redo):
            say(f"  {row.name}  finished by another sweep")
        else:
            back.append(row)
    if elsewhere and not back:
        time.sleep(ELSEWHERE_S)
    return back


def _left(took: list[float], count: int, jobs: int) -> str:
    rounds = math.ceil((count - len(took)) / jobs)
    return f", about {duration(sum(took) / len(took) * rounds)} left" if rounds else ""


def _stop(running: list[Process]) -> None:
    """Close the lifelines and wait; a second Ctrl-C, or the end of the grace, kills."""
    for child in running:
        child.lifeline.close()
    until = time.monotonic() + GRACE_S + 5
    try:
        for child in running:
            child.process.join(max(0.0, until - time.monotonic()))
    finally:
        for child in running:
            child.process.kill()
            child.process.join()


def last_line(path: Path) -> str:
    """The last line of a log that says something; empty where there is none."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        lines = file.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
        return next((line.strip()[:200] for line in reversed(lines) if line.strip() and not line.startswith("  -> ")), "")
    return ""
