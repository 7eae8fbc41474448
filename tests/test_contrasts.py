"""Counting failures, smoothness at equal speed and votes, on tables whose answers are known."""
import numpy as np
import pandas as pd
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.experiments.contrasts import at_equal_speed, flagged, frechet_to, gains, votes
from motionlab.metrics.failures import DETECTORS


def rows(arm, n=40, seed=0, **columns):
    plain = {"speed": 2.0, "smoothness": 0.98, "look_ok": 1.0, "move_ok": 1.0, "structure_0": 0.3, "structure_1": 0.3} | {f"failure_{d}": 0.1 for d in DETECTORS}
    return pd.DataFrame([{"item": f"p{k}", "arm": arm, "seed": seed} | plain | {c: (v[k] if np.ndim(v) else v) for c, v in columns.items()} for k in range(n)])


def test_failures_are_counted_against_real_clips():
    table = pd.concat([rows("reconstruction", failure_frozen=np.linspace(0, 1, 40)), rows("base", failure_frozen=[2.0] * 10 + [0.5] * 30, failure_extra_part=np.nan)])
    found = flagged(table)
    base = found[found["arm"] == "base"]
    assert base["broken_frozen"].mean() == 0.25 and base["broken_extra_part"].isna().all() and base["broken_missing_part"].mean() == 0
    assert base["broken"].iloc[0] == pytest.approx(1 / (len(DETECTORS) - 1))
    assert found.loc[found["arm"] == "reconstruction", "broken_frozen"].mean() == pytest.approx(0.05)
    with pytest.raises(MotionLabError, match="no rows of arm 'nothing'"):
        flagged(table, "nothing")


def test_smoothness_is_compared_at_equal_speed():
    """One law for both arms: all of the difference is the speed's. A true offset stays."""
    speed = np.linspace(1, 3, 40)
    law = lambda s: 0.99 - 0.02 * np.log1p(s)
    slow, fast = rows("a", speed=speed, smoothness=law(speed)), rows("b", speed=speed + 2, smoothness=law(speed + 2) - 0.001)
    plain = slow["smoothness"].mean() - fast["smoothness"].mean()
    table = at_equal_speed(pd.concat([slow, fast]), ["a", "b"])
    means = table.groupby("arm")["smoothness_matched"].mean()
    assert plain > 0.008 and abs(means["a"] - means["b"]) < 0.003
    same = at_equal_speed(pd.concat([slow, rows("b", speed=speed, smoothness=law(speed) - 0.005)]), ["a", "b"]).groupby("arm")["smoothness_matched"].mean()
    assert same["a"] - same["b"] == pytest.approx(0.005, abs=1e-6)


def test_votes_follow_their_question_and_ties_are_halves():
    cure = rows("full", 3, structure_0=[0.1, 0.3, 0.5], structure_1=[0.2, 0.3, 0.3], move_ok=[1, 1, 0], failure_frozen=[0.1, 0.1, 0.1])
    rival = rows("continued", 3, structure_0=[0.2, 0.3, 0.4], structure_1=[0.2, 0.3, 0.3], structure=[0, 0, 0], move_ok=[0, 1, 0], failure_frozen=[0.1, 9.0, 0.1])
    found = pd.DataFrame(votes(flagged(pd.concat([cure, rival, rows("reconstruction")])), "full", "continued"))
    assert found["quality"].tolist() == [1, 0.5, 0] and found["text"].tolist() == [1, 0.5, 0.5] and found["motion"].tolist() == [1, 1, 0.5]
    assert set(found["arm"]) == {"full_vs_continued"}


def test_a_rival_of_one_seed_stands_against_all_seeds():
    table = flagged(pd.concat([rows("full", 4, seed=0), rows("full", 4, seed=1), rows("base", 4), rows("reconstruction")]))
    found = pd.DataFrame(votes(table, "full", "base"))
    assert sorted(set(found["seed"])) == [0, 1] and len(found) == 8 and (found[["text", "quality", "motion"]] == 0.5).all().all()


def test_gains_are_paired_differences_by_part_and_over_all():
    full, rest = rows("full", 4, structure=[0.1, 0.2, 0.3, 0.4]), rows("continued", 4, structure=0.5)
    table = pd.concat([full, rest]).assign(kind=lambda d: d["item"].map({"p0": "a", "p1": "a", "p2": "b", "p3": "b"}))
    parts = {f"kind={k}": v for k, v in table.groupby("kind")} | {"again": table[table["item"] == "p0"]}
    found = pd.DataFrame(gains(parts, "full", "continued", ["structure"]))
    means = found.groupby("arm")["structure"].mean()
    assert means["kind=a"] == pytest.approx(-0.35) and means["kind=b"] == pytest.approx(-0.15) and means["all"] == pytest.approx(-0.25)
    assert len(found[found["arm"] == "all"]) == 4


def test_frechet_distance_from_rows_is_small_for_the_same_law_and_large_for_another():
    rng = np.random.default_rng(0)

    def arm(name, shift):
        x = rng.normal(size=(100, 4)) + shift
        return pd.DataFrame([{"item": f"p{k}", "arm": name, "seed": 0} | {f"fd_{j:02d}": v for j, v in enumerate(row)} for k, row in enumerate(x)])

    found = frechet_to(pd.concat([arm("original", 0), arm("same", 0), arm("other", 1)]), ["same", "other"])
    assert found["same"].value < 0.3 and found["same"].n == (100, 100)
    assert found["other"].low > 2 and found["other"].value == pytest.approx(4, abs=1.2)
