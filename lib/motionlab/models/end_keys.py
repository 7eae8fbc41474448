"""Keys and values of two pictures in the spatial self-attention of those between them: what image morphing interpolates.

    keys = EndKeys(unet)
    with keys.between(shares, f): network(rows)        # rows: transitions of f pictures each, the ends first and last
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode


class EndKeys:
    """The hooks of a U-Net's spatial self-attention, at the call of `scaled_dot_product_attention`."""

    def __init__(self, unet: nn.Module):
        self._how, self._on, self._mode = None, False, _Watch(self)
        for name, module in unet.named_modules():
            over_time = any(part in name for part in ("temp_attentions", "transformer_in"))
            if name.endswith(".attn1") and ".transformer_blocks." in name and not over_time:
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave, always_call=True)

    @contextmanager
    def between(self, shares: torch.Tensor, f: int, fused: bool = False) -> Iterator[None]:
        """Inside, every picture attends to the ends of its transition.

        Args:
            shares: (rows,), each picture's share of the last end. f: pictures per transition.
            fused: False: K and V are (1 - s) of the first end and s of the last (DiffMorpher). True: (1 - s) of attention to the first
                end and itself, s of attention to the last end and itself (AID, fused outer).
        """
        self._how = shares, f, fused
        try:
            yield
        finally:
            self._how = None

    def _enter(self, *_):
        if self._how is not None:
            self._on = True
            self._mode.__enter__()

    def _leave(self, *_):
        if self._on:
            self._on = False
            self._mode.__exit__(None, None, None)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """What a call gives instead, (rows, heads, n, d)."""
        shares, f, fused = self._how
        share = shares.to(q).view(-1, 1, 1, 1)
        ends = [[x.unflatten(0, (-1, f))[:, at].repeat_interleave(f, 0) for x in (k, v)] for at in (0, -1)]
        if not fused:
            k, v = ((1 - share) * one + share * other for one, other in zip(*ends))
            return F.scaled_dot_product_attention(q, k, v)
        first, last = (F.scaled_dot_product_attention(q, torch.cat([k_e, k], 2), torch.cat([v_e, v], 2)) for k_e, v_e in ends)
        return (1 - share) * first + share * last


class _Watch(TorchFunctionMode):
    """Lets `EndKeys` answer calls of `scaled_dot_product_attention`, and changes nothing else."""

    def __init__(self, keys):
        super().__init__()
        self.keys = keys

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        return self.keys.attend(*args[:3], *(kwargs[name] for name in ("query", "key", "value")[len(args):]))
