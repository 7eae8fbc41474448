"""Plane affine maps and signed distance functions: all the geometry that the world needs.

An affine map is a (..., 3, 3) float64 array acting on column vectors (x, y, 1). A signed distance function takes
local coordinates (..., 2) and returns (...): negative inside, in local units, exact enough at the boundary for
one-pixel antialiasing.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


# ---------------------------------------------------------------------------------------------- affine maps
def affine(x=0.0, y=0.0, angle=0.0, sx=1.0, sy=1.0) -> np.ndarray:
    """Scale by (sx, sy), rotate by `angle`, move to (x, y); arguments broadcast to (...), result (..., 3, 3).

    A positive angle (radians) swings the bone axis (0, 1) towards +x: a limb that hangs down moves *forwards*.
    """
    x, y, angle, sx, sy = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (x, y, angle, sx, sy)))
    cos, sin = np.cos(angle), np.sin(angle)
    out = np.zeros(x.shape + (3, 3))
    out[..., 0, 0], out[..., 0, 1], out[..., 0, 2] = cos * sx, sin * sy, x
    out[..., 1, 0], out[..., 1, 1], out[..., 1, 2] = -sin * sx, cos * sy, y
    out[..., 2, 2] = 1.0
    return out


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., 2) by transforms (..., 3, 3); leading axes broadcast."""
    x, y = points[..., 0], points[..., 1]
    t = transform
    return np.stack([t[..., 0, 0] * x + t[..., 0, 1] * y + t[..., 0, 2],
                     t[..., 1, 0] * x + t[..., 1, 1] * y + t[..., 1, 2]], axis=-1)


def inverse(transform: np.ndarray) -> np.ndarray:
    """Inverse of affine maps (..., 3, 3), by the closed form of the 2x2 part."""
    a, b, c, d = transform[..., 0, 0], transform[..., 0, 1], transform[..., 1, 0], transform[..., 1, 1]
    det = a * d - b * c
    out = np.zeros_like(transform)
    out[..., 0, 0], out[..., 0, 1], out[..., 1, 0], out[..., 1, 1] = d / det, -b / det, -c / det, a / det
    out[..., 0, 2] = -(out[..., 0, 0] * transform[..., 0, 2] + out[..., 0, 1] * transform[..., 1, 2])
    out[..., 1, 2] = -(out[..., 1, 0] * transform[..., 0, 2] + out[..., 1, 1] * transform[..., 1, 2])
    out[..., 2, 2] = 1.0
    return out


def length_scale(transform: np.ndarray) -> np.ndarray:
    """Square root of the area scale, (...): converts a local distance to an outer one."""
    det = transform[..., 0, 0] * transform[..., 1, 1] - transform[..., 0, 1] * transform[..., 1, 0]
    return np.sqrt(np.abs(det))


# ---------------------------------------------------------------------------------------------- shapes
@dataclass(frozen=True)
class Capsule:
    """A bone from (0, 0) to `end` whose radius goes linearly from r0 to r1."""

    end: tuple[float, float]
    r0: float
    r1: float

    def distance(self, x, y):
        ex, ey = self.end
        s = np.clip((x * ex + y * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        return np.sqrt((x - s * ex) ** 2 + (y - s * ey) ** 2) - (self.r0 + s * (self.r1 - self.r0))

    def centre(self):
        return self.end[0] / 2, self.end[1] / 2

    def reach(self):
        return float(np.hypot(*self.end)) + max(self.r0, self.r1)


@dataclass(frozen=True)
class Ellipse:
    """An axis-aligned ellipse about `at`; a circle where rx == ry."""

    rx: float
    ry: float
    at: tuple[float, float] = (0.0, 0.0)

    def distance(self, x, y):
        u, v = (x - self.at[0]), (y - self.at[1])
        if self.rx == self.ry:
            return np.sqrt(u * u + v * v) - self.rx
        k0 = np.sqrt((u / self.rx) ** 2 + (v / self.ry) ** 2)
        k1 = np.sqrt((u / self.rx ** 2) ** 2 + (v / self.ry ** 2) ** 2)
        return np.where(k1 > 1e-9, k0 * (k0 - 1.0) / np.maximum(k1, 1e-9), -min(self.rx, self.ry))

    def centre(self):
        return self.at

    def reach(self):
        return float(np.hypot(*self.at)) + max(self.rx, self.ry)


@dataclass(frozen=True)
class Ring:
    """The band between two circles about the origin."""

    inner: float
    outer: float

    def distance(self, x, y):
        r = np.sqrt(x * x + y * y)
        return np.maximum(r - self.outer, self.inner - r)

    def centre(self):
        return 0.0, 0.0

    def reach(self):
        return self.outer


@dataclass(frozen=True)
class Box:
    """A rectangle of half sizes (hx, hy) about `at`, corners rounded by `r`."""

    hx: float
    hy: float
    at: tuple[float, float] = (0.0, 0.0)
    r: float = 0.0

    def distance(self, x, y):
        qx, qy = np.abs(x - self.at[0]) - self.hx + self.r, np.abs(y - self.at[1]) - self.hy + self.r
        outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
        return outside + np.minimum(np.maximum(qx, qy), 0.0) - self.r

    def centre(self):
        return self.at

    def reach(self):
        return float(np.hypot(*self.at) + np.hypot(self.hx, self.hy))


@dataclass(frozen=True)
class Convex:
    """A convex polygon through `corners` in either order, grown by `r`."""

    corners: tuple[tuple[float, float], ...]
    r: float = 0.0

    def _turn(self) -> float:
        following = self.corners[1:] + self.corners[:1]
        return np.sign(sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(self.corners, following)))

    def distance(self, x, y):
        worst, turn = None, self._turn()
        for (ax, ay), (bx, by) in zip(self.corners, self.corners[1:] + self.corners[:1]):
            nx, ny = turn * (by - ay), -turn * (bx - ax)
            n = np.hypot(nx, ny)
            edge = ((x - ax) * nx + (y - ay) * ny) / n
            worst = edge if worst is None else np.maximum(worst, edge)
        return worst - self.r

    def centre(self):
        return tuple(np.mean(self.corners, axis=0))

    def reach(self):
        return float(max(np.hypot(*c) for c in self.corners)) + self.r


@dataclass(frozen=True)
class Ridge:
    """Everything below a wavy line y = level + sum_i height_i sin(2 pi x / length_i + phase_i): hills, ground, sky."""

    level: float
    waves: tuple[tuple[float, float, float], ...] = ()

    def distance(self, x, y):
        edge = self.level
        for height, length, phase in self.waves:
            edge = edge + height * np.sin(2 * np.pi * x / length + phase)
        return edge - y

    def centre(self):
        return 0.0, self.level

    def reach(self):
        return np.inf
