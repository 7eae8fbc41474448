"""Does a tracker of masks follow subjects, also behind a pillar and beside one that looks alike?

    python -m motionlab.experiments.tracked FILE.csv [SPLIT] [N] [SIZE]

writes the rows of the shipped SAM2 on N clips (256) of a split (dev), rendered at SIZE pixels (192), and a quarter as many pillars and
look-alikes.
"""
from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from motionlab.core.files import write_atomic
from motionlab.data.bank import BankConfig, bank_seeds
from motionlab.data.tracked import KINDS, tracked_scene
from motionlab.ledger.book import csv_text
from motionlab.metrics.mask_tracking import after_hiding, copied, frame_iou, warped
from motionlab.models.shipped import shipped
from motionlab.teachers.flow import dis_flow
from motionlab.teachers.masks import Tracker, load_tracker
from motionlab.teachers.prompts import world_prompt
from motionlab.world import render

OFFSET = 20000           # of the split's seeds: other ones than prompts take
TOGETHER = 16


def tracked_rows(seeds: Sequence[int], tracker: Tracker, kind: str = "plain", size: int = 192, frames: int = 17,
                 name: str = "sam2") -> Iterator[dict]:
    """Rows {item, arm, seed, kind, species, motion, iou, iou_after, right} of the scenes of these seeds; actor 0, shown by its true box.

    Arms: the tracker by its `name`; "copied" and "warped", its first mask where it was, and carried by DIS flow; "copied_true" and
    "warped_true", the same of the true first mask. iou: mean over the frames after the first. iou_after: over those after a pillar hid
    it (NaN without). right: 1 where the masks of the last four frames cover the object better than its look-alike (NaN without).
    Scenes whose actor 0 does not show in the first frame are passed over.

    Raises:
        MotionLabError: unknown kind; as `Tracker.track`.
    """
    shown = [(seed, clip, prompt) for seed in seeds for clip in [render(tracked_scene(seed, kind), size, frames)]
             if (prompt := world_prompt(clip)) is not None]
    for first in range(0, len(shown), TOGETHER):
        part = shown[first:first + TOGETHER]
        seen = tracker.track([clip for _, clip, _ in part], [prompt for _, _, prompt in part])
        for (seed, clip, _), one in zip(part, seen):
            for arm, masks in _arms(name, one.masks, clip).items():
                actor = clip.scene.actors[0]
                row = {"item": f"world-{seed}", "arm": arm, "seed": 0, "kind": kind, "species": actor.species, "motion": actor.motion}
                yield row | _scores(masks, clip)


def _arms(name, masks, clip):
    back, truth = dis_flow(clip.frames, backward=True), clip.object_mask(0)[0]
    return {name: masks, "copied": copied(masks[0], len(masks)), "warped": warped(masks[0], back),
            "copied_true": copied(truth, len(masks)), "warped_true": warped(truth, back)}


def _scores(masks, clip):
    truth = clip.object_mask(0)
    iou, out = frame_iou(masks, truth), {"iou_after": np.nan, "right": np.nan}
    if clip.scene.occluders:
        bare = render(dataclasses.replace(clip.scene, occluders=()), clip.size, len(masks))
        after = after_hiding(truth, bare.object_mask(0))
        out["iou_after"] = float(iou[after].mean()) if after.any() else np.nan
    if len(clip.scene.actors) > 1:
        last = slice(len(masks) - min(4, len(masks) - 1), None)
        out["right"] = float(iou[last].mean() > frame_iou(masks, clip.object_mask(1))[last].mean())
    return {"iou": float(iou[1:].mean())} | out


def all_rows(split: str, n: int, tracker: Tracker, size: int = 192, offset: int = OFFSET) -> list[dict]:
    """`tracked_rows` of n plain clips of a split, and of n // 4 of each other kind."""
    seeds = bank_seeds(BankConfig(split, offset, n))
    return [row for kind in KINDS for row in tracked_rows(seeds if kind == "plain" else seeds[:max(1, n // 4)], tracker, kind, size)]


def summary(rows: Sequence[dict], name: str = "sam2") -> dict[str, float]:
    """{iou, above_copied, above_warped, after_pillar, right}: means of `tracked_rows`, whole subjects plain, then pillars, then pairs."""
    def mean(arm, kind, column):
        found = [row[column] for row in rows if row["arm"] == arm and row["kind"] == kind and np.isfinite(row[column])]
        return float(np.mean(found)) if found else float("nan")

    iou = mean(name, "plain", "iou")
    return {"iou": iou, "above_copied": iou - mean("copied", "plain", "iou"), "above_warped": iou - mean("warped", "plain", "iou"),
            "above_warped_true": iou - mean("warped_true", "plain", "iou"), "after_pillar": mean(name, "pillar", "iou_after"),
            "right": mean(name, "pair", "right")}


def write(path: Path, split: str = "dev", n: int = 256, size: int = 192) -> Path:
    """Measure the shipped SAM2 and write its rows; prints `summary`."""
    import pandas as pd

    rows = all_rows(split, n, load_tracker("auto", checkpoint=shipped("sam2")), size)
    print("  ".join(f"{name} {value:.3f}" for name, value in summary(rows).items()))
    return write_atomic(path, csv_text(pd.DataFrame(rows).round(6)))


if __name__ == "__main__":
    write(Path(sys.argv[1]), *sys.argv[2:3], *map(int, sys.argv[3:5]))
