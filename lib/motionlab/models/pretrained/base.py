"""`SnapshotPipe`: a diffusers snapshot as a `Pipe`, standing on the diffusers pipeline of its class.

Text, starting noise and known frames come from the pipeline's own `encode_prompt` and `prepare_latents`, decoding from its
autoencoder, steps from its scheduler; the loop, guidance and the conversion to the kit's convention (`borders`) are here.
A class of snapshot is one subclass, which says what differs, and a line in `models.open.PIPELINES`.
"""
from __future__ import annotations

import copy
import gc
import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from motionlab import diffusion
from motionlab.core.errors import MotionLabError, one_of
from motionlab.models.pipe import FRAMES_OF, Inputs, Pipe, Start, demand_frames
from motionlab.models.pretrained.files import (DTYPES, NETWORKS, component, component_fingerprint, has, read_json, settings_part,
                                               skeleton, tokenizer)
from motionlab.models.pretrained.text import TextStates


class SnapshotPipe(Pipe):
    """A snapshot of one pipeline class.

    Class attributes:
        pipeline_class: of diffusers. stride: pixels per latent. unit: what height and width must be multiples of.
        text_parts: its text encoders and tokenizers; text_length: words it
        reads. small_parts: image encoders and their settings. vae_dtype: where the autoencoder needs one of its own.
        drawn_in_float32: whether its pipeline draws noise in float32 whatever the weights are.
        blocks: where its network's blocks are, for checkpointing's count.
    """

    pipeline_class: ClassVar[str] = ""
    stride: ClassVar[int] = 8
    unit: ClassVar[int] = 16
    text_parts: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")
    text_length: ClassVar[int] = 0
    small_parts: ClassVar[tuple[str, ...]] = ()
    vae_dtype: ClassVar[torch.dtype | None] = None
    drawn_in_float32: ClassVar[bool] = True
    blocks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    solvers, steps = ("own", "euler", "heun"), 50

    def __init__(self, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, cache: str | Path | None = None):
        """Reads network, autoencoder and scheduler; text encoders are read when the first prompt needs them.

        Raises:
            MotionLabError: files missing or truncated, an unknown dtype, a device that is not there.
        """
        one_of(str(dtype), DTYPES, "dtype of a pretrained model:")
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise MotionLabError(f"There is no CUDA device for '{device}'.", fix="Use device='cpu', or see `motionlab doctor`.")
        if not has(folder, "vae"):
            raise MotionLabError(f"'{folder}' has no vae, so it can look at no clip.", fix="Fetch the snapshot's folder vae/ too.")
        network = next(name for name in NETWORKS if has(folder, name))
        parts = {network: component(folder, network, dtype), "vae": component(folder, "vae", self.vae_dtype or dtype)}
        self._build(folder, network, parts, device, dtype, cache)

    def _build(self, folder, network, parts, device, dtype, cache):
        super().__init__(folder.name, 0, (0, 0))
        self.folder, self.dtype, self.cache, self.network = folder, dtype, cache, network
        parts |= {"scheduler": settings_part(folder, "scheduler")} | self._small_parts(device, dtype)
        self.add_module(network, parts[network].to(device))
        parts["vae"].requires_grad_(False).to(device)
        self._behind = [self._pipeline(parts)]                # in a list: its other parts are no parameters of the generator
        self.channels = self.latent_channels()
        self.check()
        self.border = self.make_border()
        named = "-".join([component_fingerprint(folder / network), str(dtype)[6:], type(self).__name__])
        self.states = TextStates(self._work_out, named, "".join(component_fingerprint(folder / part) for part in self.text_parts), cache)
        self.set_clip(*self.made_for())

    def _small_parts(self, device, dtype):
        found, device = {}, torch.device(device)
        if device.type == "meta":
            return found
        for name in self.small_parts:
            if has(self.folder, name):
                is_network = (self.folder / name / "config.json").is_file()
                found[name] = component(self.folder, name, dtype).requires_grad_(False).to(device) if is_network else \
                    settings_part(self.folder, name)
        return found

    def demand(self, parts: Sequence[str]) -> None:
        """Raises MotionLabError where the snapshot lacks one of its small parts."""
        gone = [name for name in parts if not has(self.folder, name)]
        if gone:
            raise MotionLabError(f"'{self.folder}' has no {' and no '.join(gone)}, which its network reads pictures by.",
                                 fix=f"Fetch the snapshot's folder {gone[0]}/ too.")

    def _pipeline(self, parts):
        import diffusers

        kind = getattr(diffusers, self.pipeline_class)
        wanted = list(inspect.signature(kind.__init__).parameters.values())[1:]
        given = {name: value for name, value in read_json(self.folder / "model_index.json").items() if not isinstance(value, list)} | parts
        return kind(**{p.name: given.get(p.name) for p in wanted if p.name in given or p.default is inspect.Parameter.empty})

    # ------------------------------------------------------------------ what a class of snapshot says
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.pipeline.vae.config.latent_channels

    def check(self) -> None:
        """Raises MotionLabError for a network that the class does not run."""
        read, written = self.denoiser.config.in_channels, self.denoiser.config.out_channels or self.denoiser.config.in_channels
        if (read, written) != (self.channels, self.channels):
            raise MotionLabError(f"'{self.folder}' reads {read} channels and writes {written}, of latents of {self.channels}.",
                                 fix="Fetch all parts of the snapshot from the same place.")

    def make_border(self):
        """Of `borders`."""
        raise NotImplementedError

    def made_for(self) -> tuple[int, int, int]:
        """(frames, height, width) in pixels that it was made for."""
        raise NotImplementedError

    def encode_prompt(self, prompt: str) -> Inputs:
        """{name: (n, ...)} of one prompt, by `self.pipeline.encode_prompt`; its text encoders are there."""
        raise NotImplementedError

    def native(self, z: torch.Tensor, timestep: torch.Tensor, text: Inputs, known: Inputs) -> torch.Tensor:
        """The network's own prediction (b, f, c, h, w) at its own state z (b, f, c, h, w) and timestep (b,)."""
        raise NotImplementedError

    def schedule(self, steps: int) -> torch.Tensor:
        """The scheduler's timesteps, which it is set to."""
        self.pipeline.scheduler.set_timesteps(steps, device=self.device)
        return self.pipeline.scheduler.timesteps

    def step(self, out: torch.Tensor, k: int, timesteps: torch.Tensor, z: torch.Tensor, memory: Any, draws) -> tuple[torch.Tensor, Any]:
        """The scheduler's step k, and what it must remember for the next."""
        return self.pipeline.scheduler.step(out, timesteps[k], z, return_dict=False)[0], None

    def draw(self, generators: Sequence[torch.Generator], first=None, last=None) -> tuple[torch.Tensor, Inputs]:
        """Starting noise of variance one and known frames, drawn as the pipeline draws them, a generator per clip."""
        return self.unpacked(self.pipeline.prepare_latents(**self.latents_of(generators))), self.known(first, last)

    def latents_of(self, generators) -> dict:
        """Arguments of `prepare_latents`; it draws noise of the scheduler's size."""
        return {"batch_size": len(generators), "num_channels_latents": self.channels, "num_frames": self.frames_drawn,
                "height": self.size[0], "width": self.size[1], "device": self.device,
                "dtype": torch.float32 if self.drawn_in_float32 else self.dtype,
                "generator": list(generators)}

    def unpacked(self, z: torch.Tensor) -> torch.Tensor:
        """The pipeline's latents (b, c, f, h, w) as the kit's (b, f, c, h, w) float32, of variance one."""
        return z.transpose(1, 2).float() / float(getattr(self.pipeline.scheduler, "init_noise_sigma", 1.0))

    @property
    def reads(self) -> tuple[str, ...]:
        """Image-to-video classes need a clip's first and last frames."""
        return ("ends",) if FRAMES_OF[self.modes[0]] else ()

    def draw_known(self, batch, noise, first=0.0, first_last=0.0):
        """Always its usual mode, whatever the probabilities say; what it draws comes from the clips' generators."""
        names = FRAMES_OF[self.modes[0]]
        return self.draw(noise, **{name: batch["ends"][:, {"first": 0, "last": 1}[name]] for name in names})[1] if names else None

    @property
    def frames_drawn(self) -> int:
        """Frames that the pipeline makes noise for."""
        return self.frames

    # ------------------------------------------------------------------ the generator
    @property
    def pipeline(self):
        """The diffusers pipeline; its text encoders come and go."""
        return self._behind[0]

    @property
    def denoiser(self) -> nn.Module:
        return getattr(self, self.network)

    @property
    def codec_name(self):
        return component_fingerprint(self.folder / "vae")

    @property
    def shape(self):
        return self.latent_frames(self.frames), self.channels, self.size[0] // self.stride, self.size[1] // self.stride

    def latent_frames(self, frames: int) -> int:
        """Of a clip."""
        return 1 + (frames - 1) // self.group

    def set_clip(self, frames: int, height: int, width: int) -> SnapshotPipe:
        """Work on clips of this size from now on.

        Raises:
            MotionLabError: a length or size that the generator does not do.
        """
        if frames < 1 or (frames - 1) % self.clip_step:
            below = max(1, frames - (frames - 1) % self.clip_step)
            raise MotionLabError(f"A clip of {frames} frames does not fit {self.kind}: lengths are 1 + {self.clip_step}k.",
                                 fix=f"Use {below} or {below + self.clip_step} frames.")
        if min(height, width) < 1 or height % self.unit or width % self.unit:
            raise MotionLabError(f"Frames of {height}x{width} do not divide into patches of {self.unit} pixels.",
                                 fix=f"Resize or crop to multiples of {self.unit}.")
        self.frames, self.size = frames, (height, width)
        return self

    def forward(self, x_t, t, text, known=None, extra=None):
        x = x_t.float() if extra is None else torch.cat([x_t.float(), extra.float()], 2)
        self._check_inputs(x_t, known)
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        out = self.native(self.border.state(x, t), self.border.timestep(t).float(), text, known or {})
        return self.border.velocity(out.float(), x, t)

    def beside(self, z: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """What an image-to-video network reads: latents, the condition's channels, and channels that a method added."""
        return torch.cat([z[:, :, :self.channels], condition.to(z), z[:, :, self.channels:]], 2)

    def _check_inputs(self, x, known):
        unit = self.unit // self.stride
        if x.dim() != 5 or x.shape[2] != self.channels or any(n % unit for n in x.shape[3:]):
            raise MotionLabError(f"Latents of shape {tuple(x.shape)} were given.",
                                 fix=f"This model reads (b, f, {self.channels}, h, w) with h and w multiples of {unit}.")
        if "text" not in self.modes and not known:
            raise MotionLabError(f"'{self.name}' was given no known frames, and its class needs them.",
                                 fix=f"Give `known` as pipe.known makes it; modes: {', '.join(self.modes)}.")
        if self.modes == ("text",) and known:
            raise MotionLabError(f"'{self.name}' is a text-to-video model, which takes no known frames.", fix="Use mode='text'.")

    # ------------------------------------------------------------------ text
    def text(self, prompts):
        """Raises MotionLabError where neither the text encoder nor the cache knows a prompt."""
        return {name: value.to(self.device) for name, value in self.states(list(prompts)).items()}

    def forget_text(self) -> None:
        for name in self.text_parts:
            setattr(self.pipeline, name, None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.no_grad()
    def _work_out(self, prompt):
        pipeline, gone = self.pipeline, [name for name in self.text_parts if not has(self.folder, name)]
        if getattr(pipeline, self.text_parts[0], None) is None:
            if gone:
                raise MotionLabError(f"'{self.folder}' has no {' and no '.join(gone)}, and the states of '{prompt[:60]}' are in no cache.",
                                     fix="Fetch the missing folders, or give the `cache` of a machine that has them.")
            for name in self.text_parts:
                setattr(pipeline, name, tokenizer(self.folder / name) if name.startswith("tokenizer") else self._text_encoder(name))
        words = len(pipeline.tokenizer(prompt).input_ids)
        if self.text_length and words > self.text_length:
            warnings.warn(f"A prompt of {words} tokens was cut to {self.text_length}: '{prompt[:60]}...'", stacklevel=5)
        return {name: value.cpu() for name, value in self.encode_prompt(prompt).items()}

    def _text_encoder(self, name):
        return component(self.folder, name, self.dtype).requires_grad_(False).to(self.device)

    # ------------------------------------------------------------------ video
    def known(self, first=None, last=None):
        """Raises MotionLabError for frames given to a text-to-video model."""
        if first is not None or last is not None:
            raise MotionLabError(f"'{self.name}' is a text-to-video model, which takes no known frames.", fix="Use mode='text'.")
        return {}

    @property
    def scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """mean and std, broadcasting over (b, f, c, h, w), of the autoencoder's latents as the network reads them."""
        return torch.zeros(1, device=self.device), torch.full((1,), 1 / self.pipeline.vae.config.scaling_factor, device=self.device)

    @torch.no_grad()
    def encode_video(self, video):
        """The mode of the autoencoder's distribution: no random numbers. One clip after the other, in its own precision.

        Raises:
            MotionLabError: wrong shape, a length or size that the generator does not do.
        """
        if video.dim() != 5 or video.shape[2] != 3:
            raise MotionLabError(f"Video is (b, f, 3, h, w); got shape {tuple(video.shape)}.", fix="`video.as_video` makes it of frames.")
        copy.copy(self).set_clip(video.shape[1], *video.shape[3:])
        mean, std = self.scale
        with torch.autocast(self.device.type, enabled=False):
            z = torch.cat([self.encode_clip(clip.to(self.device, self.pipeline.vae.dtype)) for clip in video])
        return (z.float() - mean) / std

    @torch.no_grad()
    def decode_video(self, latents):
        """Raises MotionLabError for latents of another number of channels."""
        if latents.dim() != 5 or latents.shape[2] != self.channels:
            raise MotionLabError(f"This autoencoder decodes latents (b, f, {self.channels}, h, w); got {tuple(latents.shape)}.",
                                 fix="Use the generator that the latents were made with.")
        mean, std = self.scale
        with torch.autocast(self.device.type, enabled=False):
            return torch.cat([self.decode_clip((z[None].to(self.device) * std + mean).to(self.pipeline.vae.dtype)).float().cpu()
                              for z in latents])

    def encode_clip(self, clip: torch.Tensor) -> torch.Tensor:
        """Raw latents (1, f', c, h', w') of one clip (f, 3, h, w)."""
        return self.pipeline.vae.encode(clip.transpose(0, 1)[None]).latent_dist.mode().transpose(1, 2)

    def decode_clip(self, z: torch.Tensor) -> torch.Tensor:
        """Video (1, f, 3, h, w) of raw latents (1, f', c, h', w')."""
        return self.pipeline.vae.decode(z.transpose(1, 2), return_dict=False)[0].transpose(1, 2)

    # ------------------------------------------------------------------ sampling
    def begin(self, prompts, seeds, mode="", first=None, last=None):
        """Noise and known frames from one generator per clip, in the order in which the pipeline draws them."""
        frames = demand_frames(self, mode or self.modes[0], first, last)
        draws = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        x0, known = self.draw(draws, **frames)
        return Start(x0, self.text(prompts), known, draws)

    @torch.no_grad()
    def solve(self, u, x0, *, steps=None, solver=None, grid=None, callback=None, draws=None):
        """solver "own": the snapshot's scheduler, which may draw further noise from `draws`; a `grid` is for the kit's samplers."""
        if one_of(solver or ("own" if grid is None else "euler"), self.solvers, "solver") != "own":
            return super().solve(u, x0, steps=steps, solver=solver or "euler", grid=grid, callback=callback)
        if grid is not None:
            raise MotionLabError("Solver 'own' steps by the snapshot's scheduler, which has its own times.",
                                 fix="Use euler or heun with a grid.")
        return self._own(u, x0, steps or self.steps, callback, draws)

    def _own(self, u: Callable, x0, steps, callback, draws):
        scheduler, timesteps, memory = self.pipeline.scheduler, self.schedule(steps), None
        z = x0 * float(getattr(scheduler, "init_noise_sigma", 1.0))
        for k, timestep in enumerate(timesteps):
            t = float(self.border.time(timestep.cpu()))
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(z, timestep)              # some schedulers want to have been asked
            x = self.border.unsampled(z, t)
            edited, v = diffusion.evaluate(u, x, k, t, callback)
            z = z if edited is x else self.border.sample(edited, t)
            z, memory = self.step(self.border.native(v, edited, t), k, timesteps, z, memory, draws)
        return z

    def grid(self, steps=None):
        """Its scheduler's times, from 0 to 1."""
        diffusion.time_grid(steps or self.steps)                       # the same demands on `steps`
        times = self.border.time(self.schedule(steps or self.steps).cpu().double())
        grid = torch.cat([torch.as_tensor(times).double(), torch.ones(1, dtype=torch.float64)])
        grid[0] = 0.0
        return grid

    # ------------------------------------------------------------------ other ways to have one
    def untrained(self, seed=1):
        old = self.denoiser
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            new = type(old).from_config(old.config)
        twin = copy.copy(self)
        twin._modules, twin.name = {self.network: new.to(next(old.parameters())).eval()}, "untrained"
        return twin

    @classmethod
    def of_configs(cls, folder: Path) -> SnapshotPipe:
        """The same without weights, for counting: networks as the configs say, on the current device (meta: no memory)."""
        made, network = cls.__new__(cls), next(name for name in NETWORKS if has(folder, name))
        device = torch.empty(0).device
        parts = {network: skeleton(folder, network), "vae": skeleton(folder, "vae")}
        with torch.device("cpu"):                          # noise levels are looked at, which a meta device has none of
            made._build(folder, network, parts, device, torch.float32, None)
        return made

    def example(self, b: int) -> tuple[Inputs, Inputs]:
        """Text and known frames of the shapes that the network reads, on the current device: what counting needs."""
        raise NotImplementedError
