"""Teachers of images and of video behind one call: what they see of many clips at once, on a grid of features.

| teacher | sees | prompted |
|---|---|---|
| sam2 | SAM2's memory features, from both ends, and its masks | yes |
| sam2_image | the same network's image features: no memory | no |
| sam2_random | memory features of untrained weights of its sizes | yes |
| image | the kit's own image encoder; with a checkpoint, a DINOv2 folder | no |
| patches | colours of the pixels themselves | no |
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError, one_of
from motionlab.models.checkpoint import fingerprint
from motionlab.models.pretrained.files import component_fingerprint
from motionlab.models.shipped import shipped
from motionlab.teachers.detector import WORDS, load_detector
from motionlab.teachers.masks import BothWays, both_ways, load_tracker
from motionlab.teachers.patches import load_patches
from motionlab.teachers.prompts import Prompt, box_of, read_boxes

TEACHERS = ("sam2", "sam2_image", "sam2_random", "image", "patches")
TRACKERS = ("sam2", "sam2_random")
SIZE = 192               # pixels that the small SAM2 reads
SHIPPED = {"sam2": "sam2", "sam2_image": "sam2", "sam2_random": "sam2", "image": "image_encoder"}


@dataclass(frozen=True)
class Seen:
    """forward: features (n, t, h, w, C), of the pass from the first frame or of a teacher without direction. backward: the same of the pass
    from the last frame, or None. alpha: (n, t - 1), the forward pass's share of each pair: 0.5, or 0 or 1 where one direction is not valid.
    kept: (n,) bool, False where the object was lost everywhere. masks, masks_back: (n, t, H, W) bool, of both passes, where it tracks."""

    forward: torch.Tensor
    backward: torch.Tensor | None
    alpha: torch.Tensor
    kept: torch.Tensor
    masks: torch.Tensor | None = None
    masks_back: torch.Tensor | None = None

    def at(self, grid: tuple[int, int]) -> Seen:
        """The same on another grid of places, bilinear: both grids span the whole frame (card sam2videox, 2.7)."""
        return replace(self, forward=on_grid(self.forward, grid), backward=None if self.backward is None else on_grid(self.backward, grid))


def on_grid(features: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Features (n, t, h, w, C) resampled to (n, t, *grid, C)."""
    if tuple(features.shape[2:4]) == tuple(grid):
        return features
    moved = F.interpolate(features.flatten(0, 1).movedim(-1, 1), tuple(grid), mode="bilinear", align_corners=False)
    return moved.movedim(1, -1).unflatten(0, features.shape[:2])


def look(teacher: str, pictures: np.ndarray, subjects: np.ndarray, checkpoint: str = "", skip_prompt_pairs: bool = False,
         detector: str = "") -> Seen:
    """What a teacher sees of clips.

    Args:
        pictures: uint8 (n, t, h, w, 3). subjects: (n, t, h, w) bool, what a tracker is to follow: a box around it in the first frame that
            is at either end prompts it.
        checkpoint: a file or folder; "": the shipped one. skip_prompt_pairs: the pair of frames next to a pass's prompt counts from the
            other pass alone. detector: a folder of transformers that looks again for a subject that the forward pass lost, in the last
            frame; "": there is then no backward pass (card sam2videox, 2.6).

    Raises:
        MotionLabError: an unknown teacher, weights or a detector that are not there, fewer than two frames.
    """
    one_of(teacher, TEACHERS, "teacher")
    if teacher in TRACKERS:
        return _tracked(_tracker(teacher, checkpoint), pictures, subjects, skip_prompt_pairs, _detect(detector) if detector else None)
    features = _features(teacher, checkpoint)
    forward = torch.stack([torch.as_tensor(features(video)).movedim(1, -1) for video in pictures])
    n, t = forward.shape[:2]
    return Seen(forward, None, torch.full((n, t - 1), 0.5), torch.ones(n, dtype=torch.bool))


def _tracked(tracker, pictures, subjects, skip, detect) -> Seen:
    first, last = ([_prompt(mask, end) for mask in subjects[:, end]] for end in (0, -1))
    from_first = [i for i, prompt in enumerate(first) if prompt]
    from_last = [i for i, prompt in enumerate(first) if not prompt and last[i]]          # the subject comes later: backwards alone
    found: dict[int, BothWays] = {}
    if from_first:
        shown, asked = [pictures[i] for i in from_first], [first[i] for i in from_first]
        found |= zip(from_first, both_ways(shown, asked, tracker, detect=detect, skip_prompt_pairs=skip))
    if from_last:
        nothing = [None] * len(from_last)
        found |= zip(from_last, both_ways([pictures[i] for i in from_last], nothing, tracker, last=[last[i] for i in from_last]))
    kept = torch.tensor([i in found and found[i].lost != "everywhere" for i in range(len(pictures))])
    return _stacked([found.get(i) for i in range(len(pictures))], kept, pictures.shape)


