"""A diffusers snapshot in a local folder as a `Pipe`."""
from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError
from motionlab.models.pipe import Inputs, Pipe
from motionlab.models.pretrained.snapshot import GUIDANCE, Pretrained, component_fingerprint, load_pretrained

CLIP_STEPS = {"wan": 4, "cogvideox": 8}
FPS = {"wan": 16.0, "cogvideox": 8.0}


class SnapshotPipe(Pipe):
    """A text-to-video snapshot; text is {"states": (b, n, d)}."""

    steps = 50

    def __init__(self, model: Pretrained, frames: int, size: tuple[int, int]):
        super().__init__(model.folder.name, frames, size)
        self.kind, self.w, self.clip_step, self.fps = model.kind, GUIDANCE[model.kind], CLIP_STEPS[model.kind], FPS[model.kind]
        self.backbone, self.folder, self._codec = model.backbone, model.folder, [model.codec]

    @property
    def codec(self):
        """The autoencoder, which stays as it is."""
        return self._codec[0]

    @property
    def codec_name(self):
        return component_fingerprint(self.folder / "vae")

    @property
    def denoiser(self):
        return self.backbone.transformer

    @property
    def shape(self):
        c = self.backbone.config
        return c.max_frames, c.channels, c.height, c.width

    @torch.no_grad()
    def encode_video(self, video):
        return self.codec.encode(video)

    @torch.no_grad()
    def decode_video(self, latents):
        return torch.cat([self.codec.decode(z[None].to(self.device)).float().cpu() for z in latents])

    def text(self, prompts: Sequence[str]) -> Inputs:
        """Raises MotionLabError where neither the text encoder nor the cache knows a prompt."""
        grammar = self.backbone.grammar
        return {"states": grammar.states(grammar.encode(list(prompts)))}

    def forget_text(self) -> None:
        self.backbone.grammar.forget()

    def known(self, first=None, last=None) -> Inputs:
        if first is not None or last is not None:
            raise MotionLabError(f"'{self.name}' is a text-to-video model, which takes no known frames.", fix="Use mode='text'.")
        return {}

    def forward(self, x_t, t, text, known=None, extra=None):
        return self.backbone(x_t, t, text["states"], extra=extra)

    def grid(self, steps=None):
        return self.backbone.grid(steps or self.steps)

    def times(self, noise):
        return self.backbone.times(noise)

    def untrained(self, seed=1):
        old = self.denoiser
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            new = type(old).from_config(old.config)
        twin, twin_backbone = copy.copy(self), copy.copy(self.backbone)
        twin_backbone._modules = dict(self.backbone._modules) | {"transformer": new.to(next(old.parameters())).eval()}
        twin._modules, twin.name = {"backbone": twin_backbone}, "untrained"
        return twin


def open_snapshot(folder: str, frames: int | None = None, height: int | None = None, width: int | None = None, device: str = "cpu",
                  cache: str | Path | None = None, dtype: torch.dtype | None = None) -> SnapshotPipe:
    """A snapshot at a clip size, by default the one that it was made for.

    Raises:
        MotionLabError: as `load_pretrained`; a snapshot without autoencoder.
    """
    model = load_pretrained(folder, device, dtype or (torch.bfloat16 if device != "cpu" else torch.float32), cache)
    if model.codec is None:
        raise MotionLabError(f"'{folder}' has no vae, so it can look at no clip.", fix="Fetch the snapshot's folder vae/ too.")
    size = tuple(given or own for given, own in zip((frames, height, width), model.size()))
    if size != model.size():
        model = Pretrained(model.folder, model.kind, model.backbone, model.codec, size)
    return SnapshotPipe(model, size[0], size[1:])
