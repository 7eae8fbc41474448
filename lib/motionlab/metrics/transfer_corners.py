"""Corners of motion transfer: what the metrics say of clips whose answer is known. If they are wrong here, they judge nothing."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from motionlab.core.errors import one_of
from motionlab.data.transfer import Target, TransferTask
from motionlab.metrics.transfer import transfer_rows
from motionlab.models.evaluator import Evaluator
from motionlab.models.image_encoder import ImageEncoder
from motionlab.world import render
from motionlab.world.render import background, with_clutter

GONE = (25, 50, 75, 100)            # per cent of the route
BLENDS = (25, 50, 75, 100)          # per cent of the source's clutter


def corner_rows(tasks: Sequence[TransferTask], readers: Mapping[str, Evaluator], through: Callable[[np.ndarray], np.ndarray] | None = None,
                encoder: ImageEncoder | None = None, arms: Sequence[str] | None = None, size: int = 48, frames: int = 17,
                **options) -> list[dict]:
    """Rows, as `metrics.transfer.transfer_rows`, of these arms on the first target "a" of each task:

        truth           the true answer (and that of target "b")
        source          the source clip itself, as if it were the answer: all of the motion, none of the edit, all of the clutter
        route_<k>       the true answer with k per cent of its route taken away
        clutter_<k>     the true answer over k per cent of the source's clutter

    Args:
        through: uint8 frames (f, h, w, 3) -> the same, done to every clip, such as a codec's reconstruction.
        arms: some of these only. options: of `transfer_rows` (ends, every).

    Raises:
        MotionLabError: an unknown arm (the nearest is named).
    """
    known, rows = _arms(), []
    for arm in known if arms is None else arms:
        make = known[one_of(arm, known, "arm")]
        asked = [(task, target) for task in tasks for target in (task.of("a")[:1] + task.of("b") * (arm == "truth"))]
        clips = [make(task, target, size, frames) for task, target in asked]
        clips = np.stack(clips if through is None else [through(clip) for clip in clips])
        rows += transfer_rows(clips, asked, readers, arm, encoder=encoder, **options)
    return rows


def _arms() -> dict[str, Callable]:
    arms = {"truth": lambda task, target, size, f: target.clip(size, f).frames,
            "source": lambda task, target, size, f: task.clip(size, f).frames}
    arms |= {f"route_{gone}": lambda task, target, size, f, gone=gone: route_gone(target, gone / 100, size, f) for gone in GONE}
    return arms | {f"clutter_{share}": lambda task, target, size, f, share=share: over_clutter(task, target, share / 100, size, f)
                   for share in BLENDS}


def route_gone(target: Target, share: float, size: int = 48, frames: int = 17) -> np.ndarray:
    """The true answer's frames with this share of its route taken away, uint8 (f, h, w, 3)."""
    path = tuple(((1 - share) * x, (1 - share) * y) for x, y in target.scene.actors[0].path)
    return render(target.scene.with_actor(0, path=path), size, frames).frames


def over_clutter(task: TransferTask, target: Target, share: float, size: int = 48, frames: int = 17) -> np.ndarray:
    """The true answer's frames over this share of the source's clutter, uint8 (f, h, w, 3)."""
    clip = target.clip(size, frames)
    plain = background(target.scene.place, target.scene.scroll, *clip.size)[0]
    extra = share * 255 * (with_clutter(task.source, plain) - plain)
    return np.round(np.clip(clip.frames + ~clip.object_mask(None)[..., None] * extra, 0, 255)).astype(np.uint8)
