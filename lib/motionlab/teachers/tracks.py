"""Point tracks of a clip: pyramidal Lucas-Kanade and chained flow (no weights), CoTracker3 (weights by path).

Tracks are (x, y) in pixels, (f, n, 2), with visibility bool (f, n); pixel (row j, column i) has its centre at x = i,
y = j. All points are given at one query frame, where they are visible by definition, and followed from there in both
directions of time.
"""
from __future__ import annotations

import importlib
import math
import numbers
import sys
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.teachers.flow import check_world_clip, call_teacher, load_state, one_thread, to_device
from motionlab.video import check_frames

# The predictor's own threshold, at which the tracks of MTBench were made (method card det, section 3.1).
COTRACKER_THRESHOLD = 0.9


@dataclass(frozen=True)
class Tracks:
    """Tracks of n points through f frames.

    Attributes:
        xy: float32 (f, n, 2), (x, y) in pixels.
        visible: bool (f, n). Where False, `xy` is a placeholder or a guess, never a measurement.
    """

    xy: np.ndarray
    visible: np.ndarray


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


def check_points(points: np.ndarray, height: int, width: int, who: str = "This function") -> np.ndarray:
    """Return `points` as float32 (n, 2), n >= 1.

    Raises:
        MotionLabError: another shape, no points, NaN, or points outside the frame.
    """
    try:
        points = np.asarray(points, dtype=np.float32)
    except (ValueError, TypeError):
        raise MotionLabError(f"{who} needs points as numbers (n, 2).") from None
    if points.ndim != 2 or points.shape[-1] != 2 or not len(points):
        raise MotionLabError(f"{who} needs at least one point, (n, 2) as (x, y) pixels; got shape {points.shape}.")
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(-1))[0])
        raise MotionLabError(f"{who}: point {bad} is {points[bad].tolist()}.", fix="Leave NaN points out.")
    outside = ~_inside(points, height, width)
    if outside.any():
        bad = int(np.flatnonzero(outside)[0])
        swapped = _inside(points[:, ::-1], height, width).all()
        hint = " Swapped they would all fit: points are (x, y), not (row, column)." if swapped else ""
        raise MotionLabError(f"{who}: {int(outside.sum())} of {len(points)} points lie outside the {width}x{height} "
                             f"frame, the first is point {bad} at {points[bad].tolist()}.",
                             fix=f"Query points inside the frame only.{hint}")
    return points


