"""Motion transfer: a source clip whose motion no caption says, and targets that ask for this motion in another look.

A generator that obeys captions needs no transfer for a motion that a caption says. So a source's subject does what its verb says
without travelling, and on top follows a *route*: five points along x, visited within the clip, with a reversal or two. Captions
also say all of the look, which leaves nothing to memorise; so a source's background carries *clutter* that no caption names and no
target has. Each route serves a subject of every tier, so that tiers are compared on the same way of the body.

A draw is a function of its seed. Which draws are tasks stands in `reproductions/protocol.yaml`, written there by
`motionlab.metrics.transfer_choice`, which accepts a draw on truth alone.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.protocol import held_out, read_protocol, split_seeds
from motionlab.world import Clip, Scene, caption, random_scene, render
from motionlab.world.captions import describe
from motionlab.world.geometry import apply
from motionlab.world.motions import MOTIONS, along_path
from motionlab.world.palette import COLOURS, PLACES
from motionlab.world.puppets import species as anatomy_of
from motionlab.world.render import place_parts
from motionlab.world.scenes import SIZES, Actor

TIERS = {"easy": ("box", "jelly"), "medium": ("fish", "bird", "snake"), "hard": ("person", "dog")}      # by how much a body bends
# What they do on a route. A pillar would hide it, a dance or a flip has a way of its own.
VERBS = {"box": ("slide",), "jelly": ("hop",), "fish": ("swim",), "bird": ("fly",), "snake": ("crawl",), "person": ("walk", "run"),
         "dog": ("walk", "run")}
RANGE = (0.2, 0.3)          # of a route, in frame heights
POINTS = 5
REDRAWS = 8
DRAW = 2 + REDRAWS          # seeds that a draw takes: its own two (the second starts the other noises) and those of its redraws


@dataclass(frozen=True)
class Target:
    """What a generator is asked for: the source's motion in another look.

    Attributes:
        id: such as "transfer/03/a1". kind: "a" (same species, other colour and place: the motion of every limb is known) or "b" (a
            species of another tier with its own verb and the same heading: only its way is known).
        scene: the asked clip's own. text: its caption. noise: seed of the starting noise.
    """

    id: str
    kind: str
    scene: Scene
    noise: int

    @property
    def text(self) -> str:
        return caption(self.scene)

    @property
    def asked(self) -> dict:
        """What the text says, parsed (`captions.describe`)."""
        return describe(self.scene)

    def clip(self, size: int = 48, frames: int = 17) -> Clip:
        """The true answer."""
        return render(self.scene, size, frames)


@dataclass(frozen=True)
class TransferTask:
    """One source with its targets.

    Attributes:
        id: such as "transfer/03", unit of every paired comparison. route: number of its route in the set. tier: of `TIERS`.
        source: the scene of the clip that is shown. seed: of the draw. targets: "a" with two noises, then "b".
    """

    id: str
    route: int
    tier: str
    source: Scene
    seed: int
    targets: tuple[Target, ...]

    @property
    def caption(self) -> str:
        """Of the source; it says neither route nor clutter."""
        return caption(self.source)

    def of(self, kind: str) -> list[Target]:
        """Its targets of one kind, "a" or "b".

        Raises:
            MotionLabError: an unknown kind.
        """
        return [t for t in self.targets if t.kind == one_of(kind, ("a", "b"), "kind of target")]

    def clip(self, size: int = 48, frames: int = 17) -> Clip:
        """The source clip."""
        return render(self.source, size, frames)

    def redraws(self) -> list[Scene]:
        """Eight other scenes of the source's caption, without route and clutter: what the caption alone lets one expect."""
        return [redraw(self.source, self.seed + 2 + k) for k in range(REDRAWS)]


def load_transfer(name: str, n: int | None = None) -> list[TransferTask]:
    """The first `n` tasks (None: all) of a set of `reproductions/protocol.yaml`, route by route, each easy, medium, hard.

    Raises:
        MotionLabError: unknown set (the nearest is named), more tasks than it has.
    """
    listed = read_protocol()["transfer"]
    chosen = listed["sets"][one_of(name, listed["sets"], "set of transfers")]
    tasks = len(TIERS) * len(chosen["accepted"])
    n = tasks if n is None else n
    if not 1 <= n <= tasks:
        raise MotionLabError(f"Set '{name}' has {tasks} tasks, not {n}.", fix="Ask for at least 1 and at most that many.")
    out = []
    for k in range(n):
        route, tier = divmod(k, len(TIERS))
        at, *draws = chosen["accepted"][route]
        out.append(draw_task(f"{name}/{k:02d}", route, list(TIERS)[tier], draw_seed(chosen, at), draw_seed(chosen, draws[tier]),
                             listed["clutter"]))
    return out


def draw_seed(chosen: dict, number: int) -> int:
    """The world seed of draw `number` of a set: each takes `DRAW` seeds of the set's split, from its offset on."""
    return split_seeds(chosen["split"], None)[chosen["offset"] + DRAW * number]


