"""What `motionlab size` counts, against the real small model, arithmetic on paper, and a process's memory."""
from __future__ import annotations

import json

import psutil
import pytest
import torch

from motionlab import cli
from motionlab.core.errors import MotionLabError
from motionlab.models import size as S
from motionlab.models import counting
from motionlab.models.small.backbone import Backbone


@pytest.fixture(scope="module")
def small():
    return S.measure("small")


def test_parameters_are_those_of_the_real_small_model(small):
    model = Backbone()
    assert small.parameters == sum(p.numel() for p in model.parameters())
    weights = sum(p.numel() * p.element_size() for p in model.to(torch.bfloat16).parameters())
    assert small.fixed == {"weights": weights, "gradients": weights, "optimiser": 4 * weights}
    assert small.latents == (5, 12, 12) and small.tokens == 720


def test_flops_of_the_small_model_agree_with_paper_and_pencil(small):
    """Products forward once, backward twice; attention 4 N^2 d forward, 10 N^2 d backward (scores again)."""
    d, layers, video, text, d_text, channels = 192, 8, 720, 32, 128, 24
    n = video + text
    block = 2 * n * 12 * d * d                                 # q, k, v, out: 4 d^2; feed-forward: 8 d^2
    ends = 2 * video * d * (2 * channels + 1 + channels) + 2 * text * d_text * d
    paper = layers * (3 * block + 14 * n * n * d) + 3 * ends
    assert small.flops == pytest.approx(paper, rel=0.02)
    again = layers * (block + 4 * n * n * d)                   # checkpointing runs every block forward once more
    assert small.flops_checkpointed - small.flops == pytest.approx(again, rel=0.02)


def test_counts_grow_with_the_batch_and_the_square_of_the_tokens(small):
    two = S.measure("small", batch=2)
    assert two.flops == pytest.approx(2 * small.flops, rel=1e-3) and two.parameters == small.parameters
    assert two.activations == pytest.approx(2 * small.activations, rel=1e-2)
    assert small.activations_checkpointed < small.activations / 3


def test_kept_bytes_are_counted_once():
    """x (5, 8) for the first weight's gradient, (5, 16) for GELU's, (5, 16) for the second weight's; fp32."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))
    kept, x = counting._Kept(model), torch.zeros(5, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        model(x)
    assert kept.total == {False: 4 * 5 * (8 + 16 + 16), True: 0}


def test_activations_are_those_that_the_real_model_keeps(small, monkeypatch):
    """The same count on the CPU, where tensors are real; with its fused attention kernel, as an accelerator has it."""
    monkeypatch.setattr("motionlab.models.small.attention._plain", lambda kwargs: False)
    model, _, inputs, _ = S._built("small", 17, 48, 48, 1)
    kept = counting._Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        model(**inputs)
    assert small.activations == pytest.approx(sum(kept.total.values()), rel=0.05)


@pytest.mark.parametrize("name, published", [("wan-1.3b", 1.42e9), ("cogvideox-2b", 1.69e9)])
def test_full_size_is_built_without_memory(small, name, published):         # `small`: so that all imports are done
    before = psutil.Process().memory_info().rss
    with torch.device("meta"):
        model, blocks, _, about = S._built(name, 17, None, None, 1)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == pytest.approx(published, rel=0.01) and len(blocks) == 30
    assert about["tokens"] == 5 * 30 * {"wan-1.3b": 52, "cogvideox-2b": 45}[name]
    assert psutil.Process().memory_info().rss - before < 500 * 2**20 < 2 * parameters


@pytest.mark.parametrize("name, layers", [("wan-1.3b", 1), ("cogvideox-2b", 2)])
def test_a_folder_with_a_config_is_counted(tmp_path, name, layers):
    """Its FLOPs at few layers, again against paper and pencil; Wan has cross-attention to its 512 text tokens."""
    about = S.FULL_SIZE[name]
    config = {"_class_name": about.kind, "_diffusers_version": "0.42.1", **about.arguments, "num_layers": layers}
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text(json.dumps(config))
    size = S.measure(str(tmp_path), frames=5, height=160, width=160)
    video = size.tokens
    assert video == 200
    if name == "wan-1.3b":
        d, text, ff = 1536, 512, 8960
        block = 2 * d * (video * (4 * d + 2 * d + 2 * ff) + text * 2 * d) + 4 * d * video * (video + text) * 14 / 12
        first, other = 2 * d * (video * 64 + text * 4096 + 256), 2 * d * (video * 64 + text * d + d + 6 * d)
    else:
        d, text = 1920, 226
        n = video + text
        block = 2 * n * 12 * d * d + 4 * d * n * n * 14 / 12 + 2 * 512 * 12 * d
        first, other = 2 * d * (video * 64 + text * 4096 + 512), 2 * (video * d * 64 + 512 * 512 + 512 * 2 * d)
    assert size.flops == pytest.approx(3 * (layers * block + other) + 2 * first, rel=0.005)   # inputs need no gradient


def test_a_foreign_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "WanTransformr3DModel"}')
    with pytest.raises(MotionLabError, match="Did you mean 'WanTransformer3DModel'"):
        S.measure(str(tmp_path))


@pytest.mark.parametrize("words, says", [
    (["--backbone", "wan-13b"], "Unknown backbone 'wan-13b'. Did you mean 'wan-1.3b'?"),
    (["--backbone", "small", "--frames", "16"], "lengths are 1 + 4k"),
    (["--backbone", "wan-1.3b", "--height", "100"], "multiples of 16"),
    (["--backbone", "small", "--tflops", "0"], "more than 0"),
    (["--backbone", "small", "--batch", "0"], "more than 0")])
def test_mistakes_are_told(words, says, capsys):
    assert cli.main(["size", *words]) == 2
    assert says in capsys.readouterr().err


def test_the_command_tells_time_from_a_given_speed(small, capsys):
    assert cli.main(["size", "--backbone", "small", "--tflops", "0.5"]) == 0
    said = capsys.readouterr().out
    assert f"{small.flops / 0.5e12:.3g} s at 0.5 TFLOP/s (given)" in said and "7.3 M parameters" in said


def test_steps_are_timed_with_and_without_checkpointing():
    """What a GPU runs at full size, here with the small model; checkpointing must not change the gradients."""
    model, _, inputs, _ = S._built("small", 5, 16, 16, 1)
    assert S.time_steps(model, inputs, False, 1) > 0
    assert all(p.grad is None for p in model.parameters())
    assert S.time_steps(model, inputs, True, 1) > 0 and model.transformer.gradient_checkpointing
