"""SAM2 as a tracker: the package's step over many clips, its own predictor, and transformers' class, all with the same weights."""
import dataclasses
import importlib.util

import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.paths import repo_root
from motionlab.metrics.mask_tracking import mean_iou
from motionlab.papers.sam2videox.gram_flow import local_gram_flow
from motionlab.teachers import masks as teacher
from motionlab.teachers.masks import both_ways, load_tracker
from motionlab.teachers.prompts import Prompt, world_prompt
from motionlab.teachers.sam2 import as_inputs, decoder_calls
from motionlab.teachers.sam2_build import OFFICIAL, Sam2Config, build_sam2, build_transformers, import_sam2
from motionlab.teachers.sam2_files import official_config, read_checkpoint, to_sam2, to_transformers, write_small
from motionlab.world import Actor, Scene, random_scene, render

pytestmark = pytest.mark.skipif(importlib.util.find_spec("sam2") is None, reason="the package sam2 is not installed")
TINY = Sam2Config(image_size=64, embed_dim=16, heads=1, stages=(1, 1, 2, 1), global_blocks=(3,), windows=(8, 4, 4, 2), d_model=128,
                  memory_layers=1, memory_ff=64, layer_scale=0.1, dropout=0.0)


@pytest.fixture(scope="module")
def tracker():
    """Untrained, but its masks are neither empty nor full, and its object is always in view."""
    made = load_tracker("sam2", config=TINY, seed=1)
    with torch.no_grad():
        made.model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    return made


@pytest.fixture(scope="module")
def same(tracker, tmp_path_factory):
    """The same weights in transformers' class, by way of an official file's form."""
    path = tmp_path_factory.mktemp("sam2") / "small.safetensors"
    write_small(path, tracker.model.float(), TINY)
    tracker.model.load_state_dict(read_checkpoint(path)[1])                # bf16 in the file: both have those
    return load_tracker("sam2_transformers", checkpoint=path)


@pytest.fixture(scope="module")
def clips():
    return [render(random_scene(seed), 48, 6) for seed in (3, 4, 7)]


@pytest.fixture
def unrounded(monkeypatch):
    """All three round memories to bf16, where a difference of 1e-7 can become one of 1e-3: without that they can be compared closely."""
    monkeypatch.setattr(torch, "bfloat16", torch.float32)


def asked(clips, kind="box", frame=0):
    return [world_prompt(clip, kind=kind, frame=frame) for clip in clips]


# ------------------------------------------------------------------ the three agree
@pytest.mark.parametrize("kind, frame", [("box", 0), ("box", -1), ("points", 0)])
def test_transformers_gives_what_the_package_gives(tracker, same, clips, kind, frame, unrounded):
    for one, other in zip(tracker.track(clips[:2], asked(clips[:2], kind, frame)), same.track(clips[:2], asked(clips[:2], kind, frame))):
        assert 0.02 < one.masks.mean() < 0.98 and one.features.std() > 0.1
        assert np.abs(one.features - other.features).max() < 1e-5 and np.abs(one.scores - other.scores).max() < 1e-5
        assert np.array_equal(one.masks, other.masks)


def test_rounded_memories_are_those_of_the_release(tracker, same, clips):
    one, = tracker.track(clips[:1], asked(clips[:1]))
    other, = same.track(clips[:1], asked(clips[:1]))
    assert np.abs(one.features - other.features).max() < 1e-3 and np.abs(one.features - other.features).mean() < 1e-5


def test_mask_prompts_agree_but_for_their_resizing(tracker, same, clips):
    one, = tracker.track(clips[:1], asked(clips[:1], "mask"))
    other, = same.track(clips[:1], asked(clips[:1], "mask"))
    assert np.abs(one.features - other.features).max() < 0.05 and np.abs(one.features[0] - other.features[0]).max() < 1e-5


