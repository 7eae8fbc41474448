"""Values that a notebook could not work with are refused before its kernel starts.

What a parameter may be follows from its name where that is a usual one (`USUAL`), or from the notebook's metadata,
`motionlab.limits`: {"steps": [8, null], "how": ["a", "b"], "clip": "video"}.
"""
from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError, nearest
from motionlab.ledger.notebooks import Notebook

USUAL: dict[str, Any] = {"device": "device", "video": "video", "videos": "videos", "backbone": "folder", "weights": "file",
                         "prompt_file": "file", "vbench": "folder", "seed": [0, 2**63],
                         "n_clips": [1, 1_000_000], "n_prompts": [1, 100_000],
                         "steps": [1, 10_000], "size": [1, 16_384]}
COUNT = re.compile(r"n_\w+")


def check_limits(notebook: Notebook, values: dict[str, Any], root: Path) -> None:
    """Check the values that a run would have.

    Raises:
        MotionLabError: one out of range (the nearest valid one is named), a file or device that is not there, a video that
            cannot be read.
    """
    for name, value in values.items():
        limit = notebook.limits.get(name, USUAL.get(name, [0, 1_000_000] if COUNT.fullmatch(name) else None))
        if limit is None or value is None or value == "":
            continue
        what = f"Parameter '{name}' of {notebook.stem}"
        for one in value if isinstance(value, list) else [value]:
            _check(what, one, limit, root)


def _check(what: str, value: Any, limit: Any, root: Path) -> None:
    if isinstance(value, list):
        for one in value:
            _check(what, one, limit, root)
    elif isinstance(limit, str):
        CHECKS[limit](what, str(value), root)
    elif limit and all(isinstance(one, str) for one in limit):
        if value not in limit:
            raise MotionLabError(f"{what} is '{value}'.{nearest(str(value), limit)}", fix=f"Choose one of: {', '.join(limit)}.")
    elif isinstance(value, (int, float)):
        _check_number(what, value, *limit)


def _check_number(what: str, value: float, low: float | None, high: float | None) -> None:
    least, most = (-math.inf if low is None else low), (math.inf if high is None else high)
    if not math.isfinite(value) or not least <= value <= most:
        near = least if value < least else most if value > most else "a finite number"
        text = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        raise MotionLabError(f"{what} is {value}; it must be {text}.", fix=f"The nearest valid value is {near}.")


def _check_device(what: str, value: str, root: Path) -> None:
    if value == "cpu":
        return
    if not re.fullmatch(r"(cuda|mps)(:\d+)?", value):
        raise MotionLabError(f"{what} is '{value}', which is no device.{nearest(value, ('cpu', 'cuda', 'mps'))}",
                             fix="Give cpu, cuda, cuda:1 or mps.")
    import torch

    kind, _, index = value.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if int(index or 0) >= count:
        raise MotionLabError(f"{what} is '{value}', and this machine has {count} of the kind.", fix="Give cpu, or see `motionlab doctor`.")


def _check_path(what: str, value: str, root: Path, kind: str) -> Path:
    place = Path(root, Path(value).expanduser())
    if not (place.is_dir() if kind == "folder" else place.is_file()):
        beside = [one.name for one in place.parent.iterdir()] if place.parent.is_dir() else []
        raise MotionLabError(f"{what} is '{value}', and there is no such {kind}.{nearest(place.name, beside)}",
                             fix="Check the path; a relative one counts from the repository's root.")
    return place


def _check_video(what: str, value: str, root: Path) -> None:
    from motionlab.video import probe_video

    probe_video(_check_path(what, value, root, "file"))


def _check_videos(what: str, value: str, root: Path) -> None:
    from motionlab.video import probe_video

    videos = sorted(_check_path(what, value, root, "folder").glob("*.mp4"))
    if not videos:
        raise MotionLabError(f"{what} is '{value}', which holds no *.mp4.",
                             fix="Put the videos into it; ffmpeg rewrites other kinds of files.")
    for video in videos:
        probe_video(video)


CHECKS = {"device": _check_device, "video": _check_video, "videos": _check_videos,
          "file": lambda what, value, root: _check_path(what, value, root, "file"),
          "folder": lambda what, value, root: _check_path(what, value, root, "folder")}
