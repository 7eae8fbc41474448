"""Permuted-frame losses of trained arms: what does a loss say of clips whose frames, or latents, are out of order?"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from motionlab.analyses import shuffle
from motionlab.analyses.inputs import world_clips
from motionlab.core.protocol import judged_seeds
from motionlab.data.sidecars import encoded
from motionlab.diffusion import interpolate
from motionlab.experiments.arms import Arm
from motionlab.experiments.finetune import trained
from motionlab.methods.base import Method
from motionlab.models.pipe import Pipe

Version = dict[str, torch.Tensor]          # key -> (b, ...): x1 and the method's sidecars of clips in one order


@dataclass(frozen=True)
class Reordered:
    """Clips with their frames in other orders, as a source that sidecars are drawn of."""

    clips: list
    orders: list[torch.Tensor]
    exact = True

    def clip(self, i: int):
        """Clip i: its frames and the exact flow between them, in their new order."""
        return _Clip(self.clips[i], self.orders[i].tolist())

    def __len__(self) -> int:
        return len(self.clips)


class _Clip:
    def __init__(self, clip, order):
        self.frames, self.flow = clip.frames[order], clip.flow_between(order)


def shuffle_gap(arm: Arm, seed: int, home: Path, batch: int = 16, tier: str = "full") -> list[dict]:
    """Rows {item, arm, seed, reading, step, t, upto_60, loss_<version>, ...} of an arm's generator on shuffled clips.

    Clips are those of split `test`, at tier smoke of `examples`.

    Columns: for each version (original, shuffled, latents) what `Method.losses` gives, at the same noise and time: loss_<version>,
    and whatever else the method's loss has (of a second stream for example motion_<version>).
    """
    seeds, pipe, out = judged_seeds(tier, arm.measure.n or 512), trained(arm, seed, home), []
    pipe.frames = 4 * arm.measure.length - 3
    for first in range(0, len(seeds), batch):
        clips = world_clips(seeds[first:first + batch], pipe)
        versions = changed(clips, pipe, arm.method, torch.Generator().manual_seed(seeds[first]))
        generator = torch.Generator().manual_seed(seeds[first] + seed)
        rows = _rows(clips, pipe, arm.method, versions, generator)
        out += [{"item": row.pop("item"), "arm": arm.name, "seed": seed} | row for row in rows]
    return out


def changed(clips: dict, pipe: Pipe, method: Method, generator: torch.Generator) -> dict[str, Version]:
    """{version: x1 and sidecars} of clips {item: Clip}: original, frames shuffled, latents shuffled with the first kept.

    Each clip has its own order, the same for its video and its sidecars.
    """
    listed, f = list(clips.values()), pipe.frames
    orders = {"original": [torch.arange(f)] * len(listed), "shuffled": [shuffle.frame_order("shuffled", f, generator) for _ in listed]}
    out = {name: encoded(Reordered(listed, of), method.wants(), pipe) for name, of in orders.items()}
    latent = [shuffle.latent_order("latents_shuffled", out["original"]["x1"].shape[1], generator) for _ in listed]
    return out | {"latents": {key: torch.stack([z[o] for z, o in zip(value, latent)]) for key, value in out["original"].items()}}


def _rows(clips, pipe, method, versions, generator):
    text, shape = pipe.text([c.caption for c in clips.values()]), versions["original"]["x1"].shape
    for reading in shuffle.READINGS:
        step = 100 * torch.rand(len(clips), generator=generator)
        t = shuffle.time_of_step(step, reading)
        noise = {key: torch.randn(shape, generator=generator) for key in versions["original"]}
        found = {}
        for name, version in versions.items():
            x_t = interpolate(noise["x1"], version["x1"], t)
            found |= {f"{kind}_{name}": values for kind, values in method.losses(pipe, x_t, t, text, version, noise).items()}
        for i, item in enumerate(clips):
            where = {"reading": reading, "step": float(step[i]), "t": float(t[i]), "upto_60": int(step[i] <= 60)}
            yield {"item": item} | where | {name: float(values[i]) for name, values in found.items()}
