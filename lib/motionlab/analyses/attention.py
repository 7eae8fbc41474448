"""Where 3-D attention looks: mass by frame offset and by distance, per block, head-averaged, with its controls (DeT, Fig. 3; C1, C2).

The paper shows maps. Here quantities come first: M(delta), the mean mass that a token gives to a frame `delta` away (averaged over
the queries that have such a frame), and D(delta), the share of that mass within the 3x3 window around the same position. Both are
taken on real clips of the world, noised to t, at the price of one forward pass. A random-weight model of the same shape is the
control: positions alone already make attention local.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from motionlab import taps
from motionlab.analyses.inputs import Model, item_seed
from motionlab.diffusion import interpolate


@torch.no_grad()
def attention_rows(model: Model, clips: dict, times: Sequence[float] = (0.2, 0.5, 0.8), batch: int = 8, blocks=None) -> Iterator[dict]:
    """Rows {item, arm, seed, block, t, ...}, one per clip {item: clip}, block and noise level, averaged over heads.

    Args:
        blocks: as of `taps.attention`; None: all.

    Columns: arm, the model's name; mass_<d>, d = |frame offset|, mean over both directions and over the queries that have it
    (0 to 1 per frame); near_<d>: share of that mass within one token of the same position; text: mass on text tokens;
    entropy in nats.
    """
    items = list(clips)
    for part in (items[k:k + batch] for k in range(0, len(items), batch)):
        x1 = model.encode([clips[k] for k in part])
        x0, u = model.noise([item_seed(k) for k in part], x1), model.bound([clips[k].caption for k in part])
        for t in times:
            with taps.attention(model.backbone, {"where": taps.DisplacementMass(), "entropy": taps.Entropy()}, blocks) as seen:
                u(interpolate(x0, x1, t), torch.full((len(part),), float(t), device=x1.device))
            for block, calls in enumerate(seen.values()):
                found = summary(calls[0]["where"])
                for i, item in enumerate(part):
                    yield {"item": item, "arm": model.name, "seed": 0, "block": block, "t": float(t),
                           "text": float(calls[0]["text"][i].mean()), "entropy": float(calls[0]["entropy"][i].mean())} | {
                               column: float(values[i]) for column, values in found.items()}


def summary(displacement: torch.Tensor) -> dict[str, torch.Tensor]:
    """mass_<d> and near_<d>, each (b,), of a `taps.DisplacementMass` (b, heads, 2f'-1, 2h'-1, 2w'-1), averaged over heads."""
    radius = taps.by_radius(displacement).mean(1)                                  # (b, 2f'-1, R)
    frames = (radius.shape[1] + 1) // 2
    out = {}
    for d in range(frames):
        both = radius[:, frames - 1 + d] + (radius[:, frames - 1 - d] if d else 0)
        mass = both.sum(-1)
        out[f"mass_{d}"] = mass * frames / (frames - d) / (2 if d else 1)
        out[f"near_{d}"] = both[:, :2].sum(-1) / mass.clamp(min=1e-12)
    return out
