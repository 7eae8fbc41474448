"""Motion transfer: tasks that no caption gives away, and metrics that say the right thing of clips whose answer is known."""
import csv
import dataclasses
import functools

import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.paths import repo_root
from motionlab.core.protocol import held_out, read_protocol, split_seeds
from motionlab.data import transfer
from motionlab.data.transfer import RANGE, TIERS, draw_route, draw_seed, load_transfer, redraw, reversals, way_along
from motionlab.experiments.transfer_clutter import ALLOWED, LEVELS, chosen
from motionlab.metrics import transfer as metric
from motionlab.metrics.transfer_choice import GIVEN_AWAY, MARGIN, choose, given_away, margin, posed_limbs
from motionlab.metrics.transfer_corners import GONE, corner_rows, over_clutter, route_gone
from motionlab.metrics.transfer_leak import leak
from motionlab.world import parse_caption
from small import small_evaluator

SETS = ("transfer", "transfer_dev", "transfer_examples")


@functools.lru_cache(maxsize=None)
def tasks(name):
    return load_transfer(name)


@pytest.fixture(scope="module")
def readers():
    from motionlab.experiments.rows import load_evaluators

    return load_evaluators()


@pytest.fixture(scope="module")
def corners(readers):
    """Of a snake and a dog of dev, on renders; means: arm -> column -> value of targets "a"."""
    arms = ("truth", "source", *(f"route_{gone}" for gone in GONE), "clutter_50")
    rows = [r for r in corner_rows(tasks("transfer_dev")[4:], readers, arms=arms) if r["target"] == "a"]
    columns = [c for c in rows[0] if c == "leak" or c[-2:] in ("_0", "_1")]
    return {arm: {c: np.mean([r[c] for r in rows if r["arm"] == arm]) for c in columns} for arm in dict.fromkeys(r["arm"] for r in rows)}


# ---------------------------------------------------------------------------------------------- tasks
def test_a_task_is_fixed_by_its_seed_and_a_shorter_list_is_the_beginning():
    assert load_transfer("transfer_dev") == tasks("transfer_dev") and load_transfer("transfer_dev", 2) == tasks("transfer_dev")[:2]
    assert [t.id for t in tasks("transfer_examples")] == [f"transfer_examples/{k:02d}" for k in range(3)]
    assert len(tasks("transfer")) == 24 and len(tasks("transfer_dev")) == 6


def test_sets_share_no_seed_with_each_other_or_with_prompts():
    sets, taken = read_protocol()["transfer"]["sets"], []
    for chosen_set in sets.values():
        for number in [n for route in chosen_set["accepted"] for n in route]:
            first = draw_seed(chosen_set, number)
            assert {first, first + transfer.DRAW - 1} <= set(split_seeds(chosen_set["split"], None))
            taken += range(first, first + transfer.DRAW)
    assert len(taken) == len(set(taken))
    for prompts in read_protocol()["prompts"].values():                    # they run on from their offset, some to 16 times their number
        first = split_seeds(prompts["split"], None)[prompts["offset"]]
        assert not set(taken) & set(range(first, first + 40 * prompts["n"]))


