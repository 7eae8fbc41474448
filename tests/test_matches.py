"""Where targets and features say that places go, against exact transport: the numbers by hand, arms end to end at toy size."""
import dataclasses
import math

import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.correlation import offsets
from motionlab.experiments import matches, rows as arms
from motionlab.experiments.arms import read_arm
from motionlab.experiments.finetune import trainings
from motionlab.metrics.correspondence import correspondence, errors_shared, motion_of
from motionlab.world import random_scene, render
from tiny_repository import root, spot  # noqa: F401

OPTIONS = {"prompts": "examples", "n": 2, "length": 2, "steps": 2}
EXACT = {"method": "sam2videox", "train": {"lr": 1e-2, "teacher": "exact", "where": "subject", "out": 8, "head_steps": 2}}


def row(arm, place, **more):
    return arms.run_row({"name": "x"} | arm, 0, place, "smoke", **OPTIONS | more)


def one_hot(places, n=9):
    return torch.nn.functional.one_hot(torch.tensor(places), n).float()[None, None, None]             # (1, 1, 1, cells, n)


# ---------------------------------------------------------------------------------------------- the numbers
def test_hits_are_counted_where_something_moves():
    truth, known = one_hot([4, 4, 5, 0, 8]), torch.tensor([True, True, True, True, False])[None, None, None]
    said = one_hot([4, 3, 5, 1, 8])
    found = {name: float(value) for name, value in correspondence(said, truth, known).items()}
    assert found["hit"] == found["hit_1"] == 0.5 and found["still_kept"] == 0.5 and found["border"] == 0.75 and found["entropy"] == 0
    still = correspondence(one_hot([4] * 5), truth, known)                                             # "nothing moves" wins nothing
    assert float(still["hit"]) == 0 and float(still["still_kept"]) == 1


def test_divergence_and_entropy_are_those_of_the_window():
    truth, known = one_hot([4, 5]), torch.ones(1, 1, 1, 2, dtype=torch.bool)
    flat = torch.full_like(truth, 1 / 9)
    found = correspondence(flat, truth, known)
    assert float(found["kl"]) == pytest.approx(math.log(9)) and float(found["entropy"]) == pytest.approx(1)
    assert float(correspondence(truth, truth, known)["kl"]) == 0
    nothing = correspondence(flat, truth, torch.zeros_like(known))
    assert all(math.isnan(float(value)) for value in nothing.values())
    with pytest.raises(MotionLabError, match="do not fit"):
        correspondence(flat[..., :8], truth[..., :8], known)


def test_errors_that_are_repeated():
    truth, known = one_hot([4, 4, 4, 4]), torch.ones(1, 1, 1, 4, dtype=torch.bool)
    found = errors_shared(one_hot([4, 5, 4, 3]), one_hot([4, 5, 6, 7]), truth, known)
    assert [float(found[name]) for name in ("repeated", "corrected", "wrong")] == pytest.approx([1 / 3, 1 / 3, 3 / 4])


def test_the_motion_of_a_clip_is_its_subjects():
    clip = render(random_scene(3, motion="slide", camera=False, paths=False), 48, 17)
    about = motion_of(clip, list(range(0, 17, 4)), 4)
    subject = clip.object_mask(None)[::4]
    moved = np.diff([np.nonzero(mask)[1].mean() for mask in subject]) / 4
    assert about["motion"] == "slide" and about["speed"] == pytest.approx(np.abs(moved).mean(), rel=0.25) and 0 <= about["hidden"] < 0.3


