"""Frames as mp4 and gif, whole or not at all."""
from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.core.files import FULL, READ_ONLY, replacing
from motionlab.video.clip import is_number, check_frames
from motionlab.video.decoding import reason_of


def write_mp4(path: str | os.PathLike, frames: np.ndarray, fps: float, crf: int = 18) -> Path:
    """Write H.264 (yuv420p, plays everywhere). Odd sizes are padded by repeating the last row or column.

    Args:
        frames: uint8 (f, h, w, 3), f >= 1.
        fps: frames per second.
        crf: quality, 0 (lossless but for colour) to 51.

    Raises:
        MotionLabError: bad frames or fps, the folder cannot be written, or the disk is full.
    """
    import av

    frames = check_frames(frames, who="write_mp4")
    rate = _rate(fps)
    height, width = frames.shape[1:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    def write(part: Path) -> None:
        muxing = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(part), "w", format="mp4", options=muxing) as container:
            # One thread, no version stamps, no look-ahead: the same frames should give the same bytes on every run, and
            # x264's macroblock tree gave small clips up to nine different files in thirty.
            options = {"crf": str(crf), "threads": "1", "x264-params": "mbtree=0:rc-lookahead=0"}
            stream = container.add_stream("libx264", rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = padded.shape[2], padded.shape[1], "yuv420p"
            for picture in padded:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())

    return _write_atomically(path, write)


def write_gif(path: str | os.PathLike, frames: np.ndarray, fps: float) -> Path:
    """Write a looping GIF with one palette for all frames (so that still parts do not flicker).

    GIF counts in 1/100 s: delays are rounded so that the total stays right, and browsers slow anything above 50 fps.
    Equal neighbouring frames are stored once, for longer.

    Args:
        frames: uint8 (f, h, w, 3), f >= 1.
        fps: frames per second.

    Raises:
        MotionLabError: bad frames or fps, the folder cannot be written, or the disk is full.
    """
    from PIL import Image

    frames = check_frames(frames, who="write_gif")
    ticks = np.round(np.arange(len(frames) + 1) * 100 / float(_rate(fps))).astype(int)
    delays = [int(max(2, delay)) * 10 for delay in np.diff(ticks)]
    sample = frames[np.unique(np.linspace(0, len(frames) - 1, 8).astype(int))]
    palette = Image.fromarray(np.concatenate(list(sample))).quantize(256, method=Image.Quantize.MEDIANCUT)
    pictures = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in frames]

    def write(part: Path) -> None:
        pictures[0].save(part, format="GIF", save_all=True, append_images=pictures[1:], duration=delays, loop=0)

    return _write_atomically(path, write)


def _rate(fps) -> Fraction:
    if not is_number(fps) or not 0.01 <= fps <= 1000:
        raise MotionLabError(f"fps must be a number between 0.01 and 1000, got {fps!r}.")
    return Fraction(fps).limit_denominator(1001)


def _write_atomically(path, write: Callable[[Path], None]) -> Path:
    """Write through `replacing`, telling an encoder's own failure in a sentence."""
    import av

    path = Path(path).expanduser()
    with replacing(path) as draft:
        try:
            write(draft)
        except av.error.FFmpegError as error:
            if isinstance(error, OSError) and error.errno in (*FULL, *READ_ONLY):
                raise OSError(error.errno, error.strerror) from None
            raise MotionLabError(f"Cannot write '{path}' ({reason_of(error)}).",
                                 fix="Choose a folder you may write to, with space left on the disk.") from None
    return path
