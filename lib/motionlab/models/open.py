"""Opening a generator: the kit's own, or a snapshot's."""
from __future__ import annotations

from pathlib import Path

import torch

from motionlab.models.pipe import Pipe


def open_pipe(folder: str = "", frames: int | None = None, height: int | None = None, width: int | None = None, weights: str = "base",
              device: str = "cpu", cache: str | Path | None = None, dtype: torch.dtype | None = None) -> Pipe:
    """The kit's shipped generator, or a pretrained one from a local folder.

    Args:
        folder: of a diffusers snapshot; "" is the kit's own.
        frames, height, width: of the clips in pixels; by default what the generator was made for (the kit's: 17 x 48 x 48).
        weights: which of the kit's checkpoints. device, dtype: of a snapshot. cache: where its text states are kept.

    Raises:
        MotionLabError: no such folder or checkpoint, a class that is not supported, a size that it does not do.
    """
    if not folder:
        from motionlab.models.small.pipe import check_size, open_small

        check_size(height, width)
        return open_small(weights, frames or 17)
    from motionlab.models.pretrained.pipe import open_snapshot

    return open_snapshot(folder, frames, height, width, device, cache, dtype)
