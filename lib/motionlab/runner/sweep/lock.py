"""One writer for each row, and the signs by which a sweep and a row's process understand each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

BUSY, INTERRUPTED = 75, 130  # exit codes of a row's process
GRACE_S = 60.0  # a stopped row may take this long to write its checkpoint


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[bool]:
    """Hold the system's lock on the file `path`; yields whether we have it. It ends with the process, in any case."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        locked = _try_lock(file)
        if locked:
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
        yield locked  # closing the file gives the lock back; the file stays, since removing it would race


def _try_lock(file) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 30)  # far behind the text, which stays readable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def holder(path: Path) -> str:
    """The process that holds the lock, as far as its file says."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip() or "unknown"
    return "unknown"
