"""Point tracks and masks as sidecars: drawn from a clip's truth, from files or by a tracker, and laid on the latents' cells.

Tracks are (x, y) in pixels of the clip that is trained on, with visibility; points are given in its frame 0. A source whose clips
carry no truth says where tracks or a mask of frame 0 lie (`data.sources.Single`).
"""
from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import torch

from motionlab.core.errors import MotionLabError, located, one_of
from motionlab.video.fitting import fitter, placed

TRACKERS = ("auto", "exact", "file", "lucas_kanade", "cotracker")
LIMIT = 4096             # pixels of a mask whose neighbours are counted
RADIUS, WORLD_RADIUS = 5.0, 2.0      # pixels: of real video at 480 lines; half a pixel of the world's 48 would be no neighbourhood


# ---------------------------------------------------------------------------------------------- points on a mask
def distance_weighted_points(mask: np.ndarray, n: int = 100, radius: float = RADIUS, seed=0, limit: int = LIMIT) -> np.ndarray:
    """n points of a mask, (n, 2) float64 as (x, y), each pixel drawn with weight 1 / (pixels of the mask nearer than `radius`).

    Thin parts, such as limbs, have few neighbours and get more than their share of area (DeT as released, card det 5.3; it draws
    its 4096 candidates with replacement, which counts some pixels twice: here without).

    Args:
        mask: (h, w), not 0 on the subject. seed: of numpy's generator, any that it takes.
        limit: at most so many pixels, drawn at random, are candidates and neighbours; 0: all.

    Raises:
        MotionLabError: an empty mask, one that is no picture, no points asked for, a radius that is not above 0.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or n < 1 or not radius > 0:
        raise MotionLabError(f"{n} points with radius {radius} were asked of a mask of shape {mask.shape}.",
                             fix="Give a mask (h, w), one point or more, and a radius above 0.")
    found, generator = np.argwhere(mask != 0), np.random.default_rng(seed)
    if not len(found):
        raise MotionLabError("The mask is empty: it marks no subject.", fix="Mark the subject in frame 0 by any value but 0.")
    if limit and len(found) > limit:
        found = found[generator.choice(len(found), limit, replace=False)]
    weight = 1 / (neighbours(found, radius) + 1e-6)
    rows = generator.choice(len(found), n, replace=n > len(found), p=weight / weight.sum())
    return found[rows, ::-1].astype(np.float64)


def neighbours(pixels: np.ndarray, radius: float) -> np.ndarray:
    """How many of the pixels (n, 2) lie nearer than `radius` to each, itself included: (n,)."""
    from scipy.spatial import cKDTree

    return cKDTree(pixels).query_ball_point(pixels, np.nextafter(float(radius), 0), return_length=True)      # it counts <=


# ---------------------------------------------------------------------------------------------- pixels to latent cells
def align_tracks(xy: torch.Tensor, visible: torch.Tensor, size: tuple[int, int], latents: tuple[int, int, int],
                 group: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Tracks of a clip on the cells of its latents: the last frame of each latent is picked, the cell is trunc(x / width columns).

    A latent frame stands for `group` frames, the first for frame 0 alone: of 49 frames, 0, 4, ..., 48 are picked. Latent frames in
    front that only fill a patch (CogVideoX 1.5) are frame 0 again. Places outside the frame are clamped to its border
    (DeT as released, card det 3.2).

    Args:
        xy: (..., F, n, 2) pixels. visible: (..., F, n). size: (height, width) of the clip. latents: (f, h, w).

    Returns:
        (column, row), int64 (..., f, n, 2), and visibility bool (..., f, n).
    """
    f, h, w = latents
    frames = (xy.shape[-3] - 1 - group * torch.arange(f - 1, -1, -1)).clamp(min=0)
    scale = torch.tensor([w / size[1], h / size[0]], dtype=torch.float64)
    cells = (xy.index_select(-3, frames).double() * scale).trunc().long()
    return torch.stack([cells[..., 0].clamp(0, w - 1), cells[..., 1].clamp(0, h - 1)], -1), visible.index_select(-2, frames).bool()


