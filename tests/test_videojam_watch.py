"""Looking at a joint model: estimates come from what it was given, losses and guidance terms are those of its passes."""
import numpy as np
import pytest
import torch

from motionlab.analyses.inputs import Model, world_clips
from motionlab.core.errors import MotionLabError
from motionlab.data.prompts import load_prompts
from motionlab.experiments.videojam.watch import guidance_terms, joint_latents, losses_by_t, seen_motion
from motionlab.papers.videojam import Guidance, JointBackbone
from small import small_model


@pytest.fixture(scope="module")
def model():
    small = small_model(layers=1, length=3, stir=0.1)
    joint = JointBackbone(small.backbone).eval()
    with torch.no_grad():
        for p in (joint.base.transformer.patch_embed.proj.weight, joint.base.transformer.proj_out.weight):
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(7)))
    return Model("full", "motionlab", joint, small.codec, 9, (48, 48))


def test_near_the_clip_the_motion_seen_is_the_motion_there(model):
    """At t = 1 the estimate of d1 is d1, whatever the model says."""
    clips = world_clips((1, 2), model)
    _, d1 = joint_latents(model, clips)
    assert np.abs(seen_motion(model, clips, 1.0).astype(int) - model.decode(d1)).max() <= 1
    assert np.abs(seen_motion(model, clips, 0.1).astype(int) - model.decode(d1)).mean() > 5


def test_losses_have_both_halves_and_a_blind_control(model):
    rows = list(losses_by_t(model, world_clips((1, 2, 3), model), (0.2, 0.8), batch=2))
    assert len(rows) == 6 and all({"loss", "motion", "blind"} <= set(r) and r["loss"] != r["blind"] for r in rows)
    plain = small_model(length=3)
    assert {"loss"} == {k for r in losses_by_t(plain, world_clips((1,), plain), (0.5,)) for k in r} - {"item", "arm", "seed", "t"}
    with pytest.raises(MotionLabError, match="t = 2 is no time of the path"):
        list(losses_by_t(model, world_clips((1,), model), (0.5, 2.0)))


def test_guidance_terms_are_there_where_they_act(model):
    prompts = load_prompts("examples", 2)
    rows = guidance_terms(model.backbone, prompts, Guidance(w1=2.0, w2=1.0, interval=(0.0, 0.5)), length=3, steps=4)
    assert len(rows) == 8 and {r["step"] for r in rows} == {0, 1, 2, 3}
    for r in rows:
        assert r["text"] > 0 and r["d"] > 0 and ("motion" in r) == (r["t"] <= 0.5)
        assert "cosine" not in r or -1 <= r["cosine"] <= 1
    assert all("motion" not in r for r in guidance_terms(model.backbone, prompts, Guidance(w1=2.0, w2=0.0), length=3, steps=2))


def test_live_training_lets_the_new_rows_hurry(monkeypatch, tmp_path):
    from motionlab.experiments.videojam import live

    class Begun(Exception):
        pass

    def train(model, *rest, **more):
        hurried = [p.lr_scale.max().item() for p in model.parameters() if hasattr(p, "lr_scale")]
        raise Begun(str(sorted(set(hurried))))

    monkeypatch.setattr(live, "train", train), monkeypatch.setattr(live, "motion_data", lambda *a, **k: None)
    small = small_model(layers=1, length=3)
    with pytest.raises(Begun, match=r"\[20.0\]"):
        live.train_live(Model("base", "motionlab", small.backbone, small.codec, 9, (48, 48)), tmp_path, 8, 1e-3, 20.0)
