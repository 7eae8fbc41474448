"""The detectable difference is the one that a simulated experiment finds four times out of five."""
import numpy as np
import pandas as pd
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.experiments.power import detectable, power_table


def pilot(gap, spread, n=200, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(5, 3, n)                       # prompts differ far more than the arms do: pairing removes it
    cure = base + gap + spread * rng.standard_normal(n)
    return pd.DataFrame([{"item": f"p{i}", "arm": arm, "seed": 0, "m": v} for arm, values in (("base", base), ("cure", cure)) for i, v in enumerate(values)])


def test_spread_is_of_the_paired_differences():
    found = detectable(pilot(0.5, 1.0), "m", "cure", "base", n=64)
    assert found["spread"] == pytest.approx(1, rel=0.15) and found["difference"] == pytest.approx(0.5, abs=0.2)
    assert found["detectable"] == pytest.approx(2.8 * found["spread"] / 8) and found["items"] == 200


def test_it_is_found_in_four_of_five_experiments():
    effect = detectable(pilot(0.0, 1.0, n=4000), "m", "cure", "base", n=64)["detectable"]
    hits = []
    for seed in range(400):
        gap = effect + np.random.default_rng(seed + 1).standard_normal(64)
        hits.append(gap.mean() - 1.96 * gap.std(ddof=1) / 8 > 0)
    assert 0.72 < np.mean(hits) < 0.88


def test_tables_and_mistakes():
    table = pilot(0.2, 1.0, n=10)
    assert list(power_table(table, ["m"], "cure", "base").index) == ["m"]
    with pytest.raises(MotionLabError, match="no 'bse'"):
        detectable(table, "m", "cure", "bse")
    with pytest.raises(MotionLabError, match="2 pairs"):
        detectable(pilot(0, 1, n=2), "m", "cure", "base")
