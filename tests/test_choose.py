"""Rates are chosen by code: the rule on rows with known answers, then through the sweep, and nothing by hand under protocol 7."""
from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from motionlab.core.errors import MotionLabError
from motionlab.ledger.selection import Point, budget_problems, choose, chosen_problems, rate_problems, read_chosen, sweep_problems
from motionlab.runner import sweep as sweeps
from motionlab.runner.sweep.choose import grids
from test_sweep import root, sweep, write  # noqa: F401

YAML = """paper: example
row: sweep_example:trained
protocol: 7
choose: {grid: {lr: [3e-4, 1e-3, 3e-3]}, measure: {prompts: dev}}
arms:
  - {name: base, measure: {prompts: test}, seeds: [0]}
  - {name: plain, train: {lr: chosen}, measure: {prompts: test}, seeds: [0]}
  - &full {name: full, method: cure, train: {lr: chosen}, measure: {prompts: test}, seeds: [0]}
  - {<<: *full, name: guided, sample: {w: 2.0}}
  - {<<: *full, name: wrong, train: {lr: chosen@full, teacher: other}}
cost: {minutes_per_row: {full: 20, smoke: 0.1}, ram_gb: 0.25}
"""


def rows(**arms):
    """A raw table of arms {row: (structure_0, structure_1, share of 100 prompts that move)}."""
    out = [(f"{k:03d}", name, "0", s0, s1, float(k < round(100 * moved))) for name, (s0, s1, moved) in arms.items() for k in range(100)]
    return dict(zip(("item", "arm", "seed", "structure_0", "structure_1", "move_ok"), np.array(out, dtype=str).T))


def grid(*arms):
    return [Point(arm, f"{arm}{k}", {"lr": lr}) for arm in arms for k, lr in enumerate((1.0, 2.0, 3.0))]


PLAIN = {"plain0": (0.3, 0.3, 0.9), "plain1": (0.2, 0.2, 0.9), "plain2": (0.1, 0.1, 0.8)}


@pytest.mark.parametrize("full, lr, why", [
    ({"full0": (0.3, 0.3, 0.9), "full1": (0.2, 0.2, 0.9), "full2": (0.25, 0.25, 0.9)}, 2, "lowest structure"),
    ({"full0": (0.3, 0.1, 0.9), "full1": (0.1, 0.31, 0.9), "full2": (0.4, 0.4, 0.9)}, 1, "of both readers' mean"),
    ({"full0": (0.3, 0.3, 0.9), "full1": (0.2, 0.2, 0.84), "full2": (0.1, 0.1, 0.5)}, 1, "that keeps the motion"),
    ({"full0": (0.3, 0.3, 0.9), "full1": (0.2, 0.2, 0.85), "full2": (0.1, 0.1, 0.5)}, 2, "0.05 less is within"),
    ({"full0": (0.2, 0.2, 0.9), "full1": (0.2, 0.2, 0.95), "full2": (0.2, 0.2, 0.9)}, 1, "ties to the smaller rate"),
    ({"full0": (0.3, 0.3, 0.5), "full1": (0.2, 0.2, 0.7), "full2": (0.1, 0.1, 0.6)}, 2, "none keeps it: the least loss"),
])
def test_the_rule(full, lr, why):
    found = choose(rows(**PLAIN, **full), grid("full", "plain"), "plain")
    assert found.arms["full"] == {"lr": lr}, why
    assert found.arms["plain"] == {"lr": 2}                   # its fastest rate moves less than its best
    assert found.lost == (("full",) if "none" in why else ())


@pytest.mark.parametrize("better, lr", [("more", 1), ("less", 2)])
def test_another_column_can_decide(better, lr):
    """The mean over its units, ties to the smaller rate; motion is not asked."""
    out = [(f"{k:03d}", f"full{j}", "0", value) for j, value in enumerate((0.7, 0.2, 0.7)) for k in range(4)]
    table = dict(zip(("item", "arm", "seed", "score"), np.array(out, dtype=str).T))
    found = choose(table, grid("full"), "", by="score", better=better)
    assert found.arms == {"full": {"lr": lr}} and not found.lost and found.table[0].motion is None
    assert [(point.value, point.n) for point in found.table] == [(0.7, 4), (0.2, 4), (0.7, 4)] and "score" in found.rule


