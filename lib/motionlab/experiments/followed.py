"""A clip through a tracker's eyes: its masks beside what is there without a tracker, and its features as colours."""
from __future__ import annotations

import numpy as np

from motionlab.analyses.features import colours, fit_basis
from motionlab.data.correlations import draw_shown, seen
from motionlab.data.prompts import Prompt
from motionlab.data.sources import Listed
from motionlab.figures import mask_frames
from motionlab.metrics.mask_tracking import copied, frame_iou, warped
from motionlab.teachers.flow import dis_flow

EVERY = 4


def masks_of(prompt: Prompt, checkpoint: str, name: str = "sam2", every: int = EVERY) -> tuple[dict, dict]:
    """({name: frames with all but the mask paled}, {name: mean IoU after the first frame}) of a clip's exact mask, the tracker's, and its
    first one copied and carried by DIS flow; every `every`-th frame, at the size that the tracker reads."""
    shown = draw_shown(Listed([prompt.clip()]), 0, "sam2", every)
    frames, truth = shown[..., :3], shown[..., 3] > 127
    masks = seen(shown[None], "sam2", checkpoint).masks[0].numpy()
    found = {name: masks, "copied": copied(masks[0], len(masks)), "warped": warped(masks[0], dis_flow(frames, backward=True))}
    said = {arm: float(frame_iou(one, truth)[1:].mean()) for arm, one in found.items()}
    return {"clip": frames, "exact_mask": mask_frames(frames, truth)} | {arm: mask_frames(frames, one) for arm, one in found.items()}, said


def pictures_of(prompt: Prompt, checkpoint: str, every: int = EVERY) -> dict[str, np.ndarray]:
    """Three components of a tracker's features as colours, uint8 (t, g, g, 3): memory from either end in one basis, and the same network's
    image features in a basis of their own; behind the clip."""
    clip = prompt.clip()
    shown = draw_shown(Listed([clip]), 0, "sam2", every)[None]
    both, image = seen(shown, "sam2", checkpoint), seen(shown, "sam2_image", checkpoint)
    memory = np.stack([both.forward[0].float().cpu().numpy(), both.backward[0].float().cpu().numpy()])
    place = fit_basis(memory).project(memory)
    one, other = (colours(part, place.min(), place.max()) for part in place)
    still = image.forward[0].float().cpu().numpy()
    found = {"memory_first": one, "memory_last": other, "image_features": colours(fit_basis(still).project(still))}
    return {"clip": shown[0, ..., :3]} | found

