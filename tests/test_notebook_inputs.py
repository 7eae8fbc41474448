"""What notebooks on a video DiT take: the world or a clip of yours, the kit's model or a pretrained folder."""
import numpy as np
import pandas as pd
import pytest
import torch

from motionlab.analyses import attention, attention_follow, attention_maps, feature_pictures, features, inputs, prompt_switch, shuffle
from motionlab.analyses.depth import by_depth, shown_blocks
from motionlab.analyses.inputs import world_clips, your_clip
from motionlab.models.open import open_pipe
from motionlab.core.errors import MotionLabError
from motionlab.video import find_sample_clip, write_mp4
from small import small_model
from snapshots import SNAPSHOTS, cogvideox_snapshot, wan_snapshot
from videos import moving_texture

BLOCKS = {"wan": "blocks.1", "cogvideox": "transformer_blocks.1"}


@pytest.fixture(scope="module", params=["wan", "cogvideox"])
def model(request, tmp_path_factory):
    """A snapshot with random weights, for 9 frames of 96 x 96: three latents of 6 x 6 tokens."""
    folder = tmp_path_factory.mktemp(request.param)
    {"wan": wan_snapshot, "cogvideox": cogvideox_snapshot}[request.param](folder)
    return open_pipe(str(folder), 9, 96, 96)


@pytest.fixture(scope="module")
def mine(model):
    return {"mine": your_clip(str(find_sample_clip()), model, "a man talks")}


def test_a_clip_of_yours_comes_at_the_models_size(model, mine):
    assert mine["mine"].frames.shape == (9, 96, 96, 3) and mine["mine"].caption == "a man talks"
    assert attention.token_grid(model, mine["mine"]) == (3, 6, 6)


def test_attention_of_a_pretrained_model_and_of_its_untrained_twin(model, mine):
    twin = model.untrained()
    rows = [row for one in (model, twin) for row in attention.attention_rows(one, mine, (0.5,))]
    assert [(r["arm"], r["block"], r["depth"]) for r in rows[::2]] == [(one.name, 0, "early") for one in (model, twin)]
    whole = [r["mass_0"] + 4 / 3 * r["mass_1"] + 2 / 3 * r["mass_2"] + r["text"] for r in rows]
    assert whole == pytest.approx([1] * 4, abs=1e-3)
    assert (rows[0]["text"] > 0.1) == (model.kind == "cogvideox")           # Wan's self-attention holds no text
    assert rows[0]["near_0"] != rows[2]["near_0"] and len(by_depth(pd.DataFrame(rows), ["near_0"])) == 2


def test_attention_follows_the_worlds_exact_tracks_at_any_size(model):
    clips = attention_follow.pan_clips((3,), model, speed=0.8)              # 1.2 tokens of 16 pixels per latent
    rows = list(attention_follow.follow_rows(model, clips, blocks=[-1]))
    assert [(r["point"], r["block"]) for r in rows] == [("foreground", 1), ("background", 1)]
    assert rows[1]["queries_1"] > 0 and 0 < rows[1]["there_1"] < 1


def test_maps_by_both_recipes(model, mine):
    noised, released = (attention_maps.attention_maps(model, "mine", mine["mine"], recipe, frame=1, steps=2)
                        for recipe in attention_maps.RECIPES)
    assert list(noised.rows) == list(released.rows) and noised.rows[BLOCKS[model.kind]].shape == (36, 3, 6, 6)
    assert released.frames.shape == (9, 96, 96, 3)
    assert 1 < released.rows[BLOCKS[model.kind]].sum((1, 2, 3)).max() <= 2 + 1e-4                     # two steps
    assert attention_maps.subject_point(mine["mine"]) == (48, 48) and attention_maps.token_at(model, (95, 0)) == (0, 5)


def test_features_of_a_clip_without_truth_have_pictures_and_of_the_world_numbers_too(model, mine):
    (row,) = features.feature_rows(model, mine, blocks=[BLOCKS[model.kind]])
    assert row["block"] == 1 and 0 < row["explained"] <= 1 and "auc" not in row
    world = world_clips((31,), model)
    (row,) = features.feature_rows(model, world, blocks=[1])
    assert 0 <= row["auc_worst"] <= row["auc"] <= 1 and {"auc_pca3_smoothed_worst", "pca3_background_track"} <= set(row)
    x = features.block_features(model, mine["mine"], "mine", blocks=[1])[1]
    assert feature_pictures.component_video(mine["mine"], x).shape == (9, 192, 576, 3)
    paths, clouds = feature_pictures.path_panels(x, mine["mine"], model.cell)
    assert clouds is None and paths["raw"]["foreground"].shape == (3, 3)


