"""What is kept of an attention map: small sums of its rows, worked out a chunk of rows at a time."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from motionlab.core.errors import MotionLabError
from motionlab.taps.calls import Grid

# A block of softmax rows: small enough for a CPU's cache, large enough to fill an accelerator.
CPU_BYTES, ACCELERATOR_BYTES = 4 * 2 ** 20, 256 * 2 ** 20


@dataclass(frozen=True)
class Rows:
    """Some rows of the softmax: video queries of one call.

    Attributes:
        p: (b, heads, q, f', h', w') mass on the video tokens.
        full: (b, heads, q, keys) the same rows with the text columns; without them when renormalised.
        queries: (q,) their indices in raster order.
    """

    p: torch.Tensor
    full: torch.Tensor
    queries: torch.Tensor

    @property
    def grid(self) -> Grid:
        return tuple(self.p.shape[-3:])


class Reduction:
    """What is kept of the map; here a mean over all video queries. Your own one defines `add`, and `end` if need be."""

    def queries(self, grid: Grid) -> list[int] | None:
        """Tokens whose rows are needed; None: all."""
        return None

    def add(self, total: torch.Tensor | None, rows: Rows) -> torch.Tensor:
        """`total` (None at first) with these rows added."""
        raise NotImplementedError

    def end(self, total: torch.Tensor, grid: Grid) -> torch.Tensor:
        """The result of a call."""
        return total / math.prod(grid)


class FrameMass(Reduction):
    """(b, heads, f', f'): mean over the queries of frame i of their mass on frame j. Rows sum to 1 - text."""

    def add(self, total, rows):
        mass = rows.p.sum((-1, -2))
        f, h, w = rows.grid
        total = mass.new_zeros(*mass.shape[:2], f, f) if total is None else total
        return total.index_add_(2, rows.queries // (h * w), mass)

    def end(self, total, grid):
        return total / (grid[1] * grid[2])


@dataclass(frozen=True)
class OffsetMass(FrameMass):
    """(b, heads, 2f' - 1): mass at frame offset delta = key frame - query frame, index delta + f' - 1.

    Sums to 1 - text. Large offsets exist for few queries only; `existing` averages each offset over the queries that
    have it (DeT card, M_l(delta)), and then the sum is no longer 1.
    """

    existing: bool = False

    def end(self, total, grid):
        return by_offset(super().end(total, grid), self.existing)


class Entropy(Reduction):
    """(b, heads): mean entropy of the rows in nats, over all keys; over the video tokens when renormalised."""

    def add(self, total, rows):
        entropy = torch.special.entr(rows.full).sum((-1, -2))
        return entropy if total is None else total + entropy


@dataclass(frozen=True)
class QueryMap(Reduction):
    """(b, heads, f', h', w'): where the token at (frame, y, x) looks. Sums to 1 - text of this token."""

    frame: int
    y: int
    x: int

    def queries(self, grid):
        at = (self.frame, self.y, self.x)
        if not all(0 <= i < size for i, size in zip(at, grid)):
            raise MotionLabError(f"There is no query token {at} in a grid of {grid} (frames, height, width).",
                                 fix="Count from 0, in tokens and not in pixels.")
        return [(self.frame * grid[1] + self.y) * grid[2] + self.x]

    def add(self, total, rows):
        found = (rows.queries == self.queries(rows.grid)[0]).nonzero()
        return rows.p[:, :, int(found)].clone() if len(found) else total

    def end(self, total, grid):
        return total


def by_offset(frames: torch.Tensor, existing: bool = False) -> torch.Tensor:
    """A FrameMass (..., f', f') by frame offset, (..., 2f' - 1); see `OffsetMass`."""
    f = frames.shape[-1]
    diagonals = [frames.diagonal(offset, -2, -1) for offset in range(1 - f, f)]
    return torch.stack([d.mean(-1) if existing else d.sum(-1) / f for d in diagonals], -1)


def by_radius(displacement: torch.Tensor) -> torch.Tensor:
    """Mass by displacement key - query (..., 2f' - 1, 2h' - 1, 2w' - 1), whose middle is the query itself, by offset and radius
    max(|dx|, |dy|): (..., 2f' - 1, R)."""
    h, w = displacement.shape[-2:]
    dy, dx = (torch.arange(n, device=displacement.device) - n // 2 for n in (h, w))
    radius = torch.maximum(dy.abs()[:, None], dx.abs()[None]).flatten()
    out = displacement.new_zeros(*displacement.shape[:-2], max(h, w) // 2 + 1)
    return out.index_add_(-1, radius, displacement.flatten(-2))


@torch.no_grad()
def reduce_attention(query: torch.Tensor, key: torch.Tensor, grid: Grid, reduce: Mapping[str, Reduction], *,
                     video: slice | None = None, attn_mask: torch.Tensor | None = None, is_causal: bool = False,
                     scale: float | None = None, enable_gqa: bool = False, renormalise: bool = False,
                     chunk: int | None = None) -> dict[str, torch.Tensor]:
    """What `attention` does with one call of the kernel: softmax rows of video queries, reduced block by block.

    Args:
        query, key: (b, heads, keys, d), as the kernel gets them.
        video: where the video tokens stand; None: first. The rest is text.
        attn_mask, is_causal, scale, enable_gqa: as of `scaled_dot_product_attention`. Dropout is left out.

    Returns: {"text": (b, heads), name: what the reduction gives}, float32 (float64 of float64) on the CPU.
    """
    n, keys = math.prod(grid), key.shape[2]
    video = video or slice(0, n)
    wanted = _wanted(reduce, grid).to(query.device)
    chunk = chunk or _chunk(query, keys)
    totals, text = dict.fromkeys(reduce), 0.0
    with torch.autocast(query.device.type, enabled=False):
        query, key, attn_mask = _scaled(query, key, attn_mask, scale, enable_gqa)
        for part in wanted.split(chunk):
            full = _softmax_rows(query, key, part + video.start, attn_mask, is_causal)
            p = full[..., video]
            text += full[..., :video.start].sum((-1, -2)) + full[..., video.stop:].sum((-1, -2))
            if renormalise:
                full = p = p / p.sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
            rows = Rows(p.unflatten(-1, grid), full, part)
            totals = {name: reduction.add(totals[name], rows) for name, reduction in reduce.items()}
            del full, p, rows                   # else two blocks of rows live while the next one is made
    return {"text": (text / len(wanted)).cpu(), **{name: r.end(totals[name], grid).cpu() for name, r in reduce.items()}}


def _softmax_rows(query, key, at, mask, is_causal):
    """Rows `at` of the softmax, (b, heads, q, keys)."""
    logits = query[:, :, at] @ key.transpose(-1, -2)
    if mask is not None:
        mask = mask if mask.shape[-2] == 1 else mask[..., at, :]
        logits = logits.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else logits.add_(mask)
    if is_causal:
        logits.masked_fill_(torch.arange(key.shape[2], device=at.device) > at[:, None], -math.inf)
    return logits.softmax(-1)


def _scaled(query, key, mask, scale, enable_gqa):
    """q times the scale, k and mask in float32 at least, one key head per query head."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if enable_gqa:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    if mask is not None:
        mask = mask.reshape(*[1] * (4 - mask.dim()), *mask.shape)
        mask = mask if mask.dtype == torch.bool else mask.to(dtype)
    return query.to(dtype) * scale, key.to(dtype).contiguous(), mask


def _wanted(reduce, grid):
    """Video queries whose rows are needed, (q,) int64."""
    asked = [reduction.queries(grid) for reduction in reduce.values()]
    if any(queries is None for queries in asked):
        return torch.arange(math.prod(grid))
    return torch.tensor(sorted(set().union(*asked)))


def _chunk(query, keys):
    row = query.shape[0] * query.shape[1] * keys * 4
    return max(1, (CPU_BYTES if query.device.type == "cpu" else ACCELERATOR_BYTES) // row)


def checked_reductions(reduce):
    reduce = {"offsets": OffsetMass()} if reduce is None else reduce
    if not isinstance(reduce, Mapping) or not reduce or not all(isinstance(r, Reduction) for r in reduce.values()):
        raise MotionLabError(f"`reduce` is {reduce!r}.", fix='Give a dict, for example {"offsets": OffsetMass()}.')
    if "text" in reduce:
        raise MotionLabError("A reduction is named 'text', which is the share of mass on text tokens.",
                             fix="Choose another name.")
    return dict(reduce)
