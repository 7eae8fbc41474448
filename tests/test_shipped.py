"""The checkpoints that lie in the repository: whole, small enough, with their cards, and fit for what they are for."""
import subprocess
from pathlib import Path

import numpy as np
import pytest

from motionlab.experiments.instruments import through
from motionlab.flow_rgb import WORLD_SIGMA, flow_video
from motionlab.metrics.reconstruction import flow_picture_error, psnr
from motionlab.models.small.codec import load_codec
from motionlab.models.shipped import HOME, shipped
from motionlab.world import random_scene, render

ROOT = Path(__file__).resolve().parents[1]
LISTED = subprocess.run(["git", "ls-files", str(HOME)], cwd=ROOT, capture_output=True, text=True).stdout.split()
FILES = [ROOT / name for name in LISTED if name.endswith(".safetensors")]
CLIPS = [render(random_scene(seed), frames=17) for seed in (11, 12, 13, 14)]


def test_all_checkpoints_together_are_small_and_each_has_a_card():
    assert FILES and sum(path.stat().st_size for path in FILES) <= 70e6      # 40 once the second base replaces the first
    for path in FILES:
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        assert "last loss" in card and "MB" in card


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_weights_are_finite_bf16(path):
    import torch
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            assert tensor.dtype == torch.bfloat16 and tensor.isfinite().all(), name


def test_the_codec_keeps_clips_and_flow_pictures():
    """The design's bar: end-point error of decode(encode(flow picture)) at most 20 % of the subject's speed."""
    codec = load_codec(shipped("codec"))
    assert np.mean([psnr(through(codec, clip.frames), clip) for clip in CLIPS]) > 27
    errors = [flow_picture_error(through(codec, flow_video(clip.flow, WORLD_SIGMA)), clip)["relative"] for clip in CLIPS]
    assert np.mean(errors) <= 0.2


def test_the_evaluator_reads_real_clips():
    from motionlab.models.evaluator import load_evaluator

    read = load_evaluator(shipped("evaluator_0")).read(np.stack([clip.frames for clip in CLIPS]))
    asked = [clip.attributes["actors"][0] for clip in CLIPS]
    assert [read["species"][i] == a["species"] for i, a in enumerate(asked)].count(True) == 4
    assert [read["motion"][i] == a["motion"] for i, a in enumerate(asked)].count(True) >= 3