@pytest.mark.parametrize("name", SETS)
def test_every_task_is_what_was_promised(name):
    for task in tasks(name):
        source, level = task.source, read_protocol()["transfer"]["clutter"]
        actor, way = source.actors[0], way_along([x for x, _ in source.actors[0].path])
        assert task.tier == list(TIERS)[int(task.id[-2:]) % 3] and actor.species in TIERS[task.tier]
        assert actor.speed == 0 and len(actor.path) == 5 and not any(dy for _, dy in actor.path)
        assert RANGE[0] - 1e-9 <= np.ptp(way) <= RANGE[1] + 1e-9 and 1 <= reversals(way) <= 2
        assert source.clutter == level > 0 and given_away(task) <= GIVEN_AWAY
        for scene in (source, *(t.scene for t in task.targets)):
            said = parse_caption(transfer.caption(scene))
            assert margin(scene) >= MARGIN and not said["camera"] and not held_out(said) and not scene.occluders
        a, twin, b = task.targets
        assert (a.kind, twin.kind, b.kind) == ("a", "a", "b") and a.scene == twin.scene and a.noise != twin.noise
        for target in (a, b):
            other = target.scene.actors[0]
            assert other.colour != actor.colour and target.scene.place != source.place and target.scene.clutter == 0
            assert other.heading == actor.heading and other.path == actor.path and target.text == transfer.caption(target.scene)
        assert b.scene.actors[0].species not in TIERS[task.tier]
        np.testing.assert_array_equal(posed_limbs(a.scene), posed_limbs(source))


def test_a_route_serves_all_tiers_with_one_way():
    for first in range(0, 24, 3):
        mine = tasks("transfer")[first:first + 3]
        assert [t.tier for t in mine] == list(TIERS) and len({(t.route, t.source.actors[0].path, t.source.actors[0].heading) for t in mine}) == 1
    assert len({t.source.actors[0].path for t in tasks("transfer")}) == 8


def test_the_listed_draws_are_those_that_the_rule_accepts():
    for name in ("transfer_dev", "transfer_examples"):
        listed = read_protocol()["transfer"]["sets"][name]
        assert choose(listed["split"], listed["offset"], len(listed["accepted"])) == listed["accepted"]


def test_redraws_say_the_same_and_follow_no_route():
    task = tasks("transfer_dev")[4]
    for scene in task.redraws():
        assert transfer.caption(scene) == task.caption and not scene.actors[0].path and scene.clutter == 0
    assert len({scene.actors[0].phase for scene in task.redraws()}) == 8
    assert draw_route(5) == draw_route(5) != draw_route(6)


def test_the_clutter_is_the_most_that_the_pilot_allows():
    with open(repo_root() / "reproductions/det/pilots/clutter.csv", encoding="utf-8", newline="") as file:
        rows = [r | {c: float(r[c]) for c in ("part_error_0", "part_error_1")} for r in csv.DictReader(file)]
    assert chosen(rows) == read_protocol()["transfer"]["clutter"] and {r["arm"] for r in rows} == {f"clutter_{x:g}" for x in (0, *LEVELS)}
    worse = [r | {"part_error_1": r["part_error_1"] + (ALLOWED if r["arm"] == "clutter_0.7" else 0)} for r in rows]
    assert chosen(worse) == 0.5


# ---------------------------------------------------------------------------------------------- metrics
@pytest.mark.parametrize("weight", [0, 0.5, 1])
def test_leak_of_a_blend_of_clutter_is_its_weight(weight):
    for task in tasks("transfer_dev")[1::2]:
        for target in task.targets[1:]:
            assert leak(over_clutter(task, target, weight), task.source) == pytest.approx(weight, abs=0.03)


def test_leak_of_the_source_is_one_and_of_other_clips_of_the_caption_none():
    for task in tasks("transfer_dev")[:3]:
        assert leak(task.clip().frames, task.source) == pytest.approx(1, abs=0.03)
        assert leak(metric.render(redraw(task.of("a")[0].scene, 7)).frames, task.source) == pytest.approx(0, abs=0.05)


def test_leak_is_undefined_without_clutter_or_background():
    task = tasks("transfer_dev")[0]
    assert np.isnan(leak(task.clip().frames, dataclasses.replace(task.source, clutter=0.0)))
    assert np.isnan(leak(np.random.default_rng(0).integers(0, 255, (9, 48, 48, 3)).astype(np.uint8), task.source))


