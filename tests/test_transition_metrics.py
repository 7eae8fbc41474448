"""Metrics of transitions on clips whose answer is known: the world's own, cross-fades, cuts, frozen ones, blurred ones."""
import json

import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.data.transitions import load_ends
from motionlab.experiments.rows import load_evaluators
from motionlab.metrics import transitions as metric
from motionlab.metrics.still_changes import still_change
from motionlab.metrics.transitions.completion import COMPLETION, CONSISTENCY, OTHERS, frame_of, judged_by_reader
from motionlab.metrics.transitions.pose import true_pose
from motionlab.metrics.transitions.published import completion_by_embedding, projected
from motionlab.metrics.transitions.rows import with_pillar
from motionlab.models.evaluator import LIMBS
from motionlab.models.image_encoder import load_image_encoder
from motionlab.models.shipped import shipped

FAKES = ("cross_fade", "cut", "frozen", "shuffled")


def faked(ends, kind, truth=None):
    a, b = ends.astype(float)
    share = np.linspace(0, 1, 9)
    if kind == "shuffled":
        return truth[np.random.default_rng(3).permutation(9)]
    share = {"cross_fade": share, "cut": (share >= 0.5).astype(float), "frozen": 0 * share}[kind][:, None, None, None]
    return ((1 - share) * a + share * b).round().astype(np.uint8)


@pytest.fixture(scope="module")
def encoder():
    return load_image_encoder(shipped("image_encoder"))


@pytest.fixture(scope="module")
def between():
    """Four pairs of examples: roll, walk, pass_behind, run."""
    return load_ends("between_examples", 4)


@pytest.fixture(scope="module")
def rows(between, encoder):
    """arm -> rows of the true clips and of what must lie behind them."""
    ends, truth = np.stack([np.stack(e.pictures()) for e in between]), np.stack([e.truth() for e in between])
    clips = {"truth": truth, "blur": np.stack([still_change(clip, "blur", 0.7) for clip in truth])}
    clips |= {kind: np.stack([faked(pair, kind, clip) for pair, clip in zip(ends, truth)]) for kind in FAKES}
    readers = {"0": load_evaluators()["0"]}
    swapped = {"truth": truth[:, ::-1], "cross_fade": clips["cross_fade"][:, ::-1]}
    return {arm: metric.transition_rows(made, between, ends, readers, encoder, arm, swapped=swapped.get(arm)) for arm, made in clips.items()}


def mean(rows, column):
    return np.nanmean([row[column] for row in rows])


def test_k4_the_plane_tells_truth_from_fade_and_cut(rows):
    assert mean(rows["truth"], "edge") >= 0.9 and mean(rows["truth"], "jump") <= 0.25
    assert mean(rows["cross_fade"], "edge") <= 0.7 and max(r["jump"] for r in rows["cross_fade"]) <= 0.3
    assert min(r["jump"] for r in rows["cut"]) >= 0.6 and mean(rows["cut"], "edge") >= 0.9
    assert mean(rows["truth"], "edge") - mean(rows["blur"], "edge") >= 0.05


def test_a_frozen_clip_has_no_jump_and_no_gini_and_a_pillar_no_edge(rows, between):
    assert all(np.isnan(r[c]) for r in rows["frozen"] for c in ("jump", "smooth", "smooth_inverse"))
    assert all(r["ppl"] == 0 and r["consistency"] == 0 and r["tcr_clip"] == 1 for r in rows["frozen"])
    for row, pair in zip(rows["truth"], between):
        assert np.isnan(row["edge"]) == with_pillar(pair) == (pair.first.actors[0].motion == "pass_behind")


def test_pose_and_order_of_the_truth_are_the_readers_own_error(rows):
    assert mean(rows["truth"], "pose_0") < 0.8 < mean(rows["cross_fade"], "pose_0") - 0.8
    assert all(r["order_gap_0"] == 0 and r["order_cost_0"] == 0 and r["grey"] == 0 for r in rows["truth"])
    assert all("order_gap_0" not in r for r in rows["cut"]) and mean(rows["cross_fade"], "grey") > 3
    assert mean(rows["shuffled"], "pose_0") > mean(rows["truth"], "pose_0") + 0.5


def test_backgrounds_of_true_clips_stand_still_and_edges_keep(rows):
    assert max(r["flicker"] for r in rows["truth"]) == 0 and min(r["psnr_ends"] for r in rows["truth"]) > 60
    assert abs(mean(rows["truth"], "edge_fall")) < 0.02


