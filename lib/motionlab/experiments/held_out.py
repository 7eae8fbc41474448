"""Held-out loss of trained arms, clip by clip: what two trainings differ in before samples can tell."""
from __future__ import annotations

from pathlib import Path

import torch

from motionlab.core.noise import prompt_noise, prompt_seeds, stream_seeds
from motionlab.data.prompts import load_prompts
from motionlab.data.sidecars import Sidecar, encoded
from motionlab.data.sources import Listed
from motionlab.diffusion import interpolate
from motionlab.experiments.arms import Arm
from motionlab.experiments.finetune import trained

TIMES = tuple(round(0.05 + 0.1 * k, 2) for k in range(10))


def held_out_rows(arm: Arm, seed: int, home: Path, batch: int = 16) -> list[dict]:
    """Rows {item, arm, seed, loss, loss_0.05, ...}: what `Method.losses` gives on the true clips of the arm's prompts, at ten times; of
    most methods "loss_subject" too, on the cells that show the subject.

    Columns without a time are means over the times. Noise follows from prompt and time, so it is every arm's and every seed's.
    """
    prompts, pipe, out = load_prompts(arm.measure.prompts, arm.measure.n or None), trained(arm, seed, home), []
    pipe.frames = 4 * arm.measure.length - 3
    for first in range(0, len(prompts), batch):
        part = prompts[first:first + batch]
        clips = encoded(Listed([p.clip(frames=pipe.frames) for p in part]), (*arm.method.judging(), Sidecar("mask")), pipe)
        text, found = pipe.text([p.text for p in part]), {}
        for k, t in enumerate(TIMES):
            seeds, shape = prompt_seeds([p.noise for p in part], k), clips["x1"].shape[1:]
            noise = {key: prompt_noise(stream_seeds(seeds, stream), shape) for stream, key in enumerate(clips)}
            x_t, times = interpolate(noise["x1"], clips["x1"], t), torch.full((len(part),), t)
            found[t] = arm.method.losses(pipe, x_t, times, text, clips, noise)
        for i, prompt in enumerate(part):
            by_time = {f"{name}_{t:.2f}": float(values[i]) for t, said in found.items() for name, values in said.items()}
            means = {name: sum(float(said[name][i]) for said in found.values()) / len(TIMES) for name in found[TIMES[0]]}
            out.append({"item": prompt.id, "arm": arm.name, "seed": seed} | means | by_time)
    return out

