"""Motion metrics: golden values, agreement with a library, what each can and cannot see, stillness, bad input."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.metrics.changes import CHANGES
from motionlab.metrics.motion import (adjacent_distances, consistency, discrete_frechet, dynamic_degree, gini,
                                      gini_smoothness, mf_dmt, mf_paper, mf_release, motion_smoothness, points_in_mask,
                                      points_in_mask_box, seen_tracks, track_distance)

SIZE = (48, 64)
MTBENCH = Path(__file__).parents[2] / "shared" / "data" / "mtbench"


def walk(f=17, n=20, seed=0):
    """Smooth tracks that never stand still: a common path and a swing of its own for each point."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, f)[:, None, None]
    path = np.array([20.0, 4.0]) * t + rng.uniform(10, 30, (1, n, 2))
    return path + rng.uniform(1, 4, (1, n, 2)) * np.sin(2 * np.pi * t + rng.uniform(0, 6, (1, n, 2)))


def still(f=17, n=20):
    return np.broadcast_to(walk(f, n)[:1], (f, n, 2)).copy()


def change(name, tracks, seed=0, **extra):
    return CHANGES[name](tracks, np.random.default_rng(seed), SIZE, **extra)


def mtbench(case):
    path = MTBENCH / case / "trajectories" / f"{case}.pth"
    if not path.exists():
        pytest.skip(f"no MTBench case at {path.parent}")
    return torch.load(path, weights_only=True)[..., :2].double() * torch.tensor([720.0, 480.0]).double()


# ---------------------------------------------------------------- discrete Frechet distance

@pytest.mark.parametrize("f", [2, 3, 17, 49])
def test_frechet_agrees_with_shapely(f):
    # Equal lengths only: for unequal ones GEOS 3.14's sparse sweep returns more than the recursion on some pairs.
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(f)
    a, b = rng.normal(size=(7, f, 2)), rng.normal(size=(9, f, 2)).cumsum(1)
    theirs = [[shapely.frechet_distance(shapely.LineString(p), shapely.LineString(q)) for q in b] for p in a]
    np.testing.assert_allclose(discrete_frechet(a, b), theirs, rtol=1e-12)


def recursion(p, q):
    """c(i, j) = max(d(i, j), min(c(i-1, j), c(i, j-1), c(i-1, j-1))), cell by cell."""
    c = np.full((len(p) + 1, len(q) + 1), np.inf)
    c[0, 0] = 0
    for i in range(len(p)):
        for j in range(len(q)):
            c[i + 1, j + 1] = max(np.linalg.norm(p[i] - q[j]), min(c[i, j + 1], c[i + 1, j], c[i, j]))
    return c[-1, -1]


@pytest.mark.parametrize("f, g", [(5, 12), (12, 5), (9, 8), (1, 6), (6, 1), (1, 1)])
def test_frechet_of_unequal_lengths_follows_the_recursion(f, g):
    rng = np.random.default_rng(f * 100 + g)
    a, b = rng.normal(size=(7, f, 2)), rng.normal(size=(9, g, 2))
    np.testing.assert_allclose(discrete_frechet(a, b), [[recursion(p, q) for q in b] for p in a], rtol=1e-12)


def test_frechet_golden_values():
    line = np.stack([np.arange(5.0), np.zeros(5)], axis=-1)
    aside, back = line + [0, 3], line[::-1]
    np.testing.assert_allclose(discrete_frechet(line[None], np.stack([line, aside, back])), [[0, 3, 4]])


def test_frechet_does_not_depend_on_the_blocks(monkeypatch):
    a, b = walk(n=9).transpose(1, 0, 2), walk(n=11, seed=1).transpose(1, 0, 2)
    whole = discrete_frechet(a, b)
    monkeypatch.setitem(track_distance._CELLS, "cpu", 4)
    np.testing.assert_array_equal(discrete_frechet(a, b), whole)


def test_frechet_keeps_kind_and_precision():
    a = torch.rand(3, 5, 2)
    assert discrete_frechet(a, a).dtype == torch.float32
    assert isinstance(discrete_frechet(a.numpy(), a.numpy()), np.ndarray)
    assert torch.equal(discrete_frechet(a, a).diagonal(), torch.zeros(3))


# ---------------------------------------------------------------- golden values

@pytest.mark.parametrize("match", ["index", "best"])
def test_mf_paper_is_one_for_a_clip_against_itself(match):
    tracks = walk()
    tracks[:, 3] = tracks[0, 3]  # a point that stands still agrees with itself as well
    assert mf_paper(tracks, tracks, SIZE, match=match) == pytest.approx(1)


