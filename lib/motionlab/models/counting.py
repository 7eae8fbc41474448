"""Counting a step of any network on torch's meta device, and timing one: what autograd keeps, floating-point operations, seconds."""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode


class _FusedAttention(TorchFunctionMode):
    """On the meta device attention falls back to explicit N x N maps, which no GPU makes; count the fused kernel.
    A padding mask changes neither of its counts."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, k, v = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args):]))[:3]
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


class _Kept:
    """Bytes that autograd keeps for the backward pass, in blocks and outside: each storage once, no parameters."""

    def __init__(self, model: nn.Module):
        self.seen = {p.untyped_storage()._cdata: p for p in model.parameters()}
        self.entered: dict[int, torch.Tensor] = {}
        self.inside, self.total, self.block_inputs = False, {True: 0, False: 0}, 0

    @staticmethod
    def _new_bytes(tensor: torch.Tensor, seen: dict[int, torch.Tensor]) -> int:
        storage = tensor.untyped_storage()
        if storage._cdata in seen:
            return 0
        seen[storage._cdata] = tensor          # holding on to it keeps the storage's id from being given again
        return storage.nbytes()

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.total[self.inside] += self._new_bytes(tensor, self.seen)
        return tensor

    def enter(self, module, args, kwargs) -> None:
        self.inside = True
        tensors = [a for a in (*args, *kwargs.values()) if torch.is_tensor(a)]
        self.block_inputs += sum(self._new_bytes(tensor, self.entered) for tensor in tensors)

    def leave(self, *_: object) -> None:
        self.inside = False


def count(model: nn.Module, blocks: nn.ModuleList, inputs: dict[str, Any]) -> dict[str, int]:
    """Activations and FLOPs of a forward and backward pass, without and with gradient checkpointing of the blocks.

    without   what autograd keeps
    with      what it keeps outside the blocks + the inputs of all blocks + what it keeps in one block
    """
    kept, in_blocks, started = _Kept(model), 0, 0
    handles = []
    with FlopCounterMode(display=False) as counter, _FusedAttention():
        def enter(module, args, kwargs):
            nonlocal started
            started = counter.get_total_flops()
            kept.enter(module, args, kwargs)

        def leave(*_):
            nonlocal in_blocks
            in_blocks += counter.get_total_flops() - started
            kept.leave()

        for block in blocks:
            handles += [block.register_forward_pre_hook(enter, with_kwargs=True), block.register_forward_hook(leave)]
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            out = model(**inputs)
        (out if torch.is_tensor(out) else out[0]).float().square().mean().backward()
        flops = counter.get_total_flops()
    for handle in handles:
        handle.remove()
    return {"activations": kept.total[True] + kept.total[False],
            "activations_checkpointed": kept.total[False] + kept.block_inputs + kept.total[True] // len(blocks),
            "flops": flops, "flops_checkpointed": flops + in_blocks}


def time_steps(model: nn.Module, inputs: dict[str, Any], checkpointed: bool, steps: int,
               wait: Callable[[], None] = lambda: None) -> float:
    """Median seconds of a forward and backward pass, after one that warms up."""
    if checkpointed:
        getattr(model, "transformer", model).enable_gradient_checkpointing()
    model.train()
    taken = []
    for _ in range(steps + 1):
        wait()
        began = time.perf_counter()
        out = model(**inputs)
        (out if torch.is_tensor(out) else out[0]).float().square().mean().backward()
        wait()
        taken.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return sorted(taken[1:])[steps // 2]
