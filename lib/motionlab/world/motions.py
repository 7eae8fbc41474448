"""How things move: one function per motion, from an actor and times to the pose of every joint.

Each function has the signature `(actor, t, duration) -> Pose` with t (f,) in seconds. Poses are smooth closed forms in
t, so a scene renders at any frame rate. Gait cycles last >= 12 frames at 16 fps, else a 4x temporal codec blurs them.
"""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

GROUND = 0.90          # height of the ground line that feet touch, frame heights from the top


@dataclass(frozen=True)
class Motion:
    """What a motion is called and how it usually goes. speed: frame heights per second; period: seconds."""

    verb: str
    kind: str                       # VideoJAM-bench's four: basic, complex, rotation, physics
    period: float
    speed: float = 0.0
    says_heading: str = "to the"    # "to the" left/right, "facing" left/right, "turning" (counter)clockwise, "" nothing
    place: str = "ground"           # ground | air


MOTIONS = {
    "walk": Motion("walks", "basic", 1.15, 0.36), "run": Motion("runs", "basic", 0.85, 0.46),
    "swim": Motion("swims", "basic", 1.00, 0.34, place="air"), "fly": Motion("flies", "basic", 0.90, 0.34, place="air"),
    "crawl": Motion("crawls", "basic", 1.05, 0.32),
    "flip": Motion("flips", "complex", 1.90, 0.12), "dance": Motion("dances", "complex", 1.10, 0.0, "facing"),
    "roll": Motion("rolls", "rotation", 1.0, 0.40), "spin": Motion("spins", "rotation", 2.3, 0.0, "turning", "air"),
    "bounce": Motion("bounces", "physics", 1.15, 0.16), "swing": Motion("swings", "physics", 2.20, 0.0, "", "air"),
    "hop": Motion("hops", "physics", 1.15, 0.24), "slide": Motion("slides", "physics", 1.0, 0.46),
    "pass_behind": Motion("goes behind a pillar", "physics", 1.0, 0.44),
}
KINDS = ("basic", "complex", "rotation", "physics")


@dataclass
class Pose:
    """Root placement and joint angles over time; every array is (f,). Radians, frame heights.

    grounded: shift the root so that the lowest foot touches the ground in every frame.
    """

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray | float = 0.0
    sx: np.ndarray | float = 1.0
    sy: np.ndarray | float = 1.0
    joints: dict = field(default_factory=dict)
    grounded: bool = False


def pose(actor, t: np.ndarray, duration: float) -> Pose:
    """Pose of `actor` at times t (f,), facing right (the renderer mirrors left-facing actors), path added."""
    out = globals()[f"_{actor.motion}"](actor, t, duration)
    if actor.path:
        dx, dy = along_path(actor.path, t, duration)
        out.x, out.y = out.x + dx, out.y + dy
    resting = 0.46 if MOTIONS[actor.motion].place == "air" and actor.motion != "swing" else 0.0
    out.y = out.y + (resting if actor.y is None else actor.y)
    return out


def along_path(points, t, duration):
    """Smooth curve through control points (dx, dy) spread evenly over the clip: what a caption cannot say."""
    from scipy.interpolate import CubicSpline

    knots = np.linspace(0.0, duration, len(points))
    return CubicSpline(knots, np.asarray(points, dtype=np.float64), bc_type="natural")(t).T


def _phase(actor, t):
    return 2 * np.pi * (t / actor.period + actor.phase)


def _travel(actor, t, duration):
    """Signed distance from the middle of the way: positive forwards (the actor's heading)."""
    return actor.speed * (t - duration / 2)




# ---------------------------------------------------------------------------------------------- basic
def _leg(prefix, phase, swing, bend, lean=0.0):
    """Angles of one leg: the knee bends while the thigh swings forwards, the foot stays nearly level."""
    thigh = swing * np.sin(phase) + lean
    shin = -bend * (0.5 + 0.5 * np.cos(phase)) ** 1.5
    return {f"{prefix}_upper": thigh, f"{prefix}_lower": shin, f"{prefix}_foot": -0.85 * (thigh + shin)}


