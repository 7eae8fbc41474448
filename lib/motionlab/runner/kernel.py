"""Papermill underneath: execute one notebook in a kernel of this very Python, watched, and surely shut down.

Imports papermill, so the runner imports this module only when there is something to run.
"""
from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError, strip_color

from motionlab.ledger.criteria import VERDICTS
from motionlab.runner.patience import Patience
from motionlab.runner.progress import Progress, head

GRACE_S = 10.0  # an interrupted cell may take this long to stop
START_TIMEOUT_S = 180  # a first import of the kernel on a busy 2-core machine takes longer than papermill's minute
VERDICT_LINE = re.compile(rf"^\S+\.\S+\s+({'|'.join(VERDICTS)})\b")


class CellFailure(Exception):
    """A cell that stopped the notebook: which one, its telling line, and the last line of what Python said."""

    def __init__(self, cell: int, head: str, last_line: str, traceback: str = ""):
        self.cell, self.head, self.last_line, self.traceback = cell, head, last_line, traceback
        super().__init__(last_line)


@dataclass(frozen=True)
class Context:
    """What an execution needs beside the notebook. `log` receives `event=..., ...` of every code cell."""

    root: Path
    patience: Patience  # with one cell
    watch: Progress
    log: Callable[..., None]
    on_kernel: Callable[[int], None]  # receives the kernel's process id


def execute(source: Path, target: Path, values: dict[str, Any], context: Context) -> None:
    """Execute `source` into `target` with `values` injected; `target` is saved after every cell and every 30 s.

    Raises:
        CellFailure: a cell raised, showed no progress for too long, or its kernel died.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # checked before: the runner's own sentences are better
    paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (source, target)]  # papermill formats its paths
    watch = context.watch
    try:
        papermill.execute_notebook(
            *paths, parameters=values, kernel_name="python3", language="python", cwd=str(context.root), progress_bar=False,
            autosave_cell_every=30, execution_timeout=None, start_timeout=START_TIMEOUT_S, engine_name="motionlab",
            stdout_file=_Verdicts(watch), context=context, stem=source.stem)
    except PapermillExecutionError as error:
        if context.patience.over:
            raise CellFailure(len(watch.seconds), head(error.source), _no_progress(context)) from None
        what = f"{error.ename}: {strip_color(str(error.evalue)).strip()}"
        raise CellFailure(len(watch.seconds), head(error.source), what, strip_color("\n".join(error.traceback))) from None
    except DeadKernelError:
        if context.patience.over:
            raise CellFailure(len(watch.seconds), watch.head, _no_progress(context)) from None
        raise CellFailure(len(watch.seconds), watch.head, "the kernel died (often: no memory left)") from None


def _no_progress(context: Context) -> str:
    return f"the cell showed no progress for {context.patience.limit_s:.0f} s of work"


class Stopper:
    """Interrupts the kernel once patience is over, and ends it where it does not listen."""

    def __init__(self, patience: Patience):
        self.patience, self.pid, self.since = patience, None, None

    def follow(self, pid: int) -> None:
        """This is the kernel."""
        self.pid = pid
        self.patience.follow(pid)

    def look(self) -> None:
        """To be called every second or so."""
        self.patience.look()
        if self.pid is None or not self.patience.over:
            return
        first, self.since = self.since is None, self.since or time.monotonic()
        with contextlib.suppress(OSError):
            if first and os.name != "nt":
                os.kill(self.pid, signal.SIGINT)
            elif time.monotonic() - self.since > GRACE_S or os.name == "nt":
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


class _Verdicts:
    """Passes a notebook's verdict lines on to the person who waits; the rest stays in the executed notebook."""

    def __init__(self, watch: Progress):
        self.watch, self.rest = watch, ""

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(VERDICT_LINE.match, lines):
            self.watch.say("    " + line)

    def flush(self) -> None: ...


class _Client(PapermillNotebookClient):
    """nbclient with a kernel of this Python, cell times, and a kernel that never outlives an interrupt."""

    context: Context
    stem: str

    def create_kernel_manager(self):
        manager = super().create_kernel_manager()
        # A `python3` kernel registered by another environment would silently run another installation.
        manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
        manager.kernel_spec.env |= {"MOTIONLAB_ROOT": str(self.context.root), "MOTIONLAB_NOTEBOOK": self.stem,
                                    "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        return manager

    def execute(self, **kwargs):
        try:
            return super().execute(**kwargs)
        except BaseException:
            _ignore_interrupts()
            if self.km is not None:  # interrupted while the kernel was starting
                self.shutdown_kernel = "immediate"
                self._cleanup_kernel()
            raise

    def papermill_execute_cells(self):
        process = getattr(getattr(self.km, "provisioner", None), "pid", None)
        if process:
            self.context.on_kernel(process)
        # A busy kernel would not hear a polite request, and a finished one has closed its book: both end at once.
        self.shutdown_kernel = "immediate"
        try:
            super().papermill_execute_cells()
        except BaseException:
            _ignore_interrupts()
            raise

    def process_message(self, *arguments, **kwargs):
        self.context.patience.sign()
        return super().process_message(*arguments, **kwargs)

    def execute_cell(self, cell, cell_index, **kwargs):
        if cell.cell_type != "code" or not cell.source.strip():
            return super().execute_cell(cell, cell_index, **kwargs)
        watch = self.context.watch
        watch.cell_started(cell.source)
        self.context.patience.sign()
        try:
            return super().execute_cell(cell, cell_index, **kwargs)
        finally:
            self.context.log(event="cell", index=len(watch.seconds), head=watch.head, seconds=round(watch.cell_done(), 3))


def _ignore_interrupts() -> None:
    """A second Ctrl-C must not leave the kernel behind; the runner restores the handler."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Engine(Engine):
    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, log_output=False, stdout_file=None, stderr_file=None, start_timeout=60,
                                 execution_timeout=None, **kwargs):
        client = _Client(nb_man, kernel_name=kernel_name, timeout=execution_timeout, startup_timeout=start_timeout,
                         stdout_file=stdout_file, stderr_file=stderr_file, log_output=log_output)
        client.context, client.stem = kwargs["context"], kwargs["stem"]
        return client.execute()


papermill_engines.register("motionlab", _Engine)
