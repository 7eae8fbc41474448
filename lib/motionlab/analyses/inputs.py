"""What an analysis looks at: clips at the size that a generator was made for, of the world or of yours.

    clips = world_clips(range(8), pipe)                    # the world's clips at its size, with their exact truth
    clips["mine"] = your_clip("my.mp4", pipe, caption="a dog runs")
"""
from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from motionlab.analyses.domain import Domain, domain_of
from motionlab.core.errors import MotionLabError
from motionlab.models.pipe import FRAMES_OF, Inputs, Pipe
from motionlab.video import as_video, read_shot, uneven_said
from motionlab.world import Clip, random_scene, render

GROUP = 4                                 # frames per latent after the first: the same in every supported codec


@dataclass(frozen=True)
class CaptionedClip:
    """A clip without truth: frames uint8 (f, h, w, 3), what it shows in words, and how far it lies from what the model has seen."""

    frames: np.ndarray
    caption: str = ""
    domain: Domain | None = None


def item_seed(item: str) -> int:
    """The noise seed of a clip by its name: a world seed as it is, any other name by its checksum."""
    return int(item) if item.isdigit() else zlib.crc32(item.encode())


def world_clips(seeds: Sequence[int], model: Pipe, **options) -> dict[str, Clip]:
    """{seed: clip} of the world at the model's size; options as of `world.random_scene` (camera, clutter, kind, ...)."""
    demand_layout(model)
    options = {"aspect": model.size[1] / model.size[0]} | options
    return {str(seed): render(random_scene(int(seed), **options), model.size, model.frames) for seed in seeds}


def demand_layout(model: Pipe) -> None:
    """Raises MotionLabError for a generator whose tokens do not stand for one latent frame of four frames each, as tracks, orders of
    frames and maps are laid out: LTX (8 frames), CogVideoX 1.5 (patches in time), U-Nets (every frame alone)."""
    if model.frames_per_token != GROUP:
        raise MotionLabError(f"A token of '{model.name}' stands for {model.frames_per_token} frame(s), and the analyses are laid out for "
                             f"{GROUP}.",
                             fix="Use Wan 2.1, CogVideoX 1.0 or HunyuanVideo; training and sampling take every class.")


def own_frames(model: Pipe, clips: Sequence) -> Inputs | None:
    """What a generator that needs known frames is given when it looks at clips: their own first (and last) ones; else None."""
    if not FRAMES_OF[model.modes[0]]:
        return None
    video = torch.stack([as_video(clip.frames) for clip in clips])
    return model.mode_inputs(model.modes[0], video[:, 0], video[:, -1])


def demand_text(model: Pipe, what: str) -> None:
    """Raises MotionLabError for an image-to-video generator, where a known frame would give away what is asked."""
    if "text" not in model.modes:
        raise MotionLabError(f"'{model.name}' is given the first frame, which would tell it {what}.", fix="Use a text-to-video class.")


def your_clip(path: str, model: Pipe, caption: str = "", latents: int = 3, shot: str | int = "") -> CaptionedClip:
    """A clip of yours, cropped and resized to the model's size and cut to a length that it does, and how far it lies from what it has seen.

    Prints what a reader of the results must know: cuts, with the line to set; frames shown unevenly; what its autoencoder makes of it.

    Args:
        caption: what it shows; the kit's own model reads the world's grammar only, "" is no text.
        latents: how many latent frames are needed at least.
        shot: of a file with cuts: "longest", or a number counted from 1; "" reads from the beginning, over the cuts.

    Raises:
        MotionLabError: no such file or shot, too short, a word that the model does not know, and as `demand_layout`.
    """
    demand_layout(model)
    clip = read_shot(path, model.size, model.frames, shot, needed=(latents - 1) * GROUP + 1)
    kept = (len(clip.frames) - 1) // model.clip_step * model.clip_step + 1
    model.text([caption])
    if said := uneven_said(clip):
        print(said)
    mine = CaptionedClip(clip.frames[:kept], caption)
    mine = replace(mine, domain=domain_of(mine, model))
    print(mine.domain.sentence)
    return mine