def _gait(actor, t, swing, bend, arms, elbow, lean):
    """Joint angles of a biped or quadruped gait of thigh swing and knee bend (radians)."""
    p, a = _phase(actor, t), actor.amplitude
    if actor.species == "dog":
        offsets = {"near_hind": 0.0, "near_fore": 0.5 * np.pi, "far_hind": np.pi, "far_fore": 1.5 * np.pi}
        if actor.motion == "run":
            offsets = {"near_hind": 0.0, "far_hind": 0.5, "near_fore": np.pi, "far_fore": np.pi + 0.5}
        joints = {}
        for name, shift in offsets.items():
            joints |= _leg(name, p + shift, 0.92 * a * swing, 0.8 * a * bend)
        pitch = 0.10 * a * np.sin(p + 0.6) if actor.motion == "run" else 0.02 * np.sin(2 * p)
        return joints | {"torso": pitch, "tail": 0.35 * a * np.sin(p), "neck": -0.08 * a * np.sin(2 * p),
                         "ear": 0.25 * np.sin(p)}
    joints = _leg("near_leg", p, a * swing, a * bend) | _leg("far_leg", p + np.pi, a * swing, a * bend)
    for side, sign in (("near_arm", -1.0), ("far_arm", 1.0)):
        joints |= {f"{side}_upper": sign * a * arms * np.sin(p) + 0.05, f"{side}_lower": elbow + 0.2 * sign * np.sin(p)}
    return joints | {"torso": -lean + 0.02 * np.sin(2 * p), "head": 0.5 * lean}


def _walk(actor, t, duration):
    joints = _gait(actor, t, swing=0.50, bend=0.75, arms=0.48, elbow=0.25, lean=0.05)
    return Pose(_travel(actor, t, duration), np.zeros_like(t), joints=joints, grounded=True)


def _run(actor, t, duration):
    joints = _gait(actor, t, swing=0.78, bend=1.25, arms=0.80, elbow=1.15, lean=0.20)
    return Pose(_travel(actor, t, duration), -0.03 * np.abs(np.sin(_phase(actor, t))), joints=joints, grounded=True)


def _fly(actor, t, duration):
    p, a = _phase(actor, t), actor.amplitude
    joints = {}
    for side, late in (("near_wing", 0.0), ("far_wing", 0.35)):
        joints |= {f"{side}_inner": -1.62 + 0.95 * a * np.sin(p - late),
                   f"{side}_outer": 0.45 * a * np.sin(p - late - 1.0)}
    joints |= {"tail": 0.12 * np.sin(p), "body": -0.05 + 0.03 * np.cos(p), "head": 0.05}
    return Pose(_travel(actor, t, duration), 0.030 * a * np.cos(p), joints=joints)


def _swim(actor, t, duration):
    p, a = _phase(actor, t), actor.amplitude
    joints = {f"spine{k}": a * (0.10 + 0.09 * k) * np.sin(p - 0.75 * k) for k in (1, 2, 3)}
    joints |= {"tail": 0.42 * a * np.sin(p - 2.9), "head": -0.07 * a * np.sin(p), "near_fin": 0.45 * np.sin(p + 1.0)}
    return Pose(_travel(actor, t, duration), 0.020 * np.sin(p + 0.5), joints=joints)


def _crawl(actor, t, duration):
    p, a = _phase(actor, t), actor.amplitude
    joints = {f"coil{k}": 0.46 * a * np.sin(p - 1.0 * k) for k in range(7)}
    joints["head"] = -0.18 * a * np.sin(p)
    return Pose(_travel(actor, t, duration), np.full_like(t, GROUND - 0.24), joints=joints)


