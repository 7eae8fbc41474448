"""Transitions as rows of a sweep: every source, swapped ends, trainings that are shared, tables without sampling, smoke."""
import json

import numpy as np
import pytest
import yaml

from motionlab.core.errors import MotionLabError
from motionlab.core.paths import repo_root
from motionlab.experiments import transition_tables, transitions
from motionlab.experiments.transitions import check_arm, generator, read_transition_arm, run_row
from motionlab.models.open import open_own
from motionlab.runner.sweep.ablations import read_sweep
from tiny_repository import lay_out, spot

COMMON = {"sets": ["between_examples"], "n": 2, "steps": 2, "weights": "unet"}
BMP = {"name": "bmp", "method": "vtg", "train": {"lr": 1e-2, "clip_steps": 8}}
DRAFT = yaml.safe_load((repo_root() / "reproductions/vtg/pilots/ablations.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository whose DiT does clips of 17 frames."""
    home = lay_out(tmp_path_factory.mktemp("repository"), length=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTIONLAB_ROOT", str(home))
        yield home


def trainings_of(folder):
    return sorted((folder / "trained").glob("vtg-between-*/trained.safetensors"))


def clips(folder, name, file="between_examples"):
    return np.load(spot(folder, name) / f"{file}.npy")


def test_sources_show_the_true_clips_and_the_best_that_a_codec_can_do(root, tmp_path):
    found = {source: run_row({"name": source, "source": source}, 0, spot(tmp_path, source), "full", **COMMON)
             for source in ("truth", "reconstruction", "shuffled", "blurred")}
    truth, made, mixed, _ = (clips(tmp_path, source) for source in found)
    assert found["blurred"][0]["edge"] < found["truth"][0]["edge"] - 0.05
    assert truth.shape == (2, 9, 48, 48, 3) and [row["grey"] for row in found["truth"]] == [0, 0]
    assert sorted(map(bytes, made[0])) == sorted(map(bytes, mixed[0])) and not np.array_equal(made, mixed)
    assert all(row["flicker_excess"] == 0 for row in found["reconstruction"])
    assert {"task": "between", "half": "reversible", "item": "between_examples/000", "arm": "truth"}.items() <= found["truth"][0].items()
    with pytest.raises(MotionLabError, match="do not all have"):
        run_row({"name": "truth", "source": "truth"}, 0, spot(tmp_path, "no"), "full", **COMMON | {"sets": ["blend_examples"]})


def test_an_arm_goes_set_by_set_and_swaps_ends_where_it_is_asked_to(root, tmp_path, monkeypatch):
    arm = {"name": "plain", "method": "between", "measure": {"swap": True}}
    common = COMMON | {"sets": ["between_examples", "blend_examples"]}
    rows = run_row(arm, 0, spot(tmp_path), "full", **common)
    assert [row["task"] for row in rows] == ["between"] * 2 + ["blend"] * 2
    assert rows[0]["order_cost_0"] == pytest.approx(rows[0]["pose_swapped_0"] - rows[0]["pose_0"]) and "mix_1" in rows[2]
    assert (spot(tmp_path) / "between_examples_swapped.npy").is_file() and not (spot(tmp_path) / "blend_examples_swapped.npy").exists()
    monkeypatch.setattr(transitions, "clips_of", lambda *args, **more: pytest.fail("sampled again"))
    assert [row["item"] for row in run_row(arm, 0, spot(tmp_path), "full", **common)] == [row["item"] for row in rows]


def test_the_base_read_backwards_has_no_order_gap_with_noise_reversed_too(root, tmp_path):
    rows = run_row({"name": "flip", "method": "between", "sample": {"option": "P"}, "measure": {"swap": True}}, 0, spot(tmp_path), "full", **COMMON)
    assert max(row["order_gap_0"] for row in rows) < 0.05


def test_arms_that_train_nothing(root, tmp_path):
    two = COMMON | {"sets": ["blend_examples"], "n": 1}
    for name, arm in {"fade": {"method": "fades", "sample": {"kind": "cut"}}, "tei": {"method": "morphing", "sample": {"kind": "tei"}},
                      "both": {"method": "between", "sample": {"text": "slerp", "start": "slerp", "lora": 2, "lora_steps": 1}},
                      "text": {"method": "between", "sample": {"mode": "text"}}}.items():
        rows = run_row({"name": name, **arm}, 0, spot(tmp_path, name), "full", **two)
        assert len(rows) == 1 and np.isfinite(rows[0]["consistency"])
    assert len(list((tmp_path / "trained").glob("ends-*/*.safetensors"))) == 2              # LoRAs, and noises made with them
    run_row({"name": "lora", "method": "between", "sample": {"lora": 2, "lora_steps": 1}}, 0, spot(tmp_path, "lora"), "full", **two)
    assert len(list((tmp_path / "trained").glob("ends-*/*.safetensors"))) == 2              # shared by what differs in the noise alone
    oracle = run_row({"name": "oracle", "method": "between", "sample": {"start": "true"}}, 0, spot(tmp_path, "oracle"), "full", **COMMON)
    assert len(oracle) == 2
    with pytest.raises(MotionLabError, match="has not"):
        run_row({"name": "oracle", "method": "between", "sample": {"start": "true"}}, 0, spot(tmp_path, "none"), "full", **two)


def test_a_training_is_shared_by_what_samples_and_what_only_looks(root, tmp_path, monkeypatch):
    monkeypatch.setattr(transition_tables, "TIMES", (0.1, 0.5))
    run_row(BMP, 0, spot(tmp_path, "bmp"), "full", **COMMON)
    table = run_row({**BMP, "name": "table", "measure": {"of": "prediction"}}, 0, spot(tmp_path, "table"), "full", **COMMON)
    assert len(trainings_of(tmp_path)) == 1 and len(table) == 2
    row = table[0]
    assert row["loss"] == row["backward"] and {"fused_one_t0.50", "forward_f8", "apart", "backward_one_f0"} <= set(row)
    for name in ("forward", "fused"):
        assert row[name] == pytest.approx(np.mean([row[f"{name}_f{f}"] for f in range(9)])) == pytest.approx(np.mean([row[f"{name}_t{t:.2f}"] for t in (0.1, 0.5)]))
    zero = run_row({"name": "zero", "method": "vtg", "measure": {"of": "prediction"}}, 0, spot(tmp_path, "zero"), "full", **COMMON)
    assert zero[0]["forward"] == pytest.approx(row["forward"]) and zero[0]["loss"] != row["loss"] and zero[0]["apart"] > 0
    with pytest.raises(MotionLabError, match="no second branch"):
        run_row({"name": "plain", "method": "between", "measure": {"of": "prediction"}}, 0, spot(tmp_path, "no"), "full", **COMMON)


def test_an_alignments_weight_is_measured_before_it_is_trained_and_its_head_fitted_afterwards(root, tmp_path):
    arm = {**BMP, "name": "rar", "train": {**BMP["train"], "rar": -1.0}, "measure": {"of": "alignment"}}
    rows = run_row(arm, 0, spot(tmp_path, "rar"), "full", **COMMON)
    assert all(-1 <= row["alignment"] <= 1 for row in rows)
    folder = trainings_of(tmp_path)[0].parent
    found = json.loads((folder / "settled.json").read_text())
    assert found["weight"] == pytest.approx(0.2 * found["main"] / found["own"]) and found["literal"] == pytest.approx(0.5 * found["own"] / found["main"])
    before = folder.joinpath("trained.safetensors").stat().st_mtime_ns
    run_row({**arm, "measure": {"of": "alignment"}}, 0, spot(tmp_path, "again"), "full", **COMMON)
    assert folder.joinpath("trained.safetensors").stat().st_mtime_ns == before


def test_loras_of_ends_are_judged_by_their_own_pictures(root, tmp_path):
    arm = {"name": "ends", "method": "between", "sample": {"lora": 4, "lora_steps": 25, "lora_lr": 2e-2}, "measure": {"of": "ends"}}
    rows = run_row(arm, 0, spot(tmp_path), "full", **COMMON)
    assert all(row["lora_gain"] == pytest.approx(1 - row["end_loss_lora"] / row["end_loss"]) and row["lora_gain"] > 0 for row in rows)
    with pytest.raises(MotionLabError, match="fits no LoRAs"):
        run_row({**arm, "sample": {}}, 0, spot(tmp_path, "none"), "full", **COMMON)


def test_a_generator_of_several_frames_a_latent_is_told_the_last_one_in_two_ways(root, tmp_path):
    said = {}
    for last in ("true", "still"):
        rows = run_row({"name": last, "weights": "base", "measure": {"last": last}}, 0, spot(tmp_path, last), "full", **COMMON | {"steps": 1})
        said[last] = clips(tmp_path, last)
        assert len(rows) == 2 and said[last].shape == (2, 9, 48, 48, 3)
    assert open_own("base").frames == 17 and open_own("unet").frames == 9 and not np.array_equal(said["true"], said["still"])


def test_smoke_never_looks_at_pairs_that_judge(root, tmp_path):
    rows = run_row({"name": "plain", "method": "between", "measure": {"sets": ["between", "between_dev"]}}, 0, spot(tmp_path), "smoke", steps=20, weights="unet")
    assert {row["item"].split("/")[0] for row in rows} == {"between_examples"} and len(rows) == 4


def test_every_drafted_arm_is_one_that_code_makes(root, monkeypatch):
    for arm in DRAFT["arms"]:
        values = json.loads(json.dumps(arm).replace('"chosen@bmp"', "0.001").replace('"chosen"', "0.001"))
        check_arm(values, DRAFT["common"])
        one = read_transition_arm(values, DRAFT["common"])
        assert one.sampling.steps == 20 and (one.budget is None or one.budget.clip_steps == 1600)
    home = root / "reproductions" / "vtg"
    home.mkdir(exist_ok=True)
    for name in ("ablations", "g"):
        (home / f"{name}.yaml").write_text((repo_root_of_code() / f"reproductions/vtg/pilots/{name}.yaml").read_text())
        assert read_sweep(home / f"{name}.yaml", root).paper == "vtg"


def repo_root_of_code():
    from pathlib import Path

    return Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("arm, says", [
    ({"source": "render"}, "source of an arm"), ({"train": {"clip_steps": 5}, "method": "vtg"}, "no whole number"), ({"measure": {"of": "loss"}}, "what is measured"),
    ({"measure": {"last": "first"}}, "form of the last frame"), ({"measure": {"sets": ["betwen"]}}, "Did you mean 'between'"), ({"measure": {"sets": []}}, "on no set"),
    ({"method": "between", "train": {"lr": 1.0}}, "acts while sampling"), ({"method": "between", "sample": {"gg": 1}}, "no field 'gg'")])
def test_mistakes_are_named(arm, says):
    with pytest.raises(MotionLabError, match=says):
        check_arm({"name": "x"} | arm, {"sets": ["between"]})


def test_a_method_is_attached_where_nothing_is_trained(root, tmp_path):
    pipe = generator(read_transition_arm({"name": "zero", "method": "vtg"}, COMMON), 0, tmp_path)
    assert pipe.exchange is not None and not any(p.requires_grad for p in pipe.parameters())


def test_every_criterion_names_an_arm_a_set_and_a_column_that_code_makes(root, tmp_path):
    claims = yaml.safe_load((repo_root_of_code() / "reproductions/vtg/claims.yaml").read_text(encoding="utf-8"))["claims"]
    arms = {arm["name"]: arm for arm in DRAFT["arms"]}
    made = {row["task"]: set(row) for task in ("between", "blend", "change", "pose")
            for row in run_row({"name": "plain", "method": "between", "measure": {"swap": True}}, 0, spot(tmp_path, task), "full",
                               **COMMON | {"sets": [f"{task}_examples"], "n": 1, "steps": 1})}
    tables = {"prediction": {"loss"}, "alignment": {"alignment"}, "ends": {"lora_gain"}}
    for key, claim in claims.items():
        for leaf in leaves(claim["criterion"]):
            assert leaf["raw"] == "sweep_full.csv"
            for name in {leaf["arm"], leaf.get("minus"), leaf.get("over"), *leaf.get("minus_best", ())} - {None}:
                measured = arms[name].get("measure", {})
                sets = measured.get("sets", DRAFT["common"]["sets"])
                task = leaf.get("where", {}).get("task", "between" if "half" in leaf.get("where", {}) else sets[0])
                assert task in sets, (key, name)
                columns = made[task] if measured.get("of", "clips") == "clips" else tables[measured["of"]]
                assert leaf["metric"] in columns, (key, leaf["metric"])
                assert measured.get("swap") or not leaf["metric"].startswith("order"), (key, name)


def leaves(criterion):
    if not criterion:
        return []
    parts = next((criterion[word] for word in ("all", "any", "agree") if word in criterion), None)
    return [criterion] if parts is None else [leaf for part in parts for leaf in leaves(part)]
