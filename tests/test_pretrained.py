"""Snapshots of Wan and CogVideoX at toy size against diffusers' own pipelines, and under the kit's own tools."""
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from snapshots import CHANNELS, WIDTH, cogvideox_snapshot, edit_json, wan_snapshot

from motionlab import taps
from motionlab.analyses.prompt_switch import switched
from motionlab.analyses.shuffle import changed_latents, shuffle_rows
from motionlab.diffusion import cfg, euler, gaussian, interpolate, time_grid, velocity
from motionlab.core.errors import MotionLabError
from motionlab.models.small.generate import generate
from motionlab.models.pretrained.pipe import SnapshotPipe
from motionlab.models.pretrained.snapshot import load_pretrained

KINDS = ("wan", "cogvideox-2b", "cogvideox-5b")
PROMPT, CLIP = "a cat walks.", (9, 32, 32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("snapshots")
    return {"wan": wan_snapshot(root / "wan"), "cogvideox-2b": cogvideox_snapshot(root / "2b"),
            "cogvideox-5b": cogvideox_snapshot(root / "5b", rotary=True)}


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: load_pretrained(folder, dtype=torch.float32, clip=CLIP) for name, folder in folders.items()}


@pytest.fixture
def copy(folders, tmp_path):
    """A snapshot of its own, to be damaged."""
    return lambda name: shutil.copytree(folders[name], tmp_path / name)


@pytest.fixture(params=KINDS)
def model(request, loaded):
    return loaded[request.param]


@pytest.fixture
def fresh(folders):
    """Loaded again, to be changed."""
    return lambda name, **options: load_pretrained(folders[name], **{"dtype": torch.float32, "clip": CLIP} | options)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def latents(b=1, f=3, seed=1):
    return gaussian((b, f, CHANNELS, 4, 4), rng(seed))


# --- against the pipelines

def pipeline(folder):
    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, x, steps, scale):
    """The pipeline's own video (b, f, 3, h, w) in [-1, 1] from the latents x in its layout."""
    f, h, w = CLIP
    out = pipe([PROMPT], num_frames=f, height=h, width=w, num_inference_steps=steps, guidance_scale=scale, latents=x,
               output_type="pt", max_sequence_length=512 if "Wan" in type(pipe).__name__ else 16)
    return 2 * out.frames - 1


@pytest.mark.parametrize("name", ["cogvideox-2b", "cogvideox-5b"])
def test_cogvideox_samples_what_its_pipeline_samples(folders, loaded, name):
    """Text, guidance, timesteps, positions, DDIM, decoder at once: an Euler step of ours is a DDIM step of theirs."""
    from diffusers import CogVideoXDDIMScheduler
    pipe = pipeline(folders[name])
    pipe.scheduler = CogVideoXDDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    theirs = run(pipe, gaussian((1, 3, CHANNELS, 4, 4), rng()), 4, 6.0)
    ours = loaded[name].sample([PROMPT], *CLIP, generator=rng(), steps=4, w=5.0)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_wan_samples_what_its_pipeline_samples(folders, loaded):
    from diffusers import FlowMatchEulerDiscreteScheduler
    pipe, wan = pipeline(folders["wan"]), loaded["wan"]
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    x0 = gaussian((1, 3, CHANNELS, 4, 4), rng())
    theirs = run(pipe, x0.transpose(1, 2), 4, 5.0)
    with torch.no_grad():
        ours = wan.decode(euler(wan.guided([PROMPT], 4.0), x0, 1 - pipe.scheduler.sigmas))
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_encoding_is_the_pipelines_arithmetic(model):
    """As in the pipelines' video-to-video forms, written out: the mode, then scaled."""
    video = gaussian((2, 9, 3, 32, 32), rng()).clamp(-1, 1)
    vae = model.codec.vae
    z = vae.encode(video.transpose(1, 2)).latent_dist.mode()
    if model.kind == "wan":
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
        z = (z - mean) * (1.0 / std)
    else:
        z = vae.config.scaling_factor * z
    ours = model.encode(video)
    assert ours.shape == (2, 3, CHANNELS, 4, 4)
    torch.testing.assert_close(ours, z.transpose(1, 2))


@pytest.mark.parametrize("frames", [1, 9, 17])
def test_lengths_survive_the_round_trip(model, frames):
    z = model.encode(torch.zeros(1, frames, 3, 32, 32))
    assert z.shape[1] == 1 + (frames - 1) // 4 and model.decode(z).shape == (1, frames, 3, 32, 32)


