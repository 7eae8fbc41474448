"""A tuning that is watched: it is the sweep's, goes on where it was stopped, and what is kept of it opens again."""
import numpy as np
import pandas as pd
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.data.transfer import load_transfer
from motionlab.experiments import transfer, transfer_adapters, transfer_cost, transfer_live
from motionlab.experiments.live import attached
from motionlab.experiments.transfer import read_transfer_arm
from motionlab.methods import open_method
from motionlab.models.open import open_pipe
from motionlab.models.branches import branches
from motionlab.video import write_mp4
from tiny_repository import root  # noqa: F401
from videos import moving_texture

METHOD = open_method("det", points=8)
ARM = {"name": "cure", "method": "det", "train": {"lr": 1e-2, "steps": 2, "points": 8}, "sample": {"keep": 1}}
COMMON = {"tasks": "transfer_dev", "n": 2, "length": 3, "steps": 2}


@pytest.fixture(scope="module")
def tasks():
    return load_transfer("transfer_dev", 2)


@pytest.fixture(scope="module")
def watched(root, tasks, tmp_path_factory):
    """The base, the first task's clip, and its tuning of two steps with one snapshot on the way."""
    base = open_pipe(frames=9)
    one, folder = transfer_live.clip_of_task(tasks[0], base), tmp_path_factory.mktemp("live")
    return base, one, folder, transfer_live.tuned_live(METHOD, base, one, folder, 2, 1e-2, snapshots=2)


def kernels(pipe):
    return [branch.module.up.detach() for branch in branches(pipe.denoiser).values()]


def test_snapshots_begin_at_the_base_and_end_at_the_tuned_generator(watched):
    base, one, _, (pipe, on_the_way) = watched
    assert list(on_the_way) == [0, 1, 2] and one.frames.shape == (9, 48, 48, 3) and len(one.texts) == 3
    assert not any(up.any() for up in kernels(on_the_way[0])) and all(up.any() for up in kernels(on_the_way[1]))
    for own, kept in zip(kernels(pipe), kernels(on_the_way[2])):
        assert torch.equal(own.bfloat16(), kept.bfloat16())
    assert not branches(base.denoiser)


def test_a_tuning_that_is_finished_is_not_made_again(watched, monkeypatch):
    base, one, folder, (pipe, _) = watched
    monkeypatch.setattr(type(METHOD), "loss", lambda self, pipe: lambda *batch: pytest.fail("it trains again"))
    again, _ = transfer_live.tuned_live(METHOD, base, one, folder, 2, 1e-2, snapshots=2)
    assert all(torch.equal(a, b) for a, b in zip(kernels(again), kernels(pipe)))


def test_clips_of_its_texts_and_folders_apart_by_clip(watched, tasks):
    base, one, _, (pipe, _) = watched
    made = transfer_live.made_of(METHOD, pipe, one, METHOD.Sampling(steps=1, w=0.0, keep=1))
    assert made.shape == (3, 9, 48, 48, 3) and not np.array_equal(made[0], made[1])
    alone = transfer_live.made_of(METHOD, pipe, one, METHOD.Sampling(steps=1, w=0.0, keep=1), one.texts[:1])
    assert np.abs(alone[0].astype(int) - made[0]).max() <= 2                            # batches round differently
    other = transfer_live.clip_of_task(tasks[1], base)
    assert transfer_live.named("det", one, 2) != transfer_live.named("det", other, 2) != transfer_live.named("det", other, 3)


def test_cosines_and_gains_of_the_snapshots(watched, tasks):
    _, _, _, (_, on_the_way) = watched
    rows = pd.DataFrame(transfer_live.cosine_rows(on_the_way, METHOD, tasks[0].clip(frames=9), "a", "det", [0]))
    assert list(rows["step"]) == [0, 1, 2] and rows["foreground"].between(-1, 1).all() and rows["floor"].nunique() == 1
    assert rows["foreground"].nunique() > 1 and (rows["tracking"] > 0).all()
    known = pd.DataFrame([{"item": "a", "arm": "det", "seed": 0, "step": k, "foreground": 0.5 + 0.1 * k, "background": 0.9 + 0.02 * k,
                           "tracking": 1.0 - k} for k in (2, 0, 1)])
    (gain,) = transfer_live.gains(known)
    assert (gain["gain_foreground"], gain["gain_background"], gain["gain_background_half"], gain["gain_tracking"]) == pytest.approx((0.2, 0.04, -0.06, -2))


