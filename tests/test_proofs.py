"""Proofs of the testbed on hand-made encoders and clips whose answers are known."""
import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.protocol import read_protocol
from motionlab.experiments.arms import Budget
from motionlab.experiments.finetune import training_config
from motionlab.experiments.proofs import middle_errors, track_matching
from motionlab.world import random_scene, render

CLIP = render(random_scene(31, species_name="person", motion="run", camera=False, paths=False), frames=17)


class Knows:
    """Features say which limb a cell shows (content), or where the cell is (place): one follows tracks, one does not."""

    def __init__(self, content: bool):
        self.content = content

    def features(self, video):
        if not self.content:
            return torch.eye(144).expand(len(video), -1, -1)
        ids = torch.tensor(np.stack([CLIP.ids[t] for t in range(0, 17, 4)]), dtype=torch.int64)
        share = torch.nn.functional.one_hot(ids, len(CLIP.layers)).float().unflatten(1, (12, 4)).unflatten(3, (12, 4)).mean((2, 4))
        return share.flatten(1, 2) + 1e-6


def test_content_follows_the_track_and_position_does_not():
    content, place = (track_matching(Knows(kind), CLIP) for kind in (True, False))
    assert content["on_track"] > content["same_place"] + 0.2 and content["on_track"] > content["other_point"] + 0.4
    assert place["same_place"] == pytest.approx(1) and place["on_track"] == 0
    assert content["cells"] == place["cells"] and 0.5 < content["cells"] < 3


def test_a_clip_without_two_latent_frames_is_refused():
    with pytest.raises(MotionLabError, match="need 5"):
        track_matching(Knows(False), render(random_scene(31), frames=4))


def test_the_true_middle_has_no_error_and_a_fade_of_a_runner_has():
    found = middle_errors(CLIP.frames, CLIP.frames, CLIP.frames)
    assert found["generated"] == 0 and found["crossfade"] > 5 and found["still"] > found["crossfade"] * 0.5


def test_a_fade_between_equal_ends_is_right_for_a_still_clip():
    still = np.repeat(CLIP.frames[:1], 17, axis=0)
    found = middle_errors(CLIP.frames, still, still)
    assert found["generated"] > 1 and found["crossfade"] == pytest.approx(0, abs=1e-9) and found["still"] == 0


def test_poses_of_a_middle_are_read_where_it_is_and_only_in_the_unknown_frames():
    from motionlab.experiments.proofs import middle_poses
    from motionlab.models.evaluator import LIMBS, SLOTS, true_limbs

    class Reader:
        """Sees the truth, one pixel to the right in the first clip given and everywhere wrong in the known frames."""

        def read(self, frames, species):
            assert frames.shape == (3, 17, 48, 48, 3) and species == ["person"] * 3
            positions = np.repeat(true_limbs(CLIP)[0][None], 3, axis=0)
            positions[0, :, :, 0] += 1
            positions[:, [0, 13, 14, 15, 16]] += 30
            positions[..., len(LIMBS["person"]):, :] = np.nan
            return {"positions": positions}

    found = middle_poses(CLIP.frames, CLIP, CLIP.frames, Reader())
    assert SLOTS >= len(LIMBS["person"]) and found["pose_generated"] == pytest.approx(1) and found["pose_crossfade"] == found["pose_still"] == 0


def test_the_standard_budget_is_the_protocols():
    config = training_config(Budget(lr=1e-3), 2)
    assert config.steps * config.batch_size == read_protocol()["budget"]["fine_tune_clip_steps"]["default"] and config.seed == 2 and config.lr == config.muon_lr == 1e-3
    assert config.threads == 0                                             # rows side by side share the cores: OMP_NUM_THREADS decides
    with pytest.raises(MotionLabError, match="whole number of batches"):
        training_config(Budget(clip_steps=4001), 0)


def test_attention_falls_by_what_the_blocks_say_on_average():
    from motionlab.experiments.proofs import attention_fall, by_offset

    rows = [{"item": "a", "arm": "base", "seed": 0, "block": k, "mass_0": 0.5, "mass_1": 0.2 + 0.1 * k, "mass_2": 0.1} for k in (0, 1)]
    found = attention_fall(rows)
    assert len(found) == 1 and found[0]["mass_1"] == pytest.approx(0.25) and found[0]["fall"] == pytest.approx(0.15)
    assert by_offset(rows)["offset"].tolist() == [0, 1, 2]


def test_middles_of_a_small_model_are_measured_against_the_true_clips():
    from motionlab.experiments.proofs import middle_rows
    from small import small_model

    rows = middle_rows(small_model(length=3), "examples", 2, steps=2)
    assert [r["item"] for r in rows] == ["examples/000", "examples/001"] and all(r["generated"] > r["crossfade"] > 0 for r in rows)
