"""What a tracker's features are asked in notebooks: tau, windows, cross terms, and heads fitted alone on exact transport."""
import numpy as np
import pytest
import torch
from torch import nn

from motionlab import figures
from motionlab.core.errors import MotionLabError
from motionlab.correlation import inside
from motionlab.data.prompts import load_prompts
from motionlab.data.seen import Seen
from motionlab.experiments import crossing, projecting, trackers
from motionlab.methods import open_method
from motionlab.papers.sam2videox.gram_flow import cross_terms
from motionlab.papers.sam2videox.projectors import GROUP, InterpolatedLast, Strided, make_projector
from small import small_model


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    return small_model(layers=2, length=3, stir=0.1)


@pytest.fixture(scope="module")
def prompts():
    return load_prompts("examples/plain", 3)


def test_the_truth_finds_everything_and_colours_less_at_every_temperature(pipe, prompts):
    exact = trackers.matched(prompts, pipe, open_method("sam2videox", teacher="exact"))
    rows = trackers.matched(prompts, pipe, open_method("sam2videox", teacher="patches"), (0.05, 0.2))
    assert len(exact) == 3 and all(row["hit"] == 1 for row in exact if not np.isnan(row["hit"]))
    assert len(rows) == 6 and {row["tau"] for row in rows} == {0.05, 0.2} and {row["arm"] for row in rows} == {"patches"}
    sharp, flat = (np.nanmean([row["entropy"] for row in rows if row["tau"] == tau]) for tau in (0.05, 0.2))
    assert sharp < flat


def test_one_place_is_the_one_that_goes_furthest(pipe, prompts):
    frames, (y, x), found = trackers.one_place(prompts[0], pipe, ["patches"], "")
    assert frames.shape[0] == 2 and 0 <= y < 12 and 0 <= x < 12 and list(found) == ["exact", "patches"]
    assert found["exact"].sum() == pytest.approx(1) and found["exact"].argmax() != 24 and found["patches"].sum() == pytest.approx(1)
    fig = figures.windows(frames, (y, x), found, (12, 12), "sam2videox", says="found")
    assert len(fig.axes) == 4 and fig.get_suptitle() == "found" and fig.axes[2].get_title().startswith("exact transport")


def test_windows_hold_more_with_their_radius_and_less_with_time(pipe, prompts):
    rows = trackers.window_rows(prompts[:2], pipe, radii=(1, 3))
    by = {(row["item"], row["arm"], row["radius"]): row for row in rows}
    for item in {row["item"] for row in rows}:
        assert by[item, "every 4", 1]["reached"] <= by[item, "every 4", 3]["reached"] <= 1
        assert by[item, "every 4", 1]["reached"] <= by[item, "every 1", 1]["reached"] + 1e-6


def test_without_weights_a_tracker_of_random_ones_serves_at_smoke_alone(tmp_path, monkeypatch):
    pytest.importorskip("motionlab.teachers.sam2_build")

    def missing(name):
        raise MotionLabError(f"There is no checkpoint '{name}'.")

    monkeypatch.setattr(trackers, "shipped", missing)
    with pytest.raises(MotionLabError, match="no checkpoint 'sam2'"):
        trackers.tracker_file("laptop", tmp_path)
    monkeypatch.setattr(trackers, "load_prompts", lambda name, n: name)
    for tier, judged, split in (("smoke", True, "examples"), ("laptop", False, "dev"), ("full", True, "test")):
        assert trackers.shown_prompts(tier, 1, judged=judged) == f"{split}/plain" != trackers.fitting_prompts(tier, 1)
    monkeypatch.setattr(trackers, "shipped", lambda name: tmp_path / name)
    assert trackers.tracker_file("laptop", tmp_path) == (str(tmp_path / "sam2"), "the shipped small SAM2")


def test_cross_terms_are_half_of_two_memories_that_know_nothing_of_each_other_and_none_of_one(prompts, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(3, 5, 12, 12, 64, generator=generator) for _ in range(2))

    def rows(forward, backward, kept=(True, True, False)):
        seen = Seen(forward, backward, torch.full((3, 4), 0.5), torch.tensor(kept))
        monkeypatch.setattr(crossing, "seen", lambda shown, *a: seen)
        monkeypatch.setattr(crossing, "draw_shown", lambda *a: np.zeros((5, 4, 4, 4), np.uint8))
        return crossing.cross_rows(prompts, cross_terms, (12, 12), 17, "sam2")

    apart = rows(one, other)
    assert 0.3 < apart[0]["cross_share"] < 0.5 and apart[0]["changed"] > 0.3 and np.isnan(apart[2]["cross_share"])
    same = rows(one, one)
    assert same[0]["cross_share"] == pytest.approx(0.5, abs=0.01) and same[0]["changed"] == 0


