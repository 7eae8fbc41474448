"""What an analysis looks at: clips at the size that a generator was made for, of the world or of yours.

    clips = world_clips(range(8), pipe)                    # the world's clips at its size, with their exact truth
    clips["mine"] = your_clip("my.mp4", pipe, caption="a dog runs")
"""
from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.models.pipe import Pipe
from motionlab.video import read_video
from motionlab.world import Clip, random_scene, render

GROUP = 4                                 # frames per latent after the first: the same in every supported codec


@dataclass(frozen=True)
class CaptionedClip:
    """A clip without truth: frames uint8 (f, h, w, 3) and what it shows in words."""

    frames: np.ndarray
    caption: str = ""


def item_seed(item: str) -> int:
    """The noise seed of a clip by its name: a world seed as it is, any other name by its checksum."""
    return int(item) if item.isdigit() else zlib.crc32(item.encode())


def world_clips(seeds: Sequence[int], model: Pipe, **options) -> dict[str, Clip]:
    """{seed: clip} of the world at the model's size; options as of `world.random_scene` (camera, clutter, kind, ...)."""
    options = {"aspect": model.size[1] / model.size[0]} | options
    return {str(seed): render(random_scene(int(seed), **options), model.size, model.frames) for seed in seeds}


def your_clip(path: str, model: Pipe, caption: str = "", latents: int = 3) -> CaptionedClip:
    """A clip of yours, cropped and resized to the model's size and cut to a length that it does.

    Args:
        caption: what it shows; the kit's own model reads the world's grammar only, "" is no text.
        latents: how many latent frames are needed at least.

    Raises:
        MotionLabError: no such file, too short, a word that the model does not know.
    """
    frames = read_video(path, size=model.size, max_frames=model.frames).frames
    kept, needed = (len(frames) - 1) // model.clip_step * model.clip_step + 1, (latents - 1) * GROUP + 1
    if kept < needed:
        raise MotionLabError(f"'{path}' has {len(frames)} frames; this needs {needed}.", fix="Give a longer clip.")
    model.text([caption])
    return CaptionedClip(frames[:kept], caption)
