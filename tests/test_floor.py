"""What comes from outside is data: bounded, checked before anything starts, and never run, followed or shown as markup."""
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest

from ledger_example import CLAIMS, make_root, run_notebook
from motionlab import cli, ledger
from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError
from motionlab.core.files import parse_json, read_json
from motionlab.core.paths import repo_root
from motionlab.core.yamls import MAX_DEPTH, parse_yaml, read_yaml
from motionlab.ledger import escaping, shapes
from motionlab.ledger.results import render_results
from motionlab.runner.patience import Patience

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(make_root(tmp_path)))
    return tmp_path


# ----------------------------------------------------------------------------------------------------------------- YAML


@pytest.mark.parametrize("text, says", [
    (BOMB, "stands for more than"), ("[" * 100_000, "nested more than"), ("- " * 100_000, "nested more than"),
    ("{a: " * 5000, "nested more than"), ("a: &x [*x]", "a part of"), ("a: 1\na: 2", "'a' stands twice"), ("? [1]\n: 2", "a key is a list"),
    ("a: !!int x", "cannot be read"), ("!!timestamp x", "not valid YAML"), ("a: !!python/object:os.x {}", "not valid YAML"), ("\x00", "not valid YAML"),
])
def test_yaml_that_is_a_trap_is_a_sentence_in_no_time(text, says):
    began = time.monotonic()
    with pytest.raises(MotionLabError, match=says):
        parse_yaml(text, "it")
    assert time.monotonic() - began < 5


