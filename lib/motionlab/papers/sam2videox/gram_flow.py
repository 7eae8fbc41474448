"""Local Gram Flow (card 3 and 4): where a place's features are found again in the next frame, as a distribution over a small window.

In the card's symbols: F features [B, T, h, w, C], n(.) their length brought to 1, p a place of the grid (h, w), d an offset (dy, dx) of
the window {-r..r}^2, S logits, tau the temperature, P* and Q the distributions of teacher and student.

    S[F]_t(p, d) = < n(F_t(p)), n(F_{t+1}(p + d)) >                      local_gram_flow
    S*           = alpha S[F_fwd] + (1 - alpha) S[F_bwd]                 fuse
    L_feat       = mean over b, t, p of sum_d P* log(P* / Q)             lgf_kl, P* = softmax(S* / tau), Q = softmax(S / tau)

S and the exact transport of a clip are of no paper: `motionlab.correlation`. Offsets outside the frame are no choice on either side:
their logit is `OUTSIDE` (card 4.3, A8).
"""
from __future__ import annotations

import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.correlation import OUTSIDE, RADIUS, band, unit
from motionlab.correlation import local_correlation as local_gram_flow

FUSIONS = ("lgf_logit", "lgf_prob", "feature", "fwd_only", "bwd_only")
LOSSES = ("lgf_kl", "lgf_l2", "feat_l2", "feat_cos")
TAU, ALPHA = 0.1, 0.5


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
    if how == "feature":
        a = torch.as_tensor(alpha, dtype=torch.float32, device=forward.device).reshape(-1, 1, 1, 1, 1)
        return local_gram_flow(a * unit(forward) + (1 - a) * unit(backward), radius)
    maps = {"fwd": lambda: local_gram_flow(forward, radius), "bwd": lambda: local_gram_flow(backward, radius, reverse=reverse_backward)}
    return maps[how[:3]]() if how in ("fwd_only", "bwd_only") else fuse_maps(maps["fwd"](), maps["bwd"](), how, alpha, tau)


def fuse_maps(forward: torch.Tensor, backward: torch.Tensor, how: str = "lgf_logit", alpha: float | torch.Tensor = ALPHA,
              tau: float = TAU) -> torch.Tensor:
    """`fuse` of the two directions' maps S, (b, t - 1, h, w, n) each: all ways but "feature", which has no maps of its own."""
    one_of(how, [way for way in FUSIONS if way != "feature"], "fusion of maps")
    if how in ("fwd_only", "bwd_only"):
        return forward if how == "fwd_only" else backward
    a = torch.as_tensor(alpha, dtype=torch.float32, device=forward.device).reshape(-1, 1, 1, 1, 1)
    if how == "lgf_logit":
        return a * forward + (1 - a) * backward
    mixed = a * (forward / tau).softmax(-1) + (1 - a) * (backward / tau).softmax(-1)
    return (tau * mixed.clamp(min=1e-30).log()).masked_fill(forward <= OUTSIDE / 2, OUTSIDE)


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


def feature_loss(target: torch.Tensor, student: torch.Tensor, how: str = "feat_cos", where: torch.Tensor | None = None) -> torch.Tensor:
    """Features against features (b,), both (b, t, h, w, C): "feat_cos", 1 - cosine; "feat_l2", mean squared difference of unit features.
    where: (b, t, h, w) bool, places that count."""
    one_of(how, LOSSES[2:], "feature loss")
    _demand_same(target, student)
    a, b = unit(target.detach()), unit(student)
    return _mean(1 - (a * b).sum(-1) if how == "feat_cos" else (a - b).square().mean(-1), where)


def of_frames(pairs: torch.Tensor | None) -> torch.Tensor | None:
    """Places of each frame (b, t, h, w) from those of each pair (b, t - 1, h, w): the last frame's are its pair's; None stays None."""
    return None if pairs is None else torch.cat([pairs, pairs[:, -1:]], 1)


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
