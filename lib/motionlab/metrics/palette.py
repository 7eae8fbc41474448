"""The palette reader: limb positions, colour and place of a picture, read without a network.

The world paints every limb in a shade of its own, so a limb is where its shade is. The reader is independent of every
learned evaluator and therefore its check: both must agree in direction before either judges a claim.

How a pixel is read. A pixel whose colour lies within `PURE` of a known one, with a neighbour of the same kind, is pure.
Every other pixel is taken as a mix of two colours (antialiased edges are exactly that): the pair of its neighbours'
colours, or of a neighbour's colour and a shade, that explains it best shares the pixel in proportion. A colour that no
pair explains within `CUTOFF` is foreign and belongs to nothing.

Limits. One subject per picture. Limbs of one shade whose parents differ (a dog's ear and tail) are told apart by what
they hang on; limbs of one shade on one parent (four of a wheel's spokes, a snake's coils) are read as one, under the
joined name `spoke1+spoke2+spoke3+spoke4`.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.world.palette import COLOURS, PLACES, SHADES, shade
from motionlab.world.puppets import SPECIES, species as anatomy_of

PURE = 12.0          # RGB distance (of 255) below which a colour is a known one; known ones are >= 35 apart
CUTOFF = 30.0        # RGB distance beyond which nothing explains a pixel
UNSEEN = 7.0         # what a mix pays for using a shade that no neighbour shows
SPECK = 1.5          # smallest piece of a limb that counts, pixels at 48 px height
PART = 0.03          # smallest piece of a limb that counts, as a share of its largest piece
_PILLAR = ((0.56, 0.55, 0.60), (0.46, 0.45, 0.52), (0.66, 0.65, 0.69))
_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
_BACK, _STRAY = -1, -2


@dataclass(frozen=True)
class LimbReading:
    """What the reader saw of one subject.

    Attributes:
        centres: (f, limbs, 2) area-weighted centroids (x, y) in pixels; NaN where a limb is absent.
        area: (f, limbs) pixels, fractions included.
        pieces: (f, limbs) int, connected pieces of each limb.
        stray: (f,) pixels in shades of this colour that this species does not have.
        foreign: (f,) pixels that neither the subject nor the background explains.
        names: limb names; limbs that cannot be told apart are joined by "+".
        species, colour, place: what was read for. size: (h, w) in pixels.
    """

    centres: np.ndarray
    area: np.ndarray
    pieces: np.ndarray
    stray: np.ndarray
    foreign: np.ndarray
    names: tuple[str, ...]
    species: str
    colour: str
    place: str
    size: tuple[int, int]

    @property
    def present(self) -> np.ndarray:
        """(f, limbs) bool."""
        return self.area > 0


def read_limbs(frames: np.ndarray, species: str, colour: str, place: str | None = None) -> LimbReading:
    """Limb centres and areas of a subject whose species and colour are known or asked for.

    Args:
        frames: uint8 (f, h, w, 3) RGB, or one picture (h, w, 3).
        place: name of the background; None reads it from the frames.

    Raises:
        MotionLabError: wrong shape or type, unknown species, colour or place (the nearest is named).
    """
    frames = _checked(frames)
    one_of(species, SPECIES, "species")
    one_of(colour, COLOURS, "colour")
    place = _read_place(frames) if place is None else one_of(place, PLACES, "place")
    limbs = limb_table(species)
    weights, stray, foreign = _explain(frames, species, colour, place)
    centres, area, pieces = _gather(weights, limbs, frames.shape[1])
    return LimbReading(centres, area, pieces, stray, foreign, tuple(limb.name for limb in limbs), species, colour,
                       place, frames.shape[1:3])


def subject_mask(frames: np.ndarray, place: str | None = None) -> np.ndarray:
    """(f, h, w) bool: pixels that are no colour of the background; `place` as for `read_limbs`."""
    frames = _checked(frames)
    place = _read_place(frames) if place is None else one_of(place, PLACES, "place")
    distance, _ = _nearest(frames.reshape(-1, 3).astype(np.float32), background_colours(place))
    return (distance > CUTOFF).reshape(frames.shape[:3])


def read_attributes(frames: np.ndarray) -> dict:
    """Colour, place and species that explain a clip best.

    Place: the background that explains most pixels. Colour and species: the pair whose shades explain most of the
    rest, times how well the areas of the shades match those of the species in clean renders (Bhattacharyya).

    Args:
        frames: uint8 (f, h, w, 3) RGB, or one picture (h, w, 3).

    Returns:
        {"colour", "place", "species", "explained"}; explained: share of the pixels off the background that the colour's
        shades explain. All but place are None (explained 0) when no pixel has a shade of any colour.

    Raises:
        MotionLabError: wrong shape or type.
    """
    frames = _checked(frames)
    place = _read_place(frames)
    rest = _off_background(frames, place)
    best = max(((*_fit_colour(rest, colour), colour) for colour in COLOURS), key=lambda row: row[0])
    score, explained, species, colour = best
    if score <= 0:
        return {"colour": None, "place": place, "species": None, "explained": 0.0}
    return {"colour": colour, "place": place, "species": species, "explained": explained}


# ---------------------------------------------------------------------------------------------- what a species shows
@dataclass(frozen=True)
class Limb:
    """A limb as the reader tells it: the groups it joins, its shades, and the limb it hangs on where that decides."""

    name: str
    groups: tuple[str, ...]
    slots: tuple[str, ...]
    anchor: str = ""


@lru_cache(maxsize=None)
def limb_table(species: str) -> tuple[Limb, ...]:
    """The limbs that can be read of a species, in drawing order.

    Raises:
        MotionLabError: unknown species.
    """
    parts = anatomy_of(species).parts
    groups = list(dict.fromkeys(p.group for p in parts))
    slots = {g: tuple(dict.fromkeys(p.slot for p in parts if p.group == g)) for g in groups}
    parent = {g: _parent_group(parts, g) for g in groups}
    out, done = [], set()
    for group in groups:
        if group in done:
            continue
        same = [g for g in groups if slots[g][0] == slots[group][0]]
        anchors = [parent[g] for g in same]
        apart = len(set(anchors)) == len(same) and all(a and a not in same and _unique(a, slots) for a in anchors)
        done.update(same)
        if len(same) == 1 or not apart:
            out.append(Limb("+".join(same), tuple(same), tuple(dict.fromkeys(s for g in same for s in slots[g]))))
        else:
            out += [Limb(g, (g,), slots[g], parent[g]) for g in same]
    return tuple(out)


def _parent_group(parts, group):
    """The limb that a limb hangs on, "" for the root."""
    by_name = {p.name: p for p in parts}
    for p in parts:
        if p.group == group and p.parent and by_name[p.parent].group != group:
            return by_name[p.parent].group
    return ""


def _unique(group, slots):
    return sum(slots[g][0] == slots[group][0] for g in slots) == 1


def limb_links(species: str) -> tuple[tuple[int, int], ...]:
    """Pairs of indices into `limb_table` of limbs that are joined at a joint."""
    parts, limbs = anatomy_of(species).parts, limb_table(species)
    index = {g: i for i, limb in enumerate(limbs) for g in limb.groups}
    pairs = {(index[_parent_group(parts, g)], i) for g, i in index.items() if _parent_group(parts, g)}
    return tuple(sorted((a, b) for a, b in pairs if a != b))


# ---------------------------------------------------------------------------------------------- known colours
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
    return 255.0 * np.array([*sky, *clouds, np.array(p.hills), *ground, *map(np.array, _PILLAR)])


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


# ---------------------------------------------------------------------------------------------- pixels
def _explain(frames, species, colour, place):
    """Weights {slot: (f, h, w)}, stray pixels (f,), foreign pixels (f,)."""
    colours, kinds, slots = _known(species, colour, place)
    rgb = frames.astype(np.float32)
    distance, nearest = _nearest(rgb, colours)
    kind = kinds[nearest].astype(np.int16)
    close = distance < PURE
    pure = close & _has_company(kind, close) & ~_is_seam(rgb, kind, close)
    n = len(slots)
    weights = np.zeros((n + 2,) + kind.shape, dtype=np.float32)         # the last two are stray (-2) and back (-1)
    for k in (*range(n), _BACK, _STRAY):
        weights[k][pure & (kind == k)] = 1.0
    foreign = _share_mixed(weights, rgb, kind, pure, colours, kinds, distance)
    return dict(zip(slots, weights)), weights[_STRAY].sum((1, 2)), foreign


def _nearest(rgb, colours):
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
    """Share each mixed pixel between the two colours that explain it best, in place; returns foreign pixels (f,)."""
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
    return np.bincount(at[0][~good], minlength=len(rgb)).astype(float)


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


# ---------------------------------------------------------------------------------------------- limbs
def _gather(weights, limbs, height):
    """Centres (f, limbs, 2), areas and numbers of pieces (f, limbs) from the slots' weights."""
    f = next(iter(weights.values())).shape[0]
    index = {limb.name: i for i, limb in enumerate(limbs)}
    centres = np.full((f, len(limbs), 2), np.nan)
    area, pieces = np.zeros((f, len(limbs))), np.zeros((f, len(limbs)), dtype=int)
    speck = SPECK * (height / 48) ** 2
    for t in range(f):
        shared = {}
        for i, limb in enumerate(limbs):
            found = _pieces(sum(weights[s][t] for s in limb.slots), speck)
            if limb.anchor:
                shared.setdefault(limb.slots, (found, []))[1].append(i)
            else:
                _sum_up(found, t, i, centres, area, pieces)
        for found, rivals in shared.values():
            for i, mine in _by_anchor(found, rivals, limbs, index, centres[t]).items():
                _sum_up(mine, t, i, centres, area, pieces)
    return centres, area, pieces


