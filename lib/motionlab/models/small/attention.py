"""Attention on the CPU in bfloat16: plain matrix products, which torch's fused kernel is twice as slow as there.

Measured (torch 2.15, batch 8, 730 tokens, 3 heads of 64, forward and backward): fused 82 ms, this 40 ms. Shorter sequences gain
more (72 maps of 144 x 144: 131 ms, this 26). In float32 the fused kernel is the faster one and stays.
"""
from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode


TOGETHER = 2 ** 16                # entries of the maps that are made at once: samples of few tokens go together


class PlainAttention(TorchFunctionMode):
    """Within it, `F.scaled_dot_product_attention` on bfloat16 CPU tensors takes the plain route; all else is untouched.

    It is entered around the whole network: taps, entered later, are asked earlier and see q and k as ever. `active` counts
    who is within it.
    """

    active = 0

    def __enter__(self):
        PlainAttention.active += 1
        return super().__enter__()

    def __exit__(self, *exception):
        PlainAttention.active -= 1
        return super().__exit__(*exception)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and _plain(kwargs):
            q, k, v = (_lowered(x) for x in (*args, *(kwargs[n] for n in ("query", "key", "value") if n in kwargs)))
            if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.dim() == 4 and len(k) == len(q):
                return _Attention.apply(q, k, v)
        return func(*args, **kwargs)


def _plain(kwargs):
    """No mask, no dropout, no causal order, the usual scale, as many key heads as query heads."""
    return not any(kwargs.get(name) for name in ("dropout_p", "is_causal", "enable_gqa")) and all(
        kwargs.get(name) is None for name in ("attn_mask", "scale"))


def _lowered(x):
    """x as autocast would hand it to the kernel, below the level that a function mode sees."""
    return x.to(torch.get_autocast_dtype("cpu")) if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") else x


class _Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) v for (b, heads, n, d), a few samples after the others so that their maps stay in the cache."""

    @staticmethod
    def forward(ctx, q, k, v):
        scale, out = q.shape[-1] ** -0.5, torch.empty_like(q)
        maps = q.new_empty(*q.shape[:3], k.shape[2])
        with torch.autocast("cpu", enabled=False):           # which would have the softmax in float32
            for i in _parts(maps):
                maps[i] = torch.softmax((q[i] * scale) @ k[i].mT, -1)
                torch.matmul(maps[i], v[i], out=out[i])
        ctx.save_for_backward(q, k, v, maps)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, maps = ctx.saved_tensors
        scale, (dq, dk, dv) = q.shape[-1] ** -0.5, (torch.empty_like(x) for x in (q, k, v))
        for i in _parts(maps):
            torch.matmul(maps[i].mT, grad[i], out=dv[i])
            inner = torch._softmax_backward_data(grad[i] @ v[i].mT, maps[i], -1, maps.dtype)
            dq[i] = (inner @ k[i]) * scale
            dk[i] = (inner.mT @ q[i]) * scale
        return dq, dk, dv


def _parts(maps):
    """Samples one by one, or slices of several where their maps are small."""
    b, several = len(maps), TOGETHER // maps[0].numel()
    return range(b) if several < 2 else [slice(i, i + several) for i in range(0, b, several)]


def again_where_recomputed(attention: nn.Module) -> None:
    """Have a diffusers attention take the plain route also when gradient checkpointing runs it again, outside the network's call."""
    from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0

    class Processor(CogVideoXAttnProcessor2_0):
        def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
            with nullcontext() if PlainAttention.active else PlainAttention():
                return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)

    attention.set_processor(Processor())
