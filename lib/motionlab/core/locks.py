"""One process at a time on a notebook, a row, a training or a bank.

The lock is one of the operating system, which ends with its process in any case. Its file names the holder: process, host
and start time. While it is held the file's time of change is renewed: that is its heartbeat. On a file system that several
hosts share, the system's lock of another host may not be seen here, or may outlive it, so there the heartbeat decides: a
holder on another host that has not been heard of for `SILENT_S` has lost the lock.
"""
from __future__ import annotations

import contextlib
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from motionlab.core.errors import MotionLabError

BEAT_S = 20.0
SILENT_S = 180.0
POLL_S = 0.5
SIGNED = re.compile(r"\d+ on (?P<host>.+), since .+")
_STARTED = time.strftime("%Y-%m-%d %H:%M:%S")  # of this process, near enough


class Busy(MotionLabError):
    """Another process holds what this one wants."""


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[str | None]:
    """Hold the lock on the file `path`. Yields None when we have it, else who does: "1234 on node7, since 2026-11-30 02:10"."""
    lock = _acquired(path)
    if lock is None:
        yield holder(path)
        return
    stop = threading.Event()
    try:
        _sign(path)
        threading.Thread(target=_beat, args=(path, stop), daemon=True).start()
        yield None
    finally:
        stop.set()
        with contextlib.suppress(OSError):
            if holder(path) == _signature():  # not that of a host that took us for dead
                path.write_text("", encoding="utf-8")
        lock.release()  # the file stays: removing it would race


@contextlib.contextmanager
def held(path: Path, what: str, fix: str = "Wait for it, or stop it.") -> Iterator[None]:
    """Hold the lock, or say who does.

    Raises:
        Busy: another process has it.
    """
    with only_one(path) as other:
        if other:
            raise Busy(f"{what} is in use by process {other}.", fix=fix)
        yield


@contextlib.contextmanager
def turn(path: Path, what: str, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold the lock, waiting for our turn; says once for whom."""
    told = False
    while True:
        with only_one(path) as other:
            if other is None:
                yield
                return
        if not told:
            say(f"{what}: waiting for process {other}")
            told = True
        time.sleep(POLL_S)


def holder(path: Path) -> str:
    """The process that holds the lock, as far as its file says."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip() or "unknown"
    return "unknown"


def _acquired(path: Path):
    """The system's lock, held; None where somebody else has it and is not known to be gone."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock, elsewhere = FileLock(path), _elsewhere(path)
    if elsewhere and _silence(path) < SILENT_S:
        return None
    try:
        lock.acquire(blocking=False)
        return lock
    except Timeout:
        if not elsewhere:
            return None
    with contextlib.suppress(OSError):  # a lock that outlived its host: leave it the old file, and lock a new one
        path.unlink()
    with contextlib.suppress(Timeout):
        lock = FileLock(path)
        lock.acquire(blocking=False)
        return lock
    return None


def _elsewhere(path: Path) -> bool:
    said = SIGNED.fullmatch(holder(path))
    return said is not None and said["host"] != platform.node()


def _silence(path: Path) -> float:
    """Seconds since the last heartbeat, by the clock of the file system that holds the file: hosts' clocks differ."""
    probe = path.with_name(f"{path.name}.{os.getpid()}.clock")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except OSError:
        return time.time() - path.stat().st_mtime if path.exists() else 0.0
    finally:
        probe.unlink(missing_ok=True)


def _sign(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows lets nobody write to a locked file
        path.write_text(_signature(), encoding="utf-8")


def _signature() -> str:
    return f"{os.getpid()} on {platform.node()}, since {_STARTED}"


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)