def test_the_comparator_is_taken_at_its_own_choice():
    """Of its rates the chosen one moves 0.03 less than the best: it is from there that 0.05 count."""
    plain = {"plain0": (0.3, 0.3, 0.9), "plain1": (0.2, 0.2, 0.87), "plain2": (0.25, 0.25, 0.9)}
    found = choose(rows(**plain, full0=(0.3, 0.3, 0.9), full1=(0.2, 0.2, 0.83), full2=(0.1, 0.1, 0.8)), grid("full", "plain"), "plain")
    assert found.arms == {"plain": {"lr": 2}, "full": {"lr": 2}}


def test_motion_is_compared_prompt_by_prompt():
    table = rows(**PLAIN, full0=(0.1, 0.1, 0.9), full1=(0.2, 0.2, 0.9), full2=(0.2, 0.2, 0.9))
    moved = table["move_ok"].astype(float)
    moved[(table["arm"] == "full0") & (table["item"] < "010")] = np.nan
    table["move_ok"] = np.where(np.isnan(moved), "", moved.astype(str))
    point = next(point for point in choose(table, grid("full", "plain"), "plain").table if point.row == "full0")
    assert point.n == 90 and point.motion == 0


def chosen(root):
    return read_chosen(root / "reproductions/example")


def test_a_sweep_chooses_and_its_arms_follow(root, capsys):
    write(root, YAML)
    with pytest.raises(MotionLabError, match="Nothing was chosen yet for lr of arm 'plain'.\n.*--choose"):
        read = sweeps.read_sweep("example", root)
        sweeps.refuse_unchosen(read, sweeps.plan(read, "full"))
    assert sweep("--tier", "full", "--arm", "base", "--dry-run") == 0
    assert sweep("--tier", "full", "--choose") == 0
    assert "structure 0.1575" in capsys.readouterr().out
    found = chosen(root)
    assert found.arms == {"plain": {"lr": 1e-3}, "full": {"lr": 1e-3}} and [point.arm for point in found.table] == ["plain"] * 3 + ["full"] * 3
    assert (root / "reproductions/example/raw/choose_full.csv").is_file() and chosen_problems(root / "reproductions/example") == []
    read = sweeps.read_sweep("example", root)
    assert {name: arm.get("train") for name, arm in read.arms.items()} == {
        "base": None, "plain": {"lr": 1e-3}, "full": {"lr": 1e-3}, "guided": {"lr": 1e-3}, "wrong": {"lr": 1e-3, "teacher": "other"}}
    assert sweep("--tier", "full", "--arm", "plain", "full", "wrong", "--publish") == 0
    settings = [record["settings"] for record in json.loads((root / "reproductions/example/raw/sweep_full.json").read_text())]
    assert {one["arm name"]: (one["arm train"]["lr"], one["protocol"]) for one in settings} == {
        "full": (1e-3, 7), "plain": (1e-3, 7), "wrong": (1e-3, 7)}
    assert [one["rates"] for one in settings] == [{"lr": "full"}, {"lr": "plain"}, {"lr": "full"}]
    assert sweep_problems(root / "reproductions/example") == []
    assert sweep("--tier", "full", "--choose", "--dry-run") == 0 and "6 finished" in capsys.readouterr().out     # nothing is measured twice


def test_a_grid_may_hold_several_rates_and_smoke_chooses_nothing(root):
    write(root, YAML.replace("[3e-4, 1e-3, 3e-3]}", "[3e-4, 1e-3], new_lr: [1, 3]}").replace("method: cure, train: {lr: chosen}",
                                                                                         "method: cure, train: {lr: chosen, new_lr: chosen}"))
    assert sweep("--choose") == 0 and chosen(root) is None
    assert sweep("--tier", "full", "--choose") == 0
    assert chosen(root).arms == {"plain": {"lr": 1e-3}, "full": {"lr": 1e-3, "new_lr": 1.0}}         # a tie goes to the smaller rate


