"""Figures: what they draw is what the table says, in words as well as in colour, under one label and colour for each arm."""

import ast
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from motionlab import figures
from motionlab.core.errors import MotionLabError
from motionlab.metrics.frechet import Frechet

ROOT = Path(__file__).resolve().parents[1]
ARMS = ("identity", "frame_shuffle", "frozen")


@pytest.fixture
def table():
    """Ten clips: each arm's scores are a known mean and a small spread; VTG's smoothness of a frozen clip is 0/0."""
    means = {
        "mf_paper": (1.0, 0.4, 0.3), "mf_release": (0.9, 0.5, 0.4), "mf_dmt": (1.0, 0.1, 0.0),
        "dynamic_top5": (5.0, 15.0, 0.0), "smoothness": (0.99, 0.95, 1.0), "vtg_smoothness": (0.9, 0.8, np.nan),
        "roughness": (0.1, 0.15, 0.0),
    }
    wobble = np.linspace(-1, 1, 10)
    return pd.DataFrame([
        {"item": f"clip-{k}", "arm": arm} | {m: v[i] * (1 + 0.002 * wobble[k]) for m, v in means.items()}
        for i, arm in enumerate(ARMS) for k in range(10)
    ])


def texts(ax):
    return [text.get_text() for text in ax.texts]


def marks(ax):
    """{row: x} of the mean marks of one panel, and [(row, low, high)] of its intervals."""
    means, bars = {}, []
    for container in ax.containers:
        line, _, (bar,) = container.lines
        means[line.get_ydata()[0]] = line.get_xdata()[0]
        (low, row), (high, _) = bar.get_segments()[0]
        bars.append((row, low, high))
    return means, bars


def assert_not_clipped(fig):
    """Everything drawn, text included, lies inside the figure."""
    fig.draw_without_rendering()
    drawn, page = fig.get_tightbbox(), fig.bbox_inches
    assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= page.x1 and drawn.y1 <= page.y1


def test_scores_without_a_reference_stand_each_on_its_own_axis(table):
    fig = figures.ladder(table, figures.NO_REFERENCE, marked=ARMS)
    smoothness, vtg, roughness = fig.axes[1:]
    means, bars = marks(smoothness)
    assert means == pytest.approx({0: 0.99, 1: 0.95, 2: 1.0})          # the frozen clip stands right of the original ...
    assert all(low < means[row] < high for row, low, high in bars) and len(bars) == 3
    low, high = smoothness.get_xlim()
    assert (1.0 - 0.99) / (high - low) > 0.1                           # ... by a distance that can be seen
    assert marks(roughness)[0][2] == 0 < marks(roughness)[0][0]        # less is called better: frozen wins again
    assert texts(vtg) == ["undefined"] and set(marks(vtg)[0]) == {0, 1}
    assert "← called better" in roughness.get_xlabel() and "called better →" in smoothness.get_xlabel()
    assert len({ax.get_xlim() for ax in fig.axes}) == 4
    assert_not_clipped(fig)


def test_marked_arms_differ_in_shape_not_only_in_colour(table):
    ax = figures.ladder(table, figures.NO_REFERENCE, marked=ARMS).axes[0]
    assert len({container.lines[0].get_marker() for container in ax.containers}) == 3


def test_fidelities_share_one_axis_from_0_to_1(table):
    fig = figures.ladder(table, marked=("frozen",))
    assert len({ax.get_xlim() for ax in fig.axes}) == 1
    assert [marks(ax)[0][2] for ax in fig.axes] == pytest.approx([0.3, 0.4, 0.0])
    assert_not_clipped(fig)


def test_response_matrix_says_in_words_what_its_colours_mean(table):
    fig = figures.response_matrix(table)
    ax, key = fig.axes
    said = " ".join(label.get_text() for label in key.get_xticklabels()) + key.get_xlabel()
    for words in ("red: the score falls", "blue: the score rises", "not good or bad", "AID", "better when it falls"):
        assert words in said
    cells = np.array(texts(ax)).reshape(2, len(figures.REFERENCE + figures.NO_REFERENCE))
    assert cells[1, 5] == "undefined" and cells[1, 6].startswith("-1.00") and cells[0, 3].startswith("+2.00")
    assert_not_clipped(fig)


def test_colours_of_the_matrix_point_the_way_that_the_key_says(table):
    image = figures.response_matrix(table).axes[0].images[0]
    red, _, blue, _ = image.cmap(image.norm(-1.0))
    assert red > 2 * blue
    red, _, blue, _ = image.cmap(image.norm(1.0))
    assert blue > 2 * red


