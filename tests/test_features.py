"""PCA and probes on features whose answers are known."""
import numpy as np
import pytest

from motionlab.analyses.features import (auc, colours, fit_basis, frame_auc, position_features, smoothed, temporal_variance,
                                         token_labels, token_share)
from motionlab.errors import MotionLabError
from motionlab.world import random_scene, render

CLIP = render(random_scene(31, species_name="person", motion="run", camera=False, paths=False), frames=17)
RNG = np.random.default_rng(0)


def test_the_basis_finds_known_directions_in_order_and_is_reused():
    q, _ = np.linalg.qr(RNG.normal(size=(8, 8)))
    x = RNG.normal(size=(4000, 8)) * np.array([9, 5, 3, 1, 1, 1, 1, 1]) @ q.T + 7
    basis = fit_basis(x.reshape(4, 10, 100, 8))
    assert np.allclose(np.abs(np.sum(basis.components * q.T[:3], 1)), 1, atol=0.01)
    assert basis.explained[0] == pytest.approx(81 / 120, abs=0.03) and (np.diff(basis.explained) < 0).all()
    assert np.allclose(basis.components @ basis.components.T, np.eye(3), atol=1e-10)
    again = fit_basis(x[RNG.permutation(len(x))])
    assert np.allclose(again.components, basis.components, atol=1e-8)                 # signs do not depend on the order
    assert np.allclose(basis.project(x[:5]), (x[:5] - x.mean(0)) @ basis.components.T)


def test_colours_use_one_scale_for_all_frames():
    one = colours(np.array([[[0.0, 0, 0]], [[1.0, 0.5, 0]]]))
    assert one.reshape(-1, 3).tolist() == [[0, 0, 0], [255, 128, 0]]


def test_smoothing_averages_over_time_only_and_keeps_constants():
    x = np.zeros((5, 2, 2, 1))
    x[2, 0, 0] = 3
    assert smoothed(x)[:, 0, 0, 0].tolist() == [0, 1, 1, 1, 0] and smoothed(x)[:, 1, 1].sum() == 0
    assert np.allclose(smoothed(np.ones((5, 2, 2, 1)), 5), 1) and np.array_equal(smoothed(x, 1), x)
    with pytest.raises(MotionLabError, match="no middle"):
        smoothed(x, 2)


def test_token_shares_count_the_pixels_of_the_frames_that_a_latent_holds():
    share, mask = token_share(CLIP), CLIP.object_mask(None)
    assert share.shape == (5, 12, 12)
    assert share[0, 6, 6] == mask[0, 24:28, 24:28].mean() and share[2, 6, 5] == pytest.approx(mask[5:9, 24:28, 20:24].mean())
    assert token_share(CLIP, cell=16).shape == (5, 3, 3) and np.isclose(token_share(CLIP, cell=16).mean(), share.mean())
    labels = token_labels(CLIP)
    assert set(np.unique(labels)) == {-1, 0, 1} and (labels == 1).sum() > 20


def test_auc_of_known_scores():
    assert auc(np.array([3.0, 2, 1, 0]), np.array([1, 1, 0, 0])) == 1
    assert auc(np.array([1.0, 1, 1, 1]), np.array([1, 0, 1, 0])) == 0.5
    assert auc(np.array([0.0, 1, 2]), np.array([1, 0, 0])) == 0


def test_probes_of_other_frames_read_content_and_not_noise():
    labels = token_labels(CLIP)
    truth = token_share(CLIP)[..., None] + 0.02 * RNG.normal(size=(5, 12, 12, 4))
    assert np.nanmin(frame_auc(truth, labels)) > 0.99
    scores = [np.nanmean(frame_auc(RNG.normal(size=(5, 12, 12, 8)), labels)) for _ in range(12)]
    assert abs(np.mean(scores) - 0.5) < 0.05
    shuffled = [np.nanmean(frame_auc(truth, RNG.permutation(labels.reshape(-1)).reshape(labels.shape))) for _ in range(12)]
    assert abs(np.mean(shuffled) - 0.5) < 0.05                                         # chance on shuffled labels


def test_position_alone_knows_something_but_less_than_content():
    labels = token_labels(CLIP)
    where = np.nanmean(frame_auc(position_features(5, 12, 12), labels))
    assert 0.6 < where < np.nanmean(frame_auc(token_share(CLIP)[..., None], labels))


def test_content_is_constant_along_tracks_and_place_at_fixed_positions():
    ids = np.stack([CLIP.ids[t] for t in range(0, 17, 4)])
    limbs = np.eye(len(CLIP.layers))[ids].reshape(5, 12, 4, 12, 4, -1).mean((2, 4))
    found = temporal_variance(limbs, CLIP)
    assert found["foreground_track"] < 0.6 * found["foreground_fixed"]
    place = temporal_variance(position_features(5, 12, 12), CLIP)
    assert max(place["foreground_fixed"], place["background_fixed"]) < 1e-20 < 0.01 < place["foreground_track"]


def test_shapes_must_fit():
    with pytest.raises(MotionLabError, match="do not belong together"):
        frame_auc(np.zeros((5, 12, 12, 3)), np.zeros((4, 12, 12)))
    with pytest.raises(MotionLabError, match="tokens of 7 pixels"):
        token_share(CLIP, cell=7)
    with pytest.raises(MotionLabError, match="no 3 principal components"):
        fit_basis(np.zeros((2, 5)))


def test_rows_of_a_small_model_hold_every_number_and_shuffled_labels_are_chance():
    from motionlab.analyses.features import feature_rows, position_rows
    from motionlab.analyses.inputs import world_clips
    from small import small_model

    model = small_model(layers=2, length=3, stir=0.05)
    clips = world_clips((31, 32, 33), model)
    rows = list(feature_rows(model, clips))
    assert len(rows) == 6 and {r["block"] for r in rows} == {0, 1} and {r["arm"] for r in rows} == {"small"}
    assert all(r["auc"] >= r["auc_worst"] and np.isfinite(r["foreground_track"]) for r in rows)
    assert abs(np.mean([r["auc_shuffled"] for r in rows]) - 0.5) < 0.1
    where = list(position_rows(model, clips))
    assert len(where) == 6 and {r["arm"] for r in where} == {"position"} and all(where[k]["auc"] == where[k + 1]["auc"] for k in (0, 2, 4))
