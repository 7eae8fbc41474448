"""Resuming from a noised clip: both ends are exact, the middle goes where the model points."""
import pytest
import torch

from motionlab.analyses.resume import grid_from, resumed
from motionlab.diffusion import time_grid
from motionlab.core.errors import MotionLabError

X1, X0 = (torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
OTHER = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(2))

GRID = time_grid(20)


def to_other(x, t):
    """The exact velocity field of a world with one clip: straight to OTHER."""
    return (OTHER - x) / (1 - t.reshape(-1, 1, 1, 1, 1).to(x.dtype))


def test_at_one_the_clip_comes_back_and_at_zero_nothing_of_it_is_left():
    assert torch.equal(resumed(to_other, X1, X0, 1.0, GRID), X1)
    assert torch.allclose(resumed(to_other, X1, X0, 0.0, GRID), OTHER, atol=1e-4)
    assert torch.allclose(resumed(to_other, X1, X0, 0.0, GRID), resumed(to_other, 5 * X1, X0, 0.0, GRID))


def test_a_model_that_stands_still_keeps_the_mixture():
    kept = resumed(lambda x, t: torch.zeros_like(x), X1, X0, 0.25, GRID)
    assert torch.allclose(kept, 0.25 * X1 + 0.75 * X0)


def test_the_grid_goes_on_where_the_sampler_would():
    whole = time_grid(20)
    assert torch.equal(grid_from(float(whole[7]), whole), whole[7:])
    between = grid_from(0.5, whole)
    assert between[0] == 0.5 and (between.diff() > 0).all() and between[-1] == 1


def test_times_outside_are_refused():
    with pytest.raises(MotionLabError, match="t is 0"):
        resumed(to_other, X1, X0, 1.2, GRID)


# ---------------------------------------------------------------------------------------------- rows
def test_rivals_differ_in_as_much_as_they_can():
    from motionlab.analyses.resume import rivals
    from motionlab.world import parse_caption

    said = [parse_caption(text) for text in ("a red dog walks to the left over the meadow", "a red dog runs to the left over the meadow",
                                             "a blue fish swims to the right under the sea")]
    assert rivals(said) == [2, 2, 0]


def test_rows_say_what_was_kept_and_what_was_asked_for():
    import numpy as np

    from motionlab.analyses.inputs import world_clips
    from motionlab.analyses.resume import resume_rows
    from small import small_evaluator, small_model

    model = small_model(length=2)
    rows = list(resume_rows(model, small_evaluator(), world_clips((3, 4, 9), model), (0.0, 1.0), steps=2, batch=2))
    assert len(rows) == 3 * 2 * 2
    own = [r for r in rows if r["arm"] == "own"]
    assert all(r["pose_error"] == r["layout_error"] == 0 for r in own if r["t"] == 1)      # nothing was disturbed
    assert any(r["pose_error"] > 0 for r in own if r["t"] == 0)
    other = [r for r in rows if r["arm"] == "other"]
    assert all({"kept_motion", "asked_colour"} <= set(r) for r in other)
    assert all(not (r["kept_species"] and r["asked_species"]) for r in other if not np.isnan(r["kept_species"]))
