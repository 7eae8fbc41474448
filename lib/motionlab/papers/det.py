"""DeT: motion transfer by a temporal kernel and a dense point tracking loss (Shi et al., arXiv 2503.17350).

In the paper's order: the kernel shared by all positions (`TemporalKernel`, card det 2.1), the modules that it is compared with
(card 2.5), the tracking loss (card 3.3: `tracking_loss`, on tracks that `align_tracks` lays on latent cells), and the points that
are tracked (`distance_weighted_points`, card 5.3). Symbols as in the card: C width, k kernel, m middle width, T, H, W the token
grid, V visibility, z a track's values. The kit's time runs from noise (t = 0) to data (t = 1), so x1_hat is the card's x0_hat.
What the paper leaves open is an option with the default that the card recommends; it is said where.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.data.tracks import align_tracks, distance_weighted_points

__all__ = ["GATE", "MODULES", "Conv3dKernel", "FullWidthKernel", "LocalAttention", "TemporalKernel", "UnsharedKernel", "align_tracks",
           "along_tracks", "at_tokens", "at_tracks", "distance_weighted_points", "kept_blocks", "kernel_parameters", "late_enough",
           "make_module", "tracking_loss", "v_weight"]

MODULES = ("kernel", "conv3d", "local_attention", "mlp", "unshared", "full_width")
STARTS = ("normal", "fan_in")
VISIBILITY, MEANS, TARGETS = ("min", "release"), ("all", "visible"), ("x1", "features")
GATE = 0.445             # t of timestep 400 of CogVideoX-5B's schedule by equal log-SNR, rounded down (0.4453; at 401 it is 0.4447)


# ---------------------------------------------------------------------------------------------- the kernel, card 2.1
class TemporalKernel(nn.Module):
    """R[t] = sum_j Wu_j GELU(D)[t + j] with D[t] = sum_j Wd_j U[t + j], j = -p..p and k = 2p + 1: one for all positions of a block.

    Wd, `down` (m, C, k), is drawn from N(0, 1), which is why a rate of 1e-5 suffices (card 2.2); Wu, `up` (C, m, k), is zero: at first
    the branch adds nothing. No bias, zeros beyond the clip. What comes out at t has seen 2k - 1 frames.
    Both sums are products with all taps at once on tokens as they lie: no tensor of width C is turned about.

    Args:
        start: of `down`: "normal", as released, or "fan_in" (Kaiming), which asks for a rate about sqrt(C k) times as high.
        generator: on the CPU.

    Raises:
        MotionLabError: an even kernel, a width below 1, an unknown start.
    """

    def __init__(self, width: int, m: int = 128, k: int = 3, start: str = "normal", generator: torch.Generator | None = None):
        super().__init__()
        _check(k, m)
        self.down = nn.Parameter(_drawn((m, width, k), _deviation(start, width * k), generator))
        self.up = nn.Parameter(torch.zeros(width, m, k))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (b, T, H, W, C) of any T, H, W -> (b, T, H, W, C)."""
        m, c, k = self.down.shape
        taps = F.linear(x, self.down.permute(2, 0, 1).reshape(k * m, c)).unflatten(-1, (k, m))      # b T H W k m: Wd_j U of every frame
        g = F.gelu(sum(_ahead(taps[..., j, :], j - k // 2) for j in range(k)))
        g = torch.cat([_ahead(g, j - k // 2) for j in range(k)], -1)                                # b T H W (k m)
        return F.linear(g, self.up.permute(0, 2, 1).reshape(c, k * m))


def kernel_parameters(width: int, m: int, k: int = 3) -> int:
    """Of one block's `TemporalKernel`: 2 C m k (card 2.3)."""
    return 2 * width * m * k


# ---------------------------------------------------------------------------------------------- modules beside it, card 2.5
class Conv3dKernel(nn.Module):
    """The same with k x k x k kernels: it sees the neighbours in space too. None is released (card 2.5)."""

    def __init__(self, width: int, m: int = 128, k: int = 3, start: str = "normal", generator: torch.Generator | None = None):
        super().__init__()
        _check(k, m)
        self.down = nn.Parameter(_drawn((m, width, k, k, k), _deviation(start, width * k ** 3), generator))
        self.up = nn.Parameter(torch.zeros(width, m, k, k, k))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (b, T, H, W, C) -> the same shape."""
        p = self.down.shape[-1] // 2
        g = F.gelu(F.conv3d(x.movedim(-1, 1), self.down, padding=p))
        return F.conv3d(g, self.up, padding=p).movedim(1, -1)


class LocalAttention(nn.Module):
    """Attention of each token to the k frames around it at its own place; one head of `width`, C / 16 by default; zero at first.

    The released one windows tokens that are not in order of time and does not begin at zero (card 2.5, R6); this is what it is for.
    With C / 16 it has 4 C^2 / 16 weights a block, as many as the kernel has at k = 3, m = C / 24. It knows no order of the k frames
    but what their tokens tell.
    """

    def __init__(self, width: int, k: int = 3, inner: int = 0, generator: torch.Generator | None = None):
        super().__init__()
        inner = inner or max(1, width // 16)
        _check(k, inner)
        self.k = k
        self.reading = nn.Parameter(_drawn((3 * inner, width), width ** -0.5, generator))
        self.writing = nn.Parameter(torch.zeros(width, inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (b, T, H, W, C) -> the same shape."""
        q, key, value = F.linear(x, self.reading).chunk(3, -1)
        shifts = range(-(self.k // 2), self.k // 2 + 1)
        key, value = (torch.stack([_ahead(a, j) for j in shifts], -2) for a in (key, value))         # b T H W k a
        scores = (q[..., None, :] * key).sum(-1) * q.shape[-1] ** -0.5
        frames = torch.arange(x.shape[1], device=x.device)[:, None] + torch.tensor(list(shifts), device=x.device)
        outside = (frames < 0) | (frames >= x.shape[1])
        share = scores.masked_fill(outside[:, None, None], -math.inf).softmax(-1).to(value.dtype)
        return F.linear((share[..., None] * value).sum(-2), self.writing)


class UnsharedKernel(nn.Module):
    """The kernel with weights of its own at every position, so bound to one grid: what sharing is for (C17)."""

    def __init__(self, width: int, grid: tuple[int, int], m: int = 128, k: int = 3, start: str = "normal",
                 generator: torch.Generator | None = None):
        super().__init__()
        _check(k, m)
        self.grid = tuple(grid)
        self.down = nn.Parameter(_drawn((*self.grid, k, width, m), _deviation(start, width * k), generator))
        self.up = nn.Parameter(torch.zeros(*self.grid, k, m, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (b, T, H, W, C) with the H, W that it was made for -> the same shape."""
        if tuple(x.shape[2:4]) != self.grid:
            raise MotionLabError(f"Weights per position were made for a grid of {self.grid}, and the call's is {tuple(x.shape[2:4])}.",
                                 fix="Use the size that it was trained at, or a module that is shared over space.")
        k = self.down.shape[2]
        g = F.gelu(sum(torch.einsum("bthwc,hwcm->bthwm", _ahead(x, j - k // 2), self.down[:, :, j]) for j in range(k)))
        return sum(torch.einsum("bthwm,hwmc->bthwc", _ahead(g, j - k // 2), self.up[:, :, j]) for j in range(k))


class FullWidthKernel(nn.Module):
    """One convolution over time from C to C, not factorised, zero at first: what down and up save (C17)."""

    def __init__(self, width: int, k: int = 3):
        super().__init__()
        _check(k, width)
        self.weight = nn.Parameter(torch.zeros(width, width, k))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (b, T, H, W, C) -> the same shape."""
        k = self.weight.shape[-1]
        return sum(F.linear(_ahead(x, j - k // 2), self.weight[..., j]) for j in range(k))


def make_module(name: str, width: int, m: int = 0, k: int = 3, start: str = "normal", grid: tuple[int, int] | None = None,
                generator: torch.Generator | None = None) -> nn.Module:
    """One block's module, (b, T, H, W, C) -> the same shape, zero before it is trained.

    Args:
        name: of `MODULES`; "mlp" is the kernel with k = 1.
        m: 0 is C / 24, the paper's 128 at its width of 3072. grid: (H, W), for "unshared" alone.

    Raises:
        MotionLabError: an unknown name, an even kernel, "unshared" without a grid.
    """
    one_of(name, MODULES, "module")
    m = m or max(1, width // 24)
    if name == "local_attention":
        return LocalAttention(width, k, generator=generator)
    if name == "full_width":
        return FullWidthKernel(width, k)
    if name == "conv3d":
        return Conv3dKernel(width, m, k, start, generator)
    if name == "unshared":
        if grid is None:
            raise MotionLabError("Weights per position need the size of the clips.", fix="Give (H, W) in tokens.")
        return UnsharedKernel(width, grid, m, k, start, generator)
    return TemporalKernel(width, m, 1 if name == "mlp" else k, start, generator)


def _ahead(x, j):
    """x (b, T, ...) read j frames later: x[:, t + j], zeros beyond the clip."""
    length = x.shape[1]
    if j == 0:
        return x
    if abs(j) >= length:
        return torch.zeros_like(x)
    blank = torch.zeros_like(x[:, :abs(j)])
    return torch.cat([x[:, j:], blank] if j > 0 else [blank, x[:, :length + j]], 1)


def _check(k, m):
    if k < 1 or k % 2 == 0:
        raise MotionLabError(f"A kernel of {k} frames has no middle one.", fix=f"Give an odd kernel, such as {max(1, k + 1)}.")
    if m < 1:
        raise MotionLabError(f"The middle width is {m}.", fix="Give 1 or more, or 0 for the default.")


def _deviation(start, inputs):
    return 1.0 if one_of(start, STARTS, "start of a kernel") == "normal" else inputs ** -0.5


def _drawn(shape, deviation, generator):
    """Normal numbers, drawn on the CPU wherever the weight will be; of a weight without memory nothing is drawn."""
    weight = torch.empty(shape)
    return weight if weight.is_meta else weight.copy_(deviation * torch.randn(shape, generator=generator, device="cpu"))


# ---------------------------------------------------------------------------------------------- which blocks, card 2.4
def kept_blocks(kept: float | int | tuple[int, ...], numbers: list[int], total: int) -> list[int]:
    """Numbers of the blocks that keep their branch at sampling.

    Args:
        kept: a share of all blocks, the first ones (0.35 in the paper: 15 of CogVideoX-5B's 42, and of HunyuanVideo's 60 the 20 that
            have one); how many of the first; or their numbers, negative ones from the end of `numbers`.
        numbers: of the blocks that have a branch, of `total` blocks, in the order of execution.

    Raises:
        MotionLabError: a share outside [0, 1], more blocks than there are, a block without a branch.
    """
    if isinstance(kept, float):
        if not 0 <= kept <= 1:
            raise MotionLabError(f"A share of {kept} of the blocks is kept.", fix="Give 0 to 1; a whole number means so many blocks.")
        return [n for n in numbers if n < math.floor(kept * total + 0.5)]
    if isinstance(kept, int):
        if not 0 <= kept <= len(numbers):
            raise MotionLabError(f"The first {kept} blocks are kept, and {len(numbers)} have a branch.", fix=f"Give 0 to {len(numbers)}.")
        return numbers[:kept]
    chosen = {numbers[n] if -len(numbers) <= n < 0 else n for n in kept}
    for unknown in chosen - set(numbers):
        raise MotionLabError(f"Block {unknown} has no branch; the nearest that has one is {min(numbers, key=lambda n: abs(n - unknown))}.",
                             fix=f"Blocks with a branch are {numbers[0]} to {numbers[-1]}.")
    return sorted(chosen)


# ---------------------------------------------------------------------------------------------- the tracking loss, card 3.3
def at_tracks(values: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """z: values (b, f, c, h, w) at the cells (b, f, n, 2) of tracks, (b, f, n, c); the nearest cell, no interpolation."""
    places = (cells[..., 1] * values.shape[-1] + cells[..., 0])[:, :, None]                          # b f 1 n
    return values.flatten(3).gather(3, places.expand(-1, -1, values.shape[2], -1)).transpose(2, 3)


def at_tokens(tracks: torch.Tensor, latents: tuple[int, int, int], grid: tuple[int, int, int]) -> torch.Tensor:
    """Tracks (b, f, n, 3), column, row, visible, on latent cells as those on tokens: of each patch in time its last latent frame."""
    each, down, across = (latent // token for latent, token in zip(latents, grid))
    return torch.div(tracks, torch.tensor([across, down, 1], device=tracks.device), rounding_mode="floor")[:, each - 1::each]


def tracking_loss(z: torch.Tensor, visible: torch.Tensor, visibility: str = "min", mean: str = "all") -> torch.Tensor:
    """L_TL per clip (b,): V (z[f + 1] - z[f])^2 over pairs of frames, tracks and channels.

    On clean latents it is not 0 (texture, light, frames that share a latent): that is the floor below which it smooths too much.

    Args:
        z: (b, f, n, c) of `at_tracks`. visible: (b, f, n).
        visibility: V: "min" of both frames, as the paper has it; "release", of the later one alone, which compares a point that
            comes back with whatever hid it.
        mean: over "all" entries, as released, so that clips whose points are mostly hidden weigh less; or over the "visible" ones.

    Raises:
        MotionLabError: an unknown option; shapes that do not fit; one frame, which has no pair.
    """
    one_of(visibility, VISIBILITY, "visibility of a pair"), one_of(mean, MEANS, "mean of the tracking loss")
    if z.dim() != 4 or z.shape[:3] != visible.shape or z.shape[1] < 2:
        raise MotionLabError(f"Tracks' values {tuple(z.shape)} and visibility {tuple(visible.shape)} were given.",
                             fix="Give (b, f, n, c) and (b, f, n), of two latent frames or more.")
    visible = visible.bool()
    pairs = visible[:, 1:] & visible[:, :-1] if visibility == "min" else visible[:, 1:]
    squares = torch.where(pairs[..., None], (z[:, 1:] - z[:, :-1]).float().square(), 0.0).flatten(1)
    if mean == "all":
        return squares.mean(1)
    return squares.sum(1) / (z.shape[-1] * pairs.flatten(1).sum(1)).clamp(min=1)


def along_tracks(values: torch.Tensor, tracks: torch.Tensor, visibility: str = "min", mean: str = "all") -> torch.Tensor:
    """`tracking_loss` (b,) of values (b, f, c, h, w) along tracks (b, f, n, 3): column, row, visible."""
    return tracking_loss(at_tracks(values, tracks[..., :2].long()), tracks[..., 2] > 0.5, visibility, mean)


def late_enough(t: torch.Tensor, gate: float = GATE) -> torch.Tensor:
    """Which samples the tracking loss acts on, (b,) bool: released for timesteps up to 400 of 1000, that is t >= 0.445 at equal log-SNR.

    The release asks it of a whole batch, which must then be one clip; here each sample has its own answer.
    """
    return t >= gate


def v_weight(t: torch.Tensor) -> torch.Tensor:
    """t^2 + (1 - t)^2 (b,): |u - (x1 - x0)|^2 times this is CogVideoX's |v_hat - v|^2, that is |x1_hat - x1|^2 / (1 - abar) (card 3.4)."""
    return t.square() + (1 - t).square()
