"""Between two pictures without a generator: a cross-fade, a hard cut, the first picture held, an arc between two latents.

What scores must put behind a true clip; nothing is trained, and texts, noise and guidance change nothing.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.methods.base import Method, Sampling
from motionlab.models.pipe import Pipe
from motionlab.papers.vtg import frame_slerp, frame_weights

KINDS = ("cross_fade", "cut", "frozen", "latent_slerp")


@dataclass(frozen=True)
class Fade(Sampling):
    """kind: cross_fade (of pixels), cut (in the middle), frozen (the first picture), latent_slerp (an arc between the ends' latents)."""

    kind: str = "cross_fade"

    def __post_init__(self):
        one_of(self.kind, KINDS, "fade")


@dataclass(frozen=True)
class Fades(Method):
    """Clips that no network makes, through the same autoencoder as those that one does."""

    name: ClassVar[str] = "fades"
    tunes_base: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    Sampling: ClassVar[type] = Fade

    def attach(self, pipe: Pipe) -> None:
        pipe.requires_grad_(False)

    @torch.no_grad()
    def sample(self, pipe: Pipe, prompts: Sequence[str], seeds: Sequence[int], options: Fade | None = None, *, first=None, last=None,
               given=None, callback: Callable | None = None, batch: int = 16, prompts_last=None) -> torch.Tensor:
        """Latents (b, f, c, h, w) of pictures first and last (b, 3, h, w) in [-1, 1].

        Raises:
            MotionLabError: a picture is missing, or the two are of different sizes.
        """
        if first is None or last is None or first.shape != last.shape:
            raise MotionLabError("A fade needs a first and a last picture of one size.",
                                 fix="Give first= and last=, (b, 3, h, w) in [-1, 1].")
        kind, f = (options or Fade()).kind, pipe.shape[0]
        if kind == "latent_slerp":
            z = pipe.encode_video(torch.cat([first, last])[:, None])[:, 0]
            return frame_slerp(*z.chunk(2), frame_weights(f)).cpu()
        return torch.cat([pipe.encode_video(faded(a, b, pipe.frames, kind)).cpu() for a, b in zip(first.split(batch), last.split(batch))])


def faded(first: torch.Tensor, last: torch.Tensor, frames: int, kind: str) -> torch.Tensor:
    """Video (b, frames, 3, h, w) from one picture (b, 3, h, w) to another."""
    share = torch.linspace(0, 1, frames, device=first.device)
    share = {"cross_fade": share, "cut": (share >= 0.5).float(), "frozen": torch.zeros_like(share)}[kind].view(1, -1, 1, 1, 1)
    return (1 - share) * first[:, None] + share * last[:, None]
