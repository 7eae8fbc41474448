"""Where things lie: the repository root is the folder that holds `reproductions/` and `notebooks/`."""
from __future__ import annotations

import os
from pathlib import Path

from motionlab.core.errors import MotionLabError


def repo_root(start: str | Path | None = None) -> Path:
    """The checkout's root: `MOTIONLAB_ROOT`, else the first match above `start` (default: here) or above the package.

    Raises:
        MotionLabError: no folder with `reproductions/` and `notebooks/` is found.
    """
    override = os.environ.get("MOTIONLAB_ROOT")
    if override:
        if is_root(Path(override)):
            return Path(override).resolve()
        raise MotionLabError(
            f"MOTIONLAB_ROOT is '{override}', which holds no reproductions/ and notebooks/.",
            fix="Point it at the checkout's root, or unset it.",
        )
    for origin in (Path(start) if start else Path.cwd(), Path(__file__)):
        here = origin.resolve()
        for folder in (here, *here.parents):
            if is_root(folder):
                return folder
    raise MotionLabError(
        f"No checkout found above {Path(start) if start else Path.cwd()}.",
        fix="Run inside the repository, or set MOTIONLAB_ROOT to its root.",
    )


def is_root(folder: Path) -> bool:
    """True for a folder with the two sub-folders that make a checkout."""
    return (folder / "reproductions").is_dir() and (folder / "notebooks").is_dir()
