"""Where a number comes from: commit, date, device and versions of a run."""
from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import motionlab

EVIDENCE = ("lib", "notebooks", ":(glob)reproductions/*/claims.yaml", ":(glob)reproductions/*/params/**")


def environment(root: Path, device: str | None = None) -> dict:
    """Commit, dirty (of what numbers depend on), date (UTC), device and versions of this run."""
    commit = git(root, "rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": None if commit is None else bool(git(root, "status", "--porcelain", "--", *EVIDENCE)),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device": device_name(device),
        "versions": versions(),
    }


def git(root: Path, *args: str) -> str | None:
    """The output of a git command in the checkout; None where git or the repository is missing."""
    try:
        done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def device_name(device: str | None) -> str:
    """ "cpu (x86_64, 2 cores)", or the GPU's name where the run asked for one."""
    torch = sys.modules.get("torch")
    if device and str(device).startswith("cuda") and torch and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device or 'cpu'} ({platform.machine()}, {os.cpu_count()} cores)"


def versions() -> dict:
    """Versions of python, torch, numpy and motionlab, without importing torch."""
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = None
    return {"python": platform.python_version(), "torch": torch, "numpy": metadata.version("numpy"), "motionlab": motionlab.__version__}
