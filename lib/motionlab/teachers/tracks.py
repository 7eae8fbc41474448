"""Point tracks of a clip by the name of a teacher, and their error against the truth.

All points are given at one query frame, where they are visible by definition, and followed from there in both directions
of time. Tracks are (x, y) in pixels, (f, n, 2), with visibility bool (f, n).
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.teachers.cotracker import cotracker_tracks
from motionlab.teachers.flow import call_teacher, check_world_clip
from motionlab.teachers.following import lucas_kanade_tracks
from motionlab.teachers.points import Tracks, check_query


def tracks(frames: np.ndarray, points: np.ndarray, query_frame: int = 0, teacher: str = "lucas_kanade",
           **options) -> Tracks:
    """Tracks of `points` from the named teacher; `options` are that teacher's own.

    Args:
        frames: uint8 (f, h, w, 3), f >= 2; for 'exact' a clip of the world instead.
        points: (n, 2), (x, y) in pixels at `query_frame`.
        query_frame: index of the frame in which the points are given.
        teacher: 'exact', 'lucas_kanade' or 'cotracker'.

    Raises:
        MotionLabError: unknown teacher or option, and what the teacher itself raises.
    """
    return call_teacher(TRACK_TEACHERS, teacher, options, frames, points, query_frame)


def exact_tracks(clip, points: np.ndarray, query_frame: int = 0) -> Tracks:
    """True tracks of the surface points seen at `points` (n, 2) of `query_frame` of a world clip.

    Args:
        clip: a `motionlab.world.Clip` in place of frames.

    Raises:
        MotionLabError: not a world clip, fewer than two frames, points outside the frame.
    """
    check_world_clip(clip)
    return Tracks(*clip.tracks(points, query_frame))


TRACK_TEACHERS: dict[str, Callable] = {"exact": exact_tracks, "lucas_kanade": lucas_kanade_tracks, "cotracker": cotracker_tracks}


def track_error(tracks: Tracks | np.ndarray, truth: np.ndarray, visible: np.ndarray, query_frame: int | None = None) -> float:
    """Mean distance between tracks and their truth, in pixels, where the truth is visible.

    Points that a teacher lost keep their last position and count in full, so giving up is not rewarded.

    Args:
        tracks: `Tracks`, or (f, n, 2).
        truth: (f, n, 2), pixels.
        visible: bool (f, n), visibility in truth.
        query_frame: left out when given (its error is zero by construction).

    Raises:
        MotionLabError: shapes differ, NaN where it counts, or nothing is visible.
    """
    xy = np.asarray(tracks.xy if isinstance(tracks, Tracks) else tracks, dtype=np.float64)
    truth, counts = np.asarray(truth, dtype=np.float64), np.asarray(visible)
    if xy.ndim != 3 or xy.shape[-1] != 2 or xy.shape != truth.shape:
        raise MotionLabError(f"Tracks and truth must both be (f, n, 2); got {xy.shape} and {truth.shape}.")
    if counts.shape != xy.shape[:2] or counts.dtype != bool:
        raise MotionLabError(f"visible must be bool {xy.shape[:2]}, got {counts.dtype} {counts.shape}.")
    if query_frame is not None:
        counts = counts.copy()
        counts[check_query(query_frame, len(xy), "track_error")] = False
    if not counts.any():
        raise MotionLabError("No point is visible in truth: there is nothing to compare.")
    error = np.linalg.norm(xy - truth, axis=-1)
    if not np.isfinite(error[counts]).all():
        raise MotionLabError("The tracks or their truth hold NaN where the truth is visible.")
    return float(np.mean(error[counts]))
