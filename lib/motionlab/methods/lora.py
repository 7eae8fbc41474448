"""LoRA (Hu et al. 2021) with the plain diffusion loss: the adapter that every other way to tune is compared with."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from motionlab.methods.plain import Plain
from motionlab.models.adapters import add_lora, diffusers_name
from motionlab.models.pipe import Pipe


@dataclass(frozen=True)
class LoRA(Plain):
    """rank: 0 is a sixteenth of the width that the first target reads. targets: ends of module names, by comma."""

    name: ClassVar[str] = "lora"
    tunes_base: ClassVar[bool] = False
    rank: int = 0
    targets: str = "to_k, to_v"

    def attach_to(self, network: nn.Module, channels: int) -> None:
        """Raises MotionLabError where no linear layer of the network has one of the names."""
        add_lora(network, self.targets, self.rank)

    def stored_name(self, pipe: Pipe, name: str) -> str:
        """As diffusers' `load_lora_weights` reads them."""
        return diffusers_name(pipe, name)
