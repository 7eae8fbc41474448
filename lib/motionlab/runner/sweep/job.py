"""Measuring one row: what a process of this machine and a job of Slurm both do."""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError
from motionlab.core.files import explained, read_json, shown, write_atomic, write_json
from motionlab.core.locks import Busy, only_one
from motionlab.runner.sweep.ablations import Sweep
from motionlab.runner.sweep.check import function
from motionlab.runner.sweep.rows import MARKER, Row
from motionlab.runner.sweep.tables import table


@dataclass(frozen=True)
class RowJob:
    """A row to be measured: call it.

    Raises:
        Busy: another process measures it.
        MotionLabError: rows that are none, a folder that cannot be written; and whatever the row function raises. All of
            it is told in the row's log too.
    """

    row: Row
    function: str
    beside: Path  # the folder of the YAML file, where the function's module may lie
    root: Path
    arm: dict[str, Any]
    common: dict[str, Any]
    redo: bool = False

    def __call__(self) -> None:
        row = self.row
        with only_one(row.lock) as other:
            if other:
                raise Busy(f"it is being measured by process {other}")
            state = row.state()[0]
            if state == "finished" or (state == "other code" and not self.redo):
                return  # another sweep finished it while this one was on its way
            with logged(row.log):
                print(f"--- {row.name}  {time.strftime('%Y-%m-%d %H:%M:%S')}  process {os.getpid()}", flush=True)
                os.chdir(self.root)
                sys.path.insert(0, str(self.beside))
                self.measure()

    def checkpoint(self):
        """Asked by submitit when Slurm takes the machine away: queue the same row again, it goes on from what it kept."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def measure(self) -> None:
        """Call the row function and write what it returns: first the CSV, then the record that makes it count."""
        from motionlab.core.provenance import environment
        from motionlab.ledger.book import csv_text
        from motionlab.ledger.verdict import file_sha

        row, resumed, began = self.row, self._prepare(), time.monotonic()
        returned = function(self.function, self.beside)(dict(self.arm), row.seed, row.work, row.tier, **self.common)
        write_atomic(row.csv, csv_text(table(row.name, row.arm, row.seed, returned)))
        write_json(row.record, {
            "arm": row.arm,
            "seed": row.seed,
            "tier": row.tier,
            "settings": row.settings,
            "fingerprint": hashlib.sha256(json.dumps(row.settings, sort_keys=True).encode()).hexdigest(),
            "code": row.code,
            "seconds": round(time.monotonic() - began, 2),
            "resumed": resumed,  # then `seconds` are those of the last part only
            "sha256": file_sha(row.csv),
            **environment(self.root, self.common.get("device")),
        })

    def _prepare(self) -> bool:
        """Make the work folder; empty it where other settings, or (with redo) other code, began it. Returns: goes on?"""
        row, begun = self.row, read_json(self.row.work / MARKER)
        fits = begun and begun.get("settings") == row.settings and (begun.get("code") == row.code or not self.redo)
        if begun and not fits:
            if not self.redo:
                raise MotionLabError(f"{shown(row.work)} was begun with other settings.", fix="Use --redo to start afresh.")
            shutil.rmtree(row.work)
        if not fits:
            write_json(row.work / MARKER, {"settings": row.settings, "code": row.code})
        return bool(fits)


def job_of(sweep: Sweep, row: Row, redo: bool = False) -> RowJob:
    """What measures a row of this sweep."""
    return RowJob(row, sweep.function, sweep.path.parent, sweep.root, sweep.arms[row.arm], sweep.common, redo)


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """All that is printed in here, by programs that are started too, goes to the end of the file; an error comes last."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        log = open(path, "ab")
    before = [os.dup(descriptor) for descriptor in (1, 2)]
    with log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    try:
        yield
    except MotionLabError as error:
        print(f"error: {error}")
        raise
    except KeyboardInterrupt:
        print("interrupted")
        raise
    except Exception:
        traceback.print_exc(file=sys.stdout)
        raise
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for descriptor, kept in zip((1, 2), before):
            os.dup2(kept, descriptor)
            os.close(kept)
