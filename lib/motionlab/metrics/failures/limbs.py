"""Legs and parts: do legs take turns, is every limb there once?"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from motionlab.metrics.failures.evidence import MIN_FRAMES, Evidence, observe, shades_of

MIN_SWING = 0.5        # pixels at 48 px height: legs that swing less have no phase
LARGER = 1.4           # a limb larger than this times the largest clean one has an extra piece grown on
_LIMIT_SEEDS = range(9200, 9206)
_LEGS = {"person": (("near_leg", "far_leg"),), "dog": (("near_hind", "far_hind"), ("near_fore", "far_fore"))}


def same_leg_gait(seen: Evidence) -> float:
    """Distance of the legs' phase difference from the gait's own, in half cycles: 0 right, 1 the opposite (walk, run).

    For swings n, f of equal amplitude, cos(phase difference) = 2 <n, f> / (<n, n> + <f, f>). A far leg that is not seen
    is behind the near one. A dog has two pairs of legs; their mean.
    """
    pairs = _LEGS.get(seen.actor["species"], ()) if seen.actor["motion"] in ("walk", "run") else ()
    found = [abs(_phase_difference(seen, near, far) - _own_phase_difference(seen.actor)) for near, far in pairs]
    known = np.array(found)[~np.isnan(found)] / np.pi
    return known.mean() if known.size else np.nan


def _own_phase_difference(actor):
    """Radians between near and far legs, as `motions._gait` has it: a running dog's are nearly together."""
    return 0.5 if (actor["species"], actor["motion"]) == ("dog", "run") else np.pi


def _phase_difference(seen, near, far):
    body = seen.at("torso")[:, 0]
    n, f = seen.at(near)[:, 0] - body, seen.at(far)[:, 0] - body
    f = np.where(np.isnan(f), n, f)
    ok = seen.visible & ~np.isnan(n)
    if ok.sum() < MIN_FRAMES:
        return np.nan
    n, f = n[ok] - n[ok].mean(), f[ok] - f[ok].mean()
    if max(n.std(), f.std()) < MIN_SWING * seen.unit:
        return np.nan
    return np.arccos(np.clip(2 * (n * f).sum() / ((n ** 2).sum() + (f ** 2).sum()), -1, 1))


def extra_part(seen: Evidence) -> float:
    """Share of frames in which a shade has more pieces, or is larger, than in any clean render of this motion."""
    if not seen.whole.any():
        return np.nan
    limits, (pieces, area) = clean_limits(seen.actor["species"], seen.actor["motion"]), _solid(seen)
    extra = (pieces > limits.pieces) | (area > LARGER * limits.area)
    return extra[seen.whole].any(1).mean()


def missing_part(seen: Evidence) -> float:
    """Share of frames in which a limb is absent beyond the clean render of this motion that shows it least; worst limb.

    1 for a subject that is never seen. Frames without a subject count in `appearing_vanishing`, not here.
    """
    if not seen.visible.any():
        return 1.0
    if not seen.whole.any():
        return np.nan
    present = seen.reading.present[seen.whole].mean(0)
    return np.maximum(0, clean_limits(seen.actor["species"], seen.actor["motion"]).present - present).max()


@dataclass(frozen=True)
class Limits:
    """Of clean renders of a motion. present: smallest share of frames, by limb. pieces, area: largest, by shade."""

    present: np.ndarray
    pieces: np.ndarray
    area: np.ndarray


@lru_cache(maxsize=None)
def clean_limits(species: str, motion: str) -> Limits:
    """What clean renders of a motion show: fixed seeds, camera and paths included.

    Raises:
        MotionLabError: unknown species or motion, or one that the other does not do.
    """
    from motionlab.world import random_scene, render

    clips = [render(random_scene(s, species_name=species, motion=motion)) for s in _LIMIT_SEEDS]
    found = [observe(clip.frames, clip.attributes) for clip in clips]
    found = [seen for seen in found if seen.whole.any()]
    pieces, area = (np.concatenate(v).max(0) for v in zip(*((a[seen.whole] for a in _solid(seen)) for seen in found)))
    return Limits(np.min([seen.reading.present[seen.whole].mean(0) for seen in found], axis=0), pieces, area)


def _solid(seen):
    """Pieces of each shade and their area (pixels at 48 px height), (f, shades) each, of what is two pixels wide."""
    import cv2

    pieces, area = np.zeros((2, len(seen.shades), len(shades_of(seen.reading.species))))
    for t, k in np.ndindex(pieces.shape):
        solid = (seen.solid[t] == k).astype(np.uint8)
        pieces[t, k], area[t, k] = cv2.connectedComponents(solid)[0] - 1, solid.sum()
    return pieces, area / seen.unit ** 2
