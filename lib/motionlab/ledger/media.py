"""Pictures small enough to be committed, and clips large enough to be seen."""
from __future__ import annotations

import io

import numpy as np

FIGURE_BYTES = 200 * 1024
VIDEO_SIDE = 192  # small clips are enlarged by a whole factor to at least this many pixels


def small_png(fig, limit: int = FIGURE_BYTES) -> bytes:
    """A matplotlib Figure as PNG of at most `limit` bytes: first a palette, then lower resolutions, then fewer pixels."""
    from PIL import Image

    for dpi in (144, 110, 80, 56, 40, 28):
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
        if buffer.tell() <= limit:
            return buffer.getvalue()
        image = Image.open(buffer).convert("RGB")
        if len(data := palette_png(image)) <= limit:
            return data
    return shrunk_png(image, limit)


def frame_png(frame: np.ndarray) -> bytes:
    """One frame, uint8 (h, w, 3), as PNG of at most the figures' size."""
    from PIL import Image

    return shrunk_png(Image.fromarray(frame), FIGURE_BYTES)


def shrunk_png(image, limit: int) -> bytes:
    """A PIL image as PNG with 256 colours, with half of its pixels as often as it takes to fit."""
    while len(data := palette_png(image)) > limit:
        image = image.resize((max(1, image.width * 7 // 10), max(1, image.height * 7 // 10)))
    return data


def palette_png(image) -> bytes:
    """A PIL image as PNG with 256 colours."""
    from PIL import Image

    buffer = io.BytesIO()
    image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames (f, h, w, 3) repeated by a whole factor to at least VIDEO_SIDE, then to even sides."""
    factor = max(1, -(-VIDEO_SIDE // min(frames.shape[1:3])))
    frames = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    return np.ascontiguousarray(np.pad(frames, odd, mode="edge"))
