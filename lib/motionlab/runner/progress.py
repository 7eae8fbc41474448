"""What a person sees while a notebook runs: which cell, for how long, and an estimate of what is left."""
from __future__ import annotations

import shutil
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
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 5400 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Live progress of one notebook, from the times its cells took last time or from its measured cost.

    On a terminal one line rewrites itself every second; elsewhere (CI, a file) plain lines appear as cells finish.

    Args:
        label: the notebook.
        cells: number of code cells.
        cell_seconds: what each took in the last run, or None.
        total_seconds: an estimate of the whole, used where `cell_seconds` does not fit.
        say: prints a line; where it is `print` and the output is a terminal, a line rewrites itself.
        sample: called every second (the runner measures memory with it).
    """

    def __init__(self, label: str, cells: int, cell_seconds: list[float] | None = None, total_seconds: float | None = None,
                 say: Callable[[str], None] = print, sample: Callable[[], None] = lambda: None):
        self.label, self.cells, self.total, self.sample, self._print = label, cells, total_seconds, sample, say
        self.last = cell_seconds if cell_seconds and len(cell_seconds) == cells else None
        self.live, self._bar, self._stop = say is print and sys.stdout.isatty(), None, threading.Event()
        self.seconds: list[float] = []  # of the cells that are done
        self.started = self.cell_started_at = self._spoke = time.monotonic()
        self.head = "starting the kernel"

    def __enter__(self) -> Progress:
        if self.live:
            from tqdm import tqdm

            width = shutil.get_terminal_size().columns - 1  # tqdm itself shows nothing on a terminal that tells no size
            self._bar = tqdm(bar_format="{desc}", leave=False, ncols=width, nrows=20, file=sys.stdout)
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        if self._bar is not None:
            self._bar.close()

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
        if self._bar is None:
            self._print(text)
        else:
            self._bar.write(text, file=sys.stdout)
        self._spoke = time.monotonic()

    def left(self) -> float | None:
        """Estimated seconds until the notebook is done; None where nothing is known."""
        done, now = len(self.seconds), time.monotonic()
        if self.last:
            current = self.last[done] if done < self.cells else 0.0
            return max(current - (now - self.cell_started_at), 0.0) + sum(self.last[done + 1 :])
        return max(self.total - (now - self.started), 0.0) if self.total else None

    def line(self) -> str:
        """`  09_audit  cell 3/12  14 s  about 40 s left  rows = respond(world)`."""
        left, done = self.left(), len(self.seconds)
        cell = f"cell {min(done + (1 if self.live else 0), self.cells)}/{self.cells}"
        words = [self.label, cell, duration(time.monotonic() - self.started), self.head]
        if left is not None and done < self.cells:
            words.insert(3, "nearly done" if left < 1 else f"about {duration(left)} left")
        return "  " + "  ".join(words)

    def _tick(self) -> None:
        while not self._stop.wait(1.0):
            self.sample()
            if self._bar is not None:
                self._bar.set_description_str(self.line())
            elif time.monotonic() - self._spoke > HEARTBEAT_S:
                self.say(self.line())


def head(source: str, width: int = 60) -> str:
    """The first line of a cell that does something: not a comment, not an import."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("#", "import ", "from ", "%"))]
    text = (telling or lines or [""])[0]
    return text if len(text) <= width else text[: width - 3] + "..."
