"""The report of this checkout's evidence, and its parts: drawings of every kind of criterion, sentences, costs, escaping."""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace

import pytest
import yaml

from ledger_example import CLAIMS, make_root, run_notebook
from motionlab import ledger
from motionlab.core.files import write_json
from motionlab.core.paths import repo_root
from motionlab.figures import style
from motionlab.ledger.claims import load_all, read_criterion
from motionlab.ledger.criteria import checksum
from motionlab.ledger.report.bands import WIDTH, band
from motionlab.ledger.report.cards import Card, Desk, Group
from motionlab.ledger.report.costs import Costs
from motionlab.ledger.report.pictures import resolution
from motionlab.ledger.report.sources import Sources
from motionlab.ledger.report.wording import Wording, reasons
from motionlab.ledger.standings import Standing
from report_pages import Outline, checked, mirrored


def part(estimate=0.3, ci95=(0.2, 0.4), within=(0.05, None), verdict="holds", **more):
    """A part of a record."""
    return {"raw": "a.csv", "metric": "structure_0", "arm": "full", "minus": None, "over": None, "against": None, "statistic": "mean",
            "where": {}, "minus_best": [], "within": list(within), "estimate": estimate, "ci95": list(ci95), "n": 40, "n_undefined": 0,
            "by_seed": {"0": estimate}, "verdict": verdict, "reason": None} | more


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(make_root(tmp_path)))
    return tmp_path


# ------------------------------------------------------------------------------------------------ the report of this checkout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(index, pages, seconds of processor time) of this checkout's evidence, rendered beside it."""
    folder, started = mirrored(repo_root(), tmp_path_factory.mktemp("site") / "root"), time.process_time()
    index = ledger.render_report(folder, words=style)
    return index, checked(index), time.process_time() - started


def test_every_claim_has_one_card_on_the_page_where_it_belongs(site):
    _, pages, _ = site
    cards = {name: Outline(text).cards for name, text in pages.items()}
    for paper, claims in load_all(repo_root()).items():
        for claim in claims.claims.values():
            where = [name for name, ids in cards.items() for one in ids if one == claim.id]
            assert where == [f"{paper}.html" if claim.about == "paper" else "kit.html"], claim.id
    assert sum(map(len, cards.values())) == sum(len(one.claims) for one in load_all(repo_root()).values())


def test_pages_stay_small_and_are_rendered_fast(site):
    index, pages, seconds = site
    sizes = {name: len(text.encode()) for name, text in pages.items()}
    assert sizes["index.html"] <= 400_000 and max(sizes.values()) <= 1_000_000, sizes
    assert (index.parent / "report.js").read_text().count("\n") <= 110
    assert seconds < 20


def test_arms_and_columns_of_every_criterion_have_words(site):
    """Names of code show by their underscores, equals signs and digits: no label has them but where it is a name of its own."""
    _, pages, _ = site
    for name, text in pages.items():
        for told in re.findall(r'<p class="name">(?:<span.*?</span> )?(?:<span.*?</span> )?(.*?)</p>', text):
            assert "_" not in told and "@" not in told, f"{name}: {told}"


def test_the_matrix_counts_the_papers_alone(site):
    index = site[1]["index.html"]
    table = index.split('<table class="matrix">')[1].split("</table>")[0]
    counted = sum(map(int, re.findall(r"</span>(\d+)</a>", table)))
    assert counted == sum(claim.about == "paper" for one in load_all(repo_root()).values() for claim in one.claims.values())
    assert index.index("What the papers claim") < index.index("What the kit claims of itself")


def test_a_measured_claim_tells_interval_control_cost_and_sources(site):
    card = site[1]["videojam.html"].split('<article id="videojam.C7"')[1].split("</article>")[0]
    for expected in ("VBench-style Motion: VideoJAM minus same budget, no motion", "Control: ", 'href="kit.html#testbed.P-oracle"',
                     "the whole sweep behind sweep_full.csv", " h", "shipped weights it starts from were trained: base 4.3 h", "figures/main.png",
                     "Rows measured by", "claims.yaml, line ", "Blind means", 'class="seed"'):
        assert expected in card, expected
    assert "run_row, line " in site[1]["kit.html"]            # where the function that the row names is still there


