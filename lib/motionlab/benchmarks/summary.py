"""From rows to tables: per tier, the plain mean of tiers, and the mean weighted by clips, with intervals over clips.

A prompt is the mean of its videos, a clip the mean of its prompts, a tier the mean of its clips. So it does not matter how many
videos a prompt has; what is missing is counted, not made up for.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from motionlab.benchmarks.base import Column
from motionlab.core.stats import LEVEL, RESAMPLES, resample

PLAIN, WEIGHTED = "mean of tiers", "mean of clips"
LEAST_CLIPS = 2                                              # an interval over fewer says nothing


def table(rows: Sequence[dict[str, Any]], columns: Sequence[Column], tiers: Sequence[str]) -> list[dict[str, Any]]:
    """A line per tier that has prompts, then both means.

    Args:
        rows: with group, tier, prompt, status, and the scores by their columns' names.

    Returns:
        lines {tier, clips, prompts, videos, missing, and for each column NAME, NAME_low, NAME_high (95 % bootstrap interval over
        clips), NAME_undefined (videos without this score), and NAME_spread where it has draws}; None where there is nothing.
        clips, prompts and videos are the scored ones, missing the prompts that have no scored video.
    """
    by_tier = {tier: [row for row in rows if row["tier"] == tier] for tier in tiers}
    by_tier = {tier: inside for tier, inside in by_tier.items() if inside}
    found = {tier: {column.name: _clips(inside, column.name) for column in columns} for tier, inside in by_tier.items()}
    lines = [_line(tier, inside, columns, {name: [values] for name, values in found[tier].items()}, weighted=False)
             for tier, inside in by_tier.items()]
    per_tier = {column.name: [found[tier][column.name] for tier in by_tier] for column in columns}
    return lines + [_line(name, rows, columns, per_tier, weighted) for name, weighted in ((PLAIN, False), (WEIGHTED, True))]


def _line(name, rows, columns, per_tier, weighted):
    line = {"tier": name} | _counts(rows)
    for column in columns:
        groups = [np.array(list(clips.values())) for clips in per_tier[column.name] if clips]
        value, low, high = _mean(groups, weighted)
        undefined = sum(row["status"] == "scored" and row.get(column.name) is None for row in rows)
        line |= {column.name: value, f"{column.name}_low": low, f"{column.name}_high": high, f"{column.name}_undefined": undefined}
        if column.draws:
            line[f"{column.name}_spread"] = _spread(rows, column.draws, weighted)
    return line


def _counts(rows):
    scored = [row for row in rows if row["status"] == "scored"]
    prompts = {(row["group"], row["prompt"]) for row in scored}
    return {"clips": len({row["group"] for row in scored}), "prompts": len(prompts), "videos": len(scored),
            "missing": len({(row["group"], row["prompt"]) for row in rows} - prompts)}


def _clips(rows, name):
    """{clip: mean over its prompts of the mean over their videos} of one score, of the clips that have one."""
    videos = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["status"] == "scored" and row.get(name) is not None:
            videos[row["group"]][row["prompt"]].append(row[name])
    return {group: float(np.mean([np.mean(values) for values in prompts.values()])) for group, prompts in videos.items()}


def _mean(groups, weighted):
    """The mean of the groups' means, or of all their members, with its interval: members are drawn anew within their group."""
    if not groups:
        return None, None, None
    weights = np.array([len(group) if weighted else 1 for group in groups], dtype=float)
    value = float(np.average([group.mean() for group in groups], weights=weights))
    if min(len(group) for group in groups) < LEAST_CLIPS:
        return value, None, None
    rng = np.random.default_rng(0)
    draws = np.average([resample(group, "mean", rng, RESAMPLES) for group in groups], axis=0, weights=weights)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value, float(low), float(high)


def _spread(rows, names, weighted):
    """Standard deviation over draws of the mean that each would give."""
    tiers = dict.fromkeys(row["tier"] for row in rows)
    values = []
    for name in names:
        groups = [np.array(list(clips.values())) for tier in tiers
                  if (clips := _clips([row for row in rows if row["tier"] == tier], name))]
        if groups:
            weights = [len(group) if weighted else 1 for group in groups]
            values.append(np.average([group.mean() for group in groups], weights=weights))
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
