"""Optical flow as a picture and back (VideoJAM, arXiv 2502.02492, Eq. 5).

    m = min(1, |flow| / (sigma * diagonal)),  alpha = arctan2(v, u),
    colour = hue(alpha), fading to a background as m -> 0

Stated by the paper: sigma = 0.15, the normaliser is the frame's diagonal (so absolute speed survives). Not stated:
the background and the wheel. Defaults here: white background with the Middlebury wheel, the colour code that RAFT's
own pictures use inside the unit circle; `background='black'` takes HSV with S = 1, V = m instead.

The published tool tabulates 55 colours in 8 bits and leaves a seam of one entry where the angle wraps; here the same
six segments are continuous and cyclic, so colours differ from the tool's by at most one entry, and the inverse is
exact.
"""
from __future__ import annotations

import math

import numpy as np
import torch

from motionlab.core.errors import MotionLabError, one_of

SIGMA = 0.15
# For the 48-pixel world: its subjects' speed has a 95th percentile of 3.2 px per frame (150 dev scenes), where m is then 0.68;
# the paper's 0.15 would leave it at 0.32 and half of the wheel's contrast unused.
WORLD_SIGMA = 0.07
# Entries per hue segment: red-yellow, yellow-green, green-cyan, cyan-blue, blue-magenta, magenta-red.
MIDDLEBURY_SEGMENTS = (15, 6, 4, 11, 13, 6)
HSV_SEGMENTS = (1, 1, 1, 1, 1, 1)
BACKGROUNDS = ("white", "black")
_HUES = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1))


def flow_to_rgb(flow, sigma: float = SIGMA, background: str = "white"):
    """Colour a flow field (VideoJAM Eq. 5); still pixels take the background's colour.

    Args:
        flow: (..., 2, h, w), pixels per frame, channels (dx, dy); numpy or torch.
        sigma: the share of the frame's diagonal at which a pixel saturates.
        background: 'white' or 'black'.

    Returns:
        (..., 3, h, w) in [0, 1], the kind and device of `flow`.

    Raises:
        MotionLabError: wrong shape, values that are not finite, sigma <= 0 or an unknown background.
    """
    field = _checked(flow, 2, "flow", "Flow is (..., 2, h, w) with channels (dx, dy), in pixels per frame.")
    _check_options(sigma, background)
    u, v = field.unbind(-3)
    m = (torch.hypot(u, v) / saturation_speed(field.shape[-2:], sigma)).clamp(max=1).unsqueeze(-3)
    colour = wheel(torch.atan2(v, u), background)
    return _like(1 - m * (1 - colour) if background == "white" else m * colour, flow)


def flow_video(flow: np.ndarray, sigma: float = SIGMA, background: str = "white") -> np.ndarray:
    """The flow (f-1, 2, h, w) of a clip as a clip of pictures, uint8 (f, h, w, 3); the last is repeated (VideoJAM does not
    say how f frames get f flows; this keeps lengths equal)."""
    rgb = np.moveaxis(flow_to_rgb(np.asarray(flow), sigma, background), -3, -1)
    return np.round(255 * np.concatenate([rgb, rgb[-1:]])).astype(np.uint8)


def rgb_to_flow(rgb, sigma: float = SIGMA, background: str = "white"):
    """Read the flow back from its picture: the least-squares nearest colour that Eq. 5 can draw.

    Between two neighbouring hues the drawable colours form a flat sector (non-negative sums of two vectors), so the
    projection onto each of the six sectors is a two-variable non-negative least squares in closed form, and the
    nearest of the six wins. Exact on clean pictures up to float rounding, and to quantisation on 8-bit ones. Speeds
    at or above `saturation_speed` were clipped by Eq. 5 and come back as exactly that speed: use `m < 1` to know
    where to trust it.

    Args:
        rgb: (..., 3, h, w) in [0, 1]; values outside (a decoder's overshoot) are projected like any other.
        sigma, background: as given to `flow_to_rgb`; the diagonal is that of (h, w).

    Returns:
        (..., 2, h, w), pixels per frame.

    Raises:
        MotionLabError: wrong shape, values that are not finite, bytes instead of [0, 1], or unknown options.
    """
    if str(getattr(rgb, "dtype", "")).endswith("uint8"):
        raise MotionLabError("The flow picture holds bytes 0..255.", fix="Divide by 255 first: values are in [0, 1].")
    picture = _checked(rgb, 3, "flow picture", "A flow picture is (..., 3, h, w) in [0, 1].")
    _check_options(sigma, background)
    ink = 1 - picture if background == "white" else picture
    position, m = _nearest_on_cone(ink, background)
    angle = position * (2 * math.pi) - math.pi
    speed = m.clamp(max=1) * saturation_speed(picture.shape[-2:], sigma)
    return _like(torch.stack([speed * torch.cos(angle), speed * torch.sin(angle)], dim=-3), rgb)


