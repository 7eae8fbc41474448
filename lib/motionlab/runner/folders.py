"""Where a run lives, and how it gets there whole.

A run lives in `runs/<tier>/<stem>/`. It is executed in `runs/<tier>/.partial-<stem>/` and moved into place only when it
is complete, so that killing the runner at any moment never damages a finished result. A run that failed or was
interrupted is kept in `runs/<tier>/<stem>.failed/`.
"""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from motionlab.core.digests import digest_of
from motionlab.core.files import parse_json, read_json, write_json


LISTED = "files.json"
UNLISTED = (LISTED, "log.jsonl", "fingerprint.json")  # a log may grow, and the fingerprint is written last


class Folders:
    """The places of one notebook's runs at one tier: `home` is `runs/<tier>`."""

    def __init__(self, home: Path, stem: str):
        self.home, self.run, self.failed = home, home / stem, home / f"{stem}.failed"
        self.partial, self.old, self.lock = (home / f".{kind}-{stem}" for kind in ("partial", "old", "lock"))

    def promote(self) -> None:
        """Replace the finished run by the complete partial one; `recover` mends a kill between the two renames."""
        if self.run.exists():
            shutil.rmtree(self.old, ignore_errors=True)
            os.replace(self.run, self.old)
        os.replace(self.partial, self.run)
        shutil.rmtree(self.old, ignore_errors=True)
        shutil.rmtree(self.failed, ignore_errors=True)

    def keep_failed(self) -> None:
        """Put the half-run notebook aside, for those who want to know why."""
        shutil.rmtree(self.failed, ignore_errors=True)
        with contextlib.suppress(OSError):  # the error that is on its way says more
            os.replace(self.partial, self.failed)

    def recover(self) -> None:
        """Mend what a killed runner left: finish a complete run, restore the previous one, keep a half-run as failed.

        Only for who holds the lock.
        """
        if (self.partial / "fingerprint.json").exists():
            self.promote()
        elif self.old.exists() and not self.run.exists():
            os.replace(self.old, self.run)
        shutil.rmtree(self.old, ignore_errors=True)
        if self.partial.exists():
            self.keep_failed()

    def seal(self) -> None:
        """List size and digest of every file of the partial run; `broken` holds a finished run to it."""
        files = {path.relative_to(self.partial).as_posix(): path for path in sorted(self.partial.rglob("*")) if path.is_file()}
        write_json(self.partial / LISTED, {name: digest_of(path) for name, path in files.items() if name not in UNLISTED})

    def broken(self) -> list[str]:
        """Files of the finished run that are missing or not as listed: with one of these it is not finished."""
        listed = read_json(self.run / LISTED)
        if listed is None:
            return [LISTED]
        return [name for name, known in listed.items() if not _as_listed(self.run / name, known)]

    def last_cell_seconds(self) -> list[float] | None:
        """Seconds of each code cell in the finished run, or in the failed one; None where there is neither."""
        for folder in (self.run, self.failed):
            events = read_log(folder)
            seconds = [event["seconds"] for event in events if event.get("event") == "cell" and isinstance(event.get("seconds"), float)]
            if seconds and events[-1].get("event") != "failed":
                return seconds
        return None


def _as_listed(path: Path, known: Any) -> bool:
    return path.is_file() and isinstance(known, list) and path.stat().st_size == known[-1] and list(digest_of(path)) == known


class Log:
    """Appends events to `log.jsonl`, the run's local log."""

    def __init__(self, run_dir: Path):
        self.path = run_dir / "log.jsonl"

    def __call__(self, **event: Any) -> None:
        line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False)
        with contextlib.suppress(FileNotFoundError), open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def read_log(run_dir: Path) -> list[dict[str, Any]]:
    """The events of a run's `log.jsonl`, in order; lines that are none, such as one cut short by a kill, are left out."""
    events = []
    with contextlib.suppress(FileNotFoundError):
        for line in (run_dir / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                events.append(parse_json(line))
    return [event for event in events if isinstance(event, dict)]


def slim(path: Path, before: str, after: str) -> None:
    """Drop papermill's bookkeeping and widget state from an executed notebook; let its injected cell name the folder `after`."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for part in [notebook, *notebook["cells"]]:
        for key in ("papermill", "widgets", "execution", "ExecuteTime"):
            part["metadata"].pop(key, None)
    for cell in notebook["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["source"] = "".join(cell["source"]).replace(before, after)
    notebook["metadata"]["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    write_json(path, notebook)
