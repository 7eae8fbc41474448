"""Figures of transitions: what they say follows from the numbers, whatever arms are there; printed cells are the card's."""
import numpy as np
import pandas as pd
import pytest

from motionlab import figures
from motionlab.core.errors import MotionLabError
from motionlab.experiments.printed import printed_cells
from motionlab.experiments.transition_tables import TIMES, long_form
from motionlab.figures.transitions import falls, nearest_to_truth, same_order

LEVELS = {"truth": (1.0, 0.15), "cross_fade": (0.6, 0.15), "plain": (0.8, 0.3), "vtg": (0.9, 0.25), "diffmorpher": (0.85, 0.4)}


@pytest.fixture
def table():
    rng, rows = np.random.default_rng(0), []
    for arm, (edge, jump) in LEVELS.items():
        for k in range(12):
            noise = 0.01 * rng.normal(size=3)
            rows.append({"item": f"blend/{k:03d}", "arm": arm, "seed": 0, "task": "blend", "edge": edge + noise[0], "jump": jump + noise[1],
                         "edge_fall": 0.1 * (1 - edge) + 0.1 * noise[2], "fid": 10 * (1 - edge), "ppl": 5 * jump,
                         **{f"edge_f{f}": edge - 0.01 * f for f in range(9)}})
    return pd.DataFrame(rows)


def words(fig):
    return fig.get_suptitle().replace("\n", " ")


def test_the_plane_says_who_is_crisp_and_who_is_even_and_leaves_out_what_is_not_there(table):
    fig = figures.transition_plane(table, ["truth", "cross_fade", "cut", "plain", "vtg"], "vtg")
    assert "Crispest middle (n = 12): VTG 0.90, then generator alone, +0.10" in words(fig) and "Most even way (n = 12): VTG" in words(fig)
    assert "n = 12" in words(fig) and len(fig.legends[0].get_texts()) == 4
    close = table.assign(edge=table["edge"].where(table["arm"] != "vtg", 0.8 + 0.05 * np.tile([1, -1], len(table) // 2)))
    assert "not apart" in nearest_to_truth(close.groupby(["arm", "item"])[["jump", "edge"]].mean(), ["plain", "vtg"], "vtg")
    assert "nothing can be compared" in nearest_to_truth(table.groupby(["arm", "item"])[["jump", "edge"]].mean(), ["vtg"], "vtg")


def test_an_arm_without_a_jump_is_no_point(table):
    frozen = table[table["arm"] == "plain"].assign(arm="frozen", jump=np.nan)
    fig = figures.transition_plane(pd.concat([table, frozen]), ["frozen", "plain", "vtg"], "vtg")
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["generator alone", "VTG"]


def test_contrasts_are_told_where_both_arms_are_there(table):
    said = figures.contrasts(table, [("vtg", "plain", "edge", "blend"), ("gi", "vtg", "edge", "blend"), ("vtg", "plain", "edge", "pose")], "vtg")
    assert said.startswith("edge of the middle, VTG − generator alone: +0.10 [") and said.endswith("n = 12 of blend") and said.count("n = ") == 1
    assert "None of these" in figures.contrasts(table, [("gi", "vtg", "edge", "blend")])


def test_edges_by_frame_say_what_is_lost(table):
    fig = figures.edges_by_frame(table, ["truth", "plain", "vtg", "cut"], "vtg")
    from test_figures import assert_not_clipped

    assert_not_clipped(fig)
    assert "true clips -0.000" in words(fig) and "generator alone +0.020" in words(fig) and len(fig.axes[0].lines) == 4
    assert falls(table, ["cut"], "vtg") == "No arm shows edges"


def test_printed_cells_are_the_cards_and_orders_are_counted(table):
    cells = printed_cells("vtg")
    by_place = {(cell["column"], cell["method"]): cell for cell in cells}
    assert by_place["FID metamorphosis", "VTG"]["value"] == 67.39 and by_place["PPL metamorphosis", "DiffMorpher"]["doubt"]
    assert by_place["TCR attribute", "VTG"]["doubt"] and not by_place["FID metamorphosis", "SEINE"]["arm"]
    columns = {"FID metamorphosis": ("fid", "blend"), "PPL metamorphosis": ("ppl", "blend")}
    assert same_order(cells, table, columns).endswith("FID metamorphosis: 3 of 3,  PPL metamorphosis: 1 of 3")
    fig = figures.beside_printed(cells, table, columns, "vtg")
    assert len(fig.axes) == 4 and "FID metamorphosis: 3 of 3" in words(fig)
    assert same_order(cells, table, {"FID animation": ("fid", "pose")}) == "No two printed methods are built"
    with pytest.raises(MotionLabError, match="Write what the paper printed"):
        printed_cells("det")


def test_predictions_in_long_form_are_a_curve_per_name():
    row = {"item": "a", "arm": "x", "half": "reversible"} | {f"{n}_t{t:.2f}": t for n in ("forward", "fused") for t in TIMES} | {"forward_f0": 1.0, "forward_f1": 2.0}
    by_time, by_frame = long_form(pd.DataFrame([row])), long_form(pd.DataFrame([row]), by="frame")
    assert list(by_time["t"]) == list(by_time["error"]) and set(by_time["predicted"]) == {"forward", "fused"} and len(by_time) == 10
    assert list(by_frame["error"]) == [1.0, 2.0] and list(by_frame["frame"]) == [0, 1]