def test_the_teachers_figure_is_not_clipped():
    rows = [{"arm": arm, "relative": 0.3 + 0.01 * k} for arm in ("dis", "lucas_kanade", "dis_chained") for k in range(5)]
    assert_not_clipped(figures.teacher_errors(pd.DataFrame(rows)))


# ---------------------------------------------------------------- arms side by side, and curves

@pytest.fixture
def runs():
    """Three arms, two seeds, eight prompts: the cure is better by 0.3 in look_ok and worse by 0.2 in structure."""
    better = {"base": (0.5, 0.6), "continued": (0.5, 0.6), "full": (0.8, 0.8)}
    return pd.DataFrame([{"item": f"p{k}", "arm": arm, "seed": seed, "t": t, "look_ok": look + 0.01 * (k % 3), "structure": structure}
                         for arm, (look, structure) in better.items() for seed in (0, 1) for k in range(8) for t in (0.2, 0.8)])


def test_arms_stand_under_their_labels_and_colours_with_units_and_the_better_way(runs):
    fig = figures.arms(runs, ["look_ok", "structure"], ["base", "continued", "full", "gone"], "videojam", bars={"look_ok": 0.7})
    left, right = fig.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["base", "same budget, no motion", "VideoJAM", "gone"]
    assert marks(left)[0] == pytest.approx({0: 0.509, 1: 0.509, 2: 0.809}, abs=1e-3) and texts(left) == ["undefined"]
    assert [container.lines[0].get_color() for container in left.containers] == [figures.PALETTE[c] for c in ("blue", "violet", "red")]
    assert left.get_xlabel() == "share of clips   better →" and right.get_xlabel().endswith("← better")
    assert left.get_title() == "look as asked"
    assert_not_clipped(fig)


def test_differences_are_paired_by_item_and_seed(runs):
    fig = figures.seed_spread(runs, ["look_ok", "structure"], "continued", ["full", "gone"], "videojam")
    assert marks(fig.axes[0])[0] == pytest.approx({0: 0.3}) and marks(fig.axes[1])[0] == pytest.approx({0: 0.2})
    assert_not_clipped(fig)


def test_distances_and_columns_name_their_rows(runs):
    fig = figures.distances({"base": Frechet(3.0, 2.0, 4.0, 1.0, (8, 8), False)}, ["base", "full"], "distance", "videojam")
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["base", "VideoJAM"] and texts(fig.axes[0]) == ["undefined"]
    fig = figures.columns(runs, ["look_ok", "t"], "value")
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["look as asked (share of clips)", "t (noise to clean)"]


def test_a_series_has_its_arms_colour_and_a_line_style_of_its_own(runs):
    names = ["base", "full", "unknown"]
    table = pd.concat([runs, runs[runs["arm"] == "base"].assign(arm="unknown")])
    fig = figures.curve_panels(table, "seed", [0, 1], "t", "look_ok", "arm", names, paper="videojam", zero=0)
    lines = fig.axes[0].lines[:3]
    assert [line.get_label() for line in lines] == ["base", "VideoJAM", "unknown"] and len({line.get_linestyle() for line in lines}) == 3
    assert [line.get_color() for line in lines[:2]] == [figures.look(name, "videojam")[1] for name in names[:2]]
    assert fig.axes[1].get_xlabel() == "t (noise to clean)" and fig.get_supylabel() == "look as asked (share of clips)"
    assert_not_clipped(fig)


def test_a_film_names_its_rows_as_arms():
    rows = {"frame_shuffle": np.zeros((8, 16, 16, 3), np.uint8), "what nobody knows": np.zeros((8, 16, 16, 3), np.uint8)}
    assert [ax.get_ylabel() for ax in figures.film(rows).axes] == ["frames shuffled", "what nobody knows"]


# ---------------------------------------------------------------- names, labels, colours

