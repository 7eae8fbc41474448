"""Order and permanence from git: what `verify` says of commits, merges, shallow clones, and of a checkout without any history."""
from __future__ import annotations

import shutil

import pytest

from ledger_example import make_root, run_notebook
from motionlab import cli, ledger
from motionlab.core.errors import MotionLabError
from motionlab.core.repository import Repository
from motionlab.ledger import history
from motionlab.ledger.claims import load_measured
from motionlab.ledger.snapshots import read_records, seen
from tampering import AUDIT, commit, edit, git, records_of, seal, write

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
CLAIMS, MEASURED, RAW = (f"{AUDIT}/{name}" for name in ("claims.yaml", "measured.yaml", "raw/09_world.csv"))


@pytest.fixture
def root(tmp_path):
    """Criteria committed, nothing measured."""
    root = tmp_path / "checkout"
    root.mkdir()
    make_root(root)
    git(root, "init", "-q", "-b", "main")
    write(root / ".gitignore", "runs/\nreproductions/report/\n.lock-*\n")
    commit(root, "Criteria")
    return root


def measure(root, says="Measurement"):
    ledger.publish(run_notebook(root), root)
    seal(root)
    return commit(root, says)


def second_version(root):
    edit(root / CLAIMS, "within: [0.05, null]", "within: [0.06, null]")
    edit(root / CLAIMS, "version: 1\n", "version: 2\n")
    edit(root / CLAIMS, 'measurement"}]', 'measurement"}, {version: 2, date: "2026-11-22", reason: "the floor is 0.06"}]')


def problems(root, since=None):
    return history.examine(root, since).problems


def test_criterion_then_measurement_then_the_same_again_is_sound(root):
    measure(root)
    second_version(root)
    commit(root, "Second version")
    measure(root)
    found = history.examine(root)
    assert found.problems == [] and found.notes == ["history: 4 commits looked at"]


def test_a_measurement_before_its_criterion_is_named(root):
    measure(root)
    second_version(root)
    ledger.publish(run_notebook(root), root)
    seal(root)
    assert "not committed yet: audit.A1 was measured before its criterion was committed" in problems(root)[0]
    commit(root, "Criterion and measurement at once")
    (said,) = problems(root)
    assert said.startswith("commit ") and "audit.A1 was measured before its criterion" in said and "audit.A2" not in said


def test_a_criterion_committed_after_the_run_and_before_its_record_is_named(root):
    second_version(root)
    run = run_notebook(root)          # its records name the commit before
    commit(root, "Second version, once the numbers were known")
    ledger.publish(run, root)
    seal(root)
    commit(root, "Measurement")
    assert [one for one in problems(root) if "audit.A1 was measured at" in one and "was not committed yet" in one]


def test_a_raw_file_changes_only_with_a_record_that_names_it(root):
    measure(root)
    write(root / RAW, (root / RAW).read_text().replace("000,identity,0,", "000,identity,0,1", 1))
    commit(root, "One cell")
    (said,) = problems(root)
    assert "raw/09_world.csv changed without a new record that names it" in said
    git(root, "revert", "--no-edit", "HEAD")
    assert problems(root) == [said]
    git(root, "reset", "-q", "--hard", "HEAD~2")
    write(root / RAW, (root / RAW).read_text().replace("000,identity,0,", "000,identity,0,1", 1))
    records_of(root / AUDIT, lambda known: known["audit.A1"].append({**known["audit.A1"][0], "checksum": "0" * 64}))
    commit(root, "A record that names another digest")
    assert "changed without a new record that names it" in problems(root)[0]


def test_rows_that_no_record_names_may_grow_and_not_change(root):
    path = root / AUDIT / "raw/sweep_full.csv"
    write(path, "item,arm,seed,a\nworld-1,plain,0,0.25\n")
    commit(root, "Rows")
    write(path, "item,arm,seed,a,b\nworld-1,plain,0,0.25,\nworld-1,cure,0,0.2,7\n")
    commit(root, "More rows, and a column")
    assert problems(root) == []
    write(path, "item,arm,seed,a,b\nworld-1,plain,0,0.26,\nworld-1,cure,0,0.2,7\n")
    commit(root, "Another number")
    assert "raw/sweep_full.csv lost or changed rows" in problems(root)[0]


def test_a_judged_claim_and_its_record_stay(root):
    measure(root)
    text = (root / CLAIMS).read_text()
    write(root / CLAIMS, text[:text.index("  audit.A2:")] + text[text.index("  audit.A3:"):])
    records_of(root / AUDIT, lambda known: known.pop("audit.A2"))
    commit(root, "Tidied")
    said = problems(root)
    assert any("the record of audit.A2" in one and "went out" in one for one in said)
    assert any("audit.A2, which was judged, went out of" in one for one in said)
    git(root, "revert", "--no-edit", "HEAD")
    assert problems(root) == said          # what was done once stays told, and to undo it is no new problem


def test_a_judged_claim_changes_with_a_version_only(root):
    measure(root)
    edit(root / CLAIMS, "within: [0.05, null]", "within: [0.01, null]")
    commit(root, "Easier")
    assert "audit.A1 changed" in problems(root)[0] and "`version` is still 1" in problems(root)[0]


def test_records_keep_their_places_and_a_run_changes_with_new_ones(root):
    measure(root)
    measure(root, "Again")
    records_of(root / AUDIT, lambda known: known["audit.A1"].reverse())
    edit(root / AUDIT / "executed/09_audit.json", '"speed": 1.5', '"speed": 1.6')
    assert [one.split("; ")[0].removeprefix("not committed yet: ") for one in problems(root)] == [
        f"the records of audit.A1 in {MEASURED} changed places",
        f"{AUDIT}/executed/09_audit.json changed without a new record of that notebook"]


