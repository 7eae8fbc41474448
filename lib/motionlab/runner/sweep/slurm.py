"""Rows as jobs of Slurm, by submitit: queued and left alone; the same command tells how far they are.

A job whose time is up, or whose machine is taken away, is queued again and goes on from what its row kept.
The folder of the sweep, the checkout and this Python must be where the nodes find them too.
"""
from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import ensure_writable
from motionlab.runner.sweep.ablations import Sweep
from motionlab.runner.sweep.job import job_of
from motionlab.runner.sweep.rows import Row

SPARE = 4  # times the measured minutes are asked for where no `time` is given


def read_settings(text: str) -> dict[str, Any]:
    """`partition=gpu,time=120,gpus_per_node=1` as submitit's settings; time in minutes, or as hours:minutes:seconds.

    Raises:
        MotionLabError: not of that form, a setting that submitit does not know (the nearest is named).
    """
    from submitit import SlurmExecutor

    found: dict[str, Any] = {}
    for pair in filter(None, text.split(",")):
        name, sign, value = pair.partition("=")
        if not sign or not value:
            raise MotionLabError(f"'--slurm {text}' is not of the form key=value,key=value.",
                                 fix="For example: --slurm partition=gpu,time=120")
        one_of(name, sorted(SlurmExecutor._valid_parameters()), "setting of --slurm")
        found[name] = _minutes(value) if name == "time" else int(value) if value.isdigit() else value
    return found


def _minutes(text: str) -> int:
    if text.isdigit():
        return int(text)
    if not (parts := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+)(?::(\d+))?", text)):
        raise MotionLabError(f"'time={text}' of --slurm is no time.", fix="Write minutes, or hours:minutes:seconds.")
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return max(1, 60 * (24 * days + hours) + minutes + (seconds > 0))


def queued(rows: list[Row]) -> dict[str, str]:
    """{row: "on Slurm: PENDING, job 12"} of the rows that wait or run there.

    Raises:
        MotionLabError: Slurm does not answer.
    """
    try:
        command = ["squeue", f"--user={os.getuid()}", "--noheader", "--format=%i %T %j"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError:
        raise MotionLabError("There is no Slurm on this machine: squeue is not found.", fix="Leave --slurm out: rows run here.") from None
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        raise MotionLabError(f"Slurm does not answer: {said}", fix="Try again, or leave --slurm out: rows run here.") from None
    jobs = {name: (state, job) for job, state, name in (line.split(maxsplit=2) for line in done.stdout.splitlines())}
    found = {row.name: jobs[job_name(row)] for row in rows if job_name(row) in jobs and not row.measured}
    return {name: f"on Slurm: {state}, job {job}" for name, (state, job) in found.items()}


def job_name(row: Row) -> str:
    """The name of a row's job, by which it is found again: no other checkout's or folder's row has it."""
    return f"motionlab-{hashlib.sha256(str(row.folder).encode()).hexdigest()[:8]}-{row.name}"


def submit(sweep: Sweep, todo: list[Row], settings: dict[str, Any], redo: bool = False, say: Callable[[str], None] = print) -> None:
    """Queue rows, a job each.

    Args:
        settings: of `read_settings`.

    Raises:
        MotionLabError: what sbatch said, where it refused.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    minutes = getattr(sweep.cost.minutes_per_row, todo[0].tier)
    executor = submitit.SlurmExecutor(folder=ensure_writable(todo[0].folder / "slurm"))
    executor.update_parameters(**{"time": max(30, round(SPARE * minutes)), "stderr_to_stdout": True} | settings)
    for row in todo:
        executor.update_parameters(job_name=job_name(row))
        try:
            job = executor.submit(job_of(sweep, row, redo))
        except FailedJobError as error:
            raise MotionLabError(f"Slurm refuses {row.name}: {' '.join(str(error).split())}", fix="Mend the settings of --slurm.") from None
        say(f"  {row.name}  queued as job {job.job_id}")