def test_a_choice_that_does_not_follow_is_found(root):
    write(root, YAML)
    sweep("--tier", "full", "--choose")
    path = root / "reproductions/example/chosen.yaml"
    text = path.read_text()
    for old, new in (("  full: {lr: 0.001}", "  full: {lr: 0.003}"), ("value: 0.1575", "value: 0.1475"), ("comparator: plain", "comparator: full")):
        assert old in text
        path.write_text(text.replace(old, new))
        assert "not what the rule chooses" in chosen_problems(path.parent)[0]
    path.write_text(text.replace("arms:", "amrs:"))
    assert "no field 'amrs'" in chosen_problems(path.parent)[0]


def test_an_arm_may_turn_a_rate_on_purpose(root):
    """A field of the grid other than lr, where the arm says so: an ablation of that rate."""
    both = YAML.replace("lr: [3e-4, 1e-3, 3e-3]", "lr: [3e-4, 1e-3, 3e-3], new_lr: [1.0, 3.0]")
    turned = "  - {<<: *full, name: turned, train: {lr: chosen@full, new_lr: 9.0}, ablates: [new_lr]}\n"
    write(root, both.replace("cost:", turned + "cost:"))
    assert sweeps.read_sweep("example", root).arms["turned"]["train"]["new_lr"] == 9.0
    for wrong, says in (("", "new_lr of arm 'turned' is 9.0, set by hand"), (", ablates: [lr]", "ablate"), (", ablates: [nw_lr]", "new_lr")):
        write(root, both.replace("cost:", turned.replace(", ablates: [new_lr]", wrong) + "cost:"))
        with pytest.raises(MotionLabError, match=says):
            sweeps.read_sweep("example", root)


def test_a_field_of_sampling_can_be_chosen_too(root):
    """With the rate, on the same trainings; arms that only sample otherwise take what was chosen, unless they turn it on purpose."""
    text = YAML.replace("lr: [3e-4, 1e-3, 3e-3]", "lr: [3e-4, 1e-3, 3e-3], keep: [3, 8]").replace("new_lr: chosen", "")
    text = text.replace("name: full, method: cure, train: {lr: chosen},", "name: full, method: cure, train: {lr: chosen}, sample: {keep: chosen},")
    text = text.replace("sample: {w: 2.0}", "sample: {w: 2.0, keep: chosen}")
    text = text.replace("  - {<<: *full, name: wrong", "  - {<<: *full, name: all, sample: {keep: 8}, ablates: [keep]}\n  - {<<: *full, name: wrong, sample: {keep: chosen@full}")
    write(root, text)
    found = sweeps.read_sweep("example", root)
    assert found.rates["full"] == {"lr": "full", "keep": "full"} == found.rates["guided"] and found.rates["all"] == {"lr": "full"}
    points = grids(found)[1]
    assert [point.values for point in points if point.arm == "full"] == [{"lr": lr, "keep": keep} for lr in (3e-4, 1e-3, 3e-3) for keep in (3.0, 8.0)]
    assert {point.arm for point in points} == {"plain", "full"}
    dev = grids(found)[0].arms["dev.full@lr=1e-3,keep=8"]
    assert dev["sample"] == {"keep": 8} and type(dev["sample"]["keep"]) is int and dev["train"] == {"lr": 1e-3}
    (root / "reproductions/example/chosen.yaml").write_text("comparator: plain\nrule: x\narms: {plain: {lr: 3e-3}, full: {lr: 1e-3, keep: 3.0}}\ntable: []\n")
    arms = sweeps.read_sweep("example", root).arms
    assert arms["guided"]["sample"] == {"w": 2.0, "keep": 3} and arms["all"]["sample"] == {"keep": 8} and arms["all"]["train"]["lr"] == 1e-3
    write(root, text.replace(", ablates: [keep]", ""))
    with pytest.raises(MotionLabError, match="keep of arm 'all' is 8, set by hand"):
        sweeps.read_sweep("example", root)


