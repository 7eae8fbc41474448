"""Tables and figures of motion transfer: sentences say what the numbers do, and every arm that is there is drawn."""
import numpy as np
import pandas as pd
import pytest

from motionlab import figures
from motionlab.experiments import transfer_tables
from motionlab.figures import Seen

ARMS = ("truth", "base", "det", "lora")
LEVEL = {"truth": (1.0, 0.98, 0.0), "base": (0.0, 0.95, 0.0), "det": (0.7, 0.9, 0.05), "lora": (0.5, 0.6, 0.35)}


@pytest.fixture(scope="module")
def sweep():
    """Rows as `experiments.transfer` makes them: kernel ahead of LoRA; LoRA loses motion and gains look on hard bodies, and leaks there."""
    rng, rows = np.random.default_rng(0), []
    for arm in ARMS:
        for k in range(24):
            route, tier = divmod(k, 3)
            hard = tier if arm == "lora" else 0
            m, edit, leak = LEVEL[arm]
            row = {"item": f"transfer/{k:02d}", "arm": arm, "seed": 0, "kind": ("easy", "medium", "hard")[tier], "route": route}
            m, edit, leak = m - 0.15 * hard, edit + 0.1 * hard, leak + 0.1 * hard
            for reader in "01":
                a, b = m + rng.normal(0, 0.03), edit + rng.normal(0, 0.01)
                row |= {f"m_{reader}": a, f"edit_{reader}": b, f"score_{reader}": 2 * max(a, 0) * b / (max(a, 0) + b), f"route_{reader}_b": m}
            rows.append(row | {"leak": leak + rng.normal(0, 0.01)})
    return pd.DataFrame(rows)


def texts(fig):
    return " ".join([fig.get_suptitle(), *(t.get_text() for ax in fig.axes for t in [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]),
                     *(t.get_text() for legend in fig.legends for t in legend.get_texts())])


# ---------------------------------------------------------------------------------------------- tables
def test_hard_less_easy_on_one_route(sweep):
    rows = pd.DataFrame(transfer_tables.by_tier(sweep, ["det", "lora"]))
    assert len(rows) == 16 and set(rows["item"]) == {f"route {k}" for k in range(8)}
    means = rows.groupby("arm").mean(numeric_only=True)
    assert means.loc["lora", "m_hard_minus_easy_0"] == pytest.approx(-0.3, abs=0.05)
    assert means.loc["lora", "leak_hard_minus_easy"] == pytest.approx(0.2, abs=0.03) and abs(means.loc["det", "edit_hard_minus_easy_1"]) < 0.03
    one = sweep[(sweep["arm"] == "lora") & (sweep["route"] == 2)].set_index("kind")["m_0"]
    row = rows[(rows["arm"] == "lora") & (rows["item"] == "route 2")].iloc[0]
    assert row["m_hard_minus_easy_0"] == pytest.approx(one["hard"] - one["easy"]) and row["m_medium_0"] == pytest.approx(one["medium"])
    assert transfer_tables.by_tier(sweep[sweep["kind"] != "hard"], ["lora"]) == []


def corners(wrong=()):
    """Corner rows of four tasks: everything moves as it should, but in the arms named wrong."""
    rows = []
    for k in range(4):
        for arm, share in [("truth", 0), *((f"route_{s}", s) for s in (25, 50, 75, 100)), *((f"clutter_{s}", s) for s in (25, 50, 75, 100))]:
            gone, there = (share if arm.startswith(name) else 0 for name in ("route", "clutter"))
            gone = 0 if arm in wrong else gone
            row = {"item": f"t/{k}/a0", "task": f"t/{k}", "target": "a", "kind": "easy", "route": k, "arm": arm, "seed": 0, "leak": there / 100}
            rows.append(row | {f"{m}_{r}": 1 - gone / 100 for m in ("mf", "route") for r in "01"})
    return rows


def test_corners_in_order_reader_by_reader():
    rows = pd.DataFrame(transfer_tables.in_order(corners()))
    assert list(zip(rows["arm"], rows["item"])) == [("mf", "0"), ("mf", "1"), ("route", "0"), ("route", "1"), ("leak", "even routes"), ("leak", "odd routes")]
    assert (rows["in_order"] == 1).all() and (rows["steps_in_order"] == 1).all() and rows["at_4"].tolist() == [0, 0, 0, 0, 1, 1]
    spoiled = pd.DataFrame(transfer_tables.in_order(corners(wrong=["route_75"])))
    assert spoiled["in_order"].tolist() == [0, 0, 0, 0, 1, 1] and spoiled["steps_in_order"][0] == 0.75
    doses = transfer_tables.corner_doses(pd.DataFrame(corners()))
    assert set(doses["kind"]) == {"mf", "route", "leak"} and sorted(set(doses["dose"])) == [0, 25, 50, 75, 100]
    assert len(doses[doses["kind"] == "leak"]) == 20 and set(doses.loc[doses["kind"] == "leak", "reader"]) == {"0"}


