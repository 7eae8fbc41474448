"""Tensors whose parts lie on several processes (FSDP2's DTensors), beside whole ones, which pass through unchanged."""
from __future__ import annotations

import torch


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, gathered on the CPU where it is sharded; then every process must call this."""
    return tensor.full_tensor().cpu() if hasattr(tensor, "full_tensor") else tensor


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What of `tensor` lies in this process."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def sharded_like(tensor: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A whole `tensor`, the same in every process, shared out as `target` is."""
    if not hasattr(target, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements)
