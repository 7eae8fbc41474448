"""How much memory there is, and how much a process takes."""
from __future__ import annotations

import contextlib

from motionlab.core.errors import MotionLabError


def short_of(wanted_gb: float) -> str | None:
    """A note for the person who waits, where less memory is free than wanted; else None."""
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return f"  note: it needs {wanted_gb:g} GB of memory and {free:.1f} GB are free here" if free < wanted_gb else None


def demand_memory(stem: str, wanted_gb: float) -> None:
    """Refuse what this machine could not hold even if nothing else ran on it.

    Raises:
        MotionLabError: memory and swap together are smaller.
    """
    import psutil

    has = (psutil.virtual_memory().total + psutil.swap_memory().total) / 2**30
    if wanted_gb > has:
        raise MotionLabError(f"{stem} takes {wanted_gb:g} GB of memory, and this machine has {has:.1f} GB.",
                             fix="Choose a smaller tier (`motionlab list` shows what each takes), or another machine.")


class Peak:
    """Peak resident memory of a process and its children, in bytes, as of all looks at it."""

    def __init__(self) -> None:
        self.peak, self._process = 0, None

    def follow(self, pid: int) -> None:
        """Look at this process from now on."""
        import psutil

        self._process = psutil.Process(pid)
        self.sample()

    def sample(self) -> None:
        """Take a look."""
        if self._process is None:
            return
        with contextlib.suppress(Exception):  # it has ended between two looks
            family = [self._process, *self._process.children(recursive=True)]
            self.peak = max(self.peak, sum(process.memory_info().rss for process in family))