def _pieces(weight, speck):
    """Connected pieces of a weight picture (h, w) that are large enough: rows (mass, x, y), (n, 3)."""
    import cv2

    count, labels = cv2.connectedComponents((weight > 0.25).astype(np.uint8), connectivity=8)
    if count == 1:
        return np.zeros((0, 3))
    y, x = np.nonzero(labels)
    which, mass = labels[y, x] - 1, weight[y, x].astype(float)
    total = np.bincount(which, mass, count - 1)
    mean = [np.bincount(which, mass * at, count - 1) / total for at in (x, y)]
    found = np.stack([total, *mean], 1)
    return found[total >= max(speck, PART * total.max())]


def _by_anchor(found, rivals, limbs, index, centres):
    """Gives every piece of a shared shade to the limb whose anchor is nearest."""
    anchors = np.array([centres[index[limbs[i].anchor]] for i in rivals])
    gap = np.linalg.norm(found[:, None, 1:] - anchors[None], axis=-1)
    owner = np.where(np.isnan(gap), np.inf, gap).argmin(1) if len(found) else np.zeros(0, int)
    return {i: found[owner == k] for k, i in enumerate(rivals)}


def _sum_up(found, t, i, centres, area, pieces):
    if len(found):
        area[t, i], pieces[t, i] = found[:, 0].sum(), len(found)
        centres[t, i] = (found[:, :1] * found[:, 1:]).sum(0) / area[t, i]


