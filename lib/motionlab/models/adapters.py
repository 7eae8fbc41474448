"""Low-rank adapters at a network's linear layers: what several methods add, each for its own ends (Hu et al. 2021)."""
from __future__ import annotations

import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.models.pipe import Pipe


def linear_layers(network: nn.Module, targets: str) -> dict[str, nn.Linear]:
    """{name: layer} of the linear layers whose names are, or end with a dot and, one of `targets` (by comma).

    Raises:
        MotionLabError: there is none.
    """
    ends = [end.strip() for end in targets.split(",")]
    found = {name: m for name, m in network.named_modules()
             if isinstance(m, nn.Linear) and any(name == end or name.endswith(f".{end}") for end in ends)}
    if not found:
        raise MotionLabError(f"{type(network).__name__} has no linear layer named {targets}.", fix="For example targets='to_k, to_v'.")
    return found


def usual_rank(layers: dict[str, nn.Linear]) -> int:
    """A sixteenth of the width that the first layer reads."""
    return max(1, next(iter(layers.values())).in_features // 16)


def add_lora(network: nn.Module, targets: str, rank: int = 0) -> None:
    """One adapter at each of `linear_layers`, by peft; in place, and zero at first.

    Args:
        rank: 0 is `usual_rank`; the scale is 1 whatever the rank.

    Raises:
        MotionLabError: as `linear_layers`.
    """
    import peft

    layers = linear_layers(network, targets)
    rank = rank or usual_rank(layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)                          # an adapter starts alike in every run
        peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers)), network)


def diffusers_name(pipe: Pipe, name: str) -> str:
    """A tensor of `add_lora` as diffusers' `load_lora_weights` reads it: transformer.blocks.0.attn1.to_k.lora_A.weight."""
    inside = next(prefix for prefix, module in pipe.named_modules() if module is pipe.denoiser)
    return f"{getattr(pipe, 'network', 'transformer')}." + name.removeprefix(f"{inside}.").replace(".default.", ".")
