"""How well a distribution over a window says where each place of a clip went, against exact transport (card sam2videox, 4.4 and 7.2).

The truth of a cell is the arg-max of its exact transport. Hits are counted on cells that move alone: over all cells "always (0, 0)" wins,
and how often it is right where nothing moves is a column of its own.
"""
from __future__ import annotations

import math

import torch

from motionlab.core.errors import MotionLabError

COLUMNS = ("hit", "still_kept", "kl", "entropy", "border")


def correspondence(p: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> dict[str, torch.Tensor]:
    """Per clip (b,), NaN where no place counts:

    hit         share of the cells that move (the truth's arg-max is another cell) whose arg-max is the truth's
    still_kept  share of the cells that do not move whose arg-max is their own place
    kl          KL(truth || p), nats, mean over the cells
    entropy     of p, as a share of the largest that a cell's window allows
    border      share of the cells whose arg-max lies on the window's border: with many, the window is too small
    hit_1, ...  `hit` of single pairs of frames

    Args:
        p, truth: (b, t - 1, h, w, n) distributions over the window, 0 outside the frame. known: (b, t - 1, h, w) bool, cells that count.

    Raises:
        MotionLabError: shapes that differ, a window that is no odd square.
    """
    side = math.isqrt(p.shape[-1])
    if p.shape != truth.shape or known.shape != p.shape[:-1] or side ** 2 != p.shape[-1] or side % 2 == 0:
        raise MotionLabError(f"Distributions of {tuple(p.shape)}, truth of {tuple(truth.shape)} and places of {tuple(known.shape)} "
                             "do not fit.",
                             fix="Give (b, t - 1, h, w, n) twice and (b, t - 1, h, w), n the places of a window of odd side.")
    said, right = p.argmax(-1), truth.argmax(-1)
    here, same = p.shape[-1] // 2, said == right
    moving, resting = known & (right != here), known & (right == here)
    choices = (truth > 0).logical_or(p > 0).sum(-1).clamp(min=2)
    entropy = torch.special.entr(p).sum(-1) / choices.log()
    kl = (torch.xlogy(truth, truth) - truth * p.clamp(min=1e-12).log()).sum(-1)
    row, column = said // side, said % side
    edge = (row == 0) | (row == side - 1) | (column == 0) | (column == side - 1)
    out = {"hit": _share(same, moving), "still_kept": _share(said == here, resting), "kl": _share(kl, known),
           "entropy": _share(entropy, known), "border": _share(edge, known)}
    return out | {f"hit_{k + 1}": _share(same[:, k], moving[:, k]) for k in range(p.shape[1])}


def errors_shared(student: torch.Tensor, teacher: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> dict[str, torch.Tensor]:
    """Where a teacher's arg-max is wrong: how often the student's is the same wrong one, "repeated", and how often right, "corrected".

    Arguments as of `correspondence`; (b,) each, NaN where the teacher is never wrong.
    """
    said, taught, right = student.argmax(-1), teacher.argmax(-1), truth.argmax(-1)
    wrong = known & (taught != right)
    return {"repeated": _share(said == taught, wrong), "corrected": _share(said == right, wrong), "wrong": _share(wrong, known)}


def motion_of(clip, order: list[int], cell: int) -> dict[str, float]:
    """What a world clip's subject does between frames `order`: speed, median displacement of its pixels in cells a step; hidden, the share
    of its pixels that are not seen in the next frame; motion, its name."""
    subject, flow = clip.object_mask(0)[order[:-1]], clip.flow_between(order)
    moved = torch.from_numpy(flow).square().sum(1).sqrt()[torch.from_numpy(subject)]
    seen = clip.visible_between(order)[subject]
    return {"speed": float(moved.median()) / cell if len(moved) else math.nan, "hidden": float(1 - seen.mean()) if len(seen) else math.nan,
            "motion": clip.scene.actors[0].motion}


def _share(values, where):
    """Mean of values over `where`, clip by clip."""
    n = where.flatten(1).sum(1)
    return torch.where(where, values.double(), 0.0).flatten(1).sum(1) / torch.where(n > 0, n, torch.nan)
