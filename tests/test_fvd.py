"""Distances to redraws, their floor and bias; networks by path; edge contrast; the readings of a Motion Score."""
import numpy as np
import pandas as pd
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.data.prompts import load_prompts
from motionlab.experiments.contrasts import fvd_to_redraws
from motionlab.metrics.edges import edge_contrast, terciles
from motionlab.metrics.fvd import bias_by_n, fvd, sees
from motionlab.metrics.vbench import motion_scores
from motionlab.models.video_features import load_video_features
from motionlab.world.captions import describe

D = 4


def world(n, k, shift=0.0, seed=0):
    """Features of n prompts: each has a content of its own, and draws of it vary around that."""
    rng = np.random.default_rng(seed)
    content = rng.normal(size=(n, 1, D))
    drawn = content + 0.5 * rng.normal(size=(n, k + 2, D))
    return drawn[:, 0] + shift, drawn[:, 1:k + 1], drawn[:, k + 1]


# ---------------------------------------------------------------------------------------------- the distance
def test_right_clips_are_at_the_floor_and_shifted_ones_above_it():
    made, redraws, ninth = world(128, 8)
    right, wrong = fvd(made, redraws, ninth), fvd(made + 1.0, redraws, ninth)
    assert right.low < 0 < right.high and abs(right.excess) < 0.1 and right.n == 128
    assert wrong.value == pytest.approx(D * 1.0, rel=0.35) and wrong.low > 0 and wrong.floor == right.floor
    assert sees(made + 1.0, redraws, ninth, 50) and not sees(made, redraws, ninth, 50)
    with pytest.raises(MotionLabError, match="do not fit"):
        fvd(made, redraws[:100], ninth)


def test_both_value_and_floor_fall_with_the_number_of_clips():
    made, redraws, ninth = world(256, 8)
    rows = bias_by_n(made + 0.5, redraws, ninth, (16, 64, 256), draws=4)
    assert [r["n"] for r in rows] == [16, 64, 256] and rows[0]["floor"] > rows[1]["floor"] > rows[2]["floor"]
    gap = [r["value"] - r["floor"] for r in rows]
    assert max(gap) - min(gap) < 0.5 * rows[0]["floor"] + 0.3
    with pytest.raises(MotionLabError, match="sizes from 2"):
        bias_by_n(made, redraws, ninth, (300,))


def test_the_table_gives_the_same_and_wants_the_same_prompts():
    made, redraws, ninth = world(32, 3)

    def rows(arm, seed, values):
        return [{"item": f"p{i}", "arm": arm, "seed": seed} | {f"fd_{k:02d}": v for k, v in enumerate(row)} for i, row in enumerate(values)]

    table = rows("full", 0, made) + [r for k in range(3) for r in rows("redraw", k, redraws[:, k])] + rows("redraw", 3, ninth)
    found = fvd_to_redraws(pd.DataFrame(table), ["full"])["full"]
    expected = fvd(made, redraws, ninth)
    assert [found.value, found.floor, found.low, found.high] == pytest.approx([expected.value, expected.floor, expected.low, expected.high])
    with pytest.raises(MotionLabError, match="no redraw of 1 prompts"):
        fvd_to_redraws(pd.DataFrame([r for r in table if (r["arm"], r["item"]) != ("redraw", "p3")]), ["full"])
    with pytest.raises(MotionLabError, match="has 1 seed"):
        fvd_to_redraws(pd.DataFrame([r for r in table if r["seed"] == 0]), ["full"])


def test_redraws_say_the_same_sentence_and_are_other_clips():
    for prompt in load_prompts("examples", 8):
        first, second = prompt.redraw(0), prompt.redraw(1)
        assert describe(first.scene) == prompt.asked == describe(second.scene)
        assert not np.array_equal(first.frames, second.frames) and not np.array_equal(first.frames, prompt.clip().frames)
        assert np.array_equal(prompt.redraw(0).frames, first.frames)


# ---------------------------------------------------------------------------------------------- networks by path
class Twelve(torch.nn.Module):
    """Stands for I3D: what it is given tells what it is called with."""

    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> torch.Tensor:
        assert rescale and resize and return_features
        return x.mean([2, 3, 4])


def test_features_come_from_files_that_are_there(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEModel

    frames = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 20, 3), np.uint8)
    torch.jit.script(Twelve()).save(str(tmp_path / "i3d.pt"))
    found = load_video_features("i3d", tmp_path / "i3d.pt")(frames)
    np.testing.assert_allclose(found, frames.mean((1, 2, 3)), rtol=1e-4)
    with pytest.raises(MotionLabError, match="clips of 9 frames"):
        load_video_features("i3d", tmp_path / "i3d.pt")(frames[:, :9])
    VideoMAEModel(VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, tubelet_size=2, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                 intermediate_size=16)).save_pretrained(tmp_path / "videomae")
    features = load_video_features("videomae", tmp_path / "videomae")
    assert features(frames).shape == (3, 16) and np.isfinite(features(frames)).all() and np.array_equal(features(frames), features(frames))
    for name, path, says in (("i3d", "none.pt", "no network of i3d"), ("i3e", "", "Did you mean 'i3d'"), ("videomae", tmp_path, "no folder of VideoMAE")):
        with pytest.raises(MotionLabError, match=says):
            load_video_features(name, path)
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(MotionLabError, match="no TorchScript"):
        load_video_features("i3d", tmp_path / "text.pt")


# ---------------------------------------------------------------------------------------------- contours, Motion Score
def test_a_blurred_contour_has_less_contrast_at_its_border():
    from scipy.ndimage import gaussian_filter

    frames, subject = np.full((2, 48, 48, 3), 40, np.uint8), np.zeros((2, 48, 48), bool)
    subject[:, 14:34, 14:34] = True
    frames[subject] = 200
    values = [edge_contrast(gaussian_filter(frames.astype(float), (0, s, s, 0)).astype(np.uint8), subject) for s in (0, 0.7, 1.5, 3)]
    assert values[0] == pytest.approx(1) and values[0] > values[1] > values[2] > values[3] > 0.2
    assert np.isnan(edge_contrast(frames, subject & False)) and np.isnan(edge_contrast(np.full_like(frames, 9), subject))
    assert terciles([1, 2, 3, 4, 5, 6, np.nan]).tolist() == [0, 0, 1, 1, 2, 2, -1]


def test_readings_of_the_motion_score():
    said = motion_scores({"motion_smoothness": 0.98, "dynamic_degree": 0.9, "subject_consistency": 0.95, "background_consistency": 0.97})
    assert said == pytest.approx({"m1": 94.0, "m2": 290 / 3, "m3": 95.0})
