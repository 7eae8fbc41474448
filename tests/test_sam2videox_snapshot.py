"""The paper's own form at toy size: a tracker of SAM2's classes teaches an image-to-video CogVideoX through both presets; filters of clips."""
import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from motionlab import cli
from motionlab.core.errors import MotionLabError
from motionlab.data import filtering
from motionlab.data.filtering import agreement, box_motion, detected_boxes, judged_clips, kept
from motionlab.data.seen import Seen
from motionlab.data.sources import Folder, Some
from motionlab.teachers.sam2_build import Sam2Config, build_sam2
from motionlab.teachers.sam2_files import write_small
from motionlab.video import write_mp4
from snapshots import cogvideox_snapshot
from videos import moving_texture

FPS = 8
PRESETS = Path(__file__).resolve().parents[1] / "reproductions" / "sam2videox" / "presets"
TINY = Sam2Config(image_size=64, embed_dim=16, heads=1, stages=(1, 1, 1, 1), global_blocks=(), windows=(8, 4, 2, 1), positions=2, d_model=128,
                  memory_layers=1, memory_ff=32)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a snapshot, weights of a tiny SAM2, three videos with captions and boxes of their subjects."""
    home = tmp_path_factory.mktemp("paper")
    cogvideox_snapshot(home / "i2v", image=True, rotary=True)
    (home / "videos").mkdir()
    write_small(home / "sam2.safetensors", build_sam2(TINY, 0), TINY)
    for name, step in (("left", (-3, 0)), ("right", (2, 1)), ("still", (0, 0))):
        write_mp4(home / "videos" / f"{name}.mp4", moving_texture(12, 48, 64, step), FPS)
    rows = [f"{name}.mp4,a cat walks." for name in ("left", "right", "still")]
    (home / "videos" / "captions.csv").write_text("\n".join(["file,caption", *rows]))
    (home / "boxes.csv").write_text("\n".join(["file,x0,y0,x1,y1", *(f"{name}.mp4,10,10,40,36" for name in ("left", "right", "still"))]))
    return home


def preset(place, letter, **changes):
    """A preset at the snapshot's size: every other value is as it is committed."""
    values = yaml.safe_load((PRESETS / f"cogvideox-5b-i2v-{letter}.yaml").read_text(encoding="utf-8"))
    values |= {"frames": 9, "height": 32, "width": 32, "fps": FPS, "filtered": False, "steps": 2, "batch_size": 2, "rank": 2, "block": 1, "radius": 1,
               "out": 16, "grid": [4, 4], "cpu": True, "bf16": False, "checkpoint": str(place / "sam2.safetensors"), "boxes": str(place / "boxes.csv")}
    path = place / f"{letter}.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return str(path)


def train(place, tmp_path, config, method="sam2videox"):
    out = tmp_path / "run"
    code = cli.main(["train", method, "--backbone", str(place / "i2v"), "--videos", str(place / "videos"), "--out", str(out), "--config", config])
    assert code == 0
    return out


