"""Does a clip lie within what a generator has seen? Asked of its autoencoder, beside the same error on clips of the world.

    domain = domain_of(clip, model)            # of anything with `frames` at the model's size
    print(domain.sentence)

An autoencoder that fails on a clip shows that it is unlike what it was trained on; one that does well shows nothing more than that: a
clip without detail is easy for any. What a generator makes of a clip that lies outside says nothing about the clip.
"""
from __future__ import annotations

import functools
import html
import json
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import write_json
from motionlab.core.paths import repo_root
from motionlab.core.protocol import split_seeds
from motionlab.models.pipe import Pipe
from motionlab.video import as_video
from motionlab.video.fitting import fitter
from motionlab.world import random_scene, render

SPLIT, CLIPS, TOGETHER = "examples", 64, 8     # clips of the world that a clip is compared with, and how many are decoded at once


@dataclass(frozen=True)
class Domain:
    """Where a clip lies among what a generator has seen.

    Attributes:
        model: the generator's name. error: of its autoencoder on the clip, root mean square in grey levels (of 255).
        low, high: the world's 5th and 95th percentile of the same; None where the model was not made on the world.
        inside: whether the error lies between the smallest and the largest of the world's `CLIPS` clips, as another clip of the world
            does 63 times in 65; None where there is nothing to compare with.
    """

    model: str
    error: float
    low: float | None = None
    high: float | None = None
    inside: bool | None = None

    @property
    def sentence(self) -> str:
        """What is to be said on every figure made of the clip."""
        if self.inside is None:
            return (f"The autoencoder of '{self.model}' errs by {self.error:.1f} grey levels on this clip. Whether '{self.model}' has seen "
                    "such clips is not known: there is no world to compare with.")
        band = f"{self.low:.1f} to {self.high:.1f} on the world's (5 to 95 % of {CLIPS})"
        if self.inside:
            return (f"Within what '{self.model}' has seen, as far as its autoencoder tells: it errs by {self.error:.1f} grey levels on "
                    f"this clip, {band}.")
        return (f"Outside what '{self.model}' has seen: its autoencoder errs by {self.error:.1f} grey levels on this clip, {band}. "
                "No conclusion about the clip is drawn.")

    def _repr_html_(self) -> str:
        return f"<p>{'' if self.inside else '⚠ '}{html.escape(self.sentence)}</p>"


def domain_of(clip, model: Pipe) -> Domain:
    """Where a clip lies among what a generator has seen.

    Of the shipped base, measured: MEASURED

    Args:
        clip: anything with `frames`, uint8 (f, h, w, 3); of another size or length than the model's it is cropped, resized and cut first.
    """
    frames = _fitted(clip.frames, model)
    error = float(reconstruction_errors(frames[None], model)[0])
    if model.kind != "motionlab":
        return Domain(model.name, error)
    known = world_errors(model, len(frames))
    low, high = np.percentile(known, [5, 95])
    return Domain(model.name, error, float(low), float(high), bool(min(known) <= error <= max(known)))


def _fitted(frames, model):
    fit = fitter(model.size, "center")
    kept = (min(len(frames), model.frames) - 1) // model.clip_step * model.clip_step + 1
    return np.stack([fit(frame) for frame in frames[:kept]])


def concluded(clip, sentence: str) -> str:
    """A sentence about a clip, or in its place that the clip lies outside what the model has seen.

    Args:
        clip: a `Domain`, or what has one as `domain`; of a clip of the world, which has none, the sentence stands.
    """
    domain = clip if isinstance(clip, Domain) else getattr(clip, "domain", None)
    return domain.sentence if domain is not None and domain.inside is False else sentence


@torch.no_grad()
def reconstruction_errors(frames: np.ndarray, model: Pipe) -> np.ndarray:
    """Root mean square error of decode(encode(x)) of clips uint8 (n, f, h, w, 3), in grey levels of 255, float64 (n,)."""
    out = []
    for some in (frames[k:k + TOGETHER] for k in range(0, len(frames), TOGETHER)):
        again = model.decode(model.encode_video(as_video(some)))
        out.append(np.sqrt(np.mean((again.astype(np.float64) - some) ** 2, axis=(1, 2, 3, 4))))
    return np.concatenate(out)


def world_errors(model: Pipe, frames: int) -> tuple[float, ...]:
    """`reconstruction_errors` on `CLIPS` clips of the world's split `SPLIT`, computed once for an autoencoder, a size and a length."""
    return _world_errors(model, frames)


@functools.lru_cache(maxsize=1)
def _world_errors(model, frames):
    scenes = [random_scene(seed, aspect=model.size[1] / model.size[0]) for seed in split_seeds(SPLIT, CLIPS)]
    first = render(scenes[0], model.size, frames).frames
    path = _kept_at(model, first) if model.codec_name else None      # an autoencoder of no file is not the same one tomorrow
    if (known := _read(path)) is not None:
        return known
    clips = [first] + [render(scene, model.size, frames).frames for scene in scenes[1:]]
    known = tuple(float(error) for error in reconstruction_errors(np.stack(clips), model))
    if path is not None:
        _keep(path, known)
    return known


def _kept_at(model, first):
    """A file named by all that its numbers depend on: the autoencoder's weights, and the world as it renders today."""
    world = zlib.crc32(first.tobytes())
    shape = "x".join(map(str, first.shape[:3]))
    return repo_root() / ".cache" / "world_errors" / f"{model.codec_name[:16]}_{shape}_{world:08x}.json"


def _read(path):
    """The errors kept in a file, or None where there are none that can be used."""
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path is not None else None
    except (OSError, ValueError):
        return None
    whole = isinstance(known, list) and len(known) == CLIPS and all(isinstance(error, float) and error >= 0 for error in known)
    return tuple(known) if whole else None


def _keep(path, known):
    try:
        write_json(path, list(known))
    except MotionLabError:
        pass                                                          # a checkout that may not be written computes them each time