def test_a_clip_through_a_trackers_eyes(prompts, monkeypatch):
    """Masks as a tracker would give them, all but them paled; features as colours, both ways in one basis."""
    from motionlab.experiments import followed

    def look(shown, teacher, checkpoint):
        features, masks = torch.randn(1, 5, 4, 4, 6, generator=torch.Generator().manual_seed(0)), torch.from_numpy(shown[..., 3] > 127)
        return Seen(features, features.flip(2), torch.full((1, 4), 0.5), torch.ones(1, dtype=torch.bool), masks)

    monkeypatch.setattr(followed, "seen", look)
    monkeypatch.setattr(followed, "draw_shown", lambda source, i, teacher, every: np.concatenate(
        [source.clip(i).frames[::every], 255 * source.clip(i).object_mask(0)[::every, :, :, None].astype(np.uint8)], -1))
    strips, iou = followed.masks_of(prompts[0], "")
    assert iou["sam2"] == 1 > iou["copied"] and np.array_equal(strips["sam2"], strips["exact_mask"]) and (strips["copied"][0] == strips["sam2"][0]).all()
    outside = ~prompts[0].clip().object_mask(0)[0]
    assert (strips["exact_mask"][0][outside] >= 191).all() and (strips["exact_mask"][0][~outside] == strips["clip"][0][~outside]).all()
    pictures = followed.pictures_of(prompts[0], "")
    assert pictures["memory_first"].shape == (5, 4, 4, 3) and np.array_equal(pictures["memory_first"], pictures["memory_last"][:, ::-1])


# ---------------------------------------------------------------------------------------------- heads fitted alone
def identity(kind, width):
    """A projector whose steps in time are its own and whose projection is none."""
    head = kind(width, width)
    with torch.no_grad():
        nn.init.eye_(head.skip.weight), nn.init.zeros_(head.skip.bias)
        nn.init.zeros_(head.project.layers[-1].weight), nn.init.zeros_(head.project.layers[-1].bias)
    return head


def test_interpolated_last_says_that_nothing_moves_and_one_frame_per_latent_finds_it():
    """The method card's numbers (2.3): 100 % at their own place, where all move by one cell a frame."""
    arms = {"interp_last": (identity(InterpolatedLast, 64), 4, 1), "latent_stride": (identity(Strided, 64), 1, 1)}
    rows = list(projecting.moving_rows(arms, n=2))
    assert all(row["own_place"] > 0.98 and row["hit"] < 0.02 for row in rows if row["arm"] == "interp_last")
    assert all(row["hit"] > 0.98 for row in rows if row["arm"] == "latent_stride")


def test_a_head_learns_where_places_go_and_is_judged_on_other_clips(pipe, prompts):
    held = projecting.hidden_states(pipe, prompts, [0, 1])
    assert list(held) == [0, 1] and held[0].hidden.shape[:4] == (3, 3, 12, 12) and not torch.equal(held[0].hidden, held[1].hidden)
    truth, known = projecting.transports(held[0], pipe, 4, (12, 12))
    assert truth.shape == (3, 2, 12, 12, 49) and torch.allclose(truth.sum(-1)[known], torch.ones(()), atol=1e-3)
    fine, _ = projecting.transports(held[0], pipe, 1, (24, 24))
    assert fine.shape == (3, 8, 24, 24, 49)
    head = make_projector("latent_stride", held[0].hidden.shape[-1], 16)
    before, after = ({row["item"]: row["kl"] for row in projecting.said_rows(head, held[0], truth, known, "x")} if k == 0 else
                     {row["item"]: row["kl"] for row in projecting.said_rows(projecting.fitted(head, held[0], truth, known, 30), held[0], truth, known, "x")}
                     for k in (0, 1))
    assert np.mean(list(after.values())) < 0.8 * np.mean(list(before.values()))
    every = {"latent_stride": GROUP}
    rows = list(projecting.projector_rows(lambda name, width: make_projector(name, width, 16), ["latent_stride", "spatial"],
                                          lambda name: every.get(name, 1), pipe, held[1], held[0], 1, block=1))
    assert len(rows) == 6 and {row["block"] for row in rows} == {1} and {row["arm"] for row in rows} == {"latent_stride", "spatial"}


def test_places_that_stay_are_counted_among_those_that_move():
    truth = torch.zeros(1, 1, 1, 2, 9).index_put_((torch.tensor(0), torch.tensor(0), torch.tensor(0), torch.arange(2), torch.tensor([5, 4])), torch.ones(()))
    p = torch.zeros_like(truth)
    p[..., 4] = 1
    assert projecting.stays(p, truth, torch.ones(1, 1, 1, 2, dtype=torch.bool)).tolist() == [1.0] and inside(1, 2, 1).shape == (1, 2, 9)


# ---------------------------------------------------------------------------------------------- figures
def test_rungs_stand_side_by_side_with_comparator_and_ceiling():
    import pandas as pd

    table = pd.DataFrame([{"item": f"{k}", "arm": arm, "rung": rung, "value": value + k / 100} for k in range(6) for arm, rung, value in
                          (("full", "features", 0.6), ("plain", "features", 0.2), ("full", "samples", 0.2), ("plain", "samples", 0.25), ("reconstruction", "samples", 0.1))])
    fig = figures.rungs(table, ["plain", "full", "repa"], {"features": "hit", "samples": "structure_0"}, "plain", {"samples": "reconstruction"}, "sam2videox", "said")
    left, right = fig.axes
    assert left.get_title().startswith("1. ") and "more" in left.get_xlabel() + "more" and "better" in left.get_xlabel() and len(right.lines) > len(left.lines)
    assert [label.get_text() for label in left.get_yticklabels()] == ["same budget, no cure", "SAM2VideoX"]
    assert figures.gap(table[table["rung"] == "samples"], "full", "plain", "value").startswith("-0.050 [") and figures.gap(table, "a", "plain", "value") == "not measured"
    assert figures.mean_of(table[table["rung"] == "features"], "full", "value").startswith("0.62 [")
    assert figures.best_arm(table.rename(columns={"value": "hit"}), ["full", "plain"], "hit", "sam2videox").startswith("SAM2VideoX")