@pytest.mark.parametrize("kind", ["box", "points", "mask"])
@pytest.mark.parametrize("frame", [0, -1])
def test_clips_together_are_tracked_as_by_the_packages_predictor_alone(tracker, clips, kind, frame, monkeypatch, unrounded):
    prompts = asked(clips, kind, frame)
    for clip, prompt, seen in zip(clips, prompts, tracker.track(clips, prompts)):
        found, features = predicted(tracker.model, clip, prompt, monkeypatch)
        if kind == "mask":                                             # there the decoder's input lacks `no_mem_embed` (card 2.6, fact 2)
            features[frame] += tracker.model.no_mem_embed.detach().numpy().reshape(-1, 1, 1)
        assert np.array_equal(found, seen.masks) and np.abs(features - seen.features).max() < 1e-5


def predicted(model, clip, prompt, monkeypatch):
    """Masks and memory features of `SAM2VideoPredictor`, which reads videos from files alone: here its reader is given the clip."""
    import sam2.sam2_video_predictor as package

    pictures = as_inputs(torch.from_numpy(clip.frames), model.image_size)
    monkeypatch.setattr(package, "load_video_frames", lambda **_: (pictures, *clip.size))
    state, start = model.init_state("the clip"), prompt.frame % len(pictures)
    with decoder_calls(model.sam_mask_decoder) as calls:
        if prompt.kind == "mask":
            model.add_new_mask(state, start, 0, prompt.mask)
        else:
            points = {} if prompt.kind == "box" else {"points": prompt.points, "labels": np.ones(len(prompt.points), np.int32)}
            model.add_new_points_or_box(state, start, 0, box=prompt.box, **points)
        found = np.stack([mask[0, 0].numpy() > 0 for _, _, mask in model.propagate_in_video(state, start, reverse=start > 0)])
    features = torch.cat([given for given, _ in calls]).numpy()
    return (found[::-1], features[::-1].copy()) if start else (found, features)


def test_oblong_clips_are_stretched_and_their_prompts_with_them(tracker, same, monkeypatch, unrounded):
    clip = render(random_scene(3), (48, 80), 3)
    prompt = world_prompt(clip)
    seen, other = (one.track([clip], [prompt])[0] for one in (tracker, same))
    found, features = predicted(tracker.model, clip, prompt, monkeypatch)
    assert seen.masks.shape == (3, 48, 80) and np.array_equal(seen.masks, found) and np.array_equal(seen.masks, other.masks)
    assert np.abs(seen.features - features).max() < 1e-5 and np.abs(seen.features - other.features).max() < 1e-5


def test_a_prompted_frame_has_no_memory(tracker, clips):
    bare = tracker.image_features(clips[0].frames) + tracker.model.no_mem_embed.detach().numpy().reshape(-1, 1, 1)
    for kind in ("box", "points", "mask"):
        seen, = tracker.track(clips[:1], asked(clips[:1], kind))
        assert np.abs(seen.features[0] - bare[0]).max() < 1e-5 and np.abs(seen.features[1:] - bare[1:]).max() > 0.1


def test_image_features_agree_and_have_no_memory(tracker, same, clips):
    frames = clips[0].frames
    seen = tracker.image_features(frames)
    assert seen.shape == (6, 128, 4, 4) and np.abs(seen - same.image_features(frames)).max() < 1e-5
    assert np.abs(tracker.image_features(frames[::-1])[::-1] - seen).max() < 1e-5


def test_prompts_of_several_kinds_and_batches_of_any_size(tracker, clips, unrounded):
    prompts = [world_prompt(clips[0]), world_prompt(clips[1], kind="points"), world_prompt(clips[2], frame=-1)]
    alone = [tracker.track([clip], [prompt])[0] for clip, prompt in zip(clips, prompts)]
    for one, together in zip(alone, tracker.track(clips, prompts)):
        assert np.abs(one.features - together.features).max() < 1e-5
    three = load_tracker("sam2", config=TINY, seed=1, batch=2)
    three.model.load_state_dict(tracker.model.state_dict())
    for one, other in zip(three.track(clips, asked(clips)), tracker.track(clips, asked(clips))):
        assert np.abs(one.features - other.features).max() < 1e-5