def test_arms_on_common_tasks_further_seeds_and_what_is_behind(sweep):
    few = sweep[(sweep["arm"] != "lora") | (sweep["route"] < 2)]
    assert len(transfer_tables.paired(few, ["det", "lora"])) == 12 and transfer_tables.of_all(few, ["lora", "sma", "det"]) == ["lora", "det"]
    more = pd.concat([sweep, sweep[sweep["arm"] == "det"].assign(arm="det_12", seed=1)])
    assert sorted(transfer_tables.all_seeds(more).query("arm == 'det'")["seed"].unique()) == [0, 1]
    said = transfer_tables.behind(sweep, "det", ["lora", "sma"], ["m_0", "edit_1", "leak"])
    assert said == "2 of 3 comparisons are behind; not so: lora in clutter of the source"


def test_smoke_never_looks_at_tasks_that_judge():
    assert [task.id for task in transfer_tables.judged_tasks("smoke", 5)] == ["transfer_examples/00", "transfer_examples/01"]
    assert transfer_tables.judged_tasks("laptop", 2)[1].id == "transfer/01"


# ---------------------------------------------------------------------------------------------- figures
def test_plane_names_the_leader_and_draws_every_arm_that_is_there(sweep):
    fig = figures.plane(sweep, [*ARMS, "sma"], "det")
    assert "Both readers put the same arm first" in fig.get_suptitle() and "temporal kernel 0.7" in fig.get_suptitle()
    said = texts(fig)
    assert all(label in said for label in ("the true answer", "LoRA", "true clip", "score 0.4")) and "SMA" not in said
    leak = figures.plane(sweep, ARMS, "det", upwards="leak", says=figures.leaks(sweep, ARMS, "det"))
    assert "LoRA +0.4" in leak.get_suptitle() and leak.get_suptitle().index("LoRA") < leak.get_suptitle().index("kernel")
    assert "← better" in texts(leak)


def test_readers_that_disagree_are_told(sweep):
    odd = sweep.copy()
    odd.loc[odd["arm"] == "lora", "score_1"] = 0.99
    assert "The readers put different arms first" in figures.leader(odd, ["det", "lora"], "det")
    assert "nothing can be compared" in figures.leader(sweep, ["det"], "det")


def test_tiers_tell_for_whom_motion_falls(sweep):
    fig = figures.tiers(sweep, ["det", "lora"], "det")
    assert "motion falls for LoRA" in fig.get_suptitle() and "look rises for LoRA" in fig.get_suptitle() and "clutter grows for LoRA" in fig.get_suptitle()
    assert [t.get_text() for t in fig.axes[0].get_xticklabels()] == ["easy", "medium", "hard"]
    assert "nothing can be compared" in figures.by_difficulty(sweep[sweep["kind"] == "easy"], ["lora"], "det")


def test_settings_and_what_is_best(sweep):
    knob = {1: "lora", 3: "det"}
    assert figures.best_of(sweep, knob) == {"0": 3, "1": 3}
    fig = figures.settings(sweep, {"frames": knob}, "det", asides={"last": "base"}, says="found")
    assert fig.get_suptitle() == "found" and [t.get_text() for t in fig.axes[-1].get_xticklabels()] == ["1", "3", "last"]
    said = figures.difference(sweep, "det", "lora", "m")
    assert said.startswith("+0.3") and said.count("[") == 2
    assert figures.difference(sweep, "det", "lora", "leak").count("[") == 1 and figures.difference(sweep, "det", "sma") == "not measured"
    assert figures.difference(sweep, "det", "base", "route_b").startswith("+0.70")


def test_ways_are_drawn_on_frames_and_beside_them():
    frames, way = np.full((5, 16, 16, 3), 200, np.uint8), np.stack([np.linspace(2, 12, 5), np.full(5, 8.0)], -1)
    painted = figures.way_frames(frames, way, "#c4512d")
    assert painted.shape == (5, 144, 144, 3)
    red = (np.abs(painted.astype(int) - [0xC4, 0x51, 0x2D]).sum(-1) < 30).sum((1, 2))
    assert (np.diff(red) > 0).all()                                                     # the way so far
    assert np.array_equal(figures.way_frames(frames, np.full((5, 2), np.nan)), figures.enlarge(frames, 144))
    fig = figures.ways(Seen(frames, way), {"det": Seen(frames, way, 0.83), "base": Seen(frames, np.full((5, 2), np.nan))}, "det", "finding", every=1)
    said = texts(fig)
    assert fig.get_suptitle() == "finding" and "way 0.83" in said and "nothing is seen" in said and "temporal kernel" in said


def test_sampled_points_count_those_on_small_parts():
    picture, body = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool)
    small = np.zeros((8, 8), bool)
    small[0] = True
    points = np.array([[0.0, 0.0], [3.0, 0.0], [4.0, 5.0], [6.0, 6.0]])
    table = pd.DataFrame([{"item": str(k), "arm": arm, "share_over_area": v} for k in range(3) for arm, v in (("weighted", 1.5), ("uniform", 1.0))])
    fig = figures.sampled_points({arm: (picture, small, body, points) for arm in ("weighted", "uniform")}, table, "det")
    assert "by distance: 50% on small parts" in texts(fig) and "12% of its area" in texts(fig) and "by distance 1.50 [1.50, 1.50]" in fig.get_suptitle()
