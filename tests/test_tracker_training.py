"""The stage that trains the small SAM2: what is asked of it, its loss, and that its parts run, resume and end in a file that both backends read."""
import importlib.util

import numpy as np
import pytest
import torch
import yaml

from motionlab.core.errors import MotionLabError
from motionlab.core.noise import SampleNoise
from motionlab.data.tracked import LIMBS
from motionlab.pretrain import stages, tracker
from motionlab.pretrain.tracker import TrackedData, TrackerRecipe, draw_asked, frame_loss
from motionlab.teachers.masks import load_tracker
from motionlab.teachers.prompts import Prompt
from motionlab.teachers.weights import load_state

needs_sam2 = pytest.mark.skipif(importlib.util.find_spec("sam2") is None, reason="the package sam2 is not installed")


class Bank:
    """Two clips of 9 frames of 32 pixels: a square of two limbs, moving by a pixel a frame; in the second clip with a second actor."""

    def __init__(self):
        self.labels = np.zeros((2, 9, 32, 32), np.uint8)
        for t in range(9):
            self.labels[:, t, 8:16, 4 + t:10 + t], self.labels[:, t, 8:16, 10 + t:14 + t] = 1, 3
            self.labels[1, t, 20:28, 4:20] = 1 + LIMBS
        self.frames = np.repeat(60 * (self.labels % 5)[..., None], 3, -1)

    def __len__(self):
        return 2


def drawn(recipe, step=0, clips=(0, 1)):
    batch = TrackedData(Bank(), recipe.length).batch(torch.tensor(clips))
    return draw_asked(recipe, batch["frames"], batch["labels"], SampleNoise(0, step, range(len(clips))))


# ------------------------------------------------------------------ what is asked
def test_objects_are_whole_actors_and_limbs_with_prompts_on_them():
    kinds, sizes = set(), set()
    for step in range(30):
        frames, target, kind, prompts = drawn(TrackerRecipe(length=4, objects=2, masks=0.3, strides=(1, 2)), step)
        assert frames.shape == (2, 4, 32, 32, 3) and target.shape == (2, 2, 4, 32, 32) and len(prompts) == 4
        kinds.add(kind)
        for one, prompt in zip(target[:, :, 0].flatten(0, 1), prompts):                       # clips of the first object first
            sizes.add(int(one.sum()))
            if kind == "points":
                x, y = prompt[0][0].astype(int)
                assert one[y, x] and prompt[1] == [1]
            elif kind == "mask":
                assert np.array_equal(prompt, one.numpy())
            else:
                rows, columns = np.nonzero(one.numpy())
                true = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
                assert (np.abs(np.array(prompt) - true) <= 0.1 * np.ptp([true[:2], true[2:]], 0)[[0, 1, 0, 1]] + 1e-5).all()
    assert kinds == {"box", "points", "mask"} and sizes == {48, 32, 80, 128}                  # two limbs, one actor whole, the other


def test_windows_have_a_batchs_stride_and_both_directions():
    seen = set()
    for step in range(20):
        _, target, _, _ = drawn(TrackerRecipe(length=4, limbs=0, strides=(1, 2, 4), soft=0), step, clips=(0,))
        seen.add((target.shape[2], int(np.diff([np.nonzero(t.numpy())[1].min() for t in target[0, 0]])[0])))
    assert seen == {(4, 1), (4, -1), (4, 2), (4, -2), (3, 4), (3, -4)}


def test_single_frames_are_no_clips_and_are_never_prompted_by_their_own_mask():
    data = TrackedData(Bank(), 1)
    assert len(data) == 18 and np.array_equal(data.batch(torch.tensor([11]))["labels"][0, 0], Bank().labels[1, 2])
    assert {drawn(TrackerRecipe(length=1, masks=0.5), step, (0, 3))[2] for step in range(20)} == {"box", "points"}


def test_some_samples_are_seen_softly():
    sharp, soft = (drawn(TrackerRecipe(length=1, soft=soft), 0, (0, 3))[0] for soft in (0.0, 1.0))
    assert sharp.dtype == soft.dtype == torch.uint8 and not torch.equal(sharp, soft) and (sharp.float().mean() - soft.float().mean()).abs() < 1


def test_recipes_that_make_no_sense_are_told():
    for wrong in ({"length": 0}, {"objects": 0}, {"boxes": 0.8, "masks": 0.4}, {"soft": 2.0}, {"strides": (0,)}):
        with pytest.raises(MotionLabError, match="cannot be trained"):
            TrackerRecipe(**wrong)
    with pytest.raises(MotionLabError, match="cannot show 12"):
        TrackedData(Bank(), 12)


