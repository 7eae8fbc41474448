"""Known damage to motion alone, by dose in [0, 1]: does an instrument that judges structure or motion answer, and how much?

On the world's clips the scene is rendered again with a `world.faults.Fault`; on any clip, generated ones too, its own frames
are shown at other times. No pixel is painted that a healthy clip could not show: what answers here answers motion.
"""
from __future__ import annotations

import dataclasses

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.world import Clip, Scene, render
from motionlab.world.faults import DONORS, Fault, moving_limbs
from motionlab.world.render import place_parts

FAULTS = ("late", "stuck", "gait")                # the scene rendered again
RETIMINGS = ("warp", "stutter", "shuffle")        # the clip's own frames at other times
DOSES = (0.125, 0.25, 0.5, 0.75, 1.0)             # of "late": 22.5, 45, 90, 135 and 180 degrees


def can_break(scene: Scene) -> bool:
    """Has the first actor limbs that move of their own, so that every one of `FAULTS` can be done to it?"""
    return scene.actors[0].species in DONORS and bool(moving_limbs(scene.actors[0]))


def chosen_limb(scene: Scene, frames: int = 17, fps: float = 16.0) -> str:
    """The first actor's limb whose lag by half a cycle moves the body's parts furthest (mean over parts and frames).

    A limb that carries half of the parts or more is the trunk, and what is wrong with a trunk is wrong with everything on it.

    Raises:
        MotionLabError: no limb moves of its own.
    """
    actor, times = scene.actors[0], np.arange(frames) / fps
    limbs = [limb for limb in moving_limbs(actor) if _carried(actor.species, limb) < 0.5]
    if not limbs:
        raise MotionLabError(f"A {actor.species} has no limb that moves of its own.", fix=f"Take one of: {', '.join(DONORS)}.")
    healthy = _places(actor, times, scene.duration)

    def moved(limb):
        wrong = dataclasses.replace(actor, faults=(Fault("late", 1.0, limb),))
        return np.linalg.norm(_places(wrong, times, scene.duration) - healthy, axis=-1).mean()

    return max(limbs, key=moved)


def break_motion(clip: Clip, name: str, dose: float, limb: str = "") -> np.ndarray:
    """Frames uint8 (f, h, w, 3) of the clip's scene, rendered again with one of `FAULTS` in its first actor.

    Args:
        dose: 0 gives the clip's own frames. limb: of "late" and "stuck"; "" is `chosen_limb`.

    Raises:
        MotionLabError: an unknown damage, a dose outside [0, 1], a subject without moving limbs.
    """
    one_of(name, FAULTS, "fault of motion")
    limb = "" if name == "gait" else limb or chosen_limb(clip.scene, len(clip.frames), clip.fps)
    scene = clip.scene.with_actor(0, faults=(Fault(name, float(dose), limb),))
    return render(scene, clip.size, len(clip.frames), clip.fps).frames


def retime(frames: np.ndarray, name: str, dose: float, rng: np.random.Generator) -> np.ndarray:
    """A clip's own frames (f, ...) at other times, as many as before.

    warp     time runs as s + dose sin(2 pi s) / 2 pi for s in [0, 1]: faster towards both ends, at dose 1 twice, and halting between
    stutter  a share `dose` of the frames is shown as the frame before it was, then the clip goes on where it should be
    shuffle  a share `dose` of the frames trade places at random; at 1 all of them

    Raises:
        MotionLabError: an unknown damage, a dose outside [0, 1].
    """
    one_of(name, RETIMINGS, "retiming")
    if not 0 <= dose <= 1:
        raise MotionLabError(f"A dose lies between 0 and 1, not at {dose}.", fix=f"The nearest is {min(max(dose, 0), 1):g}.")
    return frames[{"warp": _warp, "stutter": _stutter, "shuffle": _shuffle}[name](len(frames), dose, rng)]


def _warp(f, dose, rng):
    s = np.linspace(0, 1, f)
    return np.round((f - 1) * (s + dose * np.sin(2 * np.pi * s) / (2 * np.pi))).astype(int)


def _stutter(f, dose, rng):
    """At dose 1 every other frame stands still for one step: more would be a frozen clip."""
    order, held = np.arange(f), 1 + 2 * rng.permutation((f - 1) // 2)
    held = held[:round(dose * len(held))]
    order[held] = order[held - 1]
    return order


def _shuffle(f, dose, rng):
    order, chosen = np.arange(f), np.sort(rng.permutation(f)[:round(dose * f)])
    order[chosen] = rng.permutation(chosen)
    return order


def _carried(name, limb):
    """Share of a species' parts that belong to a limb or hang on it."""
    from motionlab.world.puppets import species

    parts, mine = species(name).parts, set()
    for _ in parts:                                     # as often as the longest chain could need
        mine |= {p.name for p in parts if p.group == limb or p.parent in mine}
    return len(mine) / len(parts)


def _places(actor, times, duration):
    """Where the middle of each part is, (parts, f, 2), in frame heights."""
    from motionlab.world.geometry import apply
    from motionlab.world.puppets import species

    placed = place_parts(actor, times, duration)
    return np.stack([apply(placed[p.name], np.asarray(p.shape.centre(), dtype=float)) for p in species(actor.species).parts])
