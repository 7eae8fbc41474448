"""Structure error: does the subject keep its parts, their distances and their continuity?

Everything is computed from a `palette.LimbReading`. Lengths are in fractions of the subject's size, the square root of
its median visible area; shares are fractions of limb-frames (limbs times frames) or of steps. 0 is perfect.

A clean clip does not score exactly 0: limbs hide one another and gaits change distances. What clean renders of the species explain
(`clean_profile`) does not count, and figures draw the floor measured on reconstructions. Terms are those that a codec disturbs least:
it makes pieces, strange colours and other areas of every limb's edge.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.metrics.palette import LimbReading, limb_links, limb_table, read_limbs
from motionlab.metrics.still_changes import SIZES, still_change
from motionlab.world.motions import MOTIONS
from motionlab.world.puppets import SPECIES, species as anatomy_of

_PROFILE_CLIPS = 6
DAMAGES = {"clean": (0,), "hide": (1, 2), "shift": (2, 4, 8), "blur": (0.7, 1, 2, 3), "frozen": (1,), "shuffled": (1,),
           "species": (1,), **{name: sizes for name, sizes in SIZES.items() if name != "blur"}}


def structure_error(reading: LimbReading, reference: LimbReading | None = None) -> dict:
    """Structure error of one subject, term by term.

    Args:
        reading: of the clip that is judged.
        reference: of the true clip (same species, frames and size); adds part_error.

    Returns:
        dict of floats, NaN where a term has nothing to measure:
        missing           share of limb-frames absent beyond what occlusion in clean renders explains
        length_variation  standard deviation over time of the distance between joined limbs / size, mean over joints
        length_error      how far that distance leaves the range seen in clean renders / size, mean over joints
        jump              mean second difference of limb centres / size (per frame squared)
        flicker           share of limb-steps at which a limb appears or vanishes
        articulation      sum of these, and 1 more for a subject that is nowhere to be seen
        part_error        with `reference`: mean distance of limb centres seen in both / the reference's size

    Raises:
        MotionLabError: not a LimbReading; a reference of another species, length or frame size.
    """
    _check(reading, reference)
    profile = clean_profile(reading.species)
    terms = _terms(reading, profile)
    terms["articulation"] = _articulation(terms)
    if reference is not None:
        both = reading.present & reference.present
        terms["part_error"] = _mean(np.linalg.norm(reading.centres - reference.centres, axis=-1)[both] / subject_size(reference))
    return terms


def subject_size(reading: LimbReading) -> float:
    """Square root of the median visible area in pixels, over the frames in which anything is visible; NaN if never."""
    area = reading.area.sum(1)
    return float(np.sqrt(np.median(area[area > 0]))) if (area > 0).any() else float("nan")


# ---------------------------------------------------------------------------------------------- terms
@dataclass(frozen=True)
class Profile:
    """Of clean renders of a species: presence (limbs,), range of joint distances (joints, 2) / size; areas (limbs,) / size squared
    where present, and the usual size in pixels at 48 px height."""

    presence: np.ndarray
    lengths: np.ndarray
    areas: np.ndarray
    size: float


def _terms(reading, profile):
    present, lengths = reading.present, joint_lengths(reading)
    with np.errstate(invalid="ignore"):
        low, high = profile.lengths.T
        outside = np.maximum(0, np.maximum(low - lengths, lengths - high))
    jump = np.linalg.norm(np.diff(reading.centres, 2, axis=0), axis=-1) / subject_size(reading)
    return {
        "missing": float(np.maximum(0, profile.presence - present.mean(0)).mean()),
        "length_variation": _mean(_spread(lengths)),
        "length_error": _mean(outside),
        "jump": _mean(jump),
        "flicker": _mean(present[1:] != present[:-1]),
    }


def joint_lengths(reading: LimbReading) -> np.ndarray:
    """Distance between the centres of joined limbs / subject size, (f, joints); NaN where one of them is absent."""
    links = np.array(limb_links(reading.species), dtype=int).reshape(-1, 2)
    apart = reading.centres[:, links[:, 0]] - reading.centres[:, links[:, 1]]
    return np.linalg.norm(apart, axis=-1) / subject_size(reading)


def _spread(values):
    """Standard deviation over time of the joints seen in at least 3 frames."""
    seen = values[:, (~np.isnan(values)).sum(0) >= 3]
    return np.nanstd(seen, axis=0) if seen.shape[1] else np.zeros(0)


def _mean(values):
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _articulation(terms):
    seen = [value for value in terms.values() if not np.isnan(value)]
    return float(sum(seen) + (1.0 if np.isnan(terms["length_variation"]) and terms["missing"] > 0.5 else 0.0))


@lru_cache(maxsize=None)
def clean_profile(species: str) -> Profile:
    """What clean renders of a species give: no pillar, no camera, fixed seeds; the ranges get a margin of 5 % of size.

    Raises:
        MotionLabError: unknown species.
    """
    from motionlab.world import random_scene, render

    one_of(species, SPECIES, "species")
    moves = [m for m in anatomy_of(species).motions if m != "pass_behind"]
    readings = []
    for k in range(_PROFILE_CLIPS):
        scene = random_scene(9100 + k, species_name=species, motion=moves[k % len(moves)], camera=False, paths=False)
        readings.append(read_limbs(render(scene).frames, species, scene.actors[0].colour, scene.place))
    lengths = np.concatenate([joint_lengths(r) for r in readings])
    low, high = (np.nan_to_num(edge(lengths, axis=0)) for edge in (np.nanmin, np.nanmax))
    area = np.concatenate([np.where(r.present, r.area, np.nan) / subject_size(r) ** 2 for r in readings])
    size = float(np.mean([subject_size(r) for r in readings]))
    return Profile(np.mean([r.present.mean(0) for r in readings], axis=0), np.stack([low - 0.05, high + 0.05], 1),
                   np.nan_to_num(np.nanmean(area, axis=0)), size)


def reading_of(positions: np.ndarray, visible: np.ndarray, names: Sequence[str], species: str, size: tuple[int, int]) -> LimbReading:
    """A learned reader's limb positions as a `LimbReading`, so that both readers go through the same structure error.

    A learned reader tells no areas: a limb that shows has the area that it usually has in clean renders. Limbs that the
    palette reader joins ("a+b") are where the middle of those that show is.

    Args:
        positions: (f, limbs, 2) as (x, y). visible: (f, limbs) probability that a limb shows. names: of the limbs.
    """
    profile, f = clean_profile(species), len(positions)
    limbs, names = limb_table(species), list(names)
    centres, shown = np.full((f, len(limbs), 2), np.nan), np.zeros((f, len(limbs)), bool)
    for i, limb in enumerate(limbs):
        mine = [names.index(limb.name)] if limb.name in names else [names.index(g) for g in limb.groups]
        seen = visible[:, mine] > 0.5
        shown[:, i] = seen.any(1)
        where = np.where(seen[..., None], positions[:, mine], 0.0).sum(1) / np.maximum(seen.sum(1), 1)[:, None]
        centres[:, i] = np.where(shown[:, i, None], where, np.nan)
    area = shown * profile.areas * (profile.size * size[0] / 48) ** 2
    return LimbReading(centres, area, tuple(limb.name for limb in limbs), species, "", "", tuple(size))


def _check(reading, reference):
    for name, r in (("reading", reading), ("reference", reference)):
        if r is not None and not isinstance(r, LimbReading):
            raise MotionLabError(f"structure_error's {name} is a {type(r).__name__}, not a LimbReading.",
                                 fix="Make one with motionlab.metrics.palette.read_limbs(frames, species, colour).")
    if reference is None:
        return
    for name in ("species", "size"):
        if getattr(reading, name) != getattr(reference, name):
            mine, theirs = getattr(reading, name), getattr(reference, name)
            raise MotionLabError(f"The reading's {name} is {mine}, the reference's {theirs}.",
                                 fix="Compare readings of the same subject in frames of the same size.")
    if len(reading.area) != len(reference.area):
        raise MotionLabError(f"The reading has {len(reading.area)} frames, the reference {len(reference.area)}.")


# ---------------------------------------------------------------------------------------------- known damage
def damage(clip, name: str, dose, rng) -> np.ndarray:
    """Frames uint8 (f, h, w, 3) of a clip with one known damage done to its first actor: can the instruments see it?

    Args:
        name, dose: of `DAMAGES`: hide (number of limbs not drawn), shift (one limb by k px at 48 px height), blur (Gaussian sigma in
            px at 48 px height), frozen (first frame repeated), shuffled (frames in random order), species (another species drawn in
            its place, read as the one asked for), clean; and the static changes of `still_changes.SIZES`, which are no damage to
            structure: blur up to 1 px, contrast, brightness, blotches.

    Raises:
        MotionLabError: unknown damage.
    """
    one_of(name, DAMAGES, "damage")
    if name in SIZES:
        return still_change(clip.frames, name, dose, rng)
    return {"clean": lambda *_: clip.frames, "hide": _hide, "shift": _shift, "frozen": _freeze,
            "shuffled": _shuffle, "species": _swap}[name](clip, dose, rng)


def _again(clip, scene):
    from motionlab.world import render

    return render(scene, clip.size, len(clip.frames), clip.fps).frames


def _visible_limbs(clip):
    """Limbs by visible area, the largest last; a limb never seen is left out."""
    area = {k: m.sum() for k, m in clip.limb_masks().items()}
    return [k for k in sorted(area, key=area.get) if area[k] > 0]


def _hide(clip, dose, rng):
    limbs = _visible_limbs(clip)
    chosen = rng.permutation(limbs[max(0, len(limbs) - 4):])[:dose] if len(limbs) > 1 else limbs
    return _again(clip, clip.scene.with_actor(0, hide=tuple(str(k) for k in chosen)))


def _shift(clip, dose, rng):
    """The middle-sized limb is drawn `dose` pixels off (right and down), over everything else."""
    limbs = _visible_limbs(clip)
    limb = limbs[len(limbs) // 2]
    mask = clip.limb_masks()[limb]
    out = _again(clip, clip.scene.with_actor(0, hide=(limb,)))
    k = int(round(dose * clip.size[0] / 48 / np.sqrt(2)))
    t, y, x = np.nonzero(mask)
    keep = (y + k < clip.size[0]) & (x + k < clip.size[1])
    out[t[keep], y[keep] + k, x[keep] + k] = clip.frames[t[keep], y[keep], x[keep]]
    return out


def _freeze(clip, dose, rng):
    return np.repeat(clip.frames[:1], len(clip.frames), axis=0)


def _shuffle(clip, dose, rng):
    return clip.frames[rng.permutation(len(clip.frames))]


def _swap(clip, dose, rng):
    """Another species in the same place and colour; a motion of its own."""
    mine = clip.scene.actors[0].species
    other = str(rng.choice([s for s in SPECIES if s != mine]))
    motion = next(m for m in anatomy_of(other).motions if m != "pass_behind")
    changes = {"species": other, "motion": motion, "period": None, "speed": None, "path": (), "y": None, "hide": ()}
    if MOTIONS[motion].place == "air" and motion != "swing":
        changes["y"] = 0.46
    return _again(clip, clip.scene.with_actor(0, **changes))


__all__ = ["DAMAGES", "Profile", "clean_profile", "damage", "joint_lengths", "reading_of", "structure_error", "subject_size"]
