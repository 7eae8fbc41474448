"""REPA (Yu et al., arXiv 2410.06940) on video: a block's features, projected, are to resemble an image encoder's (card sam2videox, 6.4)."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.data.seen import TEACHERS
from motionlab.data.sidecars import Sidecar
from motionlab.methods.tapped import Tapped


@dataclass(frozen=True)
class REPA(Tapped):
    """teacher, checkpoint: of `data.seen`; features are averaged over each latent's frames. hidden: width of the projection's inner layers
    (2048 at d = 3072; 0: two thirds of the width); out: channels of the teacher. The rest as of `Tapped`."""

    name: ClassVar[str] = "repa"
    teacher: str = "image"
    checkpoint: str = ""
    hidden: int = 0
    out: int = 128

    def __post_init__(self):
        super().__post_init__()
        one_of(self.teacher, TEACHERS, "teacher of repa:")

    def targets_of(self) -> tuple[Sidecar, ...]:
        files = {"checkpoint": self.checkpoint} if self.checkpoint else {}
        return (Sidecar("features", {"teacher": self.teacher, "every": 1} | files, key="target"),)

    def make_head(self, width: int) -> nn.Module:
        inner = self.hidden or max(1, 2 * width // 3)
        return nn.Sequential(nn.Linear(width, inner), nn.SiLU(), nn.Linear(inner, inner), nn.SiLU(), nn.Linear(inner, self.out))

    def own_loss(self, head: nn.Module, hidden: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Minus the mean cosine of each clip (b,), over all tokens.

        Raises:
            MotionLabError: a teacher of other channels than `out`, or of another grid.
        """
        said, target = head(hidden).float(), batch["target"]
        if said.shape != target.shape:
            raise MotionLabError(f"The projection gives {tuple(said.shape[1:])}, and the teacher's features are {tuple(target.shape[1:])}.",
                                 fix=f"Set out={target.shape[-1]}; frames and grid must be the tokens'.")
        return -F.cosine_similarity(said, target, dim=-1).flatten(1).mean(1)