def test_text_is_what_the_pipeline_feeds(folders, loaded):
    for name, length in (("wan", 512), ("cogvideox-2b", 16)):
        pipe = pipeline(folders[name])
        theirs, _ = pipe.encode_prompt([PROMPT], do_classifier_free_guidance=False, max_sequence_length=length)
        torch.testing.assert_close(loaded[name].embed(PROMPT), theirs)
    words = loaded["wan"].embed(PROMPT).abs().sum(2)[0].gt(0)
    assert words[:5].all() and not words[20:].any()


# --- the border of conventions

def test_wans_velocity_is_minus_its_prediction_at_sigma(loaded):
    wan, x, t = loaded["wan"], latents(2), torch.tensor([0.2, 0.7])
    text = wan.embed([PROMPT, "a dog."])
    with torch.no_grad():
        theirs = wan.transformer(x.transpose(1, 2), 1000 * (1 - t), text, return_dict=False)[0]
        torch.testing.assert_close(wan.bind(text)(x, t), -theirs.transpose(1, 2))


def test_cogvideox_noises_and_aims_as_its_scheduler(folders, loaded):
    scheduler, model = pipeline(folders["cogvideox-2b"]).scheduler, loaded["cogvideox-2b"]
    timesteps, x0, x1 = torch.tensor([0, 37, 500, 999]), latents(4, seed=1), latents(4, seed=2)
    t, parts = model.backbone.border(None).time(timesteps), model.training_parts()
    torch.testing.assert_close(parts.state(interpolate(x0, x1, t), t), scheduler.add_noise(x1, x0, timesteps))
    torch.testing.assert_close(parts.target(x0, x1, t), scheduler.get_velocity(x1, x0, timesteps))


def test_a_perfect_network_gives_the_velocity(model, monkeypatch):
    """It sees the state of its own convention and says its own target: ours must come out."""
    x0, x1, t, parts = latents(2, seed=1), latents(2, seed=2), torch.tensor([0.1, 0.8]), model.training_parts()

    def perfect(x, timestep, text):
        torch.testing.assert_close(x, parts.state(interpolate(x0, x1, t), t))
        return parts.target(x0, x1, t)

    monkeypatch.setattr(model.backbone, "native", perfect)
    torch.testing.assert_close(model.bind(PROMPT)(interpolate(x0, x1, t), t), velocity(x0, x1))


def test_a_loss_in_its_own_convention_is_the_velocitys_up_to_a_factor_of_t(model):
    x0, x1, t = latents(2, seed=1), latents(2, seed=2), torch.tensor([0.3, 0.6])
    parts, text, x_t = model.training_parts(), model.embed([PROMPT, "a dog."]), interpolate(x0, x1, t)
    with torch.no_grad():
        own = parts.forward(parts.state(x_t, t), text, t) - parts.target(x0, x1, t)
        ours = model.bind(text)(x_t, t) - velocity(x0, x1)
    factor = 1.0 if model.kind == "wan" else 1 / (t ** 2 + (1 - t) ** 2)        # (alpha + sigma)^2, alpha + sigma = s
    torch.testing.assert_close(ours.square().flatten(1).sum(1), factor * own.square().flatten(1).sum(1))


def test_own_grids_run_from_noise_to_data(loaded):
    for model in loaded.values():
        for steps in (1, 4, 50):
            grid = model.grid(steps)
            assert len(grid) == steps + 1 and grid[0] == 0 and grid[-1] == 1 and (grid.diff() > 0).all()
    assert torch.equal(loaded["wan"].grid(4), time_grid(4, 3.0))
    assert torch.equal(loaded["wan"].grid(4, 1.0), time_grid(4, 1.0))


def test_rotary_positions_are_the_pipelines_at_every_shape(folders, loaded):
    pipe = pipeline(folders["cogvideox-5b"])
    for f, h, w in ((3, 4, 4), (5, 6, 4), (1, 2, 8)):
        theirs = pipe._prepare_rotary_positional_embeddings(8 * h, 8 * w, f, torch.device("cpu"))
        torch.testing.assert_close(loaded["cogvideox-5b"].backbone._rotary(f, h, w, torch.device("cpu")), theirs)


# --- guidance and sampling

