"""The process of one row: holds the row's lock, calls its function, writes its CSV and record."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError
from motionlab.core.files import shown, write_atomic
from motionlab.runner.runs import read_json, write_json
from motionlab.runner.sweep.lock import BUSY, GRACE_S, INTERRUPTED, only_writer
from motionlab.runner.sweep.rows import MARKER, Row
from motionlab.runner.sweep.tables import table


def measure(row: Row, job: dict[str, Any]) -> None:
    """Call the row function and write what it returns: first the CSV, then the record that makes it count.

    Raises:
        MotionLabError: rows that are none, a folder that cannot be written; and whatever the function raises.
    """
    from motionlab.core.provenance import environment
    from motionlab.ledger.book import csv_text
    from motionlab.ledger.verdict import file_sha

    resumed = _prepare(row, job["redo"])
    began = time.monotonic()
    module, _, name = job["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    returned = function(dict(job["arm"]), row.seed, row.work, row.tier, **job["common"])
    text = csv_text(table(row, returned))
    write_atomic(row.csv, text)
    record = {
        "arm": row.arm,
        "seed": row.seed,
        "tier": row.tier,
        "settings": row.settings,
        "fingerprint": hashlib.sha256(json.dumps(row.settings, sort_keys=True).encode()).hexdigest(),
        "code": row.code,
        "seconds": round(time.monotonic() - began, 2),
        "resumed": resumed,  # then `seconds` are those of the last part only
        "sha256": file_sha(row.csv),
        **environment(Path(job["root"]), job["common"].get("device")),
    }
    write_json(row.record, record)


def _prepare(row: Row, redo: bool) -> bool:
    """Make the work folder; empty it where other settings, or (with redo) other code, began it. Returns: goes on?"""
    begun = read_json(row.work / MARKER)
    now = {"settings": row.settings, "code": row.code}
    fits = begun and begun.get("settings") == row.settings and (begun.get("code") == row.code or not redo)
    if begun and not fits:
        if not redo:
            raise MotionLabError(f"{shown(row.work)} was begun with other settings.", fix="Use --redo to start afresh.")
        shutil.rmtree(row.work)
    if not fits:
        write_json(row.work / MARKER, now)
    return bool(fits)


def main() -> int:
    """The process of one row: the job comes as the first line of standard input, and the end of that input stops it."""
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # programs that the row starts do not read from it
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(lifeline, 1)):
            return INTERRUPTED
        line += byte
    job = json.loads(line)
    threading.Thread(target=_until_closed, args=(lifeline,), daemon=True).start()
    row = Row(**{**job["row"], "folder": Path(job["row"]["folder"])})
    with only_writer(row.lock) as locked:
        if not locked:
            return BUSY
        state = row.state()[0]
        if state == "finished" or (state == "other code" and not job["redo"]):
            return 0  # another sweep finished it while this one was on its way
        print(f"--- {row.name}  {time.strftime('%Y-%m-%d %H:%M:%S')}  process {os.getpid()}", flush=True)
        sys.path.insert(0, job["beside"])
        try:
            measure(row, job)
        except MotionLabError as error:
            print(f"error: {error}", flush=True)
            return 1
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            return INTERRUPTED
    return 0


def _until_closed(lifeline: int) -> None:
    """Stop as on Ctrl-C once the sweep is gone or asks for it; a row that does not listen is ended."""
    while os.read(lifeline, 4096):
        pass
    if os.name == "nt":
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)  # a real signal also ends a sleep
    time.sleep(GRACE_S)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