def saturation_speed(size, sigma: float = SIGMA) -> float:
    """Speed in pixels per frame at which Eq. 5 saturates for frames of size (h, w): 54.3 at 256 x 256."""
    h, w = size
    return sigma * math.hypot(h, w)


def wheel(angle: torch.Tensor, background: str = "white") -> torch.Tensor:
    """Fully saturated colours (..., 3, h, w) of angles (..., h, w) in radians; -pi is red."""
    knots, hues = _knots(background, angle)
    position = ((angle / math.pi + 1) / 2) % 1
    segment = (torch.bucketize(position.contiguous(), knots, right=True) - 1).clamp(0, 5)
    share = ((position - knots[segment]) / (knots[segment + 1] - knots[segment])).unsqueeze(-1)
    return ((1 - share) * hues[segment] + share * hues[segment + 1]).movedim(-1, -3)


def _knots(background: str, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where on the unit circle the six pure hues lie (7, closed), and their colours (7, 3)."""
    segments = MIDDLEBURY_SEGMENTS if background == "white" else HSV_SEGMENTS
    knots = torch.tensor([sum(segments[:k]) / sum(segments) for k in range(7)], dtype=like.dtype, device=like.device)
    hues = torch.tensor([*_HUES, _HUES[0]], dtype=like.dtype, device=like.device)
    return knots, hues


def _nearest_on_cone(ink: torch.Tensor, background: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Position on the circle in [0, 1) and m of the drawable colour nearest to `ink` (..., 3, h, w)."""
    knots, hues = _knots(background, ink)
    rays = 1 - hues if background == "white" else hues
    best, position, strength = torch.full_like(ink[..., 0, :, :], float("inf")), 0.0, 0.0
    for k in range(6):
        a, b = _two_ray_fit(ink, rays[k], rays[k + 1])
        drawn = a.unsqueeze(-3) * rays[k].view(3, 1, 1) + b.unsqueeze(-3) * rays[k + 1].view(3, 1, 1)
        error = ((ink - drawn) ** 2).sum(-3)
        m = a + b
        here = knots[k] + (knots[k + 1] - knots[k]) * b / m.clamp(min=torch.finfo(m.dtype).tiny)
        better = error < best
        best = torch.where(better, error, best)
        position, strength = torch.where(better, here, position), torch.where(better, m, strength)
    return position, strength


def _two_ray_fit(ink: torch.Tensor, ray0: torch.Tensor, ray1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Non-negative a, b minimising |ink - a ray0 - b ray1|^2; what it misses is a neighbouring sector's."""
    p, q, r = float(ray0 @ ray0), float(ray0 @ ray1), float(ray1 @ ray1)
    along0 = torch.einsum("...chw,c->...hw", ink, ray0)
    along1 = torch.einsum("...chw,c->...hw", ink, ray1)
    a, b = (r * along0 - q * along1) / (p * r - q * q), (p * along1 - q * along0) / (p * r - q * q)
    only0, only1 = (along0 / p).clamp(min=0), (along1 / r).clamp(min=0)
    zero = torch.zeros_like(a)
    inside, right_of = (a >= 0) & (b >= 0), b < 0
    return (torch.where(inside, a, torch.where(right_of, only0, zero)),
            torch.where(inside, b, torch.where(right_of, zero, only1)))


def _check_options(sigma: float, background: str) -> None:
    one_of(background, BACKGROUNDS, "background")
    if not sigma > 0:
        raise MotionLabError(f"sigma is {sigma}.",
                             fix="Give a positive share of the frame's diagonal; the paper's is 0.15.")


def _checked(array, channels: int, name: str, fix: str) -> torch.Tensor:
    tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(array))
    if tensor.ndim < 3 or tensor.shape[-3] != channels or 0 in tensor.shape:
        raise MotionLabError(f"The {name} has shape {tuple(tensor.shape)}.", fix=fix)
    tensor = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    if not torch.isfinite(tensor).all():
        raise MotionLabError(f"The {name} holds values that are not finite.",
                             fix="Set them to 0 or mask them out first.")
    return tensor


def _like(result: torch.Tensor, given):
    return result if isinstance(given, torch.Tensor) else result.numpy()
