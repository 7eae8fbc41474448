"""`Method`: all that a cure is to the kit. One file per method; nothing else in the library knows its name.

    method = open_method("lora", rank=8)
    method.attach(pipe)                                       # adapters, hooks or wider projections; says what is trained
    train(pipe, method.loss(pipe), data, config)              # data: x1, text and the sidecars that method.wants()
    clips = method.sample(pipe, prompts, seeds)               # or motionlab train | sample | size | sweep

A method is a frozen dataclass: its fields are what its training depends on. What only its sampling depends on is another
one, `Method.Sampling`. Both are read from an arm's YAML or from the command line, where a misspelt field names the nearest.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.data.sidecars import Sidecar
from motionlab.diffusion import velocity
from motionlab.models.pipe import Inputs, Pipe


@dataclass(frozen=True)
class Sampling:
    """What every method's sampling depends on. w: text guidance, steps, solver: by default what the generator usually takes;
    mode: which known frames it is given, "" for the generator's usual one."""

    w: float = -1.0
    steps: int = 0
    solver: str = ""
    mode: str = ""


@dataclass(frozen=True)
class Method:
    """A method's training settings, and how it acts on a `Pipe`. Subclasses override what they change."""

    name: ClassVar[str] = ""
    tunes_base: ClassVar[bool] = True          # whether the weights that were there before are trained
    trains: ClassVar[bool] = True              # False: it acts while sampling only, and there is nothing to train, keep or count
    Sampling: ClassVar[type] = Sampling

    # ------------------------------------------------------------------ training
    def wants(self) -> tuple[Sidecar, ...]:
        """What a batch holds beside x1 and text."""
        return ()

    def check(self, pipe: Pipe) -> None:
        """Raises MotionLabError for a generator, or clips, that the method cannot work on: asked before anything long is done."""

    def attach(self, pipe: Pipe) -> None:
        """Add to the generator what the method adds, and let requires_grad say what is trained."""
        pipe.requires_grad_(self.tunes_base)
        self.attach_to(pipe.denoiser, pipe.shape[1])

    def attach_to(self, network: nn.Module, channels: int) -> None:
        """`attach` on the network alone, whose latents have so many channels. By default nothing is added."""

    def loss(self, pipe: Pipe) -> Callable:
        """`loss_fn` of `training.train`."""
        raise NotImplementedError

    def settled(self, pipe: Pipe, data, config, folder, dev: Callable | None = None) -> Method:
        """The method as it is trained, after what it settles first on the pipe that it is attached to (see `experiments.heads.settled`)."""
        return self

    # ------------------------------------------------------------------ sampling
    def start(self, pipe: Pipe, x0: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """The state that sampling begins with, from the video's noise x0."""
        return x0

    def truth(self, options: Sampling) -> tuple[Sidecar, ...]:
        """What sampling is given of the true clips: positive controls ask for it, cures do not."""
        return ()

    def model(self, pipe: Pipe, text: Inputs, known: Inputs, options: Sampling,
              given: dict[str, torch.Tensor] | None = None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The model (x, t) -> u that is integrated: usual text guidance. given: what `truth` asked for, by key."""
        return pipe.guided(text, None if options.w < 0 else options.w, known)

    def steered(self, u: Callable, callback: Callable | None) -> Callable | None:
        """What sees and may edit every step (`diffusion.euler`): by default the caller's own callback alone. u: of `model`."""
        return callback

    def streams(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is in a state: {"video": latents} and whatever else the method generates with it, each for `Pipe.decode`."""
        return {"video": state}

    def video(self, state: torch.Tensor) -> torch.Tensor:
        """The video's latents in the state that sampling ends with."""
        return self.streams(state)["video"]

    def forward(self, pipe: Pipe, x_t: torch.Tensor, other: torch.Tensor, t: torch.Tensor, text: Inputs) -> torch.Tensor:
        """The velocity of the method's state where its video is x_t and all else in it is `other`, (b, f, c, h, w) each."""
        return pipe(x_t, t, text)

    @torch.no_grad()
    def sample(self, pipe: Pipe, prompts: Sequence[str], seeds: Sequence[int], options: Sampling | None = None, *, first=None, last=None,
               given: dict[str, torch.Tensor] | None = None, callback: Callable | None = None, batch: int = 16) -> torch.Tensor:
        """States (b, f, c, h, w) of prompts, a noise seed each; `video` takes the clips' latents out of them.

        Args:
            first, last: known frames, pictures (b, 3, h, w) in [-1, 1], as `options.mode` asks for.
            given: tensors (b, ...) by the keys of `truth`, of the true clips.

        Raises:
            MotionLabError: as `Pipe.sample`; something of `truth` is missing.
        """
        options, out, given = options or self.Sampling(), [], given or {}
        for sidecar in self.truth(options):
            if sidecar.key not in given:
                raise MotionLabError(f"Method {self.name} samples with the true clips' {sidecar.kind}, and was given none.",
                                     fix=f"Give it as given={{'{sidecar.key}': ...}}, a row per prompt; an arm of a sweep is given it.")
        for k in range(0, len(prompts), batch):
            part = slice(k, k + batch)
            frames = (None if a is None else a[part] for a in (first, last))
            start = pipe.begin(list(prompts[part]), list(seeds[part]), options.mode, *frames)
            u = self.model(pipe, start.text, start.known, options, {key: value[part].to(pipe.device) for key, value in given.items()})
            state = self.start(pipe, start.x0, seeds[part])
            out.append(pipe.solve(u, state, steps=options.steps or None, solver=options.solver or None,
                                  callback=self.steered(u, callback), draws=start.draws).cpu())
        return torch.cat(out)

    @torch.no_grad()
    def losses(self, pipe: Pipe, x_t: torch.Tensor, t: torch.Tensor, text: Inputs, data: dict[str, torch.Tensor],
               noise: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the loss says of clips one by one, {name: (b,)}: "loss", mean |u - v|^2 of the video, and the method's own.

        Args:
            data, noise: x1 and the sidecars that `judging` names by their keys, and noise for each; with a "mask", "loss_subject" too.
        """
        squares = (pipe.velocity(x_t, t, text) - velocity(noise["x1"], data["x1"])).square()
        return {"loss": squares.flatten(1).mean(1)} | on_subject(squares, data)

    def judging(self) -> tuple[Sidecar, ...]:
        """The sidecars that `losses` reads; by default those that its training wants."""
        return self.wants()

    def judging_loss(self, pipe: Pipe) -> Callable:
        """`loss` on clips that were held out: of a method that learns by more than a generator has afterwards, the part that is left."""
        return self.loss(pipe)

    # ------------------------------------------------------------------ what is kept and told
    def stored_name(self, pipe: Pipe, name: str) -> str:
        """A trained tensor's name in `methods.files`; name: in the pipe's state dict."""
        return name

    def columns(self, pipe: Pipe, states: torch.Tensor) -> list[dict[str, Any]]:
        """Columns that the method adds to the row of each sampled state."""
        return [{} for _ in states]


def on_subject(squares: torch.Tensor, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """{"loss_subject": (b,)}, the mean of squares (b, f, c, h, w) over the cells of data["mask"] (b, f, h, w) that show the subject, NaN
    where none does; {} without a mask."""
    if "mask" not in data:
        return {}
    there = (data["mask"] > 0).to(squares)
    return {"loss_subject": (squares.mean(2) * there).flatten(1).sum(1) / there.flatten(1).sum(1)}
