"""Which real clips a tracker is fit to teach on (card sam2videox, 5): one box, no cut, both passes agree, the subject moves.

A loss copies its teacher's failures; a clip that the tracker fails on is dropped and listed with the reason.
"""
from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import write_atomic
from motionlab.data.seen import boxed, look
from motionlab.teachers.detector import WORDS, load_detector
from motionlab.teachers.prompts import box_of, read_boxes
from motionlab.video import find_cuts
from motionlab.video.fitting import unplaced

IOU, MOTION = 0.7, 0.01  # mean over frames; share of the diagonal
COLUMNS = ("file", "dropped", "iou", "motion")


@dataclass(frozen=True)
class Judged:
    """One clip. dropped: why, "" where it is kept. iou: of both passes' masks, mean over the frames that show one; motion: median over
    frames of how far the box's centre is from its first place, in diagonals. NaN: not looked at."""

    file: str
    dropped: str
    iou: float = float("nan")
    motion: float = float("nan")


def judged_clips(source, boxes: str, checkpoint: str = "", path: Path | None = None, say: Callable[[str], None] = print,
                 detector: str = "") -> list[Judged]:
    """Every clip of a source, in its order.

    Args:
        boxes, checkpoint, detector: of the tracker (`data.seen`). path: a CSV of the verdicts, clip by clip, from which a killed call goes
            on.

    Raises:
        MotionLabError: no table of boxes; no clip is kept.
    """
    table, out = read_boxes(boxes), _known(path)
    for i in range(len(out), len(source)):
        out.append(_judge(source, i, table, boxes, checkpoint, detector))
        if path is not None:
            write_atomic(path, _csv(out))
        if out[-1].dropped:
            say(f"left out: {out[-1].file} ({out[-1].dropped})")
    if all(one.dropped for one in out):
        raise MotionLabError(f"Of {len(out)} clips none is fit to be followed; the first: {out[0].file} ({out[0].dropped}).",
                             fix="Look at the list of reasons, or train with filtered=false.")
    return out


def detected_boxes(source, detector: str, path: Path) -> Path:
    """A table of `prompts.read_boxes` at `path`, written once: of each clip the box that a GroundingDINO finds in its first frame, if any.

    Raises:
        MotionLabError: as `teachers.detector.load_detector`.
    """
    if not path.is_file():
        detect, lines = load_detector(detector, WORDS, "cuda" if torch.cuda.is_available() else "cpu"), ["file,x0,y0,x1,y1"]
        for i, file in enumerate(source.files):
            clip = source.clip(i)
            if found := detect(clip.frames[0]):
                sizes = clip.source_size, clip.frames.shape[1:3]
                corners = unplaced(np.array(found.box).reshape(2, 2), *sizes, getattr(source, "crop", True))
                lines.append(",".join([file, *(f"{x:.1f}" for x in corners.flatten())]))
        write_atomic(path, "\n".join(lines) + "\n")
    return path


def kept(found: list[Judged]) -> tuple[int, ...]:
    """Numbers of the clips that are kept."""
    return tuple(i for i, one in enumerate(found) if not one.dropped)


def _judge(source, i, table, boxes, checkpoint, detector) -> Judged:
    file = source.files[i]
    first = [prompt for prompt in table.get(file, ()) if prompt.frame == 0]
    if len(first) != 1:
        return Judged(file, f"{len(first)} boxes in its first frame, not one")
    frames = source.clip(i).frames
    if cuts := find_cuts(frames):
        return Judged(file, f"a cut at frame {cuts[0]}")
    subject = np.zeros(frames.shape[:3], bool)
    subject[0] = boxed(source, i, frames.shape[1:3], boxes)
    seen = look("sam2", frames[None], subject[None], checkpoint, detector=detector)
    there, back = (masks[0].numpy() for masks in (seen.masks, seen.masks_back))
    iou, motion = agreement(there, back), box_motion(there)
    why = next(_reasons(bool(seen.kept[0]), iou, motion), "")
    return Judged(file, why, iou, motion)


def _reasons(followed, iou, motion) -> Iterator[str]:
    if not followed:
        yield "the tracker lost it in every frame after the first"
    if not iou >= IOU:
        yield f"both passes agree by {iou:.2f}, less than {IOU}"
    if not motion > MOTION:
        yield f"its box moves by {100 * motion:.1f} % of the diagonal, not more than {100 * MOTION:g}"


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Mean intersection over union of two masks (f, h, w), over the frames that either shows; 0 where there is none."""
    both, either = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    return float((both[either > 0] / either[either > 0]).mean()) if either.any() else 0.0


def box_motion(masks: np.ndarray) -> float:
    """Median over the frames of masks (f, h, w) of how far the box's centre is from the first one's, in diagonals; 0 for fewer than two."""
    found = [box for box in map(box_of, masks) if box]
    if len(found) < 2:
        return 0.0
    x0, y0, x1, y1 = np.array(found).T
    centres = np.stack([x0 + x1, y0 + y1], 1) / 2
    return float(np.median(np.linalg.norm(centres[1:] - centres[0], axis=1)) / np.hypot(*masks.shape[1:]))


def _known(path) -> list[Judged]:
    if path is None or not Path(path).is_file():
        return []
    rows = csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8")))
    return [Judged(row["file"], row["dropped"], *(float(row[name]) for name in COLUMNS[2:])) for row in rows]


def _csv(found: list[Judged]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([one.file, one.dropped, one.iou, one.motion] for one in found)
    return text.getvalue()