def _inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels reach half a pixel beyond their centres."""
    x, y = points[..., 0], points[..., 1]
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def _check_query(query_frame, count: int, who: str) -> int:
    if not isinstance(query_frame, numbers.Integral) or not 0 <= query_frame < count:
        raise MotionLabError(f"{who}: query_frame must be a whole number from 0 to {count - 1}, got {query_frame!r}.")
    return int(query_frame)


def _check_threshold(value, who: str) -> None:
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or value <= 0:
        raise MotionLabError(f"{who}: fb_threshold must be a positive number of pixels, got {value!r}.")


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


# --- Lucas-Kanade ---------------------------------------------------------------------------------


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
    query_frame = _check_query(query_frame, count, who)
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
        kept = (found[:, 0] == 1) & (found_back[:, 0] == 1) & _inside(there, height, width)
        return there, kept & (np.linalg.norm(back - xy, axis=-1) < fb_threshold)

    with one_thread():
        return _both_ways(points, query_frame, count, step)


def _window(window, short: int, who: str) -> int:
    if window is None:
        return int(np.clip(short // 8, 7, 21)) | 1
    if not isinstance(window, numbers.Integral) or not 3 <= window <= 101:
        raise MotionLabError(f"{who}: window must be a whole number from 3 to 101, got {window!r}.")
    return int(window)


# --- chained flow ---------------------------------------------------------------------------------


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
    query_frame = _check_query(query_frame, steps + 1, who)
    _check_threshold(fb_threshold, who)
    if query_frame and backward is None:
        raise MotionLabError(f"{who}: query frame {query_frame} needs backward flow too.", fix="Pass flow_bwd=.")

    def step(t: int, s: int, xy: np.ndarray):
        there_flow, back_flow = (forward, backward) if s > t else (backward, forward)
        between = min(t, s)
        there = xy + _bilinear(there_flow[between], xy)
        kept = _inside(there, height, width)
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


# --- CoTracker3 -----------------------------------------------------------------------------------


def cotracker_tracks(frames: np.ndarray, points: np.ndarray, query_frame: int = 0, checkpoint: str | Path | None = None,
                     hub_dir: str | Path | None = None, visibility_threshold: float = COTRACKER_THRESHOLD,
                     device: str = "cpu", predictor: Callable | None = None) -> Tracks:
    """CoTracker3 tracks (Karaev et al. 2024, arXiv 2410.11831) from a package or a local copy, never a download.

    Queries are (t, x, y) with t = `query_frame`. (The DeT release filled t with ones, which pinned the points of its
    frame-0 mask to frame 1: method card det, section 3.1.) Positions of invisible points are the network's guesses.
    CoTracker's code and weights are under a non-commercial licence.

    Args:
        frames: uint8 (f, h, w, 3), f >= 2.
        points: (n, 2), (x, y) in pixels at `query_frame`.
        query_frame: index of the frame in which the points are given.
        checkpoint: weights file, e.g. scaled_offline.pth; 'online' in its name selects that network, windows of 16.
        hub_dir: a checkout of the CoTracker repository, used where the package is not installed; None also looks in
            torch.hub's folder.
        visibility_threshold: a point is visible where the predicted probability is above it.
        device: a torch device.
        predictor: an object to call instead of loading one: predictor(video, queries=, backward_tracking=) ->
            (tracks (1, f, n, 2), visibility (1, f, n)).

    Raises:
        MotionLabError: bad frames or points, no code or no weights, or an answer of another shape.
    """
    import torch

    who = "cotracker_tracks"
    frames = check_frames(frames, at_least=2, who=who)
    count, height, width = frames.shape[:3]
    if min(height, width) < 2:
        raise MotionLabError(f"{who} needs frames of at least 2x2 pixels, got {height}x{width}.")
    points = check_points(points, height, width, who)
    query_frame = _check_query(query_frame, count, who)
    if not isinstance(visibility_threshold, numbers.Real) or not 0 < visibility_threshold < 1:
        raise MotionLabError(f"{who}: visibility_threshold must lie between 0 and 1, got {visibility_threshold!r}.")
    if predictor is None:
        predictor = _load_cotracker(checkpoint, hub_dir, device)
    video = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))[None].float().to(device)
    queries = torch.cat([torch.full((len(points), 1), float(query_frame)), torch.from_numpy(points)], dim=1)[None]
    with torch.inference_mode(), _thresholded(predictor, visibility_threshold):
        xy, visible = predictor(video, queries=queries.to(device), backward_tracking=query_frame > 0)
    return _cotracker_answer(xy, visible, visibility_threshold, count, len(points))


@contextmanager
def _thresholded(predictor, threshold: float):
    """Make the predictor's fixed threshold act as ours: its network then answers 1 above `threshold` and 0 below."""
    model = getattr(predictor, "model", None)
    if threshold == COTRACKER_THRESHOLD or model is None:
        yield
        return
    original, own = model.forward, vars(model).get("forward")

    def forward(*args, **kwargs):
        xy, visibility, *rest = original(*args, **kwargs)
        return xy, (visibility > threshold).to(visibility.dtype), *rest

    model.forward = forward
    try:
        yield
    finally:
        del model.forward  # uncovers the class's own method
        if own is not None:
            model.forward = own  # somebody had put it there before us


def _cotracker_answer(xy, visible, threshold: float, count: int, points: int) -> Tracks:
    visible = visible.squeeze(-1) if visible.ndim == 4 else visible
    if tuple(xy.shape) != (1, count, points, 2) or tuple(visible.shape) != (1, count, points):
        raise MotionLabError(f"CoTracker answered tracks {tuple(xy.shape)} and visibility {tuple(visible.shape)} where "
                             f"(1, {count}, {points}, 2) and (1, {count}, {points}) were expected.",
                             fix="Use the whole-video predictor (CoTrackerPredictor) of CoTracker3.")
    visible = visible[0] if visible.dtype.is_floating_point is False else visible[0] > threshold
    xy = xy[0].float().cpu().numpy()
    if not np.isfinite(xy).all():
        raise MotionLabError("CoTracker answered NaN positions.", fix="Check the checkpoint; try device='cpu'.")
    return Tracks(xy, visible.bool().cpu().numpy())