def test_route_is_one_for_itself_and_none_for_standing_still():
    way = np.stack([np.sin(np.linspace(0, 5, 17)), np.linspace(0, 9, 17)], -1)
    assert metric.route(way, way) == 1 and metric.route(way + 3, way) == pytest.approx(1)
    assert metric.route(np.full((17, 2), 2.0), way) == pytest.approx(0) and metric.route(-way, way) == pytest.approx(-1)
    assert metric.route(0.25 * way, way) == pytest.approx(0.25)
    assert np.isnan(metric.route(way, np.zeros((17, 2)))) and np.isnan(metric.route(np.full((17, 2), np.nan), way))


def test_the_source_scores_full_motion_against_itself_and_gaps_are_bridged():
    task = tasks("transfer_dev")[5]
    tracks, seen = metric.source_limbs(task.source, (48, 48), 17)
    assert metric.motion_fidelity(tracks, tracks, seen, (48, 48))["mf"] == pytest.approx(1)
    hidden = np.ones((5, 1), bool)
    hidden[2] = False
    assert metric.filled(np.array([[[0, 0]], [[1, 2]], [[99, 99]], [[3, 6]], [[4, 8]]], float), hidden)[2].tolist() == [[2, 4]]


def test_corners_say_what_is_known(corners):
    truth, source = corners["truth"], corners["source"]
    for k in "01":
        assert truth[f"edit_{k}"] >= 0.95 and truth[f"mf_{k}"] >= 0.93 and truth[f"route_{k}"] >= 0.85
        assert source[f"edit_{k}"] <= 0.05 and source[f"mf_{k}"] >= 0.93
    assert abs(truth["leak"]) <= 0.03 and source["leak"] >= 0.97


@pytest.mark.parametrize("column", ["mf_0", "mf_1", "route_0", "route_1"])
def test_motion_falls_in_order_as_the_route_goes(corners, column):
    values = [corners[arm][column] for arm in ("truth", "route_25", "route_50", "route_75", "route_100")]
    assert all(a > b for a, b in zip(values, values[1:])) and values[0] - values[-1] > 0.25
    if column.startswith("route"):
        assert abs(values[-1]) < 0.1


def test_clutter_that_came_along_costs_edit_and_no_motion(corners):
    half, truth = corners["clutter_50"], corners["truth"]
    assert half["leak"] == pytest.approx(0.5, abs=0.03) and half["edit_0"] == pytest.approx(0.5, abs=0.05)
    assert half["mf_0"] == pytest.approx(truth["mf_0"], abs=0.02) and half["route_0"] == pytest.approx(truth["route_0"], abs=0.02)


def test_every_true_answer_of_dev_is_what_was_asked(readers):
    asked = metric.all_targets(tasks("transfer_dev"))
    asked = [pair for pair in asked if not pair[1].id.endswith("a1")]
    rows = metric.transfer_rows(np.stack([target.clip().frames for _, target in asked]), asked, readers, "truth")
    assert all(row[f"edit_{k}"] >= 0.95 for row in rows for k in "01")
    assert all(row[f"route_{k}"] >= 0.7 for row in rows for k in "01")


def test_rows_of_one_task_join_and_ends_rescale():
    task, reader = tasks("transfer_examples")[0], small_evaluator()
    asked = metric.all_targets([task])
    frames = np.stack([target.clip(frames=9).frames for _, target in asked])
    rows = metric.transfer_rows(frames, asked, {"x": reader}, "arm", 3, Patches(), ends={"x": (-1.0, 1.0)})
    assert [r["item"] for r in rows] == [t.id for t in task.targets] and {r["arm"] for r in rows} == {"arm"}
    assert rows[0]["m_x"] == pytest.approx((rows[0]["mf_x"] + 1) / 2) and rows[0]["diversity"] == pytest.approx(0, abs=1e-5)
    assert np.isnan(rows[2]["mf_x"]) and np.isnan(rows[2]["diversity"])
    (one,) = metric.per_task(rows)
    assert one["item"] == task.id and one["seed"] == 3 and one["kind"] == "easy" and one["route"] == 0
    assert one["mf_x"] == pytest.approx(np.mean([r["mf_x"] for r in rows[:2]])) and one["route_x_b"] == rows[2]["route_x"] and "mf_x_b" not in one


