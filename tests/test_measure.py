"""One row per clip: real clips of the prompts pass, damaged ones fail where they were damaged."""
import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.experiments.measure import measure, recognised
from motionlab.data.prompts import load_prompts
from motionlab.models.evaluator import CLASSES, LIMBS, SLOTS, labels_of

PROMPTS = load_prompts("examples", 4)
CLIPS = np.stack([p.clip().frames for p in PROMPTS])


class Oracle:
    """Reads what it was told, so that the bookkeeping is tested and not a network."""

    def __init__(self, wrong=()):
        self.wrong = wrong

    def read(self, frames, species=None):
        labels = [labels_of(p.asked) for p in PROMPTS]
        names = {name: [CLASSES[name][(row[name] + (name in self.wrong)) % len(CLASSES[name])] for row in labels] for name in CLASSES}
        if species is None:
            return names
        limbs = [LIMBS[name] for name in species]
        shape = (len(frames), frames.shape[1], SLOTS)
        return names | {"limbs": limbs, "positions": np.full((*shape, 2), 24.0), "visible": np.ones(shape)}


def test_true_clips_are_right_without_a_network():
    rows = measure(CLIPS, PROMPTS, {}, "original")
    assert [r["item"] for r in rows] == [p.id for p in PROMPTS]
    in_view = [r for r, p in zip(rows, PROMPTS) if p.asked["actors"][0]["motion"] != "pass_behind"]      # a pillar hides limbs
    assert len(in_view) == 3 and all(r["structure"] < 0.2 and r["failure_frozen"] == 0 for r in in_view)


def test_frozen_clips_lose_their_motion_and_nothing_else():
    still = np.repeat(CLIPS[:, :1], CLIPS.shape[1], axis=1)
    moving, frozen = measure(CLIPS, PROMPTS, {}, "original"), measure(still, PROMPTS, {}, "frozen")
    for a, b in zip(moving, frozen):
        assert b["speed"] < 0.05 * a["speed"] and b["dynamic_degree"] == 0 and b["failure_frozen"] == 1


def test_evaluators_have_their_own_columns():
    rows = measure(CLIPS[:, :5], PROMPTS, {"first": Oracle(), "second": Oracle(wrong=("motion",))}, "x", seed=3)
    assert all(r["look_ok"] == r["move_ok"] == r["look_ok_second"] == 1 and r["move_ok_second"] == 0 for r in rows)
    assert all(r["seed"] == 3 and r["arm"] == "x" for r in rows)


def test_a_single_frame_has_no_motion_to_judge():
    class Still(Oracle):
        def read(self, frames, species=None):
            return super().read(frames, species) | {name: [None] * len(PROMPTS) for name in ("motion", "heading", "camera")}

    assert all(np.isnan(r["motion_ok"]) and np.isnan(r["move_ok"]) and r["look_ok"] == 1 for r in recognised(CLIPS[:, :1], PROMPTS, Still()))


def test_clips_and_prompts_must_agree():
    with pytest.raises(MotionLabError, match="3 clips were given for 4 prompts"):
        measure(CLIPS[:3], PROMPTS, {}, "x")
