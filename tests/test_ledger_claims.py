"""claims.yaml and measured.yaml: what is accepted, and the sentence for each slip of the pen."""

from __future__ import annotations

import pytest

from ledger_example import CLAIMS, make_root
from motionlab.core.errors import MotionLabError
from motionlab.ledger.claims import load_all, load_claims, load_measured
from motionlab.ledger.criteria import Combined, Criterion, canonical_sha
from motionlab.core.paths import repo_root


def load(tmp_path, text=CLAIMS):
    return load_claims("audit", make_root(tmp_path, text))


def test_a_good_file_gets_types(tmp_path):
    claims = load(tmp_path)
    assert list(claims.claims) == [f"audit.A{i}" for i in range(1, 6)]
    first = claims["audit.A1"].criterion
    assert isinstance(first, Criterion) and first.within == (0.05, None) and first.minus == "reversed"
    both = claims["audit.A2"].criterion
    assert isinstance(both, Combined) and [leaf.statistic for leaf in both.leaves()] == ["mean", "share_true"]
    assert claims["audit.A4"].not_transferable and claims["audit.A5"].not_run.cost == "200 EUR"


def test_sha_follows_criterion_and_paper_value_but_not_layout(tmp_path):
    old = load(tmp_path / "a")["audit.A1"].sha
    assert load(tmp_path / "b", CLAIMS.replace("within: [0.05, null]", "within: [0.06, null]"))["audit.A1"].sha != old
    assert load(tmp_path / "c", CLAIMS.replace("78.3", "78.4"))["audit.A1"].sha != old
    assert load(tmp_path / "d", CLAIMS.replace("where: Table 3", "where:   'Table 3'"))["audit.A1"].sha == old
    assert canonical_sha({"b": 1, "a": [None, "é"]}) == canonical_sha({"a": [None, "é"], "b": 1})


@pytest.mark.parametrize(
    "old, new, sentences",
    [
        ("    status: draft", "    statuss: draft", ["audit/claims.yaml", "audit.A3", "no field 'statuss'", "Did you mean 'status'?"]),
        ("status: draft", "status: darft", ["audit.A3", "status of the claim is 'darft'", "Did you mean 'draft'?"]),
        ("source: reported", "source: rumour", ["audit.A3", "Choose one of: stated"]),
        ("audit.A2:", "audit.A1:", ["'audit.A1' stands twice", "line"]),
        ("audit.A2:", "det.A2:", ["claim 'det.A2'", "must start with 'audit.'"]),
        ("minus: reversed", "minsu: reversed", ["audit.A1", "criterion has no field 'minsu'", "Did you mean 'minus'?"]),
        ("within: [0.05, null]", "within: [null, null]", ["audit.A1", "unbounded on both sides"]),
        ("within: [0.05, null]", "within: [2, 1]", ["audit.A1", "lower bound is above"]),
        ("within: [0.05, null]", "within: [.nan, null]", ["audit.A1", "finite number"]),
        ("within: [0.05, null]", "within: [low, null]", ["audit.A1", "within[0]", "must be a number", "'low'"]),
        ("within: [0.05, null]", "within: [true, null]", ["audit.A1", "within[0]", "must be a number", "True"]),
        ("within: [0.05, null]", "within: 0.05", ["audit.A1", "within of the criterion must be a list"]),
        ("within: [0.05, null]", "within: [0.05]", ["audit.A1", "must hold 2 values"]),
        ("raw: 09_world.csv, metric: mf_paper, arm: jitter", "raw: ../x.csv, metric: mf_paper, arm: jitter",
         ["audit.A3", "plain name of a .csv"]),
        ("arm: jitter, ", "", ["audit.A3", "criterion lacks 'arm'"]),
        ("statistic: share_true", "statistic: shares_true", ["audit.A2", "Did you mean 'share_true'?"]),
        ('date: "2026-11-21"', "date: 2026", ["date of the history[0]", "must be text", "quotes"]),
        ('paper_value: "128"', "paper_value: 128", ["audit.A4", "paper_value", "quotes"]),
        ("    not_run: {reason: needs a paid rater study, command: motionlab run 99, cost: 200 EUR}", "",
         ["audit.A5", "neither criterion nor"]),
        ("version: 1\n", "title: 3\nversion: 1\n", ["audit/claims.yaml", "title of the file", "must be text", "3"]),
        ("version: 1\n", "version: 2\n", ["one entry for each version from 1 to 2"]),
        ("says: Jitter is seen.", "says:", ["audit.A3", "lacks 'says'"]),
        ("says: Jitter is seen.", "says: ' '", ["audit.A3", "is empty"]),
        ("says: Jitter is seen.", "says: Jitter: is seen", ["not valid YAML", "line", "quotes"]),
        ("        - {raw: 09_world.csv, metric: low", "        - {metric: low", ["audit.A2", "criterion, all [1]", "lacks 'raw'"]),
        ("      all:\n", "      min: 2\n      all:\n", ["audit.A2", "stand alone"]),
        ("differs: [other clips, n]", "differs: other clips", ["audit.A1", "differs of the claim must be a list"]),
        ("    not_transferable: {reason", "    not_transferable: {raeson", ["audit.A4", "Did you mean 'reason'?"]),
    ],
)
def test_each_mistake_gets_a_sentence_with_its_place(tmp_path, old, new, sentences):
    assert old in CLAIMS
    with pytest.raises(MotionLabError) as error:
        load(tmp_path, CLAIMS.replace(old, new, 1))
    for sentence in ["claims.yaml", *sentences]:
        assert sentence in str(error.value)


