"""`Pipe`: the one type of a video generator, the kit's own small one or a diffusers snapshot in a local folder.

    pipe = open_pipe()                                        # the shipped base, 17 frames of 48 x 48
    pipe = open_pipe("weights/Wan2.1-T2V-1.3B-Diffusers", frames=17, height=240, width=416)
    clips = pipe.decode(pipe.sample(["a dog runs"], seeds=[0]))

Everything speaks the kit's convention: latents x (b, f, c, h, w), time t in [0, 1] from noise to data, and the network
as a velocity u(x_t, t). What a class of generator does in its own way (text, known frames, noise levels, scheduler)
stays behind the methods of its subclass. Methods act on `pipe.denoiser`, the network itself, by hooks, adapters or
wider projections; all of its weights are the pipe's parameters, autoencoder and text encoders are not.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.noise import prompt_noise
from motionlab.diffusion import SAMPLERS, cfg
from motionlab.video import as_frames, as_video

Inputs = dict[str, torch.Tensor]          # what a network reads beside x and t, batch first: text states, known frames
MODES = ("text", "first", "first_last")
FRAMES_OF = {"text": (), "first": ("first",), "first_last": ("first", "last")}


class Start(NamedTuple):
    """What sampling of a batch begins with: starting noise x0 (b, f, c, h, w), text and known frames, and `draws`, a generator per
    clip for whatever else a sampler draws (None: nothing)."""

    x0: torch.Tensor
    text: Inputs
    known: Inputs
    draws: list | None = None


class Pipe(nn.Module):
    """A video generator: (x_t, t, text, known) -> u.

    Attributes:
        name: "base", or the snapshot's folder. kind: its class: "motionlab", "wan", "cogvideox", ...
        modes: which known frames it takes, of `MODES`; the first one is its usual one.
        w: its usual text guidance (diffusers' guidance_scale is 1 + w). steps: its usual number of sampler steps.
        fps: frames per second of the videos that it was made for.
        frames, size: of the clips to work on; (h, w) in pixels. clip_step: clips have 1 + clip_step k frames.
        solvers: what `sample` can step by; the first one is its usual one.
        reads: kinds of sidecars (`data.sidecars`) that its training needs beside x1 and text.
    """

    kind, modes, w, steps, fps, clip_step, solvers = "", ("text",), 2.0, 20, 16.0, 4, ("euler", "heun")
    reads: tuple[str, ...] = ()
    group = 4                             # frames per latent frame after the first

    def __init__(self, name: str, frames: int, size: tuple[int, int]):
        super().__init__()
        self.name, self.frames, self.size = name, frames, tuple(size)

    # ------------------------------------------------------------------ what a class of generator defines
    @property
    def denoiser(self) -> nn.Module:
        """The network: a transformer or a U-Net."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the latents of one clip to work on: (f, c, h, w)."""
        raise NotImplementedError

    def encode_video(self, video: torch.Tensor) -> torch.Tensor:
        """Latents (b, f', c, h', w') float32 of video (b, f, 3, h, w) in [-1, 1], as the network reads them."""
        raise NotImplementedError

    def decode_video(self, latents: torch.Tensor) -> torch.Tensor:
        """Video (b, f, 3, h, w) float32 of latents; values near [-1, 1]."""
        raise NotImplementedError

    def text(self, prompts: Sequence[str]) -> Inputs:
        """What the network reads of prompts; "" is its null text."""
        raise NotImplementedError

    def known(self, first: torch.Tensor | None = None, last: torch.Tensor | None = None) -> Inputs:
        """What the network reads of known frames, pictures (b, 3, h, w) in [-1, 1]; {} for none."""
        raise NotImplementedError

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, text: Inputs, known: Inputs | None = None,
                extra: torch.Tensor | None = None) -> torch.Tensor:
        """The velocity u (b, f, c, h, w), float32, at x_t (b, f, c, h, w) and t (b,).

        Args:
            text, known: of `text` and `known`, a row per clip.
            extra: further channels (b, f, n, h, w) behind the network's own, where its projections were widened; as many
                come out behind u.

        Raises:
            MotionLabError: shapes that do not fit, known frames that the class does not take or needs and lacks.
        """
        raise NotImplementedError

    def grid(self, steps: int | None = None) -> torch.Tensor:
        """Times (steps + 1,) of the usual sampler."""
        raise NotImplementedError

    def times(self, noise) -> torch.Tensor:
        """Times t (b,) as its training drew them; noise: `core.noise.SampleNoise`."""
        raise NotImplementedError

    @property
    def codec_name(self) -> str:
        """Names the autoencoder's very weights: latents of another one mean nothing here."""
        raise NotImplementedError

    def drop_text(self, text: Inputs, noise, text_dropout: float, attribute_dropout: float = 0.0) -> Inputs:
        """Training's dropout: a clip's whole text becomes the null text. Single attributes can only be dropped by the kit's own.

        Args:
            noise: `core.noise.SampleNoise`, a generator per clip; a probability of 0 draws nothing.
        """
        if not text_dropout:
            return text
        keep = torch.cat([torch.rand(1, generator=g) for g in noise]) >= text_dropout
        return chosen(keep, text, self.text([""]))

    def null_known(self, known: Inputs) -> Inputs:
        """The known frames of guidance's other half: as a rule the same, since text is what guidance takes away."""
        return known

    def weight(self, w: float, x: torch.Tensor) -> float | torch.Tensor:
        """The guidance weight of every frame of x, where it is not the same."""
        return w

    def draw_known(self, batch: Inputs, noise, first: float = 0.0, first_last: float = 0.0) -> Inputs | None:
        """Training's known frames, one mode drawn per clip; text-to-video classes have none.

        Args:
            batch: x1 and the sidecars of `reads`. noise: `core.noise.SampleNoise`.
            first, first_last: probabilities of the modes, for a class that can also do without; others always get what they need.
        """
        return None

    def forget_text(self) -> None:
        """Free what turns prompts into text inputs, where those that are known are kept without it."""

    def untrained(self, seed: int = 1) -> Pipe:
        """The same architecture with random weights: what positions and wiring alone give."""
        raise NotImplementedError

    def autocast(self):
        """The precision that sampling and analyses compute in; by default the weights' own."""
        return nullcontext()

    # ------------------------------------------------------------------ video
    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.denoiser.parameters()).device

    @property
    def cell(self) -> int:
        """Pixels per token."""
        patch = getattr(self.denoiser.config, "patch_size", 1) or 1
        return self.size[0] // self.shape[2] * (patch if isinstance(patch, int) else patch[-1])

    @property
    def frames_per_token(self) -> int:
        """Frames of the video that a token after the first ones stands for."""
        return self.group * (getattr(self.denoiser.config, "patch_size_t", 1) or 1)

    @property
    def tokens(self) -> int:
        """Video tokens of a clip."""
        f, over = self.shape[0], getattr(self.denoiser.config, "patch_size_t", 1) or 1
        return f // over * (self.size[0] // self.cell) * (self.size[1] // self.cell)

    def encode(self, clips: Sequence) -> torch.Tensor:
        """Latents (b, f', c, h', w') of clips that have `.frames`."""
        return self.encode_video(torch.stack([as_video(clip.frames) for clip in clips]))

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Clips uint8 (b, f, h, w, 3) of latents."""
        return as_frames(self.decode_video(latents).clamp(-1, 1))

    def noise(self, seeds: Sequence[int], like: torch.Tensor | None = None) -> torch.Tensor:
        """Starting noise (b, f, c, h, w), a row per seed; of the shape of the latents `like`, by default of a whole clip."""
        return prompt_noise(seeds, self.shape if like is None else like.shape[1:]).to(self.device)

    def mode_inputs(self, mode: str, first: torch.Tensor | None, last: torch.Tensor | None) -> Inputs:
        """`known` for a mode that the class takes.

        Raises:
            MotionLabError: a mode that it does not take, a frame that is missing or of another size.
        """
        frames = demand_frames(self, mode, first, last)
        return self.known(**frames) if frames else {}

    # ------------------------------------------------------------------ models (x, t) -> u
    @torch.no_grad()
    def velocity(self, x: torch.Tensor, t: torch.Tensor, text: Inputs, known: Inputs | None = None,
                 extra: torch.Tensor | None = None) -> torch.Tensor:
        """`forward` as sampling and analyses call it: without gradient, in `autocast`."""
        with self.autocast():
            return self(x, t, text, known, extra).float()

    def bound(self, captions: Sequence[str], known: Inputs | None = None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The unguided model (x, t) -> u of these captions."""
        text = self.text(captions)
        return lambda x, t: self.velocity(x, t, text, known)

    def guided(self, captions: Sequence[str] | Inputs, w: float | None = None, known: Inputs | None = None,
               extra: torch.Tensor | None = None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The model (x, t) -> u with usual text guidance, both halves in one batch.

        Args:
            captions: or their `text`. w: by default what is usual for its class; 0 is the conditional model, in one pass.
            known, extra: as of `forward`; both halves are given them.
        """
        w, text = self.w if w is None else w, captions if isinstance(captions, dict) else self.text(captions)
        if w == 0:
            return lambda x, t: self.velocity(x, t, text, known, extra)
        n = len(next(iter(text.values())))
        both, twice = joined(text, self.text([""] * n)), joined(known, self.null_known(known)) if known else known
        more = None if extra is None else torch.cat([extra, extra])

        def u(x, t):
            t = torch.as_tensor(t, device=x.device).expand(len(x))
            return cfg(*self.velocity(torch.cat([x, x]), torch.cat([t, t]), both, twice, more).chunk(2), self.weight(w, x))

        return u

    # ------------------------------------------------------------------ sampling
    def begin(self, prompts: Sequence[str], seeds: Sequence[int], mode: str = "", first: torch.Tensor | None = None,
              last: torch.Tensor | None = None) -> Start:
        """What sampling of a batch of tasks begins with; errors as `mode_inputs`."""
        return Start(self.noise(seeds), self.text(prompts), self.mode_inputs(mode or self.modes[0], first, last))

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], seeds: Sequence[int], *, mode: str | None = None, first: torch.Tensor | None = None,
               last: torch.Tensor | None = None, steps: int | None = None, w: float | None = None, solver: str | None = None,
               grid: torch.Tensor | None = None, callback: Callable | None = None, batch: int = 16) -> torch.Tensor:
        """Latents (b, f, c, h, w) of prompts, a noise seed each, by usual guidance; `decode` makes clips of them.

        Args:
            mode: by default the class's usual one. first, last: known frames, pictures (b, 3, h, w) in [-1, 1].
            steps, w, solver: by default the usual ones. grid: times instead of the usual ones, of solver euler or heun.
            callback: of every step of every batch, see `diffusion.euler`.

        Raises:
            MotionLabError: lists of different lengths, an unknown solver, mode or word, frames of another size.
        """
        prompts, seeds, mode = list(prompts), list(seeds), mode or self.modes[0]
        if len(prompts) != len(seeds) or not prompts:
            raise MotionLabError(f"{len(prompts)} prompts and {len(seeds)} noise seeds were given.",
                                 fix="Give one or more prompts and one seed for each.")
        out = []
        for k in range(0, len(prompts), batch):
            part = slice(k, k + batch)
            frames = (None if a is None else a[part] for a in (first, last))
            start = self.begin(prompts[part], seeds[part], mode, *frames)
            u = self.guided(start.text, w, start.known)
            out.append(self.solve(u, start.x0, steps=steps, solver=solver, grid=grid, callback=callback, draws=start.draws).cpu())
        return torch.cat(out)

    @torch.no_grad()
    def solve(self, u: Callable, x0: torch.Tensor, *, steps: int | None = None, solver: str | None = None,
              grid: torch.Tensor | None = None, callback: Callable | None = None, draws: list | None = None) -> torch.Tensor:
        """From noise x0 to data along u(x, t), any model of `guided`'s form: the loop under every way to sample.

        Args:
            draws: of `Start`, for a sampler that draws further noise.
        """
        solver = one_of(solver or self.solvers[0], self.solvers, "solver")
        return SAMPLERS[solver](u, x0, self.grid(steps) if grid is None else grid, callback)


def demand_frames(pipe: Pipe, mode: str, first: torch.Tensor | None, last: torch.Tensor | None) -> Inputs:
    """{"first": ..., "last": ...}: the frames that a mode needs, of those given.

    Raises:
        MotionLabError: a mode that the class does not take, a frame that is missing or of another size.
    """
    one_of(mode, pipe.modes, f"conditioning mode of {pipe.kind}")
    wanted = {name: {"first": first, "last": last}[name] for name in FRAMES_OF[mode]}
    for name, value in wanted.items():
        if value is None:
            raise MotionLabError(f"Mode '{mode}' needs the {name} frame.", fix=f"Give {name}=, pictures (b, 3, h, w) in [-1, 1].")
        if value.dim() != 4 or tuple(value.shape[1:]) != (3, *pipe.size):
            raise MotionLabError(f"The {name} frame has shape {tuple(value.shape)}.",
                                 fix=f"Give pictures (b, 3, {pipe.size[0]}, {pipe.size[1]}) in [-1, 1].")
    return wanted


def joined(*parts: Inputs) -> Inputs:
    """Several batches as one."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def chosen(keep: torch.Tensor, yes: Inputs, no: Inputs) -> Inputs:
    """Row by row `yes` where keep (b,) bool is on, else `no` (whose single row serves every clip)."""
    return {name: torch.where(keep.to(value.device).view(-1, *[1] * (value.dim() - 1)), value, no[name].to(value))
            for name, value in yes.items()}


def moved(inputs: Inputs | None, device) -> Inputs | None:
    """The same on another device."""
    return {name: value.to(device) for name, value in inputs.items()} if inputs else inputs
