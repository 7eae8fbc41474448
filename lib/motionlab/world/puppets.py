"""Anatomy: what each species is made of. A species is a list of parts hung on one another, drawn back to front.

Lengths are in frame heights for an actor of size 1. Bones point along +y (down) when their angle is 0; a creature
faces +x. Parts of one limb share a shade, so a limb can be found by colour; `limb` groups them.
"""
from __future__ import annotations

from dataclasses import dataclass

from motionlab.core.errors import one_of
from motionlab.world.geometry import Box, Capsule, Convex, Ellipse, Ring


@dataclass(frozen=True)
class Part:
    """One rigid (or affinely stretched) shape.

    Attributes:
        name: unique in the species.
        shape: signed distance shape in the part's own frame.
        parent: name of the part it hangs on; "" is the root frame.
        at: joint position in the parent's frame.
        slot: key of `palette.SHADES`.
        limb: group name; the part's own name if empty.
        angle: rest angle (radians) added to the motion's.
    """

    name: str
    shape: object
    parent: str = ""
    at: tuple[float, float] = (0.0, 0.0)
    slot: str = "body"
    limb: str = ""
    angle: float = 0.0

    @property
    def group(self) -> str:
        return self.limb or self.name


@dataclass(frozen=True)
class Species:
    """Anatomy of one kind of subject: parts back to front, feet that touch the ground, rest height of the root."""

    noun: str
    parts: tuple[Part, ...]
    motions: tuple[str, ...]
    feet: tuple[str, ...] = ()
    leg: float = 0.0
    radius: float = 0.0

    def part(self, name: str) -> Part:
        """The part called `name`; a misspelt one is an error that names the nearest."""
        one_of(name, [p.name for p in self.parts], f"part of a {self.noun}")
        return next(p for p in self.parts if p.name == name)


def _two_segment(side: str, kind: str, slot: str, at, parent, upper, lower, r, foot=None) -> tuple[Part, ...]:
    """A limb of two bones (thigh and shin, upper arm and forearm), named `<side>_<kind>_upper/_lower`."""
    limb = f"{side}_{kind}"
    parts = [Part(f"{limb}_upper", Capsule((0, upper), r, r * 0.86), parent, at, slot, limb),
             Part(f"{limb}_lower", Capsule((0, lower), r * 0.84, r * 0.74), f"{limb}_upper", (0, upper), slot, limb)]
    if foot:
        shape = Capsule((foot, 0), r * 0.80, r * 0.66)
        parts.append(Part(f"{limb}_foot", shape, f"{limb}_lower", (0, lower), slot, limb))
    return tuple(parts)


def _person() -> Species:
    far_arm = _two_segment("far", "arm", "far2", (0, -0.235), "torso", 0.125, 0.125, 0.043)
    near_arm = _two_segment("near", "arm", "near2", (0, -0.235), "torso", 0.125, 0.125, 0.045)
    far_leg = _two_segment("far", "leg", "far", (-0.01, -0.01), "", 0.165, 0.15, 0.060, foot=0.055)
    near_leg = _two_segment("near", "leg", "near", (0.01, -0.01), "", 0.165, 0.15, 0.062, foot=0.055)
    torso = (Part("torso", Capsule((0, -0.215), 0.088, 0.104)),)
    head = (Part("head", Ellipse(0.122, 0.122), "torso", (0.012, -0.40), "head"),
            Part("eye", Ellipse(0.022, 0.027), "head", (0.058, -0.012), "eye", "head"))
    return Species("person", far_arm + far_leg + torso + head + near_leg + near_arm, ("walk", "run", "dance", "flip"),
                   feet=("near_leg_foot", "far_leg_foot"), leg=0.315)


