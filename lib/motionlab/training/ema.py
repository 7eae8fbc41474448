"""The moving average of what is trained."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from motionlab.training.shards import sharded_like
from motionlab.training.trained import trained_state


class Ema:
    """Moving average, fp32, of the trainable parameters."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay = decay
        self.live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.mean = {name: p.detach().float().clone() for name, p in self.live.items()}

    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.mean.values()), [p.detach().float() for p in self.live.values()], 1 - decay)

    def state(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The model's trained part with the averages in it, under every name that a shared parameter has."""
        average = {id(p): self.mean[name] for name, p in self.live.items()}
        means = {name: average[id(p)] for name, p in model.named_parameters(remove_duplicate=False) if id(p) in average}
        return {name: means.get(name, value) for name, value in trained_state(model).items()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        _copy_into(self.mean, {name: sharded_like(state[name], mean) for name, mean in self.mean.items()})

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again, bit for bit, after."""
        kept = {name: p.detach().clone() for name, p in self.live.items()}
        _copy_into(self.live, self.mean)
        try:
            yield
        finally:
            _copy_into(self.live, kept)


@torch.no_grad()
def _copy_into(targets: dict[str, torch.Tensor], sources: dict[str, torch.Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])
