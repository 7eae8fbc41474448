"""Limbs, subject and attributes read from the palette alone, without a network."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.metrics.palette.limbs import limb_table
from motionlab.metrics.palette.pixels import CUTOFF, PART, SPECK, PILLAR, explain_pixels, nearest_colour, background_colours
from motionlab.world.palette import COLOURS, PLACES, SHADES, shade
from motionlab.world.puppets import SPECIES, species as anatomy_of


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
    weights, stray, foreign = explain_pixels(frames, species, colour, place)
    centres, area, pieces = _gather(weights, limbs, frames.shape[1])
    return LimbReading(centres, area, pieces, stray, foreign, tuple(limb.name for limb in limbs), species, colour,
                       place, frames.shape[1:3])


def subject_mask(frames: np.ndarray, place: str | None = None) -> np.ndarray:
    """(f, h, w) bool: pixels that are no colour of the background; `place` as for `read_limbs`."""
    frames = _checked(frames)
    place = _read_place(frames) if place is None else one_of(place, PLACES, "place")
    distance, _ = nearest_colour(frames.reshape(-1, 3).astype(np.float32), background_colours(place))
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


def _sample(frames):
    return frames[np.unique(np.linspace(0, len(frames) - 1, 5).astype(int))].reshape(-1, 3).astype(np.float32)


def _read_place(frames):
    """The place whose colours lie nearest to most pixels; the pillar's are left out, all places share them."""
    pixels = _sample(frames)

    def fit(place):
        distance, _ = nearest_colour(pixels, background_colours(place)[:-len(PILLAR)])
        return np.exp(-0.5 * (distance / 5.0) ** 2).sum()
    return max(PLACES, key=fit)


def _off_background(frames, place):
    pixels = _sample(frames)
    distance, _ = nearest_colour(pixels, background_colours(place))
    return pixels[distance > CUTOFF]


def _fit_colour(rest, colour):
    """(score, explained share, species) of one colour for pixels (p, 3) off the background."""
    if not len(rest):
        return 0.0, 0.0, None
    slots = [s for s in SHADES if s != "pale"]                          # pale and head are the same colour
    distance, index = nearest_colour(rest, np.array([255.0 * shade(colour, s) for s in slots]))
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
