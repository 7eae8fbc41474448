"""What all motion metrics demand of tracks, flow, frames and points."""
from __future__ import annotations

import math

import numpy as np
import torch

from motionlab.core.errors import MotionLabError, one_of

STATIC = ("skip", "zero", "nan")
COORDS = ("frame", "diagonal", "pixels")
MATCHES = ("index", "best")
MIN_VISIBLE = 0.5


def _pair(gen, src) -> tuple[torch.Tensor, torch.Tensor]:
    gen, src = (_tensor(tracks, name, "(f, n, 2)", finite=False) for tracks, name in ((gen, "gen"), (src, "src")))
    for tracks, name in ((gen, "gen"), (src, "src")):
        if len(tracks) < 2:
            raise MotionLabError(f"Tracks `{name}` have one frame only.", fix="Motion needs at least two frames.")
    return _same_kind(gen, src)


def _tensor(tracks, name: str, form: str, finite: bool = True) -> torch.Tensor:
    tensor = tracks if isinstance(tracks, torch.Tensor) else torch.from_numpy(np.array(tracks))
    if tensor.ndim != 3 or tensor.shape[-1] != 2 or 0 in tensor.shape:
        raise MotionLabError(f"Tracks `{name}` have shape {tuple(tensor.shape)}.",
                             fix=f"Tracks are {form} here, (x, y) in pixels; one clip at a time, visibility apart.")
    tensor = tensor.detach()
    tensor = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    if finite:
        _check_finite(tensor, name)
    return tensor


def _same_kind(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if a.device != b.device:
        raise MotionLabError(f"One clip's tracks are on {a.device}, the other's on {b.device}.",
                             fix="Move both to one device.")
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)


def _check_finite(tracks: torch.Tensor, name: str) -> None:
    bad = (~torch.isfinite(tracks)).any(-1)
    if bad.any():
        t, n = (int(index) for index in bad.nonzero()[0])
        raise MotionLabError(f"Tracks `{name}` hold NaN or infinite positions at {int(bad.sum())} places, "
                             f"first in frame {t}, track {n}.",
                             fix="Keep finite tracks only: tracks[:, np.isfinite(tracks).all((0, 2))].")


def _same_length(gen: torch.Tensor, src: torch.Tensor) -> None:
    if len(gen) != len(src):
        raise MotionLabError(f"The generated clip's tracks have {len(gen)} frames, the source's {len(src)}.",
                             fix="Subsample the longer to the shorter: "
                                 "tracks[np.linspace(0, f_long - 1, f_short).astype(int)].")


def _visible_pair(gen, src, gen_visibility, src_visibility, together: bool):
    """Drop the tracks that are hardly seen, then insist on finite positions."""
    if together and gen.shape[1] != src.shape[1]:
        raise MotionLabError(f"The generated clip has {gen.shape[1]} tracks, the source {src.shape[1]}: "
                             "they cannot be paired by index.",
                             fix="Query the same points in both clips, or pass match='best'.")
    kept = [_kept(tracks, visibility, name) for tracks, visibility, name in
            ((gen, gen_visibility, "gen"), (src, src_visibility, "src"))]
    if together:
        kept = [kept[0] & kept[1]] * 2
        if not kept[0].any():
            raise MotionLabError("No track is seen in at least half of the frames of both clips.",
                                 fix="Query other points, pass match='best', or leave visibility out.")
    gen, src = gen[:, kept[0]], src[:, kept[1]]
    _check_finite(gen, "gen")
    _check_finite(src, "src")
    return gen, src


def _kept(tracks: torch.Tensor, visibility, name: str) -> torch.Tensor:
    if visibility is None:
        return torch.ones(tracks.shape[1], dtype=torch.bool, device=tracks.device)
    if tuple(np.shape(visibility)) != tuple(tracks.shape[:2]):
        raise MotionLabError(f"`{name}_visibility` has shape {tuple(np.shape(visibility))}, "
                             f"its tracks {tuple(tracks.shape)}.",
                             fix="Visibility is (f, n) for tracks (f, n, 2).")
    return torch.as_tensor(seen_tracks(visibility)).to(tracks.device)


def _scaled(tracks: torch.Tensor, size, coords: str) -> torch.Tensor:
    h, w = _size(size)
    unit = {"frame": (w, h), "diagonal": (math.hypot(h, w),) * 2, "pixels": (1, 1)}[coords]
    return tracks / tracks.new_tensor(unit)


def _size(size) -> tuple[float, float]:
    try:
        h, w = (float(side) for side in size)
        positive = h > 0 and w > 0
    except (TypeError, ValueError):
        positive = False
    if not positive:
        raise MotionLabError(f"The frame size is {size!r}.", fix="Give size=(height, width) in pixels.")
    return h, w