def test_yaml_that_is_none_keeps_what_it_may_say(tmp_path):
    assert parse_yaml("base: &b {x: 1}\nother: {<<: *b, y: 2026-11-30}", "it") == {"base": {"x": 1}, "other": {"x": 1, "y": "2026-11-30"}}
    assert parse_yaml("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1), "it") is not None
    with pytest.raises(MotionLabError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MotionLabError, match="not UTF-8"):
        read_yaml(tmp_path / "x.yaml")


def test_duplicate_keys_and_numbers_that_are_none_are_refused_in_settings():
    @dataclass
    class Some:
        lr: float = 1.0

    for text, says in (("lr: 1\nlr: 2", "stands twice"), ("lr: .nan", "finite"), ("lr: .inf", "finite"), ("lr: 1e999", "finite")):
        with pytest.raises(MotionLabError, match=says):
            from_values(Some, parse_yaml(text, "config"), "config")


def test_yaml_is_loaded_in_one_place_only():
    home = repo_root() / "lib" / "motionlab"
    loads = {path.relative_to(home).as_posix() for path in home.rglob("*.py") if "yaml.safe_load(" in (text := path.read_text()) or "yaml.load(" in text}
    assert loads - {"core/yamls.py"} == set()


def test_json_is_bounded_in_depth(tmp_path):
    for text in ("[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500):
        with pytest.raises(ValueError):
            parse_json(text)
        (tmp_path / "x.json").write_text(text)
        assert read_json(tmp_path / "x.json") is None
    assert parse_json("[" * 50 + "]" * 50)


# ------------------------------------------------------------------------------------------------------------- escaping

EVIL = "<script>alert(1)</script> | `<img src=x onerror=1>` \u202etxt\n# head [x](javascript:1) ``"


def test_what_a_claim_says_is_text_in_report_and_readme(root):
    text = CLAIMS.replace("says: Jitter is seen.", f"says: {json.dumps(EVIL)}").replace("needs a paid rater study", json.dumps(EVIL))
    (root / "reproductions/audit/claims.yaml").write_text(text, encoding="utf-8")
    page = ledger.render_report(root).read_text(encoding="utf-8")
    table = "\n".join([ledger.render_readme_table(root), *render_results(root).values()])
    assert "<script>" not in page and "<img src=x" not in page and "\u202e" not in page
    assert "&lt;script&gt;" in page and "<code>&lt;img src=x onerror=1&gt;</code>" in page
    rows = [line for line in table.splitlines() if "alert(1)" in line]
    assert len(rows) == 2 and all(row.replace("\\|", "").count("|") == 6 for row in rows)
    assert "<script>" not in table and "](javascript" not in table and "\u202e" not in table


def test_text_that_means_nothing_stays_as_it_is():
    plain = "78.3 -> 93.7 (< 3 % of a & b), `a < b`, 0.2 [0.1, 0.3]"
    assert escaping.markdown_cell(plain) == plain


@pytest.mark.parametrize("change, says", [
    (lambda r: r["raw"][0].update(file="../evil.csv"), "no name inside its folder"),
    (lambda r: r["raw"][0].update(file="/etc/passwd"), "no name inside its folder"),
    (lambda r: r.update(notebook="../../../escaped"), "no plain name"),
    (lambda r: r.update(paper="../audit"), "no plain name"),
    (lambda r: r.update(figures=[{"file": "..\\x.png"}]), "no name inside its folder"),
    (lambda r: r.update(videos=[{"file": "x.mp4", "poster": "a/b.png"}]), "no name inside its folder"),
    (lambda r: r.update(raw=[3]), "no list of files"),
    (lambda r: r.update(claims=[]), "its claims"),
])
def test_paths_of_a_result_are_names_inside_its_folder(root, change, says):
    run = run_notebook(root)
    result = json.loads((run / "result.json").read_text())
    change(result)
    (run / "result.json").write_text(json.dumps(result))
    before = sorted(path for path in root.parent.rglob("*"))
    with pytest.raises(MotionLabError, match=says):
        ledger.publish(run)
    assert sorted(path for path in root.parent.rglob("*")) == before


def test_a_link_out_of_the_run_is_not_followed(root):
    run = run_notebook(root)
    secret = root / "secret.csv"
    secret.write_bytes((run / "raw/09_world.csv").read_bytes())
    (run / "raw/09_world.csv").unlink()
    (run / "raw/09_world.csv").symlink_to(secret)
    with pytest.raises(MotionLabError, match="is missing"):
        ledger.publish(run)


# ------------------------------------------------------------------------------------------------- records and results


@pytest.mark.parametrize("change", [
    lambda r: r.pop("parts"), lambda r: r.update(parts=[3]), lambda r: r["parts"][0].pop("n"), lambda r: r["parts"][0].update(n="<b>"),
    lambda r: r["parts"][0].update(ci95=[None, 1]), lambda r: r["parts"][0].update(within=[None, None]), lambda r: r.update(verdict="true"),
    lambda r: r.update(raw={"../x.csv": "0"}), lambda r: r.update(tier="huge"), lambda r: r.update(criterion_version=True)])
def test_a_record_that_is_none_is_named_and_breaks_nothing(root, change):
    import yaml

    ledger.publish(run_notebook(root))
    path = root / "reproductions/audit/measured.yaml"
    measured = yaml.safe_load(path.read_text())
    change(measured["audit.A1"][-1])
    path.write_text(yaml.safe_dump(measured))
    with pytest.raises(MotionLabError, match="record 1 of audit.A1 is none"):
        ledger.load_measured("audit", root)
    from motionlab.ledger.verify import verify

    assert "record 1 of audit.A1 is none" in verify(root)[0]


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, '{"tier": "laptop", "paper": "audit", "notebook": [], "claims": {}}',
                                  '{"tier": "laptop", "paper": "audit", "notebook": "09_audit", "claims": {"audit.A1": {}}}', "\udcff"])
