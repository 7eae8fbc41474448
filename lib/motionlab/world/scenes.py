"""Scenes are data: a seed makes one, a person can write one (YAML), a counterfactual changes one thing in it."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.core.yamls import read_yaml
from motionlab.world.faults import Fault
from motionlab.world.motions import GROUND, KINDS, MOTIONS
from motionlab.world.palette import COLOURS, PLACES
from motionlab.world.puppets import SPECIES, species


@dataclass(frozen=True)
class Actor:
    """One subject.

    Attributes:
        species, colour, motion: names of `puppets.SPECIES`, `palette.COLOURS`, `motions.MOTIONS`.
        heading: "right" or "left"; for a spin, clockwise or counterclockwise.
        size: scale of the anatomy (1: as drawn in puppets.py).
        x, y: where the middle of its way lies, in frame heights. For motions on the ground y is an offset from it
            (None: 0), for motions in the air the height of the root (None: 0.46), for a pendulum an offset of its
            pivot.
        period, speed: seconds per cycle, frame heights per second; None takes the motion's usual ones.
        phase: in cycles. amplitude: scale of the joint angles and hop heights.
        path: control points (dx, dy) of an extra trajectory spread over the clip.
        hide: names of parts or limbs that are not drawn; faults: what is wrong with its motion (damage for metrics).
    """

    species: str = "person"
    colour: str = "red"
    motion: str = "walk"
    heading: str = "right"
    size: float = 1.0
    x: float = 0.5
    y: float | None = None
    period: float | None = None
    speed: float | None = None
    phase: float = 0.0
    amplitude: float = 1.0
    path: tuple[tuple[float, float], ...] = ()
    hide: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    def __post_init__(self):
        anatomy = species(self.species)
        one_of(self.colour, COLOURS, "colour")
        one_of(self.motion, MOTIONS, "motion")
        one_of(self.motion, anatomy.motions, f"motion of a {self.species}")
        one_of(self.heading, ("left", "right"), "heading")
        groups = {p.name for p in anatomy.parts} | {p.group for p in anatomy.parts}
        for name in self.hide:
            one_of(name, sorted(groups), f"part of a {self.species}")
        motion = MOTIONS[self.motion]
        object.__setattr__(self, "period", float(self.period or motion.period))
        object.__setattr__(self, "speed", float(motion.speed if self.speed is None else self.speed))
        object.__setattr__(self, "path", tuple((float(a), float(b)) for a, b in self.path))
        object.__setattr__(self, "hide", tuple(self.hide))
        object.__setattr__(self, "faults", tuple(f if isinstance(f, Fault) else _build(Fault, f, "a fault") for f in self.faults))
        if len(self.path) == 1:
            raise MotionLabError("An actor's path needs at least two control points.",
                                 fix="Add a point, or leave path empty.")
        for name in ("size", "period", "amplitude"):
            if not getattr(self, name) > 0:
                raise MotionLabError(f"An actor's {name} must be positive, not {getattr(self, name)}.")


@dataclass(frozen=True)
class Camera:
    """Pan (frame heights per second, to the right and down) and zoom (log scale per second)."""

    pan: tuple[float, float] = (0.0, 0.0)
    zoom: float = 0.0


@dataclass(frozen=True)
class Occluder:
    """A pillar in front of the actors: centre x and width in frame heights."""

    x: float = 0.5
    width: float = 0.24


@dataclass(frozen=True)
class Scene:
    """Everything that a renderer needs.

    Attributes:
        duration: seconds; it only places the middle of the ways, any number of frames renders.
        clutter: 0 (plain) to 1 (busy): random low-contrast texture on the background; `texture_seed` draws it.
    """

    actors: tuple[Actor, ...] = field(default_factory=lambda: (Actor(),))
    place: str = "meadow"
    camera: Camera = Camera()
    occluders: tuple[Occluder, ...] = ()
    duration: float = 1.0
    clutter: float = 0.0
    texture_seed: int = 0
    scroll: float = 0.0

    def __post_init__(self):
        one_of(self.place, PLACES, "place")
        if not self.actors:
            raise MotionLabError("A scene needs at least one actor.", fix="Add one under `actors:`.")

    # ------------------------------------------------------------------ counterfactuals
    def with_attributes(self, colour=None, place=None, species=None, actor: int = 0) -> Scene:
        """The same motion in other clothes: another colour, place or (where the motion allows it) species."""
        changes = {k: v for k, v in {"colour": colour, "species": species}.items() if v is not None}
        return dataclasses.replace(self.with_actor(actor, **changes), place=place or self.place)

    def with_motion(self, motion: str, actor: int = 0, **changes) -> Scene:
        """The same attributes, another motion; `changes` are further fields of `Actor` (heading, speed, path...)."""
        place = {"ground": None, "air": 0.46}[MOTIONS[one_of(motion, MOTIONS, "motion")].place]
        return self.with_actor(actor, **({"motion": motion, "period": None, "speed": None, "y": place} | changes))

    def with_actor(self, index: int, **changes) -> Scene:
        """A copy in which fields of one actor are replaced."""
        actors = list(self.actors)
        actors[index] = dataclasses.replace(actors[index], **changes)
        return dataclasses.replace(self, actors=tuple(actors))

    # ------------------------------------------------------------------ YAML
    def to_dict(self) -> dict:
        """Plain lists and numbers, ready for YAML or JSON; `Scene.from_dict` is its inverse."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, data: dict, where: str = "scene") -> Scene:
        """Build and check a scene.

        Raises:
            MotionLabError: unknown field, species, colour, motion, place or part; the nearest name is given.
        """
        data = dict(data)
        try:
            actors = tuple(_build(Actor, a, f"{where}: actor {i}") for i, a in enumerate(data.pop("actors", [{}])))
            camera = _build(Camera, data.pop("camera", {}), f"{where}: camera")
            occluders = tuple(_build(Occluder, o, f"{where}: occluder") for o in data.pop("occluders", []))
            return _build(cls, data | {"actors": actors, "camera": camera, "occluders": occluders}, where)
        except (TypeError, ValueError, AttributeError) as error:
            raise MotionLabError(f"{where}: a value has the wrong type ({error}).",
                                 fix="`motionlab world --seed 3 --out DIR` writes an example, DIR/scene.yaml.") from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> Scene:
        """Read a scene file; errors name the file and what in it is wrong."""
        if not Path(path).is_file():
            what = f"{path} is no file." if Path(path).exists() else f"No scene file at {path}."
            raise MotionLabError(what, fix="Write one: `motionlab world --seed 3 --out DIR` saves DIR/scene.yaml.")
        data = read_yaml(path)
        if not isinstance(data, dict):
            raise MotionLabError(f"{path} holds no scene (a mapping with `actors:`).")
        return cls.from_dict(data, where=str(path))


