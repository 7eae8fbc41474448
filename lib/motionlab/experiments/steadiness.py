"""How steady a training is: the variation of the gradient's norm over its last half, from its log. A row function of sweeps."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.experiments.arms import read_arm
from motionlab.experiments.finetune import trained, training_folder, trainings
from motionlab.experiments.rows import smaller
from motionlab.training.log import read_log

PARTS = 4


def run_row(arm: dict, seed: int, out_dir: Path, tier: str, **common) -> list[dict]:
    """Rows of `variation_rows` of one arm's training, which is trained now where it was not (see `experiments.rows.run_row`).

    Raises:
        MotionLabError: an arm that is not trained, a log that is too short.
    """
    one = read_arm(arm, common)
    if tier == "smoke":
        one = smaller(one)
    if one.budget is None:
        raise MotionLabError(f"Arm '{one.name}' is not trained.", fix="Give it `train`.")
    home = trainings(out_dir)
    trained(one, seed, home)
    log = read_log(training_folder(one, seed, home) / "training")
    return variation_rows(log, one.name, seed, PARTS if tier != "smoke" else 1)


def variation_rows(log: Sequence[dict], arm: str, seed: int = 0, parts: int = PARTS) -> list[dict]:
    """Rows {item, arm, seed, variation, grad_norm}: of each of `parts` equal stretches of the last half of a log the standard deviation of
    the gradient's norm over its mean, so that a slow fall with the rate counts for nothing (NaN of a stretch of one row). The item is the
    stretch, as every arm's.

    Args:
        log: rows {step, grad_norm} of `training.log.read_log`, each a mean over the steps since the row before.

    Raises:
        MotionLabError: a stretch without rows.
    """
    norms = [row["grad_norm"] for row in log]
    late = norms[len(norms) // 2:]
    if len(late) < parts:
        raise MotionLabError(f"The log of arm '{arm}' has {len(late)} rows in its last half, for {parts} stretches.",
                             fix="Train for longer, or log more often.")
    return [{"item": f"stretch {k + 1}", "arm": arm, "seed": seed, "grad_norm": float(np.mean(part)),
             "variation": float(np.std(part) / np.mean(part)) if len(part) > 1 else float("nan")}
            for k, part in enumerate(np.array_split(late, parts))]
