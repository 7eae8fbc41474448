"""DeT as a method: a temporal kernel beside self-attention, trained on one clip, kept in the first blocks. Equations: papers/det.py."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.data.sidecars import Sidecar
from motionlab.data.tracks import TRACKERS
from motionlab.diffusion import data_estimate, velocity
from motionlab.methods.base import Sampling
from motionlab.methods.plain import Plain, flow_matching_loss
from motionlab.models.branches import PLACES, add_branches, branches, only
from motionlab.models.pipe import Inputs, Pipe
from motionlab.papers import det as paper
from motionlab.taps import features


@dataclass(frozen=True)
class KeptBlocks(Sampling):
    """keep: which blocks keep their branch: a share of all blocks (0.35: the first 35 %), a number of the first ones, or a list of
    numbers. flip: the trained taps reversed in time."""

    keep: int | float | tuple[int, ...] = 0.35
    flip: bool = False


@dataclass(frozen=True)
class DeT(Plain):
    """The branch: module (of `papers.det.MODULES`), kernel k, middle width m (0: width / 24), place (of `models.branches.PLACES`), how
    `down` begins, and the list of blocks (HunyuanVideo has two; "" is the first). The tracking loss: weight (0: none, no tracks),
    visibility, mean, target ("x1", or "features" of `blocks`; () is all). Its tracks: teacher, points, radius (`draw_tracks`).
    v_loss: the diffusion loss of v, as CogVideoX has it. The rest as of `Plain`, by default off: one clip, its caption, no dropout."""

    name: ClassVar[str] = "det"
    tunes_base: ClassVar[bool] = False
    Sampling: ClassVar[type] = KeptBlocks

    module: str = "kernel"
    k: int = 3
    m: int = 0
    place: str = "skip"
    begin: str = "normal"
    stack: str = ""
    weight: float = 0.1
    visibility: str = "min"
    mean: str = "all"
    target: str = "x1"
    blocks: tuple[int, ...] = ()
    teacher: str = "auto"
    points: int = 100
    radius: float = 0.0
    v_loss: bool = False
    text_dropout: float = 0.0
    attribute_dropout: float = 0.0
    first: float = 0.0
    first_last: float = 0.0

    def __post_init__(self):
        paper.make_module(self.module, 24, self.m, self.k, self.begin, (1, 1))
        for name, known in (("place", PLACES), ("visibility", paper.VISIBILITY), ("mean", paper.MEANS), ("target", paper.TARGETS),
                            ("teacher", TRACKERS)):
            one_of(getattr(self, name), known, f"{name} of {self.name}:")
        if self.weight < 0 or self.points < 1 or self.radius < 0:
            raise MotionLabError(f"weight {self.weight}, points {self.points}, radius {self.radius}: one is out of range.",
                                 fix="Weight and radius are 0 or more, points 1 or more.")

    def wants(self) -> tuple[Sidecar, ...]:
        own = Sidecar("tracks", {"teacher": self.teacher, "points": self.points, "radius": self.radius})
        return (*super().wants(), own) if self.weight else super().wants()

    # ------------------------------------------------------------------ training
    def check(self, pipe: Pipe) -> None:
        """Raises MotionLabError for clips of fewer latent frames than the kernel."""
        length = pipe.shape[0] // (getattr(pipe.denoiser.config, "patch_size_t", 1) or 1)
        if length < self.k:
            raise MotionLabError(f"A clip of {pipe.frames} frames is {length} frames of tokens, fewer than the kernel's {self.k}.",
                                 fix=f"Give {1 + pipe.frames_per_token * (self.k - 1)} frames or more, or a smaller kernel.")

    def attach(self, pipe: Pipe) -> None:
        self.check(pipe)
        pipe.requires_grad_(False)
        self._add(pipe.denoiser, (pipe.size[0] // pipe.cell, pipe.size[1] // pipe.cell))

    def attach_to(self, network: nn.Module, channels: int) -> None:
        """Weights per position are made for the size in the network's config, which CogVideoX alone has."""
        own = [network.config.get(f"sample_{side}") for side in ("height", "width")]
        self._add(network, tuple(n // network.config["patch_size"] for n in own) if all(own) else None)

    def _add(self, network, grid):
        draw, settings = torch.Generator().manual_seed(0), (self.m, self.k, self.begin, grid)              # alike in every run
        add_branches(network, lambda width: paper.make_module(self.module, width, *settings, draw), self.place, self.stack)

    def loss(self, pipe: Pipe) -> Callable:
        factor = paper.v_weight if self.v_loss else None
        if not self.weight or self.target == "x1":
            return flow_matching_loss(self.recipe, pipe, more=self._on_data if self.weight else None, weight=factor)

        def loss_fn(model, batch, noise):
            with features(pipe.denoiser, list(self.blocks or branches(pipe.denoiser)), at="attention", detach=False) as seen:
                return flow_matching_loss(self.recipe, pipe, more=self._on_features(seen), weight=factor)(model, batch, noise)

        return loss_fn

    def _on_data(self, said, batch, noise):
        """The term on the clean latents that the velocity points at."""
        return self._gated(paper.along_tracks(said.x1_hat, batch["tracks"], self.visibility, self.mean), said.t)

    def _on_features(self, seen):
        """The term on what the self-attention of chosen blocks gives, with its branch: their mean."""

        def more(said, batch, noise):
            values = [entries[-1].movedim(-1, 2) for entries in seen.values()]                       # (b, f', d, h', w') each
            grids = [tuple(a.shape[i] for i in (1, 3, 4)) for a in (batch["x1"], values[0])]
            tracks = paper.at_tokens(batch["tracks"], *grids)
            return self._gated(torch.stack([paper.along_tracks(value, tracks, self.visibility, self.mean) for value in values]).mean(0), said.t)

        return more

    def _gated(self, loss, t):
        return self.weight * torch.where(paper.late_enough(t), loss, torch.zeros_like(loss))

    # ------------------------------------------------------------------ sampling
    def model(self, pipe: Pipe, text: Inputs, known: Inputs, options: KeptBlocks, given: dict | None = None) -> Callable:
        """Usual text guidance with the branches of `options.keep`; raises MotionLabError for blocks that have none."""
        u, found = super().model(pipe, text, known, options, given), branches(pipe.denoiser)
        if not found:
            raise MotionLabError(f"'{pipe.name}' has no branch.", fix="Attach the method, or load what it trained.")
        kept = paper.kept_blocks(options.keep, list(found), next(iter(found.values())).total)

        def of_kept(x, t):
            with only(found, kept, options.flip):
                return u(x, t)

        return of_kept

    @torch.no_grad()
    def losses(self, pipe: Pipe, x_t: torch.Tensor, t: torch.Tensor, text: Inputs, data: dict[str, torch.Tensor],
               noise: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The video's "loss"; with tracks, "tracking" of the clean latents that it expects, and "floor", that of the true ones."""
        u = pipe.velocity(x_t, t, text)
        found = {"loss": (u - velocity(noise["x1"], data["x1"])).square().flatten(1).mean(1)}
        for name, x1 in (("tracking", data_estimate(x_t, u, t)), ("floor", data["x1"])) if "tracks" in data else ():
            found[name] = paper.along_tracks(x1, data["tracks"], self.visibility, self.mean)
        return found