def test_guidance_is_cfg_in_one_batch(model, monkeypatch):
    x, t = latents(2), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        text, null = model.bind(PROMPT)(x, t), model.bind("")(x, t)
        calls, native = [], model.backbone.native
        monkeypatch.setattr(model.backbone, "native", lambda *a: calls.append(len(a[0])) or native(*a))
        torch.testing.assert_close(model.guided(PROMPT, 3.0)(x, t), cfg(text, null, 3.0))
        assert torch.equal(model.guided(PROMPT, 0)(x, t), text) and calls == [4, 2]
        torch.testing.assert_close(model.guided(PROMPT, 3.0, negative=PROMPT)(x, t), text)


def test_samples_are_finite_and_follow_the_generator(model):
    one, again, other = (model.sample([PROMPT], 9, 32, 48, rng(seed), steps=2, solver="heun", shift=2.0)
                         for seed in (0, 0, 1))
    assert one.shape == (1, 9, 3, 32, 48) and one.isfinite().all() and one.abs().max() <= 1
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_changes_little_and_keeps_the_state_exact(fresh, loaded, name):
    model, x, t = fresh(name, dtype=torch.bfloat16), latents(), torch.tensor([0.4])
    with torch.no_grad():
        u, exact = model.bind(PROMPT)(x, t), loaded[name].bind(PROMPT)(x, t)
    assert model.backbone.dtype == torch.bfloat16 and u.dtype == torch.float32
    assert model.encode(torch.zeros(1, 1, 3, 32, 32)).dtype == torch.float32
    assert (u - exact).norm() < 0.05 * exact.norm()
    if name == "wan":
        assert model.codec.vae.dtype == torch.float32
        assert model.transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32


# --- text states

def test_the_cache_stands_in_for_the_text_encoder(copy, tmp_path):
    folder, cache = copy("cogvideox-2b"), tmp_path / "cache"
    states = load_pretrained(folder, dtype=torch.float32, cache=cache).embed([PROMPT, ""])
    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / name)
    model = load_pretrained(folder, dtype=torch.float32, cache=cache)
    assert torch.equal(model.embed([PROMPT, ""]), states)
    with pytest.raises(MotionLabError, match="no text_encoder and no tokenizer, and the states of 'a dog.' are in no"):
        model.embed("a dog.")
    with torch.no_grad():
        assert model.bind(states[:1])(latents(), 0.5).isfinite().all()


def test_the_cache_knows_its_snapshot_and_survives_damage(copy, tmp_path):
    folder, cache = copy("cogvideox-2b"), tmp_path / "cache"
    states = load_pretrained(folder, dtype=torch.float32, cache=cache).embed(PROMPT)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(load_pretrained(folder, dtype=torch.float32, cache=cache).embed(PROMPT), states)
    other = cogvideox_snapshot(tmp_path / "other", seed=1)
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(other / "text_encoder", folder / "text_encoder")           # another encoder in the same snapshot
    assert not torch.equal(load_pretrained(folder, dtype=torch.float32, cache=cache).embed(PROMPT), states)


def test_the_text_encoder_comes_late_and_goes_when_told(fresh):
    prompts = fresh("wan").backbone.grammar
    assert prompts._encoder is None
    tokens = prompts.encode([PROMPT, "a dog.", PROMPT])
    assert prompts._encoder is not None and tokens.shape == (3, 1) and tokens[0] == tokens[2] != tokens[1]
    prompts.forget()
    assert prompts._encoder is None and prompts.states(tokens).shape == (3, 512, WIDTH)


def test_tokens_are_the_same_in_every_run_but_need_their_states(fresh):
    tokens = fresh("cogvideox-2b").backbone.grammar.encode([PROMPT])
    other = fresh("cogvideox-2b").backbone
    with pytest.raises(MotionLabError, match="1 prompts that were not encoded"):
        other.text(tokens)
    assert torch.equal(other.grammar.encode(PROMPT), tokens) and other.text(tokens).shape == (1, 16, WIDTH)


def test_words_stored_once_are_read(copy, loaded):
    """Wan's snapshot holds them as shared.weight only, and some versions of transformers 5 then read zeros."""
    folder = copy("wan")
    file = folder / "text_encoder" / "model.safetensors"
    state = load_file(file)
    state.pop("encoder.embed_tokens.weight", None)
    save_file(state, file, metadata={"format": "pt"})
    assert torch.equal(load_pretrained(folder, dtype=torch.float32).embed(PROMPT), loaded["wan"].embed(PROMPT))


def test_a_long_prompt_is_cut_with_a_warning(loaded):
    with pytest.warns(UserWarning, match="was cut to 16"):
        loaded["cogvideox-2b"].embed("a cat walks to the left and then to the right.")


# --- under the kit's tools

