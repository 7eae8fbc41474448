"""How a verdict is read: whose claim it is, what must hold beside it, under which protocol, and who may say a weaker word."""
from __future__ import annotations

import pytest

from ledger_example import CLAIMS, make_root, rows, run_notebook, start_book
from motionlab import ledger
from motionlab.core.errors import MotionLabError
from motionlab.ledger.claims import load_all, load_claims, load_measured
from motionlab.ledger.standings import chapters, standing, totals, under_controls
from motionlab.ledger.verdict import combine
from motionlab.ledger.verify import verify

A1 = "because: the sentence speaks of this metric\n"
A2 = "because: a frozen clip stands for one without motion\n"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A1 (of a paper) and A2 (the kit's), both hold."""
    monkeypatch.setenv("MOTIONLAB_ROOT", str(make_root(tmp_path)))
    ledger.publish(run_notebook(tmp_path))
    return tmp_path


def edit(root, *pairs):
    path = root / "reproductions/audit/claims.yaml"
    text = path.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")


def standings(root):
    return {one.claim.id: one for chapter in chapters(root) for one in chapter.standings}


def test_papers_claims_and_the_kits_are_counted_apart(published):
    assert totals(chapters(published)) == {"paper": {"holds": 1, "not transferable": 1, "not run": 1}, "kit": {"holds": 1, "not run": 1}}


def test_reading_is_no_part_of_what_was_asked(published):
    """A control or a reason may be added to a claim without measuring it again; a word of its sentence may not be changed."""
    edit(published, (A1, A1 + "    control: [audit.A2]\n"), ("bearing: direct", "bearing: proxy"), ("speaks of this", "is about this"))
    assert standings(published)["audit.A1"].verdict == "holds"
    edit(published, ("by 0.05 | or more", "by 0.05 | or so"))
    assert standings(published)["audit.A1"].verdict == "not run"


def test_a_control_that_does_not_hold_makes_blind(published):
    edit(published, (A1, A1 + "    control: [audit.A3]\n"))
    one = standings(published)["audit.A1"]
    assert one.verdict == "blind" and one.record["verdict"] == "holds"
    assert "its control audit.A3 does not hold (not run)" in one.reason and "by its criterion alone: holds" in one.reason


def test_blindness_passes_through_a_chain_of_controls(published):
    edit(published, (A1, A1 + "    control: [audit.A2]\n"), (A2, A2 + "    control: [audit.A5]\n"))
    found = standings(published)
    assert found["audit.A2"].verdict == "blind" and found["audit.A1"].verdict == "blind"
    assert "audit.A2 does not hold (blind)" in found["audit.A1"].reason


def test_a_control_of_a_later_ground_says_nothing_of_an_earlier_one(tmp_path):
    claims = load_claims("audit", make_root(tmp_path, CLAIMS.replace(A1, A1 + "    control: [audit.A2]\n"))).claims
    old, new = ({"claim_sha": claims[key].sha, "verdict": "holds", "protocol": 6} for key in ("audit.A1", "audit.A2"))
    read = lambda control: under_controls({key: standing(claims[key], [record]) for key, record in (("audit.A1", old), ("audit.A2", control))})
    assert read(new)["audit.A1"].verdict == "holds"
    assert read(new | {"protocol": 7})["audit.A1"].verdict == "blind"


def test_a_record_of_an_earlier_protocol_is_told_and_not_counted(published):
    edit(published, ("protocol: 6", "protocol: 7"), (A1, A1 + "    control: [audit.A2]\n"))
    one = standings(published)["audit.A1"]
    assert one.verdict == "not run" and one.record is None
    assert one.reason == "not measured under protocol 7 yet; under protocol 6 its record said: holds"


def test_a_ruling_weakens_and_says_why(published):
    edit(published, (A1, A1 + "    ruling: {verdict: blind, reason: no head-room}\n"))
    one = standings(published)["audit.A1"]
    assert one.verdict == "blind" and one.reason == "no head-room; by its criterion alone: holds" and one.record["verdict"] == "holds"
    ledger.update_readme(published)
    assert verify(published) == []                     # the record itself is still recomputed, and right


@pytest.mark.parametrize("line, told", [
    ("    control: [audit.A2]\n", "counts only while audit.A2 holds, else it is blind"),
    ("    ruling: {verdict: blind, reason: no head-room}\n", "shown as blind: no head-room")])
def test_a_notebook_tells_what_its_record_is_worth(tmp_path, capsys, line, told):
    book = start_book(make_root(tmp_path, CLAIMS.replace(A1, A1 + line)))
    book.raw("09_world.csv", rows())
    assert book.judge("audit.A1")["verdict"] == "holds"
    assert told in capsys.readouterr().out


REFUSED = [
    ([("    " + A1, "")], ["audit.A1", "criterion without 'because'"]),
    ([("    bearing: direct\n", "")], ["audit.A1", "criterion without 'bearing'"]),
    ([("    about: paper\n", "")], ["audit.A1", "lacks 'about'"]),
    ([("about: paper", "about: papre")], ["audit.A1", "Did you mean 'paper'?"]),
    ([(A1, A1 + "    control: [audit.A22]\n")], ["audit.A1", "'audit.A22' is no claim", "Did you mean 'audit.A2'?"]),
    ([(A1, A1 + "    control: [adit.A2]\n")], ["audit.A1", "Unknown paper of the control", "Did you mean 'audit'?"]),
    ([(A1, A1 + "    control: [audit.A1]\n")], ["audit.A1", "its own control"]),
    ([(A1, A1 + "    ruling: {verdict: holds, reason: I say so}\n")], ["audit.A1", "verdict", "'holds'"]),
    ([("    about: paper\n    not_transferable", "    about: paper\n    ruling: {verdict: blind, reason: x}\n    not_transferable")],
     ["audit.A4", "no criterion over which"]),
    ([("protocol: 6", "protocol: 7")], ["audit.A1", "about a paper", "protocol 7", "names no control", "testbed.P-oracle"]),
]


@pytest.mark.parametrize("pairs, sentences", REFUSED, ids=[sentences[-1] for _, sentences in REFUSED])
def test_each_slip_gets_a_sentence(tmp_path, pairs, sentences):
    root = make_root(tmp_path)
    edit(root, *pairs)
    with pytest.raises(MotionLabError) as error:
        load_claims("audit", root)
    for sentence in sentences:
        assert sentence in str(error.value)


def test_controls_in_a_circle_are_refused(tmp_path):
    root = make_root(tmp_path)
    edit(root, (A1, A1 + "    control: [audit.A2]\n"), (A2, A2 + "    control: [audit.A1]\n"))
    with pytest.raises(MotionLabError, match="audit.A1 <- audit.A2 <- audit.A1|audit.A2 <- audit.A1 <- audit.A2"):
        load_all(root)


def test_a_criterion_of_a_protocol_to_come_cannot_be_final(tmp_path):
    root = make_root(tmp_path)
    (root / "reproductions/protocol.yaml").write_text("version: 5\n")
    with pytest.raises(MotionLabError, match="final under protocol 6, but protocol.yaml is at version 5"):
        load_claims("audit", root)


def test_under_protocol_7_nothing_about_a_paper_is_published_without_its_control(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(make_root(tmp_path)))
    (tmp_path / "reproductions/protocol.yaml").write_text("version: 7\n")
    with pytest.raises(MotionLabError, match="measured under protocol 7, but its criterion belongs to protocol 6; name its control"):
        ledger.publish(run_notebook(tmp_path))
    edit(tmp_path, ("protocol: 6", "protocol: 7"), (A1, A1 + "    control: [audit.A2]\n"))
    ledger.publish(run_notebook(tmp_path))
    record = load_measured("audit", tmp_path)["audit.A1"][-1]
    assert record["protocol"] == 7 and record["control"] == ["audit.A2"]


def test_a_control_may_not_be_dropped_after_the_measurement(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(make_root(tmp_path, CLAIMS.replace(A1, A1 + "    control: [audit.A2]\n"))))
    ledger.publish(run_notebook(tmp_path))
    edit(tmp_path, ("    control: [audit.A2]\n", ""))
    assert any("control audit.A2 was dropped after it was measured" in problem for problem in verify(tmp_path))


@pytest.mark.parametrize("verdicts, word", [
    (["holds", "holds"], "holds"), (["fails", "fails"], "fails"), (["holds", "fails"], "inconclusive"), (["fails", "inconclusive"], "inconclusive")])
def test_readers_that_must_agree(verdicts, word):
    assert combine("agree", verdicts) == combine("agree", verdicts[::-1]) == word
