"""The README's table and the report: from nothing measured to published runs beside the reader's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from ledger_example import CLAIMS, make_root, run_notebook
from motionlab import ledger
from motionlab.core.errors import MotionLabError
from motionlab.ledger.claims import load_claims
from motionlab.ledger.report import interval
from motionlab.ledger.results import render_results
from motionlab.ledger.standings import standing

VOID = {"meta", "link", "img", "br", "rect", "line", "circle", "source"}
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(make_root(tmp_path)))
    return tmp_path


@pytest.fixture
def published(root):
    ledger.publish(run_notebook(root, with_pictures=True))
    return root


class Outline(HTMLParser):
    """Collects links and ids, and checks that tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.ids, self.scripts = [], [], [], 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[key] for key in ("src", "href", "poster") if attributes.get(key)]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.scripts += tag == "script"
        if tag == "img":
            assert attributes.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(path):
    """The report's text, after checking that it is well formed and every relative link leads to a file."""
    text = path.read_text(encoding="utf-8")
    page = Outline(text)
    assert len(page.ids) == len(set(page.ids)) and page.scripts == 0
    for link in page.links:
        assert not re.match(r"https?:|//|/", link), link
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif not link.startswith("data:"):
            assert (path.parent / unquote(link)).is_file(), link
    return text


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
    text, page = (published / "reproductions/audit/RESULTS.md").read_text(), checked(ledger.render_report(published))
    for one in (text, page):
        assert "its control audit.A5 does not hold (not run)" in one and "by its criterion alone: holds" in one
    assert "**⊘ blind** |" in text and "control: audit.A5" in text and '<span class="badge blind">' in page
    assert "1 ⊘ blind" in (published / "README.md").read_text()


def test_the_report_counts_papers_and_kit_apart(published):
    page = checked(ledger.render_report(published))
    assert "What the papers claim: 3" in page and "What the kit claims of itself: 2" in page and "5 claims" not in page


# ----------------------------------------------------------------------------------------------------------- the report


def test_report_when_nothing_is_measured(root):
    text = checked(ledger.render_report(root))
    assert (
        "Nothing is published yet" in text and "needs a paid rater study; cost: 200 EUR" in text and "<svg" not in text
    )


def test_report_without_any_claims(tmp_path):
    (tmp_path / "reproductions").mkdir()
    assert "No claims yet" in checked(ledger.render_report(tmp_path))


def test_report_with_published_and_own_runs(published):
    text = checked(ledger.render_report(published))
    for expected in (
        "78.3 -&gt; 93.7",
        "+0.294 [",
        "What differs from the paper",
        "other clips",
        "figures/response.png",
        "figures/moving_square.mp4",
        "figures/moving_square.poster.png",
        "This is the published run",
        "commit",
        "sha256",
        "<code>mf_paper</code>",
        "smallest effect worth naming",
        'href="#audit.A1"',
        "../audit/executed/09_audit.ipynb",
    ):
        assert expected in text, expected
    run_notebook(published)
    text = checked(ledger.render_report(published))
    assert "Your run" in text and "This is the published run" not in text


def test_own_run_alone_brings_its_own_pictures(root):
    run_notebook(root, with_pictures=True)
    run_notebook(root, "smoke")
    text = checked(ledger.render_report(root))
    assert (
        "../../runs/laptop/09_audit/figures/response.png" in text and "your run: holds" in text and "smoke" not in text
    )


def test_half_written_or_foreign_files_in_runs_do_no_harm(published):
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"tier": "laptop"}')):
        (published / "runs/laptop" / name).mkdir(parents=True)
        (published / "runs/laptop" / name / "result.json").write_text(content)
    (published / "reproductions/audit/figures/response.png").unlink()
    checked(ledger.render_report(published))


def test_text_is_escaped(root):
    path = root / "reproductions/audit/claims.yaml"
    path.write_text(CLAIMS.replace("Jitter is seen.", "A <b>bold</b> & `x<1` claim"), encoding="utf-8")
    text = checked(ledger.render_report(root))
    assert "A &lt;b&gt;bold&lt;/b&gt; &amp; <code>x&lt;1</code> claim" in text


def test_undefined_parts_are_shown_as_such():
    part = {"estimate": None, "ci95": [None, None], "minus": None, "against": None, "within": [0, None]}
    assert interval(part) is None


def test_rendering_is_fast_enough_to_follow_every_notebook(published):
    many = "".join(CLAIMS.split("claims:\n")[1].replace("audit.A", f"audit.B{i}") for i in range(20))
    with open(published / "reproductions/audit/claims.yaml", "a", encoding="utf-8") as file:
        file.write(many)
    started = time.perf_counter()
    ledger.render_report(published), ledger.update_readme(published)
    assert time.perf_counter() - started < 2.0


# --------------------------------------------------------------------------------------------------------- in a browser

PROBE = """<script>
addEventListener("load", async () => {
  const images = [...document.images], videos = [...document.querySelectorAll("video")];
  const broken = images.filter(image => !image.naturalWidth).length;
  const playable = videos.filter(video => !video.error && video.readyState > 0).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.body.append(`PROBE images=${images.length} broken=${broken} videos=${videos.length} playable=${playable} ` +
                       `wide=${wide} width=${innerWidth}`);
});
</script></body>"""


def chromium(url, profile, *options):
    """Run headless Chromium on a page; its (stdout, console lines)."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--allow-file-access-from-files",
        "--hide-scrollbars",
        "--virtual-time-budget=8000",
        *options,
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=os.environ | {"HOME": str(profile)})
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
def test_report_in_a_browser(published, tmp_path_factory):
    """No console error, every image and video loads, and nothing is wider than a phone (an iframe of 390 px)."""
    path = ledger.render_report(published)
    probe = path.with_name("probe.html")
    probe.write_text(path.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    phone = path.with_name("phone.html")
    phone.write_text(
        '<body><iframe id="f" src="probe.html" width="390" height="800" style="border:0"></iframe><script>'
        'addEventListener("load", () => setTimeout(() => document.body.append("PHONE " + '
        'document.getElementById("f").contentDocument.body.innerText), 1000));</script></body>',
        encoding="utf-8",
    )
    profile = tmp_path_factory.mktemp("chromium")
    _, console = chromium(path.as_uri(), profile, "--dump-dom")
    assert console == []
    dom, console = chromium(probe.as_uri(), profile, "--dump-dom", "--window-size=1200,900")
    assert console == [] and "PROBE images=1 broken=0 videos=1 playable=1 wide=false" in dom, dom[-300:]
    dom, console = chromium(phone.as_uri(), profile, "--dump-dom", "--window-size=1000,900")
    assert console == [] and re.search(r"PHONE [^§]*PROBE images=1 broken=0[^<]*wide=false width=390", dom), dom[-300:]
