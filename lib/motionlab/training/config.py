"""What decides a training run, and how its learning rate goes."""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionlab.core import config as configs
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import write_atomic


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run, flat.

    steps: updates in total. batch_size: samples per update, over all processes.
    lr: AdamW's learning rate. muon_lr: Muon's, used with optimizer 'muon' for the 2-D matrices of the blocks
    (parameters below a numbered module, embeddings excepted); with muon_adjust 'match_rms_adamw' both have one scale.
    weight_decay: on parameters of 2 or more dimensions. warmup: steps of linear growth, then schedule 'constant', or
    'cosine' down to 0 at `steps`, over the last `decay` steps (0: over all of them). grad_clip: largest gradient norm, 0 for
    none. ema: decay; in step n it is at most (1 + n) / (10 + n), so that the initial weights do not linger. bf16: autocast,
    where the machine is fast in it. gradient_checkpointing: the diffusers models in the model work out activations again in
    the backward pass.
    compile: torch.compile of the forward pass; a resumed run may then differ from an unbroken one by rounding.
    checkpoint_every, log_every, sample_every: steps, 0 for never (a last checkpoint is always written).
    find_unused_parameters: for several processes, when some step leaves a trainable parameter without gradient.
    threads: CPU threads of torch, 0 leaves them alone. cpu: stay off the GPU.

    Raises:
        MotionLabError: a value out of range.
    """

    steps: int = 1000
    batch_size: int = 16
    optimizer: str = "adamw"
    lr: float = 1e-3
    muon_lr: float = 2e-3
    muon_adjust: str = "match_rms_adamw"
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01
    warmup: int = 60
    schedule: str = "constant"
    decay: int = 0
    grad_clip: float = 1.0
    ema: float = 0.995
    bf16: bool = False
    gradient_checkpointing: bool = False
    compile: bool = False
    checkpoint_every: int = 500
    log_every: int = 20
    sample_every: int = 0
    seed: int = 0
    out_dir: str = "runs/train"
    threads: int = 0
    cpu: bool = False
    find_unused_parameters: bool = False

    def __post_init__(self):
        one_of(self.optimizer, ("adamw", "muon"), "optimizer")
        one_of(self.schedule, ("constant", "cosine"), "schedule")
        _require(not self.decay or self.schedule == "cosine", "decay", "0 with schedule 'constant'", self.decay)
        one_of(self.muon_adjust, ("match_rms_adamw", "original"), "muon_adjust")
        for name in ("steps", "batch_size", "lr", "muon_lr"):
            _require(0 < getattr(self, name) < math.inf, name, "more than 0 and finite", getattr(self, name))
        _require(0 <= self.weight_decay < math.inf, "weight_decay", "0 or more and finite", self.weight_decay)
        for name in ("warmup", "decay", "grad_clip", "checkpoint_every", "log_every", "sample_every", "seed", "threads"):
            _require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ("ema", "beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, name, "in [0, 1)", getattr(self, name))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """From plain values; errors as `config.from_values`."""
        return configs.from_values(cls, values, "training config")

    @classmethod
    def from_yaml(cls, path: str | Path) -> TrainConfig:
        """From a flat YAML file; errors as `config.from_yaml`."""
        return configs.from_yaml(cls, Path(path), "training config")

    def to_yaml(self, path: str | Path) -> None:
        """Write the YAML file that `from_yaml` reads."""
        write_atomic(path, configs.to_yaml(self))


def _require(holds: bool, name: str, rule: str, value: Any) -> None:
    if not holds:
        raise MotionLabError(f"TrainConfig.{name} must be {rule}, not {value}.", fix=f"Set another {name}.")


def lr_factor(config: TrainConfig, step: int) -> float:
    """Factor on the learning rate for the update that follows `step` finished ones."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    begins = max(config.warmup, config.steps - config.decay) if config.decay else config.warmup
    done = (step - begins) / max(1, config.steps - begins)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
