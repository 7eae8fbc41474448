"""Permuted-frame losses: exact answers of hand-made models that see frames alone, or only their order."""
import pytest
import torch

from motionlab.analyses.shuffle import (batches, changed_latents, frame_order, latent_by_latent, latent_order, paired_losses, shuffle_rows,
                                        single_frames, time_of_step)
from motionlab.analyses.inputs import world_clips
from motionlab.core.errors import MotionLabError
from small import small_model


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def video(b=3, f=9):
    return torch.randn(b, f, 3, 4, 4, generator=generator(1))


def same(x):
    return x


def test_orders_are_what_they_say():
    assert frame_order("original", 5, generator()).tolist() == [0, 1, 2, 3, 4]
    assert frame_order("reversed", 5, generator()).tolist() == [4, 3, 2, 1, 0]
    assert frame_order("swapped", 5, generator()).tolist() == [1, 0, 3, 2, 4]
    for seed in range(50):
        assert sorted(frame_order("shuffled", 4, generator(seed)).tolist()) == [0, 1, 2, 3]
        assert frame_order("shuffled", 2, generator(seed)).tolist() == [1, 0]              # never the original
        assert latent_order("latents_shuffled", 4, generator(seed))[0] == 0
    assert latent_order("latents_reversed", 4, generator()).tolist() == [0, 3, 2, 1]


def test_a_model_of_single_frames_does_not_see_the_order():
    """Without noise, u and velocity are functions of each frame alone, so their mean over frames has no order."""
    clips = changed_latents(video(), same, generator())
    x0 = torch.zeros_like(clips["original"])
    losses = paired_losses(lambda x, t: 0.3 * x, clips, torch.full((3,), 0.5), x0)
    for kind, loss in losses.items():
        assert torch.allclose(loss, losses["original"], rtol=1e-5), kind


def test_a_model_that_knows_the_order_loses_by_exactly_the_error():
    """u copies what the right frame would be: zero loss on the original, the distance of the frames on the others."""
    clips = changed_latents(video(), same, generator(), kinds=("original", "reversed"))
    x0, original = torch.randn(3, 9, 3, 4, 4, generator=generator(2)), video()
    losses = paired_losses(lambda x, t: original - x0, clips, torch.full((3,), 0.5), x0)
    assert torch.allclose(losses["original"], torch.zeros(3), atol=1e-10)
    assert torch.allclose(losses["reversed"], (original - original.flip(1)).square().flatten(1).mean(1), rtol=1e-5)


def test_frozen_clips_have_no_gap_at_all():
    still = video()[:, :1].expand(-1, 9, -1, -1, -1)
    clips = changed_latents(still, same, generator())
    weight = torch.linspace(0.1, 2, 9)[None, :, None, None, None]
    losses = paired_losses(lambda x, t: weight * x, clips, torch.rand(3), torch.randn(still.shape, generator=generator(3)))
    assert all(torch.equal(loss, losses["original"]) for loss in losses.values())


def test_rows_pair_every_version_with_its_original_and_cover_the_whole_path_in_both_readings():
    batch = {"items": ["a", "b", "c"], "captions": ["x"] * 3, "latents": changed_latents(video(), same, generator())}
    rows = list(shuffle_rows(lambda captions: lambda x, t: 0 * x, iter([batch]), draws=4))
    assert len(rows) == 3 * 4 * 2 * 8
    assert all(r["loss"] == r["loss_original"] for r in rows if r["arm"] == "original")
    assert {int(r["step"] / 25) for r in rows} == {0, 1, 2, 3}
    assert all(r["t"] == pytest.approx(r["step"] / 100) for r in rows if r["reading"] == "linear")
    assert all(r["t"] < 0.1 for r in rows if r["reading"] == "linear_quadratic" and r["step"] <= 60)


def test_steps_of_the_linear_quadratic_reading_are_those_of_the_card():
    """Card, section 4.3, N = 1000: steps 20, 50, 60, 80, 90 at t = .020 .050 .096 .404 .666; straight lines between steps."""
    t = time_of_step(torch.tensor([20.0, 50, 60, 80, 90, 100, 60.5]), "linear_quadratic")
    assert torch.allclose(t[:5], torch.tensor([0.020, 0.050, 0.096, 0.404, 0.666]), atol=1e-3) and t[5] == 1
    assert t[4] > t[6] > t[2]
    with pytest.raises(MotionLabError, match="Did you mean 'linear'"):
        time_of_step(torch.tensor([1.0]), "linnear")