def _load_cotracker(checkpoint, hub_dir, device: str):
    advice = "Fetch scaled_offline.pth of CoTracker3 and pass checkpoint=PATH; teacher 'lucas_kanade' needs no weights."
    if checkpoint is None:
        raise MotionLabError("CoTracker needs weights, and no checkpoint was named.", fix=advice)
    file = Path(checkpoint).expanduser()
    if not file.is_file():
        raise MotionLabError(f"There are no CoTracker weights at '{file}'.", fix=advice)
    make = _cotracker_class(hub_dir)
    state = load_state(file)
    online = "online" in file.name
    predictor = make(checkpoint=None, offline=not online, window_len=16 if online else 60)
    try:
        predictor.model.load_state_dict(state)
    except RuntimeError as error:
        raise MotionLabError(f"'{file}' does not fit CoTracker3 ({str(error).splitlines()[-1].strip()}).",
                             fix="Use scaled_offline.pth, or keep 'online' in the name of online weights.") from None
    return to_device(predictor, device)


def find_cotracker(hub_dir: str | Path | None = None) -> Path | None:
    """A local checkout of CoTracker: `hub_dir` if given, else in torch.hub's folder; None where there is none."""
    import torch

    if hub_dir is not None:
        folders = [Path(hub_dir).expanduser()]
    else:
        folders = sorted(Path(torch.hub.get_dir()).glob("facebookresearch_co-tracker_*"))
    return next((folder for folder in folders if (folder / "cotracker" / "predictor.py").is_file()), None)


def _cotracker_class(hub_dir):
    """The predictor class of the package, or of a checkout that is on the path only while it is imported."""
    folder = find_cotracker(hub_dir)
    if hub_dir is not None and folder is None:
        raise MotionLabError(f"'{hub_dir}' holds no CoTracker (cotracker/predictor.py).",
                             fix="Give the folder of a checkout of facebookresearch/co-tracker.")
    with _on_path(folder) if folder else nullcontext():
        try:
            return importlib.import_module("cotracker.predictor").CoTrackerPredictor
        except ImportError as error:
            raise MotionLabError(f"CoTracker is not installed ({error}).",
                                 fix="pip install git+https://github.com/facebookresearch/co-tracker, or pass hub_dir= "
                                     "(a checkout). Its licence is non-commercial.") from None


@contextmanager
def _on_path(folder: Path):
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


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


# --- error against the truth ----------------------------------------------------------------------


def track_error(tracks: Tracks | np.ndarray, truth: np.ndarray, visible: np.ndarray, query_frame: int | None = None,
                reduce: str = "mean"):
    """Distance between tracks and their truth, in pixels, where the truth is visible.

    Points that a teacher lost keep their last position and count in full, so giving up is not rewarded.

    Args:
        tracks: `Tracks`, or (f, n, 2).
        truth: (f, n, 2), pixels.
        visible: bool (f, n), visibility in truth.
        query_frame: left out when given (its error is zero by construction).
        reduce: 'mean' or 'median' over the entries that count (a float), or 'none' (float (f, n), NaN elsewhere).

    Raises:
        MotionLabError: shapes differ, NaN where it counts, or nothing is visible.
    """
    xy = np.asarray(tracks.xy if isinstance(tracks, Tracks) else tracks, dtype=np.float64)
    truth, counts = np.asarray(truth, dtype=np.float64), np.asarray(visible)
    one_of(reduce, ["mean", "median", "none"], "reduce")
    if xy.ndim != 3 or xy.shape[-1] != 2 or xy.shape != truth.shape:
        raise MotionLabError(f"Tracks and truth must both be (f, n, 2); got {xy.shape} and {truth.shape}.")
    if counts.shape != xy.shape[:2] or counts.dtype != bool:
        raise MotionLabError(f"visible must be bool {xy.shape[:2]}, got {counts.dtype} {counts.shape}.")
    if query_frame is not None:
        counts = counts.copy()
        counts[_check_query(query_frame, len(xy), "track_error")] = False
    if not counts.any():
        raise MotionLabError("No point is visible in truth: there is nothing to compare.")
    error = np.linalg.norm(xy - truth, axis=-1)
    if not np.isfinite(error[counts]).all():
        raise MotionLabError("The tracks or their truth hold NaN where the truth is visible.")
    if reduce == "none":
        return np.where(counts, error, np.nan)
    return float(getattr(np, reduce)(error[counts]))
