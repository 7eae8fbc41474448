"""Known changes of tracks: what each keeps and what each breaks."""
from __future__ import annotations

import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.metrics.changes import CHANGES, apply_change

SIZE = (48, 64)


def walk(f=17, n=20, seed=0):
    """Smooth tracks: a common path and a swing of its own for each point."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, f)[:, None, None]
    path = np.array([20.0, 4.0]) * t + rng.uniform(10, 30, (1, n, 2))
    return path + rng.uniform(1, 4, (1, n, 2)) * np.sin(2 * np.pi * t + rng.uniform(0, 6, (1, n, 2)))


def changed(name, tracks=None, seed=0, **extra):
    extra = {"other": walk(f=9, n=5, seed=7), **extra}
    return apply_change(name, walk() if tracks is None else tracks, np.random.default_rng(seed), SIZE, **extra)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_keeps_the_shape_differs_and_is_fixed_by_the_seed(name):
    tracks = walk()
    before = tracks.copy()
    first = changed(name, tracks)
    assert first.shape == tracks.shape and np.isfinite(first).all()
    assert not np.allclose(first, tracks)
    np.testing.assert_array_equal(first, changed(name, tracks))
    np.testing.assert_array_equal(tracks, before)


def test_reversal_and_mirror_undo_themselves():
    for name in ("time_reversal", "mirror"):
        np.testing.assert_allclose(changed(name, changed(name)), walk())


def test_shift_and_mirror_are_rigid():
    np.testing.assert_allclose(np.diff(changed("spatial_shift"), axis=0), np.diff(walk(), axis=0))
    np.testing.assert_allclose(np.diff(changed("mirror"), axis=0), np.diff(walk(), axis=0) * [-1, 1], atol=1e-12)


def test_shuffle_keeps_the_set_of_frames():
    assert sorted(changed("frame_shuffle").sum((1, 2))) == pytest.approx(sorted(walk().sum((1, 2))))


def test_speeds():
    t = np.arange(9.0)[:, None, None]
    straight = np.concatenate([2 * t, -t], axis=-1)
    np.testing.assert_allclose(np.diff(changed("speed_half", straight), axis=0), np.broadcast_to([1, -0.5], (8, 1, 2)))
    np.testing.assert_allclose(np.diff(changed("speed_double", straight), axis=0), np.broadcast_to([4, -2], (8, 1, 2)))
    np.testing.assert_allclose(changed("speed_double")[:9], walk()[::2])


def test_amplitude_scales_about_the_mean():
    for name, factor in (("amplitude_half", 0.5), ("amplitude_more", 1.5)):
        np.testing.assert_allclose(changed(name).mean(0), walk().mean(0))
        np.testing.assert_allclose(np.diff(changed(name), axis=0), factor * np.diff(walk(), axis=0))


def test_a_dropped_limb_moves_with_the_body_and_the_rest_is_untouched():
    parts = np.array(["body"] * 12 + ["leg"] * 8)
    result, tracks = changed("dropped_limb", parts=parts), walk()
    np.testing.assert_array_equal(result[:, :12], tracks[:, :12])
    centre = tracks.mean(1, keepdims=True)
    np.testing.assert_allclose(result[:, 12:] - centre, np.broadcast_to((tracks - centre)[:1, 12:], (17, 8, 2)))


def test_without_labels_a_quarter_of_the_tracks_is_dropped():
    assert (~np.isclose(changed("dropped_limb"), walk()).all((0, 2))).sum() == 5


def test_the_mean_motion_comes_from_visible_tracks():
    visibility = np.ones((17, 20), bool)
    visibility[:, 0] = False
    tracks = walk()
    tracks[:, 0] += np.linspace(0, 1000, 17)[:, None]
    moved = changed("dropped_limb", tracks, visibility=visibility, parts=["b"] * 15 + ["leg"] * 5)
    assert np.abs(moved[-1, 15:] - moved[0, 15:]).max() < 40


def test_jitter_grows_with_the_frame():
    still = np.zeros((50, 200, 2))
    rng = np.random.default_rng
    assert CHANGES["jitter"](still, rng(0), (48, 64)).std() == pytest.approx(1, abs=0.03)
    assert CHANGES["jitter"](still, rng(0), (480, 640)).std() == pytest.approx(10, abs=0.3)


def test_redrawn_step_lengths_keep_directions_and_are_seen_by_shape_alone():
    from motionlab.metrics.motion import mf_dmt, mf_paper

    tracks, result = walk(), changed("step_lengths")
    before, after = np.diff(tracks, axis=0), np.diff(result, axis=0)
    longer = np.linalg.norm(after, axis=-1) / np.linalg.norm(before, axis=-1)
    np.testing.assert_allclose(after, longer[..., None] * before, atol=1e-12)
    assert longer.mean() == pytest.approx(1, abs=0.15) and longer.std() == pytest.approx(1, abs=0.25)
    assert mf_dmt(result, tracks) == pytest.approx(mf_dmt(tracks, tracks), abs=1e-9)
    assert mf_paper(result, tracks, SIZE) < mf_paper(tracks, tracks, SIZE) - 0.03
    still = np.ones((5, 3, 2))
    np.testing.assert_array_equal(changed("step_lengths", still), still)


def test_frozen_never_moves():
    assert not np.diff(changed("frozen"), axis=0).any()


@pytest.mark.parametrize("call, sentence", [
    (lambda: changed("time_reverse"), "Did you mean 'time_reversal'?"),
    (lambda: changed("another_clip", other=None), "Pass other="),
    (lambda: changed("jitter", np.zeros((4, 2))), "(f, n, 2)"),
    (lambda: changed("mirror", np.full((4, 3, 2), np.nan)), "NaN"),
    (lambda: changed("dropped_limb", parts=["a"]), "one label per track"),
    (lambda: changed("dropped_limb", parts=["a"] * 20), "at least two parts"),
    (lambda: changed("amplitude_half", visibility=np.ones((3, 3))), "Visibility is (f, n)"),
])
def test_mistakes_are_explained(call, sentence):
    with pytest.raises(MotionLabError) as error:
        call()
    assert sentence in str(error.value)
