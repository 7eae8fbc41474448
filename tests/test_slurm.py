"""A tiny sweep through a real Slurm of one node: queued once, killed, preempted, resumed; the numbers are those of a local sweep."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from motionlab import cli

SCRIPT = Path(__file__).with_name("slurm.sh")
YAML = """paper: example
row: sweep_example:run_row
common: {units: 2}
arms:
  - {name: base, sleep_s: 100, seeds: [0, 1]}
  - {name: cure, gain: 0.5, grid: {lr: [1e-4, 0.01]}, seeds: [0]}
"""
needs_slurm = pytest.mark.skipif(not shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin"), reason="no Slurm here (slurm-wlm, munge)")


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run(["bash", SCRIPT, "start", folder], check=True, timeout=60)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    yield
    subprocess.run(["scancel", f"--user={os.getuid()}", "--signal=KILL"], timeout=60)
    subprocess.run(["bash", SCRIPT, "stop", folder], check=True, timeout=60)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A checkout with one ablations.yaml, and the tests' row function on every process's path."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "reproductions/example").mkdir(parents=True)
    (tmp_path / "reproductions/example/ablations.yaml").write_text(YAML)
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", here)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(*words: str) -> int:
    return cli.main(["sweep", "example", "--tier", "smoke", *words])


def wait_for(what: str, done) -> None:
    until = time.monotonic() + 200          # more than the two minutes that Slurm may insist on
    while not done():
        assert time.monotonic() < until, f"never came: {what}"
        time.sleep(0.1)


def jobs() -> dict[str, tuple[str, str]]:
    """{row: (job, state)} of what Slurm has in its queue."""
    listed = subprocess.run(["squeue", "--noheader", "--format=%i %T %j"], capture_output=True, text=True, check=True).stdout
    return {name.split("-", 2)[2]: (job, state) for job, state, name in map(str.split, listed.splitlines())}


def start_now(row: str) -> None:
    """Slurm lets a job that was queued again wait two minutes, and may say so only after it was asked not to: ask again."""
    job, state = jobs().get(row, ("", ""))
    if state == "PENDING":
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False, capture_output=True)


@needs_slurm
def test_rows_on_slurm_are_queued_once_resumed_and_equal_to_local_ones(slurm, root, capsys):
    files = root / "runs/sweep/example/smoke"
    assert sweep("--slurm", "partition=test,time=0:10:00") == 0
    assert "4 to measure" in (said := capsys.readouterr().out) and said.count("queued as job") == 4
    assert sweep("--slurm") == 0
    said = capsys.readouterr().out
    assert "0 finished, 4 on Slurm, 0 to measure" in said and "queued as" not in said and len(jobs()) == 4

    for row in ("base-0", "base-1"):                                    # both in their long second step, the others done
        wait_for(f"{row} begun", lambda: (files / row / "begun").exists() and (files / row / "begun").read_text() == "0\n1\n")
    os.kill(int((files / ".lock-base-0").read_text().split()[0]), signal.SIGKILL)
    subprocess.run(["scancel", "--signal=USR2", jobs()["base-1"][0]], check=True)               # as before a preemption
    wait_for("base-0 gone, base-1 queued again", lambda: {row: state for row, (_, state) in jobs().items()} == {"base-1": "PENDING"})
    for row in ("base-0", "base-1"):
        (files / row / "step_1").touch()                                # instead of waiting for two minutes
    assert sweep("--slurm", "partition=test") == 0
    said = capsys.readouterr().out
    assert "2 finished, 1 on Slurm, 1 to measure" in said and said.count("queued as job") == 1
    wait_for("all rows", lambda: start_now("base-1") or len(list((files / "rows").glob("*.json"))) == 4)

    assert sweep("--slurm") == 0 and "4 finished, 0 to measure" in capsys.readouterr().out
    assert (files / "base-0/begun").read_text() == (files / "base-1/begun").read_text() == "0\n1\n2\n"
    for row in ("base-0", "base-1"):
        (root / "local/example/smoke" / row).mkdir(parents=True)
        (root / "local/example/smoke" / row / "step_1").touch()
    assert sweep("--out", "local", "--jobs", "2") == 0
    for path in (files / "rows").glob("*.csv"):
        assert path.read_bytes() == (root / "local/example/smoke/rows" / path.name).read_bytes()


@needs_slurm
def test_what_slurm_refuses_is_a_sentence(slurm, root, capsys):
    assert sweep("--slurm", "partition=nowhere") == 2
    error = capsys.readouterr().err
    assert "Slurm refuses base-0" in error and "invalid partition" in error and "Traceback" not in error


@pytest.mark.parametrize("text, says", [
    ("partiton=gpu", "Did you mean 'partition'?"), ("gpu", "not of the form key=value"), ("time=soon", "is no time")])
def test_slips_in_the_settings_are_told(root, capsys, text, says):
    assert sweep("--slurm", text) == 2
    assert says in capsys.readouterr().err and not (root / "runs").exists()


def test_without_slurm_it_says_so(root, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert sweep("--slurm") == 2
    assert "There is no Slurm on this machine" in capsys.readouterr().err


def test_times_are_read_as_slurm_writes_them():
    from motionlab.runner.sweep.slurm import read_settings

    assert [read_settings(f"time={text}")["time"] for text in ("90", "1:30:00", "1-00:00", "0:00:20")] == [90, 90, 1440, 1]
    assert read_settings("partition=gpu,gpus_per_node=2") == {"partition": "gpu", "gpus_per_node": 2}
