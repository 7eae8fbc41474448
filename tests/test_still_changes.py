"""Static changes: of the size that they say, the same in every frame, and seen by the audit as what they are."""
import numpy as np
import pytest

from motionlab import figures
from motionlab.core.errors import MotionLabError
from motionlab.metrics import audit
from motionlab.metrics.still_changes import ARMS, SIZES, by_arm, still_change
from motionlab.metrics.structure import DAMAGES, damage
from motionlab.world import random_scene, render

CLIP = render(random_scene(31, species_name="dog", motion="run", camera=False, paths=False))
GREY = np.full((5, 48, 48, 3), 100, np.uint8)


def test_each_change_is_of_its_size():
    assert (still_change(GREY, "brightness", 10) == 110).all()
    assert (still_change(GREY, "contrast", 0.9) == np.round(127.5 - 0.9 * 27.5)).all()
    assert still_change(GREY, "blotches", 12, np.random.default_rng(0)).astype(float).std() == pytest.approx(12, rel=0.02)
    point = np.zeros((1, 49, 49, 3), np.uint8)
    point[0, 24, 24] = 255
    soft = still_change(point, "blur", 1.0)[0, :, :, 0].astype(float)
    spread = np.sqrt((soft.sum(0) * (np.arange(49) - 24) ** 2).sum() / soft.sum())
    assert spread == pytest.approx(1.0, rel=0.1) and (still_change(GREY, "blur", 1.0) == 100).all()


@pytest.mark.parametrize("arm", ARMS)
def test_what_stood_still_stands_still(arm):
    """The same in every frame: frames that were alike stay alike, and the larger size changes more."""
    rng = lambda: np.random.default_rng(4)                                           # noqa: E731
    still = np.repeat(CLIP.frames[:1], 5, axis=0)
    changed = by_arm(still, arm, rng())
    assert changed.dtype == np.uint8 and (changed == changed[:1]).all() and not np.array_equal(changed, still)
    name = arm.rpartition("_")[0]
    small, large = (np.abs(still_change(still, name, size, rng()).astype(float) - still).mean() for size in SIZES[name])
    assert small < large


def test_they_are_damages_of_the_dose_response_and_arms_of_the_audit():
    assert all(set(sizes) <= set(DAMAGES[name]) for name, sizes in SIZES.items())
    frames = damage(CLIP, "contrast", 0.9, np.random.default_rng(0))
    assert np.array_equal(frames, still_change(CLIP.frames, "contrast", 0.9))
    rows = {row["arm"]: row for row in audit.audit_world([1, 2], points=12, frames=9) if row["item"] == "world-1"}
    assert set(ARMS) < set(rows)
    for arm in ARMS:                                             # exact tracks cannot answer; pictures answer less than to reversal
        assert all(rows[arm][m] == rows["identity"][m] for m in audit.REFERENCE)
        assert abs(rows[arm]["smoothness"] - rows["identity"]["smoothness"]) < 0.05


def test_real_clips_are_spared_what_tracks_cannot_show():
    tracks = np.random.default_rng(0).normal(20, 3, (9, 6, 2)).cumsum(0)
    assert {r["arm"] for r in audit.audit_tracks("a", tracks, (48, 48), tracks + 1)} == set(audit.MOVING)


def test_the_matrix_draws_static_changes_below_a_line():
    import pandas as pd

    table = pd.DataFrame(list(audit.audit_world([1, 2], points=8, frames=5)))
    ax = figures.response_matrix(table).axes[0]
    said = [label.get_text() for label in ax.get_yticklabels()]
    assert said[-len(ARMS):] == figures.labels(ARMS) and "static" in ax.texts[-1].get_text()
    assert ax.lines[-1].get_ydata()[0] == len(said) - len(ARMS) - 0.5


@pytest.mark.parametrize("call, message", [
    (lambda: still_change(GREY, "contras", 0.9), "Did you mean 'contrast'"),
    (lambda: by_arm(GREY, "contrast_0.7"), "Did you mean 'contrast_0"),
])
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(MotionLabError, match=message):
        call()
