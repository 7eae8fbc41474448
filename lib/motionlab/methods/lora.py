"""LoRA (Hu et al. 2021) with the plain diffusion loss: the adapter that every other way to tune is compared with."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.methods.plain import Plain
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
        import peft

        ends = [end.strip() for end in self.targets.split(",")]
        found = {name: m for name, m in network.named_modules()
                 if isinstance(m, nn.Linear) and any(name == end or name.endswith(f".{end}") for end in ends)}
        if not found:
            raise MotionLabError(f"{type(network).__name__} has no linear layer named {self.targets}.",
                                 fix="For example targets='to_k, to_v'.")
        rank = self.rank or max(1, next(iter(found.values())).in_features // 16)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)                      # an adapter starts alike in every run
            peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(found)), network)

    def stored_name(self, pipe: Pipe, name: str) -> str:
        """As diffusers' `load_lora_weights` reads them: transformer.blocks.0.attn1.to_k.lora_A.weight."""
        inside = next(prefix for prefix, module in pipe.named_modules() if module is pipe.denoiser)
        return f"{getattr(pipe, 'network', 'transformer')}." + name.removeprefix(f"{inside}.").replace(".default.", ".")