def test_mf_paper_by_hand():
    src = np.stack([np.arange(5.0), np.zeros(5)], axis=-1)[:, None]
    gen = src * [1, 0] + [0, 12]  # parallel, a quarter of the height below
    turned = src[..., ::-1]
    assert mf_paper(gen, src, SIZE) == pytest.approx(0.5 * math.exp(-0.25) + 0.5)
    assert mf_paper(gen, src, SIZE, coords="pixels") == pytest.approx(0.5 * math.exp(-12) + 0.5)
    assert mf_paper(gen, src, SIZE, coords="diagonal") == pytest.approx(0.5 * math.exp(-12 / 80) + 0.5)
    far = math.hypot(4 / 64, 4 / 48)
    assert mf_paper(turned, src, SIZE, alpha=0.3) == pytest.approx(0.3 * math.exp(-far))


def test_best_match_is_index_free():
    tracks = walk()
    assert mf_paper(tracks[:, ::-1], tracks, SIZE) < 0.95
    assert mf_paper(tracks[:, ::-1], tracks[:, :], SIZE, match="best") == pytest.approx(1)
    assert mf_paper(tracks[:, 4:9], tracks, SIZE, match="best") == pytest.approx(1)


def test_parts_add_up():
    gen, src = walk(), walk(seed=1)
    for result in (mf_paper(gen, src, SIZE, parts=True), mf_paper(gen, src, SIZE, match="best", parts=True),
                   mf_release(gen, src, SIZE, parts=True)):
        assert result["score"] == pytest.approx((result["distance"] + result["cosine"]) / 2)


def test_mf_release_by_hand():
    src = np.stack([np.arange(3.0), np.zeros(3)], axis=-1)[:, None]
    gen = src + [0, 12]
    d = np.mean([math.hypot((i - j) / 64, 0.25) for i in range(3) for j in range(3)])
    # First position: the source starts in the image's corner, whose direction is none; 'zero' makes it count 0.
    assert mf_release(gen, src, SIZE) == pytest.approx(0.5 * 2 / 3 + 0.5 / (1 + d))
    assert mf_release(gen, src, SIZE, include_first=False) == pytest.approx(0.5 + 0.5 / (1 + d))
    assert mf_release(gen, src, SIZE, frechet=False, include_first=False) == pytest.approx(1)


def test_mf_release_is_not_one_for_a_clip_against_itself():
    parts = mf_release(walk(), walk(), SIZE, n_ids=None, parts=True)
    assert parts["cosine"] == pytest.approx(1)
    assert parts["distance"] < 0.95