# ---------------------------------------------------------------------------------------------- draws
def draw_task(name: str, route: int, tier: str, route_seed: int, seed: int, clutter: float = 0.0) -> TransferTask:
    """The task of a seed on the route of another, accepted or not.

    Args:
        name: its id. route: number of the route, by which the tier's species, and the other tier that "b" asks for, take turns.
        clutter: of the source's background, 0 to 1.
    """
    rng, path, heading = np.random.default_rng([seed, 20262]), draw_route(route_seed), draw_heading(route_seed)
    species = TIERS[one_of(tier, TIERS, "tier")][route % len(TIERS[tier])]
    source = _scene(rng, species, heading, path, *_look(rng, species))
    others = [kin for name_of, kin in TIERS.items() if name_of != tier]
    a = dataclasses.replace(source.with_attributes(*_look(rng, species, source)), scroll=_scroll(rng))
    other = str(rng.choice(others[route % len(others)]))
    b = _scene(rng, other, heading, path, *_look(rng, other, source))
    source = dataclasses.replace(source, clutter=clutter, texture_seed=int(rng.integers(2 ** 31)))
    targets = (Target(f"{name}/a0", "a", a, seed), Target(f"{name}/a1", "a", a, seed + 1), Target(f"{name}/b", "b", b, seed))
    return TransferTask(name, route, tier, source, seed, targets)


def draw_route(seed: int) -> tuple[tuple[float, float], ...]:
    """Five control points (dx, 0) with one or two reversals, in frame heights; the way between them has a range within `RANGE`."""
    rng = np.random.default_rng([seed, 20263])
    while True:
        dx = np.concatenate([[0.0], np.cumsum(rng.uniform(0.4, 1.0, POINTS - 1) * rng.choice([-1.0, 1.0], POINTS - 1))])
        way = way_along(dx)
        if 1 <= reversals(way) <= 2:
            scale = rng.uniform(*RANGE) / np.ptp(way)
            middle = (way.max() + way.min()) / 2
            return tuple((float(scale * (x - middle)), 0.0) for x in dx)


def draw_heading(seed: int) -> str:
    """Of a route: all tiers face the same way on it."""
    return str(np.random.default_rng([seed, 20264]).choice(["left", "right"]))


def way_along(dx, times: int = 65) -> np.ndarray:
    """The way (times,) along x through control points at dx (n,) over a clip, positive in the direction that the subject faces."""
    points = np.stack([dx, np.zeros(len(dx))], -1)
    return along_path(points, np.linspace(0.0, 1.0, times), 1.0)[0]


def reversals(way: np.ndarray) -> int:
    """How often a way (f,) turns back."""
    steps = np.sign(np.diff(way))
    steps = steps[steps != 0]
    return int((steps[1:] != steps[:-1]).sum())


def redraw(scene: Scene, seed: int) -> Scene:
    """Another scene of the same caption: all that the caption does not say is drawn from the world's ranges; no route, no clutter."""
    actor = scene.actors[0]
    other = random_scene(seed, species_name=actor.species, motion=actor.motion, camera=False, paths=False)
    return dataclasses.replace(other.with_actor(0, colour=actor.colour, heading=actor.heading), place=scene.place)


def part_middles(actor: Actor, frames: int = 17, duration: float = 1.0) -> dict[str, np.ndarray]:
    """Middle (f, 2) of each part in frame heights, from the pose alone: nothing is rendered, nothing hidden."""
    placed = place_parts(actor, np.linspace(0, duration, frames), duration)
    return {p.name: apply(placed[p.name], np.asarray(p.shape.centre(), float)) for p in anatomy_of(actor.species).parts}


def _scene(rng, species, heading, path, colour, place) -> Scene:
    motion = str(rng.choice(VERBS[species]))
    base = MOTIONS[motion]
    actor = Actor(species, colour, motion, heading, size=float(rng.uniform(*SIZES[species])),
                  y=float(0.46 + rng.uniform(-0.05, 0.05)) if base.place == "air" else None,
                  period=float(base.period * rng.uniform(0.92, 1.12)), speed=0.0, phase=float(rng.random()),
                  amplitude=float(rng.uniform(0.9, 1.1)), path=path)
    return Scene((_centred(actor),), place, scroll=_scroll(rng))


def _centred(actor: Actor) -> Actor:
    """Moved along x until it is as far from the left edge as from the right: no subject is drawn about its own middle."""
    x = np.stack(list(part_middles(actor).values()))[..., 0]
    return dataclasses.replace(actor, x=float(1.0 - (x.min() + x.max()) / 2))


def _look(rng, species, apart: Scene | None = None) -> tuple[str, str]:
    """Colour and place, no held-out pair; with `apart` others than that scene's."""
    taken = (apart.actors[0].colour, apart.place) if apart else ()
    free = [c for c in COLOURS if c not in taken and not held_out({"actors": [{"species": species, "colour": c}]})]
    return str(rng.choice(free)), str(rng.choice([p for p in PLACES if p not in taken]))


def _scroll(rng) -> float:
    return float(rng.uniform(0, 2))
