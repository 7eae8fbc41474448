"""What an analysis looks at: a video DiT, the kit's own or a pretrained one, and clips at the size that it was made for.

    model = open_model()                                   # the shipped base, 17 frames of 48 x 48
    model = open_model("weights/Wan2.1-T2V-1.3B-Diffusers", frames=17, height=240, width=416)
    clips = world_clips(range(8), model)                   # the world's clips at that size, with their exact truth
    clips["mine"] = your_clip("my.mp4", model, caption="a dog runs")
"""
from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from motionlab.diffusion import time_grid
from motionlab.core.errors import MotionLabError
from motionlab.models.small.backbone import Backbone, guided, load_backbone
from motionlab.models.small.codec import load_codec
from motionlab.core.noise import prompt_noise
from motionlab.models.shipped import shipped
from motionlab.core.precision import autocast
from motionlab.video import as_frames, as_video, read_video
from motionlab.world import Clip, random_scene, render

GROUP = 4                                 # frames per latent after the first: the same in every supported codec
W = {"motionlab": 2.0, "wan": 4.0, "cogvideox": 5.0}          # usual text guidance


@dataclass(frozen=True)
class CaptionedClip:
    """A clip without truth: frames uint8 (f, h, w, 3) and what it shows in words."""

    frames: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class Model:
    """A video DiT with its autoencoder.

    Attributes:
        name: "base", or the snapshot's folder. kind: "motionlab", "wan" or "cogvideox".
        backbone: called as (x_t, t, tokens) -> u; has `.grammar`, `.transformer`, `.config`.
        codec: `encode` and `decode`. frames, size: of the clips to work on, (h, w) in pixels.
    """

    name: str
    kind: str
    backbone: nn.Module
    codec: nn.Module
    frames: int
    size: tuple[int, int]

    @property
    def cell(self) -> int:
        """Pixels per token."""
        patch = self.backbone.transformer.config.patch_size
        return self.size[0] // self.backbone.config.height * (patch if isinstance(patch, int) else patch[-1])

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return next(self.backbone.parameters()).device

    def encode(self, clips: Sequence) -> torch.Tensor:
        """Latents (b, f', c, h', w') of clips that have `.frames`."""
        return self.encode_video(torch.stack([as_video(clip.frames) for clip in clips]))

    @torch.no_grad()
    def encode_video(self, video: torch.Tensor) -> torch.Tensor:
        """Latents of video (b, f, 3, h, w) in [-1, 1]; one by one, so that memory does not grow with b."""
        return torch.cat([self.codec.encode(one[None].to(self.device)) for one in video])

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Clips uint8 (b, f, h, w, 3) of latents."""
        return as_frames(torch.cat([self.codec.decode(z[None].to(self.device)).float().clamp(-1, 1).cpu() for z in latents]))

    def noise(self, seeds: Sequence[int], latents: torch.Tensor) -> torch.Tensor:
        """Starting noise like `latents`, a row per seed."""
        return prompt_noise(seeds, latents.shape[1:]).to(latents.device)

    @torch.no_grad()
    def velocity(self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """u (b, f', c, h', w') float32, computed in bfloat16."""
        with self.autocast():
            return self.backbone(x, t, tokens).float()

    def bound(self, captions: Sequence[str]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The unguided model (x, t) -> u of these captions."""
        tokens = self.tokens(captions)
        return lambda x, t: self.velocity(x, t, tokens)

    def guided(self, captions: Sequence[str], w: float | None = None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The model (x, t) -> u with text guidance; w: by default what is usual for its kind."""
        inner = guided(self.backbone, self.tokens(captions), W[self.kind] if w is None else w)

        @torch.no_grad()
        def u(x, t):
            with self.autocast():
                return inner(x, t).float()

        return u

    def tokens(self, captions: Sequence[str]) -> torch.Tensor:
        """What the backbone reads of captions; "" is its null text, which the kit's grammar has no sentence for."""
        grammar = self.backbone.grammar
        return torch.cat([grammar.encode([c]) if c else grammar.null(1) for c in captions]).to(self.device)

    def autocast(self):
        """bfloat16, where that is fast, for the kit's float32 weights; a pretrained transformer keeps the type that it was loaded in."""
        return autocast(self.device, self.kind == "motionlab")

    def grid(self, steps: int = 20) -> torch.Tensor:
        """Times of the usual sampler: the protocol's, or the snapshot's own."""
        return time_grid(steps) if self.kind == "motionlab" else self.backbone.grid(steps)

    def untrained(self, seed: int = 1) -> Model:
        """The same architecture with random weights: what positions and wiring alone give."""
        if self.kind == "motionlab":
            twin = Backbone(self.backbone.config, seed).to(self.device).eval()
        else:
            twin = _random_twin(self.backbone, seed)
        return Model("untrained", self.kind, twin, self.codec, self.frames, self.size)


def _random_twin(backbone, seed):
    """A pretrained backbone's twin: everything shared but the transformer, which is drawn anew from its config."""
    import copy

    old = backbone.transformer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = type(old).from_config(old.config)
    twin = copy.copy(backbone)
    twin._modules = dict(backbone._modules) | {"transformer": new.to(next(old.parameters())).eval()}
    return twin


def item_seed(item: str) -> int:
    """The noise seed of a clip by its name: a world seed as it is, any other name by its checksum."""
    return int(item) if item.isdigit() else zlib.crc32(item.encode())


# ---------------------------------------------------------------------------------------------- opening
def open_model(folder: str = "", frames: int | None = None, height: int | None = None, width: int | None = None, weights: str = "base",
               device: str = "cpu", cache: str | None = None) -> Model:
    """The kit's shipped model, or a pretrained one from a local folder.

    Args:
        folder: of a diffusers snapshot (Wan 2.1, CogVideoX); "" is the kit's own.
        frames, height, width: of the clips in pixels; by default what the model was made for (the kit's: 17 x 48 x 48).
        weights: which of the kit's checkpoints. device: of a pretrained model. cache: where its text states are kept.

    Raises:
        MotionLabError: no such folder or checkpoint, no transformer or VAE in it, a size that the model does not do.
    """
    if not folder:
        codec = load_codec(shipped("codec"))
        backbone = load_backbone(shipped(weights), codec)
        if (height or 48, width or 48) != (48, 48):
            raise MotionLabError(f"The kit's own model was asked for frames of {height}x{width}.",
                                 fix="It does 48 x 48; give `backbone=` for another.")
        codec.latent_frames(frames or 17)
        return Model("base" if weights == "base" else weights, "motionlab", backbone, codec, frames or 17, (48, 48))
    from motionlab.models.pretrained.snapshot import load_pretrained

    found = load_pretrained(folder, device, torch.bfloat16 if device != "cpu" else torch.float32, cache)
    made_for = found.size()
    size = (frames or made_for[0], height or made_for[1], width or made_for[2])
    if size != made_for:
        found = type(found)(found.folder, found.kind, found.backbone, found.codec, size)
    if found.codec is None:
        raise MotionLabError(f"'{folder}' has no vae, so it can look at no clip.", fix="Fetch the snapshot's folder vae/ too.")
    return Model(Path(folder).name, found.kind, found.backbone, found.codec, size[0], size[1:])


def world_clips(seeds: Sequence[int], model: Model, **options) -> dict[str, Clip]:
    """{seed: clip} of the world at the model's size; options as of `world.random_scene` (camera, clutter, kind, ...)."""
    options = {"aspect": model.size[1] / model.size[0]} | options
    return {str(seed): render(random_scene(int(seed), **options), model.size, model.frames) for seed in seeds}


def your_clip(path: str, model: Model, caption: str = "", latents: int = 3) -> CaptionedClip:
    """A clip of yours, cropped and resized to the model's size and cut to a length that it does.

    Args:
        caption: what it shows; the kit's own model reads the world's grammar only, "" is no text.
        latents: how many latent frames are needed at least.

    Raises:
        MotionLabError: no such file, too short, a word that the model does not know.
    """
    frames = read_video(path, size=model.size, max_frames=model.frames).frames
    step = 2 * GROUP if model.kind == "cogvideox" else GROUP
    kept, needed = (len(frames) - 1) // step * step + 1, (latents - 1) * GROUP + 1
    if kept < needed:
        raise MotionLabError(f"'{path}' has {len(frames)} frames; this needs {needed}.", fix="Give a longer clip.")
    model.tokens([caption])
    return CaptionedClip(frames[:kept], caption)