def test_mf_release_ids_are_fixed_by_seed_or_generator():
    gen, src = walk(seed=1), walk()
    draw = [mf_release(gen, src, SIZE, n_ids=3, seed=seed) for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    assert mf_release(gen, src, SIZE, n_ids=3, generator=torch.Generator().manual_seed(1)) == draw[2]


def test_mf_release_subsamples_the_longer_clip():
    tracks = walk(f=33)
    short = tracks[np.linspace(0, 32, 17).astype(int)]
    assert mf_release(tracks, short, SIZE) == mf_release(short, short, SIZE) == mf_release(short, tracks, SIZE)


@pytest.mark.parametrize("at_once", [1, 100, 1 << 16])
def test_the_released_distance_is_its_formula_whatever_the_blocks(monkeypatch, at_once):
    monkeypatch.setattr(track_distance, "_DISTANCES", {"cpu": at_once, "other": at_once})
    gen, src = torch.from_numpy(walk(9, 6, seed=1)), torch.from_numpy(walk(11, 7))
    apart = gen.transpose(0, 1)[:, None, :, None] - src.transpose(0, 1)[None, :, None]
    formula = torch.linalg.vector_norm(apart, dim=-1).mean(dim=(2, 3))
    np.testing.assert_allclose(track_distance.mean_distances(gen, src), formula, rtol=1e-12, atol=0)
    assert track_distance.mean_distances(gen[:1, :3], gen[:1, :3]).diagonal().tolist() == [0, 0, 0]


@pytest.mark.parametrize("case, ceiling", [("dance-twirl", 0.96), ("snowboard", 0.92)])
def test_ceilings_measured_on_mtbench(case, ceiling):
    tracks = mtbench(case)
    assert mf_release(tracks, tracks, (480, 720)) == pytest.approx(ceiling, abs=0.01)
    assert mf_paper(tracks, tracks, (480, 720)) == pytest.approx(1)


def test_unrelated_mtbench_clips_score_about_one_half_as_released():
    gen, src = mtbench("dance-twirl"), mtbench("snowboard")
    assert 0.45 < mf_release(gen, src, (480, 720)) < 0.56


def test_mf_dmt_by_hand():
    right, down = np.array([[1.0, 0]]), np.array([[0, 1.0]])
    t = np.arange(5.0)[:, None, None]
    gen, src = t * right, np.concatenate([t * right, t * down], axis=1)
    assert mf_dmt(gen, src, minus_identity=False) == pytest.approx(1)
    assert mf_dmt(gen, src) == pytest.approx(0)  # the identity takes the match of its own index away
    assert mf_dmt(gen, src, minus_identity=False, two_sided=True) == pytest.approx((1 + 0.5) / 2)


# ---------------------------------------------------------------- what each can see

@pytest.mark.parametrize("score", [lambda g, s: mf_paper(g, s, SIZE), lambda g, s: mf_release(g, s, SIZE),
                                   lambda g, s: mf_dmt(g, s)])
def test_reversed_motion_scores_far_below_the_clip_itself(score):
    tracks = walk()
    assert score(change("time_reversal", tracks), tracks) < score(tracks, tracks) - 0.2


def test_the_distance_as_released_cannot_see_the_order_of_frames():
    tracks = walk()
    own = mf_release(tracks, tracks, SIZE, parts=True)["distance"]
    for name in ("time_reversal", "frame_shuffle"):
        assert mf_release(change(name, tracks), tracks, SIZE, parts=True)["distance"] == pytest.approx(own)
        assert mf_paper(change(name, tracks), tracks, SIZE, parts=True)["distance"] < 0.9


def test_smoothness_cannot_see_time_reversal():
    frames = np.random.default_rng(0).random((9, 6, 6))
    for form in ("1-G", "1/G"):
        assert gini_smoothness(frames[::-1].copy(), form=form) == pytest.approx(gini_smoothness(frames, form=form))


def test_the_base_metric_cannot_see_where_or_how_fast():
    tracks = walk()
    assert mf_dmt(change("spatial_shift", tracks), tracks) == pytest.approx(mf_dmt(tracks, tracks))
    assert mf_dmt(change("amplitude_half", tracks), tracks) == pytest.approx(mf_dmt(tracks, tracks))
    assert mf_paper(change("spatial_shift", tracks), tracks, SIZE) < 0.95


def test_scores_do_not_depend_on_resolution():
    gen, src = walk(seed=1), walk()
    for score in (mf_paper, mf_release):
        assert score(gen * 4, src * 4, (192, 256)) == pytest.approx(score(gen, src, SIZE))


def test_numpy_and_torch_agree():
    gen, src = walk(seed=1), walk()
    for score in (mf_paper, mf_release):
        assert score(torch.tensor(gen), torch.tensor(src), SIZE) == score(gen, src, SIZE)
        single = score(gen.astype(np.float32), src.astype(np.float32), SIZE)
        assert single == pytest.approx(score(gen, src, SIZE), abs=1e-5)


# ---------------------------------------------------------------- stillness is never an exception

def test_a_frozen_clip_has_a_score_where_it_is_defined():
    gen, src = still(), walk()
    parts = mf_paper(gen, src, SIZE, parts=True)
    assert parts["cosine"] == 0 and parts["score"] == pytest.approx(0.5 * parts["distance"])
    assert mf_dmt(gen, src) == 0
    assert math.isfinite(mf_release(gen, src, SIZE))


@pytest.mark.parametrize("match", ["index", "best"])
def test_nothing_moving_anywhere_is_nan(match):
    assert math.isnan(mf_paper(still(), still(), SIZE, match=match))
    assert math.isnan(mf_release(still(), still(), SIZE, static="skip"))
    assert math.isnan(mf_dmt(still(), still(), static="skip"))


def test_the_literal_form_is_nan_from_one_still_step():
    gen, src = walk(), walk()
    gen[5, 3] = gen[4, 3]
    for score in (lambda **k: mf_paper(gen, src, SIZE, **k), lambda **k: mf_release(gen, src, SIZE, **k),
                  lambda **k: mf_dmt(gen, src, **k)):
        assert math.isnan(score(static="nan"))
        assert math.isfinite(score(static="zero")) and math.isfinite(score(static="skip"))


def test_one_moving_step_does_not_buy_a_perfect_cosine():
    src = np.stack([np.arange(9.0), np.zeros(9)], axis=-1)[:, None]
    gen = np.zeros_like(src)
    gen[-1, 0, 0] = 1
    assert mf_paper(gen, src, SIZE, parts=True)["cosine"] == pytest.approx(1 / 8)


# ---------------------------------------------------------------- VBench style

def flow_of(u, v=0.0, f=9, size=SIZE):
    return np.broadcast_to(np.array([u, v], np.float32)[:, None, None], (f - 1, 2, *size)).copy()


def test_dynamic_degree_compares_the_top_five_percent_with_the_threshold():
    limit = 6 * 48 / 256
    assert not dynamic_degree(flow_of(0.99 * limit), fps=8).dynamic
    fast = dynamic_degree(flow_of(1.01 * limit), fps=8)
    assert fast.dynamic and fast.relative == pytest.approx(1.01, rel=1e-5) and fast.share == 1
    spot = flow_of(0)
    spot[:, 0, :2, :] = 100  # 2 rows of 48: 4.2 % of the pixels
    assert dynamic_degree(spot, fps=8).top5 == pytest.approx(100 * 128 / 153)


def test_dynamic_degree_at_another_frame_rate_sees_the_same_motion():
    assert dynamic_degree(flow_of(1, f=33), fps=32).top5 == pytest.approx(dynamic_degree(flow_of(4, f=9), fps=8).top5)


@pytest.mark.parametrize("frames, fps, pairs", [(17, 16, 8), (18, 16, 8), (49, 12, 24), (50, 24, 16), (48, 30, 11), (2, 24, 1)])
def test_dynamic_degree_takes_whole_strides_as_vbench_samples(frames, fps, pairs):
    flow = np.zeros((frames - 1, 2, 8, 8))
    stride = round(fps / 8)
    flow[pairs * stride:] = 100                      # motion only after the last sampled frame: VBench never sees it
    assert not dynamic_degree(flow, fps).dynamic and dynamic_degree(flow, fps).top5 == 0
    flow[(pairs - 1) * stride] = 100
    assert dynamic_degree(flow, fps).share == pytest.approx(1 / pairs)


def test_dynamic_degree_needs_enough_moving_pairs():
    flow = flow_of(0, f=17)
    flow[:3] = 50
    assert not dynamic_degree(flow, fps=8).dynamic  # 17 frames need round(4 * 17 / 16) = 4 pairs
    flow[3] = 50
    assert dynamic_degree(flow, fps=8).dynamic


def gliding(f=9, speed=1.0, shape=(24, 32)):
    """A smooth picture gliding to the right, (f, h, w, 3) in [0, 1], and its flow."""
    x = np.arange(shape[1])[None, None] - speed * np.arange(f)[:, None, None]
    y = np.arange(shape[0])[None, :, None]
    picture = 0.5 + 0.4 * np.sin(0.4 * x) * np.cos(0.3 * y)
    return np.repeat(picture[..., None], 3, axis=-1), flow_of(speed, f=f, size=shape)


def test_motion_smoothness_of_straight_motion_is_high_and_of_shuffled_frames_low():
    frames, flow = gliding()
    smooth = motion_smoothness(frames, flow)
    assert smooth > 0.985
    order = np.random.default_rng(0).permutation(len(frames))
    assert motion_smoothness(frames[order], flow) < smooth - 0.05
    assert motion_smoothness(frames, np.zeros_like(flow)) < smooth  # the flow is used, and used the right way round
    assert motion_smoothness(frames, -flow) < smooth


def test_motion_smoothness_rewards_a_frozen_clip():
    frames, flow = gliding()
    frozen = np.repeat((frames[:1] * 255).astype(np.uint8), 9, axis=0)
    assert motion_smoothness(frozen, 0 * flow) == pytest.approx(1)
    assert motion_smoothness(frozen, 0 * flow, normalise=True) == pytest.approx((1 - 0.706) / (0.9975 - 0.706))


# ---------------------------------------------------------------- VTG

def test_gini_golden_values():
    assert gini([2, 2, 2, 2]) == 0
    assert gini([0, 0, 0, 1]) == pytest.approx(0.75)
    assert gini([1, 3]) == pytest.approx(0.25)
    assert math.isnan(gini([0, 0, 0]))


def test_gini_smoothness_forms_and_distances():
    items = np.array([[0.0], [1.0], [4.0]])
    assert gini_smoothness(items) == pytest.approx(0.75)
    assert gini_smoothness(items, form="1/G") == pytest.approx(4)
    assert gini_smoothness(items, distance=lambda a, b: 1.0, form="1/G") == math.inf
    assert consistency(items) == {"mean": 2.0, "max": 3.0}
    np.testing.assert_allclose(adjacent_distances(np.eye(3), "cosine"), [1, 1])


def test_gini_smoothness_of_a_frozen_clip_is_nan_and_its_consistency_zero():
    frozen = np.full((5, 4, 4, 3), 7, np.uint8)
    assert math.isnan(gini_smoothness(frozen)) and math.isnan(gini_smoothness(frozen, form="1/G"))
    assert consistency(frozen) == {"mean": 0.0, "max": 0.0}


# ---------------------------------------------------------------- points and masks

def test_points_in_mask_and_in_its_box():
    mask = np.zeros(SIZE, bool)
    mask[10, 20] = mask[30, 40] = True
    points = np.array([[20, 10], [30, 20], [40, 30], [19, 10], [100, 100]])
    assert points_in_mask_box(points, mask).tolist() == [True, True, False, False, False]
    assert points_in_mask_box(points, mask, exclude_last=False).tolist() == [True, True, True, False, False]
    assert points_in_mask(points, mask, SIZE).tolist() == [True, False, True, False, False]
    assert points_in_mask(torch.tensor(points), torch.tensor(mask)).tolist() == [True, False, True, False, False]


def test_hardly_seen_tracks_are_left_out():
    tracks, seen = walk(), np.ones((17, 20), bool)
    seen[5:, 0] = False
    spoilt = tracks.copy()
    spoilt[:, 0] = np.nan
    assert seen_tracks(seen).sum() == 19
    assert mf_paper(spoilt, tracks, SIZE, gen_visibility=seen) == pytest.approx(1)


# ---------------------------------------------------------------- bad input: a sentence that helps

MASK = np.ones(SIZE, bool)


@pytest.mark.parametrize("call, sentence", [
    (lambda: mf_paper(walk(17), walk(13), SIZE), "17 frames, the source's 13"),
    (lambda: mf_dmt(walk(17), walk(13)), "Subsample the longer"),
    (lambda: mf_paper(walk(n=4), walk(n=5), SIZE), "match='best'"),
    (lambda: mf_paper(walk(), walk() * np.nan, SIZE), "NaN"),
    (lambda: mf_release(walk() * np.nan, walk(), SIZE), "Keep finite tracks only"),
    (lambda: mf_paper(walk(), walk(), SIZE, gen_visibility=np.zeros((17, 20), bool)), "All points are invisible"),
    (lambda: mf_paper(walk(), walk(), SIZE, src_visibility=np.ones((17, 3), bool)), "Visibility is (f, n)"),
    (lambda: mf_paper(walk()[..., :1], walk(), SIZE), "Tracks are (f, n, 2)"),
    (lambda: mf_release(walk()[None], walk(), SIZE), "one clip at a time"),
    (lambda: mf_paper(walk()[:1], walk()[:1], SIZE), "at least two frames"),
    (lambda: mf_paper(walk(), walk(), 48), "size=(height, width)"),
    (lambda: mf_paper(walk(), walk(), (0, 64)), "size=(height, width)"),
    (lambda: mf_paper(walk(), walk(), SIZE, match="bset"), "Did you mean 'best'?"),
    (lambda: mf_paper(walk(), walk(), SIZE, static="skp"), "Did you mean 'skip'?"),
    (lambda: mf_release(walk(), walk(), SIZE, n_ids=0), "None for all tracks"),
    (lambda: discrete_frechet(np.zeros((3, 2)), np.zeros((3, 2))), "(n, f, 2)"),
    (lambda: seen_tracks(np.eye(10, dtype=bool)), "No track is seen"),
    (lambda: points_in_mask_box(walk()[0], 0 * MASK), "The mask is empty"),
    (lambda: points_in_mask(walk()[0], MASK, size=(96, 128)), "The mask is 48 x 64, the frames 96 x 128"),
    (lambda: points_in_mask(walk()[0] + 500, MASK), "check the mask's size"),
    (lambda: points_in_mask_box(walk()[0], MASK[None]), "masks[0]"),
    (lambda: points_in_mask_box(walk(), MASK), "tracks[0]"),
    (lambda: dynamic_degree(np.zeros((4, 5, 5, 2)), 8), "(f-1, 2, h, w)"),
    (lambda: dynamic_degree(flow_of(1), 0), "frame rate"),
    (lambda: motion_smoothness(*gliding(f=2)), "three frames"),
    (lambda: motion_smoothness(gliding()[0], gliding()[1][:-1]), "does not belong"),
    (lambda: motion_smoothness(gliding()[0] * 255, gliding()[1]), "uint8"),
    (lambda: gini_smoothness(np.zeros((2, 5))), "at least three"),
    (lambda: gini_smoothness(walk(), distance="lpip"), "Unknown distance"),
])
def test_mistakes_are_explained(call, sentence):
    with pytest.raises(MotionLabError) as error:
        call()
    assert sentence in str(error.value)
