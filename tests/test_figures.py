"""Figures of the audit: what they draw is what the table says, in words as well as in colour, and nothing is clipped."""

import numpy as np
import pandas as pd
import pytest

from motionlab import figures

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
    cells = np.array(texts(ax)).reshape(2, len(figures.METRIC_LABELS))
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
