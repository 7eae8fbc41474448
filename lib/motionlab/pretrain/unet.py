"""Stage `unet`: the small video U-Net over frames encoded one by one, first on single frames, then on clips of nine."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from motionlab.data.sources import World
from motionlab.data.store import Data
from motionlab.methods.plain import Recipe, flow_matching_loss
from motionlab.models.small.codec import Codec
from motionlab.models.small.framewise import SmallUNetPipe, ends_known
from motionlab.models.small.unet import UNet, UNetConfig, load_unet, save_unet
from motionlab.pretrain.base import held_out_loss, keep_samples
from motionlab.training import TrainConfig, train
from motionlab.video import as_video

PICTURES = 512                     # of the training clips, that the latents are standardised on


def begin_unet(model: UNetConfig, codec: Codec, source: World, length: int, seed: int, start: Path | None = None) -> SmallUNetPipe:
    """The generator that a part trains: from the averaged weights of the part before (`start`), or from random ones, standardised on
    single frames of `source`."""
    unet = UNet(model, seed) if start is None else load_unet(start)
    if start is None:
        frames = [source.clip(i).frames[i % source.config.frames] for i in range(min(PICTURES, len(source)))]
        unet.standardise(codec, torch.cat([as_video(frame[None, None])[:, 0] for frame in frames]))
    unet.codec_fingerprint = codec.fingerprint
    return SmallUNetPipe(unet, codec, frames=length)


def train_unet(pipe: SmallUNetPipe, data: Data, recipe: Recipe, training: TrainConfig, folder: Path, watch: Watch | None = None,
               until: int | None = None) -> Path | None:
    """One part, resumable.

    Returns:
        folder/ema.safetensors (bf16), or None when it paused at `until`.
    """
    training = dataclasses.replace(training, out_dir=str(folder))
    result = train(pipe, flow_matching_loss(recipe, pipe), data, training, on_sample=watch, until=until)
    if result.status != "finished":
        return None
    pipe.load_state_dict(result.ema_state())
    return save_unet(pipe.net, folder / "ema.safetensors", torch.bfloat16, {"steps": str(result.step), "clips": str(len(data))})


@dataclass(frozen=True)
class Watch:
    """What is looked at during training, on held-out clips: the loss by text and with both ends known, and samples of either kind.

    n: clips of the samples, each with the noise seed of its place.
    """

    held_out: Data
    folder: Path
    n: int = 8

    def __call__(self, pipe: SmallUNetPipe, step: int) -> dict[str, float]:
        self.folder.mkdir(parents=True, exist_ok=True)
        clips = self.held_out.batch(torch.arange(min(self.n, len(self.held_out))))
        x1 = clips["x1"][:, :pipe.frames]
        for mode, ends in self._modes(pipe, x1).items():
            z = pipe.solve(pipe.guided(clips["text"], known=ends), pipe.noise(range(len(x1))))
            keep_samples(pipe.decode(z), self.folder / f"{mode}_{step:06d}")
        found = held_out_loss(pipe, self.held_out)
        if pipe.frames > 1:
            found |= {f"both_{name}": value for name, value in held_out_loss(pipe, self.held_out, known=_both).items()}
        return found

    def _modes(self, pipe, x1):
        return {"text": {}} | ({"both": _both(x1)} if pipe.frames > 1 else {})


def _both(x1: torch.Tensor) -> dict[str, torch.Tensor]:
    return ends_known(x1[:, [0, -1]], torch.ones(len(x1), 2, dtype=torch.bool))
