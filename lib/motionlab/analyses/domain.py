"""Does a clip lie within what a generator has seen? Asked of its autoencoder and of itself, beside the same errors on clips of the world.

    domain = domain_of(clip, model)            # of anything with `frames`
    print(domain.sentence)

The autoencoder alone does not tell: at 48 x 48 a real camera's clip is as easy for it as the world's. The generator does: what it has never
seen it denoises several times worse. What it makes of such a clip says nothing about the clip.
"""
from __future__ import annotations

import functools
import html
import json
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import write_json
from motionlab.core.paths import repo_root
from motionlab.core.protocol import split_seeds
from motionlab.models.pipe import Pipe
from motionlab.video import as_frames, as_video
from motionlab.video.fitting import fitter
from motionlab.world import random_scene, render

SPLIT, CLIPS, TOGETHER = "examples", 32, 8     # clips of the world that a clip is compared with, and how many are looked at at once
T = 0.7                                        # noise level of the generator's error: little enough noise for the clip to show
FAR = 1.5                                      # times the world's 95th percentile, beyond which a clip is none of the world


class Errors(NamedTuple):
    """reconstruction: of the autoencoder, root mean square in grey levels (of 255). velocity: of the generator at `T` without text, mean
    squared error; NaN where it is not asked."""

    reconstruction: float
    velocity: float = float("nan")


@dataclass(frozen=True)
class Domain:
    """Where a clip lies among what a generator has seen.

    Attributes:
        model: the generator's name. error: on the clip.
        low, high: the world's 5th and 95th percentiles of the same errors; None where the model was not made on the world.
        inside: whether both errors are at most `FAR` times the world's 95th percentile; None where there is nothing to compare with.
    """

    model: str
    error: Errors
    low: Errors | None = None
    high: Errors | None = None
    inside: bool | None = None

    @property
    def sentence(self) -> str:
        """What is to be said on every figure made of the clip."""
        grey = f"{self.error.reconstruction:.1f} grey levels"
        if self.inside is None:
            return (f"The autoencoder of '{self.model}' errs by {grey} on this clip. Whether '{self.model}' has seen such clips is not "
                    "known: there is no world to compare with.")
        told = (f"error {self.error.velocity:.2f} (world: {self.low.velocity:.2f} to {self.high.velocity:.2f}), its autoencoder's {grey} "
                f"(world: {self.low.reconstruction:.1f} to {self.high.reconstruction:.1f}; 5 to 95 % of {CLIPS} clips)")
        if self.inside:
            return f"Within what '{self.model}' has seen, by its errors: {told}."
        return f"Outside what '{self.model}' has seen: {told}. No conclusion about the clip is drawn."

    def _repr_html_(self) -> str:
        return f"<p>{'' if self.inside else '⚠ '}{html.escape(self.sentence)}</p>"


def domain_of(clip, model: Pipe) -> Domain:
    """Where a clip lies among what a generator has seen.

    Of the shipped base, measured (error at t = 0.7; the autoencoder's in grey levels): 64 clips of split examples 0.09 to 0.28 (5th to 95th
    percentile; 6.1 to 9.5), 24 of dev all inside, at most 0.34 (10.7); eight parts of two real camera clips all outside, 0.58 to 1.24 (5.0
    to 10.0, within the world's); white noise 5.8 (70), a grey picture 0.55 (5.5), moving textures 1.6 and 2.0 (7.0 and 11.9). `FAR` was
    chosen on these clips. A pretrained class is asked for its autoencoder's error only.

    Args:
        clip: anything with `frames`, uint8 (f, h, w, 3); of another size or length than the model's it is cropped, resized and cut first.
    """
    frames = _fitted(clip.frames, model)
    if model.kind != "motionlab":
        return Domain(model.name, Errors(float(reconstruction_errors(frames[None], model)[0])))
    error, known = Errors(*map(float, errors_of(frames[None], model)[0])), world_errors(model, len(frames))
    low, high = (Errors(*map(float, values)) for values in np.percentile(known, [5, 95], axis=0))
    inside = error.reconstruction <= FAR * high.reconstruction and error.velocity <= FAR * high.velocity
    return Domain(model.name, error, low, high, inside)


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


# ---------------------------------------------------------------------------------------------- errors
@torch.no_grad()
def errors_of(frames: np.ndarray, model: Pipe) -> np.ndarray:
    """`Errors` of clips uint8 (n, f, h, w, 3), float64 (n, 2); every clip gets the same noise and no text."""
    out = []
    for some in _batches(frames):
        x1 = model.encode_video(as_video(some))
        x0 = model.noise([0], x1[:1]).expand_as(x1)
        u = model(T * x1 + (1 - T) * x0, torch.full((len(x1),), T, device=x1.device), model.text([""] * len(x1)))
        velocity = (u - (x1 - x0)).double().square().mean(dim=(1, 2, 3, 4))
        out.append(np.stack([_apart(some, model.decode_video(x1)), velocity.cpu().numpy()], 1))
    return np.concatenate(out)


@torch.no_grad()
def reconstruction_errors(frames: np.ndarray, model: Pipe) -> np.ndarray:
    """The autoencoder's error alone, float64 (n,)."""
    return np.concatenate([_apart(some, model.decode_video(model.encode_video(as_video(some)))) for some in _batches(frames)])


def _batches(frames):
    return (frames[k:k + TOGETHER] for k in range(0, len(frames), TOGETHER))


def _apart(frames, video):
    return np.sqrt(np.mean((as_frames(video).astype(np.float64) - frames) ** 2, axis=(1, 2, 3, 4)))


def world_errors(model: Pipe, frames: int) -> np.ndarray:
    """`errors_of` `CLIPS` clips of the world's split `SPLIT`, (n, 2); computed once for a generator, a size and a length, in seconds."""
    return np.array(_world_errors(model, frames))


@functools.lru_cache(maxsize=1)
def _world_errors(model, frames):
    scenes = [random_scene(seed, aspect=model.size[1] / model.size[0]) for seed in split_seeds(SPLIT, CLIPS)]
    first = render(scenes[0], model.size, frames).frames
    path = _kept_at(model, first) if model.codec_name else None      # weights of no file are not the same ones tomorrow
    if (known := _read(path)) is not None:
        return known
    clips = np.stack([first] + [render(scene, model.size, frames).frames for scene in scenes[1:]])
    known = errors_of(clips, model).tolist()
    if path is not None:
        _keep(path, known)
    return known


def _kept_at(model, first):
    """A file named by all that its numbers depend on: the weights of both networks, and the world as it renders today."""
    world, weights = zlib.crc32(first.tobytes()), 0
    for p in model.denoiser.parameters():
        weights = zlib.crc32(p.detach().float().cpu().numpy().tobytes(), weights)
    shape = "x".join(map(str, first.shape[:3]))
    return repo_root() / ".cache" / "world_errors" / f"{model.codec_name[:16]}_{weights:08x}_{shape}_{world:08x}.json"


def _read(path):
    """The errors kept in a file, or None where there are none that can be used."""
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path is not None else None
        return known if known is not None and np.array(known, dtype=float).shape == (CLIPS, len(Errors._fields)) else None
    except (OSError, ValueError, TypeError):
        return None


def _keep(path, known):
    try:
        write_json(path, known)
    except MotionLabError:
        pass                                                          # a checkout that may not be written computes them each time
