"""Attention by frame offset and distance: hand-made maps with known answers, and a tiny backbone end to end."""
import math

import numpy as np
import pandas as pd
import pytest
import torch

from motionlab import figures, taps
from motionlab.analyses.attention import OffsetRadius, attention_rows, summary, tapped, uniform
from motionlab.analyses.attention_follow import (FAST, PAN, WHERE, Keys, WindowMass, by_place, follow_rows, pan_clips,
                                                window_sums)
from motionlab.analyses.attention_maps import (attention_maps, frame_summary, labelled, release_rows, subject_point,
                                              token_at)
from motionlab.analyses.depth import by_depth, third
from motionlab.analyses.features import token_labels
from motionlab.analyses.inputs import CaptionedClip, world_clips
from motionlab.core.errors import MotionLabError
from reductions import DisplacementMass
from small import small_model


def by_radius(full, grid):
    """OffsetRadius of explicit rows (n, n), by way of a DisplacementMass."""
    f, h, w = grid
    out = torch.zeros(1, 1, 2 * f - 1, 2 * h - 1, 2 * w - 1)
    for q in range(f * h * w):
        for k in range(f * h * w):
            a, b = ((i // (h * w), i // w % h, i % w) for i in (q, k))
            out[0, 0, b[0] - a[0] + f - 1, b[1] - a[1] + h - 1, b[2] - a[2] + w - 1] += full[q, k] / (f * h * w)
    return taps.by_radius(out).mean(1)


def test_uniform_attention_gives_every_frame_its_share():
    grid = (3, 4, 4)
    found = summary(by_radius(torch.full((48, 48), 1 / 48), grid))
    assert all(found[f"mass_{d}"].item() == pytest.approx(1 / 3, abs=1e-5) for d in range(3))
    window = (4 / 16 * 4 + 6 / 16 * 8 + 9 / 16 * 4) / 16         # tokens within one of corner, edge, middle
    assert found["near_1"].item() == pytest.approx(window, abs=1e-5)


def test_attention_to_the_same_place_in_the_next_frame_is_found_there():
    grid, full = (3, 2, 2), torch.zeros(12, 12)
    for q in range(12):
        full[q, q + 4 if q < 8 else q] = 1.0
    found = summary(by_radius(full, grid))
    assert found["mass_1"].item() == pytest.approx((8 / 12) * 3 / 2 / 2) and found["near_1"].item() == 1
    assert found["mass_0"].item() == pytest.approx(4 / 12) and found["mass_2"].item() == 0


def test_rows_of_a_tiny_backbone_add_up():
    model = small_model(layers=2, length=3)
    rows = list(attention_rows(model, world_clips((1, 2, 3), model), (0.3, 0.7), batch=2))
    assert len(rows) == 3 * 2 * 2 and {r["block"] for r in rows} == {0, 1} and {r["arm"] for r in rows} == {"small"}
    for r in rows:
        frames = r["mass_0"] + 2 * r["mass_1"] * 2 / 3 + 2 * r["mass_2"] / 3   # undo the average over those that exist
        assert frames + r["text"] == pytest.approx(1, abs=1e-2)


def test_reduction_by_radius_is_that_of_all_displacements():
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 2 + 2 * 3 * 4, 8, generator=g) for _ in "qk")
    reduce = {"ours": OffsetRadius(), "all": DisplacementMass()}
    found = taps.reduce_attention(q, k, (2, 3, 4), reduce, video=slice(2, 26), chunk=5)
    assert found["ours"].shape == (2, 3, 4)
    assert torch.allclose(found["ours"], taps.by_radius(found["all"]).mean(1), atol=1e-6)


def test_uniform_is_what_even_rows_give():
    even = summary(by_radius(torch.full((48, 48), 1 / 48), (3, 4, 4)))
    assert uniform((3, 4, 4)) == pytest.approx({column: value.item() for column, value in even.items()}, abs=1e-5)


