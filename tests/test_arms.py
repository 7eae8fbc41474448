"""Every kind of arm end to end at toy size: rows for all prompts, nothing done twice, trainings shared where they may be."""
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from motionlab.core.errors import MotionLabError
from motionlab.experiments import finetune, rows as arms
from motionlab.experiments.arms import read_arm
from motionlab.core.paths import repo_root
from motionlab.runner.sweep import read_sweep
from motionlab.models.small.backbone import load_backbone
from motionlab.models.small.codec import load_codec
from tiny_repository import root, spot  # noqa: F401

OPTIONS = {"prompts": "examples", "n": 2, "length": 2, "steps": 2}


def row(arm, place, run=arms.run_row, seed=0, tier="smoke", **more):
    return run(arm, seed, place, tier, **OPTIONS | more)


def test_plain_sources_score_every_prompt(root, tmp_path):
    for arm in ({"name": "original", "source": "render"}, {"name": "floor", "source": "reconstruction"}, {"name": "base"},
                {"name": "first", "sample": {"mode": "first"}}):
        rows = row(arm, spot(tmp_path, arm["name"]))
        assert [r["item"] for r in rows] == ["examples/000", "examples/001"] and {r["arm"] for r in rows} == {arm["name"]}
        assert {"look_ok", "move_ok_1", "structure", "smoothness", "failure_frozen", "vbench_motion", "fd_15"} <= set(rows[0])
        assert np.load(spot(tmp_path, arm["name"]) / "frames.npy").shape == (2, 5, 48, 48, 3)
        assert (spot(tmp_path, arm["name"]) / "samples.png").is_file()


def test_arms_may_have_prompts_of_their_own_and_be_compared_with_the_truth(root, tmp_path):
    rows = row({"name": "gate", "source": "reconstruction", "measure": {"prompts": "gate_overfit", "n": 2, "against_truth": True}}, spot(tmp_path, "gate"), tier="full")
    true = row({"name": "gate", "source": "render", "measure": {"prompts": "gate_overfit", "n": 2, "against_truth": True}}, spot(tmp_path, "true"))
    assert len(rows) == 2 and all(r["item"].startswith("gate_overfit/") for r in rows)
    assert all(a["psnr_true"] > 60 > b["psnr_true"] > 0 for a, b in zip(true, rows))


def test_smoke_never_looks_at_prompts_or_clips_that_judge(root, tmp_path):
    from motionlab.core.protocol import split_seeds

    rows = row({"name": "x", "source": "render", "measure": {"prompts": "gate_overfit"}}, spot(tmp_path, "a"), prompts="test", n=64)
    assert [r["item"] for r in rows] == ["examples/000", "examples/001"]
    rows = row({"name": "x", "measure": {"of": "shuffle"}}, spot(tmp_path, "b"), length=3, prompts="test")
    assert {int(r["item"]) for r in rows} <= set(split_seeds("examples", None))


def test_held_out_loss_is_paired_between_arms_and_says_of_each_time(root, tmp_path):
    loss = {"measure": {"of": "loss"}}
    first, again = (row({"name": "base"} | loss, spot(tmp_path, name), seed=seed) for name, seed in (("a", 0), ("b", 1)))
    assert [r["loss"] for r in first] == [r["loss"] for r in again]                      # an untrained arm: nothing may hang on the seed
    for r in first:
        at = [r[f"loss_{t:.2f}"] for t in (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)]
        assert r["loss"] == pytest.approx(np.mean(at)) and len(set(at)) == 10
    joint = row({"name": "full", "method": "videojam", "train": {"lr": 1e-2}} | loss, spot(tmp_path, "c"))
    assert "motion" in joint[0] and joint[0]["loss"] != first[0]["loss"]


def test_noise_belongs_to_the_prompt_and_the_seed(root, tmp_path):
    arm = {"name": "base"}
    for name, seed, n in (("a", 0, 2), ("b", 0, 1), ("c", 1, 2)):
        row(arm, spot(tmp_path, name), seed=seed, n=n)
    a, b, c = (np.load(spot(tmp_path, name) / "frames.npy") for name in "abc")
    assert np.abs(a[:1].astype(int) - b).max() <= 2 and not np.array_equal(a, c)          # batches of other sizes may round differently


