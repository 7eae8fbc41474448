"""Frames of a file one by one, and what is wrong with a file that gives none."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.video.clip import MAX_PIXELS

REWRITE = "Download or export it again; `ffmpeg -i IN -c:v libx264 OUT.mp4` rewrites what is still readable."


def decode(file: Path, start: float = 0.0) -> Iterator[tuple[int, float, object, dict]]:
    """Yield (index, time, PyAV frame, facts).

    With `start` > 0 decoding, and counting, may begin at a key frame before it.
    """
    import av

    with opened(file) as container:
        stream = picture_track(container, file)
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"err_detect": "explode"}  # else the decoder paints over what it cannot read, and invents motion
        facts = _facts(stream)
        _seek(container, stream, start)
        index, end = -1, 0.0
        try:
            for index, frame in enumerate(container.decode(stream)):
                if frame.is_corrupt:
                    raise ValueError("the decoder marks it as corrupt")
                time = _time_of(frame, stream, index, facts["source_fps"])
                facts["size"] = _shown_size(frame)
                end = time + _shown_for(frame, stream)
                yield index, time, frame, facts
        except (av.error.FFmpegError, ValueError, EOFError, IndexError) as error:
            raise _damage(file, index, end, reason_of(error)) from None
        _check_whole(file, container, stream, index, end)


@contextmanager
def opened(file: Path):
    import av

    try:
        container = av.open(str(file), metadata_errors="ignore")
    except PermissionError:
        raise MotionLabError(f"'{file}' may not be read (no permission).") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MotionLabError(f"'{file}' cannot be read as a video ({reason_of(error)}).",
                             fix=f"It is damaged, incomplete or no video file. {REWRITE}") from None
    try:
        yield container
    finally:
        container.close()


def picture_track(container, file: Path):
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


def to_rgb(frame) -> np.ndarray:
    if frame.width * frame.height > MAX_PIXELS:
        raise MotionLabError(f"A frame has {frame.width} x {frame.height} pixels.", fix=f"Frames are read up to {MAX_PIXELS:,} pixels.")
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _turns(frame)))


def _check_whole(file, container, stream, index: int, end: float) -> None:
    """A file cut off in transfer may end without an error: compare with the duration that its header promises."""
    promised = promised_seconds(container, stream)
    if promised and promised - end > max(0.5, 0.1 * promised):
        raise _damage(file, index, end, f"the header promises {promised:.2f} s")


def promised_seconds(container, stream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    alone = all(other is stream for other in container.streams)
    return container.duration / 1e6 if container.duration and alone else 0.0


def _damage(file, index: int, end: float, reason: str) -> MotionLabError:
    if index < 1:
        return MotionLabError(f"No frame of '{file}' can be decoded ({reason}).", fix=REWRITE)
    return MotionLabError(f"'{file}' is damaged or cut off after about frame {index} at {end:.2f} s ({reason}).",
                          fix=f"Read its intact part with max_frames={index}. {REWRITE}")


def reason_of(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