class Patches:
    """An image encoder of the patches' mean colours."""

    def features(self, frames):
        return torch.nn.functional.avg_pool2d(frames, 8).flatten(2).transpose(1, 2) + 2


def test_scores_by_hand():
    assert metric.rescaled(0.5, 0.3, 0.7) == pytest.approx(0.5) and metric.edit_fidelity(0.9, 0.25) == pytest.approx(0.675)
    assert metric.edit_fidelity(0.9, -0.2) == 0.9 and metric.edit_fidelity(0.9, 1.4) == 0
    assert metric.transfer_score(0.5, 1.0) == pytest.approx(2 / 3) and metric.transfer_score(-0.4, 1.2) == 0 == metric.transfer_score(0, 0)
    assert np.isnan(metric.transfer_score(float("nan"), 0.5))
    x = np.array([[1.0, 0], [0, 2.0], [0, 1.0]])                           # to the first 0, 0; to the last 0, 1; frame 0 counts 1
    assert metric.temporal_consistency(x) == pytest.approx(100 * (1 + 0 + 0.5) / 3)
    one, other = torch.eye(3)[None], torch.eye(3)[None, [0, 2, 1]]
    assert metric.diversity(one, one) == pytest.approx(0) and metric.diversity(one, other) == pytest.approx(2 / 3)


def test_a_route_can_be_taken_away_whole():
    target = tasks("transfer_dev")[0].of("a")[0]                            # a box that slides: without its route it stands still
    still = route_gone(target, 1.0, frames=5)
    assert (still == still[:1]).all() and np.array_equal(route_gone(target, 0.0), target.clip().frames)


@pytest.mark.parametrize("call, sentence", [
    (lambda: load_transfer("transfer_dve"), "Did you mean 'transfer_dev'?"),
    (lambda: load_transfer("transfer_dev", 7), "has 6 tasks, not 7"),
    (lambda: load_transfer("transfer_dev", 0), "has 6 tasks, not 0"),
    (lambda: tasks("transfer_dev")[0].of("c"), "kind of target"),
    (lambda: transfer.draw_task("x", 0, "esay", 1, 2), "Did you mean 'easy'?"),
    (lambda: choose("dev", 99_995, 1), "Split 'dev' ends before 1 routes"),
    (lambda: corner_rows([], {"0": None}, arms=["trut"]), "Did you mean 'truth'?"),
    (lambda: leak(np.zeros((2, 48, 48, 3)), tasks("transfer_dev")[0].source), "uint8 frames"),
    (lambda: metric.route(np.zeros((3, 2)), np.zeros((4, 2))), "the same frames"),
    (lambda: metric.rescaled(0.5, 0.5, 0.5), "not above the base"),
    (lambda: metric.transfer_rows(np.zeros((1, 9, 48, 48, 3), np.uint8), [], {"0": None}, "x"), "1 clips were given for 0"),
    (lambda: metric.transfer_rows(np.zeros((0, 9, 48, 48, 3), np.uint8), [], {}, "x"), "No reader"),
    (lambda: metric.transfer_rows(np.zeros((1, 4, 48, 48, 3), np.uint8), [1], {"0": None}, "x"), "show no motion"),
    (lambda: metric.transfer_rows(np.zeros((1, 9, 48, 48, 3), np.uint8), [1], {"0": None}, "x", ends={"1": (0, 1)}), "for each reader"),
    (lambda: chosen([{"arm": "clutter_0", "part_error_0": 1.0}, {"arm": "clutter_0.3", "part_error_0": 1.4}]), "lower levels"),
])
def test_mistakes_are_explained(call, sentence):
    with pytest.raises(MotionLabError) as error:
        call()
    assert sentence in str(error.value)
