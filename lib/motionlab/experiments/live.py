"""A method on a small scale, to be watched in a notebook: attach, train for a few minutes, look."""
from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from motionlab.analyses.inputs import item_seed
from motionlab.core.errors import MotionLabError
from motionlab.core.noise import prompt_seeds, stream_seeds
from motionlab.data.prompts import load_prompts
from motionlab.data.sidecars import encoded
from motionlab.data.sources import Listed, World
from motionlab.data.store import Data, open_data
from motionlab.diffusion import interpolate
from motionlab.experiments.arms import Budget
from motionlab.experiments.finetune import bank_home, training_config, tuning_bank
from motionlab.methods.base import Method, Sampling
from motionlab.methods.files import load_method, save_method
from motionlab.models.pipe import Pipe
from motionlab.training import TrainConfig, train
from motionlab.training.trained import load_trained


def attached(method: Method, base: Pipe) -> Pipe:
    """A generator that begins as `base`, which stays as it is, with the method on it."""
    pipe = copy.deepcopy(base)
    method.attach(pipe)
    pipe.name = method.name
    return pipe.eval()


@torch.no_grad()
def noop_rows(method: Method, base: Pipe, clips: dict) -> Iterator[dict]:
    """Rows {item, arm, seed, changed, parameters_added}: share of the video's output values that attaching the method changes, for
    random state and random sidecars."""
    pipe = attached(method, base)
    added = sum(p.numel() for p in pipe.parameters()) - sum(p.numel() for p in base.parameters())
    for item, clip in clips.items():
        generator = torch.Generator().manual_seed(item_seed(item))
        x1 = base.encode([clip])
        x_t, other = (torch.randn(x1.shape, generator=generator) for _ in range(2))
        t, text = torch.rand(1, generator=generator), base.text([clip.caption])
        u = method.video(method.forward(pipe, x_t, 10 * other, t, text))
        changed = float((u != base(x_t, t, text)).float().mean())
        yield {"item": item, "arm": "start", "seed": 0, "changed": changed, "parameters_added": added}


def train_live(method: Method, base: Pipe, folder: Path, clip_steps: int, lr: float, seed: int = 0,
               snapshots: int = 3) -> tuple[Pipe, dict[int, Pipe]]:
    """Train the method on `base` with clips of the fine-tuning split, each seen once; a run that was stopped goes on.

    Returns:
        the trained generator (averaged weights) and {clips seen: generator} on the way, the start included.
    """
    config = training_config(Budget(lr=lr, clip_steps=clip_steps), seed, folder)
    data = open_data(World(tuning_bank(clip_steps, base.frames)), base, method.wants(), bank_home())
    return watch(method, base, data, config, snapshots)


def watch(method: Method, base: Pipe, data: Data, config: TrainConfig, snapshots: int = 3) -> tuple[Pipe, dict[int, Pipe]]:
    """Train the method on `base`, which stays as it is, and keep what it was on the way; a run that was stopped goes on.

    Args:
        snapshots: how many on the way, evenly spaced.

    Returns:
        as `train_live`.
    """
    config = dataclasses.replace(config, sample_every=max(1, config.steps // snapshots), log_every=10)
    kept = Path(config.out_dir) / "snapshots"

    def keep(model, step):
        save_method(method, model, kept / f"{step * config.batch_size:06d}.safetensors")
        return {}

    pipe = attached(method, base)
    result = train(pipe, method.loss(pipe), data, config, on_sample=keep)
    load_trained(pipe, result.ema_state()).eval()
    on_the_way = {int(path.stem): load_method(method, copy.deepcopy(base), path) for path in sorted(kept.glob("*.safetensors"))}
    return pipe, {0: attached(method, base)} | on_the_way


def losses_by_t(method: Method, pipe: Pipe, clips: dict, times: Sequence[float], batch: int = 16) -> Iterator[dict]:
    """Rows {item, arm, seed, t, loss, ...} of clips {item: Clip} that no training saw; columns as of `Method.losses`.

    Raises:
        MotionLabError: a time outside [0, 1].
    """
    beyond = [t for t in times if not 0 <= t <= 1]
    if beyond:
        raise MotionLabError(f"t = {beyond[0]:g} is no time of the path.", fix="Give times from 0 (noise) to 1 (clean).")
    items = list(clips)
    for part in (items[k:k + batch] for k in range(0, len(items), batch)):
        data = encoded(Listed([clips[k] for k in part]), method.wants(), pipe)
        noise = {key: pipe.noise(stream_seeds([item_seed(k) for k in part], n), z) for n, (key, z) in enumerate(data.items())}
        text = pipe.text([clips[k].caption for k in part])
        for t in times:
            at = torch.full((len(part),), float(t))
            found = method.losses(pipe, interpolate(noise["x1"], data["x1"], at), at, text, data, noise)
            for i, item in enumerate(part):
                yield {"item": item, "arm": pipe.name, "seed": 0, "t": float(t)} | {name: float(v[i]) for name, v in found.items()}


def by_loss(table, names: dict[str, str]):
    """Rows of `losses_by_t` as long DataFrame {item, arm, t, half, value}; names: column -> what it is the loss of."""
    long = table.melt(id_vars=["item", "arm", "seed", "t"], value_vars=list(names), var_name="half")
    return long.assign(half=long["half"].map(names))


def generated_streams(method: Method, pipe: Pipe, n: int, options: Sampling, prompts: str = "examples") -> dict[str, np.ndarray]:
    """{caption: frames} of generated clips, each followed by whatever else the method generates with it."""
    said = load_prompts(prompts, n)
    states = method.sample(pipe, [p.text for p in said], prompt_seeds([p.noise for p in said], 0), options)
    streams, out = {name: pipe.decode(z) for name, z in method.streams(states).items()}, {}
    for k, p in enumerate(said):
        for name, frames in streams.items():
            caption = p.text.replace(" to the ", "\nto the ").replace(", ", ",\n")
            out[caption if name == "video" else f"its {name} {k + 1}"] = frames[k]
    return out