def test_k5_published_scores_have_known_blind_spots(rows):
    """FID of the ends is least for what shows nothing but the ends; 1 - G is low for a cut; path length is 0 for what is frozen."""
    sets = {arm: mine[0]["fid_set"] for arm, mine in rows.items()}
    assert sets["cut"] < sets["truth"] and rows["truth"][0]["fid_pictures"] == 8
    assert mean(rows["cut"], "smooth") < 0.2 < 0.7 < mean(rows["truth"], "smooth") and mean(rows["frozen"], "ppl") == 0


def test_edge_falls_with_growing_blur_and_a_ghost_is_about_half(between):
    pair = between[1]
    ends, truth = np.stack(pair.pictures()), pair.truth()
    blurred = np.stack([still_change(truth[k:k + 1], "blur", max(0.01, 0.15 * k))[0] for k in range(9)])
    strengths = metric.edge_strengths(blurred, ends)
    assert metric.edge_fall(strengths) > 0.02 and metric.edge(truth, ends) > metric.edge(blurred, ends) + 0.05
    assert 0.45 < metric.edge_strengths(faked(ends, "cross_fade"), ends)[4] < 0.6
    assert np.isnan(metric.edge(np.zeros((9, 48, 48, 3), np.uint8), np.zeros((2, 48, 48, 3), np.uint8)))
    with pytest.raises(MotionLabError, match="between ends"):
        metric.edge(truth, ends[:1])


def test_middle_frames_jump_mix_and_flicker_by_hand():
    assert [range(n)[metric.middle_frames(n)] for n in (3, 5, 9, 16)] == [range(1, 2), range(2, 3), range(3, 6), range(5, 10)]
    assert metric.jump(np.ones(8)) == 1 / 8 and metric.jump(np.eye(8)[3]) == 1 and np.isnan(metric.jump(np.zeros(8)))
    assert metric.mix(0.5, 0.5, 0.9) == 1 and metric.mix(0.9, 0.1, 0.8) == pytest.approx(0.2) and metric.mix(0.5, 0.5, 0.7) == 0
    assert np.isnan(metric.mix(0.5, 0.5, float("nan")))
    frames = np.full((4, 6, 6, 3), 100, np.uint8)
    frames[::2, :3] = 110
    ground = np.zeros((6, 6), bool)
    assert np.isnan(metric.background_flicker(frames, ground))
    ground[:3] = True
    assert metric.background_flicker(frames, ground) == 5


def test_limb_distances_leave_out_ends_and_hidden_limbs():
    one, shown = np.zeros((5, 2, 2)), np.ones((5, 2), bool)
    other = one.copy()
    other[0], other[-1], other[2, 0] = 9, 9, (3, 4)
    assert metric.limb_distance(one, other, shown) == pytest.approx(5 / 6)
    shown[2, 0] = False
    assert metric.limb_distance(one, other, shown) == 0 and np.isnan(metric.limb_distance(one, other, ~shown & False))
    assert metric.order_gap(other, other[::-1], shown) == 0
    with pytest.raises(MotionLabError, match="were to be compared"):
        metric.limb_distance(one[:2], other[:2], shown[:2])


def test_exact_limbs_have_no_pose_error(between):
    clip = between[1].clips()[0]
    positions, shown = true_pose(clip)
    assert positions.shape == (9, len(LIMBS[clip.scene.actors[0].species]), 2) and metric.pose_error(positions, clip) == 0
    assert metric.pose_error(positions + [3.0, 4.0], clip) == pytest.approx(5) and shown.any()


# ---------------------------------------------------------------------------------------------- published scores
def test_path_length_and_gini_have_their_known_values():
    assert metric.path_length(np.full(4, 0.1)) == pytest.approx(1.6) and metric.gini(np.ones(7)) == 0
    assert metric.gini(np.array([0.0, 0, 0, 1])) == pytest.approx(0.75) and np.isnan(metric.gini(np.zeros(3)))
    assert metric.smoothness(np.array([0.0, 0, 0, 1]))["smooth_inverse"] == pytest.approx(4 / 3)
    both = completion_by_embedding(np.array([[1.0, 0], [1, 1], [0, 1]]), np.array([[1.0, 0], [0, 1]]))
    assert both["tcr_clip"] == pytest.approx(2 / 3) and both["tc_clip"] == pytest.approx(0.5 ** 0.5)


def test_perceptual_steps_are_zero_for_equal_frames_and_grow_with_the_gap(encoder, between):
    truth = between[0].truth()
    steps = metric.perceptual_steps(truth, encoder)
    assert steps.shape == (8,) and (steps > 0).all() and (metric.perceptual_steps(truth[[0, 0]], encoder) == 0).all()
    assert metric.perceptual_steps(truth[[0, 8]], encoder) > steps.max()


