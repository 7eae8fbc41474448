"""What each pixel shows: known colours and their mixes."""
from __future__ import annotations

from functools import lru_cache

import numpy as np

from motionlab.core.errors import one_of
from motionlab.world.palette import PLACES, SHADES, shade
from motionlab.world.puppets import species as anatomy_of

PURE = 12.0          # RGB distance (of 255) below which a colour is a known one; known ones are >= 35 apart
CUTOFF = 30.0        # RGB distance beyond which nothing explains a pixel
UNSEEN = 7.0         # what a mix pays for using a shade that no neighbour shows
SPECK = 1.5          # smallest piece of a limb that counts, pixels at 48 px height
PART = 0.03          # smallest piece of a limb that counts, as a share of its largest piece
PILLAR = ((0.56, 0.55, 0.60), (0.46, 0.45, 0.52), (0.66, 0.65, 0.69))
_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
_BACK, _STRAY = -1, -2


@lru_cache(maxsize=None)
def background_colours(place: str) -> np.ndarray:
    """RGB (n, 3) in 0..255 of everything that a place can show: sky gradient with clouds, hills, ground, pillar."""
    p = PLACES[one_of(place, PLACES, "place")]
    top, low = (np.array(c) for c in p.sky)
    sky = [top + (low - top) * s for s in np.linspace(0, 1, 6)]
    light = np.minimum(low + 0.10, 1.0)
    clouds = [c + (light - c) * s for c in sky[::2] for s in (0.5, 1.0)]
    one, two = (np.array(c) for c in p.ground)
    ground = [one + (two - one) * s for s in np.linspace(0, 1, 4)]
    return 255.0 * np.array([*sky, *clouds, np.array(p.hills), *ground, *map(np.array, PILLAR)])


def _known(species, colour, place):
    """Colours (n, 3) and their kinds (n,): index of the limb class's slot, _BACK or _STRAY; and the slots' names."""
    slots = list(dict.fromkeys(p.slot for p in anatomy_of(species).parts))
    own = np.array([255.0 * shade(colour, s) for s in slots])
    back = background_colours(place)
    others = [255.0 * shade(colour, s) for s in SHADES if s not in slots]
    others = [c for c in others if np.linalg.norm(np.concatenate([own, back]) - c, axis=1).min() > 40]
    colours = np.concatenate([own, back, np.array(others).reshape(-1, 3)])
    kinds = np.concatenate([np.arange(len(slots)), np.full(len(back), _BACK), np.full(len(others), _STRAY)])
    return colours, kinds, slots


def explain_pixels(frames, species, colour, place):
    """Weights {slot: (f, h, w)}: how much of each pixel shows each of the species' shades."""
    colours, kinds, slots = _known(species, colour, place)
    rgb = frames.astype(np.float32)
    distance, nearest = nearest_colour(rgb, colours)
    kind = kinds[nearest].astype(np.int16)
    close = distance < PURE
    pure = close & _has_company(kind, close) & ~_is_seam(rgb, kind, close)
    n = len(slots)
    weights = np.zeros((n + 2,) + kind.shape, dtype=np.float32)         # the last two are stray (-2) and back (-1)
    for k in (*range(n), _BACK, _STRAY):
        weights[k][pure & (kind == k)] = 1.0
    _share_mixed(weights, rgb, kind, pure, colours, kinds, distance)
    return dict(zip(slots, weights))


def nearest_colour(rgb, colours):
    """Distance to and index of the nearest of `colours` (n, 3), for pixels (..., 3)."""
    flat = rgb.reshape(-1, 3)
    squared = (flat ** 2).sum(1)[:, None] - 2 * flat @ colours.T.astype(np.float32) + (colours ** 2).sum(1)[None]
    index = squared.argmin(1)
    best = np.sqrt(np.maximum(squared[np.arange(len(flat)), index], 0))
    return best.reshape(rgb.shape[:-1]), index.reshape(rgb.shape[:-1])


