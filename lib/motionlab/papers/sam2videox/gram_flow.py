"""Local Gram Flow (card 3 and 4): where a place's features are found again in the next frame, as a distribution over a small window.

In the card's symbols: F features [B, T, h, w, C], n(.) their length brought to 1, p a place of the grid (h, w), d an offset (dy, dx) of
the window {-r..r}^2, S logits, tau the temperature, P* and Q the distributions of teacher and student.

    S[F]_t(p, d) = < n(F_t(p)), n(F_{t+1}(p + d)) >                      local_gram_flow
    S*           = alpha S[F_fwd] + (1 - alpha) S[F_bwd]                 fuse
    L_feat       = mean over b, t, p of sum_d P* log(P* / Q)             lgf_kl, P* = softmax(S* / tau), Q = softmax(S / tau)

Offsets outside the frame are no choice on either side: their logit is `OUTSIDE`, finite, so that no 0 x inf appears (card 4.3, A8).
"""
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError, one_of

FUSIONS = ("lgf_logit", "lgf_prob", "feature", "fwd_only", "bwd_only")
LOSSES = ("lgf_kl", "lgf_l2", "feat_l2", "feat_cos")
RADIUS, TAU, ALPHA = 3, 0.1, 0.5
OUTSIDE = -1e4


# ---------------------------------------------------------------------------------------------- S[F], card 3.1
def unit(features: torch.Tensor) -> torch.Tensor:
    """n(F): features (..., C) in float32, each of length 1."""
    return F.normalize(features.float(), dim=-1)


def offsets(radius: int = RADIUS) -> list[tuple[int, int]]:
    """The window's offsets (dy, dx), row by row: entry k of a map's last axis."""
    reach = range(-radius, radius + 1)
    return [(dy, dx) for dy in reach for dx in reach]