# ---------------------------------------------------------------------------------------------- attributes
def _sample(frames):
    return frames[np.unique(np.linspace(0, len(frames) - 1, 5).astype(int))].reshape(-1, 3).astype(np.float32)


def _read_place(frames):
    """The place whose colours lie nearest to most pixels; the pillar's are left out, all places share them."""
    pixels = _sample(frames)

    def fit(place):
        distance, _ = _nearest(pixels, background_colours(place)[:-len(_PILLAR)])
        return np.exp(-0.5 * (distance / 5.0) ** 2).sum()
    return max(PLACES, key=fit)


def _off_background(frames, place):
    pixels = _sample(frames)
    distance, _ = _nearest(pixels, background_colours(place))
    return pixels[distance > CUTOFF]


def _fit_colour(rest, colour):
    """(score, explained share, species) of one colour for pixels (p, 3) off the background."""
    if not len(rest):
        return 0.0, 0.0, None
    slots = [s for s in SHADES if s != "pale"]                          # pale and head are the same colour
    distance, index = _nearest(rest, np.array([255.0 * shade(colour, s) for s in slots]))
    near = distance < 20.0
    explained = float(near.mean())
    seen = np.bincount(index[near], minlength=len(slots)) / max(near.sum(), 1)
    match = {name: float(np.sqrt(seen * _slot_profile(name)).sum()) for name in SPECIES}
    species = max(match, key=match.get)
    return explained * match[species], explained, species


@lru_cache(maxsize=None)
def _slot_profile(species):
    """Share of a subject's visible area in each slot of `SHADES` without pale, from a few clean renders."""
    from motionlab.world import random_scene, render

    slots = [s for s in SHADES if s != "pale"]
    of = {p.name: "head" if p.slot == "pale" else p.slot for p in anatomy_of(species).parts}
    total = np.zeros(len(slots))
    for seed in range(4):
        clip = render(random_scene(seed, species_name=species, camera=False), frames=5, fps=5)
        counts = np.bincount(clip.ids.ravel(), minlength=len(clip.layers))
        for layer, count in zip(clip.layers, counts):
            if layer.object == 0:
                total[slots.index(of[layer.name])] += count
    return total / total.sum()


def _checked(frames):
    frames = np.asarray(frames)
    if frames.dtype != np.uint8:
        raise MotionLabError(f"The palette reader got {frames.dtype} frames; it reads uint8 RGB.",
                             fix="Convert first: ((video + 1) * 127.5).round().clip(0, 255).astype('uint8').")
    frames = frames[None] if frames.ndim == 3 else frames
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape or min(frames.shape[1:3]) < 3:
        raise MotionLabError(f"The palette reader got frames of shape {frames.shape}; wanted (f, h, w, 3) or (h, w, 3).",
                             fix="Models give (f, c, h, w): move the channels last.")
    return frames


__all__ = ["LimbReading", "Limb", "background_colours", "limb_links", "limb_table", "read_attributes", "read_limbs"]