def _dog() -> Species:
    legs = {}
    for side, slot, slot2 in (("far", "far", "far2"), ("near", "near", "near2")):
        legs[side] = (_two_segment(side, "hind", slot, (-0.185, 0.03), "torso", 0.13, 0.125, 0.050, foot=0.035)
                      + _two_segment(side, "fore", slot2, (0.185, 0.03), "torso", 0.13, 0.125, 0.047, foot=0.035))
    torso = (Part("torso", Box(0.30, 0.118, (0, 0), 0.112)),)
    tail = (Part("tail", Capsule((-0.16, -0.10), 0.036, 0.022), "torso", (-0.27, -0.05), "tail"),)
    head = (Part("neck", Capsule((0.07, -0.11), 0.085, 0.075), "torso", (0.22, -0.04), "body", "torso"),
            Part("head", Ellipse(0.105, 0.098), "neck", (0.115, -0.155), "head"),
            Part("snout", Capsule((0.09, 0.02), 0.055, 0.042), "head", (0.05, 0.025), "head", "head"),
            Part("ear", Capsule((-0.03, 0.09), 0.030, 0.036), "head", (-0.05, -0.05), "tail", "ear"),
            Part("eye", Ellipse(0.019, 0.023), "head", (0.032, -0.022), "eye", "head"))
    feet = tuple(f"{s}_{k}_foot" for s in ("near", "far") for k in ("hind", "fore"))
    return Species("dog", legs["far"] + tail + torso + head + legs["near"], ("walk", "run"), feet=feet, leg=0.255)


def _bird() -> Species:
    body = (Part("tail", Convex(((0, -0.045), (0.02, 0.05), (-0.20, 0.075), (-0.22, -0.055)), 0.012), "body",
                 (-0.18, -0.01), "tail"),
            Part("body", Ellipse(0.235, 0.138)),
            Part("head", Ellipse(0.105, 0.105), "body", (0.20, -0.105), "head"),
            Part("beak", Convex(((0, -0.036), (0.105, 0.012), (0, 0.042)), 0.006), "head", (0.082, 0.01), "tail",
                 "beak"),
            Part("eye", Ellipse(0.020, 0.024), "head", (0.034, -0.020), "eye", "head"))
    far = (Part("far_wing_inner", Capsule((0, 0.15), 0.075, 0.080), "body", (0.03, -0.05), "far", "far_wing"),
           Part("far_wing_outer", Capsule((0, 0.15), 0.078, 0.030), "far_wing_inner", (0, 0.15), "far", "far_wing"))
    near = (Part("near_wing_inner", Capsule((0, 0.15), 0.078, 0.085), "body", (-0.01, -0.03), "near", "near_wing"),
            Part("near_wing_outer", Capsule((0, 0.15), 0.083, 0.032), "near_wing_inner", (0, 0.15), "near",
                 "near_wing"))
    return Species("bird", far + body + near, ("fly",))


def _fish() -> Species:
    chain = (Part("spine2", Capsule((-0.13, 0), 0.125, 0.085), "spine1", (-0.13, 0), "near", "rear"),
             Part("spine3", Capsule((-0.11, 0), 0.080, 0.045), "spine2", (-0.13, 0), "near", "rear"),
             Part("tail", Convex(((0.02, -0.03), (0.02, 0.03), (-0.15, 0.135), (-0.15, -0.135)), 0.012), "spine3",
                  (-0.11, 0), "tail"),
             Part("top_fin", Convex(((0.07, 0.0), (-0.12, 0.0), (-0.12, -0.10)), 0.012), "spine1", (-0.02, -0.115),
                  "far2"),
             Part("spine1", Capsule((-0.13, 0), 0.150, 0.128), "head", (-0.02, 0)),
             Part("head", Ellipse(0.158, 0.140), "", (0.14, 0), "head"),
             Part("eye", Ellipse(0.022, 0.026), "head", (0.075, -0.03), "eye", "head"),
             Part("near_fin", Capsule((-0.02, 0.10), 0.042, 0.030), "head", (-0.09, 0.04), "far", "near_fin"))
    return Species("fish", chain, ("swim",))