def test_thirds_are_symmetric_and_a_block_by_name_keeps_its_number():
    assert [third(k, 8) for k in range(8)] == ["early"] * 3 + ["middle"] * 2 + ["late"] * 3
    assert [third(k, 2) for k in range(2)] == ["early", "late"] and third(13, 42) == "early" and third(28, 42) == "late"
    model = small_model(layers=3, length=2)
    rows = list(attention_rows(model, world_clips((1,), model), (0.5,), blocks=[-1]))
    assert [(r["block"], r["depth"]) for r in rows] == [(2, "late")]


def test_rows_by_depth_are_one_per_clip_with_means_over_blocks_and_noise():
    about = {"arm": "base", "seed": 0}
    table = pd.DataFrame([about | {"item": i, "block": b, "depth": third(b, 3), "t": t, "near_1": 10 * i + b + t}
                          for i in (1, 2) for b in range(3) for t in (0.0, 0.5)])
    found = by_depth(table, ["near_1"])
    assert found["near_1_early"].tolist() == [10.25, 20.25] and found["near_1_all"].tolist() == [11.25, 21.25]
    assert by_depth(table, ["near_1"], keys=["t"])["near_1_late"].tolist() == [12, 12.5, 22, 22.5]


# ---------------------------------------------------------------------------------------------- stay or follow
def shares(clip, cell, offset):
    """Shares of background points for attention that looks `offset` tokens to the right per latent frame passed."""
    keys, (f, h, w) = Keys.of(clip, cell), (3, 12, 12)
    p = torch.zeros(1, 1, f * h * w, f, h, w)
    for n in range(f * h * w):
        i, y, x = n // (h * w), n // w % h, n % w
        for j in range(f):
            p[0, 0, n, j, y, min(max(x + offset * (j - i), 0), w - 1)] = 1 / f
    rows = taps.Rows(p, p.flatten(3), torch.arange(f * h * w))
    return keys.shares(WindowMass(keys.tokens[None]).add(None, rows)[0], "background")


def test_following_and_staying_attention_are_told_apart_under_a_pan():
    model = small_model(length=3)
    for item, clip in pan_clips((3, 4), model, FAST).items():              # the ground moves 3.6 of 4 pixels per latent
        way = -1 if clip.scene.camera.pan[0] > 0 else 1                      # content goes against the camera
        follows, stays = shares(clip, 4, way), shares(clip, 4, 0)
        assert follows["queries_2"] > 20 and (clip.scene.actors[0].heading == "left") == (way < 0)
        assert (follows["there_1"], follows["here_1"], follows["opposite_1"]) == pytest.approx((1, 1, 0), abs=1e-6)
        assert (follows["there_2"], follows["here_2"], follows["opposite_2"]) == pytest.approx((1, 0, 0), abs=1e-6)
        assert (stays["there_1"], stays["here_1"], stays["opposite_1"]) == pytest.approx((1, 1, 1), abs=1e-6)
        assert stays["here_2"] == pytest.approx(1) and stays["there_2"] == pytest.approx(stays["opposite_2"])
        assert stays["there_2"] < 0.9


def test_windows_hold_what_lies_within_one_token_and_inside_the_frame():
    p = torch.arange(12.0).reshape(1, 1, 3, 4)
    found = window_sums(p)[0, 0]
    assert found[1, 1] == pytest.approx(p[0, 0, :3, :3].sum()) and found[0, 0] == pytest.approx(0 + 1 + 4 + 5)


def test_content_that_stays_in_its_token_does_not_count():
    model = small_model(layers=1, length=3, stir=0.05)
    rows = list(follow_rows(model, pan_clips((3,), model)))        # 0.4 tokens per latent, from the middle of a token
    assert [r["point"] for r in rows] == ["foreground", "background"]
    slow = rows[1]
    assert slow["queries_1"] == 0 and math.isnan(slow["there_1"]) and slow["queries_2"] > 5
    assert 0 < slow["there_2"] < 1 and 0 < slow["here_2"] < 1
    drawn = by_place(pd.DataFrame([slow | {"pan": PAN}]), {("background", PAN, 2): "two"})
    assert dict(zip(drawn["series"], drawn["share"])) == {f"small {place}": slow[f"{place}_2"] for place in WHERE}


# ---------------------------------------------------------------------------------------------- maps
@pytest.fixture(scope="module")
def scene():
    model = small_model(layers=2, length=3, stir=0.1)
    return model, *next(iter(world_clips((5,), model).items()))


