"""Features over time: known series have known frequencies, known clouds a known Fisher's ratio, and exact tracks a known cosine."""
import numpy as np
import pandas as pd
import pytest
import torch

from motionlab.analyses import branch_inside, over_time, point_sampling
from motionlab.analyses.features import smoothed
from motionlab.analyses.inputs import world_clips
from motionlab.core.errors import MotionLabError
from motionlab.metrics.redrawn import redrawn_rows
from motionlab.models.branches import add_branches
from small import small_model

EVERYWHERE = np.ones((2, 2), bool)


def wave(cycles, frames=8):
    """(f, 2, 2, 3): the same cosine at every place and in every channel."""
    return np.broadcast_to(np.cos(2 * np.pi * cycles * np.arange(frames) / frames)[:, None, None, None], (frames, 2, 2, 3)).copy()


# ---------------------------------------------------------------------------------------------- frequencies
def test_energy_lies_at_the_series_own_frequency_and_adds_up():
    found = over_time.spectrum(wave(2), EVERYWHERE)
    assert found.argmax() == 2 and found[2] == pytest.approx(found.sum())
    x = np.random.default_rng(0).normal(size=(7, 2, 2, 3))
    assert over_time.spectrum(x, EVERYWHERE).sum() == pytest.approx(7 * (x ** 2).sum())          # Parseval, odd and even lengths
    assert over_time.spectrum(x[:6], EVERYWHERE).sum() == pytest.approx(6 * (x[:6] ** 2).sum())


@pytest.mark.parametrize("x, share", [(wave(1), 0.0), (wave(3), 1.0), (wave(2), 1.0), (5 + wave(1) + wave(3), 0.5)])
def test_share_of_change_at_high_frequencies(x, share):
    assert over_time.high_share(x, EVERYWHERE) == pytest.approx(share, abs=1e-9)


def test_the_mean_is_no_change_and_stillness_has_no_share():
    x = 3 + wave(1)
    assert over_time.high_share(x, EVERYWHERE) == pytest.approx(0, abs=1e-9)
    assert over_time.moving_share(x, EVERYWHERE) == pytest.approx(0.5 / 9.5)
    assert np.isnan(over_time.high_share(np.ones((5, 2, 2, 3)), EVERYWHERE)) and over_time.moving_share(np.ones((5, 2, 2, 3)), EVERYWHERE) == 0
    assert np.isnan(over_time.high_share(x, ~EVERYWHERE))


def test_smoothing_lowers_the_high_share_of_noise():
    x = np.random.default_rng(0).normal(size=(13, 6, 6, 4))
    places = np.ones((6, 6), bool)
    assert over_time.high_share(smoothed(x), places) < 0.6 * over_time.high_share(x, places)


def test_clips_too_short_for_a_low_frequency_are_refused():
    with pytest.raises(MotionLabError, match="3 latent frames have no low frequency"):
        over_time.high_share(wave(1, 3), EVERYWHERE)


def test_background_lasts_throughout_and_a_subject_half_of_the_time():
    labels = np.array([[[0, 0, 1, 1]], [[0, 1, 1, 0]], [[0, 0, 1, 0]]])
    assert over_time.lasting(labels, 0).tolist() == [[True, False, False, False]]
    assert over_time.lasting(labels, 1).tolist() == [[False, False, True, False]]


# ---------------------------------------------------------------------------------------------- Fisher's ratio
def test_fishers_ratio_of_known_clouds_is_known_and_needs_no_basis():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 800).reshape(1, 40, 40)
    x = rng.normal(size=(1, 40, 40, 3)) * [1, 2, 3]
    x[labels == 1] += [0, 4, 0]
    expected = 4 ** 2 / (2 ** 2 + 2 ** 2)
    assert over_time.fisher_ratio(x, labels)[0] == pytest.approx(expected, rel=0.15)
    turned = x @ rng.normal(size=(3, 3)) + 7
    assert over_time.fisher_ratio(turned, labels) == pytest.approx(over_time.fisher_ratio(x, labels))


def test_frames_of_one_kind_have_no_ratio_and_shapes_must_fit():
    x, labels = np.random.default_rng(0).normal(size=(2, 4, 4, 3)), np.zeros((2, 4, 4), int)
    labels[0, :2], labels[1, 0, :3] = 1, 1                                # three tokens in three components: too few
    assert np.isfinite(over_time.fisher_ratio(x, labels)).tolist() == [True, False]
    with pytest.raises(MotionLabError, match="do not belong together"):
        over_time.fisher_ratio(x, labels[:1])


# ---------------------------------------------------------------------------------------------- along tracks
@pytest.fixture(scope="module")
def clip():
    return next(iter(world_clips((31,), small_model(length=5)).values()))