def _snake() -> Species:
    n, length = 7, 0.105
    slots = ("tail", "near", "body", "near", "body", "near", "body")
    chain = tuple(Part(f"coil{k}", Capsule((-length, 0), 0.092 - 0.006 * k, 0.086 - 0.006 * k),
                       f"coil{k - 1}" if k else "head", (-length, 0) if k else (-0.05, 0), slots[n - 1 - k], f"coil{k}")
                  for k in reversed(range(n)))
    head = (Part("head", Ellipse(0.120, 0.100), "", (0.28, 0), "head"),
            Part("eye", Ellipse(0.019, 0.021), "head", (0.045, -0.028), "eye", "head"))
    return Species("snake", chain + head, ("crawl",))


def _ball() -> Species:
    return Species("ball", (Part("body", Ellipse(0.225, 0.225)),
                            Part("band", Box(0.215, 0.045), "body", (0, 0), "pale"),
                            Part("dot", Ellipse(0.055, 0.055), "body", (0, -0.135), "mark")),
                   ("bounce", "roll", "pass_behind"), radius=0.225)


def _wheel() -> Species:
    spokes = tuple(Part(f"spoke{k}", Capsule((0, 0.225), 0.026, 0.026), "rim", (0, 0), "near2" if k else "pale",
                        f"spoke{k}", angle=k * 2 * 3.141592653589793 / 5) for k in range(5))
    return Species("wheel", (Part("rim", Ring(0.195, 0.265), slot="body"),) + spokes
                   + (Part("hub", Ellipse(0.072, 0.072), "rim", (0, 0), "rim"),),
                   ("roll", "spin", "pass_behind"), radius=0.265)


def _spinner() -> Species:
    blades = tuple(Part(f"blade{k}", Convex(((0.0, 0.0), (0.13, 0.11), (0.0, 0.33)), 0.016), "axle", (0, 0), slot,
                        f"blade{k}", angle=k * 1.5707963267948966)
                   for k, slot in enumerate(("body", "near", "pale", "far")))
    return Species("spinner", (Part("pole", Capsule((0, 0.55), 0.026, 0.030), "", (0, 0), "rim"),
                               Part("axle", Ellipse(0.05, 0.05), "", (0, 0), "mark"))
                   + blades + (Part("cap", Ellipse(0.046, 0.046), "axle", (0, 0), "mark"),), ("spin",))


def _pendulum() -> Species:
    return Species("pendulum", (Part("rod", Capsule((0, 0.42), 0.022, 0.022), "", (0, 0), "rim"),
                                Part("bob", Ellipse(0.20, 0.20), "rod", (0, 0.50)),
                                Part("ring", Ring(0.085, 0.135), "bob", (0, 0), "pale"),
                                Part("dot", Ellipse(0.05, 0.05), "bob", (0, 0.0), "mark")), ("swing",))


def _box() -> Species:
    return Species("box", (Part("body", Box(0.20, 0.20, r=0.03)),
                           Part("lid", Box(0.20, 0.05, (0, -0.15), 0.02), "body", (0, 0), "near"),
                           Part("ribbon", Box(0.042, 0.20), "body", (0, 0), "pale"),
                           Part("knot", Ellipse(0.05, 0.04), "body", (0, -0.15), "mark")),
                   ("slide", "pass_behind"), radius=0.20)


def _jelly() -> Species:
    return Species("jelly", (Part("body", Ellipse(0.235, 0.20)),
                             Part("belly", Ellipse(0.12, 0.085), "body", (0.02, 0.075), "pale"),
                             Part("far_eye", Ellipse(0.028, 0.036), "body", (0.135, -0.06), "eye", "eyes"),
                             Part("near_eye", Ellipse(0.028, 0.036), "body", (0.025, -0.06), "eye", "eyes")),
                   ("hop",), radius=0.20)


SPECIES = {s.noun: s for s in (_person(), _dog(), _bird(), _fish(), _snake(), _ball(), _wheel(), _spinner(),
                               _pendulum(), _box(), _jelly())}


def species(name: str) -> Species:
    """Anatomy by noun; a misspelt one is an error that names the nearest."""
    return SPECIES[one_of(name, SPECIES, "species")]
