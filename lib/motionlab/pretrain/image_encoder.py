"""Stage `image_encoder`: a masked autoencoder on single frames (He et al., arXiv 2111.06377).

Three quarters of the patches are hidden; a light decoder paints them from what the encoder made of the rest. The
target is the plain pixels, not pixels normalised per patch as in the paper: most patches of this world are flat, and
their colour is what should be learned.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from motionlab.models.image_encoder import (ImageEncoder, ImageEncoderConfig, ViTBlock, patchify, positions,
                                            save_image_encoder)
from motionlab.data.bank import Bank, BankConfig, open_bank
from motionlab.video import as_video
from motionlab.training import TrainConfig, train


@dataclass(frozen=True)
class ImageEncoderRecipe:
    """masked: share of the patches that are hidden. decoder_d, decoder_layers, decoder_heads: sizes of the decoder.
    subject_weight: of hidden patches in proportion to the subject in them, against 1 for background."""

    masked: float = 0.75
    decoder_d: int = 64
    decoder_layers: int = 2
    decoder_heads: int = 4
    subject_weight: float = 4.0


class FrameData:
    """Single frames of a bank; item i is frame i % f of clip i // f."""

    def __init__(self, bank: Bank):
        self.bank, self.length = bank, bank.frames.shape[1]

    def __len__(self) -> int:
        return len(self.bank) * self.length

    def batch(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """frames (b, 3, h, w) in [-1, 1] and subject (b, 1, h, w) 0/1."""
        where = [(i // self.length, i % self.length) for i in indices.tolist()]
        frames, subject = (np.stack([array[i, t] for i, t in where]) for array in (self.bank.frames, self.bank.subject))
        return {"frames": as_video(frames), "subject": torch.from_numpy(subject)[:, None].float()}


class MaskedAutoencoder(nn.Module):
    """The encoder with the decoder that only training needs."""

    def __init__(self, config: ImageEncoderConfig, recipe: ImageEncoderRecipe):
        super().__init__()
        d = recipe.decoder_d
        self.encoder = ImageEncoder(config)
        self.narrow, self.hidden = nn.Linear(config.d, d), nn.Parameter(0.02 * torch.randn(d))
        blocks = (ViTBlock(d, recipe.decoder_heads) for _ in range(recipe.decoder_layers))
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(d))
        self.paint = nn.Linear(d, 3 * config.patch ** 2)

    def forward(self, frames: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Painted patches (b, n, 3 patch^2) from the tokens `keep` (b, m)."""
        seen = self.narrow(self.encoder(frames, keep))
        p = self.encoder.config.patch
        h, w = frames.shape[2] // p, frames.shape[3] // p
        x = self.hidden.to(seen.dtype).expand(len(frames), h * w, -1)
        x = x.scatter(1, keep[..., None].expand_as(seen), seen)
        return self.paint(self.decoder(x + positions(h, w, x.shape[-1]).to(x)))


def masked_loss(recipe: ImageEncoderRecipe, patch: int):
    """`loss_fn` of `training.train`: squared error of the hidden patches; the log's t is the subject's hidden share."""

    def loss_fn(model, batch, noise):
        target = patchify(batch["frames"], patch)
        n = target.shape[1]
        order = noise.rand(n).argsort(1)
        kept = max(1, round(n * (1 - recipe.masked)))
        error = (model(batch["frames"], order[:, :kept]).float() - target).square().mean(-1)
        subject = nn.functional.avg_pool2d(batch["subject"], patch).flatten(1)
        hidden = torch.ones_like(error).scatter(1, order[:, :kept], 0.0)
        weight = hidden * (1 + (recipe.subject_weight - 1) * subject)
        per_sample = (weight * error).sum(1) / weight.sum(1)
        share = (hidden * subject).sum(1) / subject.sum(1).clamp(min=1e-6)
        return per_sample.mean(), {"t": share.clamp(max=0.999), "per_sample": per_sample}

    return loss_fn


def train_image_encoder(bank: BankConfig, model: ImageEncoderConfig, recipe: ImageEncoderRecipe, training: TrainConfig,
                        work: Path, out: Path, until: int | None = None) -> Path | None:
    """Train (or go on training) the image encoder; writes `out` (bf16 EMA weights, no decoder) when it is finished.

    `training.out_dir` is set to `work`/<name of out>; the bank lies below `work`.
    """
    clips = open_bank(bank, work)
    torch.manual_seed(training.seed)
    autoencoder = MaskedAutoencoder(model, recipe)
    training = dataclasses.replace(training, out_dir=str(Path(work) / Path(out).stem))
    result = train(autoencoder, masked_loss(recipe, model.patch), FrameData(clips), training, until=until)
    if result.status != "finished":
        return None
    autoencoder.load_state_dict(result.ema_state())
    said = f"frames of {len(clips)} clips of split {bank.split}"
    return save_image_encoder(autoencoder.encoder.eval(), out, steps=result.step, data=said)
