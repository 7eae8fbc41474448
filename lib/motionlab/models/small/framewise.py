"""The kit's own U-Net as a `Pipe`: frames encoded one by one, text, first frame, or first and last frame."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.precision import autocast
from motionlab.diffusion import time_grid
from motionlab.models.pipe import MODES, Inputs, Pipe
from motionlab.models.shipped import shipped
from motionlab.models.small.codec import Codec, load_codec
from motionlab.models.small.unet import UNet, load_unet

T_MEAN, T_STD = -0.3, 1.0          # of the logit-normal times that it was trained with, as the base's
FRAMES, FPS = 9, 8.0               # every other frame of the world's clips of 17 at 16 frames per second


class SmallUNetPipe(Pipe):
    """A `UNet` with its `Codec`, whose T = 1 latents it reads and writes.

    text is {"tokens": (b, n)} or {"states": (b, n, d) or (b, f, n, d)}; known frames are {"cond": (b, 2, c, h, w), "cond_mask": (b, 2)}.
    """

    kind, modes, fps, clip_step, group = "motionlab_unet", MODES, FPS, 1, 1
    heading_dropout = 0.3              # of training's texts: the heading, which known ends show, is left out

    def __init__(self, unet: UNet, codec: Codec, name: str = "unet", frames: int = FRAMES, size: tuple[int, int] = (48, 48)):
        super().__init__(name, frames, size)
        self.net, self._codec = unet, [codec]                  # in a list: the codec is no parameter of the generator
        if not 1 <= frames <= unet.config.max_frames:
            raise MotionLabError(f"Clips of {frames} frames were asked for; this U-Net does 1 to {unet.config.max_frames}.",
                                 fix="Ask for fewer.")

    @property
    def codec(self) -> Codec:
        """The video codec, which stays as it is."""
        return self._codec[0]

    @property
    def denoiser(self):
        return self.net.unet

    @property
    def shape(self):
        c = self.net.config
        return self.frames, c.channels, c.height, c.width

    @property
    def cell(self):
        return self.size[0] // self.shape[2]

    @property
    def frames_per_token(self):
        return 1

    @property
    def tokens(self):
        f, _, h, w = self.shape
        return f * h * w

    @property
    def codec_name(self):
        """The codec's, and the statistics of its pictures: a clip's latents are others."""
        statistics = repr(torch.cat([self.net.mean, self.net.std]).tolist()).encode()
        return f"{self.codec.fingerprint}_{hashlib.sha256(statistics).hexdigest()[:8]}"

    @torch.no_grad()
    def encode_video(self, video):
        """Each frame alone, standardised as pictures are: (b, f, c, h', w') of video (b, f, 3, h, w)."""
        z = torch.cat([self.codec.encode(part[:, None].to(self.device))[:, 0] for part in video.flatten(0, 1).split(64)])
        return ((z - _planes(self.net.mean)) / _planes(self.net.std)).unflatten(0, video.shape[:2])

    @torch.no_grad()
    def decode_video(self, latents):
        z = latents.flatten(0, 1).to(self.device) * _planes(self.net.std) + _planes(self.net.mean)
        with self.autocast():
            frames = torch.cat([self.codec.decode(part[:, None]).float()[:, 0].cpu() for part in z.split(64)])
        return frames.unflatten(0, latents.shape[:2])

    def text(self, prompts: Sequence[str]) -> Inputs:
        """Raises MotionLabError for a word outside the grammar (the nearest is named); "" is the null text."""
        grammar = self.net.grammar
        return {"tokens": torch.cat([grammar.encode([p]) if p else grammar.null(1) for p in prompts]).to(self.device)}

    def states(self, text: Inputs) -> torch.Tensor:
        """What cross-attention reads of texts, (b, n, d), or (b, f, n, d) where each frame has its own."""
        return text["states"] if "states" in text else self.net.text(text["tokens"])

    def known(self, first=None, last=None) -> Inputs:
        given = {k: self.encode_video(picture[:, None])[:, 0] for k, picture in enumerate((first, last)) if picture is not None}
        if not given:
            return {}
        some = next(iter(given.values()))
        ends = torch.stack([given.get(k, torch.zeros_like(some)) for k in range(2)], 1)
        return ends_known(ends, torch.tensor([[k in given for k in range(2)]] * len(some), device=some.device))

    def forward(self, x_t, t, text, known=None, extra=None):
        if extra is not None:
            raise MotionLabError("This U-Net has no further channels.", fix="Use the kit's DiT for a method that widens.")
        known = known or {}
        return self.net(x_t, t, self.states(text), known.get("cond"), known.get("cond_mask"))

    def grid(self, steps=None):
        return time_grid(steps or self.steps)

    def times(self, noise):
        return torch.sigmoid(T_MEAN + T_STD * noise.randn())

    def drop_text(self, text, noise, text_dropout, attribute_dropout=0.0):
        """Whole sentences, single attributes (`Grammar.drop`), and the heading on `heading_dropout` of the clips."""
        grammar, rows = self.net.grammar, text["tokens"]
        kept = [grammar.drop(row[None], g, text_dropout, attribute_dropout) for row, g in zip(rows, noise)]
        if self.heading_dropout:
            kept = [grammar.without_heading(row) if float(torch.rand(1, generator=g)) < self.heading_dropout else row
                    for row, g in zip(kept, noise)]
        return {"tokens": torch.cat(kept)}

    def draw_known(self, batch, noise, first=0.0, first_last=0.0):
        """A clip's own first and last latents: they saw no other frame."""
        x1 = batch["x1"]
        if not first + first_last or x1.shape[1] == 1:
            return None
        u = noise.rand()
        return ends_known(x1[:, [0, -1]], torch.stack([u < first + first_last, u < first_last], 1))

    def untrained(self, seed=1):
        twin = UNet(self.net.config, seed)
        twin.mean.copy_(self.net.mean), twin.std.copy_(self.net.std)
        return SmallUNetPipe(twin.to(self.device).eval(), self.codec, "untrained", self.frames, self.size)

    def autocast(self):
        """bfloat16 where that is fast: the weights are float32."""
        return autocast(self.device)


def ends_known(ends: torch.Tensor, mask: torch.Tensor) -> Inputs:
    """The known frames of latents (b, 2, c, h, w) of the first and the last one, where mask (b, 2) is on."""
    return {"cond": ends, "cond_mask": mask.to(ends.device)}


def open_small_unet(weights: str | Path = "unet", frames: int = FRAMES, device: str = "cpu") -> SmallUNetPipe:
    """The kit's own U-Net from a shipped checkpoint (by name) or a file.

    Raises:
        MotionLabError: no such checkpoint; one of another codec; a length that it does not do.
    """
    codec = load_codec(shipped("codec"))
    path = shipped(weights) if isinstance(weights, str) else weights
    return SmallUNetPipe(load_unet(path, codec), codec.to(device), str(weights), frames).to(device).eval()


def _planes(values: torch.Tensor) -> torch.Tensor:
    """(c,) as (1, c, 1, 1)."""
    return values.view(1, -1, 1, 1)
