"""What a person sees while a notebook runs: which cell, for how long, and an estimate of what is left."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

HEARTBEAT_S = 30.0  # a plain log hears from a long cell this often
QUIET_S = 2.0  # cells that finish sooner after the last line get no line of their own


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = int(round(seconds))
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Live progress of one notebook, from the times its cells took last time or from its measured cost.

    On a terminal one line rewrites itself every second; elsewhere (CI, a file) plain lines appear as cells finish.

    Args:
        label: the notebook.
        cells: number of code cells.
        cell_seconds: what each took in the last run, or None.
        total_seconds: an estimate of the whole, used where `cell_seconds` does not fit.
        say: prints a line.
        live: whether to rewrite a line; by default when `say` is `print` and the output is a terminal.
        sample: called every second (the runner measures memory with it).
    """

    def __init__(
        self,
        label: str,
        cells: int,
        cell_seconds: list[float] | None = None,
        total_seconds: float | None = None,
        say: Callable[[str], None] = print,
        live: bool | None = None,
        sample: Callable[[], None] = lambda: None,
    ):
        self.label, self.cells, self.total, self.sample = label, cells, total_seconds, sample
        self.last = cell_seconds if cell_seconds and len(cell_seconds) == cells else None
        self.live = (say is print and sys.stdout.isatty()) if live is None else live
        self._print, self._lock, self._stop = say, threading.Lock(), threading.Event()
        self.seconds: list[float] = []  # of the cells that are done
        self.started = self.cell_started_at = self._spoke = time.monotonic()
        self.head, self._width = "starting the kernel", 0

    def __enter__(self) -> Progress:
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        self._clear()

    def cell_started(self, source: str) -> None:
        """A code cell begins; its first telling line names it."""
        self.head, self.cell_started_at = head(source), time.monotonic()

    def cell_done(self) -> float:
        """The current code cell is over; returns its seconds."""
        took = time.monotonic() - self.cell_started_at
        self.seconds.append(took)
        if not self.live and (time.monotonic() - self._spoke > QUIET_S or len(self.seconds) == self.cells):
            self.say(self.line())
        return took

    def say(self, text: str) -> None:
        """Print a line of its own, above the line that rewrites itself."""
        self._clear()
        self._print(text)
        self._spoke = time.monotonic()

    def left(self) -> float | None:
        """Estimated seconds until the notebook is done; None where nothing is known."""
        done, now = len(self.seconds), time.monotonic()
        if self.last:
            current = self.last[done] if done < self.cells else 0.0
            return max(current - (now - self.cell_started_at), 0.0) + sum(self.last[done + 1 :])
        if self.total:
            return max(self.total - (now - self.started), 0.0)
        return None

    def line(self) -> str:
        """`  09_audit  cell 3/12  14 s  about 40 s left  rows = respond(world)`."""
        left, done = self.left(), len(self.seconds)
        running = f"cell {min(done + (1 if self.live else 0), self.cells)}/{self.cells}"
        estimate = (
            ""
            if left is None or done == self.cells
            else "  nearly done"
            if left < 1
            else f"  about {duration(left)} left"
        )
        return f"  {self.label}  {running}  {duration(time.monotonic() - self.started)}{estimate}  {self.head}"

    def _tick(self) -> None:
        while not self._stop.wait(1.0):
            self.sample()
            if self.live:
                self._rewrite(self.line())
            elif time.monotonic() - self._spoke > HEARTBEAT_S:
                self.say(self.line())

    def _rewrite(self, text: str) -> None:
        import shutil

        text = text[: shutil.get_terminal_size().columns - 1]
        with self._lock:
            sys.stdout.write("\r" + text.ljust(self._width))
            sys.stdout.flush()
            self._width = len(text)

    def _clear(self) -> None:
        with self._lock:
            if self._width:
                sys.stdout.write("\r" + " " * self._width + "\r")
                sys.stdout.flush()
                self._width = 0


def head(source: str, width: int = 60) -> str:
    """The first line of a cell that does something: not a comment, not an import."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("#", "import ", "from ", "%"))]
    text = (telling or lines or [""])[0]
    return text if len(text) <= width else text[: width - 3] + "..."
