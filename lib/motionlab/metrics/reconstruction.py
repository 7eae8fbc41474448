"""What a codec keeps of a clip: limb positions, flow pictures, pixels. Judged by what it is for, not by decibels alone."""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.flow_rgb import WORLD_SIGMA, rgb_to_flow
from motionlab.metrics.palette import limb_table, read_limbs

VISIBLE = 4          # pixels at 48 px height: a limb of which less is seen has no meaningful centre


def limb_truth(clip, actor: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Centres (f, limbs, 2) in pixels and visible areas (f, limbs) of the limbs that the palette reader tells apart.

    Centres are NaN where less than `VISIBLE` pixels are seen.
    """
    masks = clip.limb_masks(actor)
    limbs = [np.any([masks[g] for g in limb.groups], axis=0) for limb in limb_table(clip.scene.actors[actor].species)]
    area = np.stack([m.sum((1, 2)) for m in limbs], axis=1).astype(float)
    y, x = np.mgrid[:clip.size[0], :clip.size[1]]
    with np.errstate(invalid="ignore", divide="ignore"):
        centres = np.stack([np.stack([(m * axis).sum((1, 2)) for axis in (x, y)], -1) for m in limbs], 1) / area[..., None]
    centres[area < VISIBLE * (clip.size[0] / 48) ** 2] = np.nan
    return centres, area


def palette_part_error(frames: np.ndarray, clip) -> float:
    """Median distance in pixels between limb centres read from `frames` and the true ones of `clip`.

    Limbs that are visible but not read count as infinitely far: half of them missing makes the median infinite.

    Args:
        frames: uint8 (f, h, w, 3), the clip itself or what is left of it.

    Raises:
        MotionLabError: frames of another length or size than the clip's.
    """
    if frames.shape != clip.frames.shape:
        raise MotionLabError(f"The frames {frames.shape} do not fit the clip {clip.frames.shape}.",
                             fix="Give one picture per frame of the clip.")
    actor = clip.scene.actors[0]
    read = read_limbs(frames, actor.species, actor.colour, clip.scene.place).centres
    truth, _ = limb_truth(clip)
    gap = np.linalg.norm(read - truth, axis=-1)[~np.isnan(truth[..., 0])]
    return float(np.median(np.where(np.isnan(gap), np.inf, gap))) if gap.size else float("nan")


def flow_picture_error(picture: np.ndarray, clip, sigma: float = WORLD_SIGMA) -> dict[str, float]:
    """End-point error of a flow picture that went through a codec, on the subject's pixels.

    Args:
        picture: uint8 or float in 0..255, (f, h, w, 3); its last frame repeats the one before and is not counted.

    Returns:
        epe: median end-point error, pixels per frame; speed: median true speed there; relative: epe / speed.
        Speeds are clipped where the picture saturates (`flow_rgb.saturation_speed`), in the truth too.
    """
    from motionlab.flow_rgb import saturation_speed

    mask = clip.object_mask(None)[:-1]
    read = rgb_to_flow(np.moveaxis(np.asarray(picture[:-1], dtype=np.float64) / 255, -1, -3), sigma)
    true = clip.flow.astype(np.float64)
    speed = np.linalg.norm(true, axis=1, keepdims=True)
    true = true * np.minimum(1, saturation_speed(clip.size, sigma) / np.maximum(speed, 1e-9))
    error = np.linalg.norm(read - true, axis=1)[mask]
    median_speed = float(np.median(speed[:, 0][mask]))
    return {"epe": float(np.median(error)), "speed": median_speed, "relative": float(np.median(error)) / median_speed}


def psnr(frames: np.ndarray, clip, subject: bool = False) -> float:
    """Peak signal-to-noise ratio in dB of uint8 frames against the clip's, over all pixels or the subject's."""
    error = (frames.astype(np.float64) - clip.frames) ** 2
    mean = error[clip.object_mask(None)].mean() if subject else error.mean()
    return float(10 * np.log10(255 ** 2 / max(mean, 1e-12)))


__all__ = ["flow_picture_error", "limb_truth", "palette_part_error", "psnr"]
