"""Bidirectional motion prediction (card section 3): reversal, the rotated map, L_BMP, fusion."""
from __future__ import annotations

import torch

from motionlab.core.errors import MotionLabError, one_of

FUSIONS = ("constant", "by_frame")


def reverse(x: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """J: (J x)_n = x_{N+1-n} along the frames; J J x = x. Codecs that group frames in time are flipped in latents (card 8.4)."""
    return x.flip(dim)


def rotated(a: torch.Tensor) -> torch.Tensor:
    """A'_{i,j} = A_{N+1-i, N+1-j}: the map (..., N, N) turned by 180 degrees. Rows still sum to 1, and A' V = J (A (J V)).

    So nothing need be stored: queries and keys with their frames reversed, J Q and J K, give it (card 3.2; `models.exchange`).
    """
    return a.flip(-2, -1)


def bmp_loss(u: torch.Tensor, v: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
    """L_BMP (b,) = mean |J v - u|^2 of the backward branch's velocity u at J x_t (card 3.4, in velocities: O8's default).

    Args:
        u, v: (b, f, c, h, w); v of the clip as it is, x1 - x0.
        t: given, the loss is the noise's instead, t^2 as large: the literal form, which forgets the noisiest times.
    """
    loss = (u - reverse(v)).square().flatten(1).mean(1)
    return loss if t is None else t.square() * loss


def fusion_weights(f: int, lam: float = 0.5, how: str = "constant") -> torch.Tensor:
    """Share of the backward branch in every frame, (f,): lam, the paper's 0.5; "by_frame" rises from 0 to 1 (O10, as Generative
    Inbetweening's option), so that each end is its own branch's.

    Raises:
        MotionLabError: an unknown way, lam outside [0, 1].
    """
    one_of(how, FUSIONS, "fusion")
    if not 0 <= lam <= 1:
        raise MotionLabError(f"lam_BMP is {lam}.", fix="Give 0 (forward alone) to 1 (backward alone), for example 0.5.")
    return torch.full((f,), float(lam)) if how == "constant" else torch.linspace(0, 1, f)


def fuse(forward: torch.Tensor, backward: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """u_n = (1 - lam_n) u_n + lam_n (J u')_n of both branches (b, f, c, h, w), the backward one in its own order; weights (f,).

    Velocity, noise and data are fused alike, since both branches stand at one x_t (card 3.5).
    """
    share = weights.to(forward).view(1, -1, 1, 1, 1)
    return (1 - share) * forward + share * reverse(backward)
