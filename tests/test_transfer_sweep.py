"""Motion transfer as rows of a sweep: an adapter per task, shared where it may be, gone on with after a kill; the scale of m."""
import json

import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.data.transfer import load_transfer
from motionlab.experiments import transfer
from motionlab.experiments.transfer import check_arm, least_alike, read_transfer_arm, run_row, scale_of
from tiny_repository import root, spot  # noqa: F401

COMMON = {"tasks": "transfer_dev", "n": 2, "length": 2, "steps": 2}
LORA = {"name": "lora", "method": "lora", "train": {"lr": 1e-2, "steps": 3}}


@pytest.fixture
def any_scale(monkeypatch):
    """Random weights leave no room between base and truth: rows are given a scale."""
    monkeypatch.setattr(transfer, "scale_of", lambda *args: transfer.Scale({"0": [0.2, 0.9], "1": [0.2, 0.9]}))


def adapters(folder, method="lora"):
    return sorted((folder / "trained" / f"{method}-on-one-clip").glob("*/trained.safetensors"))


def test_every_source_gives_a_row_per_task(root, any_scale, tmp_path):
    for arm in ({"name": "truth", "source": "truth"}, {"name": "source", "source": "source"}, {"name": "redraw", "source": "redraw"}, {"name": "base"}):
        rows = run_row(arm, 0, spot(tmp_path, arm["name"]), "full", **COMMON)
        assert [row["item"] for row in rows] == ["transfer_dev/00", "transfer_dev/01"] and {row["arm"] for row in rows} == {arm["name"]}
        assert {"m_0", "m_1", "mf_0", "edit_1", "score_0", "leak", "edit_1_b", "tc", "structure_0", "jump_1", "kind"} <= set(rows[0])
    truth = np.load(spot(tmp_path, "truth") / "00.npy")
    assert truth.shape == (3, 5, 48, 48, 3) and np.array_equal(truth[0], truth[1])        # one answer, asked with two noises
    assert not adapters(tmp_path)


def test_an_adapter_per_task_shared_by_what_only_samples(root, any_scale, tmp_path):
    rows = run_row(LORA, 0, spot(tmp_path, "lora"), "full", **COMMON)
    assert len(rows) == 2 and len(adapters(tmp_path)) == 2
    run_row({**LORA, "name": "own", "measure": {"caption": "own"}}, 0, spot(tmp_path, "own"), "full", **COMMON)
    assert len(adapters(tmp_path)) == 2
    own, target = (np.load(spot(tmp_path, name) / "00.npy") for name in ("own", "lora"))
    assert not np.array_equal(own, target)
    run_row({**LORA, "name": "answer", "train": {**LORA["train"], "clip": "answer"}}, 0, spot(tmp_path, "answer"), "full", **COMMON)
    run_row(LORA, 1, spot(tmp_path, "lora-1"), "full", **COMMON)
    assert len(adapters(tmp_path)) == 6                                                   # another clip, another seed
    assert not list(tmp_path.glob("trained/*/*/training/checkpoints"))


def test_a_killed_row_goes_on_at_its_task(root, any_scale, tmp_path, monkeypatch):
    place, sampled = spot(tmp_path, "lora"), []
    real = transfer.sampled

    def once(arm, pipe, task, seed):
        sampled.append(task.id)
        if len(sampled) == 2:
            raise KeyboardInterrupt
        return real(arm, pipe, task, seed)

    monkeypatch.setattr(transfer, "sampled", once)
    with pytest.raises(KeyboardInterrupt):
        run_row(LORA, 0, place, "full", **COMMON)
    before = [path.stat().st_mtime_ns for path in adapters(tmp_path)]
    assert len(run_row(LORA, 0, place, "full", **COMMON)) == 2
    assert sampled == ["transfer_dev/00", "transfer_dev/01", "transfer_dev/01"] and [p.stat().st_mtime_ns for p in adapters(tmp_path)] == before


def test_the_adapter_of_another_route(root, any_scale, tmp_path, monkeypatch):
    tasks = load_transfer("transfer_dev")
    monkeypatch.setattr(transfer, "load_transfer", lambda name, n: [tasks[0], tasks[3]])
    assert least_alike(tasks[0], tasks).id == "transfer_dev/03" and least_alike(tasks[5], tasks).id == "transfer_dev/02"
    run_row({**LORA, "name": "other", "measure": {"adapter": "other"}}, 0, spot(tmp_path, "other"), "full", **COMMON)
    run_row(LORA, 0, spot(tmp_path, "lora"), "full", **COMMON)
    assert len(adapters(tmp_path)) == 2                                                   # the same two, each on the other's task
    own, other = (np.load(spot(tmp_path, name) / "00.npy") for name in ("lora", "other"))
    assert not np.array_equal(own, other)
    with pytest.raises(MotionLabError, match="n is too small"):
        least_alike(tasks[0], tasks[:3])


def test_a_method_that_trains_nothing_is_shown_the_source(root, any_scale, tmp_path):
    rows = run_row({"name": "dmt", "method": "dmt"}, 0, spot(tmp_path, "dmt"), "full", **COMMON)
    assert len(rows) == 2 and not adapters(tmp_path, "dmt")


def test_smoke_never_looks_at_tasks_that_judge(root, any_scale, tmp_path):
    rows = run_row({**LORA, "measure": {"tasks": "transfer", "n": 24}}, 0, spot(tmp_path, "lora"), "smoke", **COMMON)
    assert {row["item"].split("/")[0] for row in rows} == {"transfer_examples"}


def test_the_scale_is_measured_once_and_says_when_there_is_no_room(root, tmp_path, monkeypatch):
    arm, asked = read_transfer_arm(LORA, COMMON), []
    real = transfer.transfer_rows

    def with_room(frames, tasks, readers, source, **options):
        asked.append(source)
        level = {"generated": 0.3, "truth": 0.8 + 0.01 * options["every"]}[source]
        return [row | {f"mf_{name}": level for name in readers} for row in real(frames, tasks, readers, source, **options)]

    monkeypatch.setattr(transfer, "transfer_rows", with_room)
    scale = scale_of(arm, tmp_path)
    assert scale.every == 4 and scale.ends == {"0": [pytest.approx(0.3), pytest.approx(0.84)], "1": [pytest.approx(0.3), pytest.approx(0.84)]}
    assert scale_of(arm, tmp_path) == scale and asked == ["generated", "truth"] * 2
    kept, = tmp_path.glob("scale-*.json")
    kept.write_text(json.dumps({"ends": {"0": [0.5, 0.4], "1": [0.2, 0.9]}, "every": 1}))
    monkeypatch.setattr(transfer, "transfer_rows", real)
    monkeypatch.setattr(transfer, "trainings", lambda place: tmp_path)
    with pytest.raises(MotionLabError, match="not above the base"):
        run_row({"name": "base"}, 0, spot(tmp_path, "base"), "full", **COMMON)


@pytest.mark.parametrize("arm, says", [
    ({"source": "reconstruction"}, "source of an arm"), ({"train": {"clip_steps": 5}}, "no field 'clip_steps'"),
    ({"train": {"steps": 0}}, "0 steps"), ({"train": {"clip": "target"}}, "source"), ({"measure": {"prompts": "test"}}, "no field 'prompts'"),
    ({"measure": {"adapter": "others"}}, "Did you mean 'other'"), ({"method": "dmt", "train": {"lr": 1.0}}, "acts while sampling")])
def test_mistakes_are_named(arm, says):
    with pytest.raises(MotionLabError, match=says):
        check_arm({"name": "x"} | arm, COMMON)
