"""Rows of the dose-response and its figure: with a codec that changes nothing and readers that are told what was done."""
import numpy as np
import pandas as pd
import pytest

from motionlab import figures
from motionlab.core.errors import MotionLabError
from motionlab.experiments import motion_dose
from motionlab.metrics.motion_damage import FAULTS, RETIMINGS
from small import small_evaluator

DOSES = (0.5, 1.0)


class Nothing:
    """A codec that changes nothing but rounding."""

    def encode(self, video):
        return video

    def decode(self, latents):
        return latents


@pytest.fixture(scope="module")
def prompts():
    return motion_dose.breakable("examples", 2)


@pytest.fixture(scope="module")
def readers():
    return {"0": small_evaluator(), "1": small_evaluator()}


def test_only_subjects_with_limbs_are_asked_for(prompts):
    kinds = {p.asked["actors"][0]["species"] for p in motion_dose.breakable("examples", 8)}
    assert kinds <= {"person", "dog", "bird", "fish", "snake"} and len(prompts) == 2
    with pytest.raises(MotionLabError, match="prompts with moving limbs, not 999"):
        motion_dose.breakable("examples", 999)


def test_every_damage_and_dose_has_a_row_per_clip_and_undamaged_ones_stand_beside(prompts, readers):
    rows = list(motion_dose.faulty_rows(prompts, Nothing(), readers, frames=9, doses=DOSES))
    assert [r["arm"] for r in rows[::2]] == ["clean_0"] + [f"{name}_{dose:g}" for name in FAULTS for dose in DOSES]
    assert {"structure_0", "structure_1", "move_ok_0", "move_ok_1", "look_ok_0"} <= set(rows[0])
    assert all(np.isfinite(r["structure_0"]) for r in rows) and {r["item"] for r in rows} == {p.id for p in prompts}


def test_what_is_damaged_is_what_is_read(prompts, readers, monkeypatch):
    """Each row's frames are those of its own prompt, damage and dose, after the codec."""
    seen = []
    monkeypatch.setattr(motion_dose, "answers", lambda frames, p, e, source, damage="clean", dose=0: seen.append((damage, dose, frames)) or [])
    list(motion_dose.faulty_rows(prompts, Nothing(), readers, frames=9, doses=DOSES))
    for damage, dose, frames in seen:
        for prompt, clip in zip(prompts, frames):
            own = prompt.clip(frames=9)
            wanted = own.frames if damage == "clean" else motion_dose.break_motion(own, damage, dose)
            assert np.abs(clip.astype(int) - wanted).max() <= 1
    assert len(seen) == 1 + len(FAULTS) * len(DOSES)


def test_retiming_of_two_sources_is_the_same_and_any_clips_serve(prompts, readers, monkeypatch):
    seen = {}
    monkeypatch.setattr(motion_dose, "answers", lambda frames, p, e, source, damage="clean", dose=0:
                        seen.setdefault(source, []).append((damage, dose, frames)) or [])
    frames = np.stack([p.clip(frames=9).frames for p in prompts])
    for source, made in (("a", frames), ("b", 255 - frames)):
        list(motion_dose.retimed_rows(made, prompts, readers, source, DOSES))
    assert [s[:2] for s in seen["a"]] == [("clean", 0)] + [(name, dose) for name in RETIMINGS for dose in DOSES]
    assert all(np.array_equal(a[2], 255 - b[2]) for a, b in zip(seen["a"], seen["b"]))
    with pytest.raises(MotionLabError, match="3 clips were given for 2 prompts"):
        list(motion_dose.retimed_rows(frames[[0, 1, 1]], prompts, readers, "a"))


# ---------------------------------------------------------------------------------------------- the figure
@pytest.fixture
def table():
    """Twenty clips: `late` raises structure and lowers motion by its dose for both readers, `stuck` does neither, and of `gait`
    one reader sees what the other does not."""
    rows, wobble = [], np.linspace(-0.01, 0.01, 20)
    slopes = {"late": (0.2, 0.3, 0.5, 0.5), "stuck": (0, 0, 0, 0), "gait": (0.2, 0, 0, 0)}
    for damage, dose in [("clean", 0)] + [(d, x) for d in slopes for x in (0.25, 1.0)]:
        a, b, c, d = slopes.get(damage, (0,) * 4)
        rows += [{"item": f"clip-{k}", "arm": f"{damage}_{dose:g}", "damage": damage, "dose": dose, "structure_0": 0.1 + a * dose + w,
                  "structure_1": 0.12 + b * dose - w, "move_ok_0": 1 - c * dose, "move_ok_1": 1 - d * dose} for k, w in enumerate(wobble)]
    return pd.DataFrame(rows)


def test_the_figure_draws_the_means_in_units_of_the_dose_and_the_floor(table):
    fig = figures.dose_response(table, subject="reconstructions")
    late = fig.axes[0]
    curve, floor = late.lines[0].get_xydata(), late.lines[1].get_ydata()
    assert np.allclose(curve, [(0, 0.1), (45, 0.15), (180, 0.3)]) and np.allclose(floor, 0.1)
    assert [list(ax.get_xticks()) for ax in fig.axes[3:5]] == [[0, 90, 180], [0, 50, 100]]
    assert "lag in degrees" in fig.axes[3].get_xlabel() and "worse →" in late.get_ylabel()
    assert len({line.get_color() for ax in fig.axes[::3] for line in ax.lines}) == 4          # one colour per column
    fig.draw_without_rendering()


def test_the_title_says_what_both_readers_see_and_no_more(table):
    said = figures.dose_response(table, subject="reconstructions").get_suptitle()
    assert "n = 20" in said and "structure answers: one limb late." in said and "motion as asked answers: one limb late." in said
    assert said.endswith("Seen by both in neither: one limb stuck, another species' gait.")
    with pytest.raises(MotionLabError, match="no undamaged clips"):
        figures.dose_response(table[table["arm"] != "clean_0"])
