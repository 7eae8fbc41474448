"""Can a video be read? Asked before hours are spent, by its first and its last frame."""
from __future__ import annotations

import os
from dataclasses import dataclass

from motionlab.core.errors import MotionLabError
from motionlab.video.decoding import REWRITE, decode, opened, picture_track, promised_seconds
from motionlab.video.reading import existing_file

LAST_S = 2.0  # how far before its end the last frame is looked for


@dataclass(frozen=True)
class Probe:
    """What a file says of itself. size: (height, width) as shown; seconds: of its last frame's end, as promised (0: not said)."""

    size: tuple[int, int]
    fps: float
    seconds: float


def probe_video(path: str | os.PathLike) -> Probe:
    """Decode a video's first frame and its last ones.

    Raises:
        MotionLabError: no such file, no video, no picture track, damaged at its beginning or end, cut off.
    """
    file = existing_file(path)
    with opened(file) as container:
        seconds = promised_seconds(container, picture_track(container, file))
    facts: dict = {}
    for *_, facts in decode(file):
        break
    for *_, found in decode(file, start=max(0.0, seconds - LAST_S)):
        facts = facts or found
    if "size" not in facts:
        raise MotionLabError(f"'{file}' has no frame that can be decoded.", fix=REWRITE)
    return Probe(facts["size"], facts["source_fps"], seconds)
