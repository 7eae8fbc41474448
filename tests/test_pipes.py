"""Every class of generator as a `Pipe`: its plain sampling is that of the stock diffusers pipeline, and the kit's tools take it."""
import inspect

import pytest
import torch
from snapshots import CLIP, SIZES, SNAPSHOTS, WIDTH, tokenizer

from motionlab.core.errors import MotionLabError
from motionlab.diffusion import interpolate, velocity
from motionlab.models.open import PIPELINES, open_pipe, pipe_class
from motionlab.models.pretrained.pictures import as_pictures

NAMES, PROMPTS, SEEDS, STEPS = tuple(SNAPSHOTS), ["a cat walks.", "a dog runs."], [3, 5], 4


@pytest.fixture(scope="module")
def opened(folders):
    made = {}

    def build(name):
        if name not in made:
            made[name] = open_pipe(str(folders(name)), *SIZES.get(name, CLIP), dtype=torch.float32)
        return made[name]

    return build


def pictures(pipe, n):
    """{first, last}: frames of 8 bits, as files have them."""
    g = torch.Generator().manual_seed(9)
    return {name: torch.randint(0, 256, (n, 3, *pipe.size), generator=g) / 127.5 - 1 for name in ("first", "last")}


def given(pipe, n):
    """The known frames that its usual mode needs."""
    return {name: value for name, value in pictures(pipe, n).items() if name in {"text": "", "first": "first", "first_last": "first last"}[pipe.modes[0]].split()}


def known_frames(pipe, n):
    return pipe.mode_inputs(pipe.modes[0], *(given(pipe, n).get(name) for name in ("first", "last")))


def stock(folder, pipe, k):
    """Video (f, 3, h, w) in [-1, 1] of the stock pipeline's own call on task k."""
    from diffusers import DiffusionPipeline

    theirs = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    encoder = getattr(theirs, "text_encoder", None)
    if type(theirs).__name__ == "I2VGenXLPipeline" and not hasattr(encoder, "text_model"):
        object.__setattr__(encoder, "text_model", encoder)         # transformers 5 has none, and the pipeline asks for it
    takes = inspect.signature(theirs.__call__).parameters
    frames = {name: as_pictures(value[k:k + 1])[0] for name, value in given(pipe, 2).items()}
    words = {"prompt": PROMPTS[k]} if "prompt" in takes else {}
    length = {"max_sequence_length": pipe.text_length} if "max_sequence_length" in takes else {}
    torch.manual_seed(SEEDS[k])                                    # what a pipeline draws without its generator
    out = theirs(**words, **length, **{{"first": "image", "last": "last_image"}[name]: value for name, value in frames.items()},
                 num_frames=pipe.frames, height=pipe.size[0], width=pipe.size[1], num_inference_steps=STEPS,
                 generator=torch.Generator().manual_seed(SEEDS[k]), output_type="pt").frames
    return 2 * (out[0] if torch.is_tensor(out) else torch.as_tensor(out[0])).float() - 1