def test_an_exception_is_told_with_its_reason_and_one_that_came_since_does_not_count(root):
    measure(root)
    edit(root / CLAIMS, "within: [0.05, null]", "within: [0.01, null]")
    bad = commit(root, "Easier")
    write(root / "reproductions/exceptions.yaml", f'"{bad[:8]}": "the bound was mistyped"\n')
    commit(root, "Said why")
    found = history.examine(root)
    assert found.problems == [] and any("the bound was mistyped" in note and bad[:8] in note for note in found.notes)
    assert len(problems(root, "HEAD~2")) == 1 and problems(root, "HEAD~1") == []
    write(root / "reproductions/exceptions.yaml", f"{bad[:8]}:\n")
    with pytest.raises(MotionLabError, match="not a mapping of commits to reasons"):
        problems(root)


def test_a_merge_brings_measurements_of_both_sides_and_may_lose_none(root):
    git(root, "checkout", "-q", "-b", "side")
    second_version(root)
    commit(root, "A criterion on a side")
    measure(root, "Measured on a side")
    git(root, "checkout", "-q", "main")
    write(root / AUDIT / "pilots/dev.csv", "item,arm,seed\na,b,0\n")
    commit(root, "A pilot")
    git(root, "merge", "-q", "--no-ff", "-m", "Both", "side")
    seal(root)
    commit(root, "Listed")
    assert problems(root) == []
    git(root, "reset", "-q", "--hard", "HEAD~2")
    git(root, "merge", "-q", "--no-ff", "--no-commit", "side")
    assert problems(root) == []            # in the middle of a merge both sides come before
    records_of(root / AUDIT, lambda known: known.pop("audit.A2"))
    commit(root, "Both, nearly")
    assert any("the record of audit.A2" in one and "went out" in one for one in problems(root))


def test_a_second_beginning_cannot_bring_measurements_without_their_order(root):
    git(root, "checkout", "-q", "--orphan", "other")
    measure(root, "All at once")
    assert problems(root) == []                                   # a history that begins so is said to
    assert "begins with commit" in history.examine(root).notes[1] and "2 records" in history.examine(root).notes[1]
    git(root, "checkout", "-q", "main")
    git(root, "merge", "-q", "--allow-unrelated-histories", "-X", "theirs", "-m", "Joined", "other")
    assert any("audit.A1 was measured before its criterion" in one for one in problems(root))


def test_a_shallow_clone_says_what_it_could_not_check(root, tmp_path):
    measure(root)
    second_version(root)
    commit(root, "Second version")
    measure(root)
    git(tmp_path, "clone", "-q", "--depth", "2", root.as_uri(), "shallow")
    found = history.examine(tmp_path / "shallow")
    assert found.problems == [] and "shallow" in found.notes[1]
    records_of(tmp_path / "shallow" / AUDIT, lambda known: known["audit.A1"].pop(0))
    assert "the record of audit.A1" in problems(tmp_path / "shallow")[0]
    with pytest.raises(MotionLabError, match="no commit 'main~3'"):
        problems(tmp_path / "shallow", "main~3")


def test_without_git_or_a_checkout_the_rest_is_verified_and_that_is_said(root, tmp_path, monkeypatch, capsys):
    measure(root)
    shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path / "copy"))
    assert cli.main(["verify"]) == 0
    assert "history was not checked: git refuses: not a git repository" in capsys.readouterr().out
    shutil.copytree(tmp_path / "copy", root / "inner")
    monkeypatch.setenv("MOTIONLAB_ROOT", str(root / "inner"))
    assert cli.main(["verify"]) == 0 and "another one, above this folder" in capsys.readouterr().out
    monkeypatch.setenv("MOTIONLAB_ROOT", str(root))
    monkeypatch.setenv("PATH", "")
    assert cli.main(["verify"]) == 0 and "git cannot be run here" in capsys.readouterr().out
    assert cli.main(["verify", "--ref", "HEAD"]) == 1 and "with git on the PATH" in capsys.readouterr().err


def test_a_range_is_looked_at_by_the_command(root, monkeypatch, capsys):
    measure(root)
    monkeypatch.setenv("MOTIONLAB_ROOT", str(root))
    assert cli.main(["verify", "--ref", "HEAD~1"]) == 0 and "1 commit since" in capsys.readouterr().out
    records_of(root / AUDIT, lambda known: known["audit.A1"].clear())
    assert cli.main(["verify", "--ref", "HEAD"]) == 1
    assert cli.main(["verify", "--ref=-x"]) == 1 and "Git knows no commit '-x'" in capsys.readouterr().err


def test_records_read_by_lines_are_those_of_yaml(root):
    measure(root)
    measure(root, "Again")
    text = (root / MEASURED).read_text()
    assert read_records(text) == {claim: [seen(one) for one in records] for claim, records in load_measured("audit", root).items()}
    assert [len(records) for records in read_records(text).values()] == [2, 2]


def test_trees_and_files_are_those_of_git(root):
    measure(root)
    with Repository(root, "reproductions") as repository:
        tree = repository.tree("HEAD")
        lines = git(root, "ls-tree", "-r", "HEAD", "reproductions").splitlines()
        assert tree == {line.split("\t")[1].removeprefix("reproductions/"): line.split()[2] for line in lines}
        data = (root / CLAIMS).read_bytes()
        assert repository.blob(tree["audit/claims.yaml"]) == data and repository.own_name(data) == tree["audit/claims.yaml"]
