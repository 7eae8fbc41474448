"""Local correlation of features: where a place of one frame is found again in the next, over a small window (as in PWC-Net and RAFT).

For features F (b, t, h, w, C), n(.) their length brought to 1, p a place of the grid (h, w), d an offset (dy, dx) of {-r..r}^2:

    S_t(p, d) = < n(F_t(p)), n(F_{t+1}(p + d)) >                         local_correlation

`exact_transport` is the same asked of exact flow: a distribution over the window instead of logits. Offsets outside the frame are no
choice: their logit is `OUTSIDE`, finite, so that no 0 x inf appears, and `packed` leaves them out on disk.
"""
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError

RADIUS = 3
OUTSIDE = -1e4


def unit(features: torch.Tensor) -> torch.Tensor:
    """n(F): features (..., C) in float32, each of length 1."""
    return F.normalize(features.float(), dim=-1)


def offsets(radius: int = RADIUS) -> list[tuple[int, int]]:
    """The window's offsets (dy, dx), row by row: entry k of a map's last axis."""
    reach = range(-radius, radius + 1)
    return [(dy, dx) for dy in reach for dx in reach]


def inside(h: int, w: int, radius: int = RADIUS) -> torch.Tensor:
    """(h, w, (2 radius + 1)^2) bool: whether a place's offset stays in the frame."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([(y + dy >= 0) & (y + dy < h) & (x + dx >= 0) & (x + dx < w) for dy, dx in offsets(radius)], -1)


def local_correlation(features: torch.Tensor, radius: int = RADIUS, normalise: bool = True, reverse: bool = False) -> torch.Tensor:
    """S[F] (b, t - 1, h, w, (2 radius + 1)^2), float32.

    Each row of places is multiplied with the rows of the next frame as matrices, and the band around the diagonal is kept: a window is
    never unfolded, and the backward pass keeps the features alone.

    Args:
        features: (b, t, h, w, C) of two frames or more.
        normalise: without it a temperature means nothing fixed.
        reverse: each pair from t + 1 to t, still in the order of t.

    Raises:
        MotionLabError: another shape, one frame, a window larger than the grid.
    """
    if features.dim() != 5 or features.shape[1] < 2:
        raise MotionLabError(f"Features have shape {tuple(features.shape)}.", fix="Give (b, t, h, w, C) of two frames or more.")
    if radius < 0 or 2 * radius + 1 > max(features.shape[2:4]):
        raise MotionLabError(f"A window of {2 * radius + 1} places is larger than the grid {tuple(features.shape[2:4])}.",
                             fix=f"Give a radius from 0 to {(max(features.shape[2:4]) - 1) // 2}.")
    with torch.autocast(features.device.type, enabled=False):                # products of unit vectors need float32
        return _Bands.apply(unit(features) if normalise else features.float(), radius, reverse)


def band(here: torch.Tensor, there: torch.Tensor, radius: int) -> torch.Tensor:
    """<here(p), there(p + d)> for all offsets d of a window: (b, t, h, w, C) twice -> (b, t, h, w, (2 radius + 1)^2); no gradient."""
    out = here.new_full((*here.shape[:4], 2 * radius + 1, 2 * radius + 1), OUTSIDE)
    for j, rows, other in _row_pairs(here.shape[2], radius):
        gram = here[:, :, rows] @ there[:, :, other].transpose(-1, -2)                               # b t rows w w
        for k, dx in enumerate(range(-radius, radius + 1)):
            out[:, :, rows, _columns(here.shape[3], dx), j, k] = gram.diagonal(dx, -2, -1)
    return out.flatten(-2)


class _Bands(torch.autograd.Function):
    """`band` of each frame with the next, (b, t, h, w, C) -> (b, t - 1, h, w, n); its backward pass keeps the features alone."""

    @staticmethod
    def forward(ctx, f, radius, reverse):
        ctx.save_for_backward(f)
        ctx.radius, ctx.reverse = radius, reverse
        return band(*_pairs(f, reverse), radius)

    @staticmethod
    def backward(ctx, grad):
        f, = ctx.saved_tensors
        radius, w, out = ctx.radius, f.shape[3], torch.zeros_like(f)
        grad = grad.unflatten(-1, (2 * radius + 1, 2 * radius + 1))
        (here, there), (to_here, to_there) = _pairs(f, ctx.reverse), _pairs(out, ctx.reverse)
        for j, rows, other in _row_pairs(f.shape[2], radius):
            gram = grad.new_zeros((*grad.shape[:2], rows.stop - rows.start, w, w))
            for k, dx in enumerate(range(-radius, radius + 1)):
                gram.diagonal(dx, -2, -1).copy_(grad[:, :, rows, _columns(w, dx), j, k])
            to_here[:, :, rows] += gram @ there[:, :, other]
            to_there[:, :, other] += gram.transpose(-1, -2) @ here[:, :, rows]
        return out, None, None


def _pairs(f, reverse):
    """Of each pair of neighbours the frame whose places are asked, and the one in which they are found again: views."""
    return (f[:, 1:], f[:, :-1]) if reverse else (f[:, :-1], f[:, 1:])


def _row_pairs(h, radius):
    """(index of dy, rows that have a partner dy further down, these partners)."""
    for j, dy in enumerate(range(-radius, radius + 1)):
        if abs(dy) < h:
            yield j, slice(max(0, -dy), h - max(0, dy)), slice(max(0, dy), h - max(0, -dy))


def _columns(w, dx):
    return slice(max(0, -dx), max(0, w - max(0, dx)))


# ---------------------------------------------------------------------------------------------- on disk
def packed(maps: torch.Tensor, radius: int = RADIUS) -> torch.Tensor:
    """Maps (..., h, w, (2 radius + 1)^2) without the offsets outside the frame: (..., m)."""
    return maps[..., inside(*maps.shape[-3:-1], radius)]


def unpacked(values: torch.Tensor, grid: tuple[int, int], radius: int = RADIUS, outside: float = OUTSIDE) -> torch.Tensor:
    """The maps (..., h, w, (2 radius + 1)^2) of `packed`, `outside` where it left something out.

    Raises:
        MotionLabError: values of another grid or window.
    """
    valid = inside(*grid, radius).to(values.device)
    if values.shape[-1] != int(valid.sum()):
        raise MotionLabError(f"Maps of {values.shape[-1]} offsets do not fit a grid of {tuple(grid)} and a window of {2 * radius + 1}, "
                             f"which have {int(valid.sum())}.", fix="Make the maps for this grid and window, or ask for theirs.")
    out = values.new_full((*values.shape[:-1], *valid.shape), outside)
    out[..., valid] = values
    return out


# ---------------------------------------------------------------------------------------------- of exact flow
def exact_transport(flow: np.ndarray, visible: np.ndarray, grid: tuple[int, int], radius: int = RADIUS) -> tuple[np.ndarray, np.ndarray]:
    """P*(d | p) from exact flow: the share of the pixels of cell p, seen in both frames, that land in cell p + d.

    Args:
        flow: (t, 2, H, W), pixels from each frame to the next one compared (`Clip.flow_between`). visible: (t, H, W), the surface at
            this pixel is still seen there. grid: (h, w) cells over the frame.

    Returns:
        (t, h, w, (2 radius + 1)^2) float32 that sum to 1, and (t, h, w) bool: cells of which no pixel stays in view and window have
        no distribution (all 0) and are left out.

    Raises:
        MotionLabError: shapes that do not fit; a frame that is no whole number of cells.
    """
    t, two, height, width = flow.shape
    h, w = grid
    if two != 2 or visible.shape != (t, height, width) or height % h or width % w:
        raise MotionLabError(f"Flow {flow.shape}, visibility {visible.shape} and a grid of {grid} do not fit.",
                             fix="Give (t, 2, H, W) and (t, H, W) with H and W whole multiples of the grid.")
    y, x = np.mgrid[:height, :width]
    cell_y, cell_x = y // (height // h), x // (width // w)
    to_y, to_x = (np.floor((at + 0.5 + flow[:, k]) / (size / cells)).astype(int)
                  for at, k, size, cells in ((y, 1, height, h), (x, 0, width, w)))
    dy, dx = to_y - cell_y, to_x - cell_x
    kept = visible & (np.abs(dy) <= radius) & (np.abs(dx) <= radius) & (to_y >= 0) & (to_y < h) & (to_x >= 0) & (to_x < w)
    n = (2 * radius + 1) ** 2
    counts = np.zeros((t, h, w, n))
    frame = np.broadcast_to(np.arange(t)[:, None, None], kept.shape)
    where = tuple(np.broadcast_to(a, kept.shape)[kept] for a in (frame, cell_y, cell_x, (dy + radius) * (2 * radius + 1) + dx + radius))
    np.add.at(counts, where, 1)
    total = counts.sum(-1)
    return (counts / np.maximum(total, 1)[..., None]).astype(np.float32), total > 0