def test_a_row_that_was_cut_off_does_not_sample_again(root, tmp_path, monkeypatch):
    arm = {"name": "base"}
    row(arm, spot(tmp_path))
    monkeypatch.setattr(arms, "sampled", None)
    assert len(row(arm, spot(tmp_path))) == 2
    (spot(tmp_path) / "frames.npy").write_bytes(b"cut short")
    with pytest.raises(TypeError):
        row(arm, spot(tmp_path))


def test_plain_training_trains_the_standard_budget_and_is_kept(root, tmp_path):
    arm = {"name": "continued", "train": {"lr": 1e-2}}
    rows = row(arm, spot(tmp_path, "a"))
    trained, = (tmp_path / "trained").glob("plain-*/trained.safetensors")
    before = trained.stat().st_mtime_ns
    (spot(tmp_path, "a") / "frames.npy").unlink()
    assert len(rows) == len(row(arm, spot(tmp_path, "a"))) and trained.stat().st_mtime_ns == before
    row({"name": "deeper", "train": {"lr": 1e-2, "layers": 3}}, spot(tmp_path, "b"))
    sizes = sorted(p.stat().st_size for p in (tmp_path / "trained").glob("plain-*/trained.safetensors"))
    assert len(sizes) == 2 and sizes[1] > 1.2 * sizes[0]


def test_arms_of_one_method_share_a_training_and_differ_in_sampling(root, tmp_path):
    full = {"name": "full", "method": "videojam", "train": {"lr": 1e-2}, "sample": {"w2": 3.0}}
    rows = row(full, spot(tmp_path, "full-0"))
    assert len(rows) == 2
    row(full | {"name": "no_motion", "sample": {"rule": "no_motion"}}, spot(tmp_path, "no_motion-0"))
    assert len(list((tmp_path / "trained").glob("*/trained.safetensors"))) == 1
    a, b = (np.load(spot(tmp_path, name) / "frames.npy") for name in ("full-0", "no_motion-0"))
    assert not np.array_equal(a, b)
    row(full | {"name": "wrong", "train": {"lr": 1e-2, "teacher": "other"}}, spot(tmp_path, "wrong-0"))
    assert len(list((tmp_path / "trained").glob("*/trained.safetensors"))) == 2


@pytest.mark.parametrize("method", ["lora", "videojam"])
def test_a_trained_generator_survives_its_file(root, tmp_path, method):
    arm = read_arm({"name": "full", "method": method, "train": {"lr": 1e-2, "clip_steps": 8}, "measure": {"length": 2}})
    first, again = (finetune.trained(arm, 0, tmp_path / "trained") for _ in range(2))
    states = [arm.method.sample(pipe, ["a red dog runs to the left over the meadow"], [0], arm.method.Sampling(steps=2)) for pipe in (first, again)]
    assert torch.equal(*states) and float(states[0].abs().sum()) > 0


