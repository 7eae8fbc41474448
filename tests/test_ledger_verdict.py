"""Verdicts as pure functions: known intervals, invariances, seeds, undefined values."""

from __future__ import annotations

import time

import numpy as np
import pytest

from motionlab.core.errors import MotionLabError
from motionlab.core import stats
from motionlab.ledger import verdict
from motionlab.ledger.criteria import Combined, Criterion


def table(rows):
    """Columns of text from rows (item, arm, seed, m[, k])."""
    names = ["item", "arm", "seed", "m", "k"][: len(rows[0])]
    return dict(zip(names, np.array([[str(cell) for cell in row] for row in rows]).T))


def test_interval_of_a_known_normal_sample():
    values = np.random.default_rng(1).normal(2.0, 1.0, size=400)
    low, high = stats.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.01) and high == pytest.approx(
        values.mean() + half, abs=0.01
    )
    assert stats.bootstrap_interval(values) == (low, high)
    mid_low, mid_high = stats.bootstrap_interval(values, "median")
    assert mid_low < np.median(values) < mid_high and mid_high - mid_low > high - low


def test_interval_does_not_depend_on_the_chunk(monkeypatch):
    values = np.random.default_rng(2).normal(size=250)
    one = stats.bootstrap_interval(values)
    monkeypatch.setattr(stats, "CHUNK", 7_000)
    assert stats.bootstrap_interval(values) == one


def test_the_bootstrap_is_fast():
    values = np.random.default_rng(0).normal(size=250)
    started = time.perf_counter()
    stats.bootstrap_interval(values), stats.bootstrap_interval(values, "median")
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize(
    "interval, within, word",
    [
        ((0.1, 0.2), (0.05, None), "holds"),
        ((0.05, 0.2), (0.05, None), "holds"),
        ((0.0, 0.04), (0.05, None), "fails"),
        ((0.0, 0.06), (0.05, None), "inconclusive"),
        ((-1, 3), (0, 2), "inconclusive"),
        ((3, 4), (0, 2), "fails"),
        ((1, 1), (1, 1), "holds"),
    ],
)
def test_interval_against_bounds(interval, within, word):
    assert verdict.compare(interval, within) == word


@pytest.mark.parametrize(
    "how, words, word",
    [
        ("all", "holds holds", "holds"),
        ("all", "holds fails inconclusive", "fails"),
        ("all", "holds inconclusive", "inconclusive"),
        ("any", "fails holds inconclusive", "holds"),
        ("any", "fails fails", "fails"),
        ("any", "fails inconclusive", "inconclusive"),
    ],
)
def test_combined_verdicts(how, words, word):
    assert verdict.combine(how, words.split()) == word


def test_paired_difference_removes_what_items_share():
    level = np.random.default_rng(0).normal(0, 10, size=30)
    data = table(
        [(i, arm, 0, level[i] + (0.3 if arm == "b" else 0) + 0.01 * np.sin(i)) for i in range(30) for arm in "ab"]
    )
    part = verdict.judge_leaf(Criterion("x.csv", "m", "b", (0.2, 0.4), minus="a"), data)
    assert part["verdict"] == "holds" and part["estimate"] == pytest.approx(0.3) and part["n"] == 30
    assert verdict.judge_leaf(Criterion("x.csv", "m", "b", (0.2, 0.4)), data)["verdict"] != "holds"


def test_row_order_plays_no_role():
    rows = [(i, arm, seed, np.sin(i * 7 + seed) + (arm == "b")) for i in range(20) for arm in "ab" for seed in (0, 1)]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    criterion = Criterion("x.csv", "m", "b", (0.5, None), minus="a")
    assert verdict.judge_leaf(criterion, table(rows)) == verdict.judge_leaf(criterion, table(shuffled))


def test_two_columns_of_one_arm_and_row_filter():
    data = table([(i, "a", 0, 2.0 + (i % 2), 1.0) for i in range(10)])
    part = verdict.judge_leaf(Criterion("x.csv", "m", "a", (0, None), against="k", where={"m": [2, 2.0]}), data)
    assert part["estimate"] == 1.0 and part["n"] == 5


def test_shares_and_medians():
    data = table([(i, "a", 0, i < 9) for i in range(10)])
    assert verdict.judge_leaf(Criterion("x.csv", "m", "a", (0.5, 1), statistic="share_true"), data)["estimate"] == 0.9
    outlier = table([(i, "a", 0, 1e9 if i == 0 else 1.0) for i in range(21)])
    assert (
        verdict.judge_leaf(Criterion("x.csv", "m", "a", (0.9, 1.1), statistic="median"), outlier)["verdict"] == "holds"
    )


