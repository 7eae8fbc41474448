"""Both readers on one contrast: hand-made tables whose verdicts are known."""
import numpy as np
import pandas as pd
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.metrics.agreement import VERDICTS, agreements, both_readers

N = 40
WOBBLE = np.linspace(-0.02, 0.02, N)


def arm(name, structure=(0.2, 0.2), move=1.0, seed=0):
    """Forty clips; of motion the first `1 - move` share is not recognised."""
    ok = (np.arange(N) >= round((1 - move) * N)).astype(float)
    return pd.DataFrame({"item": [f"clip-{k}" for k in range(N)], "arm": name, "seed": seed, "structure_0": structure[0] + WOBBLE,
                         "structure_1": structure[1] + 0.5 * WOBBLE, "move_ok": ok, "move_ok_1": ok})


def judged(changed, **options):
    return both_readers(pd.concat([arm("plain"), changed]), "cure", "plain", **options)


@pytest.mark.parametrize("structure, move, verdict", [
    ((0.15, 0.16), 1.0, "better"), ((0.25, 0.24), 1.0, "worse"), ((0.2, 0.2), 1.0, "no difference"),
    ((0.15, 0.2), 1.0, "readers disagree"), ((0.15, 0.25), 1.0, "readers disagree"), ((0.25, 0.2), 1.0, "readers disagree"),
    ((0.15, 0.15), 0.6, "motion lost"), ((0.15, 0.15), 0.95, "motion not shown to be kept"), ((0.25, 0.25), 0.6, "worse"),
])
def test_each_verdict_has_its_case(structure, move, verdict):
    found = judged(arm("cure", structure, move))
    assert found.verdict == verdict and found.verdict in VERDICTS and found.n == N
    assert found.agree == (verdict != "readers disagree")
    assert found.structure["structure_0"][0] == pytest.approx(structure[0] - 0.2) and found.move["move_ok"][0] == pytest.approx(move - 1)


def test_a_margin_and_a_least_effect_are_the_callers():
    assert judged(arm("cure", (0.15, 0.15), 0.95), margin=0.2).verdict == "better"
    assert judged(arm("cure", (0.15, 0.15)), least=0.1).verdict == "no difference"


def test_differences_are_paired_and_seeds_are_averaged_first():
    """A spread between clips that both arms share is none between arms; two seeds of a clip are one clip."""
    wide = np.linspace(0, 1, N)
    tables = [arm("plain"), arm("cure", (0.19, 0.19)), arm("cure", (0.17, 0.17), seed=1)]
    for one in tables:
        one[["structure_0", "structure_1"]] += wide[:, None]
    found = both_readers(pd.concat(tables), "cure", "plain")
    assert found.verdict == "better" and found.n == N
    assert found.structure["structure_1"] == pytest.approx((-0.02,) * 3, abs=1e-9)


def test_several_arms_are_one_table():
    table = pd.concat([arm("plain"), arm("cure", (0.15, 0.15)), arm("other", (0.15, 0.15), 0.5)])
    told = agreements(table, ["cure", "other"], "plain")
    assert list(told["verdict"]) == ["better", "motion lost"] and told.loc["cure", "structure_0"].startswith("-0.050 [")


@pytest.mark.parametrize("call, message", [
    (lambda t: both_readers(t, "cuer", "plain"), "Did you mean 'cure'"),
    (lambda t: both_readers(t, "cure", "plain", readers=("structure_2",)), "Did you mean 'structure_"),
    (lambda t: both_readers(t[(t["arm"] == "plain") | (t["item"] == "clip-0")], "cure", "plain"), "1 items in common"),
])
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(MotionLabError, match=message):
        call(pd.concat([arm("plain"), arm("cure")]))
