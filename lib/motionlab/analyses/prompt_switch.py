"""Which blocks decide the motion, which the appearance? One prompt for the first blocks, another for the rest (DeT, C3).

The paper shows one pair of pictures (walking tiger, lying tiger). Here two prompts run side by side on the same noise; at block
`depth` the first run's text states are replaced by the second run's, and the instruments read which prompt each attribute of the
clip follows, for every depth. At depth 0 it is the second prompt throughout, at the full depth the first.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from motionlab.models.pipe import Inputs, Pipe, joined
from motionlab.analyses.resume import readable
from motionlab.diffusion import cfg, euler
from motionlab.analyses.inputs import demand_text
from motionlab.core.errors import MotionLabError
from motionlab.models.evaluator import CLASSES, Evaluator, labels_of
from motionlab.world.captions import describe, sentence
from motionlab.world.motions import MOTIONS
from motionlab.world.palette import COLOURS, PLACES
from motionlab.world.puppets import SPECIES
from motionlab.world.scenes import random_scene


# ---------------------------------------------------------------------------------------------- pairs of prompts
SWITCHABLE = tuple(name for name, kind in SPECIES.items() if len(kind.motions) > 1)


def opposite(asked: dict) -> dict:
    """A prompt of the same species in which everything else differs: motion (where the species has another), heading,
    colour and place; no camera.
    """
    actor = asked["actors"][0]
    motions = [m for m in SPECIES[actor["species"]].motions if m != actor["motion"]] or [actor["motion"]]
    heading = {"left": "right", "right": "left", None: "left"}[actor["heading"]] if MOTIONS[motions[0]].says_heading else None
    other = actor | {"motion": motions[0], "heading": heading, "colour": _next(COLOURS, actor["colour"])}
    return {"actors": [other], "place": _next(PLACES, asked["place"]), "camera": ""}


def _next(names, one):
    names = list(names)
    return names[(names.index(one) + len(names) // 2) % len(names)]


def switch_pairs(seeds: Sequence[int], species: Sequence[str] = SWITCHABLE) -> list[tuple[int, dict, dict]]:
    """(seed, first, then) parsed prompts for every seed: a random scene's and its `opposite`, species taking turns."""
    out = []
    for k, seed in enumerate(seeds):
        first = describe(random_scene(int(seed), species_name=species[k % len(species)], camera=False))
        out.append((int(seed), first, opposite(first)))
    return out


def swapped(pairs: Sequence[tuple[int, dict, dict]]) -> list[tuple[int, dict, dict]]:
    """The same pairs the other way round: a block decides an attribute only if it does so whichever prompt it reads."""
    return [(seed, then, first) for seed, first, then in pairs]


# ---------------------------------------------------------------------------------------------- rows
def switch_rows(model: Pipe, evaluator: Evaluator, pairs: Sequence[tuple[int, dict, dict]], depths: Sequence[int], steps: int = 20,
                w: float | None = None, batch: int = 8) -> Iterator[dict]:
    """Rows {item, arm, seed, depth, first_<name>, then_<name>} of clips whose first `depth` blocks read one prompt, the rest another.

    Args:
        pairs: as `switch_pairs` gives them.

    first_<name>, then_<name>: 1 where the clip shows the first (the second) prompt's colour, place, motion or heading; NaN where
    the two prompts agree. At depth 0 it is the second prompt throughout, at the full depth the first: both are controls.
    """
    for part in (pairs[k:k + batch] for k in range(0, len(pairs), batch)):
        said = [[sentence(prompt) for prompt in column] for column in list(zip(*part))[1:]]
        for depth in depths:
            frames = switched_clips(model, *said, [seed for seed, *_ in part], depth, steps, w)
            read = evaluator.read(readable(frames))
            for i, (seed, first, then) in enumerate(part):
                a, b = labels_of(first), labels_of(then)
                row = {"item": str(seed), "arm": model.name, "seed": 0, "depth": depth}
                for name in ("colour", "place", "motion", "heading"):
                    seen = read[name][i]
                    row |= {f"{which}_{name}": float(seen == CLASSES[name][x[name]]) if a[name] != b[name] else float("nan")
                            for which, x in (("first", a), ("then", b))}
                yield row


@torch.no_grad()
def switched_clips(model: Pipe, first: Sequence[str], then: Sequence[str], seeds: Sequence[int], depth: int, steps: int = 20,
                   w: float | None = None) -> np.ndarray:
    """Clips uint8 (b, f, h, w, 3) of pairs of prompts, switched at one depth, from one noise seed each."""
    u = switched(model, model.text(first), model.text(then), depth, model.w if w is None else w)
    return model.decode(euler(u, model.noise(seeds), model.grid(steps)))


# ---------------------------------------------------------------------------------------------- the switch itself
def switched(model: Pipe, first: Inputs, then: Inputs, depth: int, w: float = 2.0) -> Callable:
    """A model (x, t) -> u whose first `depth` blocks read the prompt `first` and whose other blocks read `then`.

    Args:
        first, then: `Pipe.text` of as many prompts. w: text guidance; its null half is not switched.

    Raises:
        MotionLabError: a depth that the backbone does not have, prompts of different shapes.
    """
    demand_text(model, "the look that the prompts are to decide")
    blocks = text_blocks(model.denoiser)
    if not 0 <= depth <= len(blocks):
        raise MotionLabError(f"The backbone has {len(blocks)} blocks; there is no depth {depth}.", fix=f"Use 0 to {len(blocks)}.")
    n, m = (len(next(iter(text.values()))) for text in (first, then))
    if n != m:
        raise MotionLabError(f"{n} prompts and {m} to switch to were given.", fix="Give as many of one as of the other.")
    text = joined(first, then, model.text([""] * n))

    def u(x, t):
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        with text_replaced(blocks, depth, len(x)):
            out = model.velocity(torch.cat([x] * 3), torch.cat([t] * 3), text)
        mixed, _, null = out.chunk(3)
        return cfg(mixed, null, w)

    return u


@contextmanager
def text_replaced(blocks: nn.ModuleList, depth: int, n: int) -> Iterator[None]:
    """From block `depth` on, rows 0..n of a batch carry the text states of rows n..2n; nothing stays behind after."""
    if depth == len(blocks):
        yield
        return

    def swap(module, args, kwargs):
        args = list(args)
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        text = torch.cat([text[n:2 * n], text[n:]])
        if "encoder_hidden_states" in kwargs:
            return tuple(args), kwargs | {"encoder_hidden_states": text}
        return (args[0], text, *args[2:]), kwargs

    handles = [blocks[k].register_forward_pre_hook(swap, with_kwargs=True) for k in range(depth, len(blocks))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def text_blocks(transformer: nn.Module) -> nn.ModuleList:
    """The blocks of a video DiT, in order.

    Raises:
        MotionLabError: none are found.
    """
    for name in ("transformer_blocks", "blocks"):
        found = getattr(transformer, name, None)
        if isinstance(found, nn.ModuleList) and len(found):
            return found
    raise MotionLabError(f"{type(transformer).__name__} has no list of blocks that reads text.", fix="Use CogVideoX, Wan or LTX.")
