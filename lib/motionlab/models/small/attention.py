"""Two of torch's kernels on the CPU in bfloat16, by faster routes: attention as plain matrix products, GELU from a table.

Measured (torch 2.15, batch 8, 730 tokens, 3 heads of 64, forward and backward): fused attention 82 ms, this 40 ms. Shorter sequences
gain more (72 maps of 144 x 144: 131 ms, this 26). In float32 the fused kernel is the faster one and stays.
"""
from __future__ import annotations

import math
from contextlib import nullcontext
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from motionlab.core.errors import MotionLabError


TOGETHER = 2 ** 16                # entries of the maps that are made at once: samples of few tokens go together


class PlainAttention(TorchFunctionMode):
    """Within it, `F.scaled_dot_product_attention` and `F.gelu` on bfloat16 CPU tensors take the faster routes; all else is untouched.

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
            if _lower(q) and q.dim() == 4 and len(k) == len(q):
                return _Attention.apply(q, k, v)
        if func is F.gelu and kwargs.get("approximate") == "tanh" and len(args) == 1 and _lower(args[0]):
            return _Gelu.apply(*args)
        return func(*args, **kwargs)


def _plain(kwargs):
    """No mask, no dropout, no causal order, the usual scale, as many key heads as query heads."""
    return not any(kwargs.get(name) for name in ("dropout_p", "is_causal", "enable_gqa")) and all(
        kwargs.get(name) is None for name in ("attn_mask", "scale"))


def _lower(x):
    return x.device.type == "cpu" and x.dtype == torch.bfloat16


def _lowered(x):
    """x as autocast would hand it to the kernel, below the level that a function mode sees."""
    return x.to(torch.get_autocast_dtype("cpu")) if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") else x


class _Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) v for (b, heads, n, d), a few samples after the others so that their maps stay in the cache."""

    @staticmethod
    def forward(ctx, q, k, v):
        scale, out, keep = q.shape[-1] ** -0.5, torch.empty_like(q), any(ctx.needs_input_grad)
        maps = q.new_empty(*q.shape[:3], k.shape[2]) if keep else None
        with torch.autocast("cpu", enabled=False):           # which would have the softmax in float32
            for i in _parts(q, k):
                scores = (q[i] * scale) @ k[i].mT
                part = torch.softmax(scores, -1, out=maps[i] if keep else scores)
                torch.matmul(part, v[i], out=out[i])
        ctx.save_for_backward(q, k, v, maps)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, maps = ctx.saved_tensors
        scale, (dq, dk, dv) = q.shape[-1] ** -0.5, (torch.empty_like(x) for x in (q, k, v))
        for i in _parts(q, k):
            torch.matmul(maps[i].mT, grad[i], out=dv[i])
            inner = torch._softmax_backward_data(grad[i] @ v[i].mT, maps[i], -1, maps.dtype)
            dq[i] = (inner @ k[i]) * scale
            dk[i] = (inner.mT @ q[i]) * scale
        return dq, dk, dv


def _parts(q, k):
    """Slices of as many samples as share their heads evenly among the threads (torch gives each thread whole maps: three maps on
    two threads take as long as four), or of more where their maps are small."""
    b, heads, threads = len(q), q.shape[1], torch.get_num_threads()
    several = max(threads // math.gcd(threads, heads), TOGETHER // (heads * q.shape[2] * k.shape[2]))
    return [slice(i, i + several) for i in range(0, b, several)]


class _Gelu(torch.autograd.Function):
    """GELU in its tanh form of a bfloat16 tensor, looked up among the 65536 numbers that there are: the values of torch's kernel, in
    half the time."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return _looked_up(x, _gelu_tables()[0])

    @staticmethod
    def backward(ctx, grad):
        x, = ctx.saved_tensors
        return _looked_up(x, _gelu_tables()[1]).mul_(grad)


def _looked_up(x, table):
    """Row by row of the first dimension: what a row needs besides stays in the cache."""
    x, out = x.contiguous(), torch.empty(x.shape, dtype=x.dtype)
    places = torch.empty(x[0].numel(), dtype=torch.int32)
    for row, into in zip(x.view(torch.uint16), out):
        places.copy_(row.flatten())
        torch.index_select(table, 0, places, out=into.view(-1))
    return out


@cache
def _gelu_tables():
    """GELU and its derivative at each bfloat16 number, by its bits."""
    numbers = torch.arange(2 ** 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).float().requires_grad_()
    with torch.enable_grad():
        values = F.gelu(numbers, approximate="tanh")
        slopes, = torch.autograd.grad(values.sum(), numbers)
    return values.detach().bfloat16(), slopes.bfloat16()


class _Rotation(torch.autograd.Function):
    """q or k (b, heads, n, d) with the positions behind the first `skip` turned: pairs (2i, 2i + 1) as complex numbers times
    turn (n - skip, d / 2), in float32. Its gradient is turned back."""

    @staticmethod
    def forward(ctx, x, turn, skip):
        ctx.save_for_backward(turn)
        ctx.skip = skip
        return _turned(x, turn, skip)

    @staticmethod
    def backward(ctx, grad):
        return _turned(grad, ctx.saved_tensors[0].conj(), ctx.skip), None, None


def _turned(x, turn, skip):
    """Sample by sample: what a sample needs in float32 stays in the cache."""
    out, exact = torch.empty_like(x), torch.empty(*x[0, :, skip:].shape)
    pairs = torch.view_as_complex(exact.unflatten(-1, (-1, 2)))
    out[:, :, :skip] = x[:, :, :skip]
    for sample, into in zip(x[:, :, skip:], out[:, :, skip:]):
        exact.copy_(sample)
        pairs.mul_(turn)
        into.copy_(exact)
    return out


class JointAttention:
    """Attention over text and video tokens, called as diffusers' `CogVideoXAttnProcessor2_0` and equal to it, its rotation in a
    quarter of the time (32 clips of 752 tokens in bfloat16: 24 ms there, 6 here).

    When gradient checkpointing runs it again, outside the network's call, it takes the plain route too.
    """

    def __call__(self, attn: nn.Module, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor,
                 attention_mask: None = None, image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None):
        """(video, text) after attention, from video (b, n, d) and text (b, m, d); image_rotary_emb: cos and sin (n, head width).

        Raises:
            MotionLabError: a mask is given; the transformer of this class gives none.
        """
        if attention_mask is not None:
            raise MotionLabError("This attention takes no mask.", fix="Give it diffusers' own processor, CogVideoXAttnProcessor2_0.")
        words = encoder_hidden_states.shape[1]
        x = torch.cat([encoder_hidden_states, hidden_states], 1)
        q, k, v = (f(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for f in (attn.to_q, attn.to_k, attn.to_v))
        q, k = (x if norm is None else norm(x) for x, norm in ((q, attn.norm_q), (k, attn.norm_k)))
        if image_rotary_emb is not None:
            cos, sin = (a[:, ::2] for a in image_rotary_emb)        # each entry stands twice, for both numbers of a pair
            turn = torch.complex(cos, sin).to(q.device)
            q, k = _Rotation.apply(q, turn, words), _Rotation.apply(k, turn, words)
        with nullcontext() if PlainAttention.active else PlainAttention():
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=0.0, is_causal=False)
        x = attn.to_out[1](attn.to_out[0](x.transpose(1, 2).flatten(2)))
        return x[:, words:], x[:, :words]
