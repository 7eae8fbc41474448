"""From a transformer's features to the teacher's space and grid (card 2.3): which order of steps can express motion, and which cannot.

Input is the video tokens' hidden state after the tapped block, F_diff (b, T, h, w, D), one frame per latent; output is what Local Gram
Flow compares. Widths follow the model's: the card's 768, 512 for D = 3072 are D / 4 and D / 6; the last is the teacher's, 256 for SAM 2.

| name | time | space | order |
|---|---|---|---|
| spatial (preset F) | T -> 1 + 4 (T - 1) by interpolation | (h, w) -> (2h, 2w) by undoing the patch | both first, then the projection |
| temporal (preset L) | T -> 1 + 4 (T - 1), channels as sub-frames | as it is | first, then the projection |
| linear (H-lin) | by interpolation | as it is | first, then the projection |
| interp_last | by interpolation | as it is | last: cannot express motion inside a latent |
| latent_stride | as it is: the teacher is read at frames 0, 4, 8, ... | as it is | - |

Interpolated last, two neighbours are the same vectors in other shares, and the best match of every place is its own (card 2.3).
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError, one_of

PROJECTORS = ("spatial", "temporal", "linear", "interp_last", "latent_stride")
GROUP = 4                 # frames of video per latent after the first
GROUPS = 32               # of GroupNorm; fewer where the width is no multiple of it


def make_projector(name: str, width: int, out: int = 256) -> nn.Module:
    """A projector (b, T, h, w, width) -> (b, T', h', w', out); see the table above.

    Raises:
        MotionLabError: an unknown name; a width that is no multiple of 4 where channels become places or frames.
    """
    one_of(name, PROJECTORS, "projector")
    if name in ("spatial", "temporal") and width % GROUP:
        raise MotionLabError(f"A width of {width} cannot be shared by 4 parts.", fix="Use projector linear or latent_stride.")
    kind = {"spatial": Spatial, "temporal": Temporal, "linear": Linear, "interp_last": InterpolatedLast, "latent_stride": Strided}[name]
    return kind(width, out)


class Pointwise(nn.Module):
    """W3 s(GN(W2 s(GN(W1 x)))), s = SiLU, GN over the whole clip in groups of channels: (b, T, h, w, a) -> (b, T, h, w, out)."""

    def __init__(self, a: int, hidden: int, out: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in ((a, hidden), (hidden, out), (out, out)))
        self.norms = nn.ModuleList(nn.GroupNorm(_groups(n), n) for n in (hidden, out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, norm in zip(self.layers, self.norms):
            x = F.silu(norm(layer(x).movedim(-1, 1)).movedim(1, -1))
        return self.layers[-1](x)


class TimeConv(nn.Module):
    """A convolution over three frames: (b, T, h, w, a) -> (b, T, h, w, out)."""

    def __init__(self, a: int, out: int, zero: bool = False):
        super().__init__()
        self.conv = nn.Conv3d(a, out, (3, 1, 1), padding=(1, 0, 0))
        if zero:
            nn.init.zeros_(self.conv.weight), nn.init.zeros_(self.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.movedim(-1, 1)).movedim(1, -1)


class Spatial(nn.Module):
    """Preset F: W0, then each token's four channel slices as its 2 x 2 places, four frames per latent by interpolation, then projected.

    Channels of a residual stream have no order of places: W0, the identity at first, can learn one.
    """

    def __init__(self, width: int, out: int):
        super().__init__()
        self.w0, a = _identity(width), width // 4
        self.project, self.skip = Pointwise(a, width // 6, out), TimeConv(a, out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(b, T, h, w, D) -> (b, 1 + 4 (T - 1), 2h, 2w, out)."""
        x = self.w0(features)
        b, t, h, w, d = x.shape
        x = x.view(b, t, h, w, 2, 2, d // 4).transpose(3, 4).reshape(b, t, 2 * h, 2 * w, d // 4)
        x = in_time(x)
        return self.project(x) + self.skip(x)


class Temporal(nn.Module):
    """Preset L: W0, then each token's four channel slices as the four frames of its latent (their mean for the first), then projected."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.w0, a = _identity(width), width // 4
        self.project, self.skip, self.after = Pointwise(a, width // 6, out), nn.Linear(a, out), TimeConv(out, out, zero=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(b, T, h, w, D) -> (b, 1 + 4 (T - 1), h, w, out)."""
        x = self.w0(features).unflatten(-1, (GROUP, -1))                                            # b T h w 4 a
        later = x[:, 1:].permute(0, 1, 4, 2, 3, 5).flatten(1, 2)
        x = torch.cat([x[:, :1].mean(-2), later], 1)
        y = self.project(x) + self.skip(x)
        return y + self.after(y)


class Linear(nn.Module):
    """H-lin: a learned linear to D / 4, four frames per latent by interpolation, then projected."""

    def __init__(self, width: int, out: int):
        super().__init__()
        a = max(1, width // 4)
        self.w0, self.project, self.skip = nn.Linear(width, a), Pointwise(a, max(1, width // 6), out), TimeConv(a, out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(b, T, h, w, D) -> (b, 1 + 4 (T - 1), h, w, out)."""
        x = in_time(self.w0(features))
        return self.project(x) + self.skip(x)


class InterpolatedLast(nn.Module):
    """Projected first, then four frames per latent by interpolation and a mean over three: cannot express motion inside a latent."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.project, self.skip = Pointwise(width, max(1, width // 6), out), nn.Linear(width, out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(b, T, h, w, D) -> (b, 1 + 4 (T - 1), h, w, out)."""
        y = in_time(self.project(features) + self.skip(features))
        around = torch.cat([y[:, :1], y, y[:, -1:]], 1)
        return (around[:, :-2] + around[:, 1:-1] + around[:, 2:]) / 3


class Strided(nn.Module):
    """One frame per latent, and the teacher read at the last frame of each: motion between latents, four times as far per pair."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.project, self.skip = Pointwise(width, max(1, width // 6), out), nn.Linear(width, out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(b, T, h, w, D) -> (b, T, h, w, out)."""
        return self.project(features) + self.skip(features)


def in_time(x: torch.Tensor) -> torch.Tensor:
    """(b, T, ...) at latents to (b, 1 + 4 (T - 1), ...) at frames, linear, ends aligned: frame 4k is latent k itself."""
    t = x.shape[1]
    if t == 1:
        return x
    at = torch.arange(GROUP * (t - 1) + 1, device=x.device) / GROUP
    low = at.floor().long().clamp(max=t - 2)
    share = (at - low).to(x.dtype).view(-1, *[1] * (x.dim() - 2))
    return (1 - share) * x[:, low] + share * x[:, low + 1]


def teacher_frames(name: str, latents: int) -> list[int]:
    """Frames of the video that a projector's outputs stand for, one each: what the teacher is read at."""
    frames = GROUP * (latents - 1) + 1
    return list(range(0, frames, GROUP)) if one_of(name, PROJECTORS, "projector") == "latent_stride" else list(range(frames))


def _identity(width):
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight), nn.init.zeros_(layer.bias)
    return layer


def _groups(width):
    return next(n for n in range(min(GROUPS, width), 0, -1) if width % n == 0)
