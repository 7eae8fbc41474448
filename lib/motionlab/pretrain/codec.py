"""Stage `codec`: the video codec, on clips and on flow pictures."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from motionlab.models.small.codec import Codec, CodecConfig, codec_loss, save_codec
from motionlab.data.bank import Bank, BankConfig, open_bank
from motionlab.video import as_video
from motionlab.training import TrainConfig, train


@dataclass(frozen=True)
class CodecRecipe:
    """flow_share: of the samples that are flow pictures. subject_weight: of pixels on or beside a subject.
    noise: largest deviation of the latent noise that the decoder must bear, in the latents' own."""

    flow_share: float = 0.25
    subject_weight: float = 4.0
    noise: float = 0.12


class CodecData:
    """Clips and, for every `1 / flow_share`-th item, flow pictures of a bank."""

    def __init__(self, bank: Bank, recipe: CodecRecipe):
        self.bank, self.recipe = bank, recipe
        self.flows = int(round(len(bank) * recipe.flow_share / (1 - recipe.flow_share)))

    def __len__(self) -> int:
        return len(self.bank) + self.flows

    def batch(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """video (b, f, 3, h, w) and weight (b, f, 1, h, w)."""
        n = len(self.bank)
        frames = np.stack([self.bank.frames[i] if i < n else self.bank.flow_pictures[i - n] for i in indices.tolist()])
        subject = np.stack([self.bank.subject[i % n] for i in indices.tolist()])
        return {"video": as_video(frames), "weight": _near(torch.from_numpy(subject), self.recipe.subject_weight)}


def _near(subject, weight):
    """`weight` on subjects and one pixel around them, 1 elsewhere; (b, f, 1, h, w), mean 1."""
    wide = torch.nn.functional.max_pool2d(subject.float(), 3, 1, 1)[:, :, None]
    out = 1 + (weight - 1) * wide
    return out / out.mean()


def codec_training_loss(noise_size: float, channels: int, stride: int, group: int):
    """`loss_fn` of `training.train` for a codec of these sizes."""

    def loss_fn(codec, batch, noise):
        _, f, _, h, w = batch["video"].shape
        scale = noise_size * noise.rand()
        draw = noise.randn(1 + (f - 1) // group, channels, h // stride, w // stride)
        per_sample = codec_loss(codec, batch["video"], batch["weight"], scale, draw)
        return per_sample.mean(), {"t": scale / max(noise_size, 1e-9) * 0.999, "per_sample": per_sample}

    return loss_fn


def train_codec(bank: BankConfig, model: CodecConfig, recipe: CodecRecipe, training: TrainConfig, work: Path, out: Path,
                until: int | None = None) -> Path | None:
    """Train (or go on training) the codec; writes `out` (bf16 EMA weights, standardised) when it is finished.

    `training.out_dir` is set to `work`/codec; the bank lies below `work`. The log's t is the relative size of the noise.
    """
    clips = open_bank(bank, work)
    torch.manual_seed(training.seed)
    codec = Codec(model)
    training = dataclasses.replace(training, out_dir=str(work / "codec"))
    result = train(codec, codec_training_loss(recipe.noise, model.channels, model.stride, model.group), CodecData(clips, recipe), training,
                   until=until)
    if result.status != "finished":
        return None
    codec.load_state_dict(result.ema_state())
    pick = np.linspace(0, len(clips) - 1, 256).astype(int)
    codec.eval().standardise(as_video(clips.frames[np.unique(pick)]))
    data = f"{len(clips)} clips of split {bank.split}, {recipe.flow_share:.0%} flow pictures"
    return save_codec(codec, out, steps=result.step, data=data)
