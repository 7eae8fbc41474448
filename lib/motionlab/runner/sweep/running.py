"""Measures rows in processes of their own: what it tells before, while and after, and how it stops."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.files import explained, shown
from motionlab.runner.params import cost_text
from motionlab.runner.progress import duration
from motionlab.runner.runs import memory_short
from motionlab.runner.sweep.ablations import Sweep
from motionlab.runner.sweep.lock import BUSY, GRACE_S, holder
from motionlab.runner.sweep.rows import REDONE, TO_DO, Row

HEARTBEAT_S = 60.0


def announce(
    sweep: Sweep, rows: list[Row], redo: bool = False, jobs: int = 1, say: Callable[[str], None] = print
) -> list[Row]:
    """Tell what is finished and what the rest costs; return the rows to measure. Writes nothing."""
    states = [row.state() for row in rows]
    todo = [row for row, (state, _) in zip(rows, states) if state in TO_DO or (redo and state in REDONE)]
    minutes = sweep.cost.get("minutes_per_row", {}).get(rows[0].tier, 0)
    together = min(jobs, len(todo))
    cost = {"minutes": minutes * math.ceil(len(todo) / max(jobs, 1)), "ram_gb": sweep.cost.get("ram_gb", 0) * together}
    price = f": {cost_text(cost)}" if todo else ""
    each = f" ({minutes:g} min each, {together} at a time)" if todo and minutes else ""
    finished = sum(state in ("finished", "other code") for state, _ in states)
    counts = f"{len(rows)} rows, {finished} finished, {len(todo)} to measure"
    say(f"{sweep.paper}  tier {rows[0].tier}: {counts}{price}{each}")
    short = memory_short(cost["ram_gb"])
    if todo and short:
        say(f"  note: it needs {cost['ram_gb']:g} GB of memory and {short:.1f} GB are free here")
    for row, (state, changed) in zip(rows, states):
        if state != "new":
            say(f"  {row.name:<32} {_state_text(state, changed, redo)}")
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


def run_sweep(
    sweep: Sweep, todo: list[Row], jobs: int = 1, redo: bool = False, say: Callable[[str], None] = print
) -> dict[str, str]:
    """Measure rows, `jobs` at a time, each in a process of its own; {row: what went wrong} of those that failed.

    A row that fails does not stop the others. However this process ends, the rows' processes end with it.

    Raises:
        MotionLabError: a folder that cannot be written.
        KeyboardInterrupt: Ctrl-C; what the rows kept stays.
    """
    if jobs < 1:
        raise MotionLabError(f"--jobs {jobs} runs nothing.", fix="Give at least 1.")
    waiting, running, failed = list(todo), [], {}
    watch = _Watch(sweep, todo, jobs, say)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Child(sweep, waiting.pop(0), jobs, redo))
                say(f"  {running[-1].row.name}  started")
            time.sleep(0.05)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                child.close()
                problem = child.problem()
                if problem:
                    failed[child.row.name] = problem
                watch.done(child, problem)
            watch.beat(running)
    except KeyboardInterrupt:
        say(f"  stopping {', '.join(child.row.name for child in running)}: it may write a checkpoint first")
        raise
    finally:
        _stop(running)
    return failed


class _Watch:
    """Lines while rows are measured: each that ends, now and then those that run, and what is left."""

    def __init__(self, sweep: Sweep, todo: list[Row], jobs: int, say: Callable[[str], None]):
        self.all, self.jobs, self.say, self.count = len(todo), jobs, say, 0
        self.each = 60 * sweep.cost.get("minutes_per_row", {}).get(todo[0].tier, 0) if todo else 0
        self.seconds: list[float] = []
        self.spoke = time.monotonic()

    def done(self, child: _Child, problem: str | None) -> None:
        self.count += 1
        took = time.monotonic() - child.began
        if not problem:
            self.seconds.append(took)
        what = f"failed: {problem}" if problem else f"finished in {duration(took)}"
        self._tell(f"  {child.row.name}  {what}  ({self.count} of {self.all}{self._left()})")

    def beat(self, running: list[_Child]) -> None:
        if time.monotonic() - self.spoke > HEARTBEAT_S:
            for child in running:
                took = duration(time.monotonic() - child.began)
                self._tell(f"  {child.row.name}  {took}  {last_line(child.row.log)}")

    def _tell(self, text: str) -> None:
        self.say(text)
        self.spoke = time.monotonic()

    def _left(self) -> str:
        each = sum(self.seconds) / len(self.seconds) if self.seconds else self.each
        rounds = math.ceil((self.all - self.count) / self.jobs)
        return f", about {duration(each * rounds)} left" if each and rounds else ""


class _Child:
    """A row's process. Its standard input is its lifeline: when that closes, for whatever reason, it stops."""

    def __init__(self, sweep: Sweep, row: Row, jobs: int, redo: bool):
        self.row, self.began = row, time.monotonic()
        job = {
            "row": {**dataclasses.asdict(row), "folder": str(row.folder)},
            "function": sweep.function,
            "beside": str(sweep.path.parent),
            "root": str(sweep.root),
            "arm": sweep.arms[row.arm],
            "common": sweep.common,
            "redo": redo,
        }
        environment = dict(os.environ)
        if jobs > 1:  # rows side by side share the cores instead of fighting for them
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        apart = {"start_new_session": True}  # a terminal's Ctrl-C is ours to pass on
        if os.name == "nt":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        with explained(row.log):
            row.log.parent.mkdir(parents=True, exist_ok=True)
            with open(row.log, "ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-u", "-m", "motionlab.runner.sweep.child", row.name],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=sweep.root, env=environment, **apart,
                )  # fmt: skip
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit code tells
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def problem(self) -> str | None:
        """What went wrong, in a sentence; None when the row is finished."""
        code = self.process.returncode
        state = self.row.state()[0]
        if state == "finished" or (code == 0 and state == "other code"):
            return None
        if code == BUSY:
            return f"it is being measured by process {holder(self.row.lock)}"
        killed = f"killed by signal {-code} (out of memory?)" if code < 0 else None
        why = killed or last_line(self.row.log) or f"exit code {code}"
        return f"{why}  log: {shown(self.row.log)}"


def _stop(running: list[_Child]) -> None:
    """Close the lifelines and wait; a second Ctrl-C, or the end of the grace, kills."""
    for child in running:
        child.close()
    try:
        until = time.monotonic() + GRACE_S + 5
        for child in running:
            child.process.wait(max(0.0, until - time.monotonic()))
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        for child in running:
            child.process.kill()
            child.process.wait()


def last_line(path: Path) -> str:
    """The last line of a log that says something; empty where there is none."""
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 4000))
            lines = file.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
        lines = [line for line in lines if line.strip() and not line.startswith("  -> ")]
        return lines[-1].strip()[:200] if lines else ""
    return ""
