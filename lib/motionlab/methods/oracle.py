"""Exact motion given as input: what knowing the motion is worth at most on this ground. A positive control, no cure.

The network reads the true clip's motion latents undisturbed, beside the noisy video, through input rows that start at zero; its
loss is the plain one, on the video alone. Where this does not help, no way of *predicting* motion can.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.data.sidecars import TEACHERS, Sidecar
from motionlab.methods.base import Sampling
from motionlab.methods.plain import Plain, flow_matching_loss
from motionlab.models.pipe import Inputs, Pipe
from motionlab.models.widening import more_inputs

GIVEN = {"true": "exact", "other": "other", "none": ""}


@dataclass(frozen=True)
class OracleSampling(Sampling):
    """motion: "true", that of the prompt's own clip; "other", of another prompt's; "none". noise: deviation of white noise on its flow,
    pixels per frame."""

    motion: str = "true"
    noise: float = 0.0

    def __post_init__(self):
        one_of(self.motion, GIVEN, "motion that is given")
        if self.noise < 0:
            raise MotionLabError(f"noise of the motion that is given is {self.noise}.", fix="Give pixels per frame, 0 or more.")


@dataclass(frozen=True)
class Oracle(Plain):
    """motion_dropout: share of the clips that are shown without their motion; new_lr: how much faster the new rows learn; teacher: of
    the motion that is given. The rest as of `Plain`."""

    name: ClassVar[str] = "oracle"
    Sampling: ClassVar[type] = OracleSampling
    motion_dropout: float = 0.35
    new_lr: float = 5.0
    teacher: str = "exact"

    def __post_init__(self):
        one_of(self.teacher, TEACHERS, "motion teacher")
        if not 0 <= self.motion_dropout <= 1:
            raise MotionLabError(f"motion_dropout is {self.motion_dropout}.", fix="Give a probability, for example 0.35.")

    def wants(self) -> tuple[Sidecar, ...]:
        return (*super().wants(), Sidecar("motion", {"teacher": self.teacher}, key="d1"))

    def truth(self, options: OracleSampling) -> tuple[Sidecar, ...]:
        settings = {"teacher": GIVEN[options.motion]} | ({"noise": options.noise} if options.noise else {})
        return (Sidecar("motion", settings, key="d1"),) if GIVEN[options.motion] else ()

    def attach_to(self, network: nn.Module, channels: int) -> None:
        more_inputs(network, channels, self.new_lr)

    def loss(self, pipe: Pipe) -> Callable:
        return flow_matching_loss(self.recipe, pipe, self._shown)

    def _shown(self, batch, noise):
        keep = noise.rand() >= self.motion_dropout
        return batch["d1"] * keep[:, None, None, None, None].to(batch["d1"])

    def model(self, pipe: Pipe, text: Inputs, known: Inputs, options: OracleSampling,
              given: dict[str, torch.Tensor] | None = None) -> Callable:
        """Usual text guidance, both halves beside the motion that is given."""
        shown = (given or {}).get("d1")
        w = pipe.w if options.w < 0 else options.w
        if shown is None:
            n = len(next(iter(text.values())))
            shown = torch.zeros(n, *pipe.shape, device=pipe.device)
        return pipe.guided(text, w, known, shown)
