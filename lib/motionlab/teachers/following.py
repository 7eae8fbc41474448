"""Trackers that need no weights: pyramidal Lucas-Kanade and chained flow, step by step from the query frame."""
from __future__ import annotations

import math
import numbers
from collections.abc import Callable

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.teachers.flow import one_thread
from motionlab.teachers.points import Tracks, check_points, check_query, inside
from motionlab.video import check_frames


def lucas_kanade_tracks(frames: np.ndarray, points: np.ndarray, query_frame: int = 0, fb_threshold: float = 1.0,
                        window: int | None = None, levels: int = 3) -> Tracks:
    """Pyramidal Lucas-Kanade (Bouguet 2000; OpenCV's) with a forward-backward check (Kalal et al. 2010).

    A point is lost where it cannot be followed (no texture), leaves the frame, or does not come back to within
    `fb_threshold` when tracked back by one frame. Lost points stay lost, keep their last position, and are invisible.

    Args:
        frames: uint8 (f, h, w, 3), f >= 2.
        points: (n, 2), (x, y) in pixels at `query_frame`.
        query_frame: index of the frame in which the points are given.
        fb_threshold: pixels.
        window: side of the matched patch; None: an eighth of the short side, within 7 and 21.
        levels: pyramid levels above the full size.

    Raises:
        MotionLabError: bad or too few frames, bad points, query frame or options.
    """
    import cv2

    who = "lucas_kanade_tracks"
    frames = check_frames(frames, at_least=2, who=who)
    count, height, width = frames.shape[:3]
    points = check_points(points, height, width, who)
    query_frame = check_query(query_frame, count, who)
    _check_threshold(fb_threshold, who)
    window = _window(window, min(height, width), who)
    if not isinstance(levels, numbers.Integral) or not 0 <= levels <= 10:
        raise MotionLabError(f"{who}: levels must be a whole number from 0 to 10, got {levels!r}.")
    grays = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
    options = dict(winSize=(window, window), maxLevel=int(levels),
                   criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01))

    def step(t: int, s: int, xy: np.ndarray):
        there, found, _ = cv2.calcOpticalFlowPyrLK(grays[t], grays[s], xy[:, None], None, **options)
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(grays[s], grays[t], there, None, **options)
        there, back = there[:, 0], back[:, 0]
        kept = (found[:, 0] == 1) & (found_back[:, 0] == 1) & inside(there, height, width)
        return there, kept & (np.linalg.norm(back - xy, axis=-1) < fb_threshold)

    with one_thread():
        return _both_ways(points, query_frame, count, step)


def _window(window, short: int, who: str) -> int:
    if window is None:
        return int(np.clip(short // 8, 7, 21)) | 1
    if not isinstance(window, numbers.Integral) or not 3 <= window <= 101:
        raise MotionLabError(f"{who}: window must be a whole number from 3 to 101, got {window!r}.")
    return int(window)


def chain_flow_tracks(flow_fwd: np.ndarray, points: np.ndarray, query_frame: int = 0,
                      flow_bwd: np.ndarray | None = None, fb_threshold: float = 1.0) -> Tracks:
    """Follow points along a flow, read bilinearly at their sub-pixel places.

    With backward flow, points that do not come back to within `fb_threshold` count as lost (occluded), and query frames
    other than 0 are possible. Without it, visible only means inside the frame: occlusion goes unnoticed.

    Args:
        flow_fwd: (f-1, 2, h, w), frame t -> t+1, pixels per frame.
        points: (n, 2), (x, y) in pixels at `query_frame`.
        query_frame: index of the frame in which the points are given.
        flow_bwd: (f-1, 2, h, w), frame t+1 -> t.
        fb_threshold: pixels; used with `flow_bwd` only.

    Raises:
        MotionLabError: bad flow, points or query frame.
    """
    who = "chain_flow_tracks"
    forward = _check_flow(flow_fwd, who)
    steps, _, height, width = forward.shape
    backward = None if flow_bwd is None else _check_flow(flow_bwd, who)
    if backward is not None and backward.shape != forward.shape:
        raise MotionLabError(f"{who}: forward flow is {forward.shape}, but backward flow {backward.shape}.")
    points = check_points(points, height, width, who)
    query_frame = check_query(query_frame, steps + 1, who)
    _check_threshold(fb_threshold, who)
    if query_frame and backward is None:
        raise MotionLabError(f"{who}: query frame {query_frame} needs backward flow too.", fix="Pass flow_bwd=.")

    def step(t: int, s: int, xy: np.ndarray):
        there_flow, back_flow = (forward, backward) if s > t else (backward, forward)
        between = min(t, s)
        there = xy + _bilinear(there_flow[between], xy)
        kept = inside(there, height, width)
        if back_flow is not None:
            kept &= np.linalg.norm(there + _bilinear(back_flow[between], there) - xy, axis=-1) < fb_threshold
        return there, kept

    return _both_ways(points, query_frame, steps + 1, step)


def _check_flow(flow, who: str) -> np.ndarray:
    flow = np.asarray(flow, dtype=np.float32)
    if flow.ndim != 4 or flow.shape[1] != 2 or 0 in flow.shape:
        raise MotionLabError(f"{who} needs flow (f-1, 2, h, w) with f >= 2, got shape {flow.shape}.")
    if not np.isfinite(flow).all():
        raise MotionLabError(f"{who} got flow with NaN or infinite values.",
                             fix="Fill unknown vectors before chaining.")
    return flow


def _bilinear(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """field (2, h, w) read at xy (n, 2) -> (n, 2); beyond the outer pixel centres the border's value holds."""
    height, width = field.shape[1:]
    x, y = np.clip(xy[:, 0], 0, width - 1), np.clip(xy[:, 1], 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    a, b = x - left, y - top
    upper = (1 - a) * field[:, top, left] + a * field[:, top, right]
    lower = (1 - a) * field[:, bottom, left] + a * field[:, bottom, right]
    return ((1 - b) * upper + b * lower).T


def _both_ways(points, query_frame: int, count: int, step: Callable) -> Tracks:
    """Follow `points` from the query frame to the end and to the beginning.

    `step(t, s, xy)` moves points of frame t to the neighbouring frame s and returns (xy, kept). What is lost stays lost
    and keeps its last position.
    """
    xy = np.repeat(points[None].astype(np.float32), count, axis=0)
    visible = np.zeros((count, len(points)), bool)
    visible[query_frame] = True
    order = [(t, t + 1) for t in range(query_frame, count - 1)] + [(t, t - 1) for t in range(query_frame, 0, -1)]
    for t, s in order:
        alive = np.flatnonzero(visible[t])
        xy[s] = xy[t]
        if len(alive):
            moved, kept = step(t, s, xy[t, alive])
            xy[s, alive[kept]] = moved[kept]
            visible[s, alive[kept]] = True
    return Tracks(xy, visible)


def _check_threshold(value, who: str) -> None:
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or value <= 0:
        raise MotionLabError(f"{who}: fb_threshold must be a positive number of pixels, got {value!r}.")
