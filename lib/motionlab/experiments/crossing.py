"""What raw features fused are made of: how much of their products' variation over the window comes from two different memories."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from motionlab.correlation import inside
from motionlab.data.correlations import draw_shown, seen
from motionlab.data.prompts import Prompt
from motionlab.data.sources import Listed


def cross_rows(prompts: Sequence[Prompt], terms: Callable[..., dict[str, torch.Tensor]], grid: tuple[int, int], frames: int, teacher: str,
               checkpoint: str = "", every: int = 4, together: int = 8) -> list[dict]:
    """Rows {item, arm, seed, cross_share, changed} of a tracker's two passes over the prompts' true clips.

    cross_share: of the standard deviations over the window (offsets inside the frame) of the product's three terms, the share of the cross
    term, mean over places. changed: share of the places whose arg-max is another one without the cross term. NaN where it lost its object.

    Args:
        terms: (forward, backward) -> {"forward", "backward", "cross"}, each (b, t - 1, h, w, n); their sum is the product.
    """
    out = []
    for first in range(0, len(prompts), together):
        part = prompts[first:first + together]
        source = Listed([p.clip(frames=frames) for p in part])
        shown = np.stack([draw_shown(source, i, teacher, every) for i in range(len(part))])
        found = seen(shown, teacher, checkpoint).at(grid)
        for i, prompt in enumerate(part):
            share, changed = _of_clip(terms(found.forward[i:i + 1], found.backward[i:i + 1])) if found.kept[i] else (float("nan"),) * 2
            out.append({"item": prompt.id, "arm": teacher, "seed": 0, "cross_share": share, "changed": changed})
    return out


def _of_clip(parts):
    h, w, n = parts["cross"].shape[-3:]
    valid = inside(h, w, (int(n ** 0.5) - 1) // 2)
    spread = {name: _deviation(values, valid) for name, values in parts.items()}
    share = (spread["cross"] / sum(spread.values()).clamp(min=1e-12)).mean()
    own = parts["forward"] + parts["backward"]
    best = [values.masked_fill(~valid, -torch.inf).argmax(-1) for values in (own, own + parts["cross"])]
    return float(share), float((best[0] != best[1]).double().mean())


def _deviation(values, valid):
    count = valid.sum(-1)
    mean = (values * valid).sum(-1) / count
    return (((values - mean[..., None]) ** 2 * valid).sum(-1) / count).sqrt()
