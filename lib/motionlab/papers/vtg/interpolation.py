"""Interpolation-based initialisation (card section 2): noise, LoRAs and text of the two ends, weighted frame by frame."""
from __future__ import annotations

from collections.abc import Callable

import torch

from motionlab.core.errors import MotionLabError, one_of

STARTS = ("iid", "slerp", "lerp")
MIXES = ("product", "factor")
NEAR = 1e-7              # cosines beyond 1 - NEAR are equal directions: SLERP is LERP there (as DiffMorpher and TVG clamp, card 2.1)


def frame_weights(f: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """lam_n (f,) float64, linear over the frames: (n - 1) / (N - 1) by default (O3); low, high: such as TVG's 0.1 to 0.9 for text.

    Raises:
        MotionLabError: fewer than two frames; ends outside [0, 1].
    """
    if f < 2 or not 0 <= low <= high <= 1:
        raise MotionLabError(f"Weights from {low} to {high} over {f} frames were asked for.",
                             fix="Give 2 frames or more, and 0 <= low <= high <= 1.")
    return torch.linspace(low, high, f, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------- SLERP, card 2.1 and 2.3
def slerp(a: torch.Tensor, b: torch.Tensor, lam: torch.Tensor | float) -> torch.Tensor:
    """sin((1 - lam) phi) / sin(phi) a + sin(lam phi) / sin(phi) b, of a and b (b, ...): one angle phi per row, over all of it, in float64.

    lam: a number or (b,). 0 and 1 give the ends exactly; ends of one direction degrade to LERP.
    """
    one, other = a.double().flatten(1), b.double().flatten(1)
    cosine = (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1)).clamp(min=1e-300)
    phi = cosine.clamp(-1 + NEAR, 1 - NEAR).acos()
    lam = torch.as_tensor(lam, dtype=torch.float64, device=a.device).expand(len(a))
    alike = cosine > 1 - NEAR
    first = torch.where(alike, 1 - lam, ((1 - lam) * phi).sin() / phi.sin())
    last = torch.where(alike, lam, (lam * phi).sin() / phi.sin())
    return (first[:, None] * one + last[:, None] * other).view(a.shape).to(a.dtype)


def frame_slerp(a: torch.Tensor, b: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
    """A row of `slerp` per frame: a, b (b, ...), lam (f,) -> (b, f, ...)."""
    return torch.stack([slerp(a, b, share) for share in lam], 1)


def frame_lerp(a: torch.Tensor, b: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
    """The straight line instead, (b, f, ...): in the middle of two independent noises its deviation is 0.71 (card 2.1)."""
    share = lam.to(a).view(1, -1, *[1] * (a.dim() - 1))
    return (1 - share) * a[:, None] + share * b[:, None]


def text_of_frames(c_1: torch.Tensor, c_n: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
    """c(n) = SLERP(c_1, c_N, lam_n) (card 2.3): states (b, words, d) of two captions -> (b, f, words, d); equal captions give c_1."""
    return frame_slerp(c_1, c_n, lam)


# ---------------------------------------------------------------------------------------------- noise, card 2.1 and 8.5
@torch.no_grad()
def invert(model: Callable, x: torch.Tensor, grid: torch.Tensor, until: float = 0.0) -> torch.Tensor:
    """Carry clean latents x (b, ...) to noise along the flow's ODE, by Euler's method backwards: x_s = x_t - (t - s) u(x_t, t).

    Args:
        model: (x, t) -> u without guidance, of the network that samples (O2).
        grid: increasing times that end at 1, as sampling takes them. until: where to stop, a time.

    Raises:
        MotionLabError: a grid that does not end at 1 or does not increase; `until` outside [0, 1).
    """
    times = [float(t) for t in grid]
    if len(times) < 2 or abs(times[-1] - 1) > 1e-6 or any(b <= a for a, b in zip(times, times[1:])) or not 0 <= until < 1:
        raise MotionLabError("An inversion needs increasing times that end at 1, and a time in [0, 1) to stop at.",
                             fix="Use the sampler's own grid.")
    times = [until] + [t for t in times if t > until + 1e-9]
    for s, t in reversed(list(zip(times, times[1:]))):
        x = x - (t - s) * model(x, torch.full((len(x),), t, device=x.device))
    return x


def start_noise(z_1: torch.Tensor, z_n: torch.Tensor, own: torch.Tensor, how: str = "slerp", g: float = 1.0) -> torch.Tensor:
    """The start (b, f, c, h, w) of two inverted ends z_1, z_N (b, c, h, w) and of noise of each frame's own (b, f, c, h, w).

    Args:
        how: "iid" is the frames' own noise; "slerp" and "lerp" interpolate the ends, lam_n = (n - 1) / (N - 1).
        g: sqrt(g) of the interpolated, sqrt(1 - g) of the frames' own (card 8.5); 1 is the paper's. At g < 1 the ends are not kept.

    Raises:
        MotionLabError: an unknown way, g outside [0, 1], shapes that do not fit.
    """
    one_of(how, STARTS, "start")
    if not 0 <= g <= 1 or z_1.shape != z_n.shape or own[:, 0].shape != z_1.shape:
        raise MotionLabError(f"Ends {tuple(z_1.shape)} and {tuple(z_n.shape)} with noise {tuple(own.shape)} and g = {g} were given.",
                             fix="Give two ends (b, c, h, w), noise (b, f, c, h, w) and g in [0, 1].")
    if how == "iid":
        return own
    joined = (frame_slerp if how == "slerp" else frame_lerp)(z_1, z_n, frame_weights(own.shape[1]))
    return g ** 0.5 * joined + (1 - g) ** 0.5 * own


# ---------------------------------------------------------------------------------------------- LoRAs, card 2.2
def low_rank_mix(x: torch.Tensor, a_1: torch.Tensor, b_1: torch.Tensor, a_n: torch.Tensor, b_n: torch.Tensor, lam: torch.Tensor,
                 how: str = "product") -> torch.Tensor:
    """What the mixture of the two ends' LoRAs adds to a linear layer, per frame: dW(lam) = (1 - lam) B_1 A_1 + lam B_N A_N.

    Args:
        x: what the layer reads, (b, f, tokens, in). a_1, a_n: (b, r, in); b_1, b_n: (b, out, r). lam: (f,).
        how: "product", the formula; "factor", as DiffMorpher's code mixes A and B apart, which adds cross terms (O5).
    Returns:
        (b, f, tokens, out).
    """
    one_of(how, MIXES, "mix of LoRAs")
    lam = lam.to(x)
    if how == "factor":
        share = lam.view(1, -1, 1, 1)
        a, b = ((1 - share) * one[:, None] + share * other[:, None] for one, other in ((a_1, a_n), (b_1, b_n)))
        return torch.einsum("bfti,bfri,bfor->bfto", x, a, b)
    a, b = torch.cat([a_1, a_n], 1), torch.cat([b_1, b_n], 2)
    share = torch.cat([(1 - lam)[:, None].expand(-1, a_1.shape[1]), lam[:, None].expand(-1, a_n.shape[1])], 1)       # (f, 2r)
    inner = torch.einsum("bfti,bri->bftr", x, a) * share[:, None]
    return torch.einsum("bftr,bor->bfto", inner, b)