def _check_options(static: str, coords: str) -> None:
    one_of(static, STATIC, "choice for `static`")
    one_of(coords, COORDS, "choice for `coords`")


def _report(score: torch.Tensor, distance: torch.Tensor, cosine: torch.Tensor, parts: bool):
    if not parts:
        return float(score)
    return {"score": float(score), "distance": float(distance), "cosine": float(cosine)}


def checked_flow(flow) -> torch.Tensor:
    tensor = flow if isinstance(flow, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(flow))
    if tensor.ndim != 4 or tensor.shape[1] != 2 or 0 in tensor.shape:
        raise MotionLabError(f"The flow has shape {tuple(tensor.shape)}.",
                             fix="Flow is (f-1, 2, h, w), pixels per frame.")
    tensor = tensor.detach() if tensor.dtype in (torch.float32, torch.float64) else tensor.detach().float()
    if not torch.isfinite(tensor).all():
        raise MotionLabError("The flow holds values that are not finite.", fix="Set them to 0 or mask them out first.")
    return tensor


def checked_frames(frames) -> torch.Tensor:
    """(f, h, w, 3) bytes or [0, 1] -> (f, 3, h, w) float in [0, 1]."""
    tensor = frames if isinstance(frames, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(frames))
    if tensor.ndim != 4 or tensor.shape[-1] != 3 or 0 in tensor.shape:
        raise MotionLabError(f"Frames have shape {tuple(tensor.shape)}.", fix="Frames are (f, h, w, 3), RGB.")
    scale = 255 if tensor.dtype == torch.uint8 else 1
    tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
    tensor = tensor.movedim(-1, 1) / scale
    if not torch.isfinite(tensor).all() or tensor.min() < 0 or tensor.max() > 1:
        raise MotionLabError("Float frames lie outside [0, 1] or are not finite.",
                             fix="Pass uint8 frames, or rescale: (video + 1) / 2 for [-1, 1].")
    return tensor


def checked_points(points) -> np.ndarray:
    xy = points.detach().cpu().numpy() if isinstance(points, torch.Tensor) else np.asarray(points)
    if xy.ndim != 2 or xy.shape[-1] != 2 or not len(xy):
        raise MotionLabError(f"Points have shape {xy.shape}.",
                             fix="Points are (n, 2), (x, y) in pixels: tracks[0] for the first frame.")
    if not np.isfinite(xy).all():
        raise MotionLabError("Points hold NaN or infinite positions.", fix="Keep finite points only.")
    return xy


def checked_mask(mask, size) -> np.ndarray:
    inside = (mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)) != 0
    if inside.ndim != 2:
        raise MotionLabError(f"The mask has shape {inside.shape}.", fix="Pass one frame's mask (h, w): masks[0].")
    if size is not None and inside.shape != tuple(int(side) for side in _size(size)):
        raise MotionLabError(f"The mask is {inside.shape[0]} x {inside.shape[1]}, "
                             f"the frames {size[0]} x {size[1]} (h x w).",
                             fix="Resize the mask to the frames, nearest neighbour.")
    if not inside.any():
        raise MotionLabError("The mask is empty: no pixel of the first frame is foreground.",
                             fix="Check the mask's file and object id, or use all points.")
    return inside


def same_frame(xy: np.ndarray, inside: np.ndarray) -> None:
    h, w = inside.shape
    if not ((xy > -1) & (xy < (w, h))).all(1).any():
        raise MotionLabError(f"No point lies within the mask's {h} x {w} pixels.",
                             fix="Points are (x, y) in pixels of the mask's frame: "
                                 "check the mask's size and the points' scale.")


def as_given(kept: np.ndarray, given):
    return torch.from_numpy(kept).to(given.device) if isinstance(given, torch.Tensor) else kept


def seen_tracks(visibility, min_visible: float = MIN_VISIBLE):
    """Which tracks are seen in at least a share of the frames: (f, n) -> (n,) bool.

    Raises:
        MotionLabError: wrong shape, or no track is seen often enough.
    """
    seen = torch.as_tensor(np.asarray(visibility) if not isinstance(visibility, torch.Tensor) else visibility)
    if seen.ndim != 2 or 0 in seen.shape:
        raise MotionLabError(f"Visibility has shape {tuple(seen.shape)}.", fix="Visibility is (f, n), bool.")
    kept = seen.double().mean(dim=0) >= min_visible
    if not seen.any():
        raise MotionLabError("All points are invisible in all frames.",
                             fix="Query points on something that can be seen, or leave visibility out to use all.")
    if not kept.any():
        raise MotionLabError(f"No track is seen in at least {min_visible:.0%} of the frames.",
                             fix="Query other points, select tracks yourself with a lower share "
                                 "(seen_tracks(visibility, 0.2)), or leave visibility out to use every track.")
    return kept if isinstance(visibility, torch.Tensor) else kept.numpy()
