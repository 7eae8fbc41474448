"""The audit's two real cases: windows of a camera clip, and the published tracks of a user's MTBench folder."""
from __future__ import annotations

import numpy as np

from motionlab.metrics.audit import audit_tracks
from motionlab.metrics.motion import seen_tracks
from motionlab.teachers.following import lucas_kanade_tracks
from motionlab.video import find_sample_clip, read_mtbench, read_video

WINDOW, STRIDE = 17, 8


def camera_rows(path=None, spacing: int = 12) -> list[dict]:
    """Audit rows on windows of a camera clip: Lucas-Kanade tracks of a grid, "another clip" is the window half-way round.

    Args:
        path: a video; None takes the sample clip. spacing: of the grid of query points, in pixels.
    """
    clip = read_video(path or find_sample_clip(), size=144, max_frames=121)
    h, w = clip.frames.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(12, w - 12, spacing), np.arange(12, h - 12, spacing)), -1).reshape(-1, 2).astype(float)
    windows = [_seen(lucas_kanade_tracks(clip.frames[s:s + WINDOW], grid)) for s in _starts(len(clip.frames))]
    return _rows("camera", windows, (h, w))


def mtbench_rows(folder) -> list[dict]:
    """Audit rows on published tracks: source "mtbench" for windows, "mtbench_full" for whole clips."""
    clips = read_mtbench(folder)
    rows = []
    for k, clip in enumerate(clips):
        other = clips[(k + 1) % len(clips)].xy.astype(np.float64)
        xy = clip.xy.astype(np.float64)
        rows += _tag("mtbench_full", audit_tracks(f"{clip.name}-full", xy, clip.size, other, seed=k))
        for s in _starts(len(xy)):
            rows += _tag("mtbench", audit_tracks(f"{clip.name}-{s}", xy[s:s + WINDOW], clip.size, other[s:s + WINDOW], seed=s))
    return rows


def _starts(length):
    return range(0, length - WINDOW + 1, STRIDE)


def _seen(tracks):
    return tracks.xy[:, seen_tracks(tracks.visible, 0.9)].astype(np.float64)


def _rows(source, windows, size):
    half = len(windows) // 2
    return [row for k, tracks in enumerate(windows)
            for row in _tag(source, audit_tracks(f"{source}-{k}", tracks, size, windows[(k + half) % len(windows)], seed=k))]


def _tag(source, rows):
    return [row | {"source": source} for row in rows]