def test_the_stage_of_make_pretrain_takes_what_the_sweep_trained(root, tmp_path):
    from motionlab.pretrain import stages

    arm = {"name": "full", "method": "videojam", "train": {"lr": 1e-2, "clip_steps": 8}, "measure": {"length": 2}}
    settings = {"joint": {"function": "motionlab.experiments.finetune:method_stage", "arm": arm}}
    (root / stages.HOME / "pretrain.yaml").write_text(yaml.safe_dump(settings))
    made = stages.run_stage("joint", tmp_path, root)
    home = root / "runs" / "sweep" / "trained"
    trained, = home.glob("videojam-*/trained.safetensors")
    assert made.read_bytes() == trained.read_bytes() and (tmp_path / "joint" / "log.jsonl").is_file()
    finetune.trained(read_arm(arm), 0, home)                       # an arm finds the same one
    assert len([path for path in home.glob("videojam-*") if path.is_dir()]) == 1
    settings["joint"]["function"] = "motionlab.experiments.finetune:method_stag"
    (root / stages.HOME / "pretrain.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(MotionLabError, match="which is not there"):
        stages.run_stage("joint", tmp_path / "again", root)


def test_shuffled_frames_are_measured_of_every_kind_of_model(root, tmp_path):
    kinds = {"base": {}, "continued": {"train": {"lr": 1e-2}}, "full": {"method": "videojam", "train": {"lr": 1e-2}}}
    for name, fields in kinds.items():
        rows = row({"name": name, "measure": {"of": "shuffle"}} | fields, spot(tmp_path, name), length=3)
        assert len(rows) == 4 and {r["reading"] for r in rows} == {"linear", "linear_quadratic"}
        joint = {"motion_original", "motion_shuffled", "blind_latents"}
        assert {"loss_original", "loss_shuffled", "loss_latents"} <= set(rows[0]) and (joint <= set(rows[0])) == (name == "full")
        assert all(r["loss_shuffled"] != r["loss_original"] for r in rows)


def test_motion_of_reordered_clips_is_the_flow_between_their_frames(root):
    from motionlab.models.small.pipe import SmallPipe
    from motionlab.experiments.shuffled import changed
    from motionlab.methods import open_method
    from motionlab.world import random_scene, render

    clips = {"1": render(random_scene(1), 48, 9), "2": render(random_scene(2), 48, 9)}
    model = SmallPipe(load_backbone(arms.shipped("base")), load_codec(arms.shipped("codec")), "x", 9)
    versions = changed(clips, model, open_method("videojam"), torch.Generator().manual_seed(0))
    assert {k: v["x1"].shape == v["d1"].shape == (2, 3, 4, 12, 12) for k, v in versions.items()} == dict.fromkeys(("original", "shuffled", "latents"), True)
    plain = videojam_latent(model, clips["1"].flow)
    assert torch.allclose(versions["original"]["d1"][0], plain, atol=1e-5) and not torch.allclose(versions["shuffled"]["d1"][0], plain, atol=1e-2)


def videojam_latent(model, flow):
    from motionlab.flow_rgb import WORLD_SIGMA
    from motionlab.papers.videojam import motion_latent

    return motion_latent(model.encode_video, flow, WORLD_SIGMA)


@pytest.mark.parametrize("arm, message", [
    ({"source": "rendr"}, "Did you mean 'render'"), ({"weights": "bse"}, "Did you mean 'base'"), ({"method": "videojm"}, "Did you mean 'videojam'"),
    ({"method": "videojam", "train": {"techer": "dis"}}, "Did you mean 'teacher'"), ({"train": {"lr": "fast"}}, "lr"),
    ({"method": "videojam", "train": {"lr": 1e-3, "teacher": "exakt"}}, "Did you mean 'exact'"), ({"measure": {"of": "shufle"}}, "Did you mean 'shuffle'"),
    ({"method": "videojam", "train": {"lr": 1e-3}, "sample": {"rule": "iner"}}, "Did you mean 'inner'"), ({"sample": 3}, "Write sample:"),
    ({"train": {"w2": 1.0}}, "no field 'w2'")])
def test_mistakes_are_named(root, tmp_path, arm, message):
    with pytest.raises(MotionLabError, match=message):
        row({"name": "x"} | arm, spot(tmp_path, "x"))


def test_every_committed_arm_trains_whole_batches():
    home = Path(__file__).resolve().parents[1]         # not that of the fixture
    budget = yaml.safe_load((home / "reproductions" / "protocol.yaml").read_text())["budget"]
    steps = [*budget["fine_tune_clip_steps"].values(), budget["half_budget_clip_steps"]]
    files = [path for path in (home / "reproductions").glob("*/*.yaml") if "\narms:\n" in path.read_text(encoding="utf-8")]
    assert {path.stem for path in files} == {"ablations", "longer", "shuffled"}
    for path in files:
        sweep = read_sweep(path, home)
        arms_of = [read_arm(arm, sweep.common) for arm in sweep.arms.values()]
        steps += [arm.budget.clip_steps for arm in arms_of if arm.budget]
    assert steps and not [n for n in steps if n % budget["fine_tune_batch"]]


def test_of_several_samples_the_readers_best_is_kept_prompt_by_prompt(monkeypatch):
    from motionlab.data.prompts import load_prompts
    from motionlab.experiments import rows

    several = np.arange(3 * 2 * 1 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 1, 2, 2, 3)
    errors = iter(([0.3, np.nan], [0.1, 0.5], [0.2, 0.4]))
    monkeypatch.setattr(rows, "learned_structure", lambda frames, species, reader: next(errors))
    kept = rows.best_of(several, load_prompts("examples", 2), None)
    assert np.array_equal(kept, [several[1, 0], several[2, 1]])
    with pytest.raises(MotionLabError, match="best_of is 0"):
        read_arm({"name": "x", "measure": {"best_of": 0}})
