"""How much clutter can a source carry before the readers lose its limbs? The level of `transfer.clutter` in protocol.yaml is chosen here.

    python -m motionlab.experiments.transfer_clutter FILE.csv

writes the rows of that pilot on the dev tasks (reproductions/*/pilots/clutter.csv), `chosen(rows)` is the level.
"""
from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.core.files import write_atomic
from motionlab.data.transfer import TransferTask, load_transfer
from motionlab.experiments.instruments import through
from motionlab.experiments.rows import load_evaluators
from motionlab.ledger.book import csv_text
from motionlab.metrics.reconstruction import VISIBLE
from motionlab.models.evaluator import Evaluator, true_limbs
from motionlab.models.shipped import shipped
from motionlab.models.small.codec import Codec, load_codec
from motionlab.world import render

LEVELS = (0.3, 0.5, 0.7)
ALLOWED = 0.3           # pixels that clutter may add to either reader's error


def clutter_rows(tasks: Sequence[TransferTask], codec: Codec, readers: Mapping[str, Evaluator], levels: Sequence[float] = LEVELS,
                 textures: int = 4) -> list[dict]:
    """Rows {item, arm "clutter_<level>", seed, tier, part_error_<reader>} of the tasks' sources, reconstructed by the codec.

    part_error: mean distance in pixels of the limbs read from the true ones, over limbs and times that show; arm clutter_0 has none.

    Args:
        textures: patterns of clutter per task, the row's `seed`; the task's own first.
    """
    rows = []
    for task in tasks:
        for texture in range(textures):
            for level in (0.0, *levels):
                clip = render(dataclasses.replace(task.source, clutter=level, texture_seed=task.source.texture_seed + texture))
                frames = through(codec, clip.frames)
                row = {"item": task.id, "arm": f"clutter_{level:g}", "seed": texture, "tier": task.tier}
                rows.append(row | {f"part_error_{name}": part_error(frames, clip, reader) for name, reader in readers.items()})
    return rows


def part_error(frames: np.ndarray, clip, reader: Evaluator) -> float:
    """Mean distance in pixels of the limbs that a reader finds in frames (f, h, w, 3) from the clip's own, where these show."""
    truth, shown = true_limbs(clip, least=VISIBLE * (clip.size[0] / 48) ** 2)
    read = reader.read(frames[None], species=[clip.scene.actors[0].species])["positions"][0]
    return float(np.linalg.norm(read - truth, axis=-1)[shown].mean())


def chosen(rows: Iterable[dict], allowed: float = ALLOWED) -> float:
    """The highest level whose mean error exceeds that without clutter by less than `allowed` pixels, for every reader.

    Raises:
        MotionLabError: no level is low enough.
    """
    rows = list(rows)
    columns = [c for c in rows[0] if c.startswith("part_error_")]
    mean = {arm: {c: np.mean([r[c] for r in rows if r["arm"] == arm]) for c in columns} for arm in {r["arm"] for r in rows}}
    fit = [float(arm.split("_")[1]) for arm, error in mean.items()
           if arm != "clutter_0" and all(error[c] - mean["clutter_0"][c] < allowed for c in columns)]
    if not fit:
        raise MotionLabError(f"Every level of clutter costs the readers {allowed} px or more.", fix="Try lower levels.")
    return max(fit)


def write(path: Path, n: int | None = None) -> Path:
    """Measure the first `n` dev tasks (None: all) with the shipped codec and readers, and write their rows."""
    import pandas as pd

    rows = clutter_rows(load_transfer("transfer_dev", n), load_codec(shipped("codec")), load_evaluators())
    return write_atomic(path, csv_text(pd.DataFrame(rows).round(6)))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
