"""What every motion metric demands of tracks: shape, finite positions, visibility, and the unit of their positions."""
from __future__ import annotations

import math

import numpy as np
import torch

from motionlab.core.errors import MotionLabError, one_of

STATIC = ("skip", "zero", "nan")
COORDS = ("frame", "diagonal", "pixels")
MIN_VISIBLE = 0.5


def checked_pair(gen, src) -> tuple[torch.Tensor, torch.Tensor]:
    """Tracks (f, n, 2) and (f', m, 2) of two clips as float tensors of one kind, each of two frames or more."""
    gen, src = (checked_tracks(tracks, name, "(f, n, 2)", finite=False) for tracks, name in ((gen, "gen"), (src, "src")))
    for tracks, name in ((gen, "gen"), (src, "src")):
        if len(tracks) < 2:
            raise MotionLabError(f"Tracks `{name}` have one frame only.", fix="Motion needs at least two frames.")
    return same_kind(gen, src)


def checked_tracks(tracks, name: str, form: str, finite: bool = True) -> torch.Tensor:
    """Tracks of one clip as a float tensor; `name` and `form` are what an error calls them and their shape."""
    tensor = tracks if isinstance(tracks, torch.Tensor) else torch.from_numpy(np.array(tracks))
    if tensor.ndim != 3 or tensor.shape[-1] != 2 or 0 in tensor.shape:
        raise MotionLabError(f"Tracks `{name}` have shape {tuple(tensor.shape)}.",
                             fix=f"Tracks are {form} here, (x, y) in pixels; one clip at a time, visibility apart.")
    tensor = tensor.detach()
    tensor = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    if finite:
        _check_finite(tensor, name)
    return tensor


def same_kind(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in the wider precision of the two; they must be on one device."""
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


def check_same_length(gen: torch.Tensor, src: torch.Tensor) -> None:
    """Raise unless both clips have as many frames."""
    if len(gen) != len(src):
        raise MotionLabError(f"The generated clip's tracks have {len(gen)} frames, the source's {len(src)}.",
                             fix="Subsample the longer to the shorter: "
                                 "tracks[np.linspace(0, f_long - 1, f_short).astype(int)].")


def visible_pair(gen, src, gen_visibility, src_visibility, together: bool):
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


def scaled(tracks: torch.Tensor, size, coords: str) -> torch.Tensor:
    """Tracks in the unit `coords`: shares of the frame's sides or of its diagonal, or pixels as they are."""
    h, w = frame_size(size)
    unit = {"frame": (w, h), "diagonal": (math.hypot(h, w),) * 2, "pixels": (1, 1)}[coords]
    return tracks / tracks.new_tensor(unit)


def frame_size(size) -> tuple[float, float]:
    """(h, w) of a frame, both positive."""
    try:
        h, w = (float(side) for side in size)
        positive = h > 0 and w > 0
    except (TypeError, ValueError):
        positive = False
    if not positive:
        raise MotionLabError(f"The frame size is {size!r}.", fix="Give size=(height, width) in pixels.")
    return h, w


def check_options(static: str, coords: str) -> None:
    """Raise unless both are words that the metrics know."""
    one_of(static, STATIC, "choice for `static`")
    one_of(coords, COORDS, "choice for `coords`")
