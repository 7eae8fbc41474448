"""The claims and the protocol as data: complete, well formed, and with the papers' digits intact."""
from __future__ import annotations

import datetime
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from motionlab.ledger.claims import load_claims

ROOT = Path(__file__).resolve().parents[1] / "reproductions"
PAPERS = {path.parent.name: path for path in sorted(ROOT.glob("*/claims.yaml"))}
EXPECTED_COUNTS = {"videojam": 16, "det": 22, "sam2videox": 19, "vtg": 16}
HALVES = {"det": {4: "C4b"}}          # sentences of a paper that are judged in two halves: {number: the second}
SOURCES = {"stated", "code", "inferred", "reported", "unverified", "measured"}
VERDICTS = ["holds", "fails", "inconclusive", "blind", "not transferable", "not run"]
REQUIRED = {"says", "where", "source", "paper_value", "status", "notebook", "criterion", "about"}
OPTIONAL = {"differs", "not_run", "not_transferable", "bearing", "because", "control", "protocol", "ruling"}
LEAF_REQUIRED = {"raw", "metric", "arm", "within", "why"}
LEAF_OPTIONAL = {"minus", "minus_best", "over", "against", "statistic", "where", "n"}
STATISTICS = {"mean", "median", "share_true"}

# The figures a reader will compare with, typed a second time so that a slipped digit in claims.yaml shows up here.
PAPER_NUMBERS = {
    "videojam.C4": "71.1 77.3 82.0",
    "videojam.C5": "71.9 74.2 72.7",
    "videojam.C6": "1.5 63.8 68.5 77.3",  # the first is Kling's version
    "videojam.C7": "78.3 93.7 75.2 75.1 88.1 92.4 72.4 73.4",
    "videojam.C8": "62.5 74.7 68.8 93.7 90.1",
    "videojam.C9": "93.7 90.1 90.4 93.1 93.3",
    "videojam.C11": "38.3 87.5 99.3 98.8 71.1 82.3 98.8 99.0",
    "videojam.C14": "84.3 94.5 96.1 76.6 83.6 82.8 73.4 71.9 85.9 56.1 65.6 74.2 93.7 92.4 92.0 90.8 88.8",
    "videojam.C15": "68.0 62.5 68.9 64.4 79.0 70.4 73.7 85.2",
    "det.C1": "3.2 19.5 2.2",
    "det.C6": "28.4 80.4 27.1 84.9 31.3 73.1 31.6 85.6",
    "det.C9": "0.1",
    "det.C11": "31.2 89.6 85.8 31.9 91.9 85.9 26.6 85.4 85.0 28.4 85.6 80.4",
    "det.C12": "67.9 66.8 68.3 80.3 92.2 84.8",
    "det.C16": "85.9 85.8 30.5 87.6 65.1 80.7 80.1 80.5 31.8 31.1",
    "det.C18": "80.9 82.9",
    "sam2videox.C1": "95.51 92.91 2.60",
    "sam2videox.C2": "360.57 21.20 457.58",
    "sam2videox.C3": "22.46 465.01",
    "sam2videox.C4": "71.4",
    "sam2videox.C6": "92.91 457.6",
    "sam2videox.C8": "1.4",
    "vtg.C1": "67.39 70.49 82.03 86.92 87.32",
    "vtg.C2": "39.16 42.99 43.15 43.31 48.25",
    "vtg.C3": "22.80 18.19 21.10 26.90",
    "vtg.C4": "5.14 5.14",
    "vtg.C5": "42.78 33.46 50.00 41.82 19.57 50.00 41.82 30.44 38.89",
}


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def all_claims() -> list[tuple[str, str, dict]]:
    return [(paper, key, claim) for paper, path in PAPERS.items() for key, claim in load(path)["claims"].items()]


CLAIMS = all_claims()
each_claim = pytest.mark.parametrize("paper, key, claim", CLAIMS, ids=[key for _, key, _ in CLAIMS])
each_paper = pytest.mark.parametrize("paper", list(PAPERS))


