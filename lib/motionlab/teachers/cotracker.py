"""CoTracker3, from a package or a checkout, with weights by path: nothing is downloaded."""
from __future__ import annotations

import importlib
import numbers
import sys
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.teachers.points import Tracks, check_points, check_query
from motionlab.teachers.weights import fill, load_state, to_device
from motionlab.video import check_frames

# The predictor's own threshold, at which the tracks of MTBench were made (method card det, section 3.1).
COTRACKER_THRESHOLD = 0.9


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
        predictor: an object to call instead of loading one (`load_cotracker`): predictor(video, queries=, backward_tracking=) ->
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
    query_frame = check_query(query_frame, count, who)
    if not isinstance(visibility_threshold, numbers.Real) or not 0 < visibility_threshold < 1:
        raise MotionLabError(f"{who}: visibility_threshold must lie between 0 and 1, got {visibility_threshold!r}.")
    if predictor is None:
        predictor = load_cotracker(checkpoint, hub_dir, device)
    video = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))[None].float().to(device)
    queries = torch.cat([torch.full((len(points), 1), float(query_frame)), torch.from_numpy(points)], dim=1)[None]
    with torch.inference_mode(), _thresholded(predictor, visibility_threshold):
        xy, visible = predictor(video, queries=queries.to(device), backward_tracking=query_frame > 0)
    return _answer(xy, visible, visibility_threshold, count, len(points))


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


def _answer(xy, visible, threshold: float, count: int, points: int) -> Tracks:
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


def load_cotracker(checkpoint: str | Path | None, hub_dir: str | Path | None = None, device: str = "cpu"):
    """The predictor that `cotracker_tracks` loads, for whoever tracks many clips with it; arguments and errors as there."""
    advice = "Fetch scaled_offline.pth of CoTracker3 and pass checkpoint=PATH; teacher 'lucas_kanade' needs no weights."
    if checkpoint is None:
        raise MotionLabError("CoTracker needs weights, and no checkpoint was named.", fix=advice)
    file = Path(checkpoint).expanduser()
    if not file.is_file():
        raise MotionLabError(f"There are no CoTracker weights at '{file}'.", fix=advice)
    make = _predictor_class(hub_dir)
    state = load_state(file)
    online = "online" in file.name
    predictor = make(checkpoint=None, offline=not online, window_len=16 if online else 60)
    fill(predictor.model, state, f"'{file}' does not fit CoTracker3",
         "Use scaled_offline.pth, or keep 'online' in the name of online weights.")
    return to_device(predictor, device)


def find_cotracker(hub_dir: str | Path | None = None) -> Path | None:
    """A local checkout of CoTracker: `hub_dir` if given, else in torch.hub's folder; None where there is none."""
    import torch

    if hub_dir is not None:
        folders = [Path(hub_dir).expanduser()]
    else:
        folders = sorted(Path(torch.hub.get_dir()).glob("facebookresearch_co-tracker_*"))
    return next((folder for folder in folders if (folder / "cotracker" / "predictor.py").is_file()), None)


def _predictor_class(hub_dir):
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