def test_holds_asks_every_seed():
    def judged(second):
        return verdict.judge_leaf(
            Criterion("x.csv", "m", "a", (0, None)),
            table([(i, "a", s, 1.0 if s == 0 else second) for i in range(10) for s in (0, 1)]),
        )

    assert judged(0.5)["verdict"] == "holds" and judged(0.5)["n"] == 10
    split = judged(-0.1)
    assert (
        split["verdict"] == "inconclusive"
        and split["reason"] == "the seeds do not agree"
        and split["by_seed"] == {"0": 1.0, "1": -0.1}
    )


def test_a_control_with_one_seed_serves_all_seeds():
    data = table(
        [(i, "a", s, i + 1.0) for i in range(6) for s in (0, 1, 2)] + [(i, "base", 7, float(i)) for i in range(6)]
    )
    part = verdict.judge_leaf(Criterion("x.csv", "m", "a", (0.9, 1.1), minus="base"), data)
    assert part["verdict"] == "holds" and part["estimate"] == 1.0 and set(part["by_seed"]) == {"0", "1", "2"}


def test_undefined_values_are_dropped_counted_and_too_many_decide_nothing():
    def judged(n_bad, value="nan"):
        return verdict.judge_leaf(
            Criterion("x.csv", "m", "a", (0, None)),
            table([(i, "a", 0, value if i < n_bad else 1.0) for i in range(10)]),
        )

    assert (judged(4)["verdict"], judged(4)["n"], judged(4)["n_undefined"]) == ("holds", 6, 4)
    assert judged(5)["verdict"] == "holds" and judged(6)["verdict"] == "inconclusive"
    assert "6 of 10 values are undefined" in judged(6)["reason"]
    assert judged(2, "inf")["n_undefined"] == 2 and judged(2, "")["n_undefined"] == 2
    empty = judged(10)
    assert (
        empty["estimate"] is None and empty["verdict"] == "inconclusive" and verdict.measured_text(empty) == "undefined"
    )


def test_one_item_decides_nothing():
    part = verdict.judge_leaf(Criterion("x.csv", "m", "a", (0, None)), table([(0, "a", 0, 1.0)]))
    assert part["verdict"] == "inconclusive" and "fewer than two items" in part["reason"]


@pytest.mark.parametrize(
    "change, sentences",
    [
        ({"metric": "n"}, ["x.csv", "no metric 'n'"]),
        ({"arm": "reversd"}, ["no arm 'reversd'", "Did you mean 'reversed'?"]),
        ({"minus": "c"}, ["no arm 'c'", "It has: a, reversed"]),
        ({"where": {"kind": 1}}, ["no column 'kind'"]),
        ({"where": {"seed": 9}}, ["No row of arm 'a'", "filter"]),
    ],
)
def test_raw_data_that_lacks_what_the_criterion_names(change, sentences):
    data = table([(i, arm, 0, 1.0) for i in range(3) for arm in ("a", "reversed")])
    criterion = Criterion(**({"raw": "x.csv", "metric": "m", "arm": "a", "within": (0, None)} | change))
    with pytest.raises(MotionLabError) as error:
        verdict.judge(Combined("all", (criterion,)), lambda name: data)
    assert all(sentence in str(error.value) for sentence in sentences)


def test_two_rows_for_one_item_ask_for_a_filter():
    with pytest.raises(MotionLabError, match="more than one row for item '1'"):
        verdict.judge_leaf(Criterion("x.csv", "m", "a", (0, None)), table([(1, "a", 0, 1.0), (1, "a", 0, 2.0)]))


@pytest.mark.parametrize(
    "text, sentence",
    [
        (None, "is missing"),
        ("", "lacks the column 'item'"),
        ("item,arm,m\n1,a,2\n", "lacks the column 'seed'"),
        ("item,arm,seed,m\n", "no rows"),
        ("item,arm,seed,m\n1,a,0\n", "line 2 has another number of cells"),
    ],
)
def test_bad_raw_files(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "x.csv").write_text(text)
    with pytest.raises(MotionLabError, match=sentence):
        verdict.read_raw(tmp_path / "x.csv")


def test_a_cell_that_is_no_number():
    with pytest.raises(MotionLabError, match="no number"):
        verdict.judge_leaf(Criterion("x.csv", "m", "a", (0, None)), table([(1, "a", 0, "much")]))


