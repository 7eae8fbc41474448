"""Motion metrics: hybrid motion fidelity in both forms, its base metric, VBench-style dynamics, VTG's smoothness.

Sources: DeT (arXiv 2503.17350) for hybrid motion fidelity, DMT (arXiv 2311.17009) for the base metric, VBench for
dynamic degree and motion smoothness, VTG and AID for the Gini form of smoothness. Where a paper and its released code
differ, both are here under their own names; where either leaves something open, an option names it and says why its
default.

Tracks are (f, n, 2), (x, y) in pixels, numpy or torch; work happens on the tracks' device in their precision. `size`
is (h, w) in pixels. Scores are Python floats. A score that is 0/0 is NaN, never an exception; each docstring says
when.

Tracks that stand still. A zero displacement has no direction, so its cosine is 0/0; `static` chooses what counts:

    'nan'   the 0/0 of the released code: one still step makes the score NaN. Trackers hardly ever return an exact
            zero, exact tracks often do.
    'zero'  cosine 0: the usual epsilon, and the average of what a tracker's noise on a still point would give. Exact
            tracks with still steps then score below 1 against themselves.
    'skip'  steps at which both tracks stand still are left out of the mean (they agree, without direction), steps at
            which one does count 0. A pair that never moves has no cosine.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError, one_of

STATIC = ("skip", "zero", "nan")
COORDS = ("frame", "diagonal", "pixels")
MATCHES = ("index", "best")
MIN_VISIBLE = 0.5
VBENCH_SMOOTHNESS_RANGE = (0.706, 0.9975)
_CELLS = {"cpu": 1 << 13, "other": 1 << 19}  # pairs per sweep: what stays in a core's cache, and what fills a GPU
_DISTANCES = 1 << 24  # point distances held at once by the released form


# ---------------------------------------------------------------- hybrid motion fidelity, as the paper writes it

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
    _check_options(static, coords)
    gen, src = _pair(gen, src)
    _same_length(gen, src)
    gen, src = _visible_pair(gen, src, gen_visibility, src_visibility, together=match == "index")
    gen, src = (_scaled(tracks, size, coords) for tracks in (gen, src))
    if match == "index":
        distance = _frechet_of_pairs(gen, src)
        cosine = _cosines_of_pairs(gen, src, static)
    else:
        distance = _frechet_matrix(gen.transpose(0, 1), src.transpose(0, 1))
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


def discrete_frechet(a, b):
    """Discrete Frechet distance between every track of `a` and every track of `b`.

    c(i, j) = max(d(i, j), min(c(i-1, j), c(i, j-1), c(i-1, j-1))), swept along antidiagonals for blocks of pairs at
    once; memory stays at some megabytes beside the result. Equals shapely.frechet_distance for tracks of equal
    length; for unequal lengths that function (GEOS 3.14) returns larger values than the recursion on some pairs.

    Args:
        a: (n, f, 2), any unit.
        b: (m, f', 2), same unit; lengths may differ.

    Returns:
        (n, m), in the unit of the tracks; numpy for numpy, torch for torch.

    Raises:
        MotionLabError: wrong shapes or values that are not finite.
    """
    first, second = _same_kind(_tensor(a, "a", "(n, f, 2)"), _tensor(b, "b", "(m, f, 2)"))
    result = _frechet_matrix(first, second)
    return result if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor) else result.numpy()


def _frechet_matrix(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(n, f, 2), (m, f', 2) -> (n, m), block by block so that a sweep's buffers stay in cache."""
    cells = _CELLS["cpu" if a.device.type == "cpu" else "other"]
    columns = min(len(b), cells)
    rows = max(1, cells // columns)
    out = a.new_empty(len(a), len(b))
    # (2, f, n): pairs lie side by side
    first, second = a.permute(2, 1, 0).contiguous(), b.permute(2, 1, 0).contiguous()
    for n in range(0, len(a), rows):
        for m in range(0, len(b), columns):
            out[n:n + rows, m:m + columns] = _sweep(first[:, :, n:n + rows, None], second[:, :, None, m:m + columns])
    return out


def _frechet_of_pairs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(f, n, 2), (f', n, 2) -> (n)."""
    first, second = a.permute(2, 0, 1).contiguous(), b.permute(2, 0, 1).contiguous()
    return _sweep(first[..., None], second[..., None])[:, 0]


def _sweep(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Frechet recursion for a (2, f, p, 1 or q) and b (2, f', 1 or p, q), which broadcast to (p, q) pairs."""
    f, g = a.shape[1], b.shape[1]
    pairs = torch.broadcast_shapes(a.shape[2:], b.shape[2:])
    backwards = b.flip(1).contiguous()  # so that an antidiagonal j = k - i is a slice
    # Row i of an antidiagonal is kept at i + 1; row 0 and rows outside the table are infinite.
    before, last, now = (a.new_full((f + 1, *pairs), math.inf) for _ in range(3))
    space_x, space_y = a.new_empty(2, f, *pairs)
    for k in range(f + g - 1):
        low, high = max(0, k - g + 1), min(f, k + 1)
        there = slice(g - 1 - k + low, g - 1 - k + high)
        dx, dy = space_x[:high - low], space_y[:high - low]
        torch.sub(a[0, low:high], backwards[0, there], out=dx)
        torch.sub(a[1, low:high], backwards[1, there], out=dy)
        squared = dx.mul_(dx).addcmul_(dy, dy)
        cell = now[low + 1:high + 1]
        if k == 0:
            cell.copy_(squared)
        else:
            torch.minimum(last[low:high], last[low + 1:high + 1], out=cell)
            torch.minimum(cell, before[low:high], out=cell)
            torch.maximum(cell, squared, out=cell)
        now[low].fill_(math.inf)
        before, last, now = last, now, before
    return last[f].sqrt()


# ---------------------------------------------------------------- hybrid motion fidelity, as released

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
    _check_options(static, "frame")
    if n_ids is not None and n_ids < 1:
        raise MotionLabError(f"n_ids is {n_ids}.", fix="Give a positive number of track ids, or None for all tracks.")
    gen, src = _pair(gen, src)
    gen, src = _visible_pair(gen, src, gen_visibility, src_visibility, together=False)
    gen, src = (_scaled(tracks, size, "frame") for tracks in _to_shorter(gen, src))
    cosine = _best_mean(_cosine_matrix(gen, src, static, include_first), static)
    if not frechet:
        return _report(cosine, cosine.new_tensor(math.nan), cosine, parts)
    a, b = gen, src
    if n_ids is not None:
        generator = generator or torch.Generator().manual_seed(seed)
        ids = torch.randint(min(gen.shape[1], src.shape[1]), (n_ids,), generator=generator).to(gen.device)
        a, b = gen[:, ids], src[:, ids]
    distance = (1 / (1 + _mean_distances(a, b))).max(dim=1).values.mean()
    return _report((cosine + distance) / 2, distance, cosine, parts)


def _mean_distances(gen: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    """Mean over all pairs of times of |gen[t, n] - src[t', m]|: (f, n, 2), (f', m, 2) -> (n, m)."""
    f, n, _ = gen.shape
    g, m, _ = src.shape
    a, b = gen.transpose(0, 1), src.transpose(0, 1).reshape(m * g, 2)
    rows = max(1, _DISTANCES // (f * g * m))
    # 'donot_use_mm': the fast form subtracts large squares and is not 0 between equal points.
    blocks = [torch.cdist(a[k:k + rows].reshape(-1, 2), b, compute_mode="donot_use_mm_for_euclid_dist")
              .view(-1, f, m, g).mean(dim=(1, 3)) for k in range(0, n, rows)]
    return torch.cat(blocks)


def _to_shorter(gen: torch.Tensor, src: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    length = min(len(gen), len(src))
    return tuple(tracks if len(tracks) == length else tracks[torch.linspace(0, len(tracks) - 1, length).long()]
                 for tracks in (gen, src))


# ---------------------------------------------------------------- base metric (DMT)

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
    _check_options(static, "pixels")
    gen, src = _pair(gen, src)
    _same_length(gen, src)
    gen, src = _visible_pair(gen, src, gen_visibility, src_visibility, together=False)
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


# ---------------------------------------------------------------- cosines of displacements

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


# ---------------------------------------------------------------- VBench style: dynamic degree and smoothness

@dataclass(frozen=True)
class DynamicDegree:
    """`dynamic`: VBench's verdict on the clip. `top5`: mean over pairs of the mean of the fastest 5 % of pixels, in
    pixels per sampled pair. `relative`: the same as a multiple of the threshold, comparable between sizes. `share`:
    share of pairs above the threshold."""

    dynamic: bool
    top5: float
    relative: float
    share: float


def dynamic_degree(flow, fps: float, sample_fps: float = 8.0, threshold: float = 6.0,
                   count: float = 4.0) -> DynamicDegree:
    """VBench-style dynamic degree of one clip, from any flow (VBench itself runs RAFT on the sampled frames).

    A sampled pair moves if the mean of its top 5 % of speeds exceeds 6 min(h, w) / 256 pixels; the clip is dynamic if
    at least round(4 n / 16) pairs move (never fewer than one), n the number of sampled frames. Frames are sampled
    every k = round(fps / 8) frames; as no flow between sampled frames is at hand, that of a frame and its neighbour
    is taken k times, which is exact for motion that is straight over k frames.

    Args:
        flow: (f-1, 2, h, w), pixels per frame; numpy or torch.
        fps: frames per second of the clip.
        sample_fps, threshold, count: VBench's constants.

    Raises:
        MotionLabError: wrong shape, flow that is not finite, fps <= 0.
    """
    field = _flow(flow)
    if not fps > 0:
        raise MotionLabError(f"fps is {fps}.", fix="Give the clip's frame rate, as read from its file.")
    stride = max(1, round(fps / sample_fps))
    sampled = field[::stride]
    speed = stride * torch.linalg.vector_norm(sampled, dim=1).flatten(1)
    top5 = speed.topk(max(1, int(speed.shape[1] * 0.05)), dim=1).values.mean(dim=1)
    limit = threshold * min(field.shape[-2:]) / 256
    moving = top5 > limit
    needed = max(1, round(count * (len(sampled) + 1) / 16))
    mean = float(top5.mean())
    return DynamicDegree(bool(moving.sum() >= needed), mean, mean / limit, float(moving.double().mean()))


def motion_smoothness(frames, flow, normalise: bool = False) -> float:
    """VBench-style motion smoothness: drop every other frame, rebuild it, 1 - mean |error| (in [0, 1] of full scale).

    VBench rebuilds with the AMT-S interpolation network. Here both neighbours are warped half-way along the given
    flow (the two-frame displacement, chained from the two flows, halved: motion is taken as straight over two frames)
    and averaged; occlusion is not handled. So numbers compare between clips under this function, not with VBench's
    tables. A frozen clip scores 1: smoothness rewards it.

    Args:
        frames: (f, h, w, 3) uint8, or float in [0, 1].
        flow: (f-1, 2, h, w), forward, pixels per frame.
        normalise: VBench's min-max step to its published range 0.706-0.9975.

    Raises:
        MotionLabError: wrong shapes, fewer than three frames, a flow of another clip or size, values that are not
        finite.
    """
    video, field = _frames(frames), _flow(flow)
    if len(video) < 3:
        raise MotionLabError(f"The clip has {len(video)} frames.", fix="Smoothness needs at least three frames.")
    if (len(field) + 1, *field.shape[-2:]) != (len(video), *video.shape[-2:]):
        raise MotionLabError(f"The flow {tuple(field.shape)} does not belong to frames {tuple(np.shape(frames))}.",
                             fix="Flow is (f-1, 2, h, w) for frames (f, h, w, 3), at the same size.")
    field = field.to(video)
    dropped = torch.arange(1, len(video) - 1, 2)
    two_frames = field[dropped - 1] + _sample(field[dropped], field[dropped - 1])
    half = two_frames / 2
    for _ in range(3):  # the displacement is needed at the dropped frame, where the point has already gone half of it
        half = _sample(two_frames / 2, -half)
    rebuilt = (_sample(video[dropped - 1], -half) + _sample(video[dropped + 1], half)) / 2
    score = 1 - float((rebuilt - video[dropped]).abs().mean())
    low, high = VBENCH_SMOOTHNESS_RANGE
    return (score - low) / (high - low) if normalise else score


def _sample(images: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """images (b, c, h, w) read bilinearly at each pixel plus offset (b, 2, h, w); edges extend outwards."""
    h, w = images.shape[-2:]
    x = torch.arange(w, dtype=images.dtype, device=images.device) + offset[:, 0]
    y = torch.arange(h, dtype=images.dtype, device=images.device)[:, None] + offset[:, 1]
    grid = torch.stack([2 * x / max(w - 1, 1) - 1, 2 * y / max(h - 1, 1) - 1], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


# ---------------------------------------------------------------- VTG: even change along the clip

def adjacent_distances(items, distance: str | Callable = "rmse") -> np.ndarray:
    """Distance of each item to the next, (f-1,): VTG and AID use LPIPS on frames, which plugs in as a callable.

    Args:
        items: (f, ...) frames or per-frame features. Bytes are read as [0, 1].
        distance: 'rmse' (root mean square difference), 'cosine' (1 - cosine of the flattened items) or a function of
            two items that returns a number.

    Raises:
        MotionLabError: fewer than three items, values that are not finite, an unknown name.
    """
    tensor = torch.as_tensor(np.asarray(items) if not isinstance(items, torch.Tensor) else items)
    if tensor.ndim < 2 or len(tensor) < 3:
        raise MotionLabError(f"Items of shape {tuple(tensor.shape)} leave fewer than two distances to compare.",
                             fix="Give at least three frames or features: (f, ...).")
    if callable(distance):
        return np.array([float(distance(items[t], items[t + 1])) for t in range(len(tensor) - 1)])
    one_of(distance, ("rmse", "cosine"), "distance")
    flat = (tensor.double() / (255 if tensor.dtype == torch.uint8 else 1)).flatten(1)
    if not torch.isfinite(flat).all():
        raise MotionLabError("Items hold values that are not finite.", fix="Check the features or frames first.")
    if distance == "rmse":
        return (flat.diff(dim=0) ** 2).mean(dim=1).sqrt().cpu().numpy()
    return (1 - F.cosine_similarity(flat[:-1], flat[1:], dim=1)).cpu().numpy()


def gini(distances) -> float:
    """G = sum_ij |d_i - d_j| / (2 M^2 mean(d)), in [0, 1 - 1/M]; NaN where all distances are zero (0/0)."""
    d = np.asarray(distances, float)
    if d.ndim != 1 or len(d) < 2:
        raise MotionLabError(f"Distances have shape {d.shape}.", fix="Give at least two distances: (M,).")
    if not d.any():
        return math.nan
    return float(np.abs(d[:, None] - d[None]).sum() / (2 * len(d) ** 2 * d.mean()))


def vtg_smoothness(items, distance: str | Callable = "rmse", form: str = "1-G") -> float:
    """VTG's smoothness: the Gini coefficient G of adjacent distances, turned so that larger is smoother.

    Blind to the amount of motion: a nearly frozen clip with even leftovers scores high, so show `consistency` beside
    it.

    Args:
        items, distance: see `adjacent_distances`.
        form: '1-G' (default: bounded, and what AID's code returns) or '1/G' (VTG's wording, "reciprocal"); the latter
            is infinite for perfectly even change.

    Returns:
        the score; NaN for an exactly frozen clip (0/0).
    """
    one_of(form, ("1-G", "1/G"), "form")
    g = gini(adjacent_distances(items, distance))
    if form == "1-G":
        return 1 - g
    return math.inf if g == 0 else 1 / g


def consistency(items, distance: str | Callable = "rmse") -> dict[str, float]:
    """AID's companion of smoothness: {'mean', 'max'} of adjacent distances; smaller is steadier, frozen 0."""
    d = adjacent_distances(items, distance)
    return {"mean": float(d.mean()), "max": float(d.max())}


# ---------------------------------------------------------------- points and masks

def points_in_mask_box(points, mask, size=None, exclude_last: bool = True):
    """Which points lie in the bounding box of a mask: how DeT's evaluation keeps grid points, for both clips alike.

    Args:
        points: (n, 2), (x, y) in pixels.
        mask: (h, w), bool or any number ("foreground" is not 0), of the source's first frame.
        size: (h, w) of the frames, to check the mask against.
        exclude_last: leave out the box's last row and column, as the release's half-open slices do.

    Returns:
        (n,) bool, numpy for numpy points, torch for torch.

    Raises:
        MotionLabError: empty or wrong-sized mask, points of another shape or NaN, or no point inside the mask's
        frame.
    """
    xy, inside = _points(points), _mask(mask, size)
    _same_frame(xy, inside)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    low, high = (columns[0], rows[0]), (columns[-1], rows[-1])
    below = xy < high if exclude_last else xy <= high
    return _as_given(((xy >= low) & below).all(1), points)


def points_in_mask(points, mask, size=None):
    """Which points (n, 2) lie on a mask (h, w), by nearest pixel, as `points_in_mask_box`; False outside the frame."""
    xy, inside = _points(points), _mask(mask, size)
    _same_frame(xy, inside)
    h, w = inside.shape
    column, row = np.rint(xy).astype(int).T
    within = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    return _as_given(within & inside[row.clip(0, h - 1), column.clip(0, w - 1)], points)


def seen_tracks(visibility, min_visible: float = MIN_VISIBLE):
    """Which tracks are seen in at least a share of the frames: (f, n) -> (n,) bool.

    Raises:
        MotionLabError: wrong shape, or no track is seen often enough.
    """
    seen = torch.as_tensor(np.asarray(visibility) if not isinstance(visibility, torch.Tensor) else visibility)
    if seen.ndim != 2 or 0 in seen.shape:
        raise MotionLabError(f"Visibility has shape {tuple(seen.shape)}.", fix="Visibility is (f, n), bool.")
    kept = seen.double().mean(dim=0) >= min_visible
    if not seen.any():
        raise MotionLabError("All points are invisible in all frames.",
                             fix="Query points on something that can be seen, or leave visibility out to use all.")
    if not kept.any():
        raise MotionLabError(f"No track is seen in at least {min_visible:.0%} of the frames.",
                             fix="Query other points, select tracks yourself with a lower share "
                                 "(seen_tracks(visibility, 0.2)), or leave visibility out to use every track.")
    return kept if isinstance(visibility, torch.Tensor) else kept.numpy()


# ---------------------------------------------------------------- checks shared by all

def _pair(gen, src) -> tuple[torch.Tensor, torch.Tensor]:
    gen, src = (_tensor(tracks, name, "(f, n, 2)", finite=False) for tracks, name in ((gen, "gen"), (src, "src")))
    for tracks, name in ((gen, "gen"), (src, "src")):
        if len(tracks) < 2:
            raise MotionLabError(f"Tracks `{name}` have one frame only.", fix="Motion needs at least two frames.")
    return _same_kind(gen, src)


def _tensor(tracks, name: str, form: str, finite: bool = True) -> torch.Tensor:
    tensor = tracks if isinstance(tracks, torch.Tensor) else torch.from_numpy(np.array(tracks))
    if tensor.ndim != 3 or tensor.shape[-1] != 2 or 0 in tensor.shape:
        raise MotionLabError(f"Tracks `{name}` have shape {tuple(tensor.shape)}.",
                             fix=f"Tracks are {form} here, (x, y) in pixels; one clip at a time, visibility apart.")
    tensor = tensor.detach()
    tensor = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    if finite:
        _check_finite(tensor, name)
    return tensor


def _same_kind(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if a.device != b.device:
        raise MotionLabError(f"One clip's tracks are on {a.device}, the other's on {b.device}.",
                             fix="Move both to one device.")
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)


def _check_finite(tracks: torch.Tensor, name: str) -> None:
    bad = (~torch.isfinite(tracks)).any(-1)
    if bad.any():
        t, n = (int(index) for index in bad.nonzero()[0])
        raise MotionLabError(f"Tracks `{name}` hold NaN or infinite positions at {int(bad.sum())} places, "
                             f"first in frame {t}, track {n}.",
                             fix="Keep finite tracks only: tracks[:, np.isfinite(tracks).all((0, 2))].")


def _same_length(gen: torch.Tensor, src: torch.Tensor) -> None:
    if len(gen) != len(src):
        raise MotionLabError(f"The generated clip's tracks have {len(gen)} frames, the source's {len(src)}.",
                             fix="Subsample the longer to the shorter: "
                                 "tracks[np.linspace(0, f_long - 1, f_short).astype(int)].")


def _visible_pair(gen, src, gen_visibility, src_visibility, together: bool):
    """Drop the tracks that are hardly seen, then insist on finite positions."""
    if together and gen.shape[1] != src.shape[1]:
        raise MotionLabError(f"The generated clip has {gen.shape[1]} tracks, the source {src.shape[1]}: "
                             "they cannot be paired by index.",
                             fix="Query the same points in both clips, or pass match='best'.")
    kept = [_kept(tracks, visibility, name) for tracks, visibility, name in
            ((gen, gen_visibility, "gen"), (src, src_visibility, "src"))]
    if together:
        kept = [kept[0] & kept[1]] * 2
        if not kept[0].any():
            raise MotionLabError("No track is seen in at least half of the frames of both clips.",
                                 fix="Query other points, pass match='best', or leave visibility out.")
    gen, src = gen[:, kept[0]], src[:, kept[1]]
    _check_finite(gen, "gen")
    _check_finite(src, "src")
    return gen, src


def _kept(tracks: torch.Tensor, visibility, name: str) -> torch.Tensor:
    if visibility is None:
        return torch.ones(tracks.shape[1], dtype=torch.bool, device=tracks.device)
    if tuple(np.shape(visibility)) != tuple(tracks.shape[:2]):
        raise MotionLabError(f"`{name}_visibility` has shape {tuple(np.shape(visibility))}, "
                             f"its tracks {tuple(tracks.shape)}.",
                             fix="Visibility is (f, n) for tracks (f, n, 2).")
    return torch.as_tensor(seen_tracks(visibility)).to(tracks.device)


def _scaled(tracks: torch.Tensor, size, coords: str) -> torch.Tensor:
    h, w = _size(size)
    unit = {"frame": (w, h), "diagonal": (math.hypot(h, w),) * 2, "pixels": (1, 1)}[coords]
    return tracks / tracks.new_tensor(unit)


def _size(size) -> tuple[float, float]:
    try:
        h, w = (float(side) for side in size)
        positive = h > 0 and w > 0
    except (TypeError, ValueError):
        positive = False
    if not positive:
        raise MotionLabError(f"The frame size is {size!r}.", fix="Give size=(height, width) in pixels.")
    return h, w


def _check_options(static: str, coords: str) -> None:
    one_of(static, STATIC, "choice for `static`")
    one_of(coords, COORDS, "choice for `coords`")


def _report(score: torch.Tensor, distance: torch.Tensor, cosine: torch.Tensor, parts: bool):
    if not parts:
        return float(score)
    return {"score": float(score), "distance": float(distance), "cosine": float(cosine)}


def _flow(flow) -> torch.Tensor:
    tensor = flow if isinstance(flow, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(flow))
    if tensor.ndim != 4 or tensor.shape[1] != 2 or 0 in tensor.shape:
        raise MotionLabError(f"The flow has shape {tuple(tensor.shape)}.",
                             fix="Flow is (f-1, 2, h, w), pixels per frame.")
    tensor = tensor.detach() if tensor.dtype in (torch.float32, torch.float64) else tensor.detach().float()
    if not torch.isfinite(tensor).all():
        raise MotionLabError("The flow holds values that are not finite.", fix="Set them to 0 or mask them out first.")
    return tensor


def _frames(frames) -> torch.Tensor:
    """(f, h, w, 3) bytes or [0, 1] -> (f, 3, h, w) float in [0, 1]."""
    tensor = frames if isinstance(frames, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(frames))
    if tensor.ndim != 4 or tensor.shape[-1] != 3 or 0 in tensor.shape:
        raise MotionLabError(f"Frames have shape {tuple(tensor.shape)}.", fix="Frames are (f, h, w, 3), RGB.")
    scale = 255 if tensor.dtype == torch.uint8 else 1
    tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
    tensor = tensor.movedim(-1, 1) / scale
    if not torch.isfinite(tensor).all() or tensor.min() < 0 or tensor.max() > 1:
        raise MotionLabError("Float frames lie outside [0, 1] or are not finite.",
                             fix="Pass uint8 frames, or rescale: (video + 1) / 2 for [-1, 1].")
    return tensor


def _points(points) -> np.ndarray:
    xy = points.detach().cpu().numpy() if isinstance(points, torch.Tensor) else np.asarray(points)
    if xy.ndim != 2 or xy.shape[-1] != 2 or not len(xy):
        raise MotionLabError(f"Points have shape {xy.shape}.",
                             fix="Points are (n, 2), (x, y) in pixels: tracks[0] for the first frame.")
    if not np.isfinite(xy).all():
        raise MotionLabError("Points hold NaN or infinite positions.", fix="Keep finite points only.")
    return xy


def _mask(mask, size) -> np.ndarray:
    inside = (mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)) != 0
    if inside.ndim != 2:
        raise MotionLabError(f"The mask has shape {inside.shape}.", fix="Pass one frame's mask (h, w): masks[0].")
    if size is not None and inside.shape != tuple(int(side) for side in _size(size)):
        raise MotionLabError(f"The mask is {inside.shape[0]} x {inside.shape[1]}, "
                             f"the frames {size[0]} x {size[1]} (h x w).",
                             fix="Resize the mask to the frames, nearest neighbour.")
    if not inside.any():
        raise MotionLabError("The mask is empty: no pixel of the first frame is foreground.",
                             fix="Check the mask's file and object id, or use all points.")
    return inside


def _same_frame(xy: np.ndarray, inside: np.ndarray) -> None:
    h, w = inside.shape
    if not ((xy > -1) & (xy < (w, h))).all(1).any():
        raise MotionLabError(f"No point lies within the mask's {h} x {w} pixels.",
                             fix="Points are (x, y) in pixels of the mask's frame: "
                                 "check the mask's size and the points' scale.")


def _as_given(kept: np.ndarray, given):
    return torch.from_numpy(kept).to(given.device) if isinstance(given, torch.Tensor) else kept