# ---------------------------------------------------------------------------------------------- the sidecars
def draw_tracks(source, i: int, teacher: str = "auto", points: int = 100, radius: float = 0.0) -> np.ndarray:
    """Tracks of points on the subject of frame 0, float32 (f, points, 3): x, y, visible.

    Args:
        teacher: "exact"; "file", the source's own; "lucas_kanade" or "cotracker"; "auto": exact where clips carry their truth, else
            the source's file, else CoTracker3 where the source names its weights, else Lucas-Kanade.
        points: of `distance_weighted_points`; a file has as many as it has.
        radius: of the same, 0: 2 pixels on the world, 5 on real video.

    Raises:
        MotionLabError: an unknown teacher; truth, tracks or a mask that the source does not have; what `read_tracks`, `read_mask` and
            the tracker itself raise; a clip of whose points none is ever seen.
    """
    teacher = _available(source, one_of(teacher, TRACKERS, "teacher of tracks"))
    if teacher == "file":
        return _seen(read_tracks(source.tracks_file, source.clip(i), source.crop), source.tracks_file)
    subject, clip = draw_mask(source, i)[0], source.clip(i)
    if source.exact and not subject.any():                          # the subject comes later: nothing can be asked of it
        return np.zeros((len(clip.frames), points, 3), np.float32)
    asked = distance_weighted_points(subject, points, radius or (WORLD_RADIUS if source.exact else RADIUS), [5, i])
    from motionlab.teachers.tracks import tracks

    options = {"checkpoint": source.cotracker} if teacher == "cotracker" else {}
    found = tracks(clip if teacher == "exact" else clip.frames, asked, 0, teacher, **options)
    drawn = np.concatenate([found.xy, found.visible[..., None]], -1).astype(np.float32)
    return drawn if source.exact else _seen(drawn, f"the tracks of {source.name}")


def _available(source, teacher):
    files = [getattr(source, name, "") for name in ("tracks_file", "cotracker")]
    if teacher == "auto":
        teacher = "exact" if source.exact else "file" if files[0] else "cotracker" if files[1] else "lucas_kanade"
    lacking = {"exact": not source.exact, "file": not files[0], "cotracker": not files[1]}.get(teacher, False)
    if lacking:
        what = {"exact": "exact truth", "file": "tracks", "cotracker": "weights of CoTracker3"}[teacher]
        raise MotionLabError(f"The clips of {source.name} come without {what}, which teacher '{teacher}' needs.",
                             fix="Give tracks, or a mask and teacher lucas_kanade.")
    return teacher


def _seen(drawn, where):
    if not (drawn[..., 2] > 0.5)[1:].any():
        raise MotionLabError(f"In {where} no point is ever visible after frame 0.", fix="Track points on the subject of frame 0.")
    return drawn


def encode_tracks(drawn: np.ndarray, pipe) -> torch.Tensor:
    """On the cells of the generator's latents, (n, f', points, 3): column, row, visible (`align_tracks`).

    Raises:
        MotionLabError: tracks of another length than the clip.
    """
    if drawn.shape[1] != pipe.frames:
        raise MotionLabError(f"The tracks have {drawn.shape[1]} frames and the clip {pipe.frames}.", fix="Track the clip itself.")
    f, _, h, w = pipe.shape
    cells, visible = align_tracks(torch.from_numpy(drawn[..., :2]), torch.from_numpy(drawn[..., 2] > 0.5), pipe.size, (f, h, w), pipe.group)
    return torch.cat([cells.float(), visible[..., None].float()], -1)


def draw_mask(source, i: int) -> np.ndarray:
    """The subject, uint8 0/1 (f, h, w); of a mask picture, frame 0 alone.

    Raises:
        MotionLabError: a source without truth and without a mask; as `read_mask`.
    """
    if source.exact:
        return source.clip(i).object_mask(None).astype(np.uint8)
    if not getattr(source, "mask_file", ""):
        raise MotionLabError(f"The clips of {source.name} come without a mask of their subject in frame 0.",
                             fix="Give a mask picture, or tracks in a file.")
    return read_mask(source.mask_file, source.clip(i), source.crop)[None]


def encode_mask(drawn: np.ndarray, pipe) -> torch.Tensor:
    """Share of the subject in each cell of the latents, (n, f', h', w'), of the last frame of each; (n, 1, h', w') of one frame."""
    f, _, h, w = pipe.shape
    frames = (drawn.shape[1] - 1 - pipe.group * torch.arange(f - 1, -1, -1)).clamp(min=0) if drawn.shape[1] > 1 else torch.tensor([0])
    return torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(drawn).float()[:, frames], (h, w))


# ---------------------------------------------------------------------------------------------- files
COLUMNS = ("frame", "point", "x", "y", "visible")