def test_prompts_switch_by_depth(model):
    ends = [prompt_switch.switched_clips(model, ["a dog runs"], ["a cat sleeps"], [1], depth, steps=1)[0]
            for depth in (0, 2)]
    same = prompt_switch.switched_clips(model, ["a cat sleeps"], ["a dog runs"], [1], 2, steps=1)[0]
    assert ends[0].shape == (9, 96, 96, 3) and np.array_equal(ends[0], same) and shown_blocks(model) == [0, 1]


# ---------------------------------------------------------------------------------------------- what cannot be done
def test_unknown_blocks_name_the_nearest(model, mine):
    for rows in (attention.attention_rows, features.feature_rows):
        with pytest.raises(MotionLabError, match=f"Did you mean '{BLOCKS[model.kind]}'"):
            list(rows(model, mine, blocks=[BLOCKS[model.kind].replace("s.", ".")]))
        with pytest.raises(MotionLabError, match="no block 7"):
            list(rows(model, mine, blocks=[7]))


def test_folders_without_a_transformer_or_a_vae_are_refused(tmp_path):
    import shutil

    wan_snapshot(tmp_path)
    shutil.move(tmp_path / "vae", tmp_path / "elsewhere")
    with pytest.raises(MotionLabError, match="has no vae"):
        open_pipe(str(tmp_path), 9, 96, 96)
    shutil.rmtree(tmp_path / "transformer")
    with pytest.raises(MotionLabError, match="but no transformer"):
        open_pipe(str(tmp_path), 9, 96, 96)


def test_short_clips_and_foreign_words_are_refused(tmp_path):
    model, path = small_model(length=3), tmp_path / "short.mp4"
    write_mp4(path, moving_texture(6, 64, 64), fps=8)
    with pytest.raises(MotionLabError, match="has 6 frames; this needs 9"):
        your_clip(str(path), model)
    assert your_clip(str(path), model, latents=2).frames.shape == (5, 48, 48, 3)
    with pytest.raises(MotionLabError, match="zebra"):
        your_clip(str(path), model, "a red zebra walks", latents=2)


def test_points_of_the_paths_must_lie_in_the_frame():
    clip = next(iter(world_clips((31,), small_model(length=3)).values()))
    coordinates = np.random.default_rng(0).normal(size=(3, 12, 12, 3))
    fixed = feature_pictures.point_paths(coordinates, clip, points=[[47, 0], [0, 47]])
    assert np.array_equal(fixed["foreground"], coordinates[:, 0, 11])
    assert np.array_equal(fixed["background"], coordinates[:, 11, 0])
    for points in ([[48, 0], [0, 0]], [[1, 2]], [[-1, 0], [0, 0]]):
        with pytest.raises(MotionLabError, match="not two pixels of a frame of 48 x 48"):
            feature_pictures.point_paths(coordinates, clip, points=points)


# ---------------------------------------------------------------------------------------------- other classes
def test_image_to_video_classes_are_looked_at_beside_their_own_first_frame(tmp_path):
    pipe = open_pipe(SNAPSHOTS["wan-image"](tmp_path / "s"), 9, 96, 96)
    clips = inputs.world_clips((3, 4), pipe)
    known = inputs.own_frames(pipe, list(clips.values()))
    assert len(known["condition"]) == len(known["seen"]) == 2 and (known["condition"][:, :, 0].flatten(2).amax(2) == torch.tensor([1.0, 0, 0])).all()
    assert list(attention.attention_rows(pipe, clips, (0.5,))) and list(features.feature_rows(pipe, clips))
    first, then = pipe.text(["a cat walks."]), pipe.text(["a dog runs."])
    for call in (lambda: next(shuffle.batches(clips, pipe)), lambda: prompt_switch.switched(pipe, first, then, 1)):
        with pytest.raises(MotionLabError, match="is given the first frame, which would tell it"):
            call()


@pytest.mark.parametrize("name, frames", [("ltx", 8), ("cogvideox-1.5", 8), ("svd", 1)])
def test_classes_whose_tokens_stand_for_other_times_say_so(name, frames, tmp_path):
    pipe = open_pipe(SNAPSHOTS[name](tmp_path / "s"), 9, 64, 64)
    with pytest.raises(MotionLabError, match=f"stands for {frames} frame"):
        inputs.world_clips((3,), pipe)


def test_peaks_fall_as_the_released_maps_do_and_pairs_are_swapped():
    released = pd.DataFrame([{"item": "a", "arm": "base", "seed": 0, "block": k, "peak_0": 40.0, "peak_1": 20.0 + k, "peak_2": 2.5} for k in (0, 1)])
    (row,) = attention_maps.peak_ratios(released)
    assert row["next_over_own"] == 20.5 / 40 and row["next_over_second"] == 20.5 / 2.5
    pairs = prompt_switch.switch_pairs([3, 4])
    assert prompt_switch.swapped(prompt_switch.swapped(pairs)) == pairs != prompt_switch.swapped(pairs)
