"""The protocol's prompts: the same for every arm of every paper, balanced over VideoJAM-bench's four motion categories."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.noise import seed_of
from motionlab.core.protocol import held_out, read_protocol, split_seeds
from motionlab.data.bank import BankConfig, bank_seeds
from motionlab.data.tracked import KINDS as TRACKED
from motionlab.data.tracked import tracked_scene
from motionlab.world import Clip, random_scene, render
from motionlab.world.captions import describe, sentence
from motionlab.world.motions import KINDS

SHOWN_OFFSET = 20000        # of a split's seeds: other ones than prompts take
MEDIAN_AREA = 0.17          # of the frame that a subject fills, over 400 scenes of the world


@dataclass(frozen=True)
class Prompt:
    """One prompt with the scene that it was taken from, so that a true clip stands beside every generated one.

    Attributes:
        id: such as "test/017"; unit of every paired comparison. noise: seed of its starting noise (plus 1000 x run seed).
        text: the sentence. asked: its parsed form. kind: motion category. seed: of the scene.
    """

    id: str
    seed: int
    kind: str
    text: str
    asked: dict

    @property
    def noise(self) -> int:
        return self.seed

    @property
    def size(self) -> str:
        """"small" where the true clip's subject fills less of the frame than the world's median (17 %), else "large"."""
        return "small" if self.clip(frames=1).object_mask(None).mean() < MEDIAN_AREA else "large"

    def clip(self, size: int = 48, frames: int = 17) -> Clip:
        """The true clip of this prompt's scene."""
        return render(_scene(self.seed, self.kind), size, frames)


    def redraw(self, k: int, size: int = 48, frames: int = 17) -> Clip:
        """The k-th other clip of the same sentence: what that says is the scene's own, and its camera; all else is drawn."""
        scene = _scene(self.seed, self.kind)
        actor = scene.actors[0]
        other = random_scene(seed_of("redraw", self.seed, k), species_name=actor.species, motion=actor.motion, camera=False)
        alike = other.with_actor(0, colour=actor.colour, heading=actor.heading)
        return render(dataclasses.replace(alike, place=scene.place, camera=scene.camera), size, frames)


def load_prompts(name: str, n: int | None = None) -> list[Prompt]:
    """The first `n` prompts (None: all) of a set of `reproductions/protocol.yaml`: test, dev, held_out, ...

    "split/kind", such as test/pillar, are true clips alone: scenes of `data.tracked.tracked_scene`, as many as are asked for.

    Raises:
        MotionLabError: unknown set (the nearest is named), more prompts than it has.
    """
    if "/" in name:
        return _shown(*name.split("/", 1), n)
    sets = read_protocol()["prompts"]
    chosen = sets[one_of(name, sets, "set of prompts")]
    n = chosen["n"] if n is None else n
    if not 1 <= n <= chosen["n"]:
        raise MotionLabError(f"Set '{name}' has {chosen['n']} prompts, not {n}.", fix="Ask for at least 1 and at most that many.")
    return _draw(name, chosen, n)


@dataclass(frozen=True)
class Shown(Prompt):
    """A scene that is looked at and never asked for: its kind is one of `data.tracked.KINDS`."""

    def clip(self, size: int = 48, frames: int = 17) -> Clip:
        return render(tracked_scene(self.seed, self.kind), size, frames)


def _shown(split, kind, n):
    one_of(kind, TRACKED, "kind of tracked scene")
    seeds = bank_seeds(BankConfig(split, SHOWN_OFFSET, 64 if n is None else n))
    asked = [describe(tracked_scene(seed, kind)) for seed in seeds]
    return [Shown(f"{split}/{kind}/{k:04d}", seed, kind, sentence(said), said) for k, (seed, said) in enumerate(zip(seeds, asked))]


def _draw(name, chosen, n):
    protocol, split, out = read_protocol(), chosen["split"], []
    for seed in split_seeds(split, None)[chosen["offset"]:]:
        kind = None if chosen.get("any_kind") else chosen.get("kind", KINDS[len(out) % len(KINDS)])
        asked = describe(_scene(seed, kind))
        if _fits(asked, chosen.get("only"), protocol) and (split in protocol["held_out"]["shown_only_in"] or not held_out(asked, protocol)):
            out.append(Prompt(f"{name}/{len(out):03d}", seed, kind, sentence(asked), asked))
        if len(out) == n:
            return out
    raise MotionLabError(f"Split '{split}' ends before {n} prompts are found.", fix="Ask for fewer.")


def _fits(asked, only, protocol):
    """A set may ask for some `species`, no `camera`; and for one of two things: some `motions`, or held-out pairs."""
    if only is None:
        return True
    actor = asked["actors"][0]
    if actor["species"] not in only.get("species", [actor["species"]]) or (asked["camera"] and not only.get("camera", True)):
        return False
    if "motions" not in only and not only.get("held_out"):
        return True
    return actor["motion"] in only.get("motions", ()) or (only.get("held_out", False) and held_out(asked, protocol))


def _scene(seed, kind):
    return random_scene(seed, kind=kind)
