"""Motion fidelity: hybrid, as its paper writes it and as released; the base metric (DMT); cosines of displacements."""
from __future__ import annotations

import math

import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.metrics.motion.checks import check_options, check_same_length, checked_pair, scaled, visible_pair
from motionlab.metrics.motion.track_distance import frechet_matrix, frechet_of_pairs, mean_distances

MATCHES = ("index", "best")


def mf_paper(gen, src, size, alpha: float = 0.5, *, match: str = "index", coords: str = "frame", static: str = "skip",
             gen_visibility=None, src_visibility=None, parts: bool = False):
    """Hybrid motion fidelity in the paper's form: mean_n [alpha exp(-d_F(tau_n, tau'_n)) + (1 - alpha) cos_n].

    d_F is the discrete Frechet distance, cos_n the mean cosine of the two tracks' displacements per frame. A clip
    against itself scores 1.

    Args:
        gen: (f, n, 2) tracks of the generated clip, pixels.
        src: (f, m, 2) tracks of the source clip, pixels.
        size: (h, w) of the frame.
        alpha: weight of the distance; 0.5 in the paper.
        match: 'index' pairs tau_n with tau'_n, as printed; it needs the same queries in both clips. 'best' takes for
            each generated track the one source track with the highest sum of both terms (the released code takes the
            maximum of each term on its own; the paper's formula speaks of one track).
        coords: units of d_F, which the paper leaves open: 'frame' divides x by w and y by h (default: the released
            code does), 'diagonal' divides both by the frame's diagonal, 'pixels' divides by nothing.
        static: see the module; 'skip' by default, so that any clip that moves scores 1 against itself. A pair that
            stands still throughout is scored by its distance alone.
        gen_visibility, src_visibility: (f, n), (f, m) bool. Tracks seen in less than half of the frames are left out;
            with 'index' the pair is. The paper does not say.
        parts: also return the terms: {'score', 'distance', 'cosine'}, each the mean over generated tracks.

    Returns:
        the score in [-1, 1], or the dict. NaN where neither clip moves anywhere (0/0 in every cosine).

    Raises:
        MotionLabError: wrong shapes, tracks of different lengths, NaN tracks, no visible track, unknown options; with
            match='index' also different numbers of tracks.
    """
    one_of(match, MATCHES, "match")
    if not 0 <= alpha <= 1:
        raise MotionLabError(f"alpha is {alpha}: it weighs one term against the other.", fix="Give a number from 0 to 1.")
    check_options(static, coords)
    gen, src = checked_pair(gen, src)
    check_same_length(gen, src)
    gen, src = visible_pair(gen, src, gen_visibility, src_visibility, together=match == "index")
    gen, src = (scaled(tracks, size, coords) for tracks in (gen, src))
    if match == "index":
        distance = frechet_of_pairs(gen, src)
        cosine = _cosines_of_pairs(gen, src, static)
    else:
        distance = frechet_matrix(gen.transpose(0, 1), src.transpose(0, 1))
        cosine = _cosine_matrix(gen, src, static)
    nearness = torch.exp(-distance)
    score = alpha * nearness + (1 - alpha) * cosine
    if static == "skip":
        score = torch.where(cosine.isnan(), nearness, score)
        if not (_moving(gen).any() or _moving(src).any()):
            score = torch.full_like(score, math.nan)
    if match == "best":
        score, chosen = score.max(dim=1)
        nearness, cosine = (term.gather(1, chosen[:, None])[:, 0] for term in (nearness, cosine))
    return _report(score.mean(), nearness.mean(), cosine.nanmean() if static == "skip" else cosine.mean(), parts)


def mf_release(gen, src, size, n_ids: int | None = 50, generator=None, *, seed: int = 0, include_first: bool = True,
               frechet: bool = True, static: str = "zero", gen_visibility=None, src_visibility=None,
               parts: bool = False):
    """Hybrid motion fidelity as DeT's `evaluation.py` computes it.

    Positions are divided by (w, h); s[n] = the first position and all displacements, each scaled to unit length;
    Cos = mean_t <s_gen, s_src>; Dist = 1 / (1 + d) with d the mean over ALL pairs of times of the points' distance
    (what the code calls Frechet is none, and it is not 0 for equal tracks); MF = (mean_n max_m Cos + mean_n max_m
    Dist) / 2. A clip against itself scores 0.92-0.96, unrelated clips about 0.5.

    Args:
        gen, src: (f, n, 2) and (f', m, 2), pixels. The longer clip is subsampled by linspace to the shorter, as
            released.
        size: (h, w).
        n_ids: how many track ids, shared by both clips and drawn with replacement, Dist looks at; 50 as released.
            None takes all tracks and draws nothing. Where the clips have different numbers of tracks, ids come from
            those that both have.
        generator: torch.Generator on the CPU for the ids. The release draws without a seed; here `seed` serves if
            None.
        include_first: keep the unit vector of the first position, as released; it rewards the same direction from the
            image's corner.
        frechet: add the Dist term (the release's `--add_frechet_score`); False gives the Cos part alone, its default.
        static: see the module; 'zero' by default, because the tracks the release was run on have no exact zeros, so
            its literal 0/0 ('nan') never showed there, while exact tracks would make it spread everywhere.
        gen_visibility, src_visibility: tracks seen in less than half of the frames are left out. The release ignores
            visibility: None, the default.
        parts: also return the terms: {'score', 'distance', 'cosine'}.

    Returns:
        the score, or the dict. NaN with static='nan' where a track has a still step, and with 'skip' where neither
        clip moves anywhere.

    Raises:
        MotionLabError: wrong shapes, NaN tracks, no visible track, fewer than one id, unknown options.
    """
    check_options(static, "frame")
    if n_ids is not None and n_ids < 1:
        raise MotionLabError(f"n_ids is {n_ids}.", fix="Give a positive number of track ids, or None for all tracks.")
    gen, src = checked_pair(gen, src)
    gen, src = visible_pair(gen, src, gen_visibility, src_visibility, together=False)
    gen, src = (scaled(tracks, size, "frame") for tracks in to_shorter(gen, src))
    cosine = _best_mean(_cosine_matrix(gen, src, static, include_first), static)
    if not frechet:
        return _report(cosine, cosine.new_tensor(math.nan), cosine, parts)
    a, b = gen, src
    if n_ids is not None:
        generator = generator or torch.Generator().manual_seed(seed)
        ids = torch.randint(min(gen.shape[1], src.shape[1]), (n_ids,), generator=generator).to(gen.device)
        a, b = gen[:, ids], src[:, ids]
    distance = (1 / (1 + mean_distances(a, b))).max(dim=1).values.mean()
    return _report((cosine + distance) / 2, distance, cosine, parts)


