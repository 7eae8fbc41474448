"""Every drafted arm on a tiny SAM2 of the real classes: its target is made and said, all sidecars of a sweep in one look at each clip."""
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from motionlab.data import correlations
from motionlab.experiments import matches
from motionlab.experiments.arms import read_arm
from motionlab.experiments.rows import run_row, smaller
from motionlab.experiments.teaching import make_sidecars
from motionlab.teachers.sam2_build import Sam2Config, build_sam2
from motionlab.teachers.sam2_files import write_small
from tiny_repository import root, spot  # noqa: F401

pytestmark = pytest.mark.skipif(find_spec("sam2") is None, reason="sam2 is not installed")     # importing it would set Hydra up
DRAFT = yaml.safe_load((Path(__file__).resolve().parents[1] / "reproductions/sam2videox/pilots/ablations.yaml").read_text(encoding="utf-8"))
TAUGHT = {arm["name"]: arm for arm in DRAFT["arms"] if arm.get("method") in ("sam2videox", "repa")}
SAME = ("_seeds", "_first", "_features", "_loss")                                  # of a training that another arm has
OPTIONS = {"prompts": "examples", "n": 2, "length": 3, "steps": 2}
TINY = Sam2Config(image_size=64, embed_dim=16, heads=1, stages=(1, 1, 1, 1), global_blocks=(), windows=(8, 4, 2, 1), positions=2, d_model=128,
                  memory_layers=1, memory_ff=32)


@pytest.fixture(scope="module")
def taught(root):
    """The tiny repository with a tiny SAM2 beside its checkpoints."""
    write_small(root / "reproductions" / "testbed" / "checkpoints" / "sam2.safetensors", build_sam2(TINY, 0), TINY)
    return root


def arm_of(name, **more):
    """A drafted arm with a number for its rate, at toy size; heads as wide as the tiny teacher."""
    arm = {k: v for k, v in TAUGHT[name].items() if k not in ("seeds", "weights")}
    train = {k: 1e-3 if str(v).startswith("chosen") else v for k, v in arm.get("train", {}).items()}
    train |= {"head_steps": 2, "out": {"repa": 16}.get(arm["method"], 128)}
    return arm | {"train": train, "measure": {"length": 3, **more}}


@pytest.mark.parametrize("name", [name for name in TAUGHT if not name.endswith(SAME) and not name.startswith("lora")])
def test_the_target_of_every_drafted_arm_is_made_and_measured(name, taught, tmp_path):
    arm = smaller(read_arm(arm_of(name, of="targets"), {"prompts": "examples", "n": 2}))
    rows = matches.target_rows(arm, 0, tmp_path)
    assert len(rows) == 2 and all(0 <= r["border"] <= 1 and r["kl"] >= -1e-3 for r in rows if not math.isnan(r["kl"]))
    assert any(not math.isnan(r["entropy"]) for r in rows)


def test_one_arm_of_the_tracker_end_to_end(taught, tmp_path):
    rows = run_row(arm_of("full"), 0, spot(tmp_path), "smoke", **OPTIONS | {"length": 3})
    assert len(rows) == 2 and {"structure_0", "m1", "edge"} <= set(rows[0])


def test_all_sidecars_of_a_sweep_are_made_in_one_look(taught, tmp_path, monkeypatch):
    looks, kept = [], correlations.look
    monkeypatch.setattr(correlations, "look", lambda teacher, *args: (looks.append(teacher), kept(teacher, *args))[1])
    names = ("full", "fwd_only", "feature", "feat_cos", "lgf_l2", "reversed")
    arms = [smaller(read_arm(arm_of(name), {k: v for k, v in OPTIONS.items() if k != "length"})) for name in names]
    made = make_sidecars(arms, tmp_path, say=lambda text: None)
    tuning, dev = (made[name] for name in sorted(made, key=lambda bank: not bank.startswith("fine_tuning")))
    assert len(tuning) == 4 and len([label for label in tuning if label.startswith("correlation")]) == 3 and len(dev) == 5
    assert len(looks) == 2                                                   # one part of clips in each bank, looked at once for all
    folder, = tmp_path.glob("fine_tuning_*")
    both, = (path for path in folder.glob("correlation_*") if "how" not in path.name)
    maps = torch.from_numpy(np.load(both / "0000.npy"))
    assert maps.shape[1:] == (2, 2, 72 ** 2) and maps.isfinite().any()
    make_sidecars(arms, tmp_path, say=lambda text: None)
    assert len(looks) == 2


def test_a_teacher_is_known_by_its_content_whether_file_or_folder(taught, tmp_path):
    from motionlab.core.errors import MotionLabError
    from motionlab.data.seen import identity

    (tmp_path / "dino").mkdir()
    (tmp_path / "dino" / "config.json").write_text("{}")
    first = identity("image", str(tmp_path / "dino"))
    (tmp_path / "dino" / "config.json").write_text("[]")
    assert first != identity("image", str(tmp_path / "dino")) and first["teacher"].startswith("image ")
    shipped = identity("sam2")
    assert shipped == identity("sam2", str(taught / "reproductions/testbed/checkpoints/sam2.safetensors")) and identity("patches") == {"teacher": "patches"}
    with pytest.raises(MotionLabError, match="There is nothing at"):
        identity("sam2", str(tmp_path / "none.pt"))
