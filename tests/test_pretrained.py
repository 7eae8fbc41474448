"""Snapshots under the kit's tools, and what is wrong with them: damaged files, missing parts, arguments that do not fit."""
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from snapshots import CHANNELS, CLIP, SIZES, SNAPSHOTS, WIDTH, cogvideox_snapshot, edit_json

from motionlab import taps
from motionlab.analyses.prompt_switch import switched
from motionlab.analyses.shuffle import changed_latents, shuffle_rows
from motionlab.core.errors import MotionLabError
from motionlab.diffusion import cfg, interpolate, velocity
from motionlab.models.open import open_pipe
from small import gaussian

KINDS, PROMPT = ("wan", "cogvideox-2b", "cogvideox-5b"), "a cat walks."
TRANSFORMERS = [name for name in SNAPSHOTS if name not in ("svd", "i2vgenxl")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each snapshot is built when a test first asks for it."""
    root, made = tmp_path_factory.mktemp("snapshots"), {}

    class Folders(dict):
        def __missing__(self, name):
            made[name] = self[name] = SNAPSHOTS[name](root / name)
            return self[name]

    return Folders()


def load(folder, name="", **options):
    return open_pipe(str(folder), *SIZES.get(name, CLIP), **{"dtype": torch.float32} | options)


@pytest.fixture(scope="module")
def loaded(folders):
    class Pipes(dict):
        def __missing__(self, name):
            self[name] = load(folders[name], name)
            return self[name]

    return Pipes()


@pytest.fixture
def copy(folders, tmp_path):
    """A snapshot of its own, to be damaged."""
    return lambda name: shutil.copytree(folders[name], tmp_path / name)


@pytest.fixture(params=KINDS)
def pipe(request, loaded):
    return loaded[request.param]


@pytest.fixture
def fresh(folders):
    """Loaded again, to be changed."""
    return lambda name, **options: load(folders[name], name, **options)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def latents(b=1, f=3, seed=1):
    return gaussian((b, f, CHANNELS, 4, 4), rng(seed))


def known_of(pipe, n=1):
    frames = torch.zeros(n, 3, *pipe.size)
    return pipe.mode_inputs(pipe.modes[0], frames, frames)


# ---------------------------------------------------------------------------------------------- what pipelines do
def test_encoding_is_the_pipelines_arithmetic(pipe):
    """As in the pipelines' video-to-video forms, written out: the mode, then scaled."""
    video, vae = gaussian((2, 9, 3, 32, 32), rng()).clamp(-1, 1), pipe.pipeline.vae
    z = vae.encode(video.transpose(1, 2)).latent_dist.mode()
    if pipe.kind == "wan":
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
        z = (z - mean) * (1.0 / std)
    else:
        z = vae.config.scaling_factor * z
    ours = pipe.encode_video(video)
    assert ours.shape == (2, 3, CHANNELS, 4, 4)
    torch.testing.assert_close(ours, z.transpose(1, 2))


def test_cogvideox_noises_and_aims_as_its_scheduler(loaded):
    pipe, timesteps, x0, x1 = loaded["cogvideox-2b"], torch.tensor([0, 37, 500, 999]), latents(4, seed=1), latents(4, seed=2)
    t, scheduler = pipe.border.time(timesteps), pipe.pipeline.scheduler
    x_t = interpolate(x0, x1, t)
    torch.testing.assert_close(pipe.border.state(x_t, t), scheduler.add_noise(x1, x0, timesteps))
    torch.testing.assert_close(pipe.border.native(velocity(x0, x1), x_t, t), scheduler.get_velocity(x1, x0, timesteps))


def test_a_loss_in_its_own_convention_is_the_velocitys_up_to_a_factor_of_t(pipe):
    x0, x1, t = latents(2, seed=1), latents(2, seed=2), torch.tensor([0.3, 0.6])
    x_t, text = interpolate(x0, x1, t), pipe.text([PROMPT, "a dog."])
    with torch.no_grad():
        out = pipe.native(pipe.border.state(x_t, t), pipe.border.timestep(t).float(), text, {})
        own, ours = out - pipe.border.native(velocity(x0, x1), x_t, t), pipe(x_t, t, text) - velocity(x0, x1)
    factor = 1.0 if pipe.kind == "wan" else 1 / (t ** 2 + (1 - t) ** 2)          # (alpha + sigma)^2, alpha + sigma = s
    torch.testing.assert_close(ours.square().flatten(1).sum(1), factor * own.square().flatten(1).sum(1))


def test_guidance_is_cfg_in_one_batch(pipe, monkeypatch):
    x, t = latents(2), torch.tensor([0.2, 0.7])
    prompts, calls, native = [PROMPT, PROMPT], [], pipe.native
    text, null = pipe.bound(prompts)(x, t), pipe.bound(["", ""])(x, t)
    monkeypatch.setattr(pipe, "native", lambda *a: calls.append(len(a[0])) or native(*a))
    torch.testing.assert_close(pipe.guided(prompts, 3.0)(x, t), cfg(text, null, 3.0))
    assert torch.equal(pipe.guided(prompts, 0)(x, t), text) and calls == [4, 2]


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_changes_little_and_keeps_the_state_exact(fresh, loaded, name):
    pipe, x, t = fresh(name, dtype=torch.bfloat16), latents(), torch.tensor([0.4])
    u, exact = pipe.bound([PROMPT])(x, t), loaded[name].bound([PROMPT])(x, t)
    assert pipe.denoiser.dtype == torch.bfloat16 and u.dtype == torch.float32
    assert pipe.encode_video(torch.zeros(1, 1, 3, 32, 32)).dtype == torch.float32
    assert (u - exact).norm() < 0.05 * exact.norm()
    if name == "wan":
        assert pipe.pipeline.vae.dtype == torch.float32
        assert pipe.denoiser.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32


@pytest.mark.parametrize("solver", ["own", "euler", "heun"])
def test_samples_are_finite_and_follow_the_seed(pipe, solver):
    one, again, other = (pipe.sample([PROMPT], [seed], steps=2, solver=solver) for seed in (0, 0, 1))
    assert one.shape == (1, *pipe.shape) and one.isfinite().all()
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_callback_sees_our_convention_and_edits_the_snapshots_own_sampler(loaded):
    pipe, seen = loaded["cogvideox-2b"], []
    plain = pipe.sample([PROMPT], [0], steps=3, callback=lambda step: seen.append(step))
    assert [step["step"] for step in seen] == [0, 1, 2] and seen[0]["t"] < 1e-6 and seen[-1]["x"].shape == plain.shape
    still = pipe.sample([PROMPT], [0], steps=3, callback=lambda step: {"u": torch.zeros_like(step["u"])})
    assert not torch.allclose(still, plain)
    same = pipe.sample([PROMPT], [0], steps=3, callback=lambda step: {"x": step["x"].clone()})
    torch.testing.assert_close(same, plain, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------------------------------- text states
def test_the_cache_stands_in_for_the_text_encoder(copy, tmp_path):
    folder, cache = copy("cogvideox-2b"), tmp_path / "cache"
    states = load(folder, cache=cache).text([PROMPT, ""])["states"]
    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / name)
    pipe = load(folder, cache=cache)
    assert torch.equal(pipe.text([PROMPT, ""])["states"], states)
    with pytest.raises(MotionLabError, match="no text_encoder and no tokenizer, and the states of 'a dog.' are in no"):
        pipe.text(["a dog."])


def test_the_cache_knows_its_snapshot_and_survives_damage(copy, tmp_path):
    folder, cache = copy("cogvideox-2b"), tmp_path / "cache"
    states = load(folder, cache=cache).text([PROMPT])["states"]
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(load(folder, cache=cache).text([PROMPT])["states"], states)
    other = cogvideox_snapshot(tmp_path / "other", seed=1)
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(other / "text_encoder", folder / "text_encoder")           # another encoder in the same snapshot
    assert not torch.equal(load(folder, cache=cache).text([PROMPT])["states"], states)


def test_the_text_encoder_comes_late_and_goes_when_told(fresh):
    pipe = fresh("wan")
    assert pipe.pipeline.text_encoder is None
    states = pipe.text([PROMPT, "a dog.", PROMPT])["states"]
    assert pipe.pipeline.text_encoder is not None and torch.equal(states[0], states[2]) and not torch.equal(states[0], states[1])
    pipe.forget_text()
    assert pipe.pipeline.text_encoder is None and pipe.text([PROMPT])["states"].shape == (1, 512, WIDTH)
    words = states.abs().sum(2)[0].gt(0)
    assert words[:5].all() and not words[20:].any()


def test_words_stored_once_are_read(copy, loaded):
    """Wan's snapshot holds them as shared.weight only, and some versions of transformers 5 then read zeros."""
    folder = copy("wan")
    file = folder / "text_encoder" / "model.safetensors"
    state = load_file(file)
    state.pop("encoder.embed_tokens.weight", None)
    save_file(state, file, metadata={"format": "pt"})
    assert torch.equal(load(folder).text([PROMPT])["states"], loaded["wan"].text([PROMPT])["states"])


def test_a_long_prompt_is_cut_with_a_warning_and_a_short_one_without(fresh):
    pipe = fresh("cogvideox-2b")
    with pytest.warns(UserWarning, match="was cut to 16"):
        pipe.text(["a cat walks to the left and then to the right."])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pipe.text(["a cat."])


# ---------------------------------------------------------------------------------------------- under the kit's tools
@pytest.mark.parametrize("name", [name for name in SNAPSHOTS if name != "i2vgenxl"])            # whose class has none
def test_gradient_checkpointing_changes_no_gradient(fresh, name):
    pipe, grads = fresh(name), []
    x0, x1, t = gaussian((1, *pipe.shape), rng(1)), gaussian((1, *pipe.shape), rng(2)), torch.tensor([0.4])
    for checkpointed in (False, True):
        if checkpointed:
            pipe.denoiser.enable_gradient_checkpointing()
            pipe.denoiser.train()
        u = pipe(interpolate(x0, x1, t), t, pipe.text([PROMPT]), known_of(pipe))
        (u - velocity(x0, x1)).square().mean().backward()
        grads.append({n: p.grad.clone() for n, p in pipe.denoiser.named_parameters() if p.grad is not None})
        pipe.denoiser.zero_grad()
    assert any(g.abs().sum() > 0 for g in grads[0].values())
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_autoencoder_and_encoders_are_frozen_and_outside_of_what_trains(loaded, name):
    pipe = loaded[name]
    pipe.text([PROMPT])
    assert {id(p) for p in pipe.parameters()} == {id(p) for p in pipe.denoiser.parameters()}
    others = [part for part in pipe.pipeline.components.values() if isinstance(part, torch.nn.Module) and part is not pipe.denoiser]
    assert others and not any(p.requires_grad for part in others for p in part.parameters())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_taps_read_every_transformer_and_change_nothing(loaded, name):
    pipe, t = loaded[name], torch.tensor([0.4])
    x, text, known = gaussian((1, *pipe.shape), rng()), pipe.text([PROMPT]), known_of(pipe)
    plain = pipe.velocity(x, t, text, known)
    with taps.features(pipe, blocks=[-1]) as seen, taps.attention(pipe, {"near": taps.FrameMass()}, blocks=[0]) as maps:
        assert torch.equal(pipe.velocity(x, t, text, known), plain)
    (features,), (near,) = next(iter(seen.values())), next(iter(maps.values()))
    mass = near["near"].sum(-1).mean(-1)                       # over key frames, then query frames: what text leaves of 1
    assert features[0].shape[:3].numel() == pipe.tokens and (mass <= 1 + 1e-4).all() and (mass > 0.2).all()
    assert pipe.kind in ("cogvideox", "hunyuanvideo") or torch.allclose(mass.float(), torch.ones(()), atol=1e-4)


def test_a_u_net_says_why_it_is_not_tapped(loaded):
    with pytest.raises(MotionLabError, match="U-Net has no one grid of tokens"), taps.features(loaded["svd"]):
        pass


def test_prompt_switch_goes_from_one_prompt_to_the_other(pipe):
    x, t, first, then = latents(), torch.tensor([0.4]), pipe.text([PROMPT]), pipe.text(["a dog."])
    with torch.no_grad():
        from_none, half, from_all = (switched(pipe, first, then, depth, 2.0)(x, t) for depth in (0, 1, 2))
        torch.testing.assert_close(from_none, pipe.guided(["a dog."], 2.0)(x, t))
        torch.testing.assert_close(from_all, pipe.guided([PROMPT], 2.0)(x, t))
    assert not torch.allclose(half, from_none) and not torch.allclose(half, from_all)


def test_shuffled_frames_are_measured(pipe):
    video = gaussian((1, 9, 3, 32, 32), rng()).clamp(-1, 1)
    batch = {"items": ["clip"], "captions": [PROMPT],
             "latents": changed_latents(video, pipe.encode_video, rng(), ("original", "shuffled", "latents_reversed"))}
    rows = list(shuffle_rows(pipe.bound, [batch], readings=("linear",)))
    assert [row["arm"] for row in rows] == ["original", "shuffled", "latents_reversed"]
    assert rows[0]["loss"] == rows[0]["loss_original"] != rows[1]["loss"]


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_an_untrained_twin_shares_everything_but_the_networks_weights(loaded, name):
    pipe, t = loaded[name], torch.tensor([0.4])
    twin, x = pipe.untrained(), gaussian((1, *pipe.shape), rng())
    args = x, t, pipe.text([PROMPT]), known_of(pipe)
    assert twin.shape == pipe.shape and not torch.allclose(twin.velocity(*args), pipe.velocity(*args))
    assert torch.equal(pipe.untrained().velocity(*args), twin.velocity(*args))


# ---------------------------------------------------------------------------------------------- mistakes
def refused(folder, message, **options):
    with pytest.raises(MotionLabError, match=message) as caught:
        load(folder, **options)
    assert caught.value.fix


def test_what_is_no_snapshot_is_refused(tmp_path, copy):
    refused(tmp_path / "nowhere", "There is no folder")
    refused(tmp_path, "holds no model_index.json")
    folder = copy("wan")
    edit_json(folder / "model_index.json", _class_name="WanPipelin")
    refused(folder, "Unknown pipeline .* Did you mean 'WanPipeline'")
    edit_json(folder / "model_index.json", _class_name="WanPipeline", boundary_ratio=0.9)
    refused(folder, "is Wan 2.2")
    edit_json(folder / "model_index.json", boundary_ratio=None, vae=["os", "system"])
    refused(folder, "names os.system as its vae, which is not there")
    (folder / "model_index.json").write_text("{")
    refused(folder, "model_index.json' cannot be read")


@pytest.mark.parametrize("name", ["wan", "cogvideox-2b"])
def test_missing_components_are_named_when_they_are_needed(copy, name):
    folder = copy(name)
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(MotionLabError, match="has no text_encoder, and the states of 'a cat walks.'"):
        load(folder).text([PROMPT])
    shutil.rmtree(folder / "vae")
    refused(folder, "has no vae, so it can look at no clip")
    shutil.rmtree(folder / "transformer")
    refused(folder, "has scheduler, tokenizer, but no transformer")


@pytest.mark.parametrize("name, part", [("wan-image", "image_encoder"), ("svd", "image_encoder"), ("svd", "feature_extractor")])
def test_an_image_class_names_the_part_that_it_lacks(copy, name, part):
    folder = copy(name)
    shutil.rmtree(folder / part)
    refused(folder, f"has no {part}")


def test_cogvideox_needs_its_scheduler(copy):
    folder = copy("cogvideox-2b")
    edit_json(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    refused(folder, "prediction type")
    shutil.rmtree(folder / "scheduler")
    refused(folder, "has no scheduler")


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
    loaded["cogvideox-2b"].denoiser.save_pretrained(folder / "transformer", max_shard_size="60KB")
    shards = sorted((folder / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    same = load(folder).denoiser.state_dict()
    assert all(torch.equal(v, same[k]) for k, v in loaded["cogvideox-2b"].denoiser.state_dict().items())
    shards[0].unlink()
    refused(folder, f"lacks {shards[0].name}")


@pytest.mark.parametrize("name, message", [("cogvideox-2b", "reads 8 channels and writes 4"), ("cogvideox-5b-image", "reads 4 channels, not the 8"),
                                           ("wan-image", "reads 4 channels, not the 12")])
def test_a_network_of_another_class_is_refused(copy, name, message):
    import diffusers

    folder = copy(name)
    kind = getattr(diffusers, "WanTransformer3DModel" if name.startswith("wan") else "CogVideoXTransformer3DModel")
    config = kind.load_config(str(folder / "transformer"))
    kind.from_config(config | {"in_channels": 8 if name == "cogvideox-2b" else 4}).save_pretrained(folder / "transformer")
    refused(folder, message)


def test_words_that_need_sentencepiece_are_told(copy, monkeypatch):
    folder = copy("cogvideox-2b")
    (folder / "tokenizer" / "tokenizer.json").rename(folder / "tokenizer" / "spiece.model")
    monkeypatch.setattr("transformers.utils.is_sentencepiece_available", lambda: False)
    with pytest.raises(MotionLabError, match="which the package sentencepiece reads"):
        load(folder).text([PROMPT])


def test_sizes_that_do_not_fit_are_refused(folders, loaded):
    whole = open_pipe(str(folders["wan"]), dtype=torch.float32)
    assert (whole.frames, *whole.size) == (81, 480, 832)
    for name, frames, message in (("wan", 12, "1 \\+ 4k"), ("cogvideox-2b", 13, "1 \\+ 8k"), ("ltx", 5, "1 \\+ 8k")):
        with pytest.raises(MotionLabError, match=message):
            loaded[name].set_clip(frames, 64, 64)
    with pytest.raises(MotionLabError, match="multiples of 16"):
        loaded["wan"].encode_video(torch.zeros(1, 1, 3, 24, 32))
    with pytest.raises(MotionLabError, match="Video is"):
        loaded["wan"].encode_video(torch.zeros(1, 3, 1, 32, 32))
    with pytest.raises(MotionLabError, match="1 \\+ 8k"):
        loaded["cogvideox-2b"].decode_video(latents(f=2))
    with pytest.raises(MotionLabError, match="decodes latents"):
        loaded["wan"].decode_video(torch.zeros(1, 3, 5, 4, 4))


def test_arguments_that_do_not_fit_are_refused(loaded, folders):
    wan, image, t = loaded["wan"], loaded["wan-image"], torch.tensor([0.5])
    frames = torch.zeros(1, 3, 32, 32)
    with pytest.raises(MotionLabError, match="Latents of shape"):
        wan(torch.zeros(1, 3, 5, 4, 4), t, wan.text([PROMPT]))
    with pytest.raises(MotionLabError, match="takes no known frames"):
        wan(latents(), t, wan.text([PROMPT]), {"condition": latents()})
    with pytest.raises(MotionLabError, match="its class needs them"):
        image(latents(), t, image.text([PROMPT]))
    with pytest.raises(MotionLabError, match="Unknown solver"):
        wan.sample([PROMPT], [0], solver="eulr")
    with pytest.raises(MotionLabError, match="Unknown conditioning mode of wan"):
        wan.sample([PROMPT], [0], mode="frist", first=frames)
    with pytest.raises(MotionLabError, match="needs the first frame"):
        image.sample([PROMPT], [0])
    with pytest.raises(MotionLabError, match="first frame has shape"):
        image.sample([PROMPT], [0], first=torch.zeros(1, 3, 16, 16))
    refused(folders["wan"], "Unknown dtype", dtype=torch.float16)
    with pytest.raises(MotionLabError, match="learned positions for frames of 32x32"):
        loaded["cogvideox-5b-image"].set_clip(9, 64, 64)