def test_sha_ignores_windows_newlines(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x\n1\n"), (tmp_path / "b.csv").write_bytes(b"x\r\n1\r\n")
    assert verdict.file_sha(tmp_path / "a.csv") == verdict.file_sha(tmp_path / "b.csv")


def test_words():
    assert [verdict.wanted(w) for w in ((0.05, None), (None, 2), (0.9, 1.1))] == ["≥ 0.05", "≤ 2", "0.9 to 1.1"]
    assert [verdict.number(v) for v in (0.12345, 0.0, 12345.6, None)] == ["0.123", "0", "12,346", "undefined"]
    assert verdict.number(0.5, signed=True) == "+0.5"


def test_a_ratio_is_of_the_means_and_resampled_in_pairs():
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 3, 200)
    rows = [(i, "cure", 0, 0.8 * v) for i, v in enumerate(base)] + [(i, "base", 0, v) for i, v in enumerate(base)]
    leaf = Criterion(raw="a.csv", metric="m", arm="cure", over="base", within=(0.75, 0.85))
    part = verdict.judge_leaf(leaf, table(rows))
    assert part["estimate"] == pytest.approx(0.8) and part["ci95"] == pytest.approx([0.8, 0.8])  # exactly proportional
    assert part["verdict"] == "holds" and part["n"] == 200 and "cure over base" in verdict.name_of(part)


def test_a_ratio_without_a_denominator_is_not_decided():
    rows = [(i, arm, 0, int(arm == "cure")) for i in range(10) for arm in ("cure", "base")]
    leaf = Criterion(raw="a.csv", metric="m", arm="cure", over="base", within=(0.8, None))
    assert verdict.judge_leaf(leaf, table(rows))["verdict"] == "inconclusive"


def test_a_ratio_counts_pairs_with_a_missing_partner_as_undefined():
    rows = [(i, "cure", 0, 1.0) for i in range(6)] + [(i, "base", 0, 2.0) for i in range(4)]
    leaf = Criterion(raw="a.csv", metric="m", arm="cure", over="base", within=(0.4, 0.6))
    part = verdict.judge_leaf(leaf, table(rows))
    assert (part["n"], part["n_undefined"], part["estimate"], part["verdict"]) == (4, 2, 0.5, "holds")


def best(within, **others):
    """The record of an arm "cure" (0.5 for every item) against the best of others, {arm: values}."""
    rows = [(i, arm, 0, v) for arm, values in {"cure": [0.5] * 40, **others}.items() for i, v in enumerate(values)]
    return verdict.judge_leaf(Criterion(raw="a.csv", metric="m", arm="cure", minus_best=tuple(others), within=within), table(rows))


def test_the_best_of_several_is_by_their_means_and_the_bound_says_which_way():
    more, less = best((0.05, None), a=[0.4] * 40, b=[0.1] * 40), best((None, -0.05), a=[0.4] * 40, b=[0.1] * 40)
    assert more["estimate"] == pytest.approx(0.1) and more["verdict"] == "holds" and "cure - best of a, b" in verdict.name_of(more)
    assert less["estimate"] == pytest.approx(0.4) and less["verdict"] == "fails"


def test_the_best_is_found_anew_in_every_resample():
    """Two rivals that are equal on average: whoever is ahead in a resample counts, so the interval lies below that of either."""
    rng = np.random.default_rng(1)
    a, b = (rng.normal(0.4, 0.3, 40) for _ in range(2))
    a, b = a - a.mean() + 0.4, b - b.mean() + 0.4
    jointly, alone = best((0.0, None), a=a, b=b), [best((0.0, None), a=one) for one in (a, b)]
    assert jointly["estimate"] == pytest.approx(0.1) and all(one["estimate"] == pytest.approx(0.1) for one in alone)
    assert jointly["ci95"][1] < min(one["ci95"][1] for one in alone) - 0.01


def test_the_best_of_several_counts_a_missing_partner_as_undefined():
    part = best((0.05, None), a=[0.4] * 40, b=[0.1] * 30)
    assert (part["n"], part["n_undefined"]) == (30, 10)


@pytest.mark.parametrize("fields", [{"within": (0.0, 0.1)}, {"within": (0.0, None), "minus": "a"}, {"within": (0.0, None), "over": "a"}])
def test_the_best_of_several_stands_alone(fields):
    with pytest.raises(MotionLabError, match="minus_best"):
        Criterion(raw="a.csv", metric="m", arm="cure", minus_best=("a", "b"), **fields)
