"""Distances between tracks: the discrete Frechet distance, and the mean over all pairs of times that is released as one."""
from __future__ import annotations

import math

import torch

from motionlab.metrics.motion.checks import checked_tracks, same_kind

_CELLS = {"cpu": 1 << 13, "other": 1 << 19}  # pairs per sweep: what stays in a core's cache, and what fills a GPU
_DISTANCES = {"cpu": 1 << 16, "other": 1 << 24}  # point distances held at once, chosen the same way


def discrete_frechet(a, b):
    """Discrete Frechet distance between every track of `a` and every track of `b`.

    c(i, j) = max(d(i, j), min(c(i-1, j), c(i, j-1), c(i-1, j-1))), swept along antidiagonals for blocks of pairs at
    once; memory stays at some megabytes beside the result. Equals shapely.frechet_distance for tracks of equal
    length; for unequal lengths that function (GEOS 3.14) returns larger values than the recursion on some pairs.

    Args:
        a: (n, f, 2), any unit.
        b: (m, f', 2), same unit; lengths may differ.

    Returns:
        (n, m), in the unit of the tracks; numpy for numpy, torch for torch.

    Raises:
        MotionLabError: wrong shapes or values that are not finite.
    """
    first, second = same_kind(checked_tracks(a, "a", "(n, f, 2)"), checked_tracks(b, "b", "(m, f, 2)"))
    result = frechet_matrix(first, second)
    return result if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor) else result.numpy()


def frechet_matrix(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(n, f, 2), (m, f', 2) -> (n, m), block by block so that a sweep's buffers stay in cache."""
    cells = _CELLS["cpu" if a.device.type == "cpu" else "other"]
    columns = min(len(b), cells)
    rows = max(1, cells // columns)
    out = a.new_empty(len(a), len(b))
    # (2, f, n): pairs lie side by side
    first, second = a.permute(2, 1, 0).contiguous(), b.permute(2, 1, 0).contiguous()
    for n in range(0, len(a), rows):
        for m in range(0, len(b), columns):
            out[n:n + rows, m:m + columns] = _sweep(first[:, :, n:n + rows, None], second[:, :, None, m:m + columns])
    return out


def frechet_of_pairs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(f, n, 2), (f', n, 2) -> (n)."""
    first, second = a.permute(2, 0, 1).contiguous(), b.permute(2, 0, 1).contiguous()
    return _sweep(first[..., None], second[..., None])[:, 0]


def _sweep(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Frechet recursion for a (2, f, p, 1 or q) and b (2, f', 1 or p, q), which broadcast to (p, q) pairs."""
    f, g = a.shape[1], b.shape[1]
    pairs = torch.broadcast_shapes(a.shape[2:], b.shape[2:])
    backwards = b.flip(1).contiguous()  # so that an antidiagonal j = k - i is a slice
    # Row i of an antidiagonal is kept at i + 1; row 0 and rows outside the table are infinite.
    before, last, now = (a.new_full((f + 1, *pairs), math.inf) for _ in range(3))
    space_x, space_y = a.new_empty(2, f, *pairs)
    for k in range(f + g - 1):
        low, high = max(0, k - g + 1), min(f, k + 1)
        there = slice(g - 1 - k + low, g - 1 - k + high)
        dx, dy = space_x[:high - low], space_y[:high - low]
        torch.sub(a[0, low:high], backwards[0, there], out=dx)
        torch.sub(a[1, low:high], backwards[1, there], out=dy)
        squared = dx.mul_(dx).addcmul_(dy, dy)
        cell = now[low + 1:high + 1]
        if k == 0:
            cell.copy_(squared)
        else:
            torch.minimum(last[low:high], last[low + 1:high + 1], out=cell)
            torch.minimum(cell, before[low:high], out=cell)
            torch.maximum(cell, squared, out=cell)
        now[low].fill_(math.inf)
        before, last, now = last, now, before
    return last[f].sqrt()


def mean_distances(gen: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    """Mean over all pairs of times of |gen[t, n] - src[t', m]|: (f, n, 2), (f', m, 2) -> (n, m).

    A block of points of `gen` at a time against all of `src`, in two buffers that stay in cache; nothing of size (n f, m f') is made.
    """
    f, n, _ = gen.shape
    g, m, _ = src.shape
    x, y = gen.permute(2, 1, 0).reshape(2, n * f, 1)
    u, v = src.permute(2, 1, 0).reshape(2, 1, m * g)
    rows = min(n * f, max(1, _DISTANCES["cpu" if gen.device.type == "cpu" else "other"] // (m * g)))
    spaces, sums = gen.new_empty(2, rows, m * g), gen.new_empty(n * f, m)
    for k in range(0, n * f, rows):
        dx, dy = spaces[:, :min(rows, n * f - k)]
        torch.sub(x[k:k + rows], u, out=dx)
        torch.sub(y[k:k + rows], v, out=dy)
        distance = dx.mul_(dx).addcmul_(dy, dy).sqrt_()
        torch.sum(distance.view(-1, m, g), dim=2, out=sums[k:k + rows])
    return sums.view(n, f, m).sum(dim=1) / (f * g)