@pytest.mark.parametrize("name", KINDS)
def test_gradient_checkpointing_changes_no_gradient(fresh, name):
    model, x0, x1, t = fresh(name), latents(seed=1), latents(seed=2), torch.tensor([0.4])
    parts, text, grads = model.training_parts(), model.embed(PROMPT), []
    for checkpointed in (False, True):
        if checkpointed:
            model.transformer.enable_gradient_checkpointing()
        x_t = parts.state(interpolate(x0, x1, t), t)
        (parts.forward(x_t, text, t) - parts.target(x0, x1, t)).square().mean().backward()
        grads.append([p.grad.clone() for p in model.transformer.parameters()])
        model.transformer.zero_grad()
    assert any(g.abs().sum() > 0 for g in grads[0])
    torch.testing.assert_close(*grads)


def test_the_vae_and_the_text_encoder_are_frozen_and_outside_of_what_trains(model):
    model.embed(PROMPT)
    ours = {id(p) for p in model.transformer.parameters()}
    assert {id(p) for p in model.backbone.parameters()} == ours
    assert not any(p.requires_grad for p in model.codec.parameters())


def test_prompt_switch_goes_from_one_prompt_to_the_other(model):
    pipe, x, t = SnapshotPipe(model, *CLIP[:1], CLIP[1:]), latents(), torch.tensor([0.4])
    first, then = pipe.text([PROMPT]), pipe.text(["a dog."])
    with torch.no_grad():
        from_none, half, from_all = (switched(pipe, first, then, depth, 2.0)(x, t) for depth in (0, 1, 2))
        torch.testing.assert_close(from_none, model.guided("a dog.", 2.0)(x, t))
        torch.testing.assert_close(from_all, model.guided(PROMPT, 2.0)(x, t))
    assert not torch.allclose(half, from_none) and not torch.allclose(half, from_all)


def test_shuffled_frames_are_measured(model):
    video = gaussian((1, 9, 3, 32, 32), rng()).clamp(-1, 1)
    batch = {"items": ["clip"], "captions": [PROMPT],
             "latents": changed_latents(video, model.encode, rng(), ("original", "shuffled", "latents_reversed"))}
    rows = list(shuffle_rows(model.bind, [batch], readings=("linear",)))
    assert [row["arm"] for row in rows] == ["original", "shuffled", "latents_reversed"]
    assert rows[0]["loss"] == rows[0]["loss_original"] != rows[1]["loss"]


def test_the_kits_generator_and_taps_take_it(model):
    with taps.features(model.backbone, blocks=[1]) as seen:
        clip = generate(model.backbone, model.codec, [PROMPT], [0], length=3, steps=1, bf16=False)
    assert clip.shape == (1, *CLIP[:1], 3, *CLIP[1:]) and clip.isfinite().all() and len(seen) == 1


# --- mistakes

def refused(folder, message, **options):
    with pytest.raises(MotionLabError, match=message) as caught:
        load_pretrained(folder, **options)
    assert caught.value.fix


def test_what_is_no_snapshot_is_refused(tmp_path, copy):
    refused(tmp_path / "nowhere", "There is no folder")
    refused(tmp_path, "holds no model_index.json")
    folder = copy("wan")
    edit_json(folder / "model_index.json", _class_name="WanPipelin")
    refused(folder, "Unknown pipeline .* Did you mean 'WanPipeline'")
    edit_json(folder / "model_index.json", _class_name="WanPipeline", boundary_ratio=0.9)
    refused(folder, "is Wan 2.2")
    (folder / "model_index.json").write_text("{")
    refused(folder, "model_index.json' cannot be read")


@pytest.mark.parametrize("name", ["wan", "cogvideox-2b"])
def test_missing_components_are_named_when_they_are_needed(copy, name):
    folder = copy(name)
    shutil.rmtree(folder / "vae")
    model = load_pretrained(folder, dtype=torch.float32)
    with pytest.raises(MotionLabError, match="has no vae"):
        model.decode(latents())
    shutil.rmtree(folder / "text_encoder")
    model = load_pretrained(folder, dtype=torch.float32)
    with pytest.raises(MotionLabError, match="has no text_encoder, and the states of 'a cat walks.'"):
        model.bind(PROMPT)
    shutil.rmtree(folder / "transformer")
    refused(folder, "has scheduler, tokenizer, but no transformer")


