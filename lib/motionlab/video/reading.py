"""Any file that PyAV reads as frames with their true times."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError, nearest
from motionlab.video.clip import MAX_BYTES, MAX_FPS, RealClip, is_number, is_whole
from motionlab.video.decoding import REWRITE, decode, to_rgb
from motionlab.video.fitting import fitter


def read_video(path: str | os.PathLike, size: int | tuple[int, int] | None = None, crop: str | None = "center",
               fps: float | None = None, max_frames: int | None = None, first: int = 0) -> RealClip:
    """Read a clip from its beginning, or from its frame `first`. One frame is a correct clip.

    Args:
        path: any file that PyAV reads; a picture is a clip of one frame.
        size: (height, width), or the short side (the aspect is then kept). Rotation stored in the file comes first.
        crop: with (height, width), 'center' keeps the aspect and cuts the middle out; None stretches (as MTBench does).
        fps: resample to this rate by nearest time. Above the file's rate it repeats frames: `times` shows which.
        max_frames: keep the first so many of what the other options select.
        first: so many frames are left out at the beginning; they are decoded, and let go of.

    Raises:
        MotionLabError: no such file, empty, no picture track, damaged, or too large for memory.
    """
    file = existing_file(path)
    _check_selection(fps, max_frames, first)
    picked, info = _collect(file, fitter(size, crop), fps, max_frames, first)
    if not picked and info:
        raise MotionLabError(f"'{file}' ends before its frame {first}.", fix="Begin earlier: frames are counted from 0.")
    if not picked:
        raise MotionLabError(f"'{file}' has no frame that can be decoded.", fix=REWRITE)
    picked = _resample(picked, fps, file)[:max_frames]
    times = np.array([time for time, _ in picked])
    pictures = [picture for _, picture in picked]
    picked.clear()
    return RealClip(frames=_stacked(pictures), times=times,
                    fps=float(fps) if fps else _mean_rate(times, info["source_fps"]), path=str(path),
                    source_size=info["size"], source_fps=info["source_fps"])


def _stacked(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures as one array, each let go of as it is copied: they are held once, not twice."""
    out = np.empty((len(pictures), *pictures[0].shape), pictures[0].dtype)
    for index in range(len(pictures)):
        out[index], pictures[index] = pictures[index], None
    return out


def existing_file(path) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise MotionLabError(f"A video path must be text or a Path, got {type(path).__name__}.")
    file = Path(path).expanduser()
    if file.is_dir():
        raise MotionLabError(f"'{file}' is a folder, not a video file.", fix="Name one file inside it.")
    if not file.exists():
        beside = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
        where = "" if file.parent.is_dir() else f" Its folder '{file.parent}' does not exist either."
        raise MotionLabError(f"There is no video file '{file}'.{where}{nearest(file.name, beside)}",
                             fix="Check the path; a relative path counts from the current folder.")
    if file.stat().st_size == 0:
        raise MotionLabError(f"'{file}' is empty (0 bytes).", fix="Download or copy it again.")
    return file


def _check_selection(fps, max_frames, first) -> None:
    if fps is not None and not (is_number(fps) and 0 < fps <= MAX_FPS):
        raise MotionLabError(f"fps must be a number above 0 and at most {MAX_FPS}, got {fps!r}.",
                             fix=f"Give {MAX_FPS} or less." if is_number(fps) and fps > 0 else "Give the rate that you want, such as 16.")
    if max_frames is not None and not (is_whole(max_frames) and max_frames >= 1):
        raise MotionLabError(f"max_frames must be a whole number >= 1, got {max_frames!r}.")
    if not (is_whole(first) and first >= 0):
        raise MotionLabError(f"first must be a whole number >= 0, got {first!r}.")


def _collect(file, fit, fps, max_frames, first) -> tuple[list, dict]:
    """Decode until everything selected is there: a list of (time, picture), and facts about the file."""
    picked, info, used = [], {}, 0
    for index, time, frame, facts in decode(file):
        info.update(facts)
        if index < first:
            continue
        picked.append((time, fit(to_rgb(frame))))
        used += picked[-1][1].nbytes
        _check_alike(picked, file, used)
        # Stop before the decoder is asked for more: what follows may be the damaged part.
        if _enough(picked, fps, max_frames):
            break
    return picked, info


def _enough(picked, fps, max_frames) -> bool:
    if max_frames is None:
        return False
    if fps is None:
        return len(picked) >= max_frames
    return picked[-1][0] > picked[0][0] + max_frames / fps


def _check_alike(picked, file, used: int) -> None:
    first, shape = picked[0][1].shape, picked[-1][1].shape
    if shape != first:
        raise MotionLabError(f"'{file}' changes its picture size from {first[:2]} to {shape[:2]} at frame {len(picked) - 1}.",
                             fix="Pass size=(height, width).")
    if used > MAX_BYTES:
        raise MotionLabError(f"'{file}' needs more than {MAX_BYTES / 1024**3:g} GiB of memory at {first[:2]} pixels "
                             f"(reached after {len(picked)} frames).",
                             fix="Pass max_frames= or a smaller size=.")


def _resample(picked: list, fps: float | None, file: Path) -> list:
    """Nearest frame in time to each tick of the new clock, which starts at the first frame."""
    if fps is None:
        return picked
    picked = sorted(picked, key=lambda entry: entry[0])
    times = np.array([time for time, _ in picked])
    spacing = np.median(np.diff(times)) if len(times) > 1 else 0.0
    count = int((times[-1] - times[0] + spacing) * fps + 1e-6) or 1
    if count * picked[0][1].nbytes > MAX_BYTES:
        raise MotionLabError(f"'{file}' at {fps:g} frames per second needs more than {MAX_BYTES / 1024**3:g} GiB of memory.",
                             fix="Ask for fewer frames per second, or pass max_frames= or a smaller size=.")
    ticks = times[0] + np.arange(count) / fps
    right = np.clip(np.searchsorted(times, ticks), 1, max(len(times) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    nearer = np.where(ticks - times[left] <= times[right] - ticks, left, right)
    return [picked[i] for i in nearer]


def _mean_rate(times: np.ndarray, source_fps: float) -> float:
    """Rate of the frames returned; where times do not rise, the file's rate."""
    if len(times) < 2 or np.any(np.diff(times) <= 0):
        return source_fps
    return round(float((len(times) - 1) / (times[-1] - times[0])), 6)
