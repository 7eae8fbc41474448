"""The sweep: what it refuses, skips, keeps and goes on with. Each row's process takes about half a second."""
from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from motionlab import cli
from motionlab.core.errors import MotionLabError
from motionlab.runner import sweep as sweeps
from motionlab.runner.sweep import running
from motionlab.runner.sweep.job import job_of

YAML = """paper: example
row: sweep_example:run_row
common: {units: 2}
arms:
  - {name: base, seeds: [0, 1]}
  - {name: cure, gain: 0.5, grid: {lr: [1e-4, 0.01]}, seeds: [0]}
cost: {minutes_per_row: {full: 20, smoke: 0.1}, ram_gb: 0.25}
"""
STEPS = "0\n1\n2\n"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A checkout with one ablations.yaml, and the tests' row function on every process's path."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "reproductions/example").mkdir(parents=True)
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", here)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MOTIONLAB_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


def write(root: Path, text: str = YAML) -> Path:
    path = root / "reproductions/example/ablations.yaml"
    path.write_text(text)
    return path


def sweep(*words: str) -> int:
    return cli.main(["sweep", "example", "--tier", "smoke", *words])


def files(root: Path) -> Path:
    return root / "runs/sweep/example/smoke"


def work(root: Path, row: str) -> str:
    """The steps that the row function worked through, over all its calls."""
    return (files(root) / row / "begun").read_text()