def inside(h: int, w: int, radius: int = RADIUS) -> torch.Tensor:
    """(h, w, (2 radius + 1)^2) bool: whether a place's offset stays in the frame."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([(y + dy >= 0) & (y + dy < h) & (x + dx >= 0) & (x + dx < w) for dy, dx in offsets(radius)], -1)


def local_gram_flow(features: torch.Tensor, radius: int = RADIUS, normalise: bool = True, reverse: bool = False) -> torch.Tensor:
    """S[F] (b, t - 1, h, w, (2 radius + 1)^2), float32.

    Each row of places is multiplied with the rows of the next frame as matrices, and the band around the diagonal is kept: a window is
    never unfolded, and the backward pass keeps the features alone.

    Args:
        features: (b, t, h, w, C) of two frames or more.
        normalise: the card's default (A7); without it a temperature means nothing fixed.
        reverse: each pair from t + 1 to t, still in the order of t (A5).

    Raises:
        MotionLabError: another shape, one frame, a window larger than the grid.
    """
    if features.dim() != 5 or features.shape[1] < 2:
        raise MotionLabError(f"Features have shape {tuple(features.shape)}.", fix="Give (b, t, h, w, C) of two frames or more.")
    if radius < 0 or 2 * radius + 1 > max(features.shape[2:4]):
        raise MotionLabError(f"A window of {2 * radius + 1} places is larger than the grid {tuple(features.shape[2:4])}.",
                             fix=f"Give a radius from 0 to {(max(features.shape[2:4]) - 1) // 2}.")
    return _Bands.apply(unit(features) if normalise else features.float(), radius, reverse)


def band(here: torch.Tensor, there: torch.Tensor, radius: int) -> torch.Tensor:
    """<here(p), there(p + d)> for all offsets d of a window: (b, t, h, w, C) twice -> (b, t, h, w, (2 radius + 1)^2); no gradient."""
    out = here.new_full((*here.shape[:4], 2 * radius + 1, 2 * radius + 1), OUTSIDE)
    for j, rows, other in _row_pairs(here.shape[2], radius):
        gram = here[:, :, rows] @ there[:, :, other].transpose(-1, -2)                               # b t rows w w
        for k, dx in enumerate(range(-radius, radius + 1)):
            out[:, :, rows, _columns(here.shape[3], dx), j, k] = gram.diagonal(dx, -2, -1)
    return out.flatten(-2)


class _Bands(torch.autograd.Function):
    """`band` of each frame with the next, (b, t, h, w, C) -> (b, t - 1, h, w, n); its backward pass keeps the features alone."""

    @staticmethod
    def forward(ctx, f, radius, reverse):
        ctx.save_for_backward(f)
        ctx.radius, ctx.reverse = radius, reverse
        return band(*_pairs(f, reverse), radius)

    @staticmethod
    def backward(ctx, grad):
        f, = ctx.saved_tensors
        radius, w, out = ctx.radius, f.shape[3], torch.zeros_like(f)
        grad = grad.unflatten(-1, (2 * radius + 1, 2 * radius + 1))
        (here, there), (to_here, to_there) = _pairs(f, ctx.reverse), _pairs(out, ctx.reverse)
        for j, rows, other in _row_pairs(f.shape[2], radius):
            gram = grad.new_zeros((*grad.shape[:2], rows.stop - rows.start, w, w))
            for k, dx in enumerate(range(-radius, radius + 1)):
                gram.diagonal(dx, -2, -1).copy_(grad[:, :, rows, _columns(w, dx), j, k])
            to_here[:, :, rows] += gram @ there[:, :, other]
            to_there[:, :, other] += gram.transpose(-1, -2) @ here[:, :, rows]
        return out, None, None


def _pairs(f, reverse):
    """Of each pair of neighbours the frame whose places are asked, and the one in which they are found again: views."""
    return (f[:, 1:], f[:, :-1]) if reverse else (f[:, :-1], f[:, 1:])


def _row_pairs(h, radius):
    """(index of dy, rows that have a partner dy further down, these partners)."""
    for j, dy in enumerate(range(-radius, radius + 1)):
        if abs(dy) < h:
            yield j, slice(max(0, -dy), h - max(0, dy)), slice(max(0, dy), h - max(0, -dy))


def _columns(w, dx):
    return slice(max(0, -dx), max(0, w - max(0, dx)))


# ---------------------------------------------------------------------------------------------- S*, card 3
def fuse(forward: torch.Tensor, backward: torch.Tensor, how: str = "lgf_logit", alpha: float | torch.Tensor = ALPHA, radius: int = RADIUS,
         tau: float = TAU, reverse_backward: bool = False) -> torch.Tensor:
    """S*: the target's logits (b, t - 1, h, w, (2 radius + 1)^2) from a tracker's features in both directions, in the order of time.

    Args:
        forward, backward: (b, t, h, w, C), memory features of the pass from the first and from the last frame.
        how: "lgf_logit" (default, A4): the mean of logits, so that a displacement must be plausible to both. "lgf_prob": of
            probabilities, which keeps both modes. "feature": of unit features, before anything is compared (C7). Or one direction.
        alpha: share of the forward pass, or one per clip (b,): 1 where the backward pass lost the object.
        tau: for "lgf_prob" alone.
        reverse_backward: the backward pass's pairs from t + 1 to t (A5).

    Raises:
        MotionLabError: an unknown way, shapes that differ, tau of 0 or less, and as `local_gram_flow`.
    """
    one_of(how, FUSIONS, "fusion")
    demand_tau(tau)
    if forward.shape != backward.shape:
        raise MotionLabError(f"The two directions have the shapes {tuple(forward.shape)} and {tuple(backward.shape)}.",
                             fix="Resample both to one grid first.")
    a = torch.as_tensor(alpha, dtype=torch.float32, device=forward.device).reshape(-1, 1, 1, 1, 1)
    if how == "feature":
        return local_gram_flow(a * unit(forward) + (1 - a) * unit(backward), radius)
    maps = {"fwd": lambda: local_gram_flow(forward, radius), "bwd": lambda: local_gram_flow(backward, radius, reverse=reverse_backward)}
    if how in ("fwd_only", "bwd_only"):
        return maps[how[:3]]()
    f, b = maps["fwd"](), maps["bwd"]()
    if how == "lgf_logit":
        return a * f + (1 - a) * b
    mixed = a * (f / tau).softmax(-1) + (1 - a) * (b / tau).softmax(-1)
    return (tau * mixed.clamp(min=1e-30).log()).masked_fill(f <= OUTSIDE / 2, OUTSIDE)


def cross_terms(forward: torch.Tensor, backward: torch.Tensor, alpha: float = ALPHA, radius: int = RADIUS) -> dict[str, torch.Tensor]:
    """What <G_t, G_{t+1}> of G = alpha n(F_fwd) + (1 - alpha) n(F_bwd) is made of (card 3.2): {"forward", "backward", "cross"}, each
    (b, t - 1, h, w, (2 radius + 1)^2), 0 outside the frame. Their sum is the product before G's own length is taken out.

    "cross" compares two different memory states; it says nothing of where a part went.
    """
    f, b = unit(forward), unit(backward)

    def products(one, other):
        out = band(one[:, :-1], other[:, 1:], radius)
        return out.masked_fill(out <= OUTSIDE / 2, 0.0)

    return {"forward": alpha ** 2 * products(f, f), "backward": (1 - alpha) ** 2 * products(b, b),
            "cross": alpha * (1 - alpha) * (products(f, b) + products(b, f))}


# ---------------------------------------------------------------------------------------------- losses, card 4
def lgf_kl(target: torch.Tensor, student: torch.Tensor, tau: float = TAU, where: torch.Tensor | None = None) -> torch.Tensor:
    """L_feat per clip (b,): KL(P* || Q), summed over offsets, mean over pairs of frames and places.

    Args:
        target, student: logits (b, t - 1, h, w, n); the target gets no gradient.
        where: (b, t - 1, h, w) bool, places that count; None is all (the card's default, A10).

    Raises:
        MotionLabError: shapes that differ (naming the grids), tau of 0 or less.
    """
    _demand_same(target, student), demand_tau(tau)
    log_p, log_q = (target.detach() / tau).log_softmax(-1), (student / tau).log_softmax(-1)
    return _mean((log_p.exp() * (log_p - log_q)).sum(-1), where)


def transport_kl(target: torch.Tensor, student: torch.Tensor, where: torch.Tensor, tau: float = TAU) -> torch.Tensor:
    """KL (b,) of distributions that are known, such as `exact_transport`'s, to the student's: target (b, t - 1, h, w, n) sums to 1."""
    _demand_same(target, student), demand_tau(tau)
    log_q = (student / tau).log_softmax(-1)
    return _mean((torch.xlogy(target, target) - target * log_q).sum(-1), where)


def lgf_l2(target: torch.Tensor, student: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared difference (b,) of S* and S over the offsets inside the frame (C10's rival)."""
    _demand_same(target, student)
    valid = target > OUTSIDE / 2
    squares = torch.where(valid, target.detach() - student, 0.0).square()
    return _mean(squares.sum(-1) / valid.sum(-1).clamp(min=1), where)


def feature_loss(target: torch.Tensor, student: torch.Tensor, how: str = "feat_cos") -> torch.Tensor:
    """Features against features (b,), both (b, t, h, w, C): "feat_cos", 1 - cosine; "feat_l2", mean squared difference of unit features."""
    one_of(how, LOSSES[2:], "feature loss")
    _demand_same(target, student)
    a, b = unit(target.detach()), unit(student)
    return _mean(1 - (a * b).sum(-1) if how == "feat_cos" else (a - b).square().mean(-1), None)


def _mean(values, where):
    """Mean over all but the clips; over the places of `where` alone, and 0 for a clip that has none."""
    if where is None:
        return values.flatten(1).mean(1)
    return (values * where).flatten(1).sum(1) / where.flatten(1).sum(1).clamp(min=1)


def demand_tau(tau: float) -> None:
    """Raises MotionLabError for a temperature of 0 or less."""
    if not tau > 0:
        raise MotionLabError(f"tau is {tau}.", fix="Give a temperature above 0, such as 0.1.")


def _demand_same(target, student):
    if target.shape != student.shape:
        raise MotionLabError(f"Teacher and student have grids of {tuple(target.shape)} and {tuple(student.shape)}.",
                             fix="Resample one of them: both must have the same frames, places and window.")


# ---------------------------------------------------------------------------------------------- the truth of a world's clip
def exact_transport(flow: np.ndarray, visible: np.ndarray, grid: tuple[int, int], radius: int = RADIUS) -> tuple[np.ndarray, np.ndarray]:
    """P*(d | p) from exact flow: the share of the pixels of cell p, seen in both frames, that land in cell p + d.

    Args:
        flow: (t, 2, H, W), pixels from each frame to the next one compared (`Clip.flow_between`). visible: (t, H, W), the surface at
            this pixel is still seen there. grid: (h, w) cells over the frame.

    Returns:
        (t, h, w, (2 radius + 1)^2) float32 that sum to 1, and (t, h, w) bool: cells of which no pixel stays in view and window have
        no distribution (all 0) and are left out.

    Raises:
        MotionLabError: shapes that do not fit; a frame that is no whole number of cells.
    """
    t, two, height, width = flow.shape
    h, w = grid
    if two != 2 or visible.shape != (t, height, width) or height % h or width % w:
        raise MotionLabError(f"Flow {flow.shape}, visibility {visible.shape} and a grid of {grid} do not fit.",
                             fix="Give (t, 2, H, W) and (t, H, W) with H and W whole multiples of the grid.")
    y, x = np.mgrid[:height, :width]
    cell_y, cell_x = y // (height // h), x // (width // w)
    to_y, to_x = (np.floor((at + 0.5 + flow[:, k]) / (size / cells)).astype(int)
                  for at, k, size, cells in ((y, 1, height, h), (x, 0, width, w)))
    dy, dx = to_y - cell_y, to_x - cell_x
    kept = visible & (np.abs(dy) <= radius) & (np.abs(dx) <= radius) & (to_y >= 0) & (to_y < h) & (to_x >= 0) & (to_x < w)
    n = (2 * radius + 1) ** 2
    counts = np.zeros((t, h, w, n))
    frame = np.broadcast_to(np.arange(t)[:, None, None], kept.shape)
    where = tuple(np.broadcast_to(a, kept.shape)[kept] for a in (frame, cell_y, cell_x, (dy + radius) * (2 * radius + 1) + dx + radius))
    np.add.at(counts, where, 1)
    total = counts.sum(-1)
    return (counts / np.maximum(total, 1)[..., None]).astype(np.float32), total > 0
