"""Where things lie: the root, a checkout or a folder of `motionlab init`, is what holds `reproductions/` and `notebooks/`."""
from __future__ import annotations

import os
from pathlib import Path

from motionlab.core.errors import MotionLabError


def repo_root(start: str | Path | None = None) -> Path:
    """The root: `MOTIONLAB_ROOT`, else the first match above `start` (default: here) or above the package.

    Raises:
        MotionLabError: no folder with `reproductions/` and `notebooks/` is found.
    """
    found = find_root(start)
    if found is None:
        raise MotionLabError(
            f"No checkout and no working folder found above {Path(start) if start else Path.cwd()}.",
            fix="Make one with `motionlab init FOLDER` and run inside it; or run inside the repository, or set MOTIONLAB_ROOT to its root.",
        )
    return found


def find_root(start: str | Path | None = None) -> Path | None:
    """`repo_root`, or None.

    Raises:
        MotionLabError: `MOTIONLAB_ROOT` is set and no root.
    """
    override = os.environ.get("MOTIONLAB_ROOT")
    if override:
        if is_root(Path(override)):
            return Path(override).resolve()
        raise MotionLabError(
            f"MOTIONLAB_ROOT is '{override}', which holds no reproductions/ and notebooks/.",
            fix="Point it at a checkout's root or a folder of `motionlab init`, or unset it.",
        )
    for origin in (Path(start) if start else Path.cwd(), Path(__file__)):
        here = origin.resolve()
        for folder in (here, *here.parents):
            if is_root(folder):
                return folder
    return None


def is_root(folder: Path) -> bool:
    """True for a folder with the two sub-folders that make a root."""
    return (folder / "reproductions").is_dir() and (folder / "notebooks").is_dir()
