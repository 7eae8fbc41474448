"""Transitions: two given frames, a caption for each, and the true clip between them where there is one.

Four tasks, each with what its ends say of the middle. `between`: one body travels; half of the motions look natural when reversed
(rolling, passing by), half do not (walking, running, slowing down); captions do not say the heading, which the ends show. `pose`: one
creature in poses of two clips. `blend`: two species of one colour in one place. `change`: a moving subject whose colour or place becomes
another; the truth dissolves from one render of the motion into the other. No camera moves and nobody leaves its course.

Which seeds are tasks stands in `reproductions/protocol.yaml`; a task follows from its seed and its number in the set.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.protocol import held_out, read_protocol, split_seeds
from motionlab.data.bank import BankConfig, training_scene
from motionlab.data.sidecars import digest
from motionlab.data.sources import World
from motionlab.world import Clip, Scene, caption, random_scene, render
from motionlab.world.captions import describe, sentence
from motionlab.world.palette import COLOURS, PLACES
from motionlab.world.puppets import SPECIES

FRAMES, FPS = 9, 8.0
TASKS = ("between", "pose", "blend", "change")
HALVES = {"reversible": ("roll", "pass_behind"), "irreversible": ("walk", "run", "slide")}
CREATURES = ("person", "dog", "bird", "fish", "snake")
DISSOLVE = 20265            # names the draw of what a training's dissolve changes


@dataclass(frozen=True)
class Ends:
    """One pair.

    Attributes:
        id: such as "between/017", unit of every paired comparison. task: of `TASKS`. half: of `between`, its half; of `change`, "colour"
            or "place"; else "". seed: of the draw, and of the starting noise.
        first, last: the scenes of the two ends; the same one for `between`. text_first, text_last: captions.
        at: frame numbers of the two ends in their scenes' clips.
    """

    id: str
    task: str
    half: str
    seed: int
    first: Scene
    last: Scene
    text_first: str
    text_last: str
    at: tuple[int, int] = (0, FRAMES - 1)

    @property
    def noise(self) -> int:
        return self.seed

    def clips(self, size: int = 48, frames: int = FRAMES) -> tuple[Clip, Clip]:
        """The clips that the ends are frames of."""
        fps = FPS * (frames - 1) / (FRAMES - 1)
        a = render(self.first, size, frames, fps)
        return a, a if self.first is self.last else render(self.last, size, frames, fps)

    def pictures(self, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
        """The two frames that are given, uint8 (h, w, 3)."""
        a, b = self.clips(size)
        return a.frames[self.at[0]], b.frames[self.at[1]]

    def truth(self, size: int = 48, frames: int = FRAMES) -> np.ndarray | None:
        """The true clip, uint8 (frames, h, w, 3): the scene's own, or the dissolve of two; None where the ends leave it open."""
        if self.task not in ("between", "change"):
            return None
        a, b = self.clips(size, frames)
        return a.frames if self.task == "between" else dissolve(a.frames, b.frames)


def dissolve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """From clip a into clip b, uint8 (f, h, w, 3), evenly over the frames: the ends are theirs."""
    share = np.linspace(0, 1, len(a))[:, None, None, None]
    return ((1 - share) * a + share * b).round().astype(np.uint8)


def load_ends(name: str, n: int | None = None) -> list[Ends]:
    """The first `n` pairs (None: all) of a set of `reproductions/protocol.yaml`, halves taking turns.

    Raises:
        MotionLabError: unknown set (the nearest is named), more pairs than it has.
    """
    sets = read_protocol()["ends"]
    chosen = sets[one_of(name, sets, "set of transitions")]
    n = chosen["n"] if n is None else n
    if not 1 <= n <= chosen["n"]:
        raise MotionLabError(f"Set '{name}' has {chosen['n']} pairs, not {n}.", fix="Ask for at least 1 and at most that many.")
    seeds = iter(split_seeds(chosen["split"], None)[chosen["offset"]:])
    return [_draw(name, chosen["task"], k, seeds) for k in range(n)]


