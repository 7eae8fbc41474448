"""LoRA with two spectral losses (Park et al. 2024, Spectral Motion Alignment), as leftovers in DeT's release have them.

Both compare the clean clip that the prediction points at, x1_hat = x_t + (1 - t) u, with the clip's latents x1, at every t (DeT card,
section 6.6). Local: D_f = |x_{f+1} - x_f| per channel, F its two-dimensional FFT over space, not normalised,

    mean over f, c and frequencies of w (| |F| - |F_hat| | + | arg F - arg F_hat |),    w = R^(2 delta) - r^(2 delta) + 1

with r a frequency's distance from the zero one and R half the diagonal, delta = 0.05: low frequencies count most. Phases are compared
around the circle; the leftovers subtract them, so that rounding decides between 0 and 2 pi where a coefficient is real.
Global: mean |W_l - W_l_hat| over each detail band W_l of a Haar wavelet over time, weight 0.1 each.

A clip of 5 latent frames has three levels only where odd lengths are filled up, 5 + 1 -> 3 + 1 -> 2 -> 1. They are filled with their
own last frame, whose details are zero; DeT's leftovers fill with zeros, which compares the last frame's looks. Shorter clips have as
many levels as there are, a single frame none, and neither loss.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.methods.plain import Plain, Prediction, flow_matching_loss
from motionlab.models.adapters import add_lora, diffusers_name
from motionlab.models.pipe import Pipe

LEVELS, DELTA = 3, 0.05


@dataclass(frozen=True)
class SMA(Plain):
    """rank, targets: of the LoRA, as of method lora. local: weight of the local loss, which DeT's leftovers do not say (SMA's own
    settings have 0.2 and 0.53); band: weight of each wavelet band.

    Raises:
        MotionLabError: a negative weight.
    """

    name: ClassVar[str] = "sma"
    tunes_base: ClassVar[bool] = False
    rank: int = 0
    targets: str = "to_k, to_v"
    local: float = 0.1
    band: float = 0.1

    def __post_init__(self):
        for name in ("local", "band"):
            if not getattr(self, name) >= 0:
                raise MotionLabError(f"{name} is {getattr(self, name)}.", fix="Give a weight of 0 or more, for example 0.1.")

    def attach_to(self, network: nn.Module, channels: int) -> None:
        """Raises MotionLabError where no linear layer of the network has one of the names."""
        add_lora(network, self.targets, self.rank)

    def loss(self, pipe: Pipe) -> Callable:
        return flow_matching_loss(self.recipe, pipe, more=self._spectral)

    def _spectral(self, said: Prediction, batch, noise) -> torch.Tensor:
        return self.local * local_loss(said.x1_hat, said.x1) + self.band * global_loss(said.x1_hat, said.x1)

    def stored_name(self, pipe: Pipe, name: str) -> str:
        """As diffusers' `load_lora_weights` reads them."""
        return diffusers_name(pipe, name)


# ---------------------------------------------------------------------------------------------- the losses
def local_loss(x1_hat: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
    """L1 on magnitude and phase of the spectra of absolute frame differences, (b,), of latents (b, f, c, h, w)."""
    if x1.shape[1] < 2:
        return x1_hat.new_zeros(len(x1))
    ours, theirs = (torch.fft.fft2(x.float().diff(dim=1).abs()) for x in (x1_hat, x1))
    gap = (ours.abs() - theirs.abs()).abs() + (ours * theirs.conj()).angle().abs()
    return (low_frequency_weights(*x1.shape[-2:]).to(gap) * gap).flatten(1).mean(1)


def low_frequency_weights(height: int, width: int, delta: float = DELTA) -> torch.Tensor:
    """w (height, width) in the order of `fft2`: 1 + R^(2 delta) at frequency zero, 1 at the highest."""
    rows, columns = (torch.fft.fftfreq(n, 1 / n) for n in (height, width))
    squared = rows[:, None] ** 2 + columns[None] ** 2
    return ((height / 2) ** 2 + (width / 2) ** 2) ** delta - squared ** delta + 1


def global_loss(x1_hat: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
    """Sum over detail bands of the mean absolute difference, (b,), of latents (b, f, c, h, w)."""
    bands = zip(haar_details(x1_hat.float()), haar_details(x1.float()))
    return sum(((ours - theirs).abs().flatten(1).mean(1) for ours, theirs in bands), x1_hat.new_zeros(len(x1)))


def haar_details(x: torch.Tensor, levels: int = LEVELS) -> list[torch.Tensor]:
    """Detail bands of x (b, f, ...) over its frames, finest first: at most `levels`, as many as there are."""
    bands = []
    while x.shape[1] > 1 and len(bands) < levels:
        if x.shape[1] % 2:
            x = torch.cat([x, x[:, -1:]], 1)
        even, odd = x[:, ::2], x[:, 1::2]
        bands.append((even - odd) / 2 ** 0.5)
        x = (even + odd) / 2 ** 0.5
    return bands
