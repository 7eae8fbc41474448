"""How long a cell may go on: by what it does, not by the clock on the wall, so that a loaded machine fails nothing."""
from __future__ import annotations

import contextlib
import time

IDLE = 0.05  # a cell that uses less of a core than this is waiting


class Patience:
    """A clock that runs while a cell works or waits, and begins anew with each sign of progress (an output, a new cell).

    It advances by the processor time that the kernel's processes used, and never faster than the wall's clock; only a cell
    that does nothing at all is held to that.

    Args:
        limit_s: seconds without a sign after which `over` is True.
    """

    def __init__(self, limit_s: float):
        self.limit_s, self.spent, self._process, self._cpu, self._wall = limit_s, 0.0, None, 0.0, time.monotonic()

    def follow(self, pid: int) -> None:
        """Watch this process and its children."""
        import psutil

        self._process = psutil.Process(pid)
        self._cpu, self._wall = self._used(), time.monotonic()

    def sign(self) -> None:
        """Something happened that a person would see; too late once patience is over: the interrupted cell speaks too."""
        self.spent = self.spent if self.over else 0.0

    def look(self) -> None:
        """To be called every second or so."""
        if self._process is not None:
            used, wall = self._used(), time.monotonic()
            self.advance(used - self._cpu, wall - self._wall)
            self._cpu, self._wall = used, wall

    def advance(self, cpu: float, wall: float) -> None:
        """`cpu` seconds of work were done in `wall` seconds."""
        self.spent += min(max(cpu, 0.0), wall) if cpu >= IDLE * wall else wall

    @property
    def over(self) -> bool:
        """No sign for too long."""
        return self.spent > self.limit_s

    def _used(self) -> float:
        import psutil

        total = 0.0
        with contextlib.suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    total += times.user + times.system
        return total
