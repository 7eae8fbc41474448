"""The README's table and the report: from nothing measured to published runs beside the reader's own."""

from __future__ import annotations

import re
import time

import pytest

from ledger_example import CLAIMS, make_root, run_notebook
from report_pages import checked
from motionlab import ledger
from motionlab.core.errors import MotionLabError
from motionlab.ledger.claims import load_claims
from motionlab.ledger.results import render_results
from motionlab.ledger.standings import standing

@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(make_root(tmp_path)))
    return tmp_path


@pytest.fixture
def published(root):
    ledger.publish(run_notebook(root, with_pictures=True))
    return root


# ------------------------------------------------------------------------------------------------------- README's table


def test_table_before_anything_is_measured(root):
    table = ledger.render_readme_table(root)
    assert table.startswith("**What the papers claim: 3**, 1 ⇸ not transferable, 2 ○ not run.")
    assert "**What the kit claims of itself: 2**, 2 ○ not run." in table
    assert "| [audit](reproductions/audit/RESULTS.md) |  |  |  |  | 1 | 2 |" in table and "|  |  |  |  |  | 2 |" in table
    (text,) = render_results(root).values()
    assert "| audit.A5 | Raters prefer it. | 82 % | needs a paid rater study | **○ not run** |" in text
    assert "an optimum at 5 B parameters" in text and "0.05 \\| or more" in text


def test_table_with_verdicts_is_stable(published):
    assert ledger.update_readme(published) is True and ledger.update_readme(published) is False
    readme = (published / "README.md").read_text()
    assert readme.startswith("# Kit\n") and readme.endswith("\n\nEnd.\n") and "**What the papers claim: 3**, 1 ✔ holds" in readme
    text = (published / "reproductions/audit/RESULTS.md").read_text()
    assert "+0.294 [" in text and "n = 40, wanted ≥ 0.05<br>tier laptop, protocol 6, no control was asked for | **✔ holds** |" in text
    assert "n = 40, wanted 0.9 to 1<br>tier laptop, protocol 6 | **✔ holds** |" in text          # the kit's own needs none
    assert "direct: the sentence speaks of this metric" in text and text.index("What the paper claims") < text.index("of itself")
    rows = [line for line in text.splitlines() if line.startswith("| audit.")]
    assert len(rows) == 5 and all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)


def test_readme_without_a_place_for_the_table(root):
    (root / "README.md").write_text("# Kit\n")
    with pytest.raises(MotionLabError, match="claims:begin"):
        ledger.update_readme(root)


def test_standings(root):
    claims = load_claims("audit", root).claims
    record = {"claim_sha": claims["audit.A1"].sha, "verdict": "fails"}
    assert standing(claims["audit.A1"], [record]).verdict == "fails"
    stale = standing(claims["audit.A1"], [record | {"claim_sha": "x"}])
    assert stale.verdict == "not run" and "changed since it was measured" in stale.reason
    assert standing(claims["audit.A3"], []).reason == "its criterion is a draft"
    assert standing(claims["audit.A4"], []).verdict == "not transferable"
    assert standing(claims["audit.A1"], []).command == "motionlab run 09_audit"


def test_a_weaker_word_shows_both_words_in_results_and_report(published):
    path = published / "reproductions/audit/claims.yaml"
    why = "because: the sentence speaks of this metric\n"
    path.write_text(path.read_text().replace(why, f"{why}    control: [audit.A5]\n"))
    ledger.update_readme(published)
    text, pages = (published / "reproductions/audit/RESULTS.md").read_text(), checked(ledger.render_report(published))
    page = pages["audit.html"]
    for one in (text, re.sub(r"</?a[^>]*>", "", page), re.sub(r"</?a[^>]*>", "", pages["index.html"])):
        assert "its control audit.A5 does not hold (not run)" in one and "by its criterion alone: holds" in one
    assert "**⊘ blind** |" in text and "control: audit.A5" in text and '<span class="badge blind">' in page
    assert "1 ⊘ blind" in (published / "README.md").read_text()


def test_the_report_counts_papers_and_kit_apart(published):
    page = checked(ledger.render_report(published))["index.html"]
    assert "What the papers claim: 3" in page and "What the kit claims of itself: 2" in page and "5 claims" not in page


