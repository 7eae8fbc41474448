"""What is settled before a method with a head is trained, by one rule for all of them, so that no arm wins by its scale:

a. what it chooses on dev clips, such as a teacher's temperature (`Tapped.chosen`);
b. its head is fitted alone, `head_steps` steps with everything else frozen, so that a head's noise never reaches the network;
c. its weight makes the gradient of its own loss at the tapped block `share` of the plain loss's, over `BATCHES` batches of dev clips, and
   stays. Rate and optimiser are those of plain training.

What was found is written beside the training, and taken from there when it is gone on with.
"""
from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import read_json, write_atomic
from motionlab.core.noise import SampleNoise
from motionlab.core.precision import autocast
from motionlab.data.correlations import token_grid
from motionlab.data.store import Data
from motionlab.methods.base import Method
from motionlab.methods.tapped import MEASURED, Tapped
from motionlab.models.heads import heads_alone
from motionlab.models.pipe import Pipe
from motionlab.training import TrainConfig, train

BATCHES = 64
LITERAL = 0.5            # the weight that the sources name
CHOICE = 512             # clips at most that a choice looks at


def settled(method: Method, pipe: Pipe, data: Data, config: TrainConfig, folder: Path,
            dev: Callable[[tuple], Data] | None = None) -> Method:
    """The method as it is trained: `pipe` has its head, fitted; what was measured is in folder/settled.json. Others come back as they are.

    Args:
        pipe: the method is attached to it. data: of the training. config: of the training.
        dev: (sidecars) -> dev clips; None: there are none, and the training's own stand for them.

    Raises:
        MotionLabError: a head whose loss gives no gradient at the block.
    """
    if not isinstance(method, Tapped):
        return method.settled(pipe, data, config, folder, dev)
    if not method.weight:
        return method
    path, judging = folder / "settled.json", data if dev is None else dev((*method.wants(), *method.judged()))
    before = read_json(path)
    if before is None:
        method = method.chosen(_first(judging, method), token_grid(pipe))
    else:
        method = dataclasses.replace(method, **before["settings"])
    fit_head(method, pipe, data, config, folder / "head")
    if before is not None:
        return method
    found: dict[str, Any] = {}
    if method.weight == MEASURED:
        found = measured_weight(method, pipe, judging, config)
        method = dataclasses.replace(method, weight=found["weight"])
    chosen = {name: getattr(method, name) for name in ("weight", "tau") if hasattr(method, name)}
    write_atomic(path, json.dumps({"settings": chosen} | found, indent=1))
    return method


def fit_head(method: Tapped, pipe: Pipe, data: Data, config: TrainConfig, folder: Path) -> None:
    """The head alone, in place: never for longer than the training itself, at its constant rate; gone on with where it was stopped."""
    steps = min(method.head_steps, config.steps)
    if not steps:
        return
    alone = dataclasses.replace(config, steps=steps, schedule="constant", decay=0, gradient_checkpointing=False, sample_every=0,
                                optimizer="adamw", out_dir=str(folder))
    with heads_alone(pipe):
        train(pipe, method.head_loss(pipe), data, alone)


def measured_weight(method: Tapped, pipe: Pipe, data: Data, config: TrainConfig, batches: int = BATCHES) -> dict[str, float]:
    """{"weight": such that the own loss's gradient at the tapped block is `method.share` of the plain loss's, "literal": the share that a
    weight of `LITERAL` would have, "plain", "own": root mean square of both norms, "batches"}."""
    plain, own, pipe = [], [], pipe.train()
    for k in range(min(batches, max(1, config.steps))):
        b = min(config.batch_size, len(data))
        rows = torch.arange(k * b, (k + 1) * b) % len(data)
        batch, noise = _on(data.batch(rows), pipe.device), SampleNoise(config.seed, k, range(b), pipe.device)
        with autocast(pipe.device, config.bf16):
            parts = method.parts(pipe, batch, noise)
        for losses, norms in ((parts.plain, plain), (parts.own, own)):
            gradient, = torch.autograd.grad(losses.mean(), parts.hidden, retain_graph=True)
            norms.append(float(gradient.float().square().sum()))
        del parts
    size, mine = math.sqrt(sum(plain) / len(plain)), math.sqrt(sum(own) / len(own))
    if not mine > 0 or not math.isfinite(size / mine):
        raise MotionLabError(f"The loss of {method.name} has gradients of norm {mine:.3g} at the tapped block, the plain one {size:.3g}.",
                             fix="Look at its targets: none of these clips may have one. Or set the weight yourself.")
    weight = method.share * size / mine
    return {"weight": weight, "literal": LITERAL * mine / size, "plain": size, "own": mine, "batches": len(plain)}


def _first(data, method):
    """The first clips in one batch, where something is chosen on them."""
    if not method.judged() or not all(one.key in data.arrays for one in method.judged()):
        return {}
    return data.batch(torch.arange(min(CHOICE, len(data))))


def _on(batch, device):
    return {key: {name: v.to(device) for name, v in value.items()} if isinstance(value, dict) else value.to(device)
            for key, value in batch.items()}
