"""Supervision by masks alone: a light head on a block tells the subject's mask in each latent frame (card sam2videox, 6.4)."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.data.seen import TRACKERS
from motionlab.data.sidecars import Sidecar
from motionlab.methods.tapped import Tapped


class MaskHead(nn.Module):
    """(b, f, h, w, d) -> logits (b, f, h, w): a pointwise layer, a convolution over 3 x 3 places, and one number per place."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.first, self.near, self.last = nn.Linear(width, inner), nn.Conv2d(inner, inner, 3, padding=1), nn.Conv2d(inner, 1, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.first(hidden)).flatten(0, 1).movedim(-1, 1)
        return self.last(F.silu(self.near(x))).unflatten(0, hidden.shape[:2])[:, :, 0]


@dataclass(frozen=True)
class MaskSupervised(Tapped):
    """teacher: whose masks: a tracker of `data.seen`, or "exact"; checkpoint, boxes, detector: its files. inner: channels of the head. The
    rest as of `Tapped`."""

    name: ClassVar[str] = "mask"
    teacher: str = "sam2"
    checkpoint: str = ""
    boxes: str = ""
    detector: str = ""
    inner: int = 64

    def __post_init__(self):
        super().__post_init__()
        one_of(self.teacher, ("exact", *TRACKERS), "teacher of masks:")

    def targets_of(self) -> tuple[Sidecar, ...]:
        if self.teacher == "exact":
            return (Sidecar("mask", key="target"),)
        files = {"checkpoint": self.checkpoint, "boxes": self.boxes, "detector": self.detector}
        return (Sidecar("tracked", {"teacher": self.teacher} | {name: value for name, value in files.items() if value}, key="target"),)

    def target_maps(self, batch: Mapping[str, torch.Tensor], grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Raises MotionLabError: a mask does not say where a place goes."""
        raise MotionLabError("Masks do not say where a place goes.", fix="Measure what the block's features say, with a probe.")

    def make_head(self, width: int) -> nn.Module:
        return MaskHead(width, self.inner)

    def own_loss(self, head: nn.Module, hidden: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Binary cross-entropy and Dice of each clip (b,), against the subject's share of each place; 0 where the teacher lost it.

        Raises:
            MotionLabError: masks of another grid.
        """
        said, known = head(hidden).float(), batch["target"].isfinite()
        target = batch["target"].nan_to_num()
        if said.shape != target.shape:
            raise MotionLabError(f"The head tells {tuple(said.shape[1:])} masks, and the teacher's are {tuple(target.shape[1:])}.",
                                 fix="Masks are wanted at each latent frame, on the tokens' grid.")
        p = said.sigmoid()
        dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)
        cross = F.binary_cross_entropy_with_logits(said, target, reduction="none").mean((2, 3))
        return ((cross + dice) * known.all(-1).all(-1)).mean(1)
