"""A user's own sampling tasks, from a file: prompts, and known frames where a generator takes them."""
from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import parse_json
from motionlab.video import as_video, read_video
from motionlab.world.motions import KINDS

# VideoJAM-bench's and Movie Gen's prompts are not ours to ship; their categories are known.
CATEGORIES = {"videojam": KINDS, "moviegen": ("human activity", "animals", "nature and scenery", "physics", "unusual activity", "scenes")}
FORMS = "Give a .csv with the columns prompt and category (and first, last: pictures), a .json list or a .txt."


@dataclass(frozen=True)
class Task:
    """One clip to sample. category: None where the file says none. first, last: paths of known frames, None for none."""

    text: str
    category: str | None = None
    first: Path | None = None
    last: Path | None = None


def read_tasks(path: str | Path, benchmark: str = "videojam") -> list[Task]:
    """The tasks of a file of yours.

    Args:
        path: .csv or .tsv with a column `prompt` and optionally `category`, `first` and `last` (pictures or videos, their
            first frame, beside the file); .json (a list of texts or of such mappings); .txt, one prompt per line.
            Categories may be written with capitals, "rotational" or "basic motion".
        benchmark: whose categories are known, "videojam" or "moviegen".

    Raises:
        MotionLabError: no such file, no prompts, an unknown category (line and nearest named), a picture that is not there, an
            unknown format.
    """
    known, path = CATEGORIES[one_of(benchmark, CATEGORIES, "benchmark")], Path(path)
    try:
        rows = _rows(path)
    except (FileNotFoundError, IsADirectoryError):
        raise MotionLabError(f"No prompt file at '{path}'.", fix=FORMS) from None
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError, RecursionError, csv.Error) as error:
        raise MotionLabError(f"{path} cannot be read as prompts ({error}).", fix=FORMS) from None
    out = [_task(row, known, path, k) for k, row in enumerate(rows, 1) if any(row.values())]
    if not out:
        raise MotionLabError(f"{path} holds no prompts.", fix="One prompt per line or row.")
    return out


def known_frames(tasks: Sequence[Task], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """{"first": (b, 3, h, w), "last": ...} in [-1, 1] of the tasks' pictures, cropped and resized to size (h, w); only what all have.

    Raises:
        MotionLabError: an unreadable picture; one that some tasks have and others lack.
    """
    found = {}
    for name in ("first", "last"):
        paths = [getattr(task, name) for task in tasks]
        if any(paths) and not all(paths):
            raise MotionLabError(f"{sum(p is None for p in paths)} of {len(paths)} tasks have no {name} frame.",
                                 fix="Give one to all of them or to none.")
        if all(paths):
            found[name] = torch.cat([as_video(read_video(path, size=size, max_frames=1).frames)[:1] for path in paths])
    return found


def _rows(path):
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".txt":
        return [{"prompt": line} for line in text.splitlines()]
    if path.suffix == ".json":
        return [{"prompt": row} if isinstance(row, str) else {"prompt": row["prompt"], **row} for row in parse_json(text)]
    if path.suffix in (".csv", ".tsv"):
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ","))
        return [{"prompt": row["prompt"], **row} for row in rows]
    raise ValueError(f"unknown ending '{path.suffix}'")


def _task(row, known, path, k):
    where, text = f"{path.name}, prompt {k}", row["prompt"]
    frames = {name: path.parent / str(row[name]).strip() for name in ("first", "last") if row.get(name)}
    for name, picture in frames.items():
        if not picture.is_file():
            raise MotionLabError(f"{where}: there is no file '{picture}' for its {name} frame.",
                                 fix="Paths are relative to the prompt file.")
    if not isinstance(text, str) or (not text.strip() and not frames):
        raise MotionLabError(f"{where}: its prompt is {text!r}.", fix="Give a text.")
    return Task(text.strip(), _category(row.get("category"), known, where), **frames)


def _category(name, known, where):
    if not name:
        return None
    plain = str(name).strip().lower().removesuffix(" motion").replace("rotational", "rotation").replace("_", " ")
    try:
        return one_of(plain, known, "category")
    except MotionLabError as error:
        raise MotionLabError(f"{where}: {error.what}", fix=error.fix) from None
