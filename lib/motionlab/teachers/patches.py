"""Features of patches, frame by frame, with no memory of other frames: what an image alone says, and the rivals of a tracker's features.

    patches(frames, "rgb")                                       # (f, 3 p^2, g, g): the pixels themselves
    patches(frames, "image_encoder", encoder=load_image_encoder(shipped("image_encoder")))
    patches(frames, "dinov2", checkpoint="path/to/dinov2-base")  # a folder of transformers
    patches(frames, "sam2", tracker=load_tracker("sam2", checkpoint=...))

All answer float32 (f, c, g_h, g_w) for frames uint8 (f, h, w, 3), as trackers answer memory features.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.teachers.dinov2 import open_dinov2
from motionlab.teachers.flow import call_teacher
from motionlab.video import as_video, check_frames

TOGETHER = 16            # pictures at once


def patches(frames: np.ndarray, teacher: str = "rgb", **options) -> np.ndarray:
    """Features (f, c, g_h, g_w) float32 from the named teacher; `options` are its own.

    Raises:
        MotionLabError: unknown teacher or option, and what the teacher itself raises.
    """
    return call_teacher(PATCH_TEACHERS, teacher, options, frames)


def load_patches(teacher: str = "rgb", **options) -> Callable[[np.ndarray], np.ndarray]:
    """`patches` of one teacher for many clips: frames -> features; a DINOv2 is read once.

    Raises:
        MotionLabError: as `patches`.
    """
    if teacher == "dinov2" and "model" not in options:
        options = {name: value for name, value in options.items() if name != "checkpoint"} | {
            "model": _dinov2(options.get("checkpoint"), options.get("device", "cpu"))}
    return lambda frames: patches(frames, teacher, **options)


def rgb_patches(frames: np.ndarray, grid: int = 12) -> np.ndarray:
    """The pixels of each cell in [-1, 1], less their mean over the clip: without it any two would look alike to a cosine.

    Raises:
        MotionLabError: frames that do not divide into grid x grid cells.
    """
    video = as_video(check_frames(frames, who="rgb_patches")).numpy()
    f, c, h, w = video.shape
    if grid < 1 or h % grid or w % grid:
        raise MotionLabError(f"rgb_patches: frames of {h}x{w} do not divide into {grid}x{grid} cells.",
                             fix="Choose a grid that divides both.")
    video = video - video.mean((0, 2, 3), keepdims=True)
    cells = video.reshape(f, c, grid, h // grid, grid, w // grid)
    return np.ascontiguousarray(cells.transpose(0, 1, 3, 5, 2, 4).reshape(f, -1, grid, grid))


def encoder_patches(frames: np.ndarray, encoder=None, layer: int | None = None) -> np.ndarray:
    """The testbed's image encoder (`models.image_encoder.ImageEncoder`); layer: as its `features`.

    Raises:
        MotionLabError: no encoder; frames that do not divide into its patches.
    """
    import torch

    if encoder is None:
        raise MotionLabError("Teacher 'image_encoder' needs an encoder.", fix="Pass encoder=load_image_encoder(shipped('image_encoder')).")
    video = as_video(check_frames(frames, who="encoder_patches"))
    device, patch = next(encoder.parameters()).device, encoder.config.patch
    parts = [encoder.features(part.to(device), layer) for part in video.split(TOGETHER)]
    return torch.cat(parts).transpose(1, 2).unflatten(2, (video.shape[2] // patch, video.shape[3] // patch)).cpu().numpy()


def dinov2_patches(frames: np.ndarray, checkpoint: str | Path | None = None, size: int = 224, device: str = "cpu",
                   model=None) -> np.ndarray:
    """DINOv2 (Oquab et al., arXiv 2304.07193) from a folder of transformers, never a download; frames are resized to size x size.

    Args:
        size: pixels a side, a multiple of the patch of 14. model: what `open_dinov2` gave, for many clips.

    Raises:
        MotionLabError: no folder, or of another model; a size that does not divide into patches.
    """
    import torch.nn.functional as F

    video = as_video(check_frames(frames, who="dinov2_patches"))
    model = model or _dinov2(checkpoint, device)
    patch = model.patch
    if size < patch or size % patch:
        raise MotionLabError(f"dinov2_patches: {size} pixels do not divide into patches of {patch}.",
                             fix=f"Give a multiple, such as {16 * patch}.")
    pictures = F.interpolate(video, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
    found = model.features(pictures.to(model.mean.device))
    return found.transpose(1, 2).unflatten(2, (size // patch, size // patch)).cpu().numpy()


def _dinov2(checkpoint, device):
    if checkpoint is None:
        raise MotionLabError("Teacher 'dinov2' needs a folder with DINOv2.",
                             fix="Give checkpoint=: a folder of transformers, such as dinov2-base.")
    return open_dinov2(checkpoint, device)


def sam2_patches(frames: np.ndarray, tracker=None) -> np.ndarray:
    """SAM2's image features at stride 16, before any memory (E12 of the method card sam2videox).

    Raises:
        MotionLabError: no tracker, or one that is not SAM2.
    """
    if not hasattr(tracker, "image_features"):
        raise MotionLabError("Teacher 'sam2' needs a SAM2.", fix="Pass tracker=load_tracker('sam2', checkpoint=...).")
    return tracker.image_features(frames)


PATCH_TEACHERS: dict[str, Callable] = {"rgb": rgb_patches, "image_encoder": encoder_patches, "dinov2": dinov2_patches, "sam2": sam2_patches}
