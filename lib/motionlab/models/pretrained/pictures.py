"""Known frames as pipelines take them."""
from __future__ import annotations

import torch


def as_pictures(frames: torch.Tensor) -> list:
    """PIL pictures of frames (n, 3, h, w) in [-1, 1], rounded to 8 bits: image encoders were trained on such."""
    from PIL import Image

    pixels = ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
