"""How an object is shown to a tracker of masks: a box, points or a mask in the first or the last frame of a clip.

Coordinates are (x, y) in pixels of the clip; pixel (row j, column i) has its centre at x = i, y = j. A box is the smallest and the
largest pixel of the object, both inside it.
"""
from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.teachers.points import check_points

KINDS = ("box", "points", "mask")


@dataclass(frozen=True)
class Prompt:
    """One object in one frame, shown by exactly one of `box`, `points` and `mask`.

    Attributes:
        box: (x0, y0, x1, y1). points: (n, 2); labels: (n,), 1 on the object, 0 beside it, by default all 1. mask: (h, w), not 0 on it.
        frame: 0 or -1, the first or the last frame; the pass goes from there to the other end.
        object: its name. The world's truth takes "0" for actor 0 and "0/near_arm" for one of its limbs; "" is the actor that the
            prompt covers most.
    """

    box: tuple[float, float, float, float] | None = None
    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    mask: np.ndarray | None = None
    frame: int = 0
    object: str = ""

    @property
    def kind(self) -> str:
        """"box", "points" or "mask"."""
        return next((name for name in KINDS if getattr(self, name) is not None), "")


def check_prompt(prompt: Prompt, frames: int, height: int, width: int, who: str = "The tracker") -> Prompt:
    """A prompt with float32 arrays and labels, of which a tracker can make something.

    Raises:
        MotionLabError: no prompt or several in one; a box, points or mask outside the frame, of another shape or empty; another frame.
    """
    given = [name for name in KINDS if getattr(prompt, name) is not None]
    if len(given) != 1:
        raise MotionLabError(f"{who} got a prompt with {' and '.join(given) or 'neither box, points nor mask'}.",
                             fix="Give exactly one of box=, points= and mask=.")
    if prompt.frame not in (0, -1, frames - 1):
        raise MotionLabError(f"{who} got a prompt in frame {prompt.frame} of {frames}.",
                             fix="Give frame=0 to follow the object forwards, frame=-1 to follow it backwards.")
    made = {"box": _box, "points": _points, "mask": _mask}[prompt.kind](prompt, height, width, who)
    return Prompt(**made, frame=0 if prompt.frame == 0 else -1, object=prompt.object)


def _box(prompt, height, width, who):
    try:
        box = np.asarray(prompt.box, np.float32).reshape(4)
    except (ValueError, TypeError):
        raise MotionLabError(f"{who} got {prompt.box!r} for a box.", fix="Give (x0, y0, x1, y1) in pixels.") from None
    check_points(box.reshape(2, 2), height, width, f"{who}'s box")
    if not (box[2] > box[0] and box[3] > box[1]):
        raise MotionLabError(f"{who} got a box without area, {box.tolist()}.", fix="Give (x0, y0, x1, y1) with x0 < x1 and y0 < y1.")
    return {"box": tuple(float(x) for x in box)}


def _points(prompt, height, width, who):
    points = check_points(prompt.points, height, width, who)
    labels = np.ones(len(points), np.int32) if prompt.labels is None else np.asarray(prompt.labels).astype(np.int32)
    if labels.shape != (len(points),) or not np.isin(labels, (0, 1)).all() or not labels.any():
        raise MotionLabError(f"{who} got {len(points)} points with labels {labels.tolist()}.",
                             fix="Give one label a point, 1 on the object and 0 beside it, at least one of them 1.")
    return {"points": points, "labels": labels}


def _mask(prompt, height, width, who):
    mask = np.asarray(prompt.mask)
    if mask.shape != (height, width):
        raise MotionLabError(f"{who} got a mask of shape {mask.shape} for frames of {height}x{width}.", fix="Give (h, w) of the clip.")
    if not (mask != 0).any():
        raise MotionLabError(f"{who} got an empty mask: it marks no object.", fix="Mark the object by any value but 0.")
    return {"mask": mask != 0}


# ---------------------------------------------------------------------------------------------- where prompts come from
def box_of(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """The box (x0, y0, x1, y1) around a mask (h, w); None around nothing, or around a single row or column."""
    rows, columns = np.flatnonzero(np.any(mask, 1)), np.flatnonzero(np.any(mask, 0))
    if len(rows) == 0 or rows[0] == rows[-1] or columns[0] == columns[-1]:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def world_prompt(clip, object: str = "0", frame: int = 0, kind: str = "box") -> Prompt | None:
    """The prompt that a world clip's truth gives for one object (of `Prompt.object`); None where it is hidden in that frame.

    Args:
        kind: "box"; "points", the pixel deepest inside; "mask".
    """
    import cv2

    mask = world_mask(clip, object)[frame]
    box = box_of(mask)
    if box is None:
        return None
    if kind == "points":
        depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        return Prompt(points=np.array([[x, y]], np.float32), frame=frame, object=object)
    return Prompt(box=box, frame=frame, object=object) if kind == "box" else Prompt(mask=mask, frame=frame, object=object)


def world_mask(clip, object: str) -> np.ndarray:
    """Visible pixels (f, h, w) of an actor ("0") or of one of its limbs ("0/near_arm").

    Raises:
        MotionLabError: no such actor or limb.
    """
    actor, _, limb = object.partition("/")
    count = int(clip.layer_objects.max()) + 1
    if not actor.isdigit() or int(actor) >= count:
        raise MotionLabError(f"The clip has no actor '{actor}'.", fix=f"Give 0 to {count - 1}, alone or with a limb: 0/near_arm.")
    if not limb:
        return clip.object_mask(int(actor))
    limbs = clip.limb_masks(int(actor))
    if limb not in limbs:
        raise MotionLabError(f"Actor {actor} has no limb '{limb}'.", fix=f"Choose one of: {', '.join(limbs)}.")
    return limbs[limb]


def read_boxes(path: str | Path) -> dict[str, list[Prompt]]:
    """Boxes of a table: columns file, x0, y0, x1, y1, and where wanted frame (first or last) and object; {file: prompts}.

    Raises:
        MotionLabError: no such file, a column that is missing, a value that is no number.
    """
    path, found = Path(path), {}
    if not path.is_file():
        raise MotionLabError(f"There is no table of boxes '{path}'.", fix="Write one with the columns file, x0, y0, x1, y1.")
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    for number, row in enumerate(rows, 2):
        try:
            frame = {"": 0, "first": 0, "last": -1}[(row.get("frame") or "").strip()]
            box = tuple(float(row[name]) for name in ("x0", "y0", "x1", "y1"))
            found.setdefault(row["file"], []).append(Prompt(box=box, frame=frame, object=(row.get("object") or "").strip()))
        except (KeyError, TypeError, ValueError) as error:
            raise MotionLabError(f"'{path}', line {number}, cannot be read as a box ({error}).",
                                 fix="Columns: file, x0, y0, x1, y1 in pixels; if wanted frame (first, last), object.") from None
    return found