def _draw(name, task, k, seeds: Iterator[int]) -> Ends:
    """Pair k of a set, of the next seed whose subject every model knows."""
    protocol = read_protocol()
    for seed in seeds:
        found = {"between": _between, "pose": _pose, "blend": _blend, "change": _change}[one_of(task, TASKS, "task")](k, seed)
        if not any(held_out(describe(scene), protocol) for scene in (found["first"], found["last"])):
            return Ends(f"{name}/{k:03d}", task, seed=seed, **found)
    raise MotionLabError(f"The split of set '{name}' ends before pair {k} is found.", fix="Ask for fewer.")


def _scene(seed, motion=None, species=None) -> Scene:
    return random_scene(seed, species_name=species, motion=motion, camera=False, paths=False)


def _between(k, seed):
    half = list(HALVES)[k % 2]
    scene = _scene(seed, motion=HALVES[half][k // 2 % len(HALVES[half])])
    text = silent(scene)
    return {"half": half, "first": scene, "last": scene, "text_first": text, "text_last": text}


def silent(scene: Scene) -> str:
    """The scene's caption without the heading."""
    said = describe(scene)
    return sentence(said | {"actors": [actor | {"heading": None} for actor in said["actors"]]})


def _pose(k, seed):
    species = CREATURES[k % len(CREATURES)]
    a, b = _scene(seed, species=species), _scene(seed + 2 ** 32, species=species)
    other = dataclasses.replace(b.actors[0], colour=a.actors[0].colour, heading=a.actors[0].heading)
    return _two(a, dataclasses.replace(a, actors=(other,), occluders=()))


def _blend(k, seed):
    a, rng = _scene(seed), np.random.default_rng([seed, DISSOLVE])
    species = str(rng.choice([name for name in SPECIES if name != a.actors[0].species]))
    b = _scene(seed + 2 ** 32, species=species)
    other = dataclasses.replace(b.actors[0], colour=a.actors[0].colour)
    return _two(dataclasses.replace(a, occluders=()), dataclasses.replace(a, actors=(other,), occluders=()))


def _two(a, b):
    middle = FRAMES // 2
    return {"half": "", "first": a, "last": b, "text_first": caption(a), "text_last": caption(b), "at": (middle, middle)}


def _change(k, seed):
    half, a = ("colour", "place")[k % 2], _scene(seed)
    b = changed(a, half, np.random.default_rng([seed, DISSOLVE]))
    return {"half": half, "first": a, "last": b, "text_first": caption(a), "text_last": caption(b)}


def changed(scene: Scene, what: str, rng: np.random.Generator) -> Scene:
    """The same motion in another colour or another place; no pair of species and colour that models do not know."""
    actor = scene.actors[0]
    if what == "place":
        return scene.with_attributes(place=str(rng.choice([name for name in PLACES if name != scene.place])))
    free = [c for c in COLOURS if c != actor.colour and not held_out({"actors": [{"species": actor.species, "colour": c}]})]
    return scene.with_attributes(colour=str(rng.choice(free)))


# ---------------------------------------------------------------------------------------------- for training
@dataclass(frozen=True)
class Frames:
    """A clip that is nothing but its frames, uint8 (f, h, w, 3), and a caption."""

    frames: np.ndarray
    caption: str


@dataclass(frozen=True)
class HalfDissolved(World):
    """Clips of a range of world seeds, every other one dissolving into a render of its own motion in another colour or place.

    A dissolve has its first half's caption, as one caption is what training reads.
    """

    config: BankConfig = field(default_factory=lambda: BankConfig("fine_tuning", clips=1600, frames=FRAMES))
    fps: float = FPS

    @property
    def name(self) -> str:
        return f"{super().name}_half_dissolved"

    def clip(self, i: int) -> Frames:
        """Clip i."""
        scene = training_scene(self.seeds[i])
        own = super().clip(i).frames
        if i % 2 == 0:
            return Frames(own, self.captions[i])
        other = changed(scene, ("colour", "place")[i // 2 % 2], np.random.default_rng([self.seeds[i], DISSOLVE]))
        return Frames(dissolve(own, render(other, self.config.size, self.config.frames, self.fps).frames), self.captions[i])

    def larger(self, i: int, size: int) -> Frames:
        """Clip i rendered `size` pixels high and wide; 0: clip i itself."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, size=size or self.config.size)).clip(i)

    def hash(self) -> str:
        """Names these very clips."""
        return digest({"clips": super().hash(), "dissolve": DISSOLVE})