def test_shares_of_pairs_average_to_the_distance_less_its_bias():
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(40, 2, 4))
    near, far = (metric.fid_of_ends(rng.normal(shift, 1, size=(40, 9, 4)), ends) for shift in (0.0, 1.0))
    assert near.pictures == 80 and near.per_pair.shape == (40,) and 0 < near.value < 0.5 < far.value
    assert abs(near.per_pair.mean()) < near.value and far.per_pair.mean() == pytest.approx(4, abs=1)
    held = np.repeat(ends[:, :1], 9, 1)
    assert metric.fid_of_ends(np.concatenate([held[:, :5], np.repeat(ends[:, 1:], 4, 1)], 1), ends).value < near.value
    # d^2 is about |m|^2 = 4, of a mean in four directions: its deviation is 4 deviations of one, (1/80 + 1/280)^(1/2) each, and the traces'
    assert far.per_pair.std(ddof=1) / 40 ** 0.5 == pytest.approx(4 * (1 / 80 + 1 / 280) ** 0.5, rel=0.5)
    with pytest.raises(MotionLabError, match="distance of frames"):
        metric.fid_of_ends(ends, ends)
    assert projected(np.ones((3, 5, 128))).shape == (3, 5, 16)


# ---------------------------------------------------------------------------------------------- TC-Bench
def answers(*pairs):
    return [{"type": kind, "correct": correct} for kind, correct in pairs]


def test_completion_leaves_out_other_objects_and_the_score_object_consistency():
    said = answers((COMPLETION, 1), (COMPLETION, 1), (CONSISTENCY, 0), (OTHERS, 0))
    assert not metric.completed(said) and metric.completed(said[:2] + said[3:])
    assert metric.tc_score(said, 0.94) == pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 0.5) and metric.tc_score(said) == 0.5
    assert metric.tc_score(said, 0.5) == pytest.approx(4 / 9) and metric.tc_score(said, 1.0) == pytest.approx(4 / 9 + 1 / 3)
    assert [frame_of(k, 9) for k in (1, 5, 9, 16)] == [0, 2, 4, 8] and frame_of(16, 16) == 15
    with pytest.raises(MotionLabError, match="no answers"):
        metric.completed([])


def test_a_file_of_answers_is_scored_and_mistakes_are_named(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"00000-00001": [{"type": COMPLETION, "correct": 1, "frames": [1], "gpt_answer": "yes"}]}))
    assert metric.read_answers(path) == {"00000-00001": [{"type": COMPLETION, "correct": 1.0}]}
    for text, said in (("[]", "in TC-Bench's form"), ('{"a": [{"correct": 1}]}', "'type'"), ("{}", "holds no answers"),
                       ('{"a": [{"type": "transition completion", "correct": 2}]}', "correct 2")):
        path.write_text(text)
        with pytest.raises(MotionLabError, match=said):
            metric.read_answers(path)
    with pytest.raises(MotionLabError, match="no file of answers"):
        metric.read_answers(tmp_path / "none.json")


def test_readers_answer_as_the_benchmark_asks():
    ramp, ones = np.linspace(0, 1, 9), np.ones(9, bool)
    correct = lambda *given: [one["correct"] for one in judged_by_reader(*given)]
    assert correct(1 - ramp, ramp, ones) == [1] * 7
    cut = (ramp >= 0.5).astype(float)
    assert correct(1 - cut, cut, ones) == [1, 1, 0, 1, 1, 1, 1]
    assert correct(np.ones(9), np.zeros(9), ones) == [1, 0, 0, 0, 1, 1, 1]
    assert correct(1 - ramp[::-1], ramp[::-1], ones)[:2] == [0, 0] and correct(1 - ramp, ramp, ~ones)[4:] == [0, 0, 0]


def test_change_and_blend_have_columns_of_their_own(encoder):
    readers = {"0": load_evaluators()["0"]}
    change, blend = load_ends("change_examples", 4), load_ends("blend_examples", 2)
    for pairs in (change, blend):
        ends = np.stack([np.stack(e.pictures()) for e in pairs])
        made = np.stack([faked(pair, "cross_fade") for pair in ends]) if pairs is blend else np.stack([e.truth() for e in pairs])
        found = metric.transition_rows(made, pairs, ends, readers, encoder, "x")
        if pairs is blend:
            assert all(r["mix_0"] == 0 and np.isnan(r["fid"]) and "tcr_0" not in r for r in found)
        else:
            assert all(r["tcr_0"] in (0, 1) and 0 <= r["tc_score_0"] <= 1 and r["grey"] == 0 for r in found)
            assert [np.isnan(r["flicker"]) for r in found] == [False, True] * 2 and found[0]["fid_pictures"] == 8
    with pytest.raises(MotionLabError, match="for 2 pairs"):
        metric.transition_rows(made[:1], blend, ends, readers, encoder, "x")
    with pytest.raises(MotionLabError, match="No reader"):
        metric.transition_rows(made, blend, ends, {}, encoder, "x")
