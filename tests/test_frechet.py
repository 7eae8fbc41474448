"""Frechet distance: closed form of Gaussians, growth with known changes, interval, floor, bad input."""
import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.metrics.frechet import bias_floor, frechet, frechet_distance


def exact(n, d, seed=0):
    """n rows whose sample mean is exactly 0 and whose sample covariance is exactly the identity."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / (n - 1))).T


def test_closed_form_of_two_gaussians():
    scale, shift = np.array([0.5, 2.0, 1.0, 3.0]), np.array([1.0, -2.0, 0.0, 0.5])
    a, b = exact(50, 4, 0), exact(70, 4, 1) * scale + shift
    assert frechet_distance(a, b) == pytest.approx((shift ** 2).sum() + ((1 - scale) ** 2).sum(), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))


def test_closed_form_of_covariances_that_do_not_commute():
    from scipy.linalg import sqrtm

    one, two = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    a, b = exact(40, 2) @ np.linalg.cholesky(one).T, exact(40, 2, 1) @ np.linalg.cholesky(two).T
    wanted = np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-9)


def test_a_set_is_at_no_distance_from_itself_even_when_few():
    for n, d in ((64, 4), (10, 30), (2, 3)):
        x = np.random.default_rng(n).standard_normal((n, d))
        assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)


def test_turning_both_sets_changes_nothing():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    for n in (50, 8):                                         # with and without shrinkage
        a, b = rng.standard_normal((n, 6)), 2 * rng.standard_normal((n, 6)) + 1
        assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b))


def test_it_grows_with_shift_and_with_spread():
    x = exact(60, 3)
    shifted = [frechet_distance(x, x + s) for s in (0, 0.5, 1, 2)]
    spread = [frechet_distance(x, x * s) for s in (1, 1.5, 2, 3)]
    assert shifted == pytest.approx([3 * s ** 2 for s in (0, 0.5, 1, 2)], abs=1e-9)
    assert spread == pytest.approx([3 * (s - 1) ** 2 for s in (1, 1.5, 2, 3)], abs=1e-9)


def test_shrinkage_brings_few_rows_nearer_to_the_truth():
    rng = np.random.default_rng(0)
    few, many = rng.standard_normal((2, 12, 20)), rng.standard_normal((2, 4000, 20))
    centred = [x - x.mean(0) for x in few]
    covariances = [x.T @ x / 11 for x in centred]
    from scipy.linalg import sqrtm

    plain = np.trace(sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(20)).real)
    means = ((few[0].mean(0) - few[1].mean(0)) ** 2).sum()
    assert frechet_distance(*many) < frechet_distance(*few) < 0.5 * (plain + means)     # the truth is 0


def test_the_interval_covers_the_true_distance_and_the_value_lies_above_it():
    """Two samples of N(0, 1) and N(0.5, 1) in 8 dimensions: the true distance is 8 * 0.25 = 2."""
    inside, values = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = frechet(rng.standard_normal((80, 8)), rng.standard_normal((80, 8)) + 0.5, resamples=60, seed=seed)
        inside += found.low <= 2.0 <= found.high
        values.append(found.value)
    assert inside >= 16 and np.mean(values) > 2.0


def test_the_floor_falls_with_rows_and_is_what_equal_sets_score():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((800, 6))
    floors = [bias_floor(reference, rows) for rows in (20, 50, 100, 400)]
    assert floors == sorted(floors, reverse=True)
    fresh = np.mean([frechet_distance(rng.standard_normal((100, 6)), rng.standard_normal((100, 6))) for _ in range(20)])
    assert floors[2] == pytest.approx(fresh, rel=0.3)


def test_it_says_when_it_shrank():
    rng = np.random.default_rng(0)
    assert frechet(rng.standard_normal((9, 5)), rng.standard_normal((20, 5)), resamples=5).shrunk
    assert not frechet(rng.standard_normal((10, 5)), rng.standard_normal((20, 5)), resamples=5).shrunk


def test_bad_sets_are_refused():
    x = np.zeros((8, 3))
    for bad, text in ((np.zeros((8, 4)), "cannot be compared"), (np.zeros(8), "cannot be compared"),
                      (np.zeros((1, 3)), "no covariance"), (np.zeros((0, 3)), "no covariance"),
                      (np.full((8, 3), np.nan), "not finite")):
        with pytest.raises(MotionLabError, match=text):
            frechet_distance(x, bad)
    with pytest.raises(MotionLabError, match="no two halves"):
        bias_floor(x[:3])
