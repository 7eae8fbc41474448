"""One process at a time on a notebook or a row: a lock of the operating system, which ends with its process in any case."""
from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[str | None]:
    """Hold the lock on the file `path`. Yields None when we have it, else who does ("1234 on node7"), as far as the file says."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield holder(path)
        return
    try:
        with contextlib.suppress(OSError):  # Windows lets nobody write to a locked file
            path.write_text(f"{os.getpid()} on {platform.node()}", encoding="utf-8")
        yield None
    finally:
        lock.release()  # the file stays: removing it would race


def holder(path: Path) -> str:
    """The process that holds the lock, as far as its file says."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip() or "unknown"
    return "unknown"
