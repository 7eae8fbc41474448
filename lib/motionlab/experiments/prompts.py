"""The protocol's prompts: the same for every arm of every paper, balanced over VideoJAM-bench's four motion categories."""
from __future__ import annotations

from dataclasses import dataclass

from motionlab.errors import MotionLabError, one_of
from motionlab.ledger.protocol import held_out, read_protocol, split_seeds
from motionlab.world import Clip, random_scene, render
from motionlab.world.captions import describe, sentence
from motionlab.world.motions import KINDS


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

    def clip(self, size: int = 48, frames: int = 17) -> Clip:
        """The true clip of this prompt's scene."""
        return render(_scene(self.seed, self.kind), size, frames)


def load_prompts(name: str, n: int | None = None) -> list[Prompt]:
    """The first `n` prompts (None: all) of a set of `reproductions/protocol.yaml`: test, dev, held_out or examples.

    Raises:
        MotionLabError: unknown set (the nearest is named), more prompts than it has.
    """
    sets = read_protocol()["prompts"]
    chosen = sets[one_of(name, sets, "set of prompts")]
    n = chosen["n"] if n is None else n
    if not 1 <= n <= chosen["n"]:
        raise MotionLabError(f"Set '{name}' has {chosen['n']} prompts, not {n}.", fix="Ask for at least 1 and at most that many.")
    return _draw(name, chosen["split"], chosen["offset"], n)


def _draw(name, split, offset, n):
    protocol, out = read_protocol(), []
    for seed in split_seeds(split, None)[offset:]:
        kind = KINDS[len(out) % len(KINDS)]
        asked = describe(_scene(seed, kind))
        if split in protocol["held_out"]["shown_only_in"] or not held_out(asked, protocol):
            out.append(Prompt(f"{name}/{len(out):03d}", seed, kind, sentence(asked), asked))
        if len(out) == n:
            return out
    raise MotionLabError(f"Split '{split}' ends before {n} prompts are found.", fix="Ask for fewer.")


def _scene(seed, kind):
    return random_scene(seed, kind=kind)
