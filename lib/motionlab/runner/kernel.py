"""Papermill underneath: execute one notebook in a kernel of this very Python, watched, and surely shut down.

Imports papermill, so the runner imports this module only when there is something to run.
"""
from __future__ import annotations

import logging
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError, strip_color

from motionlab.ledger.claims import VERDICTS
from motionlab.runner.progress import Progress, head

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
    timeout_s: int  # of one cell
    watch: Progress
    log: Callable[..., None]
    on_kernel: Callable[[int], None]  # receives the kernel's process id


def execute(source: Path, target: Path, values: dict[str, Any], context: Context) -> None:
    """Execute `source` into `target` with `values` injected; `target` is saved after every cell and every 30 s.

    Raises:
        CellFailure: a cell raised, ran past its limit, or its kernel died.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # checked before: the runner's own sentences are better
    paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (source, target)]  # papermill formats its paths
    watch = context.watch
    try:
        papermill.execute_notebook(
            *paths, parameters=values, kernel_name="python3", language="python", cwd=str(context.root), progress_bar=False,
            autosave_cell_every=30, execution_timeout=context.timeout_s, start_timeout=START_TIMEOUT_S, engine_name="motionlab",
            stdout_file=_Verdicts(watch), context=context, stem=source.stem)
    except PapermillExecutionError as error:
        what = f"{error.ename}: {strip_color(str(error.evalue)).strip()}"
        raise CellFailure(len(watch.seconds), head(error.source), what, strip_color("\n".join(error.traceback))) from None
    except CellTimeoutError:
        raise CellFailure(len(watch.seconds), watch.head, f"the cell ran past its limit of {context.timeout_s} s") from None
    except DeadKernelError:
        raise CellFailure(len(watch.seconds), watch.head, "the kernel died (often: no memory left)") from None


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

    def execute_cell(self, cell, cell_index, **kwargs):
        if cell.cell_type != "code" or not cell.source.strip():
            return super().execute_cell(cell, cell_index, **kwargs)
        watch = self.context.watch
        watch.cell_started(cell.source)
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