def test_one_bad_folder_below_runs_is_left_out_and_told(root, text, capsys):
    run_notebook(root, with_pictures=True)
    bad = root / "runs/laptop/bad"
    bad.mkdir(parents=True)
    (bad / "result.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    executed = root / "reproductions/audit/executed"
    executed.mkdir(exist_ok=True)
    (executed / "bad.json").write_text("[1]")
    assert cli.main(["report"]) == 0
    assert "bad/result.json is left out" in capsys.readouterr().out
    assert "your run" in (root / "reproductions/report/index.html").read_text(encoding="utf-8")
    assert ledger.publish(root / "runs/laptop/09_audit")  # a bad neighbour in executed/ is in nobody's way


def test_a_real_result_has_no_problem(root):
    result = json.loads((run_notebook(root, with_pictures=True) / "result.json").read_text())
    assert shapes.result_problem(result) is None


# --------------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("words, says", [
    (["world", "--seed", "-1", "--out", "o"], "seed is -1"),
    (["world", "--scene", ".", "--out", "o"], "is no file"),
    (["world", "--scene", "latin.yaml", "--out", "o"], "not UTF-8"),
    (["world", "--scene", "nan.yaml", "--out", "o"], "'x' is nan"),
    (["world", "--scene", "list.yaml", "--out", "o"], "wrong type"),
    (["world", "--size", "1000000", "--out", "o"], "are rendered up to"),
    (["train", "plain", "-p", "lr=["], "'-p lr=\\['"),
    (["train", "plain", "-p", "seed=@x"], "'-p seed=@x'"),
    (["train", "plain", "--config", "picture.png"], "not UTF-8"),
    (["train", "plain", "--config", "seq.yaml"], "must be a mapping"),
    (["train", "plain", "--videos", "v", "--out", "o", "-p", "lr=.inf"], "finite number"),
    (["train", "plain", "--videos", "v", "--out", "o", "-p", "lr=.nan"], "finite number"),
    (["sample", "plain", "--weights", "w", "--prompts", "p", "--out", "o", "-p", "w=.nan"], "finite number"),
    (["sweep", "testbed", "--jobs", "-3"], "--jobs -3"),
    (["pretrain", "codec"], "mapping"),
    (["sweep", "bad.yaml"], "not below the root"),
])
def test_a_mistaken_call_is_two_lines_and_exit_code_2(root, words, says, monkeypatch, capsys):
    monkeypatch.chdir(root)
    (root / "latin.yaml").write_bytes(b"place: \xe9\xff")
    (root / "nan.yaml").write_text("actors: [{x: .nan}]")
    (root / "list.yaml").write_text("actors: 3")
    (root / "seq.yaml").write_text("- 3")
    (root / "picture.png").write_bytes(b"\x89PNG\xff\x00")
    (root / "reproductions/testbed").mkdir()
    (root / "reproductions/testbed/pretrain.yaml").write_text("codec: 3")
    (root / "bad.yaml").write_text("paper: a\nrow: os:getcwd\narms: [{name: a}]\ndata: [../..]\n")
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert re.search(says, told) and told.startswith("error: ") and "\n  -> " in told and "defect" not in told


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's full device")
def test_a_full_output_is_a_sentence():
    done = subprocess.run([sys.executable, "-m", "motionlab.cli", "version"], stdout=open("/dev/full", "w"), stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "error: The output cannot be written: No space left" in done.stderr and "Exception" not in done.stderr


def test_a_line_break_in_a_caption_is_a_blank(tmp_path):
    from motionlab.data.sources import _read_captions

    (tmp_path / "captions.csv").write_text('file,caption\na.mp4,"a dog\nruns"\n')
    assert _read_captions(tmp_path / "captions.csv") == {"a.mp4": "a dog runs"}


def test_alpha_is_a_share():
    from motionlab.metrics.motion import mf_paper

    track = np.random.default_rng(0).normal(size=(5, 3, 2))
    for alpha in (7, -0.1, float("nan")):
        with pytest.raises(MotionLabError, match="alpha is"):
            mf_paper(track, track, (48, 48), alpha=alpha)


def test_logs_whose_lines_are_no_mappings_are_read(tmp_path):
    from motionlab.pretrain.cards import read_rows
    from motionlab.runner.folders import Folders, read_log
    from motionlab.training.log import read_log as read_training

    (tmp_path / "x").mkdir()
    (tmp_path / "x/log.jsonl").write_text('[1]\n3\nnull\n{"event": "cell", "seconds": 1.5, "step": 1, "loss": 2.0}\n{"event"')
    assert len(read_log(tmp_path / "x")) == len(read_rows(tmp_path / "x/log.jsonl")) == len(read_training(tmp_path / "x")) == 1
    assert Folders(tmp_path, "x").last_cell_seconds() == [1.5]


@pytest.mark.parametrize("bank, says", [({"clips": -1}, "clips is -1"), ({"clips": 10**9}, "clips is"), ({"frames": 18}, "Give 17"),
                                        ({"clips": 9_000_000}, "fewer than"), ({"size": 1}, "such as 32")])
def test_a_bank_that_cannot_be_is_refused_at_once(bank, says):
    from motionlab.data.bank import BankConfig, bank_seeds

    began = time.monotonic()
    with pytest.raises(MotionLabError, match=says):
        bank_seeds(BankConfig(**bank))
    assert time.monotonic() - began < 10


# --------------------------------------------------------------------------------------------------- before it starts


@pytest.mark.parametrize("words, says", [
    ("03 -p steps=4", "steps' of 03_videojam_inner_guidance is 4; it must be 8 to 1000.\n  -> The nearest valid value is 8"),
    ("01 -p device=banana", "no device"), ("01 -p device=cuda:99", "this machine has"), ("01 -p video=no.mp4", "no such file"),
    ("01 -p video=README.md", "cannot be read as a video"), ("01 -p n_clips=-1", "nearest valid value is 1"),
    ("02 -p lr=.inf", "finite number|wants a number"), ("02 -p times=[0.1,2]", "it must be 0 to 1"), ("02 -p videos=docs", "holds no"),
    ("05 -p recipe=clip", "Did you mean 'clips'?"), ("01 -p backbone=nowhere", "no such folder")])
def test_values_that_no_notebook_could_work_with_are_refused_before_a_kernel_starts(words, says, capsys):
    assert cli.main(["run", *words.split(), "--tier", "smoke"]) == 2
    assert re.search(re.escape(says) if "->" in says or "?" in says else says, capsys.readouterr().err)


def test_a_machine_without_the_memory_or_the_room_is_told(monkeypatch, tmp_path):
    from motionlab.core.files import require_room
    from motionlab.runner.memory import demand_memory

    with pytest.raises(MotionLabError, match="takes 100000 GB of memory"):
        demand_memory("09", 1e5)
    with pytest.raises(MotionLabError, match="are free there"):
        require_room(tmp_path / "a" / "b", 10**18)


def test_patience_counts_work_and_idleness_but_not_a_loaded_machine():
    patience = Patience(10)
    for _ in range(100):
        patience.advance(cpu=0.06, wall=1.0)          # a sixteenth of a core is all that there was
    assert not patience.over and patience.spent == pytest.approx(6)
    for _ in range(5):
        patience.advance(cpu=8.0, wall=1.0)           # many threads do not make it end sooner
    assert patience.over and patience.spent == pytest.approx(11)
    patience.sign()                                   # what the interrupted cell says is no progress
    assert patience.over
    patience = Patience(10)
    patience.advance(cpu=1.0, wall=9.0)
    patience.sign()
    assert patience.spent == 0
    for _ in range(11):
        patience.advance(cpu=0.0, wall=1.0)           # nothing at all
    assert patience.over


def test_frames_are_held_once_and_repeated_up_to_a_bound(tmp_path):
    from motionlab.video import probe_video, read_video, write_mp4
    from motionlab.video.reading import _stacked

    path = write_mp4(tmp_path / "a.mp4", np.zeros((6, 32, 32, 3), np.uint8), 8)
    assert probe_video(path).size == (32, 32) and probe_video(path).seconds == pytest.approx(0.75)
    for fps in (1e9, float("inf")):
        with pytest.raises(MotionLabError, match="at most 1000"):
            read_video(path, fps=fps)
    pictures = [np.full((2, 2, 3), k, np.uint8) for k in range(3)]
    assert _stacked(pictures)[2, 0, 0, 0] == 2 and pictures == [None] * 3


def test_a_video_that_is_cut_off_is_found_by_the_probe(tmp_path):
    from motionlab.video import probe_video, write_mp4
    from videos import cut_off, scramble

    path = write_mp4(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8), 8)
    for broken in (cut_off(path, tmp_path / "cut.mp4", 0.6), scramble(path, tmp_path / "noise.mp4", 0.3, 0.99)):
        with pytest.raises(MotionLabError):
            probe_video(broken)
