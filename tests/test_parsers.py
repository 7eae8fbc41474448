"""Every reader of foreign text against text that nobody would write: a value or a MotionLabError, within a second.

`make test` tries few examples; HYPOTHESIS_PROFILE=nightly tries 2 000 of each.
"""
import json
import os
import time

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ledger_example import CLAIMS, make_root, write_notebook
from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError
from motionlab.core.yamls import parse_yaml

BOUND_S = 3.0  # of this process's own work: a loaded machine is no defect
MEMORY = 6 * 1024**3  # of this process: a reader that takes what a number in a file asks for shows itself
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
settings.register_profile("short", max_examples=40, derandomize=True, **COMMON)
settings.register_profile("nightly", max_examples=2000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

words = st.sampled_from(["", "a", "1", "-1", "1e9", ".nan", ".inf", "null", "true", "[", "{", "]", "- ", ": ", "? ", "&a ", "*a", "<<: ", "!!int ", "!!binary ",
                         "'", '"', "\n", "\n  ", "#", "|", ">", "%", "@", "0x", "0b1", "1_", "2026-13-45", "\t", "\x00", "é", "\u202e", "=", "~", ","])
soup = st.lists(words, max_size=40).map("".join) | st.text(max_size=200)
numbers = st.integers() | st.sampled_from([10**9, -10**9, 10**12, 2**63, 10**30])
leaves = st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=20) | st.sampled_from(["../x", "a\nb", "x" * 300, "1e-3"])
plain = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4), max_leaves=12)


def only_sentences(call, *arguments):
    """The result of a call, or None where it raised the kind of error that it may."""
    began = time.process_time()
    try:
        return call(*arguments)
    except MotionLabError as error:
        assert error.what.strip() and "\x00" not in type(error).__name__
    finally:
        assert time.process_time() - began < BOUND_S, "it took too long"


def changed(draw, data, depth=4):
    """Plain data with one thing in it replaced, taken out or renamed."""
    if isinstance(data, dict) and data and depth and draw(st.booleans()) | (depth > 2):
        key = draw(st.sampled_from(sorted(data, key=str)))
        how = draw(st.sampled_from(["deeper", "deeper", "gone", "renamed"]))
        rest = {name: value for name, value in data.items() if name != key}
        if how == "gone":
            return rest
        return rest | ({draw(st.text(max_size=8)): data[key]} if how == "renamed" else {key: changed(draw, data[key], depth - 1)})
    if isinstance(data, list) and data and depth and draw(st.booleans()):
        index = draw(st.integers(0, len(data) - 1))
        return [*data[:index], changed(draw, data[index], depth - 1), *data[index + 1:]]
    return draw(plain)


@st.composite
def near(draw, data):
    """`data` with up to three mistakes."""
    for _ in range(draw(st.integers(1, 3))):
        data = changed(draw, data)
    return data


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Address space beyond what is taken already is limited: a bomb is a MemoryError here, and no dead machine."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() if os.path.exists("/proc/self/statm") else 64 * 1024**3
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    from motionlab.ledger.report import render_report

    root = make_root(tmp_path_factory.mktemp("root"))
    render_report(root)  # what is imported on first use is no reader's time
    return root


def _place(tmp_path_factory):
    """One folder for all examples of a search, apart from other tests'."""
    folder = tmp_path_factory.getbasetemp() / "searched"
    folder.mkdir(exist_ok=True)
    return folder



@given(soup)
def test_yaml(text):
    only_sentences(parse_yaml, text, "it")


@given(plain)
def test_yaml_reads_back_what_was_written(data):
    text = yaml.safe_dump(data, allow_unicode=True)
    found = only_sentences(parse_yaml, text, "it")
    if found is not None and "nan" not in text:
        assert found == yaml.safe_load(text) or "timestamp" in repr(yaml.safe_load(text)) or "date" in repr(yaml.safe_load(text))


