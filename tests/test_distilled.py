"""Rows of distilled generators as they are judged: seeds together, classes, speeds, ladders, distances to redraws, steadiness."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from motionlab.core.errors import MotionLabError
from motionlab.data.prompts import load_prompts
from motionlab.experiments import distilled, redraws
from motionlab.experiments.steadiness import run_row, variation_rows
from motionlab.ledger.claims import load_claims
from motionlab.metrics.failures import DETECTORS
from motionlab.metrics.fvd import fvd, log_ratios
from motionlab.models.evaluator import load_evaluator
from motionlab.models.shipped import shipped
from motionlab.models.small.codec import load_codec
from motionlab.runner.sweep import read_sweep
from tiny_repository import root, spot  # noqa: F401

HOME = Path(__file__).resolve().parents[1] / "reproductions" / "sam2videox"


def rows_of(arm, structure, n=12, seed=0, **more):
    rng = np.random.default_rng([len(arm), seed])
    return [{"item": f"test/{k:03d}", "arm": arm, "seed": seed, "structure_0": structure + 0.01 * rng.normal(), "speed": float(k),
             "structure_1": structure, **{f"failure_{d}": rng.random() for d in DETECTORS}, **more} for k in range(n)]


@pytest.fixture
def sweep():
    """Invented rows of a sweep, named as the drafted arms are."""
    said = [row | {"arm": f"{arm}_features", "head": "own", "t": t, "hit": hit + t / 10, "speed": np.nan, "structure_0": np.nan}
            for arm, hit in (("plain", 0.2), ("full", 0.6)) for t in (0.1, 0.9) for row in rows_of(arm, np.nan)]
    loss = [row | {"arm": "full_loss", "loss_subject": 0.3, "structure_0": np.nan} for row in rows_of("full", np.nan)]
    return pd.DataFrame([*rows_of("reconstruction", 0.1), *rows_of("plain", 0.25), *rows_of("full", 0.2), *rows_of("full_seeds", 0.22, seed=1),
                         *rows_of("plain_in@prompts=rigid", 0.15), *rows_of("full_in@prompts=rigid", 0.15), *said, *loss])


def test_seeds_of_an_arm_are_one_arm_and_speeds_are_those_of_true_clips(sweep):
    table = distilled.judged(sweep)
    assert set(table["arm"]) == {"reconstruction", "plain", "full"} and set(table.loc[table["arm"] == "full", "seed"]) == {0, 1}
    assert {"broken", "broken_extra_part"} <= set(table)
    slow = table[table["item"] == "test/000"]
    assert set(slow["third"]) == {0} and set(table.loc[table["item"] == "test/011", "third"]) == {2}
    with pytest.raises(MotionLabError, match="no rows of arm 'reconstruction'"):
        distilled.judged(sweep[sweep["arm"] != "reconstruction"])


def test_classes_are_their_sets(sweep):
    table = distilled.by_class(sweep)
    gaps = distilled.by_part(dict(list(table.groupby("class"))), "full", "plain", ["structure_1"])
    assert gaps.groupby("arm")["structure_1"].mean().to_dict() == pytest.approx({"people": -0.04, "rigid": 0.0}) and len(gaps) == 24
    assert distilled.by_part({"people": table}, "full", "none", ["structure_1"]).empty
    assert set(table["class"]) == {"people", "rigid"} and {"plain", "full"} == set(table.loc[table["class"] == "rigid", "arm"])


def test_rows_of_teachers_are_called_by_their_teacher_and_told_apart_by_kind():
    rows = [{"item": f"{kind}/{name}", "arm": f"{kind}@teacher={name}", "seed": 0, "hit": hit} for kind, hit in (("plain", 0.5), ("pillar", 0.3))
            for name in ("sam2", "dis")] + [{"item": "plain/r", "arm": "plain@radius=2", "seed": 0, "hit": 0.1}]
    table = distilled.of_teachers(pd.DataFrame(rows), ["sam2"])
    assert table["arm"].tolist() == ["sam2"] * 2 and table["hit_pillar"].dropna().tolist() == [0.3] and table["hit_plain"].dropna().tolist() == [0.5]
    short = distilled.renamed(pd.DataFrame(rows), {"small": "plain@radius=2", "none": "plain@radius=9"})
    assert short["arm"].tolist() == ["small"]


def test_features_are_averaged_over_noise_levels_and_rungs_stand_together(sweep):
    said = distilled.over_times(sweep)
    assert said.groupby("arm")["hit"].mean().to_dict() == pytest.approx({"plain": 0.25, "full": 0.65}) and len(said) == 24
    taught = pd.DataFrame([{"item": "a", "arm": "plain@teacher=sam2", "seed": 0, "hit": 0.9}])
    ladder = distilled.rungs(sweep, taught, {"full": "plain@teacher=sam2"})
    assert ladder.groupby(["rung", "arm"]).ngroups == 1 + 2 + 1 + 3 and ladder.loc[ladder["rung"] == "targets", "value"].tolist() == [0.9]


# ---------------------------------------------------------------------------------------------- distances
def clouds(n, shift, seed):
    return np.random.default_rng(seed).normal(size=(n, 4)) + shift


def test_the_jackknife_of_a_ratio_has_the_interval_that_it_says():
    """Means 1.5 and 0.5 apart in four directions: the true ratio is log 9."""
    inside, widths = 0, []
    for draw in range(20):
        redrawn = np.stack([clouds(40, 0, [draw, 10 + k]) for k in range(8)], 1)
        near, far = clouds(40, 0.5, [draw, 1]), clouds(40, 1.5, [draw, 2])
        values = log_ratios(far, near, redrawn)
        reach = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        inside, widths = inside + (abs(values.mean() - np.log(9)) < reach), [*widths, 2 * reach]
    assert inside >= 16                                                              # 19 on average
    again = fvd(far, redrawn, near, 200)
    assert widths[-1] == pytest.approx(again.high - again.low, rel=0.4)
    assert abs(log_ratios(near, near, redrawn)).max() < 1e-9
    with pytest.raises(MotionLabError, match="no interval"):
        log_ratios(far[:3], near[:3], redrawn[:3])


def fd(arm, shift, seed=0, n=16, at=0):
    return [{"item": f"examples/{k:03d}", "arm": arm, "seed": seed} | {f"fd_{i:02d}": v for i, v in enumerate(row)}
            for k, row in enumerate(clouds(n, shift, [at, seed]))]


def test_pairs_of_arms_are_compared_with_redraws_of_their_prompts():
    table = pd.DataFrame([*fd("near", 0.3, at=1), *fd("far", 2.0, at=2), *(row for k in range(4) for row in fd("redraw", 0, k, at=3))])
    rows = pd.DataFrame(redraws.ratio_rows(table, [("near", "far")]))
    assert set(rows["arm"]) == {"near_over_far"} and len(rows) == 16 and rows["log_ratio"].mean() < -0.5
    with pytest.raises(MotionLabError, match="no features of arm 'other'"):
        redraws.ratio_rows(table, [("near", "other")])
    with pytest.raises(MotionLabError, match="has 1 seeds"):
        redraws.ratio_rows(pd.DataFrame([*fd("near", 0.3), *fd("redraw", 0)]), [("near", "near")])


def test_damaged_redraws_stand_against_the_last_one(root):
    from motionlab.experiments.measure import clip_features

    prompts, codec, reader = load_prompts("examples", 5), load_codec(shipped("codec")), load_evaluator(shipped("evaluator_0"))
    rows = []
    for seed in (0, 1, 8):
        for p, found in zip(prompts, clip_features(np.stack([p.redraw(seed).frames for p in prompts]), reader)):
            rows.append({"item": p.id, "arm": "redraw", "seed": seed} | found)
    said = pd.DataFrame(redraws.damage_rows(pd.DataFrame(rows), prompts, codec, reader, {"frozen_1": ("frozen", 1)}))
    assert len(said) == 5 and set(said["arm"]) == {"frozen_1"} and said["log_ratio"].notna().all()
    with pytest.raises(MotionLabError, match="None of the prompts"):
        list(redraws.damage_rows(pd.DataFrame(rows), [], codec, reader))


# ---------------------------------------------------------------------------------------------- steadiness
def test_variation_is_that_of_the_last_half_stretch_by_stretch():
    log = [{"grad_norm": 1.0 if k < 20 else 2.0 + (-1) ** k * 0.2 + 0.1 * k} for k in range(40)]
    rows = variation_rows(log, "full", parts=4)
    assert [row["item"] for row in rows] == [f"stretch {k}" for k in (1, 2, 3, 4)] and all(0.03 < row["variation"] < 0.1 for row in rows)
    with pytest.raises(MotionLabError, match="2 rows in its last half"):
        variation_rows(log[:4], "full")


def test_a_row_reads_the_log_of_the_arms_own_training(root, tmp_path):
    row, = run_row({"name": "plain", "train": {"lr": 1e-3}}, 0, spot(tmp_path), "smoke", length=3)
    assert row["arm"] == "plain" and row["grad_norm"] > 0
    with pytest.raises(MotionLabError, match="not trained"):
        run_row({"name": "trunk"}, 0, spot(tmp_path), "smoke", length=3)


# ---------------------------------------------------------------------------------------------- the drafts
def test_every_arm_that_a_draft_names_is_in_the_drafted_sweeps(tmp_path):
    """And every column by a notebook's rows: what is made where stands in MADE."""
    sweeps = {name: _arms(tmp_path, name) for name in ("ablations", "teachers", "steady")}
    made = {"13_arms.csv": {arm.removesuffix("_seeds") for arm in sweeps["ablations"]}, "teachers_full.csv": sweeps["teachers"], "steady_full.csv": sweeps["steady"],
            "13_classes.csv": {"full", "plain", "reconstruction"}, "13_features.csv": {a.removesuffix("_features") for a in sweeps["ablations"] if a.endswith("_features")}}
    pairs = {f"{one}_over_{other}" for one in sweeps["ablations"] for other in sweeps["ablations"]}
    made |= {"13_fvd.csv": pairs, "13_fvd_floor.csv": set(redraws.DAMAGES), "12_cost.csv": {"plain", "cached", "online"}, "10_tracked.csv": {"sam2", "copied", "warped"},
             "11_fusion.csv": {"sam2"}, "11_projectors.csv": {"interp_last", "latent_stride"}, "11_moving.csv": {"interp_last", "latent_stride"}}
    found = 0
    for claim in load_claims("sam2videox", HOME.parents[1]).claims.values():
        for leaf in claim.criterion.leaves() if claim.criterion else []:
            asked = {leaf.arm, *filter(None, (leaf.minus, leaf.over)), *leaf.minus_best}
            assert asked <= made[leaf.raw], (claim.id, asked - made[leaf.raw])
            found += 1
    assert found > 60


def _arms(folder, name):
    """Names of a drafted file's arms, grids expanded, read where its checkpoints need not be."""
    text = (HOME / "pilots" / f"{name}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    del values["data"]
    (folder / "reproductions" / "sam2videox").mkdir(parents=True, exist_ok=True)
    path = folder / "reproductions" / "sam2videox" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return set(read_sweep(path, folder).arms)
