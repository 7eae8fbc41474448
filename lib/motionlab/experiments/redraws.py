"""Sets of clips against redraws of their captions: which of two arms lies nearer to the world, and whether broken limbs are seen at all."""
from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.data.prompts import Prompt
from motionlab.experiments.instruments import through
from motionlab.experiments.measure import clip_features
from motionlab.metrics.fvd import log_ratios
from motionlab.metrics.structure import damage
from motionlab.models.evaluator import Evaluator
from motionlab.models.small.codec import Codec

DAMAGES = {"shift_4": ("shift", 4), "hide_1": ("hide", 1)}
DAMAGED = 9              # the redraw that is damaged: no other row shows it


def ratio_rows(table, pairs: Sequence[tuple[str, str]], redraws: str = "redraw") -> list[dict]:
    """Rows {item, arm "<one>_over_<other>", seed, log_ratio} of pairs of arms, by `metrics.fvd.log_ratios` of their fd_ columns.

    Args:
        table: sweep rows, first seeds count; the reference is the arm `redraws` but for its last seed.

    Raises:
        MotionLabError: an arm without rows, fewer than two redraws, fewer than four prompts in common.
    """
    (*reference, _), out = _drawn(table, redraws), []
    for one, other in pairs:
        a, b = (_features(table, arm) for arm in (one, other))
        items = [item for item in a.index if item in b.index and all(item in drawn.index for drawn in reference)]
        values = log_ratios(a.loc[items].to_numpy(), b.loc[items].to_numpy(), _stacked(reference, items))
        out += [{"item": item, "arm": f"{one}_over_{other}", "seed": 0, "log_ratio": v} for item, v in zip(items, values)]
    return out


def damage_rows(table, prompts: Sequence[Prompt], codec: Codec, evaluator: Evaluator, damages: Mapping = DAMAGES,
                redraws: str = "redraw") -> Iterator[dict]:
    """The same of known damage: one more redraw of each prompt, damaged and sent through the codec, over the last redraw of the table.

    Arms are named as the damages, {name: (kind, dose) of `metrics.structure.damage`}; prompts without redraws are left out.
    """
    *reference, last = _drawn(table, redraws)
    shown = [p for p in prompts if p.id in last.index]
    if not shown:
        raise MotionLabError(f"None of the prompts has rows of arm '{redraws}'.", fix="Give the prompts that it was measured on.")
    items = [p.id for p in shown]
    for name, (kind, dose) in damages.items():
        clips = np.stack([through(codec, damage(p.redraw(DAMAGED), kind, dose, _rng(name, p))) for p in shown])
        found = np.array([list(row.values()) for row in clip_features(clips, evaluator)])
        values = log_ratios(found, last.loc[items].to_numpy(), _stacked(reference, items))
        yield from ({"item": item, "arm": name, "seed": 0, "log_ratio": v} for item, v in zip(items, values))


def _rng(name, prompt):
    return np.random.default_rng([zlib.crc32(name.encode()), prompt.seed])


def _drawn(table, redraws):
    """Features of each redraw, by seed."""
    rows = table[table["arm"] == redraws]
    seeds = sorted(rows["seed"].unique())
    if len(seeds) < 2:
        raise MotionLabError(f"Arm '{redraws}' has {len(seeds)} seeds.",
                             fix="Measure several: the last is the floor, the others the reference.")
    return [_features(rows[rows["seed"] == seed], redraws) for seed in seeds]


def _features(table, arm):
    columns = sorted(c for c in table.columns if c.startswith("fd_"))
    rows = table[table["arm"] == arm].drop_duplicates("item")
    if rows.empty or not columns:
        raise MotionLabError(f"There are no features of arm '{arm}'.", fix=f"Arms: {', '.join(sorted(set(table['arm'])))}.")
    return rows.set_index("item")[columns]


def _stacked(drawn, items):
    return np.stack([one.loc[items].to_numpy() for one in drawn], 1)