def leaves(criterion: dict) -> list[dict]:
    """The simple criteria inside a nest of `all` and `any`."""
    for word in ("all", "any", "agree"):
        if word in criterion:
            assert set(criterion) <= {word, "why"}, f"'{word}' stands alone, found {sorted(criterion)}"
            assert criterion[word], f"'{word}' is empty"
            return [leaf for part in criterion[word] for leaf in leaves(part)]
    return [criterion]


def keys_repeated(path: Path) -> list[str]:
    """YAML keeps the last of two equal keys without a word, so claim ids are counted in the text."""
    keys = re.findall(r"^  ([a-z0-9]+\.[\w-]+):", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return sorted({key for key in keys if keys.count(key) > 1})


@each_paper
def test_claims_file_has_version_and_history_with_quoted_dates(paper):
    data = load(PAPERS[paper])
    assert set(data) == {"version", "protocol", "history", "claims"}
    assert [entry["version"] for entry in data["history"]][-1] == data["version"]
    for entry in data["history"]:
        assert set(entry) == {"version", "date", "reason"}
        assert isinstance(entry["date"], str), "quote the date: unquoted it loads as a date object"
        datetime.date.fromisoformat(entry["date"])
        assert entry["reason"].strip()


@each_paper
def test_ids_are_unique_and_carry_the_paper_as_prefix(paper):
    assert keys_repeated(PAPERS[paper]) == []
    for key in load(PAPERS[paper])["claims"]:
        assert re.fullmatch(rf"{paper}\.[A-Z](\d+b?|-[a-z]+)", key), key


@pytest.mark.parametrize("paper, count", EXPECTED_COUNTS.items())
def test_every_claim_of_the_paper_is_there(paper, count):
    """The paper's own come first, as C1, C2, ...; what the kit adds (controls) has another letter and stands behind them."""
    names, wanted = list(load(PAPERS[paper])["claims"]), sentences(paper, count)
    assert names[:len(wanted)] == wanted
    assert not any(name.startswith(f"{paper}.C") for name in names[len(wanted):])


def sentences(paper, count):
    """Ids of a paper's own sentences, in order."""
    halves = HALVES.get(paper, {})
    return [f"{paper}.{name}" for k in range(1, count + 1) for name in (f"C{k}", halves.get(k)) if name]


@each_claim
def test_claim_has_the_fields_of_the_schema(paper, key, claim):
    assert REQUIRED <= set(claim) <= REQUIRED | OPTIONAL, sorted(set(claim) ^ REQUIRED)
    assert claim["source"] in SOURCES
    assert claim["status"] in {"final", "draft"}
    assert claim["paper_value"] is None or isinstance(claim["paper_value"], str)
    assert claim["notebook"] is None or re.fullmatch(r"\d\d_[a-z0-9_]+", claim["notebook"])
    assert claim["says"].strip().endswith("."), "one full sentence"
    assert claim["where"].strip()
    assert all(isinstance(line, str) and line for line in claim.get("differs", []))


@pytest.mark.parametrize("paper, count", EXPECTED_COUNTS.items())
def test_the_papers_own_sentences_are_about_the_paper_and_no_others(paper, count):
    claims = load(PAPERS[paper])["claims"]
    assert [key for key, claim in claims.items() if claim["about"] == "paper"] == sentences(paper, count)


@pytest.mark.parametrize("paper", sorted(set(PAPERS) - set(EXPECTED_COUNTS)))
def test_what_is_no_paper_has_no_claims_of_papers(paper):
    assert {claim["about"] for claim in load(PAPERS[paper])["claims"].values()} == {"kit"}


@each_claim
def test_a_criterion_says_what_it_bears_on_and_why(paper, key, claim):
    assert not claim["criterion"] or (claim["bearing"] in {"direct", "proxy"} and len(claim["because"]) > 20)
    assert "ruling" not in claim or len(claim["ruling"]["reason"]) > 20


@each_claim
def test_claim_can_be_judged_or_says_why_not(paper, key, claim):
    assert claim["criterion"] or "not_run" in claim or "not_transferable" in claim
    assert not ("not_run" in claim and "not_transferable" in claim), "one reason at a time"
    if "not_run" in claim:
        assert set(claim["not_run"]) == {"reason", "command", "cost"}
        assert all(isinstance(text, str) and text.strip() for text in claim["not_run"].values())
    if "not_transferable" in claim:
        assert set(claim["not_transferable"]) == {"reason"} and claim["not_transferable"]["reason"].strip()


@each_claim
def test_command_names_the_notebook_of_the_claim(paper, key, claim):
    found = re.match(r"motionlab run (\S+)", claim.get("not_run", {}).get("command", ""))
    assert found is None or found.group(1) == claim["notebook"]


@each_claim
def test_criterion_is_well_formed(paper, key, claim):
    for leaf in leaves(claim["criterion"]) if claim["criterion"] else []:
        assert LEAF_REQUIRED <= set(leaf) <= LEAF_REQUIRED | LEAF_OPTIONAL, sorted(leaf)
        assert leaf["raw"].endswith(".csv") and leaf["why"].strip()
        assert leaf.get("statistic", "mean") in STATISTICS
        low, high = leaf["within"]
        assert not (low is None and high is None), "a range without an end judges nothing"
        assert low is None or high is None or low <= high


@pytest.mark.parametrize("key, numbers", PAPER_NUMBERS.items())
def test_paper_values_carry_the_papers_digits(key, numbers):
    claim = load(PAPERS[key.split(".")[0]])["claims"][key]
    printed = re.findall(r"\d+\.\d+", claim["paper_value"])
    # In order, because a swapped pair (text for quality) is as wrong as a slipped digit.
    wanted = numbers.split()
    assert printed == wanted


def test_splits_are_disjoint_ranges_of_seeds():
    splits = load(ROOT / "protocol.yaml")["splits"]
    assert {"pretraining", "fine_tuning", "teacher", "dev", "test"} <= set(splits)
    for name, split in splits.items():
        assert 0 <= split["first"] <= split["last"] < 2**31, name
    for (one, a), (other, b) in combinations(splits.items(), 2):
        assert a["last"] < b["first"] or b["last"] < a["first"], f"{one} and {other} share seeds"


def test_protocol_knows_the_verdict_words_and_no_others():
    protocol = load(ROOT / "protocol.yaml")
    assert protocol["verdicts"] == VERDICTS
    assert all(isinstance(entry["date"], str) for entry in protocol["history"])


def test_drafts_that_wait_for_their_arms_can_take_their_place(tmp_path):
    """reproductions/<paper>/pilots/claims.yaml: entries that follow once what they are measured on is there."""
    drafts = sorted(ROOT.glob("*/pilots/claims.yaml"))
    for path in drafts:
        paper, home = path.parents[1].name, tmp_path / path.parents[1].name
        for source in (*ROOT.glob("*/claims.yaml"), ROOT / "protocol.yaml"):
            target = home / "reproductions" / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        values, new = load(PAPERS[paper]), load(path)
        assert new["version"] == values["version"] + 1 and all(claim["status"] == "draft" for claim in new["claims"].values())
        merged = values | {"version": new["version"], "history": values["history"] + new["history"], "claims": values["claims"] | new["claims"]}
        (home / "reproductions" / paper / "claims.yaml").write_text(yaml.safe_dump(merged, sort_keys=False))
        read = load_claims(paper, home)
        assert set(new["claims"]) <= {claim.id for claim in read.claims.values()}
        for id, digits in PAPER_NUMBERS.items():
            if id in new["claims"]:
                assert set(digits.split()) <= set(re.findall(r"[\d.]*\d", str(new["claims"][id])))
