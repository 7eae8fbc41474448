"""Stage `base`: the small video DiT, first on single frames, then on ever longer clips; and the gates before it."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch

from motionlab.diffusion import interpolate, velocity
from motionlab.models.small.backbone import Backbone, BackboneConfig, draw_condition_mask, load_backbone, save_backbone
from motionlab.models.small.codec import Codec
from motionlab.models.small.generate import generate
from motionlab.models.small.text import Grammar
from motionlab.core.precision import autocast
from motionlab.data.latents import FreshLatents, Latents
from motionlab.training import TrainConfig, train
from motionlab.video import as_frames, contact_sheet, write_mp4


@dataclass(frozen=True)
class BaseRecipe:
    """What the flow-matching loss draws.

    length: latent frames of this stage's clips. shorter: share of the batches that are cut to a shorter length, so that
    one checkpoint keeps serving all of them. t_mean, t_std: of the logit-normal times. text_dropout, attribute_dropout,
    first, first_last: probabilities per clip.
    """

    length: int = 5
    shorter: float = 0.0
    t_mean: float = -0.3
    t_std: float = 1.0
    text_dropout: float = 0.15
    attribute_dropout: float = 0.05
    first: float = 0.2
    first_last: float = 0.1


def flow_matching_loss(recipe: BaseRecipe, grammar: Grammar):
    """`loss_fn` of `training.train`: mean over the clip of |u - v|^2, v = x1 - x0 (rectified flow).

    Known frames are given as `stills` where batches have them: pictures encoded alone, as a user has them. A latent frame of
    the clip itself saw the frames before it, and so would give part of the answer.
    """

    def loss_fn(model, batch, noise):
        length = _length(recipe, noise)
        x1, known = batch["x1"][:, :length], batch.get("stills", batch["x1"])[:, :length]
        t = torch.sigmoid(recipe.t_mean + recipe.t_std * noise.randn())
        x0 = noise.randn(*x1.shape[1:])
        tokens = torch.cat([grammar.drop(row[None], g, recipe.text_dropout, recipe.attribute_dropout)
                            for row, g in zip(batch["tokens"], noise)])
        mask = torch.cat([draw_condition_mask(1, x1.shape[1], g, recipe.first, recipe.first_last) for g in noise])
        u = model(interpolate(x0, x1, t), t, tokens, known, mask)
        per_sample = (u.float() - velocity(x0, x1)).square().mean(dim=(1, 2, 3, 4))
        return per_sample.mean(), {"t": t, "per_sample": per_sample}

    return loss_fn


def _length(recipe, noise):
    """The batch's length: one length per batch, since clips of different lengths do not stack."""
    if recipe.shorter and float(torch.rand(1, generator=noise[0])) < recipe.shorter:
        return int(torch.randint(1, recipe.length, (1,), generator=noise[0]))
    return recipe.length


def train_base(model: BackboneConfig, data: Latents | FreshLatents, recipe: BaseRecipe, training: TrainConfig, folder: Path,
               start: Path | None = None, watch: Watch | None = None, until: int | None = None) -> Path | None:
    """One stage, resumable: from the averaged weights of the stage before (`start`), or from random ones.

    Returns:
        folder/ema.safetensors (bf16), or None when it paused at `until`.
    """
    backbone = Backbone(model, seed=training.seed) if start is None else load_backbone(start)
    backbone.codec_fingerprint, training = data.codec, dataclasses.replace(training, out_dir=str(folder))
    result = train(backbone, flow_matching_loss(recipe, backbone.grammar), data, training, on_sample=watch, until=until)
    if result.status != "finished":
        return None
    backbone.load_state_dict(result.ema_state())
    return save_backbone(backbone, folder / "ema.safetensors", torch.bfloat16, {"steps": str(result.step), "clips": str(len(data))})


@dataclass(frozen=True)
class Watch:
    """What is looked at during training: a sheet of samples and the loss on held-out clips; keeps the weights of that step.

    prompts: of the sheet, each with the noise seed of its place in the list. length: latent frames.
    """

    codec: Codec
    prompts: tuple[str, ...]
    held_out: Latents
    length: int
    folder: Path

    def __call__(self, backbone: Backbone, step: int) -> dict[str, float]:
        self.folder.mkdir(parents=True, exist_ok=True)
        save_backbone(backbone, self.folder / f"ema_{step:06d}.safetensors", torch.bfloat16, {"steps": str(step)})
        clips = generate(backbone, self.codec, self.prompts, range(len(self.prompts)), length=self.length)
        keep_samples(as_frames(clips), self.folder / f"samples_{step:06d}")
        return held_out_loss(backbone, self.held_out, self.length)


def keep_samples(frames: np.ndarray, stem: Path, per_row: int = 8) -> None:
    """Clips uint8 (n, f, h, w, 3) as stem.png (every other frame, side by side) and, if they move, stem.mp4 (a wall)."""
    iio.imwrite(stem.with_suffix(".png"), contact_sheet(frames, columns=2 if frames.shape[1] > 1 else 4))
    if frames.shape[1] > 1 and len(frames) % per_row == 0:
        wall = np.concatenate([np.concatenate(list(row), axis=2) for row in np.split(frames, len(frames) // per_row)], axis=1)
        write_mp4(stem.with_suffix(".mp4"), wall, fps=16)


@torch.no_grad()
def held_out_loss(backbone: Backbone, data: Latents, length: int, n: int = 32, batch: int = 16) -> dict[str, float]:
    """Loss on clips that training never saw, at fixed noise and t = 0.05, 0.15, ... 0.95: {"held_out/0.05": ..., "held_out/mean": ...}."""
    device = next(backbone.parameters()).device
    times, total, n = [round(0.05 + 0.1 * k, 2) for k in range(10)], torch.zeros(10, dtype=torch.float64), min(n, len(data))
    for part in torch.arange(n).split(batch):
        clips = data.batch(part)
        x1, tokens = clips["x1"][:, :length].to(device), clips["tokens"].to(device)
        x0 = torch.randn(x1.shape, generator=torch.Generator().manual_seed(int(part[0]))).to(device)
        for k, t in enumerate(times):
            with autocast(device):
                u = backbone(interpolate(x0, x1, t), torch.full((len(x1),), t, device=device), tokens)
            total[k] += (u.float() - velocity(x0, x1)).square().mean(dim=(1, 2, 3, 4)).sum().item()
    means = (total / n).tolist()
    return {f"held_out/{t:.2f}": mean for t, mean in zip(times, means)} | {"held_out/mean": sum(means) / 10}


__all__ = ["BackboneConfig", "BaseRecipe", "Watch", "flow_matching_loss", "held_out_loss", "train_base"]
