"""Stage `base`: the small video DiT, first on single frames, then on ever longer clips."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from motionlab.diffusion import interpolate, velocity
from motionlab.models.backbone import Backbone, BackboneConfig, draw_condition_mask
from motionlab.models.text import Grammar
from motionlab.pretrain.latents import Latents
from motionlab.training import TrainConfig, TrainResult, train


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
    """`loss_fn` of `training.train`: mean over the clip of |u - v|^2, v = x1 - x0 (rectified flow)."""

    def loss_fn(model, batch, noise):
        x1 = batch["x1"][:, :_length(recipe, noise)]
        t = torch.sigmoid(recipe.t_mean + recipe.t_std * noise.randn())
        x0 = noise.randn(*x1.shape[1:])
        tokens = torch.cat([grammar.drop(row[None], g, recipe.text_dropout, recipe.attribute_dropout)
                            for row, g in zip(batch["tokens"], noise)])
        mask = torch.cat([draw_condition_mask(1, x1.shape[1], g, recipe.first, recipe.first_last) for g in noise])
        u = model(interpolate(x0, x1, t), t, tokens, x1, mask)
        per_sample = (u.float() - velocity(x0, x1)).square().mean(dim=(1, 2, 3, 4))
        return per_sample.mean(), {"t": t, "per_sample": per_sample}

    return loss_fn


def _length(recipe, noise):
    """The batch's length: one length per batch, since clips of different lengths do not stack."""
    if recipe.shorter and float(torch.rand(1, generator=noise[0])) < recipe.shorter:
        return int(torch.randint(1, recipe.length, (1,), generator=noise[0]))
    return recipe.length


def train_base(backbone: Backbone, data: Latents, recipe: BaseRecipe, training: TrainConfig, out_dir: Path, on_sample=None,
               until: int | None = None) -> TrainResult:
    """One stage, in place and resumable; `training.out_dir` is set to `out_dir`."""
    training = dataclasses.replace(training, out_dir=str(out_dir))
    return train(backbone, flow_matching_loss(recipe, backbone.grammar), data, training, on_sample=on_sample, until=until)


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
            with torch.autocast(device.type, torch.bfloat16):
                u = backbone(interpolate(x0, x1, t), torch.full((len(x1),), t, device=device), tokens)
            total[k] += (u.float() - velocity(x0, x1)).square().mean(dim=(1, 2, 3, 4)).sum().item()
    means = (total / n).tolist()
    return {f"held_out/{t:.2f}": mean for t, mean in zip(times, means)} | {"held_out/mean": sum(means) / 10}


__all__ = ["BackboneConfig", "BaseRecipe", "flow_matching_loss", "held_out_loss", "train_base"]
