"""A block taught while one watches: asked on the way, a stopped run goes on; what a step and a sample cost, arm by arm."""
import math

import pytest
import torch

from motionlab.data import seen
from motionlab.data.prompts import load_prompts
from motionlab.data.seen import Seen
from motionlab.experiments import taught_live
from motionlab.methods import open_method
from small import small_model
from tiny_repository import root  # noqa: F401


@pytest.fixture
def base():
    torch.manual_seed(0)
    return small_model(layers=2, length=3, stir=0.1).eval()


def test_features_are_asked_on_the_way_and_the_base_stays_as_it_is(base, root, tmp_path, monkeypatch):
    monkeypatch.setattr(taught_live, "bank_home", lambda: tmp_path / "banks")
    prompts, before = load_prompts("examples/plain", 2), [p.clone() for p in base.parameters()]
    method = open_method("sam2videox", teacher="exact", where="subject", out=16, head_steps=2)
    found = taught_live.taught_live(method, base, tmp_path / "run", 16, 1e-3, prompts, "oracle", points=2)
    assert sorted({row["seen"] for row in found.rows}) == [0, 8, 16] and all(row["arm"] == "oracle" for row in found.rows)
    kl = {row["seen"]: row["kl"] for row in found.rows if row["item"] == prompts[0].id}
    assert kl[0] != kl[8] != kl[16]                                                     # each time of what it was then
    assert found.method.weight > 0 and found.about["literal"] > 0 and all(torch.equal(a, b) for a, b in zip(before, base.parameters()))
    window = taught_live.window_at(found.pipe, found.method, prompts[0], (5, 5))
    assert window.shape == (7, 7) and window.sum() == pytest.approx(1, abs=1e-3)
    again = taught_live.taught_live(method, base, tmp_path / "run", 16, 1e-3, prompts, "oracle", points=2)
    assert again.about == found.about and all(torch.equal(a, b) for a, b in zip(found.pipe.parameters(), again.pipe.parameters()))
    plain = taught_live.taught_live(open_method("plain"), base, tmp_path / "plain", 16, 1e-3, prompts, "plain")
    assert plain.rows == [] and plain.about == {}
    probe = taught_live.probed(plain.pipe, method, tmp_path / "plain", 16, 1e-3)
    rows = taught_live.asked(probe, method, prompts, "plain")
    assert len(rows) == 2 and all(row["kl"] > 0 for row in rows if not math.isnan(row["kl"]))


def test_what_is_kept_costs_nothing_more_and_a_teacher_at_work_does(base, tmp_path, monkeypatch):
    looks = []

    def look(teacher, pictures, subjects, *how):
        looks.append(teacher)
        n, t = pictures.shape[:2]
        features = torch.randn(n, t, 6, 6, 8, generator=torch.Generator().manual_seed(0))
        return Seen(features, features.flip(1), torch.full((n, t - 1), 0.5), torch.ones(n, dtype=torch.bool))

    monkeypatch.setattr("motionlab.data.correlations._LAST", {})
    monkeypatch.setattr("motionlab.data.correlations.look", look)
    monkeypatch.setattr(seen, "SIZE", 48)
    taught = open_method("sam2videox", out=16, tau=0.1, weight=0.5)
    rows = list(taught_live.cost_rows(open_method("plain"), taught, base, load_prompts("examples/plain", 2), tmp_path, 2))
    assert [row["arm"] for row in rows] == ["plain", "cached", "online"] * 2 and [row["item"] for row in rows[::3]] == ["1", "2"]
    assert len({row["parameters"] for row in rows}) == 1 and all(row["step_seconds"] > 0 < row["sample_seconds"] for row in rows)
    assert len(looks) == 1 + 3                                          # once for the maps on disk, then anew in every turn