@given(near(yaml.safe_load(CLAIMS)))
def test_claims(root, data):
    from motionlab.ledger.claims import load_claims

    (root / "reproductions/audit/claims.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    only_sentences(load_claims, "audit", root)


RECORD = {"verdict": "holds", "parts": [{"raw": "a.csv", "metric": "m", "arm": "a", "minus": None, "over": None, "against": None, "statistic": "mean", "where": {},
          "within": [0, None], "estimate": 1.0, "ci95": [0.5, 1.5], "n": 4, "n_undefined": 0, "by_seed": {"0": 1.0}, "verdict": "holds", "reason": None}],
          "tier": "laptop", "notebook": "09_audit", "params": {}, "criterion_version": 1, "claim_sha": "0", "raw": {"a.csv": "0"}, "commit": None, "dirty": False,
          "date": "2026-11-30", "device": "cpu", "versions": {}, "seconds": 1.0, "checksum": "0"}


@example(data={"audit.A1": [RECORD | {"dirty": {"": None, 0: None}}]})      # keys that have no order
@given(data=near({"audit.A1": [RECORD]}))
def test_measured_records_and_what_is_rendered_of_them(root, data):
    from motionlab.ledger.results import render_readme_table
    from motionlab.ledger.verify import paper_problems

    (root / "reproductions/audit/claims.yaml").write_text(CLAIMS, encoding="utf-8")
    (root / "reproductions/audit/measured.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    try:
        only_sentences(paper_problems, "audit", root)
        only_sentences(render_readme_table, root)
    finally:
        (root / "reproductions/audit/measured.yaml").unlink()


RESULT = {"notebook": "09_audit", "paper": "audit", "tier": "laptop", "params": {}, "claims": {"audit.A1": RECORD}, "notes": {}, "seconds": 1.0,
          "raw": [{"file": "a.csv", "sha256": "0"}], "figures": [{"file": "a.png", "caption": "c", "alt": "a", "claims": []}], "videos": []}


@example(data=RESULT | {"claims": {"audit.A1": {name: value for name, value in RECORD.items() if name != "seconds"}}})
@given(data=near(RESULT))
def test_results_of_runs(root, data):
    from motionlab.ledger.publishing import publish
    from motionlab.ledger.report import render_report

    folder = root / "runs/laptop/09_audit"
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "figures/a.png").write_bytes(b"")
    (folder / "result.json").write_text(json.dumps(data), encoding="utf-8")
    only_sentences(publish, folder, root)
    only_sentences(render_report, root)


@given(st.sampled_from(["codec", "base"]), near({"codec": {"bank": {"split": "pretraining", "clips": 8}, "training": {"lr": 1e-3}},
                                                "base": {"stages": [{"name": "frames", "recipe": {"length": 1}}]}}))
def test_pretrain_settings(root, name, data):
    from motionlab.pretrain import stages

    (root / stages.HOME).mkdir(parents=True, exist_ok=True)
    (root / stages.HOME / "pretrain.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    only_sentences(stages.read_settings, root)


ARMS = {"paper": "audit", "row": "sweep_example:run_row", "arms": [{"name": "base", "seeds": [0, 1], "grid": {"lr": [0.1, "1e-4"]}}], "common": {"units": 2},
        "data": ["reproductions"], "cost": {"minutes_per_row": {"full": 20}, "ram_gb": 3}}


@example(data=ARMS | {"data": ["x" * 4000]})                               # a name that no file system could hold
@given(data=near(ARMS))
def test_ablations(root, data):
    from motionlab.runner.sweep.ablations import read_sweep

    (root / "arms.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    only_sentences(read_sweep, root / "arms.yaml", root)


@given(near({"actors": [{"species": "dog", "x": 0.5, "path": [[0, 0], [1, 1]], "hide": ["head"]}], "place": "meadow", "camera": {"pan": [0, 1], "zoom": 0.1},
             "occluders": [{"x": 0.5}]}))
def test_scenes(tmp_path_factory, data):
    from motionlab.world.scenes import Scene

    path = _place(tmp_path_factory) / "scene.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    only_sentences(Scene.from_yaml, path)


@given(near({"steps": 10, "lr": 1e-3, "optimizer": "adamw", "bf16": True, "ema": 0.9}))
def test_settings_of_a_training(data):
    from motionlab.training import TrainConfig

    only_sentences(from_values, TrainConfig, data, "training config")


@given(soup, st.sampled_from(["n_clips", "tier", "x", "words", "share"]))
def test_parameters_of_a_notebook(root, text, name):
    from motionlab.ledger.notebooks import read_notebook
    from motionlab.runner.params import resolve

    write_notebook(root, "10_parser", 'tier = "laptop"\nout_dir = "o"\nn_clips = 4\nshare = 0.5\nwords = ["a"]\nx = None')
    only_sentences(resolve, read_notebook("10_parser", root), "laptop", {name: text}, root)


@given(near(json.loads(json.dumps({"cells": [{"cell_type": "code", "source": "n = 4", "metadata": {"tags": ["parameters"]}, "outputs": []}],
                                   "metadata": {"motionlab": {"paper": "audit", "title": "t", "claims": ["a.A1"], "data": [], "limits": {"n": [0, 9]}}}}))))
def test_notebooks(root, data):
    from motionlab.ledger.notebooks import read_file

    path = root / "x.ipynb"
    path.write_text(json.dumps(data), encoding="utf-8")
    only_sentences(read_file, path)


@given(st.lists(st.sampled_from(['"', ",", "\n", "\r", "file", "caption", "a.mp4", "\t", "\x00", "é", " ", "x" * 70]), max_size=30).map("".join))
def test_captions(tmp_path_factory, text):
    from motionlab.data.sources import _read_captions

    path = _place(tmp_path_factory) / "captions.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found = only_sentences(_read_captions, path)
    assert found is None or all("\n" not in caption for caption in found.values())


@given(st.lists(st.sampled_from(["item", "arm", "seed", "m", ",", "\n", '"', "1", "nan", "x", "\r", "\x00"]), max_size=30).map("".join))
def test_raw_tables(tmp_path_factory, text):
    from motionlab.ledger import verdict


    path = _place(tmp_path_factory) / "raw.csv"
    path.write_text(text, encoding="utf-8", newline="")
    table = only_sentences(verdict.read_raw, path)
    for column in table or ():
        only_sentences(verdict.numbers, table, column)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    import numpy as np

    from motionlab.video import write_mp4

    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), dtype=np.uint8)
    return write_mp4(tmp_path_factory.mktemp("video") / "a.mp4", frames, 8).read_bytes()


@given(st.data())
def test_video_headers(mp4, tmp_path_factory, data):
    from motionlab.video import probe_video, read_video

    spoiled = bytearray(mp4[:data.draw(st.integers(0, len(mp4)))] if data.draw(st.booleans()) else mp4)
    boxes = [at for name in (b"moov", b"tkhd", b"stsd", b"stsz", b"stts", b"mdhd", b"avc1", b"ftyp") if (at := spoiled.find(name)) >= 0] or [0]
    for _ in range(data.draw(st.integers(0, 6))):
        at = min(len(spoiled) - 1, data.draw(st.sampled_from(boxes)) + data.draw(st.integers(-4, 80)))
        if at >= 0 and spoiled:
            spoiled[at] = data.draw(st.integers(0, 255))
    path = _place(tmp_path_factory) / "spoiled.mp4"
    path.write_bytes(spoiled)
    only_sentences(probe_video, path)
    only_sentences(read_video, path)


@given(soup)
def test_manifests_and_digests(tmp_path_factory, text):
    from motionlab.core import digests
    from motionlab.core.files import read_json

    folder = _place(tmp_path_factory)
    (folder / "w").mkdir(exist_ok=True)
    (folder / "w" / "a").write_bytes(b"1")
    for name in ("w.sha256", "manifest.json"):
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
    only_sentences(digests.problem_of, folder / "w" / "a")
    assert read_json(folder / "manifest.json") is None or isinstance(json.loads(text), dict)