# ---------------------------------------------------------------------------------------------- rows
def test_targets_are_perfect_for_exact_transport_and_worse_displaced_or_of_another_clip(root, tmp_path):
    exact, noisy, other = (row(EXACT | {"train": EXACT["train"] | more, "measure": {"of": "targets", "length": 3}}, spot(tmp_path, name))
                           for name, more in (("a", {}), ("b", {"noise": 1.0}), ("c", {"other": True})))
    assert len(exact) == 2 and all(r["hit"] == 1 or math.isnan(r["hit"]) for r in exact) and all(abs(r["kl"]) < 1e-3 for r in exact)
    assert {"item", "arm", "seed", "motion", "speed", "hidden", "still_kept", "entropy", "border", "hit_1", "hit_2"} <= set(exact[0])
    for worse in (noisy, other):
        assert np.nanmean([r["kl"] for r in worse]) > 0.5
    with pytest.raises(MotionLabError, match="no block is taught by"):
        row({"train": {"lr": 1e-2}, "measure": {"of": "targets", "length": 3}}, spot(tmp_path, "d"))


def test_features_are_read_through_the_own_head_or_a_fitted_one(root, tmp_path):
    own = row(EXACT | {"measure": {"of": "features", "length": 3}}, spot(tmp_path, "a"))
    assert len(own) == 2 * len(matches.TIMES) and {r["head"] for r in own} == {"own"} and {r["t"] for r in own} == set(matches.TIMES)
    probe = {"method": "sam2videox", "teacher": "exact", "where": "subject", "out": 8, "head_steps": 2, "weight": 1.0}
    plain = row({"train": {"lr": 1e-2}, "measure": {"of": "features", "length": 3, "probe": probe, "teacher": probe | {"other": True}}}, spot(tmp_path, "b"))
    assert {r["head"] for r in plain} == {"fitted"} and all(0 <= r["repeated"] <= 1 for r in plain if not math.isnan(r["repeated"]))
    with pytest.raises(MotionLabError, match="no probe is named"):
        row({"train": {"lr": 1e-2}, "measure": {"of": "features", "length": 3}}, spot(tmp_path, "b"))


def test_the_own_head_is_the_one_that_was_trained(root, tmp_path):
    from safetensors.torch import load_file

    from motionlab.experiments.finetune import trained, training_folder
    from motionlab.training.checkpoints import latest

    arm = arms.smaller(read_arm({"name": "x", "measure": {"of": "features", "length": 3}} | EXACT, {k: v for k, v in OPTIONS.items() if k != "length"}))
    home = trainings(spot(tmp_path, "a"))
    pipe = trained(arm, 0, home)
    assert not any(".heads." in name for name, _ in pipe.named_parameters())
    method, which = matches.with_head(arm, 0, home, pipe)
    stored = load_file(latest(training_folder(arm, 0, home) / "training")[0] / "ema.safetensors")
    mine = {name: value for name, value in stored.items() if ".heads." in name}
    assert which == "own" and method.weight > 0 and mine and all(torch.equal(pipe.state_dict()[name], value) for name, value in mine.items())
    assert dataclasses.replace(method, weight=arm.method.weight, tau=arm.method.tau) == arm.method and len(offsets()) == 49


def test_true_clips_of_a_split_are_shown_alone_behind_pillars_and_beside_look_alikes():
    from motionlab.data.prompts import load_prompts

    plain, behind, pair = (load_prompts(f"examples/{kind}", 2) for kind in ("plain", "pillar", "pair"))
    assert [p.id for p in plain] == ["examples/plain/0000", "examples/plain/0001"] and behind[0].clip().scene.occluders
    two = pair[0].clip().scene.actors
    assert len(two) == 2 and two[0].colour == two[1].colour and two[0].species == two[1].species
    with pytest.raises(MotionLabError, match="Did you mean 'pillar'"):
        load_prompts("examples/pillars", 2)