def _stacked(found: Sequence[BothWays | None], kept, shape) -> Seen:
    known = next((one for one in found if one), None)
    if known is None:
        raise MotionLabError("None of the clips shows its subject in its first or last frame.", fix="Give other clips, or boxes.")
    empty = np.zeros_like(known.features())
    forward, backward = np.moveaxis(np.stack([one.features() if one else empty for one in found]), (1, 3), (0, -1))
    masks, back = (np.stack([(getattr(one, first) or getattr(one, second)).masks if one else np.zeros(shape[1:4], bool)
                             for one in found]) for first, second in (("forward", "backward"), ("backward", "forward")))
    alpha = np.stack([one.alpha if one else np.full(shape[1] - 1, 0.5, np.float32) for one in found])
    return Seen(*map(torch.from_numpy, (forward, backward, alpha)), kept, *map(torch.from_numpy, (masks, back)))


def _prompt(mask, end):
    box = box_of(mask)
    return Prompt(box=box, frame=end) if box else None


# ---------------------------------------------------------------------------------------------- which networks
@lru_cache(maxsize=2)
def _tracker(teacher, checkpoint):
    """Loaded once: clips come in parts."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if teacher == "sam2_random":
        from motionlab.teachers.sam2_files import read_checkpoint

        return load_tracker("auto", config=read_checkpoint(_file(teacher, checkpoint))[0], seed=0, device=device)
    return load_tracker("auto", checkpoint=_file(teacher, checkpoint), device=device)


@lru_cache(maxsize=2)
def _features(teacher, checkpoint):
    """uint8 (t, h, w, 3) -> features (t, c, g, g)."""
    if teacher == "sam2_image":
        return _tracker("sam2", checkpoint).image_features
    if teacher == "image" and not checkpoint:
        from motionlab.models.image_encoder import load_image_encoder

        return load_patches("image_encoder", encoder=load_image_encoder(_file(teacher, checkpoint)))
    return load_patches("rgb") if teacher == "patches" else load_patches("dinov2", checkpoint=checkpoint)


@lru_cache(maxsize=1)
def _detect(detector):
    """A picture -> the prompt of the subject found in it; loaded once."""
    return load_detector(detector, WORDS, "cuda" if torch.cuda.is_available() else "cpu", frame=-1)


def _file(teacher, checkpoint) -> Path:
    return Path(checkpoint) if checkpoint else shipped(SHIPPED[teacher])


def size_of(teacher: str) -> int:
    """Pixels that clips of the world are rendered at for a teacher; 0: as they are."""
    return SIZE if teacher.startswith("sam2") else 0


def identity(teacher: str, checkpoint: str = "", boxes: str = "", detector: str = "") -> dict[str, str]:
    """{"teacher": its name and weights by contents, "boxes", "detector": that file's or folder's}: whose sight a sidecar holds."""
    named = "" if teacher not in SHIPPED else _content(_file(teacher, checkpoint))
    others = {"boxes": boxes, "detector": detector}
    return {"teacher": f"{teacher} {named}".strip()} | {name: _content(Path(path)) for name, path in others.items() if path}


def _content(path: Path) -> str:
    """Names a file's content, or a folder's of transformers."""
    if not path.exists():
        raise MotionLabError(f"There is nothing at '{path}', which a teacher is to be read from.", fix="Give a file or folder.")
    return component_fingerprint(path) if path.is_dir() else fingerprint(path)


# ---------------------------------------------------------------------------------------------- prompts of real clips
def boxed(source, i: int, size: tuple[int, int], boxes: str) -> np.ndarray:
    """(h, w) bool: the box of a real clip's subject in its first frame, at the clip's size, from a table of `prompts.read_boxes`.

    Raises:
        MotionLabError: no table, no row for this video, a box outside it.
    """
    from motionlab.video.fitting import placed

    if not boxes:
        raise MotionLabError(f"A tracker is to follow the subject of clips of {source.name}, and was given no boxes.",
                             fix="Give boxes=FILE.csv with the columns file, x0, y0, x1, y1 in pixels of the first frame.")
    table, video = _boxes(boxes), source.files[i]
    prompts = [prompt for prompt in table.get(video, ()) if prompt.frame == 0]
    if not prompts:
        raise MotionLabError(f"'{boxes}' has no box for '{video}'.", fix="Add a row: file, x0, y0, x1, y1.")
    clip = source.clip(i)
    corners = placed(np.array(prompts[0].box, float).reshape(2, 2), clip.source_size, size, getattr(source, "crop", True))
    (x0, y0), (x1, y1) = np.clip(np.round(corners).astype(int), 0, [size[1] - 1, size[0] - 1])
    if x1 <= x0 or y1 <= y0:
        raise MotionLabError(f"The box of '{video}' in '{boxes}' lies outside the clip.", fix="Give pixels of the video's first frame.")
    out = np.zeros(size, bool)
    out[y0:y1 + 1, x0:x1 + 1] = True
    return out


_boxes = lru_cache(maxsize=4)(read_boxes)
