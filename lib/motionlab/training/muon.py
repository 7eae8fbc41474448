"""Muon with all matrices of one shape orthogonalised together, in the precision that the machine is fast in."""
from __future__ import annotations

from collections import defaultdict

import torch

from motionlab.core.precision import fast_bf16


def orthogonalise(matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> torch.Tensor:
    """Newton-Schulz iteration on a stack (k, rows, columns): about U V^T of each one's singular value decomposition.

    Quintic with the given coefficients (Jordan et al., "Muon", 2024): singular values end near 1, between 0.7 and 1.2.
    """
    a, b, c = coefficients
    dtype = torch.bfloat16 if fast_bf16(matrices.device.type) else torch.float32
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT.to(dtype) if tall else matrices.to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`, which takes one matrix after the other and always in bfloat16, with a faster step.

    Same settings, same state (`momentum_buffer`), the same update up to rounding.
    """

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for shape, params in shapes.items():
                self._move(group, shape, params)
        return loss

    def _move(self, group, shape, params):
        ahead = []
        for p in params:
            momentum = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
            momentum.lerp_(p.grad, 1 - group["momentum"])
            ahead.append(p.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum)
        moves = orthogonalise(torch.stack(ahead), group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * _shape_factor(group["adjust_lr_fn"], *shape)
        for p, move in zip(params, moves):
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(move.to(p.dtype), alpha=-rate)


def _shape_factor(rule, rows, columns):
    """By which the rate of a matrix grows with its shape: as AdamW's steps are on average, or as Muon's authors had it."""
    return 0.2 * max(rows, columns) ** 0.5 if rule == "match_rms_adamw" else max(1.0, rows / columns) ** 0.5