def test_readme_and_results_do_not_change_with_the_report(site):
    from motionlab.ledger.results import readme_with_table, render_results

    root = repo_root()
    assert readme_with_table((root / "README.md").read_text(encoding="utf-8"), root) == (root / "README.md").read_text(encoding="utf-8")
    assert all(path.read_text(encoding="utf-8") == text for path, text in render_results(root).items())


# ------------------------------------------------------------------------------------------------------------------- drawings


@pytest.mark.parametrize("within, start, stop", [((0.05, None), "inside", WIDTH), ((None, 0.5), 0, "inside"), ((0.1, 0.5), "inside", "inside"),
                                                 ((0.3, 0.3), "inside", "inside"), ((2, None), "inside", WIDTH)])
def test_a_band_holds_all_that_is_drawn(within, start, stop):
    at = band(part(within=within, minus="continued"))
    for value, wanted in ((at.start, start), (at.stop, stop)):
        assert 0 < value < WIDTH if wanted == "inside" else value == wanted
    assert 0 < at.low < at.estimate < at.high < WIDTH and at.start <= at.stop
    assert [mark.kind for mark in at.marks].count("zero") == 1 and all(0 <= mark.at <= WIDTH for mark in at.marks)


def test_a_band_says_where_the_interval_lies():
    for estimate, ci95, inside in ((0.3, (0.2, 0.4), True), (-0.3, (-0.4, -0.2), False)):
        at = band(part(estimate, ci95, (0.05, None)))
        assert (at.low > at.start) == inside and (at.high < at.start) != inside
    assert band(part(1.5, (1.4, 1.6), (0.98, 1.02), over="x")).labels[0].text == "0.98 to 1.02"     # too near for a text each


def test_zero_one_floor_and_seeds_are_drawn_where_they_mean_something():
    kinds = lambda **more: {mark.kind for mark in band(part(**more)).marks}  # noqa: E731
    assert kinds() == {"bound"} and kinds(minus="a") == kinds(against="m") == kinds(minus_best=["a", "b"]) == {"bound", "zero"}
    assert kinds(over="a") == {"bound", "one"}
    floor = band(part(), floor=0.35)
    assert "floor" in [mark.text for mark in floor.labels] and floor.seeds == ()
    assert len(band(part(by_seed={"0": 0.2, "1": 0.4, "2": None})).seeds) == 2


def test_what_was_not_measured_is_drawn_without_an_interval():
    for one in (part(None, (None, None)), {"within": (0.1, None), "minus": "a"}):
        at = band(one)
        assert at.estimate is at.low is None and 0 < at.start < WIDTH


