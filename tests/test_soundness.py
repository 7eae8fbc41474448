"""Structure is judged by two readers beside motion kept; and the positive controls can be final as they are drafted."""
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from motionlab.core.errors import MotionLabError
from motionlab.ledger.claims import load_claims, read_criterion
from motionlab.ledger.soundness import check_structure
from motionlab.ledger.verdict import judge

ROOT = Path(__file__).resolve().parents[1]


def leaf(metric, within, arm="cure", minus="plain", **more):
    return {"raw": "sweep_full.csv", "metric": metric, "arm": arm, "minus": minus, "within": within, **more}


def both(within, **more):
    return {"agree": [leaf(f"structure_{k}", within, **more) for k in (0, 1)]}


KEPT = leaf("move_ok", [-0.07, None])
DOWN = both([None, -0.02])
GOOD = {
    "improvement": {"all": [DOWN, KEPT]},
    "deeper": {"all": [{"all": [DOWN]}, {"all": [KEPT]}]},
    "worse needs no bound: easier motion cannot fake harm": both([0.02, None]),
    "palette beside them": {"all": [*DOWN["agree"][:0], {"all": [DOWN, leaf("structure", [None, -0.05])]}, KEPT]},
    "a level, not a contrast": both([None, 0.3], minus=None),
    "each branch of any has its own": {"any": [{"all": [DOWN, KEPT]}, leaf("move_ok", [0.1, None])]},
    "nothing of structure": leaf("smoothness", [None, -0.02]),
}
BAD = {
    "no bound at all": (DOWN, "no condition on move_ok"),
    "of other arms": ({"all": [DOWN, leaf("move_ok", [-0.07, None], minus="base")]}, "no condition on move_ok"),
    "of other prompts": ({"all": [DOWN, leaf("move_ok", [-0.07, None], where={"kind": "complex"})]}, "no condition on move_ok"),
    "only an upper one": ({"all": [DOWN, leaf("move_ok", [None, 0.1])]}, "no condition on move_ok"),
    "it need not hold": ({"any": [DOWN, KEPT]}, "no condition on move_ok"),
    "it need not hold, deeper": ({"all": [DOWN, {"any": [KEPT, leaf("look_ok", [0, None])]}]}, "no condition on move_ok"),
    "one reader": ({"all": [leaf("structure_0", [None, -0.02]), KEPT]}, "one reader alone"),
    "two that need not agree": ({"all": [*DOWN["agree"], KEPT]}, "one reader alone"),
    "two of other arms": ({"all": [{"agree": [leaf("structure_0", [None, -0.02]), leaf("structure_1", [None, -0.02], minus="base")]}, KEPT]},
                          "one reader alone"),
    "the palette": ({"all": [leaf("structure", [None, -0.05]), KEPT]}, "one reader alone"),
}


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
def test_good_structure_criteria_pass(values):
    check_structure(read_criterion(values, "criterion"))


@pytest.mark.parametrize("values, says", BAD.values(), ids=BAD)
def test_bad_ones_are_refused_with_what_is_missing(values, says):
    with pytest.raises(MotionLabError, match=says) as error:
        check_structure(read_criterion(values, "criterion"))
    assert "agree: [{metric: structure_0" in error.value.fix or "metric: move_ok, arm: cure, minus: plain" in error.value.fix


@pytest.fixture
def checkout(tmp_path):
    """The committed claims in a checkout whose protocol is at 7."""
    shutil.copytree(ROOT / "reproductions", tmp_path / "reproductions", ignore=shutil.ignore_patterns("*.csv", "*.png", "*.mp4", "executed", "checkpoints"))
    path = tmp_path / "reproductions/protocol.yaml"
    path.write_text(path.read_text().replace("\nversion: 6\n", "\nversion: 7\n", 1))
    return tmp_path


def changed(checkout, paper, change):
    path = checkout / "reproductions" / paper / "claims.yaml"
    content = yaml.safe_load(path.read_text())
    change(content["claims"])
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_claims(paper, checkout)


@pytest.mark.parametrize("name", ["testbed.P-grow", "testbed.P-oracle", "testbed.P-select", "audit.P-damage"])
def test_the_positive_controls_may_be_made_final(checkout, name):
    """Their bounds can be reached and seen with the prompts they ask for; no other change is needed than status: final."""
    found = changed(checkout, name.partition(".")[0], lambda claims: claims[name].update(status="final"))
    assert found[name].protocol == 7


def test_a_smaller_bound_on_lost_motion_would_be_refused(checkout):
    def smaller(claims):
        claims["testbed.P-select"]["status"] = "final"
        claims["testbed.P-select"]["criterion"]["all"][1]["within"] = [-0.05, None]

    with pytest.raises(MotionLabError, match="P-select': its minimum effect 0.05 in move_ok of best_of_4 - trunk is below 0.06.* 128 prompts"):
        changed(checkout, "testbed", smaller)


def test_a_draft_of_protocol_7_is_held_to_both_readers_too(checkout):
    with pytest.raises(MotionLabError, match="P-grow': its structure criterion .* one reader alone"):
        changed(checkout, "testbed", lambda claims: claims["testbed.P-grow"].update(criterion=leaf("structure_0", [None, -0.02])  | {"why": "x"}))


def rows(path, **arms):
    """Rows of 128 prompts; arms {name: (structure_0, structure_1, share that moves)}."""
    lines = ["item,arm,seed,structure_0,structure_1,move_ok"]
    for name, (s0, s1, moved) in arms.items():
        lines += [f"p{k:03d},{name},0,{s0 + 0.001 * (k % 7):.4f},{s1 + 0.001 * (k % 5):.4f},{int(k < 128 * moved)}" for k in range(128)]
    path.write_text("\n".join(lines) + "\n")


BASE = {"plain": (0.22, 0.22, 0.94), "oracle_none": (0.22, 0.22, 0.94), "oracle": (0.18, 0.18, 0.95), "oracle_other": (0.22, 0.22, 0.5)}


@pytest.mark.parametrize("arms, word", [
    ({}, "holds"),                                                      # the pilot's pattern
    ({"oracle": (0.18, 0.21, 0.95)}, "inconclusive"),                   # one reader sees it, the other does not
    ({"oracle": (0.21, 0.21, 0.95)}, "fails"),
    ({"oracle": (0.18, 0.18, 0.5)}, "fails"),                           # fewer broken limbs, but of easier motion
    ({"oracle_other": (0.18, 0.18, 0.94)}, "fails"),                    # any motion would do
    ({"oracle_other": (0.18, 0.18, 0.5)}, "holds"),                     # it gains by giving up what was asked
])
def test_p_oracle_says_what_it_should(tmp_path, arms, word):
    from motionlab.ledger.verdict import read_raw

    rows(tmp_path / "controls_full.csv", **(BASE | arms))
    criterion = load_claims("testbed", ROOT)["testbed.P-oracle"].criterion
    assert judge(criterion, lambda name: read_raw(tmp_path / name))[0] == word