def _build(kind, values, where):
    if not isinstance(values, dict):
        raise MotionLabError(f"{where}: expected a mapping, got {values!r}.")
    fields = [f.name for f in dataclasses.fields(kind)]
    for name in values:
        if name not in fields:
            raise MotionLabError(f"{where}: unknown field '{name}'.{nearest(name, fields)}",
                                 fix=f"Fields: {', '.join(fields)}.")
    try:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        _demand_finite(values)
        return kind(**values)
    except MotionLabError as error:
        raise MotionLabError(f"{where}: {error.what}", fix=error.fix) from None


def _demand_finite(value, name=""):
    """No number in plain data is infinite, no number at all, or so large that a picture could not hold it."""
    if isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _demand_finite(item, name or str(key))
    elif isinstance(value, (int, float)) and not abs(value) <= (2 ** 63 if name == "texture_seed" else 1e6):
        raise MotionLabError(f"'{name}' is {value}.", fix="Give a number between -1e6 and 1e6.")


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


# ---------------------------------------------------------------------------------------------- random scenes
SIZES = {"person": (0.94, 1.02), "dog": (0.86, 0.98), "bird": (1.00, 1.16), "fish": (1.00, 1.14), "snake": (1.02, 1.14),
         "ball": (1.00, 1.15), "wheel": (0.95, 1.05), "spinner": (0.98, 1.08), "pendulum": (1.00, 1.10),
         "box": (1.05, 1.20), "jelly": (1.00, 1.15)}


