"""reproductions/MANIFEST: who enters what, and what each difference is called."""
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_example import make_root, run_notebook
from motionlab import cli, ledger
from motionlab.ledger import manifest
from tampering import AUDIT, write


@pytest.fixture
def root(tmp_path, monkeypatch):
    make_root(tmp_path)
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path))
    ledger.publish(run_notebook(tmp_path, with_pictures=True))
    ledger.update_readme(tmp_path)
    return tmp_path


def test_publishing_enters_what_it_wrote_and_report_what_people_write(root):
    listed = manifest.parsed(manifest.read(root))
    assert list(listed) == [f"audit/{name}" for name in (
        "claims.yaml", "executed/09_audit.ipynb", "executed/09_audit.json", "figures/moving_square.mp4",
        "figures/moving_square.poster.png", "figures/response.png", "measured.yaml", "raw/09_world.csv")]
    assert manifest.problems(root) == []


def test_a_file_changed_by_somebody_else_stays_a_difference_through_publish_and_report(root, capsys):
    write(root / AUDIT / "raw/other.csv", "item,arm,seed\na,b,0\n")
    manifest.enter_all(root)
    write(root / AUDIT / "raw/other.csv", "item,arm,seed\na,b,1\n")
    write(root / AUDIT / "claims.yaml", (root / AUDIT / "claims.yaml").read_text() + "\n")
    ledger.publish(run_notebook(root))
    assert [one.split(" is not")[0] for one in manifest.problems(root)] == [f"{AUDIT}/claims.yaml", f"{AUDIT}/raw/other.csv"]
    assert cli.main(["report"]) == 0 and "MANIFEST, changed: audit/claims.yaml" in capsys.readouterr().out
    (said,) = manifest.problems(root)
    assert said.startswith(f"{AUDIT}/raw/other.csv is not the file in MANIFEST") and "verify --write" in said
    assert cli.main(["verify"]) == 1
    capsys.readouterr()
    assert cli.main(["verify", "--write"]) == 0 and "MANIFEST, changed: audit/raw/other.csv" in capsys.readouterr().out


def test_what_is_rendered_or_hidden_is_not_evidence():
    yes = ["protocol.yaml", "exceptions.yaml", "audit/raw/a.csv", "testbed/checkpoints/base.md", "testbed/checkpoints/README.md"]
    no = ["audit/README.md", "audit/RESULTS.md", "report/index.html", "MANIFEST", "audit/raw/.a.tmp.csv", "testbed/.lock-x", "a/__pycache__/b"]
    assert all(map(manifest.is_evidence, yes)) and not any(map(manifest.is_evidence, no))
    assert manifest.by_people("protocol.yaml") and manifest.by_people("audit/pilots/dev.csv") and manifest.by_people("audit/params/full.yaml")
    assert not any(map(manifest.by_people, ["audit/measured.yaml", "audit/chosen.yaml", "audit/raw/a.csv", "testbed/checkpoints/base.md"]))


@pytest.mark.parametrize("spoil, sentence", [
    (lambda text: text + "no line\n", "is not as motionlab writes it"),
    (lambda text: text.replace("  ", " "), "is not in MANIFEST"),
    (lambda text: text.replace("audit/measured.yaml", "audit/gone.yaml"), "audit/gone.yaml stands in MANIFEST and is missing"),
    (lambda text: text + text.splitlines()[-1] + "\n", "is not as motionlab writes it"),
])
def test_a_spoiled_list_is_named(root, spoil, sentence):
    path = manifest.place(root)
    path.write_bytes(spoil(path.read_text()).encode())
    assert any(sentence in one for one in manifest.problems(root)), manifest.problems(root)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}/[a-z .]{1,8}[a-z]", fullmatch=True),
                       st.tuples(st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.integers(0, 10**12))), st.text())
def test_any_text_is_read_and_a_written_list_gives_itself(listed, text):
    assert manifest.parsed(manifest.text_of(listed)) == listed
    manifest.parsed(text)
