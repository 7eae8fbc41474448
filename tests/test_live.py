"""Looking at a method while it trains: estimates come from what it was given, losses and guidance terms are those of its passes."""
import numpy as np
import pytest
import torch

from motionlab.analyses.inputs import world_clips
from motionlab.core.errors import MotionLabError
from motionlab.data.prompts import load_prompts
from motionlab.data.sidecars import encoded
from motionlab.data.sources import Listed
from motionlab.experiments import live
from motionlab.methods import open_method
from motionlab.methods.videojam import InnerGuidance, guidance_terms
from small import small_model

METHOD, PLAIN = open_method("videojam"), open_method("plain")


@pytest.fixture(scope="module")
def model():
    pipe = small_model(layers=1, length=3, stir=0.1)
    METHOD.attach(pipe)
    with torch.no_grad():
        for p in (pipe.denoiser.patch_embed.proj.weight, pipe.denoiser.proj_out.weight):
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(7)))
    return pipe.eval()


def test_near_the_clip_the_motion_expected_is_the_motion_there(model):
    """At t = 1 the estimate of d1 is d1, whatever the model says."""
    clips = world_clips((1, 2), model)
    d1 = model.decode(encoded(Listed(list(clips.values())), METHOD.wants(), model)["d1"])
    found = {t: model.decode(METHOD.expected_motion(model, clips, t)).astype(int) for t in (0.1, 1.0)}
    assert np.abs(found[1.0] - d1).max() <= 1 and np.abs(found[0.1] - d1).mean() > 5


def test_losses_have_both_halves_and_a_blind_control(model):
    rows = list(live.losses_by_t(METHOD, model, world_clips((1, 2, 3), model), (0.2, 0.8), batch=2))
    assert len(rows) == 6 and all({"loss", "motion", "blind"} <= set(r) and r["loss"] != r["blind"] for r in rows)
    plain = small_model(length=3)
    assert {"loss"} == {k for r in live.losses_by_t(PLAIN, plain, world_clips((1,), plain), (0.5,)) for k in r} - {"item", "arm", "seed", "t"}
    with pytest.raises(MotionLabError, match="t = 2 is no time of the path"):
        list(live.losses_by_t(METHOD, model, world_clips((1,), model), (0.5, 2.0)))


def test_guidance_terms_are_there_where_they_act(model):
    prompts = load_prompts("examples", 2)
    rows = guidance_terms(model, prompts, InnerGuidance(w=2.0, w2=1.0, steps=4))
    assert len(rows) == 8 and {r["step"] for r in rows} == {0, 1, 2, 3}
    for r in rows:
        assert r["text"] > 0 and r["d"] > 0 and ("motion" in r) == (r["t"] <= 0.5)
        assert "cosine" not in r or -1 <= r["cosine"] <= 1
    assert all("motion" not in r for r in guidance_terms(model, prompts, InnerGuidance(w=2.0, w2=0.0, steps=2)))


def test_attaching_changes_no_value_and_is_counted():
    base = small_model(layers=1, length=2, stir=0.1)
    rows = list(live.noop_rows(METHOD, base, world_clips((1, 2), base)))
    assert [r["changed"] for r in rows] == [0.0, 0.0] and rows[0]["parameters_added"] == 2 * 4 * 32 + 4


def test_live_training_keeps_what_it_passed_and_lets_the_new_rows_hurry(monkeypatch, tmp_path):
    monkeypatch.setattr(live, "bank_home", lambda: tmp_path / "banks")
    base, method = small_model(layers=1, length=2), open_method("videojam", new_lr=20.0)
    assert max(p.lr_scale.max().item() for p in live.attached(method, base).parameters() if hasattr(p, "lr_scale")) == 20
    pipe, on_the_way = live.train_live(method, base, tmp_path / "run", 16, 1e-3, snapshots=2)
    assert list(on_the_way) == [0, 8, 16] and pipe.name == "videojam"
    streams = live.generated_streams(method, pipe, 2, method.Sampling(steps=1))
    assert len(streams) == 4 and "its motion 2" in streams and all(f.shape == (5, 48, 48, 3) for f in streams.values())