@pytest.mark.parametrize("old, new, says", [
    ("name: plain, train: {lr: chosen}", "name: plain, train: {lr: 1e-3}", "lr of arm 'plain' is 0.001, set by hand"),
    ("name: plain, train: {lr: chosen}", "name: plain, train: {}", "lr of arm 'plain' is left to its default, set by hand"),
    ("name: plain, train: {lr: chosen}", "name: plain, grid: {lr: [1e-3]}, train: {}", "lr of arm 'plain@lr=1e-3' is 0.001, set by hand"),
    ("choose: {grid", "chose: {grid", "no field 'chose'"),
    ("choose: {grid: {lr: [3e-4, 1e-3, 3e-3]}, measure: {prompts: dev}}\n", "", "it says no grid of rates"),
    ("chosen@full", "chosen@flul", "Did you mean 'full'"),
    ("train: {lr: chosen}, measure", "train: {lr: chosen, clip_steps: 9600}, measure", "arm 'full' has the budget .*and arm 'plain'"),
    ("teacher: other", "teacher: other, clips: 500", "arm 'wrong' has the budget"),
])
def test_nothing_is_set_by_hand_under_protocol_7(root, old, new, says):
    assert old in YAML
    write(root, YAML.replace(old, new, 1))
    with pytest.raises(MotionLabError, match=says):
        sweeps.read_sweep("example", root)
    write(root, YAML.replace("protocol: 7\n", "").replace("lr: chosen}", "lr: 1e-3}").replace("chosen@full", "1e-3"))
    assert sweeps.read_sweep("example", root).protocol == 6                          # arms of before stay readable


def test_another_budget_needs_its_reason_and_published_rows_are_held_to_it(root):
    longer = YAML.replace("name: plain, train: {lr: chosen}", "name: plain, train: {lr: chosen, clip_steps: 9600}, unequal: 'twice, for P-grow'")
    write(root, longer)
    assert sweep("--tier", "full", "--choose") == 0 and sweep("--tier", "full", "--arm", "plain", "full", "--publish") == 0
    folder = root / "reproductions/example"
    assert budget_problems(folder) == []
    path = folder / "raw/sweep_full.json"
    records = json.loads(path.read_text())
    assert [record["settings"].pop("unequal", None) for record in records] == [None, "twice, for P-grow"]
    path.write_text(json.dumps(records))
    assert "arm 'plain' has the budget" in budget_problems(folder)[0]


@pytest.mark.parametrize("settings, says", [
    ({"arm train": {"lr": 3e-3}, "rates": {"lr": "full"}}, "arm 'full' was made with lr 0.003, chosen was 0.001"),
    ({"arm train": {"lr": 1e-3}, "rates": {"lr": "wrong"}}, "made with lr 0.001, chosen was None"),
    ({"arm train": {"lr": 1e-3}, "rates": {}}, "made with rates that nobody chose"),
    ({"arm train": {"lr": 1e-3}, "rates": {"lr": "full"}}, None),
    ({"arm train": {"lr": 3e-3}, "protocol": 6}, None),
    ({}, None)])
def test_published_rows_were_trained_with_what_was_chosen(tmp_path, settings, says):
    (tmp_path / "raw").mkdir()
    (tmp_path / "chosen.yaml").write_text("comparator: plain\nrule: x\narms: {plain: {lr: 3e-3}, full: {lr: 1e-3}}\ntable: []\n")
    (tmp_path / "raw/sweep_full.json").write_text(json.dumps([{"settings": {"arm name": "full", "protocol": 7} | settings}]))
    found = rate_problems(tmp_path)
    assert found == [] if says is None else says in found[0]
    (tmp_path / "raw/sweep_full.json").write_text("[1]")
    assert "no list of rows' records" in sweep_problems(tmp_path)[0]


def test_there_must_be_something_to_choose(root):
    with pytest.raises(MotionLabError, match="nothing to choose"):
        sweeps.grids(sweeps.read_sweep("example", root))
    write(root, YAML.replace("lr: chosen@full, teacher", "lr: chosen@full, new_lr: chosen, teacher").replace("grid: {lr:", "grid: {new_lr: [1], lr:"))
    with pytest.raises(MotionLabError, match="takes new_lr from its own grid and lr from another arm's"):
        sweeps.grids(sweeps.read_sweep("example", root))


def test_the_file_is_data(root):
    write(root, YAML)
    sweep("--tier", "full", "--choose")
    content = yaml.safe_load((root / "reproductions/example/chosen.yaml").read_text())
    assert content["table"][0] == {"arm": "plain", "row": "dev.plain@lr=3e-4", "values": {"lr": 3e-4}, "value": 0.2575, "motion": 0.0, "n": 4}
