"""Limbs and subject read from the palette alone, without a network."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.metrics.palette.limbs import limb_table
from motionlab.metrics.palette.pixels import CUTOFF, PART, SPECK, explain_pixels, nearest_colour, background_colours
from motionlab.world.palette import COLOURS, PLACES
from motionlab.world.puppets import SPECIES


@dataclass(frozen=True)
class LimbReading:
    """What the reader saw of one subject.

    Attributes:
        centres: (f, limbs, 2) area-weighted centroids (x, y) in pixels; NaN where a limb is absent.
        area: (f, limbs) pixels, fractions included.
        names: limb names; limbs that cannot be told apart are joined by "+".
        species, colour, place: what was read for. size: (h, w) in pixels.
    """

    centres: np.ndarray
    area: np.ndarray
    names: tuple[str, ...]
    species: str
    colour: str
    place: str
    size: tuple[int, int]

    @property
    def present(self) -> np.ndarray:
        """(f, limbs) bool."""
        return self.area > 0


def read_limbs(frames: np.ndarray, species: str, colour: str, place: str) -> LimbReading:
    """Limb centres and areas of a subject whose species and colour are known or asked for.

    Args:
        frames: uint8 (f, h, w, 3) RGB, or one picture (h, w, 3).
        place: name of the background.

    Raises:
        MotionLabError: wrong shape or type, unknown species, colour or place (the nearest is named).
    """
    frames = _checked(frames)
    one_of(species, SPECIES, "species")
    one_of(colour, COLOURS, "colour")
    one_of(place, PLACES, "place")
    limbs = limb_table(species)
    centres, area = _gather(explain_pixels(frames, species, colour, place), limbs, frames.shape[1])
    return LimbReading(centres, area, tuple(limb.name for limb in limbs), species, colour, place, frames.shape[1:3])


def subject_mask(frames: np.ndarray, place: str) -> np.ndarray:
    """(f, h, w) bool: pixels that are no colour of the background; `place` as for `read_limbs`."""
    frames = _checked(frames)
    distance, _ = nearest_colour(frames.reshape(-1, 3).astype(np.float32), background_colours(place))
    return (distance > CUTOFF).reshape(frames.shape[:3])


def _gather(weights, limbs, height):
    """Centres (f, limbs, 2) and areas (f, limbs) from the slots' weights."""
    f = next(iter(weights.values())).shape[0]
    index = {limb.name: i for i, limb in enumerate(limbs)}
    centres = np.full((f, len(limbs), 2), np.nan)
    area = np.zeros((f, len(limbs)))
    speck = SPECK * (height / 48) ** 2
    for t in range(f):
        shared = {}
        for i, limb in enumerate(limbs):
            found = _pieces(sum(weights[s][t] for s in limb.slots), speck)
            if limb.anchor:
                shared.setdefault(limb.slots, (found, []))[1].append(i)
            else:
                _sum_up(found, t, i, centres, area)
        for found, rivals in shared.values():
            for i, mine in _by_anchor(found, rivals, limbs, index, centres[t]).items():
                _sum_up(mine, t, i, centres, area)
    return centres, area


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


def _sum_up(found, t, i, centres, area):
    if len(found):
        area[t, i] = found[:, 0].sum()
        centres[t, i] = (found[:, :1] * found[:, 1:]).sum(0) / area[t, i]


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
