"""`motionlab verify`: silent on good data, and one changed digit anywhere is found."""

from __future__ import annotations

import re
import time

import pytest

from ledger_example import make_root, run_notebook
from motionlab import ledger
from motionlab.ledger import manifest
from motionlab.ledger.claims import load_measured
from motionlab.ledger.criteria import checksum
from motionlab.ledger.publishing import measured_text
from motionlab.ledger.verify import verify


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(make_root(tmp_path)))
    ledger.publish(run_notebook(tmp_path, with_pictures=True))
    ledger.update_readme(tmp_path)
    return tmp_path


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_good_data_passes_in_seconds(root):
    started = time.perf_counter()
    assert verify(root) == [] and verify() == []
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "file, old, new, sentence",
    [
        (
            "reproductions/audit/raw/09_world.csv",
            "000,identity,0,1.",
            "000,identity,0,2.",
            "not the file that was judged",
        ),
        ("reproductions/audit/measured.yaml", "n: 40", "n: 41", "edited after it was written"),
        ("reproductions/audit/measured.yaml", "verdict: holds", "verdict: fails", "edited after it was written"),
        (
            "reproductions/audit/claims.yaml",
            "within: [0.05, null]",
            "within: [0.06, null]",
            "claim changed after it was measured",
        ),
        ("reproductions/audit/claims.yaml", "78.3", "78.4", "claim changed after it was measured"),
        ("reproductions/audit/claims.yaml", "82 %", "83 %", "audit/RESULTS.md is not the one"),
        ("reproductions/audit/claims.yaml", "within: [0.5, null]", "within: [0.6, null]", "claims.yaml is not the file in MANIFEST"),
        ("reproductions/audit/claims.yaml", "200 EUR", "300 EUR", "claims.yaml is not the file in MANIFEST"),
        ("reproductions/audit/executed/09_audit.json", '"speed": 1.5', '"speed": 1.6', "edited after it was written"),
        ("reproductions/audit/RESULTS.md", "n = 40", "n = 41", "audit/RESULTS.md is not the one"),
        ("README.md", "1 ✔ holds", "2 ✔ holds", "the claims table is not the one"),
        ("README.md", "<!-- claims:end -->", "", "no place for the claims table"),
    ],
)
def test_one_changed_digit_is_found(root, file, old, new, sentence):
    if file.endswith(".csv"):
        old = re.search(r"000,identity,0,\d\.\d", (root / file).read_text()).group()
        new = old[:-1] + str((int(old[-1]) + 1) % 10)
    edit(root / file, old, new)
    assert any(sentence in problem for problem in verify(root)), verify(root)


@pytest.mark.parametrize(
    "file", ["protocol.yaml", "audit/params/full.yaml", "audit/raw/sweep_full.csv", "audit/curves/a.csv"]
)
def test_a_changed_digit_is_found_where_no_record_points(root, file):
    path = root / "reproductions" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("item,arm,loss\nworld-1,base,0.25\n" if file.endswith(".csv") else "seeds: [1, 25]\n")
    manifest.enter_all(root)
    assert verify(root) == []
    edit(path, "25", "26")
    (problem,) = verify(root)
    assert f"reproductions/{file} is not the file in MANIFEST" in problem and f"git diff -- reproductions/{file}" in problem
    edit(path, "26", "25")
    assert verify(root) == []


def test_a_rewritten_record_does_not_pass_either(root):
    path = root / "reproductions/audit/measured.yaml"
    measured = load_measured("audit", root)
    record = measured["audit.A1"][0]
    record["parts"][0]["estimate"] *= 1.0001
    record["checksum"] = checksum(record)
    path.write_text(measured_text(measured), encoding="utf-8")
    assert any("estimate recorded as" in problem for problem in verify(root))
    record["parts"][0]["estimate"] /= 1.0001
    record["verdict"] = "fails"
    record["checksum"] = checksum(record)
    path.write_text(measured_text(measured), encoding="utf-8")
    assert any("recorded as 'fails', recomputed as 'holds'" in problem for problem in verify(root))


def test_a_new_criterion_needs_a_new_version(root):
    claims = root / "reproductions/audit/claims.yaml"
    edit(claims, "within: [0.05, null]", "within: [0.06, null]")
    ledger.publish(run_notebook(root))
    ledger.update_readme(root)
    assert any("without a new version" in problem for problem in verify(root))


def test_a_new_version_with_its_reason_passes(root):
    claims = root / "reproductions/audit/claims.yaml"
    edit(claims, "within: [0.05, null]", "within: [0.06, null]")
    edit(claims, "version: 1\n", "version: 2\n")
    edit(claims, 'measurement"}]', 'measurement"}, {version: 2, date: "2026-11-22", reason: "the floor is 0.06"}]')
    ledger.publish(run_notebook(root))
    ledger.update_readme(root)
    assert verify(root) == []


def test_missing_and_deleted_things(root):
    measured = root / "reproductions/audit/measured.yaml"
    text = measured.read_text()
    measured.unlink()
    assert verify(root) != []
    measured.write_text(text.replace("audit.A2", "audit.B2"))
    assert any("no such claim" in problem for problem in verify(root))
    measured.write_text(text)
    (root / "reproductions/audit/figures/response.png").unlink()
    assert any("figures/response.png is missing" in problem for problem in verify(root))


def test_malformed_claims_are_a_problem_not_a_traceback(root):
    (root / "reproductions/audit/claims.yaml").write_text("claims: [")
    assert "not valid YAML" in verify(root)[0]
