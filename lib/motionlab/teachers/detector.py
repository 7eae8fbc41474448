"""Boxes of objects by words: GroundingDINO (Liu et al., arXiv 2303.05499) of transformers, from a folder, never a download."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.teachers.prompts import Prompt
from motionlab.teachers.weights import to_device

BOX, TEXT = 0.35, 0.25                   # thresholds (method card sam2videox, 2.5)
LEAST, MOST = 0.02, 0.80                 # of the frame: a box that is smaller or larger shows no subject
WORDS = ("person", "animal")             # what a subject is where nothing else is said


def load_detector(checkpoint: str | Path | None, words: Sequence[str], device: str = "cpu",
                  frame: int = 0) -> Callable[[np.ndarray], Prompt | None]:
    """A function from a picture uint8 (h, w, 3) to the prompt of the box with the largest score x area, or None.

    Boxes below the threshold, and those of less than 2 % or more than 80 % of the frame, show no subject.

    Args:
        checkpoint: a folder of transformers, such as grounding-dino-base. words: what is looked for: person, animal, the caption's noun.
        frame: of the prompts, 0 or -1; `masks.both_ways` sets it for its own.

    Raises:
        MotionLabError: no such folder, or of another model; no words.
    """
    asked = " ".join(f"{word.strip().lower().rstrip('.')}." for word in words if word.strip())
    if not asked:
        raise MotionLabError("The detector was given no words.", fix="Say what to look for, such as person, animal.")
    folder = Path(checkpoint).expanduser() if checkpoint else None
    if folder is None or not (folder / "config.json").is_file():
        raise MotionLabError(f"There is no detector at '{checkpoint}'.", fix="Give a folder of transformers, such as grounding-dino-base; "
                             "or boxes in a table (prompts.read_boxes).")
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise MotionLabError(f"'{folder}' cannot be read as a detector ({str(error).splitlines()[0]}).",
                             fix="Fetch the folder again.") from None
    model = to_device(model, device).eval()

    def detect(picture: np.ndarray) -> Prompt | None:
        import torch

        given = processor(images=picture, text=asked, return_tensors="pt").to(device)
        with torch.no_grad():
            said = model(**given)
        found, = processor.post_process_grounded_object_detection(said, given["input_ids"], threshold=BOX, text_threshold=TEXT,
                                                                   target_sizes=[picture.shape[:2]])
        box = best_box(found["boxes"].cpu().numpy(), found["scores"].cpu().numpy(), picture.shape[:2])
        return None if box is None else Prompt(box=box, frame=frame)

    return detect


def best_box(boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The box (x0, y0, x1, y1) with the largest score x area, cut to the frame (h, w); None where none covers 2 to 80 % of it."""
    h, w = size
    boxes = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, [w - 1, h - 1, w - 1, h - 1])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (w * h)
    worth = np.where((area >= LEAST) & (area <= MOST), area * np.asarray(scores), -1)
    if len(worth) == 0 or worth.max() < 0:
        return None
    return tuple(float(x) for x in boxes[worth.argmax()])