# ------------------------------------------------------------------ the loss
def step_of(logits, iou, score):
    return {"multimasks": logits, "ious": torch.tensor(iou), "score": torch.tensor(score)}


def test_the_loss_is_that_of_the_best_guess():
    target = torch.zeros(1, 8, 8)
    target[:, 2:6, 2:6] = 1
    right, wrong = 40 * target - 20, 20 - 40 * target
    good = frame_loss(step_of(torch.stack([right, wrong], 1), [[1.0, 0.0]], [20.0]), target)
    assert good.item() < 1e-3
    lone = frame_loss(step_of(wrong[:, None], [[0.0]], [20.0]), target)
    assert lone > good + 50                                            # 20 focal of a sure mistake
    assert frame_loss(step_of(torch.stack([right, wrong], 1), [[0.5, 0.5]], [20.0]), target).item() == pytest.approx(0.5, abs=1e-3)


def test_out_of_view_only_the_score_counts():
    nothing, sure = torch.zeros(1, 8, 8), torch.full((1, 1, 8, 8), 9.0)
    assert frame_loss(step_of(sure, [[0.9]], [-20.0]), nothing).item() < 1e-6 and frame_loss(step_of(sure, [[0.9]], [3.0]), nothing).item() > 3


# ------------------------------------------------------------------ the stage
MODEL = {"image_size": 64, "embed_dim": 16, "heads": 1, "stages": [1, 1, 2, 1], "global_blocks": [3], "windows": [8, 4, 4, 2], "d_model": 128,
         "memory_layers": 1, "memory_ff": 32, "layer_scale": 0.1, "dropout": 0}
TRAIN = {"steps": 2, "batch_size": 2, "checkpoint_every": 1, "log_every": 1, "warmup": 1, "lr": 2e-3}
BANK = {"split": "teacher", "offset": 10000, "clips": 4, "frames": 5, "size": 32}
STAGE = {"sam2": {"held_out": BANK | {"split": "dev", "clips": 2}, "model": MODEL, "stages": [
    {"name": "frames", "bank": BANK, "recipe": {"length": 1, "objects": 2}, "training": TRAIN},
    {"name": "clips", "bank": BANK, "recipe": {"length": 3, "objects": 1, "strides": [1, 2]}, "training": TRAIN | {"sample_every": 2}}]}}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / stages.HOME).mkdir(parents=True)
    (root / stages.HOME / "pretrain.yaml").write_text(yaml.safe_dump(STAGE, sort_keys=False))
    return root


@needs_sam2
def test_the_stage_pauses_goes_on_and_ends_in_a_file_that_both_backends_read(home, tmp_path, capsys):
    made = stages.run_stage("sam2", home / "work", home)
    assert stages.run_stage("sam2", tmp_path, home, until=1) is None
    paused = stages.run_stage("sam2", tmp_path, home)
    one, other = (load_state(path) for path in (made, paused))
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
    log = (home / "work" / "sam2" / "clips" / "log.jsonl").read_text()
    assert "sample/iou_whole" in log and "sample/iou_limb" in log and "stage sam2, clips" in capsys.readouterr().out
    clip = (255 * np.random.default_rng(0).random((3, 32, 32, 3))).astype(np.uint8)
    both = [load_tracker(name, checkpoint=made).track([clip], [Prompt(box=(4, 4, 20, 20))])[0] for name in ("sam2", "sam2_transformers")]
    assert both[0].features.shape == (3, 128, 4, 4) and np.abs(both[0].features - both[1].features).mean() < 1e-4
    stages.publish(["sam2"], home / "work", home)
    place = home / stages.HOME
    assert (place / "checkpoints" / "sam2.md").is_file() and (place / "curves" / "sam2_clips.csv").is_file()


@needs_sam2
def test_it_learns_two_clips_by_heart(tmp_path):
    """The pilot at toy size: the loss of clips, memory and all, falls by a third in 30 steps."""
    from motionlab.core import config as configs
    from motionlab.teachers.sam2_build import Sam2Config
    from motionlab.training import TrainConfig, read_log

    model, recipe = configs.from_values(Sam2Config, MODEL, "model"), TrackerRecipe(length=3, limbs=0, boxes=1, masks=0, soft=0, strides=(1,))
    net = tracker.begin(model, 0)
    training = TrainConfig(steps=30, batch_size=2, lr=3e-3, warmup=4, log_every=5, checkpoint_every=0, ema=0.9)
    tracker.train_tracker(net, model, TrackedData(Bank(), 3), recipe, training, tmp_path)
    losses = [row["loss"] for row in read_log(tmp_path) if "loss" in row]
    assert losses[-1] < 0.67 * losses[0]
