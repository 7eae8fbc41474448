"""Positive control P-damage: what both readers answer to known damage done to motion alone, by dose.

Two sources. `faulty_rows` renders a world clip again with a fault and sends it through the codec; `retimed_rows` shows the own
frames of any clips, generated ones too, at other times. Both give the undamaged clips as the arm "clean_0".
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.core.noise import seed_of
from motionlab.data.prompts import Prompt, load_prompts
from motionlab.experiments.instruments import through
from motionlab.experiments.measure import learned_structure, recognised
from motionlab.metrics.motion_damage import DOSES, FAULTS, RETIMINGS, break_motion, can_break, retime
from motionlab.models.evaluator import Evaluator
from motionlab.models.small.codec import Codec


def breakable(prompts: str, n: int) -> list[Prompt]:
    """The first `n` prompts of a set whose subjects have limbs that move of their own (every creature's, no ball's).

    Raises:
        MotionLabError: an unknown set; it has fewer.
    """
    found = [p for p in load_prompts(prompts) if can_break(p.clip(frames=1).scene)]
    if not 1 <= n <= len(found):
        raise MotionLabError(f"Set '{prompts}' has {len(found)} prompts with moving limbs, not {n}.",
                             fix=f"Ask for at least 1 and at most {len(found)}.")
    return found[:n]


def all_rows(prompts: Sequence[Prompt], codec: Codec, evaluators: dict[str, Evaluator], made: np.ndarray | None = None,
             doses: Sequence[float] = DOSES) -> Iterator[dict]:
    """Rows of everything: reconstructions with `FAULTS` and with `RETIMINGS`, and generated clips `made` of the prompts, source
    "base", with `RETIMINGS`.

    Raises:
        MotionLabError: a subject without moving limbs, another number of clips than prompts.
    """
    yield from faulty_rows(prompts, codec, evaluators, doses=doses)
    clean = _through(codec, [p.clip().frames for p in prompts])
    yield from (row for row in retimed_rows(clean, prompts, evaluators, "reconstruction", doses) if row["damage"] != "clean")
    if made is not None:
        yield from retimed_rows(made, prompts, evaluators, "base", doses)


def faulty_rows(prompts: Sequence[Prompt], codec: Codec, evaluators: dict[str, Evaluator], frames: int = 17,
                doses: Sequence[float] = DOSES) -> Iterator[dict]:
    """Rows of the prompts' true clips with each of `FAULTS`, through the codec; columns as `answers`, source "reconstruction".

    Raises:
        MotionLabError: a subject without moving limbs.
    """
    clips = [p.clip(frames=frames) for p in prompts]
    yield from answers(_through(codec, [c.frames for c in clips]), prompts, evaluators, "reconstruction")
    for name in FAULTS:
        for dose in doses:
            damaged = _through(codec, [break_motion(c, name, dose) for c in clips])
            yield from answers(damaged, prompts, evaluators, "reconstruction", name, dose)


def retimed_rows(frames: np.ndarray, prompts: Sequence[Prompt], evaluators: dict[str, Evaluator], source: str,
                 doses: Sequence[float] = DOSES) -> Iterator[dict]:
    """Rows of clips uint8 (n, f, h, w, 3), one per prompt, with each of `RETIMINGS` of their own frames; columns as `answers`.

    Chance follows from prompt and damage: two sources of the same prompts have their frames in the same order.

    Args:
        source: what the clips are, such as "reconstruction" or "base".

    Raises:
        MotionLabError: another number of clips than prompts.
    """
    if len(frames) != len(prompts):
        raise MotionLabError(f"{len(frames)} clips were given for {len(prompts)} prompts.", fix="Give one clip per prompt.")
    yield from answers(frames, prompts, evaluators, source)
    for name in RETIMINGS:
        for dose in doses:
            chance = [np.random.default_rng(seed_of(p.id, name)) for p in prompts]
            damaged = np.stack([retime(clip, name, dose, rng) for clip, rng in zip(frames, chance)])
            yield from answers(damaged, prompts, evaluators, source, name, dose)


def answers(frames: np.ndarray, prompts: Sequence[Prompt], evaluators: dict[str, Evaluator], source: str, damage: str = "clean",
            dose: float = 0) -> list[dict]:
    """Rows {item, arm "<damage>_<dose>", seed, kind, source, damage, dose, structure_<k>, move_ok_<k>, look_ok_<k>} of clips."""
    rows = [{"item": p.id, "arm": f"{damage}_{dose:g}", "seed": 0, "kind": p.kind, "source": source, "damage": damage, "dose": dose}
            for p in prompts]
    species = [p.asked["actors"][0]["species"] for p in prompts]
    for name, evaluator in evaluators.items():
        found = zip(rows, learned_structure(frames, species, evaluator), recognised(frames, prompts, evaluator))
        for row, structure, seen in found:
            row |= {f"structure_{name}": structure, f"move_ok_{name}": seen["move_ok"], f"look_ok_{name}": seen["look_ok"]}
    return rows


def _through(codec, clips):
    return np.stack([through(codec, clip) for clip in clips])
