"""A learned reader of clips: species, colour, place, motion, heading, camera move, and where every limb is.

A convolutional net looks at single frames; species, colour, place and limbs are read from frames alone, so that they
work on one picture and cannot lean on the motion. A second net over time at 6x6 cells reads motion, heading and camera.
Limb positions are soft-argmaxes of heatmaps at half resolution (integral regression, Sun et al., arXiv 1711.08229).

Two motion classes stand beside the world's: `frozen` (one frame repeated) and `shuffled` (frames in random order). They
are trained as examples of what is no motion; without them every clip of a fish would be read as swimming.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.models.checkpoint import fill, read_model, save_model
from motionlab.world.captions import CAMERA, TURN
from motionlab.world.motions import MOTIONS
from motionlab.world.palette import COLOURS, PLACES
from motionlab.world.puppets import SPECIES

KIND = "motionlab.evaluator"
NO_MOTION = ("frozen", "shuffled")
CLASSES = {
    "species": tuple(SPECIES), "colour": tuple(COLOURS), "place": tuple(PLACES), "motion": (*MOTIONS, *NO_MOTION),
    "heading": ("", "left", "right", *TURN.values()), "camera": CAMERA,
}
STILL = ("species", "colour", "place")      # read from frames; the other attributes need several
STRIDE = 2                                  # pixels per cell of a heatmap


# ---------------------------------------------------------------------------------------------- what there is to read
@lru_cache(maxsize=None)
def limb_groups(species: str) -> dict[str, tuple[str, ...]]:
    """Limbs of a species that a picture can tell apart: name -> groups of `Clip.limb_masks`, in drawing order.

    Copies of one shape in one shade on one joint (four of a wheel's spokes) are one limb, joined by "+".
    """
    parts = SPECIES[one_of(species, SPECIES, "species")].parts
    alike: dict[tuple, list[str]] = {}
    for group in dict.fromkeys(p.group for p in parts):
        first = next(p for p in parts if p.group == group)
        alike.setdefault((first.slot, first.parent, first.at, repr(first.shape)), []).append(group)
    return {"+".join(groups): tuple(groups) for groups in alike.values()}


LIMBS = {name: tuple(limb_groups(name)) for name in SPECIES}
SLOTS = max(map(len, LIMBS.values()))       # limbs of the species that has most; others leave slots empty


def true_limbs(clip, actor: int = 0, least: float = 1) -> tuple[np.ndarray, np.ndarray]:
    """Centroids of the visible pixels of an actor's limbs, (f, SLOTS, 2) as (x, y) in pixels; visibility (f, SLOTS).

    Slots follow `LIMBS`; a limb of fewer than `least` visible pixels, and an empty slot, is not visible; without any pixel its
    position is 0.
    """
    masks, (h, w) = clip.limb_masks(actor), clip.size
    groups = limb_groups(clip.scene.actors[actor].species)
    positions, visible = np.zeros((len(clip.ids), SLOTS, 2), np.float32), np.zeros((len(clip.ids), SLOTS), bool)
    for k, names in enumerate(groups.values()):
        mask = np.any([masks[name] for name in names if name in masks] or [np.zeros_like(clip.ids, bool)], axis=0)
        area = mask.sum((1, 2))
        centre = np.stack([mask.sum(1) @ np.arange(w), mask.sum(2) @ np.arange(h)], -1) / np.maximum(area, 1)[:, None]
        positions[:, k], visible[:, k] = centre, area >= least
    return positions, visible


def labels_of(said: dict) -> dict[str, int]:
    """Class indices, {attribute: index into CLASSES}, of what a caption says (`Clip.attributes`), first actor."""
    actor = said["actors"][0]
    heading = actor["heading"] or ""
    if actor["motion"] in MOTIONS and MOTIONS[actor["motion"]].says_heading == "turning":
        heading = TURN[heading]
    names = actor | {"place": said["place"], "camera": said["camera"], "heading": heading}
    return {name: options.index(names[name]) for name, options in CLASSES.items()}


def soft_argmax(logits: torch.Tensor, stride: int = STRIDE) -> torch.Tensor:
    """Expected position (..., 2) as (x, y) in pixels under softmax(logits (..., h, w)); cells are `stride` pixels."""
    h, w = logits.shape[-2:]
    share = logits.float().flatten(-2).softmax(-1).unflatten(-1, (h, w))
    x = (share.sum(-2) * _centres(w, stride, share)).sum(-1)
    y = (share.sum(-1) * _centres(h, stride, share)).sum(-1)
    return torch.stack([x, y], -1)


def _centres(n, stride, like):
    return (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) * stride - 0.5


# ---------------------------------------------------------------------------------------------- model
@dataclass(frozen=True)
class EvaluatorConfig:
    """Sizes. fine: channels at half resolution; width: at quarter resolution and over time; embedding: of each half of
    the feature vector; the rest: residual blocks of each part."""

    fine: int = 48
    width: int = 96
    embedding: int = 64
    fine_blocks: int = 2
    frame_blocks: int = 4
    time_blocks: int = 4


class SpaceBlock(nn.Module):
    """Residual 3x3 block on frames (n, c, h, w)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv(F.silu(self.norm(x)))


class TimeBlock(nn.Module):
    """Residual block on (b, f, c, h, w): 3x3 in space, then `dilation` frames to both sides at every cell."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.space, self.norm = SpaceBlock(width), nn.GroupNorm(8, width)
        self.time = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)

    def forward(self, x):
        b, f, _, h, w = x.shape
        y = self.space(rearrange(x, "b f c h w -> (b f) c h w"))
        z = rearrange(F.silu(self.norm(y)), "(b f) c h w -> (b h w) c f", b=b)
        z = rearrange(self.time(z), "(b h w) c f -> b f c h w", h=h, w=w)
        return rearrange(y, "(b f) c h w -> b f c h w", b=b) + z


class Evaluator(nn.Module):
    """Video (b, f, 3, h, w) in [-1, 1] -> logits of every attribute, limb positions and visibility; see `read`."""

    def __init__(self, config: EvaluatorConfig = EvaluatorConfig()):
        super().__init__()
        self.config = c = config
        self.stem = nn.Conv2d(3 * STRIDE ** 2, c.fine, 3, padding=1)
        self.fine = nn.Sequential(*(SpaceBlock(c.fine) for _ in range(c.fine_blocks)))
        self.down = nn.Conv2d(c.fine, c.width, 3, stride=2, padding=1)
        self.frame = nn.Sequential(*(SpaceBlock(c.width) for _ in range(c.frame_blocks)))
        self.to_look = nn.Linear(2 * c.width, c.embedding)
        # limbs: one learned query per species and slot, matched against features at half resolution
        self.up, self.join = nn.Conv2d(c.width, c.fine, 1), SpaceBlock(c.fine)
        self.queries = nn.Parameter(c.fine ** -0.5 * torch.randn(len(SPECIES), SLOTS, c.fine))
        self.presence = nn.Parameter(torch.zeros(len(SPECIES), SLOTS, c.fine + 1))
        # motion
        self.coarse = nn.Conv2d(c.width, c.width, 3, stride=2, padding=1)
        self.time = nn.Sequential(*(TimeBlock(c.width, 2 ** (k % 3)) for k in range(c.time_blocks)))
        self.to_move = nn.Linear(2 * c.width, c.embedding)
        self.heads = nn.ModuleDict({name: nn.Linear(c.embedding, len(options)) for name, options in CLASSES.items()})

    def forward(self, video: torch.Tensor, species: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Logits (b, classes) of each attribute, "positions" (b, f, SLOTS, 2) in pixels, "heat" (b, f, SLOTS, h/2, w/2)
        and "visible" (b, f, SLOTS) as logits, "features" (b, 2 embedding).

        Args:
            species: whose limbs to look for, indices (b,); None: of the species that is read.

        Raises:
            MotionLabError: another shape, frames that do not divide by 8.
        """
        _check_video(video)
        b = len(video)
        x = rearrange(video, "b f c (h p) (w q) -> (b f) (c p q) h w", p=STRIDE, q=STRIDE)
        fine = self.fine(self.stem(x))
        frame = self.frame(self.down(fine))
        look = reduce(F.silu(self.to_look(_pooled(F.silu(frame)))), "(b f) d -> b d", "mean", b=b)
        move = self._move(rearrange(self.coarse(F.silu(frame)), "(b f) c h w -> b f c h w", b=b))
        out = {name: self.heads[name](look if name in STILL else move) for name in CLASSES}
        species = out["species"].argmax(-1) if species is None else species
        return out | self._limbs(fine, frame, species, b) | {"features": torch.cat([look, move], -1)}

    def _move(self, x):
        pooled = _pooled(rearrange(F.silu(self.time(x)), "b f c h w -> b c f h w"))
        return F.silu(self.to_move(pooled))

    def _limbs(self, fine, frame, species, b):
        y = self.join(fine + F.interpolate(self.up(F.silu(frame)), scale_factor=2.0, mode="nearest"))
        y = rearrange(F.silu(y), "(b f) d h w -> b f d (h w)", b=b).float()
        with torch.autocast(y.device.type, enabled=False):          # positions are read finer than bf16's steps
            heat = torch.einsum("bkd,bfdp->bfkp", self.queries[species], y)
            seen = torch.einsum("bfkp,bfdp->bfkd", heat.softmax(-1), y)
        presence = self.presence[species][:, None]
        visible = (seen * presence[..., :-1]).sum(-1) + presence[..., -1]
        heat = rearrange(heat, "b f k (h w) -> b f k h w", h=fine.shape[-2])
        return {"positions": soft_argmax(heat), "heat": heat, "visible": visible}

    # ------------------------------------------------------------------ reading
    @torch.no_grad()
    def features(self, video: torch.Tensor) -> torch.Tensor:
        """Penultimate features (b, 2 embedding) of video (b, f, 3, h, w): of the look, then of the motion."""
        return self(video)["features"].float()

    @torch.no_grad()
    def read(self, frames: np.ndarray, species: list[str] | None = None, batch: int = 16) -> dict:
        """What the evaluator sees in clips.

        Args:
            frames: uint8 (b, f, h, w, 3), f = 1 + 4k usual.
            species: whose limbs to look for, one name per clip; None: of the species that is read.

        Returns:
            species, colour, place, motion, heading, camera: a name per clip. Motion is one of `MOTIONS`, "frozen" or
            "shuffled"; heading left, right, clockwise, counterclockwise or ""; camera in the grammar's words, "" for
            none. Motion, heading and camera are None for single frames.
            probabilities: {attribute: (b, classes)} in the order of CLASSES.
            limbs: per clip the names of its limbs. positions: (b, f, SLOTS, 2) as (x, y) in pixels; visible:
            (b, f, SLOTS) probability that a limb shows. Slots beyond the species' limbs are NaN and 0.

        Raises:
            MotionLabError: other shapes or types, unknown species.
        """
        frames = _checked_frames(frames)
        wanted = None if species is None else _species_indices(species, len(frames))
        device, parts, was_training = self.heads["place"].weight.device, [], self.training
        self.eval()
        for first in range(0, len(frames), batch):
            video = torch.tensor(frames[first:first + batch], device=device).float() / 127.5 - 1
            chosen = None if wanted is None else wanted[first:first + batch].to(device)
            out = self(rearrange(video, "b f h w c -> b f c h w"), chosen)
            parts.append({name: out[name].float().cpu() for name in (*CLASSES, "positions", "visible")})
        self.train(was_training)
        return _reading({name: torch.cat([p[name] for p in parts]) for name in parts[0]}, wanted, frames.shape[1])


def _pooled(x):
    """Mean and largest value over all positions, (n, c, ...) -> (n, 2c)."""
    x = x.flatten(2)
    return torch.cat([x.mean(-1), x.amax(-1)], -1)


def _reading(out, wanted, f):
    probabilities = {name: out[name].softmax(-1).numpy() for name in CLASSES}
    reading = {name: [options[i] for i in probabilities[name].argmax(-1)] for name, options in CLASSES.items()}
    if f == 1:
        reading |= {name: [None] * len(out["place"]) for name in CLASSES if name not in STILL}
    shown = reading["species"] if wanted is None else [CLASSES["species"][i] for i in wanted]
    positions, visible = out["positions"].numpy(), out["visible"].sigmoid().numpy()
    for i, name in enumerate(shown):
        positions[i, :, len(LIMBS[name]):], visible[i, :, len(LIMBS[name]):] = np.nan, 0.0
    return reading | {"probabilities": probabilities, "limbs": [LIMBS[name] for name in shown], "positions": positions, "visible": visible}


def _check_video(video):
    if video.ndim != 5 or video.shape[2] != 3 or 0 in video.shape:
        raise MotionLabError(f"The evaluator takes video (b, f, 3, h, w); got shape {tuple(video.shape)}.",
                             fix="Clip.video()[None] has this shape.")
    if video.shape[3] % 8 or video.shape[4] % 8:
        raise MotionLabError(f"Frames of {video.shape[3]}x{video.shape[4]} do not divide by 8.",
                             fix="Resize or crop; it was trained at 48x48.")


def _checked_frames(frames):
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise MotionLabError(f"`read` takes uint8 frames (b, f, h, w, 3); got {frames.dtype} {frames.shape}.",
                             fix="One clip: clip.frames[None].")
    return frames


def _species_indices(species, b):
    if isinstance(species, str) or len(species) != b:
        raise MotionLabError(f"{b} clips need {b} species names.", fix="Give a list with one name per clip.")
    return torch.tensor([CLASSES["species"].index(one_of(name, SPECIES, "species")) for name in species])


def evaluator_loss(evaluator: Evaluator, video: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropies of the attributes plus errors of limbs, per clip (b,).

    Args:
        labels: class indices (b,) per attribute, -1 where it is not asked; "positions" (b, f, SLOTS, 2) and "visible"
            (b, f, SLOTS) as `true_limbs`, of the species in `labels`.
    """
    out = evaluator(video, labels["species"])
    loss = sum(F.cross_entropy(out[name].float(), labels[name], ignore_index=-1, reduction="none") for name in CLASSES)
    shown = labels["visible"].float()
    n = shown.sum((1, 2)).clamp(min=1)
    off = F.smooth_l1_loss(out["positions"], labels["positions"], reduction="none").sum(-1)
    cold = -(_blob(labels["positions"], out["heat"]) * out["heat"].flatten(-2).log_softmax(-1)).sum(-1)
    hidden = F.binary_cross_entropy_with_logits(out["visible"], shown, reduction="none").mean((1, 2))
    return loss + ((0.3 * off + 0.2 * cold) * shown).sum((1, 2)) / n + hidden


def _blob(positions, heat):
    """Targets of the heatmaps: a Gaussian of one cell around each position, (..., h w), sum 1."""
    h, w = heat.shape[-2:]
    x, y = ((positions[..., k, None] - _centres(n, STRIDE, heat)) / STRIDE for k, n in ((0, w), (1, h)))
    return (-0.5 * (y[..., :, None].square() + x[..., None, :].square())).flatten(-2).softmax(-1)


# ---------------------------------------------------------------------------------------------- files
def save_evaluator(evaluator: Evaluator, path: str | Path, dtype=torch.bfloat16, **card) -> Path:
    """Write weights (bf16) with config, classes and `card` (data, steps) as safetensors metadata."""
    return save_model(evaluator, path, KIND, dtype, classes=_grammar(), **card)


def load_evaluator(path: str | Path, device: str = "cpu") -> Evaluator:
    """Read an evaluator written by `save_evaluator`, in float32, ready for inference.

    Raises:
        MotionLabError: no such file, truncated, the file of something else, or trained on other words or limbs.
    """
    config, meta, tensors = read_model(path, KIND, "evaluator", EvaluatorConfig)
    if meta.get("classes") != _grammar():
        raise MotionLabError(f"{path} was trained for other species, limbs or words than the world now has.",
                             fix="Make it again: `make pretrain`.")
    evaluator = Evaluator(config)
    return fill(evaluator, tensors, path).to(device).eval()


def _grammar():
    return json.dumps({**CLASSES, "limbs": LIMBS})