SINGLE = {"raw": "a.csv", "metric": "m", "arm": "a", "within": [0.1, None]}
KINDS = {"single": SINGLE, "minus": SINGLE | {"minus": "b"}, "over": SINGLE | {"over": "b"}, "against": SINGLE | {"against": "k"},
         "best": SINGLE | {"minus_best": ["b", "c"]}, "median": SINGLE | {"statistic": "median"}, "share": SINGLE | {"statistic": "share_true"},
         "all": {"all": [SINGLE, SINGLE | {"arm": "b"}]}, "any": {"any": [SINGLE, SINGLE | {"arm": "b"}]},
         "agree": {"all": [SINGLE, {"agree": [SINGLE | {"metric": "r0"}, SINGLE | {"metric": "r1"}], "why": "two readers"}]}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("measured", [True, False])
def test_every_kind_of_criterion_becomes_a_card(root, kind, measured):
    criterion = read_criterion(KINDS[kind], "criterion")
    parts = [part() | {"metric": leaf.metric, "arm": leaf.arm, "minus": leaf.minus, "over": leaf.over, "against": leaf.against,
                       "minus_best": list(leaf.minus_best), "statistic": leaf.statistic} for leaf in criterion.leaves()]
    claim = SimpleNamespace(id="audit.X", paper="audit", criterion=criterion, control=(), notebook=None)
    costs = Costs(root)
    desk = Desk(Sources(root, costs), costs, {}, {}, style)
    (node,) = Card(Standing(claim, "holds", {"parts": parts, "notebook": "x"}) if measured else Standing(claim, "not run"), desk).tests

    def tests(one):
        return [leaf for member in one.members for leaf in tests(member)] if isinstance(one, Group) else [one]

    assert len(tests(node)) == len(criterion.leaves()) and all(one.verdict == ("holds" if measured else None) for one in tests(node))
    assert isinstance(node, Group) == (kind in ("all", "any", "agree"))
    words = {"minus": "a minus b", "over": "a divided by b", "against": "m minus k", "best": "a minus the best of b, c", "median": "median of m"}
    assert words.get(kind, "m: a" if kind != "agree" else "r1: a") in " ".join(one.name for one in tests(node))
    if kind == "agree":
        assert node.members[1].heading == "These readers must say the same" and node.members[1].why == "two readers"


# ------------------------------------------------------------------------------------------------------------------ sentences


def test_findings_and_reasons_follow_from_the_parts():
    told = Wording("audit", style)
    parts = [part(), part(0.0, (-0.1, 0.02), verdict="fails", metric="mf_paper", minus="frozen"), part(0.1, (0, 0.2), verdict="inconclusive")]
    record = {"parts": parts, "verdict": "fails", "tier": "full", "protocol": 7}
    row = Standing(SimpleNamespace(), "fails", record)
    assert told.finding(row) == "MF (paper): full minus frozen is 0 [-0.1, 0.02], wanted ≥ 0.05. Of its 3 tests 1 holds."
    why = " ".join(reasons(row, "all"))
    assert "1 lies inside what was wanted, 1 lies outside what was wanted, 1 reaches over the edge" in why and "All of these must hold" in why
    assert why.endswith("Measured on 40 items, at tier full, under protocol 7.")
    blind = Standing(SimpleNamespace(), "blind", record | {"parts": parts[:1], "verdict": "holds"}, "its control does not hold")
    assert "its criterion says: holds. It is shown as blind: its control does not hold." in " ".join(reasons(blind, None))


def test_names_without_a_label_are_read_as_they_stand():
    assert Wording("audit").test(part(metric="part_error", where={"kind": "x", "t": 0.5})) == "part error: full (x, t 0.5)"
    assert Wording("audit", style).test(part(arm="time_reversal", minus="identity")) == \
        "structure error (evaluator 0): played backwards minus the original"


# ---------------------------------------------------------------------------------------------------------------------- costs


def sweep(root, rows):
    folder = root / "reproductions/audit/raw"
    folder.mkdir(exist_ok=True)
    (folder / "sweep_full.json").write_text(json.dumps(rows), encoding="utf-8")


def test_the_cost_of_a_verdict_is_that_of_its_rows(root):
    weights = "reproductions/testbed/checkpoints/base"
    (root / weights).parent.mkdir(parents=True)
    (root / f"{weights}.md").write_text("# base\n\n| stage | steps | minutes |\n|---|---|---|\n| a | 10 | 43 |\n| b | 20 | 77 |\n")
    rows = [{"arm": arm, "seconds": 3600 * hours, "resumed": arm == "b", "settings": {f"data {weights}.safetensors": "x", "row": "m:f"}}
            for arm, hours in (("a", 1), ("b", 2), ("c", 3))]
    sweep(root, [*rows, {"arm": 3}, "no row"])
    claim = SimpleNamespace(paper="audit", id="audit.X")
    record = {"raw": {"sweep_full.csv": "0"}, "parts": [part(raw="sweep_full.csv", arm="a", minus="b")], "seconds": 6.0, "device": "cpu"}
    told = Costs(root).sentences(Standing(claim, "holds", record), None)
    assert told[0] == ("The 2 rows that it compares took at least 3.0 h; the whole sweep behind sweep_full.csv (3 rows, an arm and a seed "
                       "each) took at least 6.0 h, and arms share trainings.")
    assert told[1] == "The notebook that judged it took 6.0 s on cpu."
    assert told[2] == "Before that, the shipped weights it starts from were trained: base 2.0 h."
    record |= {"raw": {"own.csv": "0"}, "parts": [part(raw="own.csv")]}
    told = Costs(root).sentences(Standing(claim, "holds", record), {"raw": [{"file": "sweep_full.csv"}], "seconds": 60})
    assert told == ["The notebook that judged it took 60 s on cpu.",
                    "The same notebook reads the 3 committed rows of sweep_full.csv, which took at least 6.0 h."]


@pytest.mark.parametrize("text", ["", "{", "[1, null]", '{"arm": "a"}', '[{"arm": "a", "seconds": "x"}]', '[{"arm": "a", "seconds": NaN}]'])
def test_a_file_beside_the_raw_rows_that_is_no_sweep_costs_nothing(root, text):
    sweep(root, [])
    (root / "reproductions/audit/raw/sweep_full.json").write_text(text)
    assert Costs(root).rows("audit", "sweep_full.csv") == ()


def test_the_resolution_of_a_picture_is_read_from_it(tmp_path):
    from PIL import Image

    for dpi in (72, 144):
        Image.new("RGB", (20, 10)).save(tmp_path / "a.png", dpi=(dpi, dpi))
        assert abs(resolution(tmp_path / "a.png") - dpi) < 0.1
    (tmp_path / "b.png").write_bytes(b"none")
    assert resolution(tmp_path / "b.png") == 144


# ------------------------------------------------------------------------------------------------------------------- escaping

EVIL = '</script><script>alert(1)</script> | <img src=x onerror=1> "\' &amp; \u202etxt\u200f'


def evil(value):
    """Every text in plain data with something to escape at its end."""
    if isinstance(value, dict):
        return {key: evil(one) for key, one in value.items()}
    return [evil(one) for one in value] if isinstance(value, list) else f"{value} {EVIL}" if isinstance(value, str) else value


FREE = ("says", "where", "because", "paper_value", "differs", "not_run", "not_transferable")


def test_nothing_that_a_claim_or_a_result_says_becomes_markup(root):
    data = yaml.safe_load(CLAIMS)
    for claim in data["claims"].values():
        claim |= {name: evil(claim[name]) for name in FREE if claim.get(name)}
    data["claims"]["audit.A1"]["criterion"]["why"] = EVIL
    data["claims"]["audit.A1"]["control"] = ["audit.A2"]
    (root / "reproductions/audit/claims.yaml").write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    (root / "reproductions/audit/README.md").write_text(f"# {EVIL}\n", encoding="utf-8")
    run = run_notebook(root, with_pictures=True)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    for entry in result["figures"] + result["videos"]:
        entry |= {"caption": EVIL, "alt": EVIL}
    for record in result["claims"].values():
        record |= {"device": EVIL, "commit": EVIL, "versions": {EVIL: EVIL}, "params": {EVIL: EVIL}}
        record["parts"][0] |= {"reason": EVIL, "where": {EVIL: EVIL}, "metric": record["parts"][0]["metric"]}
        record["checksum"] = checksum(record)
    write_json(run / "result.json", result)
    for published in (False, True):
        if published:
            text = yaml.safe_dump({name: [record] for name, record in result["claims"].items()}, allow_unicode=True)
            (root / "reproductions/audit/measured.yaml").write_text(text, encoding="utf-8")
        pages = checked(ledger.render_report(root, words=style))
        for name, text in pages.items():
            assert "alert(1)" in text and text.count("<script") == 1 and "<img src=x" not in text, name
            assert not re.search("[\u202a-\u202e\u200e\u200f]", text), name