def test_cogvideox_needs_its_scheduler(copy):
    folder = copy("cogvideox-2b")
    edit_json(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    refused(folder, "prediction type")
    shutil.rmtree(folder / "scheduler")
    refused(folder, "has no scheduler, which holds the noise levels")


def test_damaged_weights_are_refused(copy):
    folder = copy("cogvideox-2b")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    whole, state = file.read_bytes(), load_file(file)
    file.write_bytes(whole[:-1])
    refused(folder, "is truncated")
    save_file({k: v for k, v in state.items() if k != "proj_out.bias"}, file, metadata={"format": "pt"})
    refused(folder, "lacks the weights of 1 tensors, the first is 'proj_out.bias'")
    save_file(state | {"proj_out.bias": torch.zeros(3)}, file, metadata={"format": "pt"})
    refused(folder, "does not load as CogVideoXTransformer3DModel")
    file.rename(file.with_suffix(".bin"))
    refused(folder, "holds no safetensors weights")
    (folder / "transformer" / "config.json").unlink()
    refused(folder, "holds no config.json")


def test_shards_are_read_and_missed(copy, loaded):
    folder = copy("cogvideox-2b")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    loaded["cogvideox-2b"].transformer.save_pretrained(folder / "transformer", max_shard_size="60KB")
    shards = sorted((folder / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    same = load_pretrained(folder, dtype=torch.float32).transformer.state_dict()
    assert all(torch.equal(v, same[k]) for k, v in loaded["cogvideox-2b"].transformer.state_dict().items())
    shards[0].unlink()
    refused(folder, f"lacks {shards[0].name}")


@pytest.mark.parametrize("values, message", [
    ({"patch_size_t": 2}, "patches of another form"), ({"in_channels": 2 * CHANNELS}, "an image-to-video model"),
])
def test_other_transformers_are_refused(copy, values, message):
    from diffusers import CogVideoXTransformer3DModel
    folder = copy("cogvideox-2b")
    config = CogVideoXTransformer3DModel.load_config(str(folder / "transformer"))
    CogVideoXTransformer3DModel.from_config(config | values).save_pretrained(folder / "transformer")
    refused(folder, message)


def test_words_that_need_sentencepiece_are_told(copy, monkeypatch):
    folder = copy("cogvideox-2b")
    (folder / "tokenizer" / "tokenizer.json").rename(folder / "tokenizer" / "spiece.model")
    monkeypatch.setattr("transformers.utils.is_sentencepiece_available", lambda: False)
    with pytest.raises(MotionLabError, match="which the package sentencepiece reads"):
        load_pretrained(folder, dtype=torch.float32).embed(PROMPT)


def test_sizes_that_do_not_fit_are_refused(loaded, folders):
    wan, cogvideox = loaded["wan"], loaded["cogvideox-2b"]
    assert wan.size() == (81, 480, 832) and cogvideox.size() == (9, 32, 32)
    for model, frames, message in ((wan, 12, "1 \\+ 4k"), (cogvideox, 13, "1 \\+ 8k"), (wan, 0, "1 \\+ 4k")):
        with pytest.raises(MotionLabError, match=message):
            model.sample([PROMPT], frames, 32, 32, rng(), steps=1)
    assert wan.codec.latent_frames(13) == 4
    with pytest.raises(MotionLabError, match="multiples of 16"):
        wan.encode(torch.zeros(1, 1, 3, 24, 32))
    with pytest.raises(MotionLabError, match="takes video"):
        wan.encode(torch.zeros(1, 3, 1, 32, 32))
    with pytest.raises(MotionLabError, match="1 \\+ 8k"):
        cogvideox.decode(latents(f=2))
    with pytest.raises(MotionLabError, match="decodes latents"):
        wan.decode(torch.zeros(1, 3, 5, 4, 4))
    refused(folders["wan"], "1 \\+ 4k", clip=(8, 32, 32))


def test_arguments_that_do_not_fit_are_refused(loaded, folders):
    wan, t = loaded["wan"], torch.tensor([0.5])
    with pytest.raises(MotionLabError, match="text states of shape"):
        wan.bind(torch.zeros(2, 512, WIDTH))(latents(3), t)
    with pytest.raises(MotionLabError, match="Latents of shape"):
        wan.bind(PROMPT)(torch.zeros(1, 3, 5, 4, 4), t)
    with pytest.raises(MotionLabError, match="no known frames"):
        wan.backbone(latents(), t, wan.embed(PROMPT), latents())
    with pytest.raises(MotionLabError, match="Unknown solver"):
        wan.sample([PROMPT], *CLIP, generator=rng(), solver="eulr")
    refused(folders["wan"], "Unknown dtype", dtype=torch.float16)
