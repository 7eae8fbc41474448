"""Representation alignment (card section 4): a self-supervised encoder's patch features, from the denoiser's own."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError


class Projector(nn.Module):
    """y_phi: three linear layers with SiLU between (as REPA's; the paper says MLP). (..., c) -> (..., D); thrown away after training."""

    def __init__(self, width: int, target: int, hidden: int = 0, seed: int = 0):
        super().__init__()
        hidden = hidden or 2 * target
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
                                        nn.Linear(hidden, target))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.layers(h)


def rar_loss(projected: torch.Tensor, target: torch.Tensor, frames: str = "mean") -> torch.Tensor:
    """L_RAR (b,) = - sum_n (1/P) sum_p cos(y*_n[p], yhat_n[p]) of features (b, f, P, D); the target gets no gradient.

    Args:
        projected: of the backward branch, whose frames run backwards: hand in the target reversed (`motion.reverse`, card 4).
        frames: "sum", the formula; "mean" over them, which keeps REPA's weight of 0.5 (card 4).

    Raises:
        MotionLabError: shapes that differ.
    """
    if projected.shape != target.shape or projected.dim() != 4 or frames not in ("mean", "sum"):
        raise MotionLabError(f"Features {tuple(projected.shape)} were to be aligned with {tuple(target.shape)}, frames by '{frames}'.",
                             fix="Give both (b, f, patches, D) on one grid, and mean or sum.")
    cosine = F.cosine_similarity(projected.float(), target.detach().float(), dim=-1).mean(-1)
    return -(cosine.mean(1) if frames == "mean" else cosine.sum(1))


def weight_of_share(main: torch.Tensor, other: torch.Tensor, share: float = 0.2) -> float:
    """The weight w at which the second loss's gradient is `share` of the first one's length: w |g'| = share |g|.

    Args:
        main, other: gradients of the two losses, unweighted, with respect to the features that are aligned.

    Raises:
        MotionLabError: a negative share; a second loss without gradient.
    """
    if share < 0 or not float(other.norm()) > 0:
        raise MotionLabError(f"A share of {share} was asked of a loss whose gradient has length {float(other.norm()):g}.",
                             fix="Give a share of 0 or more, and a loss that reaches the features.")
    return share * float(main.norm()) / float(other.norm())