# ----------------------------------------------------------------------------------------------------------- the report


def test_report_when_nothing_is_measured(root):
    pages = checked(ledger.render_report(root))
    assert set(pages) == {"index.html", "audit.html", "kit.html"} and "Nothing is published yet" in pages["index.html"]
    assert "needs a paid rater study; command: <code>motionlab run 99</code>; cost: 200 EUR" in pages["audit.html"]
    assert "needs a paid rater study; <code>motionlab run 99</code>; 200 EUR" in pages["index.html"]
    assert 'class="dot"' not in "".join(pages.values())       # drawn is what was wanted, and nothing measured


def test_report_without_any_claims(tmp_path):
    (tmp_path / "reproductions").mkdir()
    assert "No claims yet" in checked(ledger.render_report(tmp_path))["index.html"]


def test_report_with_published_and_own_runs(published):
    text = checked(ledger.render_report(published))["audit.html"]
    for expected in (
        "78.3 -&gt; 93.7",
        "+0.294 [",
        "What differs from the paper",
        "other clips",
        "figures/response.png",
        "This is the published run",
        "Provenance: commit",
        "sha256",
        "<code>mf_paper</code>",
        "Why this range: smallest effect worth naming",
        "criterion</a>",
        "raw rows</a>",
        'href="#audit.A1"',
        "../audit/executed/09_audit.ipynb",
    ):
        assert expected in text, expected
    run_notebook(published)
    pages = checked(ledger.render_report(published))
    assert "Your run" in pages["audit.html"] and "This is the published run" not in "".join(pages.values())


def test_pictures_stand_in_the_cards_that_they_name_and_the_others_at_the_end(published):
    pages = checked(ledger.render_report(published))
    card = pages["audit.html"].split('<article id="audit.A1"')[1].split("</article>")[0]
    assert card.count("figures/response.png") == 2 and "moving_square" not in card        # the picture, and the link to it alone
    assert "More pictures of 09_audit" in pages["audit.html"].split("</article>")[-1]
    assert 'src="../audit/figures/moving_square.mp4"' in pages["audit.html"] and "moving_square.poster.png" in pages["audit.html"]
    assert "response.png" not in pages["kit.html"]


def test_own_run_alone_brings_its_own_pictures(root):
    run_notebook(root, with_pictures=True)
    run_notebook(root, "smoke")
    pages = checked(ledger.render_report(root))
    assert "../../runs/laptop/09_audit/figures/response.png" in pages["audit.html"]
    assert all("your run: holds" in pages[name] for name in ("index.html", "audit.html", "kit.html"))
    assert "tier smoke" not in "".join(pages.values())


def test_half_written_or_foreign_files_in_runs_do_no_harm(published):
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"tier": "laptop"}')):
        (published / "runs/laptop" / name).mkdir(parents=True)
        (published / "runs/laptop" / name / "result.json").write_text(content)
    (published / "reproductions/audit/figures/response.png").unlink()
    checked(ledger.render_report(published))


def test_text_is_escaped(root):
    path = root / "reproductions/audit/claims.yaml"
    path.write_text(CLAIMS.replace("Jitter is seen.", "A <b>bold</b> & `x<1` claim"), encoding="utf-8")
    pages = checked(ledger.render_report(root))
    assert all("A &lt;b&gt;bold&lt;/b&gt; &amp; <code>x&lt;1</code> claim" in pages[name] for name in ("index.html", "kit.html"))


def test_pages_of_a_paper_that_is_gone_are_taken_away(root):
    ledger.render_report(root)
    (root / "reproductions/report/gone.html").write_text("old")
    ledger.render_report(root)
    assert sorted(path.name for path in (root / "reproductions/report").iterdir()) == [
        "audit.html", "index.html", "kit.html", "report.css", "report.js"]


def test_rendering_is_fast_enough_to_follow_every_notebook(published):
    many = "".join(CLAIMS.split("claims:\n")[1].replace("audit.A", f"audit.B{i}") for i in range(20))
    with open(published / "reproductions/audit/claims.yaml", "a", encoding="utf-8") as file:
        file.write(many)
    started = time.perf_counter()
    ledger.render_report(published), ledger.update_readme(published)
    assert time.perf_counter() - started < 2.0
