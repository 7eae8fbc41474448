"""What a step of tuning costs: methods timed in turn on one clip, so that a slow moment of the machine strikes all of them."""
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch

from motionlab.core.noise import SampleNoise
from motionlab.core.precision import autocast
from motionlab.data.store import held_data
from motionlab.experiments.live import attached
from motionlab.experiments.transfer import Tuning, tuning_config
from motionlab.experiments.transfer_live import OneClip
from motionlab.methods.base import Method
from motionlab.models.pipe import Pipe
from motionlab.training.optim import make_optimizers

BYTES = 4                   # of a trained number: training keeps float32


def step_rows(methods: Mapping[str, Method], base: Pipe, one: OneClip, repeats: int = 20) -> Iterator[dict]:
    """Rows {item, arm, seed, step_seconds, trained_bytes} of training steps of batch 1, `repeats` of each arm, the item being the turn.

    One unmeasured turn comes first. All arms of a turn draw the same noise and time, so that a loss that acts at some times only acts
    in all of them or in none.
    """
    ready = {arm: _Ready(method, base, one) for arm, method in methods.items()}
    for turn in range(repeats + 1):
        for arm, arms in ready.items():
            seconds = arms.step(turn)
            if turn:
                yield {"item": str(turn), "arm": arm, "seed": 0, "step_seconds": seconds, "trained_bytes": arms.bytes}


class _Ready:
    """A method on its own copy of the generator, with its data and optimiser."""

    def __init__(self, method, base, one):
        self.pipe, config = attached(method, base).train(), tuning_config(Tuning(), 0, "unused")
        self.loss_fn, self.optimizers = method.loss(self.pipe), make_optimizers(self.pipe, config)
        self.trained = [p for p in self.pipe.parameters() if p.requires_grad]
        self.bytes = BYTES * sum(p.numel() for p in self.trained)
        self.batch = held_data(one.source, [one.caption], base, method.wants()).batch(torch.tensor([0]))
        self.clip = config.grad_clip

    def step(self, turn):
        """Seconds of one update, as `training.train` makes it."""
        began = time.perf_counter()
        self.pipe.zero_grad(set_to_none=True)
        with autocast("cpu"):
            loss, _ = self.loss_fn(self.pipe, self.batch, SampleNoise(0, turn, range(1)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.clip)
        for optimizer in self.optimizers.values():
            optimizer.step()
        return time.perf_counter() - began