# ---------------------------------------------------------------------------------------------- complex
def _dance(actor, t, duration):
    p, a = _phase(actor, t), actor.amplitude
    joints = {"near_arm_upper": 2.45 + 0.55 * a * np.sin(p), "near_arm_lower": 0.45 + 0.45 * np.sin(p + 1.2),
              "far_arm_upper": -2.45 + 0.55 * a * np.sin(p), "far_arm_lower": -0.45 + 0.45 * np.sin(p - 1.2),
              "torso": 0.20 * a * np.sin(p), "head": -0.16 * a * np.sin(p + 0.4)}
    joints |= _leg("near_leg", p, 0.36 * a, 0.75) | _leg("far_leg", p + np.pi, 0.36 * a, 0.75)
    return Pose(0.05 * a * np.sin(p), np.zeros_like(t), joints=joints, grounded=True)


def _flip(actor, t, duration):
    turn = t / actor.period + actor.phase
    u = turn - np.floor(turn)
    tuck = np.sin(np.pi * u) ** 2
    joints = {}
    for side, d in (("near", 0.10), ("far", -0.10)):
        joints |= {f"{side}_leg_upper": 1.25 * tuck + d, f"{side}_leg_lower": -1.35 * tuck,
                   f"{side}_leg_foot": 0.2 * tuck,
                   f"{side}_arm_upper": 0.35 + 1.2 * tuck + d, f"{side}_arm_lower": 0.35 + 0.4 * tuck}
    joints |= {"torso": -0.25 * tuck, "head": -0.15 * tuck}
    y = GROUND - (0.345 * actor.size) * (1 - 0.35 * tuck) - 0.12 * 4 * u * (1 - u)
    return Pose(_travel(actor, t, duration), y, angle=-2 * np.pi * u, joints=joints)


# ---------------------------------------------------------------------------------------------- rotation
def _radius(actor):
    from motionlab.world.puppets import species

    return species(actor.species).radius * actor.size


def _roll(actor, t, duration):
    way, r = _travel(actor, t, duration), _radius(actor)
    return Pose(way, np.full_like(t, GROUND - r), angle=2 * np.pi * actor.phase - way / r)


def _spin(actor, t, duration):
    angle = -_phase(actor, t)
    if actor.species == "spinner":
        return Pose(np.zeros_like(t), np.zeros_like(t), joints={"axle": angle})
    return Pose(np.zeros_like(t), np.zeros_like(t), angle=angle)


# ---------------------------------------------------------------------------------------------- physics
def _bounce(actor, t, duration):
    turn = t / actor.period + actor.phase
    u, r = turn - np.floor(turn), _radius(actor)
    y = GROUND - r - 0.28 * actor.amplitude * 4 * u * (1 - u)
    return Pose(_travel(actor, t, duration), y, angle=2 * np.pi * actor.phase - 0.7 * _travel(actor, t, duration) / r)


def _swing(actor, t, duration):
    angle = 0.56 * actor.amplitude * np.cos(_phase(actor, t))
    return Pose(np.zeros_like(t), np.full_like(t, -0.02), joints={"rod": angle})


def _hop(actor, t, duration):
    turn = t / actor.period + actor.phase
    u = turn - np.floor(turn)
    air = np.clip((u - 0.30) / 0.70, 0.0, 1.0)                       # on the ground for the first 30 % of a cycle
    squash = np.where(u < 0.30, np.sin(np.pi * u / 0.30), 0.0)
    sy = 1 - 0.30 * actor.amplitude * squash + 0.20 * actor.amplitude * np.sin(np.pi * air) ** 2
    y = GROUND - _radius(actor) * sy - 0.16 * actor.amplitude * 4 * air * (1 - air)
    return Pose(_travel(actor, t, duration), y, sx=1 / sy, sy=sy)     # area is kept: sx * sy = 1


def _slide(actor, t, duration):
    s = t / duration
    way = actor.speed * duration * (s * (1.5 - 0.5 * s ** 2) - 0.6875)   # friction: fast first, then slower
    return Pose(way, np.full_like(t, GROUND - _radius(actor)))


def _pass_behind(actor, t, duration):
    way, r = _travel(actor, t, duration), _radius(actor)
    angle = 0.0 if actor.species == "box" else 2 * np.pi * actor.phase - way / r
    return Pose(way, np.full_like(t, GROUND - r), angle=angle)