@pytest.mark.parametrize("name", NAMES)
def test_plain_sampling_is_the_stock_pipelines_own_call(folders, opened, name):
    """Text, known frames, noise, guidance, timesteps, network, scheduler and decoder at once; two clips, a seed each, in one batch."""
    pipe = opened(name)
    ours = pipe.decode_video(pipe.sample(PROMPTS, SEEDS, steps=STEPS, **given(pipe, 2))).clamp(-1, 1)
    theirs = torch.stack([stock(folders(name), pipe, k) for k in range(2)])
    assert ours.shape == theirs.shape == (2, pipe.frames, 3, *pipe.size)
    assert theirs.std() > 0.02 and (theirs[0] - theirs[1]).abs().max() > 0.02
    assert (ours - theirs).abs().max() < 2e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_network_gives_the_velocity(opened, name, monkeypatch):
    """It sees the state of its own convention and says its own target: ours must come out."""
    pipe, t = opened(name), torch.tensor([0.2, 0.7])
    g = torch.Generator().manual_seed(1)
    x0, x1 = torch.randn(2, *pipe.shape, generator=g), torch.randn(2, *pipe.shape, generator=g)
    x_t = interpolate(x0, x1, t)
    said = pipe.border.native(velocity(x0, x1), x_t, t)

    def perfect(z, timestep, text, known):
        torch.testing.assert_close(z, pipe.border.state(x_t, t))
        torch.testing.assert_close(pipe.border.time(timestep.double()).float(), t, atol=1e-4, rtol=1e-4)
        return said

    monkeypatch.setattr(pipe, "native", perfect)
    torch.testing.assert_close(pipe(x_t, t, pipe.text(PROMPTS), known_frames(pipe, 2)), velocity(x0, x1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_video_survives_the_round_trip_in_shape_and_grids_run_from_noise_to_data(opened, name):
    pipe = opened(name)
    video = torch.rand(1, pipe.frames, 3, *pipe.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = pipe.encode_video(video)
    assert z.shape == (1, *pipe.shape) and pipe.decode_video(z).shape == video.shape
    for steps in (1, 4, 25):
        grid = pipe.grid(steps)
        assert len(grid) == steps + 1 and grid[0] == 0 and grid[-1] == 1 and (grid.diff() > 0).all()


def mochi_snapshot(folder):
    from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    transformer = MochiTransformer3DModel(patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16,
                                          in_channels=12, text_embed_dim=WIDTH, time_embed_dim=4)
    vae = AutoencoderKLMochi(latent_channels=12, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
                             layers_per_block=(1,) * 5)
    text = T5EncoderModel(T5Config(vocab_size=40, d_model=WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=4))
    MochiPipeline(FlowMatchEulerDiscreteScheduler(invert_sigmas=True), vae, text, tokenizer(), transformer).save_pretrained(folder)


def test_the_example_of_contributing_is_a_whole_class(tmp_path, monkeypatch):
    """It samples as its stock pipeline and trains, with a line in PIPELINES and no other."""
    import re
    import sys
    from pathlib import Path

    from motionlab.methods import open_method
    from motionlab.models import open as opening, size

    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n# lib/motionlab/models/pretrained/mochi.py\n(.*?)```", text, re.S)[1]
    (tmp_path / "mochi_of_contributing.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(opening.PIPELINES, "MochiPipeline", "mochi_of_contributing:MochiPipe")
    mochi_snapshot(tmp_path / "mochi")
    pipe = open_pipe(tmp_path / "mochi", 7, 32, 32, dtype=torch.float32)
    ours = pipe.decode_video(pipe.sample(PROMPTS, SEEDS, steps=STEPS)).clamp(-1, 1)
    theirs = torch.stack([stock(tmp_path / "mochi", pipe, k) for k in range(2)])
    assert theirs.std() > 0.02 and (theirs[0] - theirs[1]).abs().max() > 0.02 and (ours - theirs).abs().max() < 2e-3
    method, x = open_method("lora"), torch.zeros(1, *pipe.shape)
    method.attach(pipe)
    pipe(x, torch.tensor([0.5]), pipe.text([""])).square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in pipe.parameters() if p.requires_grad)
    with pytest.raises(MotionLabError, match="cannot be counted without memory"):                # its code asks for autocast, meta has none
        size.measure(str(tmp_path / "mochi"), 7, 32, 32, attach=method.attach_to)
    sys.modules.pop("mochi_of_contributing")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["lora", "videojam"])
def test_what_a_method_adds_is_counted_without_memory(folders, opened, name, method):
    from motionlab.methods import open_method
    from motionlab.models import size

    method, clip = open_method(method), SIZES.get(name, CLIP)
    if name in ("svd", "i2vgenxl") and method.name == "videojam":
        with pytest.raises(MotionLabError, match="none of the projections"):                   # it widens projections of patches
            size.measure(str(folders(name)), *clip, attach=method.attach_to)
        return
    pipe, before = open_pipe(folders(name), *clip, dtype=torch.float32), sum(p.numel() for p in opened(name).parameters())
    method.attach(pipe)
    counted = size.measure(str(folders(name)), *clip, attach=method.attach_to)
    assert counted.parameters == sum(p.numel() for p in pipe.parameters()) == before + counted.added and counted.added > 0
    assert counted.tokens == pipe.tokens and counted.flops > 0 and counted.pixels == clip


def test_every_pipeline_in_the_table_has_a_snapshot_here(folders):
    from motionlab.models.pretrained.files import read_json

    assert {read_json(folders(name) / "model_index.json")["_class_name"] for name in NAMES} == set(PIPELINES)
    assert all(pipe_class(folders(name)).pipeline_class in PIPELINES for name in NAMES)
