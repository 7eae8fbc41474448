"""When is what decided? Noise a real clip to time t, resume sampling, and see what of it survives (VideoJAM App. B, Fig. 8).

The paper shows three pictures. Here everything that the instruments read gets a curve over t. To tell "kept from the clip"
from "asked for by the prompt", the clip is resumed twice: under its own caption (what no caption says: pose, phase, place of
the subject) and under another clip's caption (does motion, heading or colour follow the clip or the new prompt?).
"""
from __future__ import annotations

from collections.abc import Callable

import torch

from motionlab.diffusion import SAMPLERS, interpolate, time_grid
from motionlab.errors import MotionLabError, one_of


def resumed(model: Callable, x1: torch.Tensor, x0: torch.Tensor, t: float, steps: int = 20, shift: float = 2.0, solver: str = "euler") -> torch.Tensor:
    """Clips sampled from x_t = t x1 + (1 - t) x0 on; t = 0 is ordinary sampling, t = 1 gives x1 back.

    Args:
        model: (x, t) -> u. x1: latents of real clips (b, f, c, h, w). x0: noise of the same shape.
        steps, shift: of the whole grid (protocol: 20 Euler steps, shift 2); what lies above t of it is walked.

    Raises:
        MotionLabError: t outside [0, 1], an unknown solver.
    """
    if not 0 <= t <= 1:
        raise MotionLabError(f"A clip cannot be noised to t = {t}.", fix="t is 0 (noise) to 1 (the clip).")
    one_of(solver, SAMPLERS, "solver")
    x = interpolate(x0, x1, t)
    if t == 1:
        return x
    return SAMPLERS[solver](model, x, grid_from(t, steps, shift))


def grid_from(t: float, steps: int, shift: float = 2.0) -> torch.Tensor:
    """The sampler's grid from t on: t itself and the grid's points above it."""
    grid = time_grid(steps, shift)
    return torch.cat([torch.tensor([t], dtype=grid.dtype), grid[grid > t + 1e-9]])
