"""The kit's own video generator as a `Pipe`: backbone, codec and grammar."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.precision import autocast
from motionlab.diffusion import time_grid
from motionlab.models.pipe import MODES, Inputs, Pipe
from motionlab.models.shipped import shipped
from motionlab.models.small.backbone import Backbone, draw_condition_mask, load_backbone, place_frames
from motionlab.models.small.codec import Codec, load_codec

T_MEAN, T_STD = -0.3, 1.0          # of the logit-normal times that it was trained with


class SmallPipe(Pipe):
    """A `Backbone` with its `Codec`; text is {"tokens": (b, n)}, known frames {"cond": (b, f, c, h, w), "cond_mask": (b, f)}."""

    kind, modes = "motionlab", MODES

    def __init__(self, backbone: Backbone, codec: Codec, name: str = "base", frames: int = 17, size: tuple[int, int] = (48, 48)):
        super().__init__(name, frames, size)
        self.backbone, self._codec = backbone, [codec]          # in a list: the codec is no parameter of the generator
        codec.latent_frames(frames)

    @property
    def codec(self) -> Codec:
        """The video codec, which stays as it is."""
        return self._codec[0]

    @property
    def denoiser(self):
        return self.backbone.transformer

    @property
    def shape(self):
        c = self.backbone.config
        return self.codec.latent_frames(self.frames), c.channels, c.height, c.width

    @property
    def codec_name(self):
        return self.codec.fingerprint

    @torch.no_grad()
    def encode_video(self, video):
        return torch.cat([self.codec.encode(part.to(self.device)) for part in video.split(16)])

    @torch.no_grad()
    def decode_video(self, latents):
        with self.autocast():
            return torch.cat([self.codec.decode(z.to(self.device)).float().cpu() for z in latents.split(16)])

    def text(self, prompts: Sequence[str]) -> Inputs:
        """Raises MotionLabError for a word outside the grammar (the nearest is named); "" is the null text."""
        grammar = self.backbone.grammar
        return {"tokens": torch.cat([grammar.encode([p]) if p else grammar.null(1) for p in prompts]).to(self.device)}

    def known(self, first=None, last=None) -> Inputs:
        """Pictures are encoded alone (T = 1), as a user has them."""
        frames = {k: self.encode_video(picture[:, None])[:, 0] for k, picture in ((0, first), (-1, last)) if picture is not None}
        if not frames:
            return {}
        cond, mask = place_frames(frames, self.shape[0])
        return {"cond": cond, "cond_mask": mask}

    def forward(self, x_t, t, text, known=None, extra=None):
        known = known or {}
        return self.backbone(x_t, t, text["tokens"], known.get("cond"), known.get("cond_mask"), extra)

    def grid(self, steps=None):
        return time_grid(steps or self.steps)

    def times(self, noise):
        return torch.sigmoid(T_MEAN + T_STD * noise.randn())

    def drop_text(self, text, noise, text_dropout, attribute_dropout=0.0):
        """Whole sentences, and single attributes with the words that would give them away: `Grammar.drop`."""
        grammar, rows = self.backbone.grammar, text["tokens"]
        return {"tokens": torch.cat([grammar.drop(row[None], g, text_dropout, attribute_dropout) for row, g in zip(rows, noise)])}

    def draw_known(self, batch, noise, first=0.0, first_last=0.0):
        """Known frames are the batch's `stills` where it has them: a latent of the clip itself saw the frames before it."""
        if not first + first_last:
            return None
        stills = batch.get("stills", batch["x1"])[:, :batch["x1"].shape[1]]
        mask = torch.cat([draw_condition_mask(1, stills.shape[1], g, first, first_last) for g in noise])
        return {"cond": stills, "cond_mask": mask}

    def untrained(self, seed=1):
        twin = Backbone(self.backbone.config, seed).to(self.device).eval()
        return SmallPipe(twin, self.codec, "untrained", self.frames, self.size)

    def autocast(self):
        """bfloat16 where that is fast: the weights are float32."""
        return autocast(self.device)


def open_small(weights: str | Path = "base", frames: int = 17, device: str = "cpu") -> SmallPipe:
    """The kit's own generator from a shipped checkpoint (by name) or a file.

    Raises:
        MotionLabError: no such checkpoint; one of another codec; a length that the codec does not do.
    """
    codec = load_codec(shipped("codec"))
    path = shipped(weights) if isinstance(weights, str) else weights
    return SmallPipe(load_backbone(path, codec), codec.to(device), str(weights), frames).to(device).eval()


def check_size(height: int | None, width: int | None) -> None:
    """Raises MotionLabError for a size that the kit's own generator does not do."""
    if (height or 48, width or 48) != (48, 48):
        raise MotionLabError(f"The kit's own model was asked for frames of {height}x{width}.",
                             fix="It does 48 x 48; give `backbone=` for another.")