def test_flow_that_is_estimated_is_a_target_too():
    from motionlab.data.sidecars import Sidecar
    from motionlab.data.sources import Listed
    from motionlab.methods import open_method

    source = Listed([render(random_scene(3, motion="slide", camera=False, paths=False), 48, 17)])
    exact, dis = (torch.from_numpy(open_method("sam2videox", teacher=name).targets_of()[0].draw(source, 0)) for name in ("exact", "dis"))
    near = torch.from_numpy(Sidecar("transport", {"where": "subject"}).draw(source, 0))
    from motionlab.correlation import unpacked

    truth, said, there = (unpacked(one, (12, 12), outside=0.0) for one in (exact, dis, near))
    near_subject = there.isfinite().all(-1)[None]
    found, right = (correspondence(one.nan_to_num()[None], truth.nan_to_num()[None], near_subject) for one in (said, truth))
    assert float(right["hit"]) == float(right["still_kept"]) == 1
    assert 0.5 < float(found["hit"]) < 1 and 0 < float(found["still_kept"]) < 0.5         # it drags the ground around the subject along


# ---------------------------------------------------------------------------------------------- what a teacher's state knows
def test_a_wheel_turns_as_its_layer_does_and_ground_does_not():
    from motionlab.metrics.state_probe import cell_rotation

    clip = render(random_scene(8, species_name="wheel", motion="spin", camera=False, paths=False), 48, 17)
    turn, order = cell_rotation(clip, range(0, 17, 4), 4), list(range(0, 17, 4))
    subject = clip.object_mask(0)[order].reshape(5, 12, 4, 12, 4).mean((2, 4))
    assert np.isnan(turn[0]).all() and np.isnan(turn[1:][subject[1:] == 0]).all() and not np.isnan(turn[1:][subject[1:] == 1]).any()
    speeds = np.unique(np.round(turn[~np.isnan(turn)], 6))
    layer = next(layer for layer in clip.layers if layer.object == 0)
    angle = np.unwrap(np.arctan2(layer.transform[:, 1, 0], layer.transform[:, 0, 0]))
    assert np.isclose(speeds[:, None], np.diff(angle[order]), atol=1e-5).any(1).all() and np.abs(speeds).max() > 0.3


def test_probes_read_what_lies_open_and_nothing_else():
    """Features that hold the turn itself are read perfectly; noise is not; the limb is read from its one-hot."""
    from motionlab.metrics.probes import patch_parts
    from motionlab.metrics.state_probe import cell_rotation, probe_state

    order = list(range(0, 17, 8))
    clips = [render(random_scene(40 + k, species_name="dog", motion="run", camera=False), 48, 17) for k in range(10)]
    turns = np.stack([np.nan_to_num(cell_rotation(clip, order, 4)) for clip in clips])
    parts = np.stack([patch_parts(clip, order, 4).reshape(3, 12, 12) for clip in clips])
    names, index = np.unique(parts, return_inverse=True)
    told = np.concatenate([turns[..., None], np.eye(len(names))[index.reshape(parts.shape)]], -1)
    rows = probe_state(told, clips, order, 4)
    assert len(rows) == 3 and all(row["limb"] > 0.95 and row["rotation"] > 0.95 for row in rows)
    noise = probe_state(np.random.default_rng(0).normal(size=told.shape), clips, order, 4)
    assert all(row["limb"] < 0.5 and row["rotation"] < 0.2 for row in noise)
    with pytest.raises(MotionLabError, match="do not divide"):
        probe_state(told[:3], clips[:3], order, 4)


def test_the_state_of_an_image_network_is_probed(root, tmp_path):
    arm = arms.smaller(read_arm({"name": "image", "method": "sam2videox", "teacher": "image"}, {"prompts": "examples"}))
    arm = dataclasses.replace(arm, measure=dataclasses.replace(arm.measure, of="state", n=10, length=3))
    rows = matches.state_rows(arm, 0, tmp_path)
    assert len(rows) == 3 and all(0 <= r["limb"] <= 1 and r["rotation"] <= 1 or math.isnan(r["rotation"]) for r in rows)
    with pytest.raises(MotionLabError, match="has no state"):
        matches.state_rows(dataclasses.replace(arm, method=dataclasses.replace(arm.method, teacher="exact")), 0, tmp_path)
