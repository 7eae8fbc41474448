"""Several objects in one clip (card 2.6 and A12): a tracker's features are per object, so what is averaged is each one's S*."""
from __future__ import annotations

from collections.abc import Sequence

import torch

from motionlab.core.errors import MotionLabError


def average_objects(maps: Sequence[torch.Tensor], valid: Sequence[bool] | None = None) -> torch.Tensor:
    """S* of a clip from its objects' own, each (b, t - 1, h, w, n) as `gram_flow.fuse` gives it: the mean of their logits.

    Of k objects: `masks.both_ways([video] * k, prompts, tracker)`, then `fuse` each, then this. Features of different objects are never
    mixed: as with two directions (card 3.2), products across two memories would say nothing of where a part went. Offsets outside the
    frame stay `OUTSIDE`, which all maps share.

    Args:
        valid: False for an object that was lost everywhere; it does not count.

    Raises:
        MotionLabError: no object that counts, maps of different shapes.
    """
    kept = [one for one, good in zip(maps, valid or [True] * len(maps), strict=True) if good]
    if not kept or len({tuple(one.shape) for one in kept}) > 1:
        raise MotionLabError(f"{len(kept)} of {len(maps)} objects count, of shapes {sorted({tuple(one.shape) for one in kept})}.",
                             fix="Give one object or more, all fused on one grid; leave a clip out whose objects are all lost.")
    return torch.stack(kept).mean(0)