def to_shorter(gen: torch.Tensor, src: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tracks (f, n, 2) and (f', m, 2), the longer ones at evenly spread frames of theirs, as many as the shorter have (as released)."""
    length = min(len(gen), len(src))
    return tuple(tracks if len(tracks) == length else tracks[torch.linspace(0, len(tracks) - 1, length).long()]
                 for tracks in (gen, src))


def _report(score: torch.Tensor, distance: torch.Tensor, cosine: torch.Tensor, parts: bool):
    if not parts:
        return float(score)
    return {"score": float(score), "distance": float(distance), "cosine": float(cosine)}


def mf_dmt(gen, src, two_sided: bool = False, minus_identity: bool = True, *, static: str = "zero",
           gen_visibility=None, src_visibility=None) -> float:
    """Motion fidelity of DMT: mean over generated tracks of the best mean cosine with a source track's displacements.

    Positions do not enter, in pixels as the script has them.

    Args:
        gen, src: (f, n, 2) and (f, m, 2), pixels.
        two_sided: the mean of both directions, so that the score stays in [-1, 1] (the paper states both directions;
            the script, and so the default, has generated -> source only).
        minus_identity: subtract the identity from the cosine matrix before the maximum, as the script does: a track
            can then hardly match the source track of its own index. False leaves it out.
        static: see the module; 'zero' by default, for the reason given in `mf_release`.
        gen_visibility, src_visibility: tracks seen in less than half of the frames are left out (the script: none).

    Returns:
        the score. NaN with static='nan' where a track has a still step, with 'skip' where neither clip moves
        anywhere.

    Raises:
        MotionLabError: wrong shapes, tracks of different lengths, NaN tracks, no visible track, unknown options.
    """
    check_options(static, "pixels")
    gen, src = checked_pair(gen, src)
    check_same_length(gen, src)
    gen, src = visible_pair(gen, src, gen_visibility, src_visibility, together=False)
    cosine = _cosine_matrix(gen, src, static)
    if minus_identity:
        cosine = cosine - torch.eye(*cosine.shape, dtype=cosine.dtype, device=cosine.device)
    score = _best_mean(cosine, static)
    if two_sided:
        score = (score + _best_mean(cosine.T, static)) / 2
    return float(score)


def _best_mean(matrix: torch.Tensor, static: str) -> torch.Tensor:
    """mean_n max_m; with 'skip', pairs without a cosine are passed over, and so are rows that have none."""
    if static != "skip":
        return matrix.max(dim=1).values.mean()
    best = torch.where(matrix.isnan(), -math.inf, matrix).max(dim=1).values
    return torch.where(best.isinf(), math.nan, best).nanmean()


def _cosine_matrix(gen: torch.Tensor, src: torch.Tensor, static: str, include_first: bool = False) -> torch.Tensor:
    """Mean over steps of the cosine of displacements: (f, n, 2), (f, m, 2) -> (n, m)."""
    a, b = _directions(gen, static, include_first), _directions(src, static, include_first)
    total = torch.einsum("tnc,tmc->nm", a, b)
    return total / _steps(gen, src, static, include_first, "tn,tm->nm")


def _cosines_of_pairs(gen: torch.Tensor, src: torch.Tensor, static: str) -> torch.Tensor:
    total = (_directions(gen, static) * _directions(src, static)).sum(dim=(0, 2))
    return total / _steps(gen, src, static, False, "tn,tn->n")


def _directions(tracks: torch.Tensor, static: str, include_first: bool = False) -> torch.Tensor:
    steps = tracks.diff(dim=0)
    if include_first:
        steps = torch.cat([tracks[:1], steps])
    length = torch.linalg.vector_norm(steps, dim=-1, keepdim=True)
    if static != "nan":
        length = torch.where(length > 0, length, 1)
    return steps / length


def _steps(gen: torch.Tensor, src: torch.Tensor, static: str, include_first: bool, pairs: str):
    """How many entries the mean runs over; with 'skip' 0, hence 0/0 = NaN, for pairs that never move."""
    count = len(gen) - 1 + int(include_first)
    if static != "skip":
        return count
    still = [(~_moving(tracks)).to(gen.dtype) for tracks in (gen, src)]
    both_still = torch.einsum(pairs, *still)
    # Without a single moving step the first position alone says nothing about motion.
    return torch.where(both_still == len(gen) - 1, math.nan, count - both_still)


def _moving(tracks: torch.Tensor) -> torch.Tensor:
    return (tracks.diff(dim=0) != 0).any(-1)
