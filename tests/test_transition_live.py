"""One pair at a time, for notebooks: pairs of the world and of yours, norms, order, spectra, maps."""
import imageio.v3 as iio
import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.experiments import transition_live as live
from motionlab.experiments.transitions import generator
from motionlab.metrics.still_changes import still_change
from motionlab.papers import vtg
from small import small_evaluator
from tiny_repository import root  # noqa: F401


def test_a_pair_of_yours_goes_where_a_pair_of_the_world_does(root, tmp_path):
    iio.imwrite(tmp_path / "a.png", np.full((60, 90, 3), 40, np.uint8)), iio.imwrite(tmp_path / "b.png", np.full((60, 90, 3), 200, np.uint8))
    pair, = live.shown_pairs("laptop", ["blend"], first=str(tmp_path / "a.png"), last=str(tmp_path / "b.png"))
    assert pair.first.shape == (48, 48, 3) and pair.truth() is None
    made = live.clips(live.arm("fades", kind="cross_fade"), [pair], tmp_path)
    assert made.shape == (1, 9, 48, 48, 3)
    world = live.shown_pairs("smoke", ["between", "blend"])
    assert [p.task for p in world] == ["between", "blend"] and "examples" in world[0].id
    with pytest.raises(MotionLabError, match="One picture of two"):
        live.shown_pairs("laptop", ["blend"], first="a.png")


def test_order_of_a_pair_and_maps_of_its_forward_branch(root, tmp_path):
    one, (pair,) = live.arm("between", steps=1), live.shown_pairs("smoke", ["between"])
    pipe = generator(one, 0, tmp_path)
    row, = live.order_rows(one, [pair], tmp_path, small_evaluator(), pipe)
    assert row["order_cost"] == pytest.approx(row["pose_swapped"] - row["pose"]) and row["order_gap"] >= 0
    name, (q, k) = next(iter(live.forward_maps(pipe, pair).items()))
    assert name.endswith("attn1") and q.shape[2] == k.shape[2] == 9
    a = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)
    shared = torch.softmax(q.flip(2) @ k.flip(2).mT / q.shape[-1] ** 0.5, -1)
    assert torch.allclose(shared, vtg.rotated(a), atol=1e-6)


def test_norms_and_spectra_by_hand():
    starts = {"iid": torch.randn(1, 3, 4, 12, 12, generator=torch.Generator().manual_seed(0)), "none": torch.zeros(1, 3, 4, 12, 12)}
    rows = live.norm_rows(starts)
    assert len(rows) == 6 and rows[0]["deviation"] == pytest.approx(1, abs=0.1) and rows[-1]["deviation"] == 0
    stripes = np.zeros((2, 16, 16, 3), np.uint8)
    stripes[0, :, ::2], stripes[1, :8] = 200, 200
    fine, coarse = live.high_share(stripes)
    assert fine == pytest.approx(1) and coarse < 0.1
    pair, = live.shown_pairs("smoke", ["between"])
    truth = pair.truth()
    found = {name: np.mean([row["high"] for row in live.spectrum_rows({name: clip[None]}, [pair])]) for name, clip in
             {"truth": truth, "blurred": still_change(truth, "blur", 1)}.items()}
    assert found["blurred"] < 0.7 * found["truth"] and found["truth"] == pytest.approx(1, abs=0.2)