def load_tracks(path: str | Path) -> np.ndarray:
    """What a track file holds, float32 (f, n, 3): x, y in pixels of the video as it is shown, visible; 0 where a hidden x, y is NaN.

    Args:
        path: .npz with an array `tracks` (f, n, 3), or .csv with the columns frame, point (numbered from 0), x, y, visible.

    Raises:
        MotionLabError: no such file, another form, values that are not finite where visible, fractions instead of pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise MotionLabError(f"There is no track file '{path}'.", fix="Give a .npz or .csv.")
    with located(f"'{path}'"):
        found = {".npz": _from_npz, ".csv": _from_csv}.get(path.suffix, _unknown)(path)
        if found.ndim != 3 or found.shape[-1] != 3 or 0 in found.shape:
            raise MotionLabError(f"its tracks are {found.shape}.", fix="They are (f, n, 3): x, y in pixels and visible (0 or 1).")
        hidden = ~(found[..., 2] > 0.5)
        found = np.where(hidden[..., None] & ~np.isfinite(found), 0, found).astype(np.float32)
        if not np.isfinite(found).all():
            raise MotionLabError("visible points lie at places that are not finite.", fix="Mark them as hidden, or track them again.")
        if np.abs(found[..., :2]).max() <= 1.5:
            raise MotionLabError("its x and y look like fractions of the frame.", fix="Multiply them by width and height: they are pixels.")
    return found


def _from_npz(path):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays["tracks"], dtype=np.float64)
    except (ValueError, OSError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise MotionLabError(f"it has no readable array 'tracks' ({error}).", fix="numpy.savez(path, tracks=array) writes it.") from None


def _from_csv(path):
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
        table = np.array([[float(row[name]) for name in COLUMNS] for row in rows]).reshape(-1, len(COLUMNS))
        numbers = table[:, :2].astype(int)
        if (numbers != table[:, :2]).any() or (numbers < 0).any() or len(np.unique(numbers, axis=0)) != np.prod(numbers.max(0) + 1):
            raise ValueError("not one row for every frame and point")
    except (ValueError, KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise MotionLabError(f"it cannot be read as tracks ({error}).", fix=f"Its columns are {', '.join(COLUMNS)}, a row each.") from None
    found = np.zeros((*(numbers.max(0) + 1), 3))
    found[numbers[:, 0], numbers[:, 1]] = table[:, 2:]
    return found


def _unknown(path):
    raise MotionLabError(f"unknown ending '{path.suffix}'.", fix="Give .npz with an array `tracks`, or .csv.")


def read_tracks(path: str | Path, clip, crop: bool = True) -> np.ndarray:
    """`load_tracks` in pixels of `clip`, which was read from the video that was tracked.

    Args:
        clip: a `RealClip`. crop: whether its middle was cut out to keep the aspect.

    Raises:
        MotionLabError: as `load_tracks`; another number of frames than the clip's.
    """
    found = load_tracks(path)
    demand_length(found, len(clip.frames), path)
    xy = placed(found[..., :2], clip.source_size, clip.frames.shape[1:3], crop)
    return np.concatenate([xy, found[..., 2:]], -1).astype(np.float32)


def demand_length(tracks: np.ndarray, frames: int, path: str | Path) -> None:
    """Raises MotionLabError for tracks (f, ...) of another number of frames than the clip's."""
    if len(tracks) != frames:
        raise MotionLabError(f"'{path}' has tracks of {len(tracks)} frames, and {frames} are taken of the video.",
                             fix="Track the very frames that are trained on: the first ones, at that rate.")


def load_mask(path: str | Path) -> np.ndarray:
    """A mask picture, bool (h, w): any grey but 0 is subject (pictures are antialiased; card det 5.2).

    Raises:
        MotionLabError: no such file, unreadable, nothing marked.
    """
    from PIL import Image

    path = Path(path)
    if not path.is_file():
        raise MotionLabError(f"There is no mask '{path}'.", fix="Give a picture of frame 0, not 0 on the subject.")
    try:
        with Image.open(path) as picture:
            mask = np.asarray(picture.convert("L")) > 0
    except (OSError, ValueError, SyntaxError) as error:
        raise MotionLabError(f"The mask '{path}' cannot be read ({error}).", fix="Export it again as png.") from None
    if not mask.any():
        raise MotionLabError(f"The mask '{path}' is empty: it marks no subject.", fix="Mark the subject of frame 0 by any grey but 0.")
    return mask


def check_mask(mask: np.ndarray, size: tuple[int, int], path: str | Path) -> None:
    """Raises MotionLabError for a mask of another size than the video's (height, width)."""
    if mask.shape != tuple(size):
        raise MotionLabError(f"The mask '{path}' has {mask.shape[0]}x{mask.shape[1]} pixels and its video {size[0]}x{size[1]}.",
                             fix="Export the mask at the size of the video.")


def read_mask(path: str | Path, clip, crop: bool = True) -> np.ndarray:
    """`load_mask` as it lies on frame 0 of `clip`, uint8 0/1 (h, w): a pixel is subject where half of it is.

    Raises:
        MotionLabError: as `load_mask`; of another size than the video; nothing of it is left at the clip's size.
    """
    mask = load_mask(path)
    check_mask(mask, clip.source_size, path)
    picture = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, -1)
    fitted = fitter(clip.frames.shape[1:3], "center" if crop else None)(picture)[..., 0] >= 128
    if not fitted.any():
        raise MotionLabError(f"Of the mask '{path}' nothing is left at {clip.frames.shape[1]}x{clip.frames.shape[2]} pixels.",
                             fix="Mark a larger part, or train at a larger size.")
    return fitted.astype(np.uint8)
