"""Ctrl-C and SIGTERM as a request to stop after the step."""
from __future__ import annotations

import contextlib
import signal
from typing import Any


class StopSignals:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the step; the second one acts at once."""

    def __init__(self):
        self.received, self.before = 0, {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # only the main thread may listen
                self.before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self.before = {}

    def __exit__(self, *exception) -> None:
        with contextlib.suppress(ValueError):
            self._restore()
