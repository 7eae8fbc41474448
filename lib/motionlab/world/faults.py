"""What can be wrong with a motion while the body stays whole: known damage for metrics, done before anything is painted.

    late    one limb's joints follow those of a time ago: its phase lags by dose x 180 degrees
    stuck   one limb's joints hold still over the last `dose` of the clip
    gait    all joints and the root's sway take, to the share `dose`, the rhythm of another species; the way stays

Anatomy, colours, place and camera are untouched, so every pose is one that the body can take, and dose 0 is the clip itself.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.world.motions import MOTIONS, Pose, pose
from motionlab.world.puppets import species

KINDS = ("late", "stuck", "gait")
# Whose rhythm a species takes: (species, motion). Only creatures have limbs that move of their own.
DONORS = {"person": ("snake", "crawl"), "dog": ("bird", "fly"), "bird": ("dog", "walk"), "fish": ("person", "run"),
          "snake": ("dog", "run")}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. limb: of "late" and "stuck", a name of `moving_limbs`; dose: 0 (nothing) to 1.

    Raises:
        MotionLabError: an unknown kind, a dose outside [0, 1].
    """

    kind: str
    dose: float
    limb: str = ""

    def __post_init__(self):
        one_of(self.kind, KINDS, "fault")
        if not 0 <= self.dose <= 1:
            raise MotionLabError(f"A fault's dose lies between 0 and 1, not at {self.dose}.",
                                 fix=f"The nearest is {min(max(self.dose, 0), 1):g}.")


def faulty_pose(actor, t: np.ndarray, duration: float) -> Pose:
    """`motions.pose` of an actor at times t (f,) with its faults, in their order.

    Raises:
        MotionLabError: a limb that does not move of its own, a species without a gait.
    """
    out = pose(actor, t, duration)
    for fault in actor.faults:
        out = _gait(out, actor, t, duration, fault.dose) if fault.kind == "gait" else _limb(out, actor, t, duration, fault)
    return out


def moving_limbs(actor) -> tuple[str, ...]:
    """Limbs with joints that the actor's motion turns, those that a body rests on (its trunk) included."""
    joints = pose(actor, np.linspace(0, actor.period, 9), actor.period).joints
    moved = [name for name, angle in joints.items() if np.ptp(angle) > 1e-6]
    return tuple(dict.fromkeys(p.group for p in species(actor.species).parts if p.name in moved))


# ---------------------------------------------------------------------------------------------- one limb
def _limb(out, actor, t, duration, fault):
    limbs = moving_limbs(actor)
    if not limbs:
        raise MotionLabError(f"A {actor.species} that {MOTIONS[actor.motion].verb} has no limb that moves of its own.",
                             fix=f"Take one of: {', '.join(DONORS)}.")
    one_of(fault.limb, limbs, f"moving limb of a {actor.species}")
    then = t - fault.dose * actor.period / 2 if fault.kind == "late" else np.minimum(t, (1 - fault.dose) * duration)
    wrong = pose(actor, then, duration).joints
    mine = {p.name for p in species(actor.species).parts if p.group == fault.limb}
    out.joints |= {name: angle for name, angle in wrong.items() if name in mine}
    return out


# ---------------------------------------------------------------------------------------------- all of them
def _gait(out, actor, t, duration, dose):
    """Every joint sways about its own mean as the donor's joints do, taken in the order of the parts; so does the root."""
    donor = DONORS.get(actor.species)
    if donor is None:
        raise MotionLabError(f"A {actor.species} has no gait that another species could give it.",
                             fix=f"Take one of: {', '.join(DONORS)}.")
    other = pose(type(actor)(species=donor[0], motion=donor[1], phase=actor.phase, amplitude=actor.amplitude), t, duration)
    own = [p.name for p in species(actor.species).parts if p.name in out.joints]
    given = [p.name for p in species(donor[0]).parts if p.name in other.joints]
    for k, name in enumerate(own):
        out.joints[name] = _towards(out.joints[name], other.joints[given[k % len(given)]], dose, len(t))
    for name in ("y", "angle", "sx", "sy"):
        setattr(out, name, _towards(getattr(out, name), getattr(other, name), dose, len(t)))
    return out


def _towards(own, other, dose, f):
    """From one course (f,) to its own mean plus another's departures from its mean."""
    own, other = (np.broadcast_to(np.asarray(a, dtype=float), (f,)) for a in (own, other))
    return own + dose * (own.mean() + other - other.mean() - own)