def test_a_video_of_yours(root, tmp_path):
    write_mp4(tmp_path / "mine.mp4", moving_texture(12, 64, 80, (2, 0)), 16)
    base = open_pipe(frames=9)
    one = transfer_live.clip_of_yours(str(tmp_path / "mine.mp4"), "", ["a red dog runs to the left over the meadow"], base)
    assert one.frames.shape == (9, 48, 48, 3) and one.noises == (0,)
    source, clips = transfer_live.all_seen(one, {"base": one.frames[None]}, 0)
    assert np.isnan(source.way).all() and np.isnan(clips["base"].score)
    for texts, says in (([], "Nothing was asked"), (["a red zebra runs to the left over the meadow"], "zebra")):
        with pytest.raises(MotionLabError, match=says):
            transfer_live.clip_of_yours(str(tmp_path / "mine.mp4"), "", texts, base)


def test_other_looks_are_of_the_grammar(root, tasks):
    base = open_pipe(frames=9)
    looks = transfer_live.other_looks(tasks[0].caption)
    base.text(looks)
    assert len(set(looks)) == 2 and tasks[0].caption not in looks and transfer_live.other_looks("somebody talks") == ["somebody talks"]


# ---------------------------------------------------------------------------------------------- what is shipped
def test_adapters_of_a_sweep_as_one_file(root, tasks, tmp_path):
    arm = read_transfer_arm(ARM, COMMON)
    with pytest.raises(MotionLabError, match="transfer_dev/00 cannot be taken"):
        transfer_adapters.write_adapters(arm, tasks, 0, tmp_path, tmp_path / "a" / "cure.safetensors")
    pipes = [transfer.adapted(arm, task, 0, tmp_path) for task in tasks]
    found = transfer_adapters.read_adapters(transfer_adapters.write_adapters(arm, tasks, 0, tmp_path, tmp_path / "a" / "cure.safetensors"))
    assert found.method == arm.method and found.sampling.keep == 1 and found.tasks == ("transfer_dev/00", "transfer_dev/01")
    base = transfer.base_of(arm)
    opened = transfer_adapters.tuned_pipes(tasks, base, found.path, METHOD, tmp_path)
    for (task, pipe), own, asked in zip(opened, pipes, tasks):
        assert task is asked and all(torch.equal(a, b) for a, b in zip(kernels(pipe), kernels(own)))
    with pytest.raises(MotionLabError, match="holds no adapter of 'transfer_dev/02'.*Did you mean"):
        found.open("transfer_dev/02", base)
    with open(found.path, "ab") as file:
        file.write(b"x")
    with pytest.raises(MotionLabError, match="not the file that was written"):
        transfer_adapters.read_adapters(found.path)
    with pytest.raises(MotionLabError, match="trains nothing"):
        transfer_adapters.write_adapters(read_transfer_arm({"name": "base"}, COMMON), tasks, 0, tmp_path, tmp_path / "x.safetensors")


def test_without_a_shipped_file_adapters_are_tuned_where_steps_are_given(root, tasks, tmp_path):
    base = open_pipe(frames=9)
    with pytest.raises(MotionLabError, match="it is missing"):
        next(transfer_adapters.tuned_pipes(tasks, base, tmp_path / "none.safetensors", METHOD, tmp_path))
    task, pipe = next(transfer_adapters.tuned_pipes(tasks[:1], base, tmp_path / "none.safetensors", METHOD, tmp_path, steps=1))
    assert any(up.any() for up in kernels(pipe)) and (tmp_path / "transfer_dev_00").is_dir()


# ---------------------------------------------------------------------------------------------- what a step costs
def test_steps_are_timed_in_turn_and_their_bytes_counted(root, tasks):
    base = open_pipe(frames=9)
    one = transfer_live.clip_of_task(tasks[0], base)
    rows = pd.DataFrame(transfer_cost.step_rows({"lora": open_method("lora", rank=2), "det": METHOD}, base, one, repeats=2))
    assert list(rows["arm"]) == ["lora", "det"] * 2 and (rows["step_seconds"] > 0).all() and set(rows["item"]) == {"1", "2"}
    count = sum(p.numel() for branch in branches(attached(METHOD, base).denoiser).values() for p in branch.module.parameters())
    assert set(rows.loc[rows["arm"] == "det", "trained_bytes"]) == {4 * count}