def start(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-u", "-c", "import sys; from motionlab.cli import main; sys.exit(main())", "sweep", "example"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, "--tier", "smoke", *words], **pipes, text=True)


def wait_for(path: Path, text: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if path.exists() and path.read_text() == text:
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} never held {text!r}")


def wait_gone(pid: int) -> None:
    import psutil

    until = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, f"process {pid} outlived its sweep"
        time.sleep(0.02)


# --- the file

def test_the_file_is_read_with_its_grid(root):
    read = sweeps.read_sweep("example", root)
    assert list(read.arms) == ["base", "cure@lr=1e-4", "cure@lr=0.01"]
    assert read.arms["cure@lr=1e-4"] == {"name": "cure@lr=1e-4", "gain": 0.5, "lr": 1e-4}  # YAML: '1e-4' is text
    rows = sweeps.plan(read, "smoke")
    assert [row.name for row in rows] == ["base-0", "cure@lr=1e-4-0", "cure@lr=0.01-0", "base-1"]   # seed by seed
    assert [row.name for row in sweeps.plan(read, "smoke", ["cure"])] == ["cure@lr=1e-4-0", "cure@lr=0.01-0"]


@pytest.mark.parametrize("old, new, says", [
    ("paper:", "papr:", "Did you mean 'paper'"),
    ("row: sweep_example:run_row\n", "", "lacks 'row'"),
    ("cost: {", "cost: {minutes: 3, ", "cost of the file has no field 'minutes'"),
    ("seeds: [0, 1]", "seed: [0, 1]", "Did you mean 'seeds'"),
    ("seeds: [0, 1]", "seeds: [0, 0]", "seeds of arm 'base' are"),
    ("units: 2", "seed: 2", "keyword arguments other than arm, seed"),
    ("sweep_example:", "sweep_example.", "not package.module:function"),
    ("sweep_example", "sweep_exmple", "no module 'sweep_exmple'"),
    ("name: cure, gain: 0.5, grid: {lr: [1e-4, 0.01]}", "name: Base", "stands twice"),
    ("name: cure", "name: ../up", "no good name"),
    ("[1e-4, 0.01]", "0.01", "Write grid:"),
    ("{full: 20", "{fll: 20", "Did you mean 'full'"),
    ("common: {units: 2}", "include: haeder.yaml", "There is no 'haeder.yaml' to include. Did you mean 'header.yaml'?"),
    ("common: {units: 2}", "include: header.yaml", "ablations.yaml includes .*header.yaml includes .*ablations.yaml: a circle")])
def test_slips_in_the_file_are_told(root, old, new, says):
    path = write(root, YAML.replace(old, new))
    (path.parent / "header.yaml").write_text("include: ablations.yaml\n")
    with pytest.raises(MotionLabError, match=says) as error:
        sweeps.read_sweep("example", root)
    assert "reproductions/example/ablations.yaml" in str(error.value)


@pytest.mark.parametrize("old, new, says", [
    ("units: 2", "unit: 2", "Did you mean 'units'"),
    ("run_row", "run_rows", "Did you mean 'run_row'"),
    ("run_row", "few", "cannot be called: too many positional arguments"),
    ("gain: 0.5", "gian: 0.5", "arm 'cure@lr=1e-4': Unknown field of an arm 'gian'. Did you mean 'gain'?")])
def test_code_that_does_not_fit_the_file_is_told_before_anything_is_measured(root, capsys, old, new, says):
    text = YAML.replace("common:", "check: sweep_example:check_arm\ncommon:").replace(old, new)
    write(root, text.replace("{units: 2}", "{}") if new == "few" else text)
    assert sweep("--dry-run") == sweep() == 2
    assert says in capsys.readouterr().err and not (root / "runs").exists()


def test_a_file_includes_what_several_share(root):
    """Fields that the file has itself count; settings are those of one file without include."""
    plain = sweeps.read_sweep("example", root)
    header, arms = YAML.split("arms:\n")
    (root / "reproductions/example/shared").mkdir()
    (root / "reproductions/example/shared/top.yaml").write_text(header.replace("units: 2", "units: 9"))
    (root / "reproductions/example/shared/header.yaml").write_text("include: top.yaml\ncommon: {units: 2}\n")
    write(root, f"include: shared/header.yaml\narms:\n{arms}")
    read = sweeps.read_sweep("example", root)
    assert read == plain and [row.settings for row in sweeps.plan(read, "full")] == [row.settings for row in sweeps.plan(plain, "full")]


@pytest.mark.parametrize("words, says", [
    (["exmple"], "Did you mean 'example'?"),
    (["example", "--tier", "ful"], "Unknown tier 'ful'. Did you mean 'full'?"),
    (["example", "--arm", "bse"], "Unknown arm 'bse'. Did you mean 'base'?"),
    (["example", "--seed", "10"], "Unknown seed '10'. Did you mean '1'?"),
    (["example", "--tier", "smoke", "--publish"], "never evidence"),
    (["example", "--jobs", "0"], "--jobs 0 runs nothing")])
def test_bad_names_exit_2_and_write_nothing(root, capsys, words, says):
    assert cli.main(["sweep", *words]) == 2
    assert says in capsys.readouterr().err and not (root / "runs").exists()


# --- cost, rows, skipping, stale rows

def test_dry_run_tells_the_cost_and_writes_nothing(root, capsys):
    before = sorted(root.rglob("*"))
    assert cli.main(["sweep", "example", "--dry-run", "--jobs", "2"]) == 0
    said = capsys.readouterr().out                              # 4 rows of 20 min, two at a time, 0.25 GB each
    assert said.startswith("example  tier full: 4 rows, 0 finished, 4 to measure: about 40 min, 0.5 GB RAM")
    assert sorted(root.rglob("*")) == before


def test_rows_are_measured_once_and_a_changed_setting_is_refused(root, capsys):
    assert sweep("--arm", "base") == 0
    said = capsys.readouterr().out
    assert said.index("to measure: about 12 s") < said.index("base-0  started") < said.index("base-0  finished")
    assert (files(root) / "rows/base-1.csv").read_text() == (
        "item,arm,seed,gain,unit\np0,base,1,1,0.1\np1,base,1,1,\n")
    record = json.loads((files(root) / "rows/base-1.json").read_text())
    assert record["settings"]["common units"] == 2 and record["seed"] == 1 and record["tier"] == "smoke"
    assert {"fingerprint", "code", "commit", "seconds", "versions"} <= set(record)

    assert sweep("--arm", "base") == 0
    assert "2 finished, 0 to measure" in capsys.readouterr().out and work(root, "base-0") == STEPS

    write(root, YAML.replace("units: 2", "units: 3"))
    assert sweep("--arm", "base", "--seed", "0") == 2
    caught = capsys.readouterr()
    assert "base-0 (common units)" in caught.err and "--redo" in caught.err and work(root, "base-0") == STEPS
    (files(root) / "base-0/old").touch()
    assert sweep("--arm", "base", "--seed", "0", "--redo") == 0
    assert not (files(root) / "base-0/old").exists() and work(root, "base-0") == STEPS    # no old settings
    assert len((files(root) / "rows/base-0.csv").read_text().splitlines()) == 1 + 3


def test_named_data_counts_with_its_contents(root):
    folder = root / "checkpoints"
    folder.mkdir()
    (folder / "base.bin").write_bytes(b"old")
    write(root, YAML + "data: [checkpoints]\n")
    measure(sweeps.plan(sweeps.read_sweep("example", root), "smoke")[0])
    (folder / "base.bin").write_bytes(b"new")
    row = sweeps.plan(sweeps.read_sweep("example", root), "smoke")[0]
    assert row.state() == ("stale", ["data checkpoints/base.bin"])
    write(root, YAML + "data: [checkpints]\n")
    with pytest.raises(MotionLabError, match="no 'checkpints'"):
        sweeps.read_sweep("example", root)


def test_from_protocol_7_on_a_row_goes_stale_with_the_prompts_and_the_budget_of_the_protocol(root):
    def protocol(version=7, n=2, steps=8, offset=0):
        (root / "reproductions/protocol.yaml").write_text(json.dumps({
            "version": version, "prompts": {"few": {"split": "dev", "n": n}, "others": {"split": "dev", "offset": offset}},
            "budget": {"fine_tune_clip_steps": steps, "limits": offset}}))

    write(root, YAML.replace("gain: 0.5", "measure: {prompts: few}"))
    protocol()
    row = sweeps.plan(sweeps.read_sweep("example", root), "full", ["cure@lr=1e-4"])[0]
    measure(row)
    changed = {"nothing": ({"offset": 3}, "finished", []), "prompts": ({"n": 3}, "stale", ["set few"]), "budget": ({"steps": 16}, "stale", ["budget"]),
               "version": ({"version": 6}, "stale", None)}
    for new, state, said in changed.values():
        protocol(**new)
        now = sweeps.plan(sweeps.read_sweep("example", root), "full", ["cure@lr=1e-4"])[0].state()
        assert now[0] == state and (said is None or now[1] == said)


def test_a_row_goes_stale_with_a_file_that_it_names_and_notes_other_code(root):
    (root / "base.safetensors").write_bytes(b"old")
    write(root, YAML.replace("gain: 0.5", "checkpoint: base.safetensors"))
    row = sweeps.plan(sweeps.read_sweep("example", root), "smoke", ["cure"])[0]
    row.csv.parent.mkdir(parents=True)
    row.csv.write_text("arm\n")
    from motionlab.ledger.verdict import file_sha

    record = {"settings": row.settings, "code": row.code, "sha256": file_sha(row.csv)}
    row.record.write_text(json.dumps(record))
    assert row.state() == ("finished", [])
    row.record.write_text(json.dumps({**record, "code": "older"}))
    assert row.state() == ("other code", [])
    row.csv.write_text("arm\nhalf")
    assert row.state() == ("damaged", [])
    (root / "base.safetensors").write_bytes(b"new")
    row = sweeps.plan(sweeps.read_sweep("example", root), "smoke", ["cure"])[0]
    assert row.state() == ("stale", ["file of arm checkpoint"])


# --- failures, kills, two writers

def test_a_failing_arm_is_reported_and_the_rest_goes_on(root, capsys):
    write(root, YAML.replace("name: base,", "name: base, fails: true,"))
    assert sweep("--seed", "0", "--jobs", "3") == 1
    caught = capsys.readouterr()
    log = "runs/sweep/example/smoke/logs/base-0.log"
    assert f"base-0  failed: ValueError: arm base is broken on purpose  log: {log}" in caught.out
    assert "1 of 3 rows failed: base-0" in caught.err
    assert "Traceback" in (files(root) / "logs/base-0.log").read_text()
    table = caught.out[caught.out.rindex("gain") :].splitlines()
    assert [line.split() for line in table[1:3]] == [
        ["cure@lr=1e-4", "1", "2", "0.5", "0.1"], ["cure@lr=0.01", "1", "2", "0.5", "0.1"]]


@pytest.mark.parametrize("function, says", [
    ("no_rows", "The rows returned for base-0 are none."), ("twice", "base-0 has p0 twice.")])
def test_a_row_function_must_return_rows(root, function, says):
    write(root, YAML.replace("run_row", function).replace("common: {units: 2}\n", ""))
    with pytest.raises(MotionLabError, match=says):
        measure(sweeps.plan(sweeps.read_sweep("example", root), "smoke")[0])


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_sweep_killed_outright_leaves_no_process_and_goes_on(root):
    write(root, YAML.replace("units: 2", "units: 2, sleep_s: 60"))
    parent = start("--arm", "base", "--seed", "0")
    wait_for(files(root) / "base-0/begun", "0\n1\n")                          # in its long second step
    child = int((files(root) / ".lock-base-0").read_text().split()[0])

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_gone(child)
    assert not (files(root) / "rows/base-0.csv").exists()

    assert not (files(root) / "base-0/step_1").exists()
    (files(root) / "base-0/step_1").touch()                                   # instead of waiting for a minute
    assert sweep("--arm", "base", "--seed", "0") == 0
    assert work(root, "base-0") == "0\n1\n2\n"                                # step 0 was not done again
    assert json.loads((files(root) / "rows/base-0.json").read_text())["resumed"] is True


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_second_sweep_leaves_a_row_to_the_first_and_takes_it_over_when_that_is_killed(root):
    write(root, YAML.replace("units: 2", "units: 2, sleep_s: 60"))
    first = start("--arm", "base", "--seed", "0")
    wait_for(files(root) / "base-0/begun", "0\n1\n")
    child = int((files(root) / ".lock-base-0").read_text().split()[0])
    second = start("--arm", "base", "--seed", "0")
    said = []
    while not any("left to it" in line for line in said):
        said.append(second.stdout.readline())
        assert said[-1], (said, second.communicate())
    assert f"base-0  is being measured by process {child} on " in said[-1]
    (files(root) / "base-0/step_1").touch()                                   # instead of waiting for a minute
    first.send_signal(signal.SIGKILL)
    first.wait()
    rest, _ = second.communicate(timeout=90)
    assert second.returncode == 0 and "base-0  finished in" in rest
    assert work(root, "base-0") == "0\n1\n2\n"


def test_a_row_that_another_sweep_finishes_is_no_failure(root, capsys):
    write(root, YAML)
    read = sweeps.read_sweep("example", root)
    row = sweeps.plan(read, "smoke")[0]
    measure(row)
    waiting = [row]
    assert running._given_back(waiting, False, print) == [] == waiting and "finished by another sweep" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_stops_the_rows_and_says_how_to_go_on(root):
    write(root, YAML.replace("units: 2", "units: 2, sleep_s: 60"))
    parent = start("--arm", "base", "--jobs", "2")
    for row in ("base-0", "base-1"):
        wait_for(files(root) / row / "begun", "0\n1\n")
    children = [int((files(root) / f".lock-base-{seed}").read_text().split()[0]) for seed in (0, 1)]
    parent.send_signal(signal.SIGINT)
    said, told = parent.communicate(timeout=90)
    assert parent.returncode == 130 and "motionlab sweep example --tier smoke --arm base --jobs 2" in told
    assert "Traceback" not in told and "stopping base-0, base-1" in said
    for child in children:
        wait_gone(child)
    assert (files(root) / "logs/base-0.log").read_text().rstrip().endswith("interrupted")


# --- merging

def test_the_published_table_does_not_depend_on_the_order_of_finishing(root, capsys):
    rows = sweeps.plan(sweeps.read_sweep("example", root), "full")
    texts = []
    for order in (rows, rows[::-1]):
        for row in order:
            measure(row)
        path = sweeps.publish(sweeps.read_sweep("example", root), order)
        texts.append(path.read_text())
        path.unlink()
        for row in rows:
            row.record.unlink()
    assert texts[0] == texts[1]
    lines = list(csv.DictReader(texts[0].splitlines()))
    assert [(line["arm"], line["seed"]) for line in lines[::2]] == [
        ("base", "0"), ("base", "1"), ("cure@lr=0.01", "0"), ("cure@lr=1e-4", "0")]


def test_rows_with_a_column_per_metric_are_what_claims_are_judged_from(root):
    from motionlab.ledger.verdict import numbers, read_raw

    write(root, YAML.replace("run_row", "wide").replace("common: {units: 2}\n", ""))
    read = sweeps.read_sweep("example", root)
    rows = sweeps.plan(read, "full", ["base"])
    for row in rows:
        measure(row)
    table = read_raw(sweeps.publish(read, rows))
    assert list(table) == ["item", "arm", "seed", "kind", "gain", "speed"]
    assert table["item"].tolist() == ["p0", "p1"] * 2
    assert numbers(table, "gain").tolist() == [0, 1, 1, 2]
    assert [line.split() for line in sweeps.summary(rows).splitlines()] == [
        ["seeds", "items", "gain", "speed"], ["base", "2", "2", "1", "2"]]


def test_publishing_drops_nothing_silently(root, capsys):
    read = sweeps.read_sweep("example", root)
    rows = sweeps.plan(read, "full")
    with pytest.raises(MotionLabError, match="nothing to publish"):
        sweeps.publish(read, rows)
    for row in rows:
        measure(row)
    path = sweeps.publish(read, rows)
    assert {record["commit"] for record in json.loads(path.with_suffix(".json").read_text())} == {None}
    rows[0].record.unlink()
    with pytest.raises(MotionLabError, match="rows that are not finished here: base-0"):
        sweeps.publish(read, rows)
    write(root, YAML.replace("units: 2", "units: 3"))
    with pytest.raises(MotionLabError, match="cure@lr=1e-4-0 "):
        sweeps.publish(read, sweeps.plan(sweeps.read_sweep("example", root), "full"))


def test_another_file_of_a_paper_publishes_under_its_own_name(root):
    longer = root / "reproductions/example/longer.yaml"
    longer.write_text(YAML)
    read = sweeps.read_sweep(longer, root)
    rows = sweeps.plan(read, "full", ["base"])
    for row in rows:
        measure(row)
    assert sweeps.publish(read, rows).name == "longer_full.csv"
    longer.write_text(YAML + "publishes: branches\n")         # beside rows of an earlier protocol, which stay
    read = sweeps.read_sweep(longer, root)
    assert sweeps.publish(read, sweeps.plan(read, "full", ["base"])).name == "branches_full.csv"
    longer.write_text(YAML + "publishes: ../branches\n")
    with pytest.raises(MotionLabError, match="no name of a file of rows"):
        sweeps.read_sweep(longer, root)


def measure(row) -> None:
    """What a row's process does, in this one."""
    job_of(sweeps.read_sweep("example", row.folder.parents[3]), row).measure()
