"""Resuming from a noised clip: both ends are exact, the middle goes where the model points."""
import pytest
import torch

from motionlab.analyses.resume import grid_from, resumed
from motionlab.diffusion import time_grid
from motionlab.errors import MotionLabError

X1, X0 = (torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
OTHER = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(2))


def to_other(x, t):
    """The exact velocity field of a world with one clip: straight to OTHER."""
    return (OTHER - x) / (1 - t.reshape(-1, 1, 1, 1, 1).to(x.dtype))


def test_at_one_the_clip_comes_back_and_at_zero_nothing_of_it_is_left():
    assert torch.equal(resumed(to_other, X1, X0, 1.0), X1)
    assert torch.allclose(resumed(to_other, X1, X0, 0.0), OTHER, atol=1e-4)
    assert torch.allclose(resumed(to_other, X1, X0, 0.0), resumed(to_other, 5 * X1, X0, 0.0))


def test_a_model_that_stands_still_keeps_the_mixture():
    kept = resumed(lambda x, t: torch.zeros_like(x), X1, X0, 0.25)
    assert torch.allclose(kept, 0.25 * X1 + 0.75 * X0)


def test_the_grid_goes_on_where_the_sampler_would():
    whole = time_grid(20)
    assert torch.equal(grid_from(float(whole[7]), 20), whole[7:])
    between = grid_from(0.5, 20)
    assert between[0] == 0.5 and (between.diff() > 0).all() and between[-1] == 1


def test_times_outside_are_refused():
    with pytest.raises(MotionLabError, match="t is 0"):
        resumed(to_other, X1, X0, 1.2)
