"""Any file that PyAV reads as frames with their true times."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.video.clip import MAX_BYTES, MAX_FPS, RealClip, is_number, is_whole
from motionlab.video.decoding import decode, to_rgb
from motionlab.video.fitting import fitter


def read_video(path: str | os.PathLike, frames: int | slice | range | Sequence[int] | None = None,
               seconds: tuple[float, float] | None = None, size: int | tuple[int, int] | None = None,
               crop: str | None = "center", fps: float | None = None, max_frames: int | None = None,
               damaged: str = "error") -> RealClip:
    """Read a clip, by frame index or by time. One frame is a correct clip.

    Args:
        path: any file that PyAV reads; a picture is a clip of one frame.
        frames: indices counted from 0 (slice, range, list or one int; negative ones count from the end). A slice or
            range is trimmed to the clip, a listed index outside it is an error.
        seconds: (start, end): frames shown at start <= time < end. Not together with `frames`.
        size: (height, width), or the short side (the aspect is then kept). Rotation stored in the file comes first.
        crop: with (height, width), 'center' keeps the aspect and cuts the middle out; None stretches (as MTBench does).
        fps: resample to this rate by nearest time. Above the file's rate it repeats frames: `times` shows which.
        max_frames: keep the first so many of what the other options select.
        damaged: 'error', or 'keep' to take what the decoder can conceal and to stop quietly where it cannot.

    Raises:
        MotionLabError: no such file, empty, no picture track, damaged, nothing selected, or too large for memory.
    """
    file = existing_file(path)
    wanted = _check_selection(frames, seconds, fps, max_frames)
    one_of(damaged, ["error", "keep"], "value of damaged=")
    fit = fitter(size, crop)
    if wanted is not None and _counts_from_end(wanted):
        wanted = _resolve(wanted, sum(1 for _ in decode(file, damaged)), file)
    picked, info = _collect(file, wanted, seconds, fit, fps, max_frames, damaged)
    if not picked:
        raise MotionLabError(_nothing_selected(file, frames, seconds, info),
                             fix="Ask for a part that lies inside the clip.")
    if wanted is not None and not isinstance(wanted, (range, slice)):
        picked = _in_asked_order(picked, wanted, file, info)
    picked = _resample(picked, fps, file)[:max_frames]
    times = np.array([time for _, time, _ in picked])
    pictures = [picture for *_, picture in picked]
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


def _check_selection(frames, seconds, fps, max_frames) -> range | slice | list[int] | None:
    if frames is not None and seconds is not None:
        raise MotionLabError("Give either frames= or seconds=, not both.")
    if fps is not None and not (is_number(fps) and 0 < fps <= MAX_FPS):
        raise MotionLabError(f"fps must be a number above 0 and at most {MAX_FPS}, got {fps!r}.",
                             fix=f"Give {MAX_FPS} or less." if is_number(fps) and fps > 0 else "Give the rate that you want, such as 16.")
    if max_frames is not None and not (is_whole(max_frames) and max_frames >= 1):
        raise MotionLabError(f"max_frames must be a whole number >= 1, got {max_frames!r}.")
    if seconds is not None:
        numbers_given = isinstance(seconds, (tuple, list)) and len(seconds) == 2 and all(map(is_number, seconds))
        if not numbers_given or not 0 <= seconds[0] < seconds[1]:
            raise MotionLabError(f"seconds must be (start, end) with 0 <= start < end, got {seconds!r}.")
    if frames is None:
        return None
    if is_whole(frames):
        return [int(frames)]
    if isinstance(frames, slice):
        if not all(bound is None or is_whole(bound) for bound in (frames.start, frames.stop, frames.step)) \
                or frames.step == 0:
            raise MotionLabError(f"frames={frames!r} is no valid slice.",
                                 fix="Use whole numbers and a step other than 0.")
        return frames
    if isinstance(frames, range):
        return frames
    indices = list(frames) if isinstance(frames, (list, tuple, np.ndarray)) else None
    if not indices or not all(map(is_whole, indices)):
        raise MotionLabError(f"frames must be a slice, a range or a list of whole numbers, got {frames!r}.",
                             fix="For a time span use seconds=(start, end).")
    return [int(index) for index in indices]


def _counts_from_end(wanted) -> bool:
    """True where the length of the clip must be known before the indices mean anything."""
    if isinstance(wanted, slice):
        return any(bound is not None and bound < 0 for bound in (wanted.start, wanted.stop, wanted.step))
    ends = (wanted[0], wanted[-1]) if isinstance(wanted, range) and wanted else wanted  # a range may be of any length
    return any(index < 0 for index in ends)


def _resolve(wanted, count: int, file: Path) -> list[int]:
    if isinstance(wanted, slice):
        return list(range(count))[wanted]
    if isinstance(wanted, range):
        return [index % count for index in range(-count, count) if index in wanted][::1 if wanted.step > 0 else -1]
    outside = [index for index in wanted if not -count <= index < count]
    if outside:
        raise MotionLabError(f"Frame {outside[0]} was asked for, but '{file}' has {count} frames.")
    return [index % count for index in wanted]


def _collect(file, wanted, seconds, fit, fps, max_frames, damaged) -> tuple[list, dict]:
    """Decode until everything selected is there: a list of (index, time, picture), and facts about the file."""
    picked, info, used = [], {"count": 0}, 0
    chosen = _membership(wanted)
    last = _last_index(wanted)
    until = None if seconds is None else seconds[1]
    for index, time, frame, facts in decode(file, damaged, start=seconds[0] if seconds else 0.0):
        info.update(facts, count=index + 1, last_time=time)
        if until is not None and time >= until:
            break
        if chosen(index) and (seconds is None or time >= seconds[0]):
            picked.append((index, time, fit(to_rgb(frame))))
            used += picked[-1][2].nbytes
            _check_alike(picked, file, used)
        # Stop before the decoder is asked for more: what follows may be the damaged part.
        if (last is not None and index >= last) or _enough(picked, time, fps, max_frames, wanted):
            break
    return picked, info


def _membership(wanted) -> Callable[[int], bool]:
    if wanted is None:
        return lambda index: True
    if isinstance(wanted, slice):
        start, stop, step = wanted.start or 0, wanted.stop, wanted.step or 1
        return lambda index: index >= start and (stop is None or index < stop) and (index - start) % step == 0
    return wanted.__contains__ if isinstance(wanted, range) else set(wanted).__contains__


def _last_index(wanted) -> int | None:
    if wanted is None:
        return None
    if isinstance(wanted, slice):
        return None if wanted.stop is None else wanted.stop - 1
    return max((wanted[0], wanted[-1]) if isinstance(wanted, range) and wanted else wanted, default=-1)


def _enough(picked, time, fps, max_frames, wanted) -> bool:
    if max_frames is None or not picked or isinstance(wanted, (list, range)):
        return False
    if fps is None:
        return len(picked) >= max_frames
    return time > picked[0][1] + max_frames / fps


def _check_alike(picked, file, used: int) -> None:
    first, index, shape = picked[0][2].shape, picked[-1][0], picked[-1][2].shape
    if shape != first:
        raise MotionLabError(f"'{file}' changes its picture size from {first[:2]} to {shape[:2]} at frame {index}.",
                             fix="Pass size=(height, width).")
    if used > MAX_BYTES:
        raise MotionLabError(f"'{file}' needs more than {MAX_BYTES / 1024**3:g} GiB of memory at {first[:2]} pixels "
                             f"(reached after {len(picked)} frames).",
                             fix="Pass seconds=(start, end), max_frames= or a smaller size=.")


def _in_asked_order(picked, wanted, file, info) -> list:
    found = {entry[0]: entry for entry in picked}
    missing = [index for index in wanted if index not in found]
    if missing:
        raise MotionLabError(f"Frame {missing[0]} was asked for, but '{file}' has {info['count']} frames.",
                             fix=f"Valid indices are 0 to {info['count'] - 1}.")
    return [found[index] for index in wanted]


def _resample(picked: list, fps: float | None, file: Path) -> list:
    """Nearest frame in time to each tick of the new clock, which starts at the first frame."""
    if fps is None:
        return picked
    picked = sorted(picked, key=lambda entry: entry[1])
    times = np.array([time for _, time, _ in picked])
    spacing = np.median(np.diff(times)) if len(times) > 1 else 0.0
    count = int((times[-1] - times[0] + spacing) * fps + 1e-6) or 1
    if count * picked[0][2].nbytes > MAX_BYTES:
        raise MotionLabError(f"'{file}' at {fps:g} frames per second needs more than {MAX_BYTES / 1024**3:g} GiB of memory.",
                             fix="Ask for fewer frames per second, or pass seconds=(start, end), max_frames= or a smaller size=.")
    ticks = times[0] + np.arange(count) / fps
    right = np.clip(np.searchsorted(times, ticks), 1, max(len(times) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    nearer = np.where(ticks - times[left] <= times[right] - ticks, left, right)
    return [picked[i] for i in nearer]


def _mean_rate(times: np.ndarray, source_fps: float) -> float:
    """Rate of the frames returned; lists in another order than time keep the file's rate."""
    if len(times) < 2 or np.any(np.diff(times) <= 0):
        return source_fps
    return round(float((len(times) - 1) / (times[-1] - times[0])), 6)


def _nothing_selected(file, frames, seconds, info) -> str:
    if "last_time" not in info:
        return f"'{file}' has no frame" + (f" at or after {seconds[0]} s." if seconds else " that can be decoded.")
    asked = f"frames={frames!r}" if seconds is None else f"seconds={tuple(seconds)!r}"
    reached = f"it was read up to frame {info['count'] - 1} at {info['last_time']:.3f} s"
    return f"{asked} selects nothing from '{file}': {reached}."
