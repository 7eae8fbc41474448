"""A second set of weights that differs from the first by a residual, zero at first, on part of a batch only.

    add_residuals(network, names)                     # at linear layers: W x -> W x + dW x
    with residuals(network, "second"): network(both)  # on the second half of a batch; "all": on all of it; else nowhere

The network's own weights stay as they are, so both sets run in one batch.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError, one_of

STATES = ("off", "second", "all")


class Residual(nn.Module):
    """dW x beside a linear layer. rank: 0 is a whole matrix of zeros; else B A with B zero (so that it begins as nothing either)."""

    def __init__(self, layer: nn.Linear, rank: int = 0, generator: torch.Generator | None = None):
        super().__init__()
        self.state = "off"
        if not rank:
            self.delta = nn.Parameter(torch.zeros_like(layer.weight))
            return
        bound = layer.in_features ** -0.5                     # as peft's LoRA and torch's linear layers begin
        start = (2 * torch.rand(rank, layer.in_features, generator=generator, device="cpu") - 1) * bound
        self.lora_A = nn.Parameter(start.to(layer.weight))
        self.lora_B = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.delta) if hasattr(self, "delta") else F.linear(F.linear(x, self.lora_A), self.lora_B)


def add_residuals(network: nn.Module, names: Sequence[str], rank: int = 0) -> list[Residual]:
    """A `Residual` at each of these linear layers, in place.

    Raises:
        MotionLabError: a name that is no linear layer; one that has a residual already.
    """
    generator, made = torch.Generator().manual_seed(0), []    # alike in every run
    for name in names:
        layer = network.get_submodule(name)
        if not isinstance(layer, nn.Linear) or hasattr(layer, "residual"):
            raise MotionLabError(f"'{name}' takes no residual.", fix="Name linear layers, each once; open the generator anew.")
        layer.residual = Residual(layer, rank, generator)
        layer.register_forward_hook(_with_residual)
        made.append(layer.residual)
    return made


def _with_residual(layer, args, out):
    if layer.residual.state == "off":
        return None
    if layer.residual.state == "all":
        return out + layer.residual(args[0])
    half = len(out) // 2
    return torch.cat([out[:half], out[half:] + layer.residual(args[0][half:])])


def use_residuals(network: nn.Module, state: str) -> None:
    """Set all residuals of a network until they are set again: gradient checkpointing runs layers again in the backward pass."""
    one_of(state, STATES, "state of residuals")
    for module in network.modules():
        if isinstance(module, Residual):
            module.state = state


@contextmanager
def residuals(network: nn.Module, state: str) -> Iterator[None]:
    """`use_residuals` inside, and off afterwards."""
    use_residuals(network, state)
    try:
        yield
    finally:
        use_residuals(network, "off")
