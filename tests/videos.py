"""Makers of odd files and of known motion for the tests of video.py and teachers/."""
from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture, uint8 (height, width, 3), with detail everywhere for a tracker to hold."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    smooth = gaussian_filter(noise, (1.5, 1.5, 0)) + 2 * gaussian_filter(noise, (5, 5, 0))
    low, high = smooth.min(), smooth.max()
    return ((smooth - low) / (high - low) * 255).astype(np.uint8)


def moving_texture(frames: int = 5, height: int = 64, width: int = 80, step: tuple[int, int] = (2, -1)) -> np.ndarray:
    """A texture whose content moves by `step` = (dx, dy) whole pixels per frame: uint8 (f, h, w, 3)."""
    margin = frames * max(map(abs, step)) + 1
    big = texture(height + 2 * margin, width + 2 * margin)
    at = [(margin - t * step[1], margin - t * step[0]) for t in range(frames)]
    return np.stack([big[y:y + height, x:x + width] for y, x in at])


def counting_frames(count: int = 12, height: int = 32, width: int = 48) -> np.ndarray:
    """Flat frames whose grey level is 10 + 15 * index, so that a decoded frame tells its index."""
    levels = (10 + 15 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def index_of(frames: np.ndarray) -> list[int]:
    """Inverse of `counting_frames`, from each frame's mean."""
    return [round((float(frame.mean()) - 10) / 15) for frame in frames]


def write_variable_rate(path: Path, frames: np.ndarray, times_ms: list[int]) -> Path:
    """An mp4 whose frames are shown at the given milliseconds."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1000, options={"crf": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, time in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound_only(path: Path) -> Path:
    """A quarter of a second of silence (wav)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4000))
    return path


def cut_off(source: Path, target: Path, keep: float) -> Path:
    """The first part of a file, as an interrupted download leaves it."""
    data = source.read_bytes()
    target.write_bytes(data[:int(len(data) * keep)])
    return target


def scramble(source: Path, target: Path, start: float = 0.5, stop: float = 0.9) -> Path:
    """The same file with noise in place of a part of its bytes."""
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(0).integers(0, 256, last - first, dtype=np.uint8).tobytes()
    target.write_bytes(bytes(data))
    return target


def turn_quarter(source: Path, target: Path) -> Path:
    """The same mp4 asking the player for a quarter turn clockwise (as a phone held upright writes it)."""
    data = bytearray(source.read_bytes())
    # tkhd version 0: the 3x3 matrix begins 40 bytes after the fields' start.
    matrix = data.index(b"tkhd") + 4 + 40
    values = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[matrix:matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    target.write_bytes(bytes(data))
    return target


def write_mtbench_case(folder: Path, frames: int = 4, points: int = 3, size: tuple[int, int] = (32, 48),
                       masks: int | None = None, prompts: str = " A cat moves.  \nA dog moves.") -> Path:
    """A tiny case in MTBench's layout: a translating texture, one square mask moving with it, its exact tracks."""
    import torch
    from PIL import Image

    from motionlab.video import write_mp4

    (folder / "videos").mkdir(parents=True)
    (folder / "masks" / "case").mkdir(parents=True)
    (folder / "trajectories").mkdir()
    height, width = size
    write_mp4(folder / "videos" / "case.mp4", moving_texture(frames, height, width, (2, 1)), 8)
    for t in range(frames if masks is None else masks):
        mask = np.zeros(size, np.uint8)
        mask[4 + t:14 + t, 6 + 2 * t:16 + 2 * t] = 255
        mask[4 + t, 6 + 2 * t:16 + 2 * t] = 3  # an antialiased edge: still foreground
        Image.fromarray(mask).save(folder / "masks" / "case" / f"{t:05d}.png")
    torch.save(torch.from_numpy(_exact_tracks(frames, points, size)), folder / "trajectories" / "case.pth")
    texts = {"videos": "videos/case.mp4", "masks": "masks/case", "trajectories": "trajectories/case.pth",
             "prompts": "A square moves.", "eval_prompts": prompts}
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def _exact_tracks(frames: int, points: int, size: tuple[int, int]) -> np.ndarray:
    start = np.stack([8 + np.arange(points), 7 + np.arange(points)], -1).astype(np.float32)
    moved = start[None] + np.arange(frames, dtype=np.float32)[:, None, None] * np.array([2, 1], np.float32)
    tracks = np.ones((frames, points, 3), np.float32)
    tracks[..., :2] = moved / np.array([size[1], size[0]], np.float32)
    tracks[-1, 0, 2] = 0
    return tracks