def _shifted(a, dy, dx, fill):
    """`a` (f, h, w, ...) seen from the neighbour at (dy, dx); outside the picture it is `fill`."""
    out = np.full_like(a, fill)
    h, w = a.shape[1:3]
    seen = a[:, max(0, dy):h + min(0, dy), max(0, dx):w + min(0, dx)]
    out[:, max(0, -dy):h - max(0, dy), max(0, -dx):w - max(0, dx)] = seen
    return out


def _has_company(kind, close):
    """A neighbour is close to the same kind: a lone hit on an edge is a mix that looks like a known colour."""
    marked = np.where(close, kind, np.int16(-9))
    return np.any([_shifted(marked, dy, dx, -9) == kind for dy, dx in _AROUND], axis=0)


def _is_seam(rgb, kind, close):
    """The colour lies between two opposite neighbours of other kinds: a straight edge that looks like a third shade."""
    marked = np.where(close, kind, np.int16(-9))
    out = np.zeros(kind.shape, dtype=bool)
    for dy, dx in _AROUND[:4]:
        a, b = _shifted(marked, dy, dx, -9), _shifted(marked, -dy, -dx, -9)
        at = np.nonzero(close & (a != -9) & (b != -9) & (a != b) & (a != kind) & (b != kind))
        cost, alpha = _mix_residual(rgb[at], _shifted(rgb, dy, dx, 0)[at], _shifted(rgb, -dy, -dx, 0)[at])
        out[at] |= (cost < PURE) & (alpha > 0.1) & (alpha < 0.9)
    return out


def _share_mixed(weights, rgb, kind, pure, colours, kinds, distance):
    """Share each mixed pixel between the two colours that explain it best, in place."""
    at = np.nonzero(~pure)
    pixel = rgb[at]
    ends, end_kinds = _end_members(rgb, kind, pure, at)                 # (p, 8, 3), (p, 8), -9 where there is none
    own = kinds >= 0
    refs, ref_kinds = colours[own].astype(np.float32), kinds[own]
    count = len(pixel)
    best = np.full(count, np.inf, dtype=np.float32)
    first, second = np.full(count, -9), np.full(count, -9)
    part = np.zeros(count, dtype=np.float32)

    def offer(a, b, ka, kb, price):
        cost, alpha = _mix_residual(pixel, a, b)
        cost = np.where((ka == -9) | (kb == -9), np.inf, cost + price)
        better = cost < best
        best[better], part[better] = cost[better], alpha[better]
        first[better], second[better] = ka[better], kb[better]

    for i in range(8):
        for j in range(i):
            offer(ends[:, i], ends[:, j], end_kinds[:, i], end_kinds[:, j], 0.0)
        for ref, k in zip(refs, ref_kinds):
            offer(ends[:, i], np.broadcast_to(ref, pixel.shape), end_kinds[:, i], np.full(count, k), UNSEEN)
    lone = distance[at]                                                 # no neighbour is pure: the nearest known colour
    alone = lone + UNSEEN < best
    best[alone], part[alone], first[alone], second[alone] = lone[alone], 0.0, kind[at][alone], kind[at][alone]
    good = best < CUTOFF
    spot = tuple(a[good] for a in at)
    np.add.at(weights, (first[good], *spot), 1 - part[good])
    np.add.at(weights, (second[good], *spot), part[good])


def _end_members(rgb, kind, pure, at):
    ends, kinds = [], []
    marked = np.where(pure, kind, np.int16(-9))
    for dy, dx in _AROUND:
        ends.append(_shifted(rgb, dy, dx, 0)[at])
        kinds.append(_shifted(marked, dy, dx, -9)[at])
    return np.stack(ends, 1), np.stack(kinds, 1)


def _mix_residual(pixel, a, b):
    """Distance of `pixel` to the segment a..b and the share of b there."""
    line = b - a
    alpha = np.clip(((pixel - a) * line).sum(1) / np.maximum((line ** 2).sum(1), 1e-6), 0, 1)
    return np.sqrt(((a + alpha[:, None] * line - pixel) ** 2).sum(1)), alpha