@pytest.mark.parametrize("letter", ["f", "l"])
def test_presets_train_an_adapter_that_stock_diffusers_loads(place, tmp_path, letter, capsys):
    from diffusers import DiffusionPipeline

    out = train(place, tmp_path, preset(place, letter))
    stored = load_file(out / "sam2videox.safetensors")
    assert stored and all("lora_" in name for name in stored) and all(value.isfinite().all() for value in stored.values())
    assert any(value.abs().max() > 0 for name, value in stored.items() if "lora_B" in name)
    target, = (path for path in (out / "clips").rglob("0000.npy") if path.parent.name.startswith("correlation"))
    maps = np.load(target)
    assert maps.shape == (3, 2, 8, 100) and maps.dtype == np.float16 and np.isfinite(maps).all(-1).any()      # 8 pairs, 4 x 4 places, 3 x 3
    checkpoint, = (out / "checkpoints").glob("step_00000002")
    assert any(".heads." in name for name in load_file(checkpoint / "model.safetensors"))
    (tmp_path / "lora").mkdir()
    (out / "sam2videox.safetensors").rename(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    DiffusionPipeline.from_pretrained(str(place / "i2v")).load_lora_weights(str(tmp_path / "lora"))


def test_masks_are_a_rival_on_the_same_clips(place, tmp_path):
    config = place / "mask.yaml"
    values = yaml.safe_load(Path(preset(place, "f")).read_text())
    own = {"projector", "grid", "out", "radius", "loss_of", "fusion", "alpha", "tau"}
    config.write_text(yaml.safe_dump({name: value for name, value in values.items() if name not in own} | {"weight": 0.5}))
    assert all(value.isfinite().all() for value in load_file(train(place, tmp_path, str(config), "mask") / "mask.safetensors").values())


def test_size_says_hours_and_bytes(place, capsys):
    assert cli.main(["size", "sam2videox", "--backbone", str(place / "i2v"), "--config", preset(place, "f", steps=100), "--tflops", "1"]) == 0
    said = capsys.readouterr().out
    assert "added by the method" in said and "100 steps: " in said and "per clip: correlation of its teacher" in said
    assert cli.main(["size", "plain", "--backbone", str(place / "i2v"), "--frames", "9", "--tflops", "1"]) == 0
    flops = [float(line.split()[0]) for text in (said, capsys.readouterr().out) for line in text.splitlines() if "TFLOP;" in line]
    assert flops[0] > flops[1] / 2 and "per clip" not in flops


def test_bad_input_is_told_before_anything_long(place, tmp_path, capsys):
    def fails(config, says):
        out = tmp_path / says.replace(" ", "")
        assert cli.main(["train", "sam2videox", "--backbone", str(place / "i2v"), "--videos", str(place / "videos"), "--out", str(out), "--config", config])
        assert says in capsys.readouterr().err and not (out / "checkpoints").exists()

    fails(preset(place, "f", block=3), "has 2")
    fails(preset(place, "f", boxes=""), "given no boxes")
    fails(preset(place, "f", filtered=True, boxes="nothing.csv"), "no table of boxes 'nothing.csv'")
    fails(preset(place, "f", checkpoint=str(place / "none.pt")), "none.pt")
    fails(preset(place, "f", radius=2), "window of 5 places is larger")
    outside = place / "outside.csv"
    outside.write_text("file,x0,y0,x1,y1\nleft.mp4,90,90,99,99\nright.mp4,1,1,9,9\nstill.mp4,1,1,9,9\n")
    fails(preset(place, "f", boxes=str(outside)), "lies outside the clip")


# ---------------------------------------------------------------------------------------------- filters
def test_clips_are_dropped_for_a_reason_that_is_listed(place, tmp_path, monkeypatch):
    """Masks as a tracker would give them: of `left` both passes agree and it moves, of `right` they part, `still` stays."""
    calls = []

    def look(teacher, pictures, subjects, checkpoint, detector):
        calls.append(1)
        t, step = pictures.shape[1], {1: 2, 2: 2, 3: 0}[len(calls)]
        masks = np.zeros((1, t, 32, 32), bool)
        for k in range(t):
            masks[0, k, 8:20, 4 + step * k:14 + step * k] = True
        back = masks.copy() if len(calls) != 2 else np.roll(masks, 8, -2)
        return Seen(torch.zeros(1), None, torch.zeros(1), torch.ones(1, dtype=torch.bool), *map(torch.from_numpy, (masks, back)))

    monkeypatch.setattr(filtering, "look", look)
    source, said = Folder(place / "videos", 9, (32, 32), FPS), []
    found = judged_clips(source, str(place / "boxes.csv"), path=tmp_path / "filtered.csv", say=said.append)
    assert kept(found) == (0,) and "both passes agree by 0.2" in found[1].dropped and "moves by 0.0 %" in found[2].dropped and len(said) == 2
    with open(tmp_path / "filtered.csv", encoding="utf-8", newline="") as file:
        assert [row["dropped"] == "" for row in csv.DictReader(file)] == [True, False, False]
    assert judged_clips(source, str(place / "boxes.csv"), path=tmp_path / "filtered.csv", say=said.append) == found and len(calls) == 3
    some = Some(source, kept(found))
    assert len(some) == 1 and some.captions == ["a cat walks."] and some.hash() != source.hash() and np.array_equal(some.clip(0).frames, source.clip(0).frames)
    (place / "two.csv").write_text("file,x0,y0,x1,y1\n" + 2 * "left.mp4,10,10,40,36\n")
    with pytest.raises(MotionLabError, match=r"none is fit to be followed; the first: left.mp4 \(2 boxes"):
        judged_clips(source, str(place / "two.csv"), say=said.append)


def test_what_the_filters_measure():
    masks = np.zeros((3, 20, 20), bool)
    for k in range(3):
        masks[k, 4:8, 4 + 3 * k:8 + 3 * k] = True
    assert agreement(masks, masks) == 1 and agreement(masks, np.roll(masks, 2, 1)) == pytest.approx(1 / 3) and agreement(0 > masks, 0 > masks) == 0
    assert box_motion(masks) == pytest.approx(4.5 / np.hypot(20, 20)) and box_motion(masks[:1]) == 0


def test_boxes_may_come_from_a_detector_and_lie_on_the_video_itself(place, tmp_path, monkeypatch):
    from motionlab.data.seen import boxed
    from motionlab.teachers.prompts import Prompt

    asked = []

    def load_detector(folder, words, device):
        asked.append((folder, words))
        return lambda picture: Prompt(box=(4, 6, 20, 24)) if len(asked) == 1 else None

    monkeypatch.setattr("motionlab.data.filtering.load_detector", load_detector)
    source = Folder(place / "videos", 9, (32, 32), FPS)                             # of 48 x 64: its middle 48 x 48
    path = detected_boxes(source, "dino", tmp_path / "boxes.csv")
    assert detected_boxes(source, "dino", path) == path and len(asked) == 1 and path.read_text().splitlines()[1] == "left.mp4,14.2,9.2,38.2,36.2"
    expected = np.zeros((32, 32), bool)
    expected[6:25, 4:21] = True
    assert np.array_equal(boxed(source, 0, (32, 32), str(path)), expected)


def test_a_clip_with_a_cut_is_dropped(place, tmp_path):
    home = tmp_path / "cut"
    home.mkdir()
    frames = np.concatenate([moving_texture(6, 48, 64, (1, 0)), 255 - moving_texture(6, 48, 64, (0, 1))])
    write_mp4(home / "cut.mp4", frames, FPS)
    (home / "cut.txt").write_text("a cat walks.")
    (home / "boxes.csv").write_text("file,x0,y0,x1,y1\ncut.mp4,10,10,40,36\n")
    with pytest.warns(UserWarning, match="cut"), pytest.raises(MotionLabError, match="cut.mp4 .a cut at frame 6"):
        judged_clips(Folder(home, 12, (32, 32), FPS), str(home / "boxes.csv"))
