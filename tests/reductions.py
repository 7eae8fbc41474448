"""Reductions of attention maps written out: what `OffsetRadius` and `by_radius` are compared with."""
import torch

from motionlab import taps


class DisplacementMass(taps.Reduction):
    """(b, heads, 2f' - 1, 2h' - 1, 2w' - 1): mass by displacement key - query, the centre being the query itself."""

    def add(self, total, rows):
        f, h, w = rows.grid
        if total is None:
            total = rows.p.new_zeros(*rows.p.shape[:2], 2 * f - 1, 2 * h - 1, 2 * w - 1)
        for i, query in enumerate(rows.queries.tolist()):
            t, y, x = f - 1 - query // (h * w), h - 1 - query // w % h, w - 1 - query % w
            total[:, :, t:t + f, y:y + h, x:x + w] += rows.p[:, :, i]
        return total


class RadiusMass(DisplacementMass):
    """(b, heads, 2, max(h', w')): mass by spatial radius, within the query's frame and in all other frames together.

    The radius is max(|dx|, |dy|), so that the sum over radii 0..r is the mass in a (2r+1)^2 window. By frame offset as
    well: `by_radius` of a DisplacementMass.
    """

    def end(self, total, grid):
        mass = taps.by_radius(super().end(total, grid))
        same = mass[..., grid[0] - 1, :]
        return torch.stack([same, mass.sum(-2) - same], -2)
