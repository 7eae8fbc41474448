"""The audits themselves: known changes come out in the right place, and the exact teacher makes no error."""
import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.core.protocol import judged_seeds, split_seeds
from motionlab.metrics import audit
from motionlab.metrics.audit_real import camera_rows
from motionlab.teachers.audit import audit_teachers
from motionlab.teachers.flow import end_point_error, flow
from motionlab.teachers.tracks import track_error, tracks
from motionlab.world import random_scene, render


def rows_by_arm(rows):
    return {row["arm"]: row for row in rows}


def test_world_audit_has_every_arm_and_known_answers():
    rows = list(audit.audit_world([1, 2], points=12, frames=9))
    assert len(rows) == 2 * len(audit.ARMS) and {r["item"] for r in rows} == {"world-1", "world-2"}
    by_arm = rows_by_arm(rows[:len(audit.ARMS)])
    assert by_arm["identity"]["mf_paper"] == pytest.approx(1)
    assert by_arm["frozen"]["dynamic"] == 0 and by_arm["frozen"]["vtg_undefined"] == 1 and np.isnan(by_arm["frozen"]["vtg_smoothness"])
    assert by_arm["time_reversal"]["roughness"] == pytest.approx(by_arm["identity"]["roughness"])
    assert np.isnan([by_arm["step_lengths"][name] for name in audit.NO_REFERENCE]).all()
    assert by_arm["time_reversal"]["mf_paper"] < by_arm["jitter"]["mf_paper"] < 1
    assert list(audit.audit_world([1, 2], points=12, frames=9))[3]["mf_release"] == rows[3]["mf_release"]


@pytest.mark.parametrize("arm", [arm for arm in audit.ARMS if arm not in audit.OF_TRACKS])
def test_changed_pictures_keep_their_shape_and_do_change(arm):
    clip, other = render(random_scene(1), 48, 9), render(random_scene(2), 48, 9)
    changed = audit.changed_pictures(arm, clip, np.random.default_rng(0), other)
    assert changed.shape == clip.frames.shape and changed.dtype == np.uint8
    assert np.array_equal(changed, clip.frames) == (arm == "identity")


def test_pictures_at_double_speed_move_twice_as_far():
    clip = render(random_scene(5, species_name="ball", motion="roll", camera=False, paths=False), 64, 9)
    there = {arm: audit.changed_pictures(arm, clip, None, None) for arm in ("speed_half", "identity", "speed_double")}
    assert np.array_equal(there["speed_double"][4], there["identity"][8]) and np.array_equal(there["speed_half"][8], there["identity"][4])


def test_exact_teacher_has_no_error_and_wants_a_world_clip():
    clip = render(random_scene(4), 48, 6)
    points = clip.foreground_points(10)
    truth, seen = clip.tracks(points)
    assert end_point_error(flow(clip, "exact"), clip.flow) == 0
    assert track_error(tracks(clip, points, teacher="exact"), truth, seen) == 0
    with pytest.raises(MotionLabError, match="pictures alone have no truth"):
        flow(clip.frames, "exact")
    with pytest.raises(MotionLabError, match="at least two frames"):
        flow(render(random_scene(4), 48, 1), "exact")


def test_teacher_audit_is_relative_to_standing_still():
    rows = list(audit_teachers([3], size=64, frames=6, points=20))
    assert {"dis", "lucas_kanade", "dis_chained"} <= {r["arm"] for r in rows}
    assert all(0 < r["relative"] < 2 and r["error"] > 0 for r in rows)


def test_camera_windows_are_rows_of_one_source():
    rows = camera_rows(spacing=40)
    assert {r["source"] for r in rows} == {"camera"} and len({r["item"] for r in rows}) >= 10
    assert all(r["mf_paper"] == pytest.approx(1) for r in rows if r["arm"] == "identity")


def test_smoke_never_looks_at_the_test_split():
    test = set(split_seeds("test", 1000))
    assert not test & set(judged_seeds("smoke", 50)) and set(judged_seeds("laptop", 50)) <= test
    with pytest.raises(MotionLabError, match="Did you mean 'test'"):
        split_seeds("tset", 3)
    with pytest.raises(MotionLabError, match="holds 100000 seeds"):
        split_seeds("dev", 100001)
