"""What of a transition is measured without sampling: velocities of both branches, alignment, what LoRAs of the ends do. A row per pair.

Each is called with (arm, pipe, pairs, seed, data, config): data() gives the arm's training clips, config is that of its training.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.noise import prompt_noise, prompt_seeds
from motionlab.data.sidecars import Sidecar
from motionlab.data.transitions import Ends
from motionlab.diffusion import interpolate, velocity
from motionlab.experiments.arms import Arm
from motionlab.models.pipe import Pipe
from motionlab.video import as_video

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
BATCH = 16


def about(arm: Arm, pair: Ends, seed: int) -> dict:
    """What every row begins with."""
    return {"item": pair.id, "arm": arm.name, "seed": seed, "task": pair.task, "half": pair.half,
            "species": pair.first.actors[0].species}


def prediction_rows(arm: Arm, pipe: Pipe, pairs: Sequence[Ends], seed: int, data, config) -> list[dict]:
    """Squared velocity error of the true clips at five times: forward, backward, fused (the mean of both), each with both ends seen and,
    `_one`, with its own alone; apart, the squared distance of the backward from the forward one. `<name>_t0.10` by time, `<name>_f0` by
    frame, means over the rest; loss is backward's, what a training of it is chosen by.

    Noise follows from pair and time, so it is every arm's.

    Raises:
        MotionLabError: a method without a second branch, pairs without a true clip.
    """
    if not hasattr(arm.method, "branch_velocities"):
        raise MotionLabError(f"Method {arm.method.name} has no second branch to tell of.", fix="Measure clips, or use a method with two.")
    rows = []
    for k in range(0, len(pairs), BATCH):
        part = pairs[k:k + BATCH]
        x1, text = _true_latents(pipe, part), pipe.text([pair.text_first for pair in part])
        squares = [_squares(arm, pipe, part, x1, text, t, number) for number, t in enumerate(TIMES)]
        rows += [about(arm, pair, seed) | _means({name: torch.stack([one[name][i] for one in squares]) for name in squares[0]})
                 for i, pair in enumerate(part)]
    return rows


def _true_latents(pipe, pairs):
    true = [pair.truth(frames=pipe.frames) for pair in pairs]
    if any(clip is None for clip in true):
        raise MotionLabError(f"{pairs[0].id} has no true clip to predict.", fix="Use sets of between or change.")
    return pipe.encode_video(as_video(np.stack(true)))


def _squares(arm, pipe, pairs, x1, text, t, number):
    """{name: (b, f)} at one time, means over a frame's latent."""
    x0 = prompt_noise(prompt_seeds([pair.noise for pair in pairs], number), x1.shape[1:]).to(x1)
    said = arm.method.branch_velocities(pipe, interpolate(x0, x1, t), torch.full((len(x1),), t, device=x1.device), text, x1)
    said |= {f"fused{ending}": (said[f"forward{ending}"] + said[f"backward{ending}"]) / 2 for ending in ("", "_one")}
    v = velocity(x0, x1)
    found = {name: (u - v).square().flatten(2).mean(2) for name, u in said.items()}
    return found | {"apart": (said["backward"] - said["forward"]).square().flatten(2).mean(2)}


def _means(by_time):
    """Columns of {name: (times, f)} of one clip."""
    out = {"loss": float(by_time["backward"].mean())}
    for name, values in by_time.items():
        out[name] = float(values.mean())
        out |= {f"{name}_t{t:.2f}": float(value) for t, value in zip(TIMES, values.mean(1))}
        out |= {f"{name}_f{f}": float(value) for f, value in enumerate(values.mean(0))}
    return out


def alignment_rows(arm: Arm, pipe: Pipe, pairs: Sequence[Ends], seed: int, data, config) -> list[dict]:
    """alignment, the cosine of an image encoder's features with those of the backward branch through a head that is fitted afterwards, the
    same way for every arm: at rest, on the training's own clips, for at most 200 steps.

    Raises:
        MotionLabError: a method that has no such features, pairs without a true clip.
    """
    if not hasattr(arm.method, "alignment_of"):
        raise MotionLabError(f"Method {arm.method.name} has no features to align.", fix="Use a method with a second branch.")
    config, rows = dataclasses.replace(config, steps=min(config.steps, 200)), []
    cosine = arm.method.alignment_of(pipe, data(sidecars=(Sidecar("stills"), Sidecar("pictures"))), config, Path(config.out_dir))
    for k in range(0, len(pairs), BATCH):
        part = pairs[k:k + BATCH]
        pictures = as_video(np.stack([pair.truth(frames=pipe.frames) for pair in part]))
        text = pipe.text([pair.text_first for pair in part])
        found = cosine({"x1": _true_latents(pipe, part), "pictures": pictures.to(pipe.device), "text": text})
        rows += [about(arm, pair, seed) | {"alignment": float(value)} for pair, value in zip(part, found)]
    return rows


def end_rows(arm: Arm, pipe: Pipe, pairs: Sequence[Ends], seed: int, data, config) -> list[dict]:
    """end_loss, of both pictures as one-frame clips, end_loss_lora, with each one's own LoRA, and lora_gain, the share that it takes away.

    Raises:
        MotionLabError: a method that fits no LoRAs of ends, or an arm that gives them no rank.
    """
    if not hasattr(arm.method, "end_losses") or not arm.sampling.lora:
        raise MotionLabError(f"Arm '{arm.name}' fits no LoRAs of its ends.", fix="Use method between with sample: {lora: 4}.")
    rows = []
    for k in range(0, len(pairs), BATCH):
        part = pairs[k:k + BATCH]
        pictures = torch.cat([as_video(np.stack([pair.pictures()[side] for pair in part])) for side in (0, 1)])
        texts = [pair.text_first for pair in part] + [pair.text_last for pair in part]
        base, own = (losses.unflatten(0, (2, -1)).mean(0) for losses in arm.method.end_losses(pipe, pictures, texts, arm.sampling))
        rows += [about(arm, pair, seed) | {"end_loss": float(a), "end_loss_lora": float(b), "lora_gain": float(1 - b / a)}
                 for pair, a, b in zip(part, base, own)]
    return rows


def long_form(table, names: Sequence[str] = ("forward", "backward", "fused"), by: str = "t"):
    """Rows {item, arm, half, predicted, t or frame, error} of a table of `prediction_rows`, for drawing: a curve per name.

    Args:
        names: of columns. by: "t", over times, or "frame".
    """
    import pandas as pd

    places = {f"t{t:.2f}": t for t in TIMES} if by == "t" else {f"f{f}": f for f in range(64)}
    parts = [table[["item", "arm", "half"]].assign(predicted=name, error=table[f"{name}_{ending}"], **{by: at})
             for name in names for ending, at in places.items() if f"{name}_{ending}" in table]
    return pd.concat(parts, ignore_index=True).dropna(subset=["error"])


TABLES = {"prediction": prediction_rows, "alignment": alignment_rows, "ends": end_rows}