def test_features_that_go_with_their_content_have_cosine_one(clip):
    """A feature for each layer of the scene, at every place where it is seen; the same at random places goes with nothing."""
    names = np.eye(len(clip.layers))[clip.ids[::4, 2::4, 2::4]]
    moving = over_time.track_cosines(np.ones((5, 12, 12, 3)), clip)
    assert moving == {"foreground": pytest.approx(1), "background": pytest.approx(1)}
    found = over_time.track_cosines(names, clip)
    there = np.random.default_rng(0).permutation(names.reshape(-1, names.shape[-1])).reshape(names.shape)
    assert found["foreground"] > over_time.track_cosines(there, clip)["foreground"] + 0.2 and found["background"] > 0.9


def test_background_is_a_control(clip):
    """Features that change over time on the subject only leave the background's cosine alone."""
    x = np.ones((5, 12, 12, 2))
    subject = clip.object_mask(None)[::4].reshape(5, 12, 4, 12, 4).any((2, 4))
    x[..., 1] = np.where(subject, np.array([1, -1, 1, -1, 1])[:, None, None], 1)
    found = over_time.track_cosines(x, clip)
    assert found["foreground"] < 0.2 and found["background"] > 0.8


# ---------------------------------------------------------------------------------------------- branch on and off
class Mean(torch.nn.Module):
    """A branch that takes away three quarters of how each frame differs from the clip's mean: it smooths."""

    def forward(self, x):
        return 0.75 * (x.mean(1, keepdim=True) - x)


@pytest.fixture(scope="module")
def tuned():
    pipe = small_model(layers=2, length=5, stir=0.1)
    add_branches(pipe.denoiser, lambda width: Mean())
    return pipe.eval()


def test_arms_share_one_basis_and_a_silent_branch_is_none(tuned, clip):
    rows = list(branch_inside.inside_rows(tuned, {"31": clip}, kept=[0]))
    assert [(r["arm"], r["block"], r["kept"]) for r in rows] == [(a, k, int(k == 0)) for k in (0, 1) for a in branch_inside.ARMS]
    none, plain, branch = rows[:3]
    assert branch["moving_background"] != none["moving_background"] != plain["moving_background"]
    assert 0 < none["high_background"] < 1 and none["fisher_worst"] <= none["fisher"]
    quiet = list(branch_inside.inside_rows(tuned, {"31": clip}, kept=[]))
    assert {k: quiet[2][k] for k in quiet[2] if k != "arm"} == {k: quiet[0][k] for k in quiet[0] if k != "arm"}


def test_means_are_over_kept_blocks_and_ratios_pair_clips(tuned, clip):
    rows = list(branch_inside.inside_rows(tuned, {"31": clip}, kept=[1]))
    table = branch_inside.per_clip(rows)
    assert list(table["arm"]) == list(branch_inside.ARMS) and table["fisher"].tolist() == [r["fisher"] for r in rows if r["block"] == 1]
    known = pd.DataFrame([{"item": i, "arm": a, "seed": 0, "high": v} for i, pair in enumerate([(1, 2), (3, 6)]) for a, v in zip(("none", "branch"), pair)])
    assert branch_inside.ratio(known, "high", "branch") == (2.0, 2.0, 2.0)
    assert "branch on x 2.00" in branch_inside.told(known, {"high": "change"}, ("branch",))
    assert np.isnan(branch_inside.ratio(known, "high", "smoothed")).all()


def test_a_generator_without_branches_is_refused(tuned, clip):
    with pytest.raises(MotionLabError, match="none have a branch"):
        next(branch_inside.inside_rows(small_model(length=5), {"31": clip}, [0]))
    with pytest.raises(MotionLabError, match=r"\[0, 1\] have a branch"):
        next(branch_inside.inside_rows(tuned, {"31": clip}, [0, 5]))


# ---------------------------------------------------------------------------------------------- points, steps
def test_weighted_points_reach_small_parts_and_even_ones_do_not():
    """With a radius wider than a limb; one that is narrower weighs edges alone."""
    bodies = point_sampling.body_clips(range(700, 704), size=96)
    table = pd.DataFrame(point_sampling.point_rows(bodies, radius=10.0, draws=40))
    assert set(table["species"]) == {"person", "dog"} and (table["area"] > 0.02).all()
    mean = table.groupby("arm")["share_over_area"].mean()
    assert mean["uniform"] == pytest.approx(1, abs=0.08) and mean["weighted_all"] > mean["uniform"] + 0.1
    body = bodies["700"]
    small = {body.layers[k].name for k in np.unique(body.ids[0][point_sampling.small_parts(body)])}
    assert small and all(name.endswith(("foot", "arm_lower", "tail")) for name in small)
    with pytest.raises(MotionLabError, match="no way to draw points"):
        point_sampling.drawn_points(body, "evenly")


def test_redrawn_steps_keep_directions_and_lose_the_way():
    rows = pd.DataFrame(redrawn_rows(world_clips((3, 4, 5), small_model(length=5), camera=False)))
    wide = rows.pivot(index="item", columns="arm")
    assert (wide["mf_paper", "identity"] == 1).all() and (wide["mf_paper", "redrawn"] < 0.99).all()
    assert (wide["mf_dmt", "redrawn"] - wide["mf_dmt", "identity"]).abs().max() < 0.01
