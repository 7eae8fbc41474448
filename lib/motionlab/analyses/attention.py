"""Where 3-D attention looks: mass by frame offset and by distance, per block, with its controls (DeT, Fig. 3; C1, C2).

The paper shows maps. Here quantities come first: M(delta), the mean mass that a token gives to a frame `delta` away
(averaged over the queries that have such a frame), D(delta), the share of that mass within the 3x3 window around the
same position, and R(delta), the mean distance at which it lies. They are taken on real clips of the world, noised to t,
at the price of one forward pass.

Controls: a random-weight model of the same shape (positions alone already make attention local), and frozen clips, in
which the same place holds the same content in all frames. Whether attention follows what moves is asked in
`attention_follow`; maps as the paper draws them are made in `attention_maps`.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from motionlab import taps
from motionlab.analyses.depth import block_labels
from motionlab.analyses.inputs import GROUP, item_seed, own_frames
from motionlab.models.pipe import Pipe
from motionlab.diffusion import interpolate


@torch.no_grad()
def attention_rows(model: Pipe, clips: dict, times: Sequence[float] = (0.2, 0.5, 0.8), batch: int = 8,
                   blocks=None, arm: str | None = None) -> Iterator[dict]:
    """Rows {item, arm, seed, block, depth, t, ...}, one per clip {item: clip}, block and noise level.

    Args:
        blocks: as of `taps.attention`; None: all. arm: None: the model's name.

    Columns: those of `summary`, and text, the mass on text tokens.
    """
    for part in in_batches(clips, batch):
        for t in times:
            seen = tapped(model, part, t, {"where": OffsetRadius()}, blocks)
            where = block_labels(model, seen)
            for name, calls in seen.items():
                found = summary(calls[0]["where"]) | {"text": calls[0]["text"].mean(1)}
                for i, item in enumerate(part):
                    yield {"item": item, "arm": arm or model.name, "seed": 0} | where[name] | {"t": float(t)} | {
                        column: float(values[i]) for column, values in found.items()}


def in_batches(clips: dict, size: int) -> Iterator[dict]:
    """{item: clip} in parts of at most `size`."""
    items = list(clips)
    yield from ({k: clips[k] for k in items[i:i + size]} for i in range(0, len(items), size))


@torch.no_grad()
def tapped(model: Pipe, clips: dict, t: float, reduce: dict, blocks=None) -> taps.Recording:
    """What `taps.attention` records of one pass over clips {item: clip} noised to t under their captions."""
    x1 = model.encode(list(clips.values()))
    x0, known = model.noise([item_seed(k) for k in clips], x1), own_frames(model, list(clips.values()))
    u = model.bound([clip.caption for clip in clips.values()], known)
    with taps.attention(model.denoiser, reduce, blocks) as seen:
        u(interpolate(x0, x1, t), torch.full((len(clips),), float(t), device=x1.device))
    return seen


class OffsetRadius(taps.Reduction):
    """(b, 2f'-1, max(h', w')): mean mass by frame offset and by max(|dx|, |dy|), averaged over heads.

    What `taps.by_radius` makes of the mass by displacement, but without a loop over queries: pretrained models have 32 760.
    """

    def add(self, total, rows):
        f, h, w = rows.grid
        i, y, x = rows.queries // (h * w), rows.queries // w % h, rows.queries % w
        ys, xs = (torch.arange(n, device=y.device) for n in (h, w))
        dy, dx = (ys - y[:, None]).abs()[:, :, None], (xs - x[:, None]).abs()[:, None]
        radius = torch.maximum(dy, dx).flatten(1)                                              # (q, h'w')
        at_radius = F.one_hot(radius, max(h, w)).to(rows.p)
        mass = torch.einsum("bqfk,qkr->bqfr", rows.p.mean(1).flatten(-2), at_radius)
        total = mass.new_zeros(len(mass), 2 * f - 1, max(h, w)) if total is None else total
        offset = torch.arange(f, device=y.device) - i[:, None] + f - 1                         # (q, f')
        return total.index_add_(1, offset.flatten(), mass.flatten(1, 2))


def summary(radius: torch.Tensor) -> dict[str, torch.Tensor]:
    """mass_<d>, near_<d>, radius_<d>, each (b,), of an `OffsetRadius` (b, 2f'-1, R); d = |frame offset|, both
    directions.

    mass: 0 to 1 per frame, over the queries that have such a frame. near: share of it within one token of the same
        position.
    radius: mean of max(|dx|, |dy|) in tokens.
    """
    frames, distance = (radius.shape[1] + 1) // 2, torch.arange(radius.shape[2], dtype=radius.dtype)
    out = {}
    for d in range(frames):
        both = radius[:, frames - 1 + d] + (radius[:, frames - 1 - d] if d else 0)
        mass = both.sum(-1)
        out[f"mass_{d}"] = mass * frames / (frames - d) / (2 if d else 1)
        out[f"near_{d}"] = both[:, :2].sum(-1) / mass.clamp(min=1e-12)
        out[f"radius_{d}"] = both @ distance / mass.clamp(min=1e-12)
    return out


def token_grid(model: Pipe, clip) -> tuple[int, int, int]:
    """(f', h', w') of a clip."""
    return (len(clip.frames) - 1) // GROUP + 1, *(side // model.cell for side in clip.frames.shape[1:3])


def uniform(grid: tuple[int, int, int]) -> dict[str, float]:
    """`summary` of attention that is the same for all tokens of a grid (f', h', w'): what no preference gives."""
    f, h, w = grid
    counts = torch.zeros(1, 1, 2 * f - 1, 2 * h - 1, 2 * w - 1)
    # how many queries have a key at this displacement, along each axis
    have = [torch.tensor([n - abs(d) for d in range(1 - n, n)], dtype=torch.float32) for n in grid]
    counts[0, 0] = have[0][:, None, None] * have[1][:, None] * have[2]
    found = summary(taps.by_radius(counts)[:, 0] / (f * h * w) ** 2)
    return {column: float(values) for column, values in found.items()}

