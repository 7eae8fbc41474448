"""Blocks by depth: which third of a network a block belongs to, and rows per block as one row per clip.

A claim about depth must hold for networks of any length, so it names thirds and not blocks, as DeT does (block 1, N/3,
N/2, N).
"""
from __future__ import annotations

from collections.abc import Iterable

from motionlab.analyses.prompt_switch import text_blocks

DEPTHS = ("early", "middle", "late")


def third(block: int, blocks: int) -> str:
    """The third that the middle of block number `block` (from 0) lies in; of 8 blocks 3 are early, 2 middle, 3 late."""
    return DEPTHS[int(3 * (block + 0.5) / blocks)]


def block_number(name: str) -> int:
    """3 of "transformer_blocks.3"."""
    return int(name.rsplit(".", 1)[1])


def block_labels(model, names: Iterable[str]) -> dict[str, dict]:
    """{block name: {block, depth}} of tapped blocks; `block` counts from 0."""
    total = len(text_blocks(model.denoiser))
    return {name: {"block": block_number(name), "depth": third(block_number(name), total)} for name in names}


def shown_blocks(model) -> list[int]:
    """The blocks that the paper shows: the first, N/3, N/2 and the last."""
    n = len(text_blocks(model.denoiser))
    return sorted({0, max(0, round(n / 3) - 1), max(0, n // 2 - 1), n - 1})


def by_depth(table, columns: Iterable[str], keys: Iterable[str] = ()):
    """One row per clip, arm and seed: means over the blocks of each third and over noise levels.

    Args:
        table: rows with item, arm, seed, depth, the keys and the columns. keys: further columns whose values stay
            apart.

    Returns:
        DataFrame with <column>_early, <column>_middle, <column>_late and <column>_all, so that a claim can subtract one
        depth from another clip by clip (`against`) as well as one model from another (`minus`).
    """
    import pandas as pd

    columns, keys = list(columns), ["item", "arm", "seed", *keys]
    thirds = table.groupby([*keys, "depth"], sort=False)[columns].mean().unstack("depth")
    thirds.columns = [f"{column}_{depth}" for column, depth in thirds.columns]
    everywhere = table.groupby(keys, sort=False)[columns].mean().add_suffix("_all")
    order = [f"{column}_{depth}" for column in columns for depth in (*DEPTHS, "all")]
    return pd.concat([thirds, everywhere], axis=1).reindex(columns=order).reset_index()
