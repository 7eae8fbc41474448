"""Attention by frame offset and distance: hand-made maps with known answers, and a tiny backbone end to end."""
import pytest
import torch

from motionlab.analyses.attention import attention_rows, summary
from small import small_model
from motionlab.analyses.inputs import world_clips


def displaced(full, grid):
    """DisplacementMass of explicit rows (n, n), mean over queries."""
    f, h, w = grid
    out = torch.zeros(1, 1, 2 * f - 1, 2 * h - 1, 2 * w - 1)
    for q in range(f * h * w):
        for k in range(f * h * w):
            a, b = ((i // (h * w), i // w % h, i % w) for i in (q, k))
            out[0, 0, b[0] - a[0] + f - 1, b[1] - a[1] + h - 1, b[2] - a[2] + w - 1] += full[q, k] / (f * h * w)
    return out


def test_uniform_attention_gives_every_frame_its_share():
    grid = (3, 4, 4)
    found = summary(displaced(torch.full((48, 48), 1 / 48), grid))
    assert all(found[f"mass_{d}"].item() == pytest.approx(1 / 3, abs=1e-5) for d in range(3))
    window = (4 / 16 * 4 + 6 / 16 * 8 + 9 / 16 * 4) / 16                       # tokens within one of corner, edge, middle
    assert found["near_1"].item() == pytest.approx(window, abs=1e-5)


def test_attention_to_the_same_place_in_the_next_frame_is_found_there():
    grid, full = (3, 2, 2), torch.zeros(12, 12)
    for q in range(12):
        full[q, q + 4 if q < 8 else q] = 1.0
    found = summary(displaced(full, grid))
    assert found["mass_1"].item() == pytest.approx((8 / 12) * 3 / 2 / 2) and found["near_1"].item() == 1
    assert found["mass_0"].item() == pytest.approx(4 / 12) and found["mass_2"].item() == 0


def test_rows_of_a_tiny_backbone_add_up():
    model = small_model(layers=2, length=3)
    rows = list(attention_rows(model, world_clips((1, 2, 3), model), (0.3, 0.7), batch=2))
    assert len(rows) == 3 * 2 * 2 and {r["block"] for r in rows} == {0, 1} and {r["arm"] for r in rows} == {"small"}
    for r in rows:
        frames = r["mass_0"] + 2 * r["mass_1"] * 2 / 3 + 2 * r["mass_2"] / 3      # undo the average over existing offsets
        assert frames + r["text"] == pytest.approx(1, abs=1e-2) and 0 < r["entropy"] < 7
