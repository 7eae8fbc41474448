"""Stage `base`: the small video DiT, first on single frames, then on ever longer clips; and the gates before it."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch

from motionlab.core.files import replacing
from motionlab.data.store import Data
from motionlab.diffusion import interpolate, velocity
from motionlab.methods.plain import Recipe, flow_matching_loss
from motionlab.models.pipe import Pipe
from motionlab.models.small.backbone import Backbone, BackboneConfig, load_backbone, save_backbone
from motionlab.models.small.codec import Codec
from motionlab.models.small.pipe import SmallPipe
from motionlab.training import TrainConfig, train
from motionlab.video import contact_sheet, write_mp4


def begin(model: BackboneConfig, codec: Codec, length: int, seed: int, start: Path | None = None) -> SmallPipe:
    """The generator that a stage trains: from the averaged weights of the stage before (`start`), or from random ones."""
    backbone = Backbone(model, seed=seed) if start is None else load_backbone(start)
    backbone.codec_fingerprint = codec.fingerprint
    return SmallPipe(backbone, codec, frames=4 * length - 3)


def train_base(pipe: SmallPipe, data: Data, recipe: Recipe, training: TrainConfig, folder: Path, watch: Watch | None = None,
               until: int | None = None) -> Path | None:
    """One stage, resumable.

    Returns:
        folder/ema.safetensors (averaged, bf16), or None when it paused at `until`. Beside it and exact: average.safetensors, and
        raw.safetensors of the last step, for who asks what a branch should start from.
    """
    training = dataclasses.replace(training, out_dir=str(folder))
    result = train(pipe, flow_matching_loss(recipe, pipe), data, training, on_sample=watch, until=until)
    if result.status != "finished":
        return None
    save_backbone(pipe.backbone, folder / "raw.safetensors")
    pipe.load_state_dict(result.ema_state())
    save_backbone(pipe.backbone, folder / "average.safetensors")
    return save_backbone(pipe.backbone, folder / "ema.safetensors", torch.bfloat16, {"steps": str(result.step), "clips": str(len(data))})


@dataclass(frozen=True)
class Watch:
    """What is looked at during training: a sheet of samples and the loss on held-out clips; keeps the weights of that step.

    prompts: of the sheet, each with the noise seed of its place in the list.
    """

    prompts: tuple[str, ...]
    held_out: Data
    folder: Path

    def __call__(self, pipe: SmallPipe, step: int) -> dict[str, float]:
        self.folder.mkdir(parents=True, exist_ok=True)
        save_backbone(pipe.backbone, self.folder / f"ema_{step:06d}.safetensors", torch.bfloat16, {"steps": str(step)})
        keep_samples(pipe.decode(pipe.sample(self.prompts, range(len(self.prompts)))), self.folder / f"samples_{step:06d}")
        return held_out_loss(pipe, self.held_out)


def keep_samples(frames: np.ndarray, stem: Path, per_row: int = 8) -> None:
    """Clips uint8 (n, f, h, w, 3) as stem.png (every other frame, side by side) and, if they move, stem.mp4 (a wall)."""
    with replacing(stem.with_suffix(".png")) as draft:
        iio.imwrite(draft, contact_sheet(frames, columns=2 if frames.shape[1] > 1 else 4))
    if frames.shape[1] > 1 and len(frames) % per_row == 0:
        wall = np.concatenate([np.concatenate(list(row), axis=2) for row in np.split(frames, len(frames) // per_row)], axis=1)
        write_mp4(stem.with_suffix(".mp4"), wall, fps=16)


@torch.no_grad()
def held_out_loss(pipe: Pipe, data: Data, n: int = 32, batch: int = 16, known: Callable | None = None) -> dict[str, float]:
    """Loss on clips that training never saw, at fixed noise and t = 0.05, 0.15, ... 0.95: {"held_out/0.05": ..., "held_out/mean": ...}.

    known: x1 (b, f, c, h, w) -> the known frames that the generator is given; None: none.
    """
    times, total, n = [round(0.05 + 0.1 * k, 2) for k in range(10)], torch.zeros(10, dtype=torch.float64), min(n, len(data))
    for part in torch.arange(n).split(batch):
        clips = data.batch(part)
        x1 = clips["x1"][:, :pipe.shape[0]].to(pipe.device)
        x0 = torch.randn(x1.shape, generator=torch.Generator().manual_seed(int(part[0]))).to(pipe.device)
        for k, t in enumerate(times):
            ends = {} if known is None else {"known": known(x1)}
            u = pipe.velocity(interpolate(x0, x1, t), torch.full((len(x1),), t, device=pipe.device), clips["text"], **ends)
            total[k] += (u - velocity(x0, x1)).square().mean(dim=(1, 2, 3, 4)).sum().item()
    means = (total / n).tolist()
    return {f"held_out/{t:.2f}": mean for t, mean in zip(times, means)} | {"held_out/mean": sum(means) / 10}