def test_orders_by_latents_move_frames_inside_or_whole_groups_only():
    inside = frame_order("within_latents", 17, generator())
    assert inside[0] == 0 and [sorted(g.tolist()) for g in inside[1:].split(4)] == [list(range(k, k + 4)) for k in (1, 5, 9, 13)]
    whole = frame_order("whole_latents", 17, generator())
    assert whole[0] == 0 and all((g.diff() == 1).all() for g in whole[1:].split(4)) and not (whole == torch.arange(17)).all()


@pytest.mark.parametrize("call, message", [
    (lambda: frame_order("shufled", 5, generator()), "Did you mean 'shuffled'"),
    (lambda: frame_order("shuffled", 1, generator()), "no order to change"),
    (lambda: latent_order("latents_shuffled", 2, generator()), "3 latent frames or more")])
def test_bad_requests_are_named(call, message):
    with pytest.raises(MotionLabError, match=message):
        call()


def test_batches_know_their_speed_and_what_the_codec_does_to_them():
    model = small_model(length=3)
    made = list(batches(world_clips(range(5), model), model, batch=3))
    assert [len(b["items"]) for b in made] == [3, 2] and len(made[0]["captions"]) == 3
    assert made[0]["latents"]["shuffled"].shape == made[0]["latents"]["latents_shuffled"].shape == (3, 3, 4, 12, 12)
    assert all(0 < a["speed"] < 10 and {"psnr_original", "psnr_shuffled"} <= set(a) for b in made for a in b["about"])


def test_a_model_that_sees_latents_alone_has_no_gap_on_single_frames_but_for_the_noise():
    model = small_model(length=3)
    floor = next(single_frames(world_clips(range(4), model), model))
    z = floor["latents"]
    assert z["original"].shape == (4, 3, 4, 12, 12) and not torch.equal(z["original"], z["shuffled"])
    assert torch.allclose(z["original"].sum(1), z["shuffled"].sum(1), atol=1e-5)               # the same frames
    u = latent_by_latent(model.bound)(floor["captions"])
    t = torch.full((4,), 0.4)
    whole = u(z["original"], t)
    assert torch.allclose(whole[:, 1:2], model.bound(floor["captions"])(z["original"][:, 1:2], t), atol=2e-2)
    losses = paired_losses(u, z, t, torch.zeros_like(z["original"]))
    assert torch.allclose(losses["original"], losses["shuffled"], rtol=1e-3)


def test_gaps_of_trained_arms_are_relative_to_their_own_original():
    import pandas as pd

    from motionlab.analyses.shuffle import trained_gaps

    rows = pd.DataFrame([{"item": str(k), "arm": arm, "seed": 0, "reading": "linear", "step": 15.0, "upto_60": 1, "loss_original": 2.0, "loss_shuffled": 2.0 * rise,
                          "loss_latents": 2.0, "motion_original": m, "motion_shuffled": m and 3 * m, "motion_latents": m}
                         for k in range(3) for arm, rise, m in (("full_shuffle", 1.5, 1.0), ("base_shuffle", 1.1, None), ("full", 9.0, 9.0))])
    found = trained_gaps(rows).groupby(["who", "version"])["gap"].mean()
    assert found["full_shuffle, loss", "shuffled"] == pytest.approx(0.5) and found["base_shuffle, loss", "shuffled"] == pytest.approx(0.1)
    assert found["full_shuffle, motion", "shuffled"] == pytest.approx(2) and ("base_shuffle, motion", "shuffled") not in found.index
    assert found["full_shuffle, loss", "latents"] == 0 and set(trained_gaps(rows)["step_mid"]) == {15.0}


def test_clutter_is_compared_with_the_same_clips_without():
    import pandas as pd

    from motionlab.analyses.shuffle import by_clutter

    def table(gap):
        return pd.DataFrame([{"item": i, "seed": 0, "arm": arm, "gap": g * (1 + d)} for i in "ab" for d in (-0.5, 0.5) for arm, g in (("original", 0.0), ("shuffled", gap))])
    found = by_clutter({0.0: table(0.4), 1.0: table(0.1)})
    assert found.groupby("arm")["gap_shuffled"].mean().to_dict() == pytest.approx({"clutter_0": 0.4, "clutter_1": 0.1})
    assert (found["half_of_plain"] == 0.2).all()
