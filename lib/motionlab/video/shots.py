"""Which shot of a file is read: a clip with cuts is several clips."""
from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.video.clip import RealClip
from motionlab.video.cuts import SIDE, find_cuts
from motionlab.video.reading import existing_file, read_video

UNEVEN = 1.8             # times the usual step between two frames: one is missing
SEARCHED = 1800          # frames in which shots are looked for: a minute at 30 per second, 50 MB at `SIDE`


@dataclass(frozen=True)
class Shot:
    """Frames first .. last of a file, counted from 0, both included."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"frames {self.first} to {self.last}"


def find_shots(path: str | os.PathLike) -> list[Shot]:
    """The shots among a file's first `SEARCHED` frames, in order; one where there is no cut. Errors as of `read_video`."""
    frames = read_video(path, size=(SIDE, SIDE), crop=None, max_frames=SEARCHED).frames
    edges = [0, *find_cuts(frames), len(frames)]
    return [Shot(first, after - 1) for first, after in zip(edges, edges[1:])]


def read_shot(path: str | os.PathLike, size=None, max_frames: int | None = None, shot: str | int = "", needed: int = 1) -> RealClip:
    """One shot of a file, from its first frame on.

    Args:
        size, max_frames: as of `read_video`. needed: how many frames there must be.
        shot: "" reads from the file's beginning, over whatever cuts there are, and prints where they are and what to set; "longest", or
            a number counted from 1, reads that shot.

    Raises:
        MotionLabError: as `read_video`; no such shot; fewer frames than needed (the lengths of all shots are named).
    """
    file = existing_file(path)
    if shot not in ("", None):
        chosen = chosen_shot(find_shots(file), shot, needed, str(path))
        return read_video(file, size, max_frames=min(len(chosen), max_frames or len(chosen)), first=chosen.first)
    clip = read_video(file, size, max_frames=max_frames)
    if len(clip.frames) < needed:
        raise MotionLabError(f"'{path}' has {counted(len(clip.frames), 'frame')}; this needs {needed}.",
                             fix="Give a longer clip." if len(clip.frames) > 1 else "Give a video: one frame is a picture.")
    if find_cuts(clip.frames):
        print(shots_said(find_shots(file), str(path), len(clip.frames)))
    return clip


def chosen_shot(shots: list[Shot], choice: str | int, needed: int, name: str) -> Shot:
    """The shot that `choice` ("longest", or a number counted from 1) means.

    Raises:
        MotionLabError: another word, no shot of that number, a shot of fewer frames than needed.
    """
    said = str(choice).strip().lower()
    if said == "longest":
        found = max(shots, key=len)
    elif said.isdecimal() and 1 <= int(said) <= len(shots):
        found = shots[int(said) - 1]
    else:
        raise MotionLabError(f"'{name}' has {counted(len(shots), 'shot')}, and shot={choice!r} is none of them.",
                             fix=f'Give "longest", or a number from 1 to {len(shots)}; "" reads from the beginning.')
    if len(found) < needed:
        longest = max(map(len, shots))
        raise MotionLabError(f"Shot {said} of '{name}' has {counted(len(found), 'frame')}; this needs {needed}. {lengths_said(shots)}",
                             fix='Set shot = "longest".' if longest >= needed else "Give a clip with a longer shot.")
    return found


def shots_said(shots: list[Shot], name: str, read: int) -> str:
    """A warning with the line to set, for whoever is about to read motion off the first `read` frames of a file."""
    cuts = [one.first for one in shots[1:] if one.first < read]
    longest = max(shots, key=len)
    where = "a cut" if not cuts else f"a cut at frame {cuts[0]}" if len(cuts) == 1 else f"cuts at frames {', '.join(map(str, cuts))}"
    return (f"'{name}' has {where}: what changes across a cut is no motion. {lengths_said(shots)} Set one:\n"
            f'    shot = "longest"    # {longest}; or its number, 1 to {len(shots)}')


def lengths_said(shots: list[Shot]) -> str:
    """The lengths of all shots, in frames, in a sentence."""
    whole = "" if shots[-1].last + 1 < SEARCHED else f" (of its first {SEARCHED} frames)"
    return f"Its shots{whole} have {', '.join(str(len(one)) for one in shots)} frames."


def uneven_said(clip: RealClip) -> str:
    """A line about frames that a file shows for unlike times, as phones and screen recorders write them; "" where they are even."""
    steps = np.diff(clip.times)
    if len(steps) < 2 or steps.max() < UNEVEN * max(np.median(steps), 1e-9):
        return ""
    return (f"'{clip.path}' shows its frames for {steps.min():.3f} to {steps.max():.3f} s: read one by one, what moves evenly seems to "
            f"speed up. `ffmpeg -i IN -vf fps={max(1, round(clip.source_fps))} OUT.mp4` makes them even.")


def counted(number: int, what: str) -> str:
    """'1 frame', '3 frames'."""
    return f"{number} {what}" + ("" if number == 1 else "s")
