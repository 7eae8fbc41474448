"""What methods share that teach a block what another network sees: a head on its hidden states, and a loss beside the plain one.

The head reads the video tokens after one block, in training only; a file of `methods.files` holds none, and sampling is the plain one.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.correlation import local_correlation
from motionlab.data.seen import on_grid
from motionlab.data.sidecars import Sidecar
from motionlab.methods.plain import Plain, flow_matching_loss
from motionlab.models.adapters import add_lora, diffusers_name
from motionlab.models.heads import add_head, head, raw_output, tapped_block
from motionlab.models.pipe import Pipe
from motionlab.taps import features

TAU = 0.1                # of features that have no temperature of their own
DEPTH = 25 / 42          # the tap's share of the depth where no block is named
MEASURED = -1.0          # a weight that is still to be measured


class Parts(NamedTuple):
    """What the two losses said of a batch, (b,) each, and the block's output (b, tokens, d) between them and the weights."""

    plain: torch.Tensor
    own: torch.Tensor
    hidden: torch.Tensor


@dataclass(frozen=True)
class Tapped(Plain):
    """block: whose output the head reads, counted from 1; 0: 25/42 of the depth. weight: of the own loss; 0: it is method plain; -1: such
    that its gradient at the block is `share` of the plain loss's, measured before the training (`experiments.heads`). head_steps: for so
    many steps the head is first fitted alone. rank: 0 trains all weights, more an adapter of this rank at `targets`. The rest as of
    `Plain`."""

    name: ClassVar[str] = ""
    weight: float = MEASURED
    share: float = 0.2
    block: int = 0
    head_steps: int = 200
    rank: int = 0
    targets: str = "to_q, to_k, to_v, to_out.0"

    def __post_init__(self):
        if self.weight < 0 and self.weight != MEASURED:
            raise MotionLabError(f"weight of {self.name} is {self.weight}.", fix="Give 0 or more, or -1 for a measured one.")
        if not self.share > 0 or min(self.block, self.rank, self.head_steps) < 0:
            raise MotionLabError(f"share {self.share}, block {self.block}, rank {self.rank}, head_steps {self.head_steps}: one is out of "
                                 "range.", fix="share is more than 0, the others are 0 or more.")

    # ------------------------------------------------------------------ what a subclass says
    def targets_of(self) -> tuple[Sidecar, ...]:
        """Sidecars that its own loss reads."""
        raise NotImplementedError

    def make_head(self, width: int) -> nn.Module:
        """The head, on hidden states of this width."""
        raise NotImplementedError

    def own_loss(self, head: nn.Module, hidden: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Its own loss of each clip (b,), from the hidden state (b, f', h', w', d)."""
        raise NotImplementedError

    def judged(self) -> tuple[Sidecar, ...]:
        """Sidecars of dev clips that `chosen` reads beside those of `wants`."""
        return ()

    def chosen(self, batch: Mapping[str, torch.Tensor], grid: tuple[int, int]) -> Tapped:
        """The method with what it chooses on dev clips, all in one batch; grid: of the tokens."""
        return self

    def target_maps(self, batch: Mapping[str, torch.Tensor], grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Where its target says that each place goes, a distribution (b, t - 1, h, w, n) over the window, and the places (b, t - 1, h, w)
        of which it says anything; of targets that are features by their correlation."""
        target = batch["target"]
        known = target.isfinite().all(-1)
        return self.student_maps(target.nan_to_num(), grid), known[:, :-1] & known[:, 1:]

    def student_maps(self, said: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """The same of features (b, t, h, w, C), such as what the head says."""
        return (local_correlation(on_grid(said.float(), grid)) / TAU).softmax(-1)

    # ------------------------------------------------------------------ training
    def wants(self) -> tuple[Sidecar, ...]:
        return (*super().wants(), *self.targets_of()) if self.weight else super().wants()

    def judging(self) -> tuple[Sidecar, ...]:
        return super().wants()

    def judging_loss(self, pipe: Pipe) -> Callable:
        return flow_matching_loss(self.recipe, pipe)

    def check(self, pipe: Pipe) -> None:
        """Raises MotionLabError for a block that the generator does not have, and clips without motion between latents."""
        self.tap(pipe)
        if self.weight and pipe.shape[0] < 2:
            raise MotionLabError(f"A clip of {pipe.frames} frames is {pipe.shape[0]} latent frame: nothing moves between fewer than two.",
                                 fix=f"Give {1 + pipe.group} frames or more.")

    def attach(self, pipe: Pipe) -> None:
        self.check(pipe)
        pipe.requires_grad_(not self.rank)
        self.attach_to(pipe.denoiser, pipe.shape[1])

    def attach_to(self, network: nn.Module, channels: int) -> None:
        if self.rank:
            network.requires_grad_(False)
            add_lora(network, self.targets, self.rank)
        if self.weight:
            add_head(network, self.name, self.make_head, tapped_block(network, self.block, DEPTH))

    def loss(self, pipe: Pipe) -> Callable:
        """`loss_fn` of `training.train`; a weight that is still to be measured counts as 1."""
        if not self.weight:
            return flow_matching_loss(self.recipe, pipe)
        weight = 1.0 if self.weight == MEASURED else self.weight

        def loss_fn(model, batch, noise):
            with self._tap(pipe) as seen:
                return flow_matching_loss(self.recipe, pipe, more=lambda *_: weight * self._own(pipe, seen, batch))(model, batch, noise)

        return loss_fn

    def head_loss(self, pipe: Pipe) -> Callable:
        """`loss_fn` of the head alone: its own loss on hidden states that no gradient passes."""

        def loss_fn(model, batch, noise):
            with torch.no_grad(), self._tap(pipe, detach=True) as seen:
                _, about = flow_matching_loss(self.recipe, pipe)(model, batch, noise)
            own = self._own(pipe, seen, batch)
            return own.mean(), {"t": about["t"], "per_sample": own}

        return loss_fn

    def parts(self, pipe: Pipe, batch: Mapping[str, Any], noise) -> Parts:
        """Both losses of a batch and the hidden state between them and the weights, for `torch.autograd.grad`."""
        found = []

        def own(*_):
            found.append(self._own(pipe, seen, batch))
            return 0.0

        with raw_output(pipe.denoiser, self.tap(pipe)) as raw, self._tap(pipe) as seen:
            _, about = flow_matching_loss(self.recipe, pipe, more=own)(pipe, batch, noise)
        return Parts(about["per_sample"], found[0], raw[-1])

    def tap(self, pipe: Pipe) -> int:
        """The index of the block whose output the head reads."""
        return tapped_block(pipe.denoiser, self.block, DEPTH)

    def _tap(self, pipe, detach=False):
        return features(pipe.denoiser, self.tap(pipe), detach=detach)

    def _own(self, pipe, seen, batch):
        return self.own_loss(head(pipe.denoiser, self.name), next(iter(seen.values()))[-1], batch)

    # ------------------------------------------------------------------ what is kept
    def stored_name(self, pipe: Pipe, name: str) -> str:
        """An adapter's as diffusers' `load_lora_weights` reads them."""
        return diffusers_name(pipe, name) if self.rank else name