def test_what_yaml_reads_otherwise_stays_what_was_meant(tmp_path):
    """A number that YAML takes for text, and dates, quoted or not."""
    claims = load(tmp_path / "a", CLAIMS.replace("within: [0.05, null]", "within: [1e-3, null]"))
    assert claims["audit.A1"].criterion.within == (0.001, None)
    text = CLAIMS.replace('paper_value: "128"', "paper_value: 2026-01-01").replace('date: "2026-11-21"', "date: 2026-11-21")
    claims = load(tmp_path / "b", text)
    assert claims["audit.A4"].paper_value == "2026-01-01" and claims.history[0].date == "2026-11-21"
    assert claims["audit.A1"].sha == load(tmp_path / "c")["audit.A1"].sha


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "claims: 3", "version: 1\nprotocol: 6\nhistory: []\nclaims: [a]", "\x00"])
def test_a_malformed_file_never_gives_a_traceback(tmp_path, text):
    with pytest.raises(MotionLabError, match="claims.yaml"):
        load(tmp_path, text)


def test_unknown_claims_and_papers_name_the_nearest(tmp_path):
    root = make_root(tmp_path)
    with pytest.raises(MotionLabError, match="Did you mean 'audit.A1'"):
        load_claims("audit", root)["audit.a1"]
    with pytest.raises(MotionLabError, match="Did you mean 'audit'"):
        load_claims("audti", root)
    with pytest.raises(MotionLabError, match="Unknown claim 'audit.A9'"):
        load_all(root)["audit"]["audit.A9"]
    assert load_all(root)["audit"]["audit.A5"].paper == "audit"


def test_measured_is_empty_at_first_and_refuses_other_shapes(tmp_path):
    root = make_root(tmp_path)
    assert load_measured("audit", root) == {}
    (root / "reproductions/audit/measured.yaml").write_text("audit.A1: holds\n")
    with pytest.raises(MotionLabError, match="restore it with git"):
        load_measured("audit", root)


def test_root_is_found_from_below_and_by_variable(tmp_path, monkeypatch):
    root = make_root(tmp_path / "kit").resolve()
    monkeypatch.delenv("MOTIONLAB_ROOT", raising=False)
    assert repo_root(root / "reproductions" / "audit") == root
    monkeypatch.setenv("MOTIONLAB_ROOT", str(root))
    assert repo_root() == root
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path))
    with pytest.raises(MotionLabError, match="holds no reproductions/"):
        repo_root()