def test_the_first_step_of_the_release_is_a_clip_noised_to_nothing(scene):
    model, item, clip = scene
    one = attention_maps(model, item, clip, "release", frame=1, steps=1)
    noised = attention_maps(model, item, clip, frame=1, t=0.0)
    for name, rows in one.rows.items():                            # the conditional half only, under this caption
        assert np.allclose(rows, noised.rows[name], atol=2e-4) and rows.shape == (144, 3, 12, 12)
    assert one.frames.shape == clip.frames.shape and one.steps == 1 and noised.frames is clip.frames
    silent = attention_maps(model, item, CaptionedClip(clip.frames), frame=1, t=0.0)
    assert not np.allclose(one.rows["transformer_blocks.1"], silent.rows["transformer_blocks.1"], atol=2e-4)


def test_release_sums_over_steps_and_a_token_is_a_row_of_it(scene):
    model, item, clip = scene
    (row,) = release_rows(model, {item: clip}, steps=2, blocks=[1], frame=1)
    assert row["block"] == 1 and row["steps"] == 2 and 1.5 < row["mass_0"] + 2 * row["mass_1"] < 2
    maps = attention_maps(model, item, clip, blocks=[0], frame=1)
    seen = tapped(model, {item: clip}, 0.5, {"map": taps.QueryMap(1, 7, 3)}, [0])
    (ours,), ((call,),) = maps.of((7, 3)).values(), seen.values()
    assert np.allclose(ours, call["map"].mean(1)[0], atol=1e-6)


def test_peaks_and_shares_of_hand_made_maps():
    rows = np.zeros((4, 3, 2, 2), np.float32)                               # queries of frame 1 in a grid of 3 x 2 x 2
    rows[np.arange(4), 1, np.arange(4) // 2, np.arange(4) % 2] = 0.5
    rows[0, 2, 0, 0] = 0.4
    found = frame_summary(rows, 1)
    assert found == pytest.approx(
        {"mass_0": 0.5, "near_0": 1, "peak_0": 0.5, "mass_1": 0.05, "near_1": 1, "peak_1": 0.2})


def test_queries_outside_and_wrong_names_are_refused_with_help(scene):
    model, item, clip = scene
    assert token_at(model, (0, 47)) == (11, 0) and token_at(model, [3.4, 3.6]) == (1, 0)
    y, x = token_at(model, subject_point(clip, 1))
    assert token_labels(clip)[1, y, x] != 0
    for point, words in (((48, 3), r"\(48, 3\) lies outside the frame of 48 x 48"), ((1, -2), "Give x in 0 to 47"),
                         ("middle", "two numbers"), (None, "is None")):
        with pytest.raises(MotionLabError, match=words):
            token_at(model, point)
    with pytest.raises(MotionLabError, match="no query frame 4 in a clip of 3"):
        attention_maps(model, item, clip, frame=4)
    with pytest.raises(MotionLabError, match="transformer_blocks.1"):
        attention_maps(model, item, clip, blocks=["transformer_block.1"])
    with pytest.raises(MotionLabError, match="recipe"):
        attention_maps(model, item, clip, "realese")


def test_the_picture_of_maps_shows_the_tables_numbers(scene):
    model, item, clip = scene
    table = pd.DataFrame(attention_rows(model, {item: clip}, (0.5,)))
    pictures, mass = labelled({"small": attention_maps(model, item, clip, frame=1)}, (3, 4), table, frame=1)
    assert list(pictures) == ["small,\nblock 0", "small,\nblock 1"] and pictures["small,\nblock 0"].shape == (3, 12, 12)
    fig = figures.attention_pictures(clip.frames[::4], pictures, (1, 3, 4), mass)
    bars = [patch.get_height() for patch in fig.axes[7].patches]
    want = table[table["block"] == 0].iloc[0]
    assert bars == pytest.approx([want["mass_1"], want["mass_0"], want["mass_1"]])
    assert [label.get_text() for label in fig.axes[-1].get_xticklabels()] == ["1", "2", "3"]
    fig.draw_without_rendering()
    assert fig.get_tightbbox().x0 >= 0
