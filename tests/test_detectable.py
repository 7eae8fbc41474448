"""The protocol's table of detectable differences: made from raw rows, and what it refuses, with the number that would do."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from motionlab.core.errors import MotionLabError
from motionlab.ledger import detectable
from motionlab.ledger.claims import load_claims
from motionlab.ledger.criteria import Criterion
from motionlab.ledger.verify import power_problems, verify

ROOT = Path(__file__).resolve().parents[1]
POWER = """version: 6
power: {rows: toy/raw/sweep_full.csv, arm: cure, minus: plain, floor: real, by: kind, n: [64, 128], judges: "sweep_*.csv",
        metrics: {error: less, score: more, share: more, speed: neither}}
# detectable:begin
# detectable:end
after: 1
"""


def rows(n=40, seeds=2):
    """error: 0.3 in plain, floor 0.1, paired spread 0.05 per item; share: 0 or 1, at its ceiling in plain."""
    rng, out = np.random.default_rng(1), []
    for i in range(n):
        own, gap = rng.normal(0, 0.2), rng.normal(0, 0.05)
        for seed in range(seeds):
            jitter = 0.01 * (1 if seed else -1)                      # seeds of an item cancel: they are averaged first
            for arm, error in (("plain", 0.3 + own), ("cure", 0.3 + own + gap + jitter), ("real", 0.1)):
                out.append({"item": f"p{i}", "arm": arm, "seed": seed, "kind": "dance" if i % 2 else "walk", "error": error,
                            "score": 90 - error, "share": float(i > 0 or arm == "real"), "speed": 3 + error})
    return pd.DataFrame(out)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "reproductions/toy/raw").mkdir(parents=True)
    rows().to_csv(tmp_path / "reproductions/toy/raw/sweep_full.csv", index=False)
    (tmp_path / "reproductions/protocol.yaml").write_text(POWER)
    return tmp_path


@pytest.fixture
def table(root):
    detectable.write(root)
    return detectable.read(root)


def test_spread_floor_and_ceiling_come_from_the_rows(root):
    made, table = detectable.made(root), rows()
    gaps = (table[table.arm == "cure"].groupby("item").error.mean() - table[table.arm == "plain"].groupby("item").error.mean())
    one = made["error"]["all"]
    assert one.pairs == 40 and one.spread == pytest.approx(gaps.std(), rel=1e-3)
    assert one.shows == {64: pytest.approx(2.8 * gaps.std() / 8, rel=1e-3), 128: pytest.approx(2.8 * gaps.std() / 128**0.5, rel=1e-3)}
    assert (one.floor, one.ceiling) == (0.1, None) and (made["score"]["all"].floor, made["score"]["all"].ceiling) == (None, 89.9)
    assert (made["share"]["all"].floor, made["share"]["all"].ceiling) == (0, 1) and made["speed"]["all"].ceiling is None
    walk = gaps[[f"p{i}" for i in range(0, 40, 2)]]
    assert made["error"]["walk"].pairs == 20 and made["error"]["walk"].spread == pytest.approx(walk.std(), rel=1e-3)


def test_it_is_written_between_its_markers_and_read_back(root):
    assert detectable.write(root) and not detectable.write(root)
    assert detectable.read(root)[1] == detectable.made(root)
    assert yaml.safe_load((root / "reproductions/protocol.yaml").read_text())["after"] == 1
    path = root / "reproductions/protocol.yaml"
    path.write_text(path.read_text().replace("# detectable:end", ""))
    with pytest.raises(MotionLabError, match="no place for the table"):
        detectable.write(root)


def test_verify_finds_a_changed_digit_and_changed_rows(root, table):
    assert power_problems(root) == []
    path = root / "reproductions/protocol.yaml"
    text = path.read_text()
    path.write_text(text.replace("pairs: 40", "pairs: 41", 1))
    assert "run `motionlab power`" in power_problems(root)[0] and verify(root)[0] == power_problems(root)[0]
    path.write_text(text)
    frame = rows()
    frame.loc[5, "error"] += 0.5
    frame.to_csv(root / "reproductions/toy/raw/sweep_full.csv", index=False)
    assert "not the one that its rows give" in power_problems(root)[0]


def leaf(metric, within, minus="plain", raw="sweep_full.csv", **more):
    return Criterion(raw, metric, "cure", within, minus=minus, **more)


def test_what_can_be_seen_and_reached_passes(table):
    for one in (leaf("error", (None, -0.1)), leaf("error", (-0.05, 0.05)), leaf("error", (0.5, None)), leaf("error", (None, 0.2), None),
                leaf("error", (None, -0.001), raw="19_other.csv"), leaf("unknown", (None, -0.001)), leaf("error", (None, 0.9), over="plain", minus=None),
                leaf("error", (None, -0.016), n=128), leaf("error", (None, -0.1), where={"kind": "dance"})):
        detectable.check_leaf(one, *table)


@pytest.mark.parametrize("one, sentences", [
    (leaf("error", (None, -0.01)), ["minimum effect 0.01", "error of cure - plain", "64 prompts show", "Ask for at least 0.0"]),
    (leaf("error", (0.0, None)), ["minimum effect 0 ", "Ask for at least"]),
    (leaf("error", (-0.01, 0.01)), ["minimum effect 0.01"]),
    (leaf("error", (-0.05, 0.01)), ["minimum effect 0.01"]),
    (leaf("error", (None, -0.005), n=128), ["128 prompts show"]),
    (leaf("error", (None, -0.01), where={"kind": ["walk", "dance"]}), ["walk"]),
    (leaf("error", (None, -0.4)), ["can move by", "to 0.1", "Ask for at most 0.", "head-room"]),
    (leaf("share", (0.05, None)), ["0.975 can move by 0.025 only", "(to 1)"]),
    (leaf("error", (None, 0.05), None), ["below its floor", "at least 0.1"]),
    (leaf("score", (95, None), None), ["above its ceiling", "at most 89.9"]),
])
def test_what_cannot_is_refused_with_the_number_that_would_do(table, one, sentences):
    with pytest.raises(MotionLabError) as error:
        detectable.check_leaf(one, *table)
    for sentence in sentences:
        assert sentence in str(error.value)


def test_the_number_that_would_do_does(table):
    with pytest.raises(MotionLabError) as error:
        detectable.check_leaf(leaf("error", (None, -0.01)), *table)
    effect, n = error.value.fix.removeprefix("Ask for at least ").split(", or n: ")
    detectable.check_leaf(leaf("error", (None, -float(effect.rstrip(".")))), *table)
    detectable.check_leaf(leaf("error", (None, -0.01), n=int(n.rstrip("."))), *table)


@pytest.mark.parametrize("paper, key", [("videojam", "C7"), ("videojam", "C8"), ("videojam", "C9"), ("videojam", "C11"), ("videojam", "C16"),
                                        ("testbed", "P6")])
def test_claims_that_the_table_would_refuse_stand_under_a_ruling(tmp_path, paper, key):
    """Without it the committed file is refused; so no claim of the kit is said to fail where nothing could have been seen."""
    import shutil

    shutil.copytree(ROOT / "reproductions", tmp_path / "reproductions", ignore=shutil.ignore_patterns("*.csv", "*.png", "*.mp4", "executed", "checkpoints"))
    path = tmp_path / "reproductions" / paper / "claims.yaml"
    content = yaml.safe_load(path.read_text())
    del content["claims"][f"{paper}.{key}"]["ruling"]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(MotionLabError, match=rf"claim '{paper}.{key}': it.*(can move by|prompts show)"):
        load_claims(paper, tmp_path)
