"""PCA and probes on features whose answers are known."""
import numpy as np
import pandas as pd
import pytest

from motionlab import figures
from motionlab.analyses.feature_pictures import component_pictures, component_video, path_panels, point_paths
from motionlab.analyses.features import (auc, by_smoothing, by_way, colours, fit_basis, frame_auc, position_features,
                                         smoothed, temporal_variance, token_labels, token_share)
from motionlab.core.errors import MotionLabError
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
    assert share[0, 6, 6] == mask[0, 24:28, 24:28].mean()
    assert share[2, 6, 5] == pytest.approx(mask[5:9, 24:28, 20:24].mean())
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
    permuted = [RNG.permutation(labels.reshape(-1)).reshape(labels.shape) for _ in range(12)]
    shuffled = [np.nanmean(frame_auc(truth, one)) for one in permuted]
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
    assert len(where) == 6 and {r["arm"] for r in where} == {"position"}
    assert all(where[k]["auc"] == where[k + 1]["auc"] for k in (0, 2, 4))                # the same for both blocks


# ---------------------------------------------------------------------------------------------- pictures
def test_paths_follow_exact_tracks_and_smoothing_shortens_them():
    ids = np.stack([CLIP.ids[t] for t in range(0, 17, 4)])
    subject = (CLIP.layer_objects[ids] >= 0).reshape(5, 12, 4, 12, 4).mean((2, 4))
    x = np.stack([subject, 1 - subject, np.zeros_like(subject)], -1)
    paths = point_paths(x, CLIP)
    assert (paths["foreground"][:, 0] > 0.25).all() and paths["background"][0, 0] < 0.75
    panels, clouds = path_panels(x + RNG.normal(size=x.shape), CLIP)
    length = {name: np.linalg.norm(np.diff(found["background"], axis=0), axis=1).sum()
              for name, found in panels.items()}
    assert length["smoothed"] < length["raw"]
    assert len(clouds["raw"]["foreground"]) == (token_labels(CLIP) == 1).sum() and set(clouds) == {"raw", "smoothed"}
    fig = figures.component_paths(panels, clouds)
    limits = [(ax.get_xlim(), ax.get_ylim(), ax.get_zlim()) for ax in fig.axes]
    assert limits[0] == limits[1] and [ax.get_title() for ax in fig.axes] == ["raw", "smoothed"]


def test_pictures_share_one_basis_and_a_frame_shows_its_latent():
    x = np.zeros((5, 12, 12, 4))
    x[..., 0], x[3, :, :, 1], x[0, 0, 0, 2] = np.arange(12), 5, 1
    pictures = component_pictures(x)
    assert pictures["raw"].shape == pictures["smoothed"].shape == (5, 12, 12, 3) and pictures["raw"].dtype == np.uint8
    still = component_pictures(np.ones((5, 1, 1, 1)) * x[1])
    assert np.array_equal(still["raw"], still["smoothed"])
    video = component_video(CLIP, x, side=48)
    assert video.shape == (17, 48, 144, 3) and np.array_equal(video[:, :, :48], CLIP.frames)
    shown = [np.array_equal(video[k, ::4, 48:96:4], pictures["raw"][3]) for k in (8, 9, 12, 13)]
    assert shown == [False, True, True, False]


def test_rows_for_drawing_keep_raw_and_smoothed_tracks_and_places_apart():
    base = {"auc": 0.7, "auc_smoothed": 0.8, "auc_worst": 0.5, "auc_smoothed_worst": 0.6, "foreground_track": 0.1,
            "foreground_fixed": 0.2, "background_track": 0.3, "background_fixed": 0.4}
    table = pd.DataFrame([{"item": "1", "arm": "base", "block": 0} | base,
                          {"item": "1", "arm": "position", "block": 0, "auc": 0.6, "auc_worst": 0.4}])
    found = by_smoothing(table, {"auc": "mean", "auc_worst": "worst"}).set_index(["kind", "series"])["auc"].to_dict()
    assert found == {("mean", "base raw"): 0.7, ("mean", "position raw"): 0.6, ("mean", "base smoothed"): 0.8,
                     ("worst", "base raw"): 0.5, ("worst", "position raw"): 0.4, ("worst", "base smoothed"): 0.6}
    ways = by_way(table[:1]).set_index(["point", "series"])["variance"].to_dict()
    assert ways[("background", "base fixed")] == 0.4 and ways[("foreground", "base track")] == 0.1 and len(ways) == 4
