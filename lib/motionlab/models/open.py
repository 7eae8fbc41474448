"""Opening a generator: the kit's own, or a snapshot's by the class of its pipeline."""
from __future__ import annotations

import importlib
from pathlib import Path

import torch

from motionlab.models.checkpoint import kind_of
from motionlab.models.pipe import Pipe
from motionlab.models.shipped import shipped

# A new class is a subclass of `models.pretrained.base.SnapshotPipe` and a line here.
PIPELINES = {
    "WanPipeline": "motionlab.models.pretrained.wan:WanPipe",
    "WanImageToVideoPipeline": "motionlab.models.pretrained.wan:WanImagePipe",
    "CogVideoXPipeline": "motionlab.models.pretrained.cogvideox:CogVideoXPipe",
    "CogVideoXImageToVideoPipeline": "motionlab.models.pretrained.cogvideox:CogVideoXImagePipe",
    "LTXPipeline": "motionlab.models.pretrained.ltx:LTXPipe",
    "HunyuanVideoPipeline": "motionlab.models.pretrained.hunyuan:HunyuanVideoPipe",
    "StableVideoDiffusionPipeline": "motionlab.models.pretrained.unets:StableVideoPipe",
    "I2VGenXLPipeline": "motionlab.models.pretrained.unets:I2VGenXLPipe",
}


def pipe_class(folder: str | Path) -> type[Pipe]:
    """Which `Pipe` a snapshot is, by its files; loads no weights.

    Raises:
        MotionLabError: no such folder, not a supported pipeline (the nearest is named), no network.
    """
    from motionlab.models.pretrained.files import snapshot_class

    module, _, name = PIPELINES[snapshot_class(folder, PIPELINES)].partition(":")
    return getattr(importlib.import_module(module), name)


def open_own(weights: str, frames: int | None = None, height: int | None = None, width: int | None = None) -> Pipe:
    """One of the kit's own generators, by the kind of its checkpoint: the DiT's 17 frames, the U-Net's 9 at half the rate.

    Raises:
        MotionLabError: no such checkpoint; a size that it does not do.
    """
    from motionlab.models.small import framewise, pipe, unet

    pipe.check_size(height, width)
    if kind_of(shipped(weights)) == unet.KIND:
        return framewise.open_small_unet(weights, frames or framewise.FRAMES)
    return pipe.open_small(weights, frames or 17)


def open_pipe(folder: str | Path = "", frames: int | None = None, height: int | None = None, width: int | None = None,
              weights: str = "base", device: str = "cpu", cache: str | Path | None = None, dtype: torch.dtype | None = None) -> Pipe:
    """The kit's shipped generator, or a pretrained one from a local folder.

    Args:
        folder: of a diffusers snapshot; "" is the kit's own.
        frames, height, width: of the clips in pixels; by default what the generator was made for (the kit's: 17 x 48 x 48).
        weights: which of the kit's checkpoints. device, dtype: of a snapshot. cache: where its text states are kept.

    Raises:
        MotionLabError: no such folder or checkpoint, a class that is not supported, a size that it does not do.
    """
    if not folder:
        return open_own(weights, frames, height, width)
    pipe = pipe_class(folder)(Path(folder), device, dtype or (torch.bfloat16 if device != "cpu" else torch.float32), cache)
    return pipe.set_clip(*(given or own for given, own in zip((frames, height, width), (pipe.frames, *pipe.size)))).eval()
