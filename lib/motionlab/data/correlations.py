"""What a teacher sees of a clip, as sidecars: where each place of the tokens' grid is found again, its features, and its subject's masks.

Of a clip, every `every`-th frame is looked at, so that a target stands beside each frame of the student's features. Maps are of
`motionlab.correlation`, without the offsets outside the frame, in fp16: 41 kB for 4 pairs of 12 x 12 places and a window of 7 x 7. Both
directions of a tracker are kept apart and fused while training. What a teacher says nothing of (an object that it lost, a place that is
not asked for) is NaN; whoever reads it leaves it out.
"""
from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError, one_of
from motionlab.correlation import RADIUS, exact_transport, inside, local_correlation, packed, unit
from motionlab.data.seen import TRACKERS, Seen, boxed, identity, look, size_of
from motionlab.models.pipe import Pipe
from motionlab.teachers.flow import dis_flow

MAPS = ("both", "reversed", "feature")
PLACES = ("all", "subject")
FLOWS = ("exact", "dis")
CELL = 4                 # pixels per place of the world's clips
_LAST: dict = {}         # of `seen`
AROUND = 1               # cells around the subject that belong to it


# ---------------------------------------------------------------------------------------------- the truth
def draw_transport(source, i: int, every: int = 4, radius: int = RADIUS, cell: int = CELL, where: str = "all", noise: float = 0.0,
                   other: bool = False, flow: str = "exact") -> np.ndarray:
    """Transport P*(d | p) of clip i between frames 0, every, 2 every, ..., (t - 1, m) float32; NaN where nothing of p stays in view.

    Args:
        where: "subject": NaN too at places that are not on the subject or `AROUND` cells of it: nothing can follow flat ground.
        noise: deviation in cells of a displacement of each place's target. other: of another clip: right statistics, wrong content.
        flow: "exact"; "dis", estimated from these frames, which knows nothing of what is hidden.

    Raises:
        MotionLabError: clips without truth where it is wanted, fewer than two frames to look at, a window larger than the grid.
    """
    one_of(where, PLACES, "where"), one_of(flow, FLOWS, "flow")
    if not source.exact and (flow == "exact" or where == "subject"):
        raise MotionLabError(f"The clips of {source.name} come without exact flow, which the exact teacher needs.",
                             fix="Use another teacher, or clips of the world.")
    clip = source.clip(_number(source, i, other))
    order = looked_at(len(clip.frames), every)
    grid = tuple(side // cell for side in clip.frames.shape[1:3])
    demand_window(grid, radius)
    moved, visible = _flow(clip, order, flow)
    if noise:
        shift = noise * cell * np.random.default_rng([8, i]).normal(size=(len(order) - 1, 2, *grid))
        moved = moved + shift.repeat(cell, -1).repeat(cell, -2)
    p, known = exact_transport(moved, visible, grid, radius)
    if where == "subject":
        known &= near_subject(clip.object_mask(0)[order[:-1]], cell)
    p[~known] = np.nan
    return packed(torch.from_numpy(p), radius).numpy()


def _flow(clip, order, flow):
    """(t - 1, 2, H, W) between frames of an order, and what of it is seen in both."""
    if flow == "exact":
        return clip.flow_between(order), clip.visible_between(order)
    moved = dis_flow(clip.frames[order])
    return moved, np.ones((len(moved), *moved.shape[2:]), bool)


def near_subject(mask: np.ndarray, cell: int = CELL, around: int = AROUND) -> np.ndarray:
    """Cells (f, h, w) bool that show some of the subject of mask (f, H, W), or are at most `around` cells from one that does."""
    f, h, w = mask.shape
    there = torch.from_numpy(mask.reshape(f, h // cell, cell, w // cell, cell).any((2, 4))).float()
    return (F.max_pool2d(there[:, None], 2 * around + 1, 1, around)[:, 0] > 0).numpy()


def encode_transport(drawn: np.ndarray, pipe: Pipe) -> torch.Tensor:
    """As it is, (n, t - 1, m)."""
    return torch.from_numpy(drawn)


# ---------------------------------------------------------------------------------------------- what a teacher is shown
def draw_shown(source, i: int, teacher: str, every: int = 4, other: bool = False, boxes: str = "") -> np.ndarray:
    """Every `every`-th frame of clip i with its subject in a fourth channel, uint8 (t, H, W, 4).

    Clips of the world are rendered at the size that the teacher reads, and their subject is known in all frames. Real ones have it in the
    first frame alone: the box of `boxes` (`data.seen.boxed`), where the teacher is prompted.

    Raises:
        MotionLabError: fewer than two frames to look at; a subject that is not known, a box outside the frame.
    """
    n = _number(source, i, other)
    clip = source.larger(n, size_of(teacher)) if source.exact else source.clip(n)
    order = looked_at(len(clip.frames), every)
    subject = clip.object_mask(0)[order] if source.exact else np.zeros((len(order), *clip.frames.shape[1:3]), bool)
    if not source.exact and teacher in TRACKERS:
        subject[0] = boxed(source, n, clip.frames.shape[1:3], boxes)
    return np.concatenate([clip.frames[order], 255 * subject[..., None].astype(np.uint8)], -1)


def seen(shown: np.ndarray, teacher: str, checkpoint: str = "", skip_prompt_pairs: bool = False, detector: str = "") -> Seen:
    """What a teacher sees of clips of `draw_shown`, (n, t, H, W, 4), as `data.seen.look`. The last answer is kept: sidecars that are made
    together share it."""
    how = (teacher, checkpoint, skip_prompt_pairs, detector)
    key = (*how, shown.shape, hashlib.sha256(np.ascontiguousarray(shown)).digest())
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = look(teacher, shown[..., :3], shown[..., 3] > 127, *how[1:])
    return _LAST[key]


def encode_correlation(shown: np.ndarray, pipe: Pipe, teacher: str, checkpoint: str = "", how: str = "both", radius: int = RADIUS,
                       grid: tuple[int, int] = (0, 0), skip_prompt_pairs: bool = False, detector: str = "") -> torch.Tensor:
    """Maps (n, k, t - 1, m): k = 2, forward and backward pass ("both"; "reversed": the backward pass's pairs from t + 1 to t), or 1, of the
    mean of both passes' unit features ("feature"), or of a teacher that has no direction.

    A pair of frames that only one direction counts for (a pass that could not be prompted, or `skip_prompt_pairs`) has that direction's
    map twice, or for "feature" alone; a clip whose object was lost everywhere has NaN.

    Args:
        grid: places; (0, 0): the tokens'. skip_prompt_pairs, detector: as `data.seen.look`.

    Raises:
        MotionLabError: an unknown teacher or `how`; a window larger than the grid.
    """
    one_of(how, MAPS, "maps")
    size = _grid(grid, pipe)
    demand_window(size, radius)
    found = seen(shown, teacher, checkpoint, skip_prompt_pairs, detector).at(size)
    if found.backward is None:
        maps = [local_correlation(found.forward, radius)]
    elif how == "feature":
        maps = [_counted(found, local_correlation(unit(found.forward) + unit(found.backward), radius), radius)]
    else:
        back = how == "reversed"
        maps = [_counted(found, local_correlation(found.forward, radius), radius),
                _counted(found, local_correlation(found.backward, radius, reverse=back), radius, back)]
    out = packed(torch.stack(maps, 1), radius)
    out[~found.kept.to(out.device)] = torch.nan
    return out


def _counted(found, maps, radius, reverse=False):
    """Maps of pairs of frames, those of one direction alone where only that one counts."""
    alpha = found.alpha[..., None, None, None].to(maps)
    for share, features in ((0, found.backward), (1, found.forward)):
        if (found.alpha == share).any():
            maps = torch.where(alpha == share, local_correlation(features, radius, reverse=reverse), maps)
    return maps


def encode_features(shown: np.ndarray, pipe: Pipe, teacher: str, checkpoint: str = "", grid: tuple[int, int] = (0, 0),
                    detector: str = "") -> torch.Tensor:
    """Features (n, t', h, w, C) at the frames that the teacher looked at, both directions' unit features averaged.

    Of all frames (every = 1) those of each latent are averaged: frame 0, then in fours, as image teachers are aligned with latents (card
    sam2videox, 6.4).
    """
    found = seen(shown, teacher, checkpoint, detector=detector).at(_grid(grid, pipe))
    out = found.forward if found.backward is None else (unit(found.forward) + unit(found.backward)) / 2
    if out.shape[1] == pipe.frames:
        out = torch.cat([out[:, :1], out[:, 1:].unflatten(1, (-1, pipe.group)).mean(2)], 1)
    out[~found.kept.to(out.device)] = torch.nan
    return out


def encode_tracked(shown: np.ndarray, pipe: Pipe, teacher: str, checkpoint: str = "", detector: str = "") -> torch.Tensor:
    """Share of the teacher's mask of the subject in each cell of the tokens, (n, t, h, w), of the forward pass; NaN where it lost it."""
    found = seen(shown, teacher, checkpoint, detector=detector)
    if found.masks is None:
        raise MotionLabError(f"Teacher '{teacher}' sees no masks.", fix="Use sam2.")
    out = F.adaptive_avg_pool2d(found.masks.float(), token_grid(pipe))
    out[~found.kept.to(out.device)] = torch.nan
    return out


def about_teacher(teacher: str = "", checkpoint: str = "", boxes: str = "", detector: str = "", **other) -> dict[str, str]:
    """What decides a sidecar beside its settings: the teacher's weights, the file that prompts it and what looks again, by contents."""
    return identity(teacher, checkpoint, boxes, detector)


def bytes_of(kind: str, settings: Mapping, frames: int, grid: tuple[int, int]) -> int:
    """Of one clip's "transport" or "correlation" on disk, half precision; 0 for other kinds.

    Args:
        settings: of the sidecar. frames: of the clip. grid: of its tokens.
    """
    if kind not in ("transport", "correlation"):
        return 0
    radius, pairs = settings.get("radius", RADIUS), len(looked_at(frames, settings.get("every", 4))) - 1
    places = settings.get("grid", grid)
    maps = 2 if kind == "correlation" and settings["teacher"] in TRACKERS and settings.get("how") != "feature" else 1
    return 2 * maps * pairs * int(inside(*places, radius).sum())


# ---------------------------------------------------------------------------------------------- small parts
def looked_at(frames: int, every: int) -> list[int]:
    """Frames 0, every, 2 every, ... of a clip.

    Raises:
        MotionLabError: fewer than two.
    """
    order = list(range(0, frames, every))
    if len(order) < 2:
        raise MotionLabError(f"Of {frames} frame{'s' * (frames != 1)} every {every}th is looked at: nothing moves between fewer than two.",
                             fix=f"Give clips of {every + 1} frames or more.")
    return order


def demand_window(grid: tuple[int, int], radius: int) -> None:
    """Raises MotionLabError for a window that is larger than the grid."""
    if radius < 0 or 2 * radius + 1 > max(grid):
        raise MotionLabError(f"A window of {2 * radius + 1} places is larger than the grid {tuple(grid)}.",
                             fix=f"Give a radius from 0 to {(max(grid) - 1) // 2}.")


def token_grid(pipe: Pipe) -> tuple[int, int]:
    """(h, w) of the video tokens of a frame."""
    return pipe.size[0] // pipe.cell, pipe.size[1] // pipe.cell


def _grid(asked, pipe):
    return tuple(asked) if any(asked) else token_grid(pipe)


def _number(source, i, other):
    return (i + len(source) // 2) % len(source) if other else i