@pytest.mark.parametrize("name, paper, column, label, colour", [
    ("base", "", "arm", "base", "blue"),
    ("base", "testbed", "arm", "base", "blue"),                              # the kit's arms look the same in every paper
    ("full", "videojam", "arm", "VideoJAM", "red"),
    ("full", "", "arm", "full", None),                                       # a paper's own name means nothing elsewhere
    ("sweep@w1=1,w2=0", "videojam", "arm", "w1 = 1, w2 = 0", "red"),         # words in braces
    ("original", "videojam", "arm", "original", "dark"),                     # the paper's word comes before the kit's
    ("motion", "videojam", "half", "motion half", "dark"),                   # the same name, in three columns
    ("motion", "videojam", "term", "away from no motion", "red"),
    ("motion", "det", "attribute", "motion", None),
    (0.5, "videojam", "clutter", "clutter 0.5", "dark"),
    (0.0, "videojam", "clutter", "no clutter", "dark"),
    (0.3, "", "t", "t = 0.3", "dark"),
    ("Wan2.1_frozen", "det", "arm", "Wan2.1, frozen clips", "ochre"),
    ("untrained raw", "det", "series", "untrained", "grey"),                 # a name comes before a pattern
    ("background 0.3 1", "det", "case", "background, fast pan, one frame away", "dark"),
])
def test_names_are_looked_up(name, paper, column, label, colour):
    found, shade = figures.look(name, paper, column)
    assert found == label and (shade == figures.PALETTE[colour] if colour else shade in figures.PALETTE.values())


def test_an_unknown_arm_has_the_same_colour_everywhere():
    assert figures.look("never heard of") == figures.look("never heard of", "det") == figures.look("never heard of", "vtg", "series")


@pytest.mark.parametrize("text, sentence", [
    ("full: {label: a, colour: rde}", "colour of arm 'full' in own/arms.yaml: 'rde'. Did you mean 'red'?"),
    ("full: {lable: a}", "Did you mean 'label'?"),
    ("full: a", "not a mapping"),
    ("[full]", "The arms in own/arms.yaml are a list"),
])
def test_mistakes_in_arms_yaml_are_explained(tmp_path, monkeypatch, text, sentence):
    for folder in ("notebooks", "reproductions/own"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "reproductions/own/arms.yaml").write_text(text)
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path))
    with pytest.raises(MotionLabError) as error:
        figures.look("full", "own")
    assert sentence in str(error.value)
    with pytest.raises(MotionLabError, match="Unknown paper 'onw'. Did you mean 'own'"):
        figures.look("full", "onw")


@pytest.mark.parametrize("path", sorted((ROOT / "reproductions").glob("*/arms.yaml")), ids=lambda path: path.parent.name)
def test_every_committed_arm_that_a_notebook_draws_has_a_label(path):
    """Rows that are drawn without one would be called by their raw names, '@' and '_' included."""
    paper = path.parent.name
    arms = {arm for file in path.parent.glob("raw/sweep_full.csv") for arm in pd.read_csv(file)["arm"]}
    drawn = "".join("".join(cell["source"]) for file in (ROOT / "notebooks").glob("*.ipynb")
                    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"])
    raw = [arm for arm in arms if f'"{arm}"' in drawn and figures.look(arm, paper)[0] == arm]
    assert not [arm for arm in raw if set(arm) & set("@_")]


@pytest.mark.parametrize("room", ["figures", "metrics", "teachers"])
def test_no_paper_is_named_in_the_code_of_a_lower_floor(room):
    papers, found = {"videojam", "det", "sam2videox", "vtg"}, []
    for path in (ROOT / "lib/motionlab" / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, field) for field in ("id", "name", "arg", "attr", "module") if isinstance(getattr(node, field, None), str)]
            found += [f"{path.name}: {name}" for name in names if papers & set(name.lower().replace(".", "_").split("_"))]
    assert not found


def test_the_way_that_an_arm_has_gone_is_a_share_of_what_lies_between(tmp_path):
    """0 at the comparator, 1 at real clips, both readers together; the title says it, and an arm without rows is no rung."""
    import pandas as pd

    from motionlab.figures.way import share

    levels = {"plain": 0.3, "full": 0.25, "oracle": 0.2, "reconstruction": 0.1}
    rows = [{"item": f"{k:03d}", "arm": arm, "seed": seed, "structure_0": level + 0.01 * (k % 3), "structure_1": level + 0.02, "move_ok": 1.0}
            for arm, level in levels.items() for k in range(12) for seed in (0, 1)]
    table = pd.DataFrame(rows)
    per_item = table.groupby(["arm", "item"])[["structure_0", "structure_1", "move_ok"]].mean()
    assert share(per_item, "full", "plain", "reconstruction")[0] == pytest.approx(0.25)
    assert share(per_item, "oracle", "plain", "reconstruction") == pytest.approx((0.5, 0.5, 0.5))
    fig = figures.way(table, ["full", "missing", "oracle"])
    assert "25 %" in fig.get_suptitle() and "50 % [50, 50]" in fig.get_suptitle() and len(fig.axes[0].get_yticks()) == 4
    with pytest.raises(MotionLabError, match="no rows of 'reconstruction'"):
        figures.way(table[table["arm"] != "reconstruction"], ["full"])