def test_a_reversed_clip_swaps_the_directions(tracker, clips, unrounded):
    first, last = asked(clips), asked(clips, frame=-1)
    turned = [clip.frames[::-1] for clip in clips]
    there = both_ways(clips, first, tracker, last=last)
    back = both_ways(turned, [Prompt(box=one.box) for one in last], tracker, last=[Prompt(box=one.box) for one in first])
    for one, other in zip(there, back):
        assert np.abs(one.forward.features - other.backward.features[::-1]).max() < 1e-5
        assert np.abs(one.backward.features - other.forward.features[::-1]).max() < 1e-5
        assert np.abs(one.forward.features - one.backward.features).max() > 0.05


# ------------------------------------------------------------------ what is left behind
def test_no_state_of_hydra_and_no_hook_stays(tracker, clips):
    from hydra.core.global_hydra import GlobalHydra

    import_sam2()
    assert not GlobalHydra.instance().is_initialized()
    with pytest.raises(MotionLabError):
        tracker.track(clips[:1], [Prompt(box=(0, 0, 99, 99))])
    tracker.track(clips[:1], asked(clips[:1]))
    assert not tracker.model.sam_mask_decoder._forward_hooks and not tracker.model.sam_mask_decoder._forward_pre_hooks


def test_an_untrained_network_follows_its_seed_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = (build_sam2(TINY, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one) and any(not torch.equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------ weights
def test_names_go_both_ways(tracker):
    state = tracker.model.state_dict()
    theirs = to_transformers(state)
    assert set(theirs) == set(build_transformers(TINY).state_dict())
    back = to_sam2(theirs, state)
    assert set(back) == set(state) and all(torch.equal(back[name], state[name]) for name in state)


def test_a_folder_of_transformers_serves_both(same, clips, tmp_path, unrounded):
    same.model.save_pretrained(tmp_path)
    config, _, names = read_checkpoint(tmp_path)
    assert names == "transformers" and dataclasses.replace(config, dropout=0.0) == TINY
    both = [load_tracker(name, checkpoint=tmp_path).track(clips[:1], asked(clips[:1]))[0] for name in ("sam2", "sam2_transformers")]
    assert np.abs(both[0].features - both[1].features).max() < 1e-5


def test_official_checkpoints_are_known_by_their_shapes(tmp_path):
    for name, config in OFFICIAL.items():
        embed, blocks = torch.zeros(config.embed_dim, 3, 7, 7), sum(config.stages)
        state = {"image_encoder.trunk.patch_embed.proj.weight": embed, "no_obj_embed_spatial": embed}
        state |= {f"image_encoder.trunk.blocks.{k}.norm1.weight": embed for k in range(blocks)}
        assert official_config(state, tmp_path / f"{name}.pt") == config
        with pytest.raises(MotionLabError, match="SAM 2.0"):
            official_config({k: v for k, v in state.items() if "no_obj_embed" not in k}, tmp_path)
    with pytest.raises(MotionLabError, match="no released"):
        official_config({}, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sam_2_1_large_untrained_has_the_features_of_the_card():
    large = load_tracker("sam2", config=OFFICIAL["large"], batch=1)
    assert sum(p.numel() for p in large.model.parameters()) == 224_446_642
    seen, = large.track([np.zeros((2, 48, 72, 3), np.uint8)], [Prompt(box=(10, 10, 40, 40))])
    assert seen.features.shape == (2, 256, 64, 64) and seen.masks.shape == (2, 48, 72)


@pytest.mark.parametrize("options, says", [
    ({}, "no checkpoint was named"), ({"checkpoint": "nowhere.pt"}, "no SAM2 weights"), ({"checkpoint": "."}, "no folder of transformers"),
    ({"config": TINY, "checkpoint": "x.pt"}, "checkpoint and a config"), ({"checkpont": "x"}, "no option"), ({"config": TINY, "batch": 0}, "batch"),
    ({"config": TINY, "device": "tpu"}, "cannot be used")])
def test_what_cannot_be_loaded_is_told(options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("sam2", "sam2_transformers"):
        with pytest.raises(MotionLabError, match=says):
            load_tracker(name, **options)


def test_weights_of_something_else_are_told(tracker, tmp_path):
    from safetensors.torch import save_file

    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(MotionLabError, match="no released SAM 2.1"):
        load_tracker("sam2", checkpoint=tmp_path / "other.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "codec.safetensors", metadata={"kind": "motionlab.codec", "config": "{}"})
    with pytest.raises(MotionLabError, match="holds motionlab.codec"):
        load_tracker("sam2", checkpoint=tmp_path / "codec.safetensors")
    write_small(tmp_path / "small.safetensors", tracker.model, dataclasses.replace(TINY, memory_layers=2))
    for name in ("sam2", "sam2_transformers"):
        with pytest.raises(MotionLabError, match="does not fit its own sizes"):
            load_tracker(name, checkpoint=tmp_path / "small.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "codec.safetensors").read_bytes())
    with pytest.raises(MotionLabError, match="'bert'"):
        load_tracker("sam2", checkpoint=tmp_path)


@pytest.mark.parametrize("change", [{"image_size": 100}, {"stages": (1, 2, 3)}, {"global_blocks": (2,)}, {"d_model": 96},
                                    {"windows": (7, 4, 4, 2)}, {"embed_dim": 15, "heads": 2}])
def test_sizes_of_which_no_sam2_can_be_built_are_told(change):
    with pytest.raises(MotionLabError, match="No SAM2 can be built"):
        dataclasses.replace(TINY, **change)


def test_clips_that_cannot_be_tracked_are_told(tracker, clips):
    with pytest.raises(MotionLabError, match="at least 2 frames"):
        tracker.track([clips[0].frames[:1]], asked(clips[:1]))
    with pytest.raises(MotionLabError, match="shapes"):
        tracker.track([clips[0].frames, clips[1].frames[:4]], asked(clips[:2]))


def test_without_the_package_transformers_serves(monkeypatch, clips):
    monkeypatch.setattr(teacher, "find_spec", lambda name: None)
    assert type(load_tracker("auto", config=TINY)).__name__ == "TransformersTracker"


# ------------------------------------------------------------------ the one that is shipped
WEIGHTS = repo_root() / "reproductions" / "testbed" / "checkpoints" / "sam2.safetensors"
shipped_only = pytest.mark.skipif(not WEIGHTS.is_file(), reason="no small SAM2 is shipped yet: `motionlab pretrain sam2`")


@shipped_only
def test_the_shipped_one_is_small_and_follows_a_subject():
    tracker = load_tracker("auto", checkpoint=WEIGHTS)
    assert WEIGHTS.stat().st_size <= 15e6 and sum(p.numel() for p in tracker.model.parameters()) <= 4e6
    clips = [render(random_scene(seed), 192, 9) for seed in (3, 4)]
    for clip, seen in zip(clips, tracker.track(clips, asked(clips))):
        assert seen.features.shape == (9, 128, 12, 12) and mean_iou(seen.masks, clip.object_mask(0)) > 0.7


@shipped_only
def test_a_static_clip_stays_where_it_is_in_its_memory_features():
    """T6 of the card."""
    still = render(Scene(actors=(Actor(motion="walk", speed=0.0, period=1e5),)), 192, 4)
    seen, = load_tracker("auto", checkpoint=WEIGHTS).track([still], [world_prompt(still)])
    found = local_gram_flow(torch.from_numpy(seen.features)[None].movedim(2, -1))[0].argmax(-1)
    assert (found[1:] == 24).float().mean() > 0.95                     # the first pair compares a frame without memory