def random_scene(seed: int, *, actors: int = 1, kind: str | None = None, species_name: str | None = None,
                 motion: str | None = None, clutter: float = 0.0, aspect: float = 1.0, camera: bool = True,
                 paths: bool = True) -> Scene:
    """The scene of a seed. One seed is one scene for ever; options narrow the draw.

    Args:
        kind: one of basic, complex, rotation, physics. species_name, motion: fix these.
        camera: allow pan and zoom (a third of the scenes).
        paths: allow trajectories that captions cannot express (half).
    """
    if not 0 <= int(seed) < 2 ** 64:
        raise MotionLabError(f"A scene's seed is {seed}.", fix="Give a whole number from 0 on, such as 0.")
    rng = np.random.default_rng([int(seed), 20261])
    cast = tuple(_random_actor(rng, i, actors, kind, species_name, motion, aspect, paths) for i in range(actors))
    pillars = tuple(Occluder(x=float(0.5 * aspect + rng.uniform(-0.06, 0.06)), width=float(rng.uniform(0.20, 0.28)))
                    for a in cast[:1] if a.motion == "pass_behind")
    return Scene(actors=cast, place=str(rng.choice(list(PLACES))),
                 camera=_random_camera(rng, cast) if camera else Camera(), occluders=pillars, clutter=clutter,
                 texture_seed=int(rng.integers(2 ** 31)), scroll=float(rng.uniform(0, 2)))


def _choices(kind, species_name, motion):
    pairs = [(s, m) for s in SPECIES for m in SPECIES[s].motions
             if (kind is None or MOTIONS[m].kind == kind) and (species_name in (None, s)) and (motion in (None, m))]
    if not pairs:
        raise MotionLabError(f"No species and motion fit kind={kind}, species={species_name}, motion={motion}.",
                             fix=f"Kinds: {', '.join(KINDS)}; species: {', '.join(SPECIES)}; "
                                 f"motions: {', '.join(MOTIONS)}.")
    return pairs


def _random_actor(rng, index, count, kind, species_name, motion, aspect, paths) -> Actor:
    pairs = _choices(kind, species_name, motion)
    subjects = sorted({s for s, _ in pairs})
    subject = str(rng.choice(subjects))
    move = str(rng.choice([m for s, m in pairs if s == subject]))
    base = MOTIONS[move]
    crowd = 1.0 if count == 1 else 0.68                                # several subjects share the frame
    middle = aspect * (0.5 if count == 1 else (index + 0.5) / count)
    size = float(rng.uniform(*SIZES[subject]) * crowd)
    y = float(0.46 + rng.uniform(-0.05, 0.05)) if base.place == "air" and subject != "pendulum" else None
    path = _random_path(rng, move) if paths and rng.random() < 0.5 else ()
    return Actor(species=subject, colour=str(rng.choice(list(COLOURS))), motion=move,
                 heading=str(rng.choice(["left", "right"])), size=size,
                 x=float(middle + rng.uniform(-0.04, 0.04)), y=y, period=float(base.period * rng.uniform(0.92, 1.12)),
                 speed=float(base.speed * rng.uniform(0.8, 1.1)), phase=float(rng.random()),
                 amplitude=float(rng.uniform(0.9, 1.1)), path=path)


def _random_path(rng, motion):
    """Four control points; ground motions wander along x only."""
    dx = np.cumsum(rng.uniform(-0.06, 0.06, 4))
    dy = np.cumsum(rng.uniform(-0.07, 0.07, 4)) if MOTIONS[motion].place == "air" and motion != "swing" else np.zeros(4)
    if motion == "swing":
        dx = np.zeros(4)
    return tuple((float(a), float(b)) for a, b in zip(dx - dx.mean(), dy - dy.mean()))


def _random_camera(rng, cast) -> Camera:
    """Two thirds static, else a pan or a zoom; a pan never cancels the subject's own way."""
    draw = rng.random()
    if draw < 0.66:
        return Camera()
    if draw < 0.88:
        sign = 1.0 if cast[0].heading == "left" else -1.0              # pans against the heading: motion stays visible
        sign = sign if cast[0].speed > 0 else float(rng.choice([-1.0, 1.0]))
        return Camera(pan=(float(sign * rng.uniform(0.06, 0.13)), 0.0))
    return Camera(zoom=float(rng.choice([-1.0, 1.0]) * rng.uniform(0.10, 0.20)))


__all__ = ["Actor", "Camera", "Occluder", "Scene", "random_scene", "GROUND"]
