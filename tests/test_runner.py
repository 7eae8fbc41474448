"""The runner: what it refuses, what it skips, what it keeps. Kernels start few times: about two seconds each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from motionlab.core import locks
from motionlab.core.errors import MotionLabError
from motionlab.ledger import notebooks
from motionlab.runner import fingerprint, folders, params, progress, runs, wandb_mirror

FINISH = """import json, pathlib
pathlib.Path(out_dir, "result.json").write_text(json.dumps({
    "notebook": "01_small", "paper": "audit", "tier": tier, "params": {"n_clips": n_clips}, "notes": {"speed": 1.5},
    "claims": {"audit.A1": {"verdict": "holds", "parts": [{"estimate": 0.25, "ci95": [0.2, 0.3], "n": 8}]}},
    "figures": [{"file": "dot.png", "caption": "a dot"}], "videos": [], "raw": [], "seconds": 0.1, "environment": {}}))
pathlib.Path(out_dir, "figures").mkdir()
pathlib.Path(out_dir, "figures", "dot.png").write_bytes(bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"))
print("audit.A1  holds  +0.25 [0.2, 0.3]  wanted >= 0  (n=8)")"""
SLOW = """import pathlib, time
pathlib.Path("started").touch()
time.sleep(sleep_s)"""


def write_notebook(root: Path, stem: str, parameters: str, *cells: str) -> Path:
    notebook = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "motionlab": {"paper": "audit", "title": f"What does {stem} ask?", "claims": ["audit.A1"]},
        }
    )
    notebook.cells = [
        nbformat.v4.new_markdown_cell(f"# {stem}"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *map(nbformat.v4.new_code_cell, cells),
    ]
    path = root / "notebooks" / f"{stem}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two small notebooks: one that can sleep, one that fails in many ways."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "reproductions" / "audit" / "params").mkdir(parents=True)
    (tmp_path / "reproductions" / "audit" / "params" / "smoke.yaml").write_text(
        "01_small:\n  n_clips: 2\n  _cost: {minutes: 0.1, ram_gb: 0.2}\n02_broken: {}\n"
    )
    (tmp_path / "reproductions" / "audit" / "claims.yaml").write_text(
        'version: 1\nprotocol: 6\nhistory: [{version: 1, date: "2026-01-01", reason: first}]\nclaims: {}\n'
    )
    write_notebook(
        tmp_path,
        "01_small",
        'tier: str = "laptop"\nout_dir: str = "out"\nn_clips: int = 4\nsleep_s: float = 0.0\nvideo: str = ""\n'
        'flags: list = ["a"]\nstrict: bool = False\nseed: int | None = None',
        SLOW,
        FINISH,
    )
    write_notebook(
        tmp_path,
        "02_broken",
        'tier: str = "laptop"\nout_dir: str = "out"\nhow: str = "raise"',
        "from motionlab.core.errors import MotionLabError\n"
        'if how == "raise":\n    raise MotionLabError("Mask is empty.", fix="Draw one.")',
        "x = 1",
    )
    monkeypatch.setenv("MOTIONLAB_ROOT", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "MOTIONLAB_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(stem: str, tier: str, given: dict, root: Path, **options) -> runs.RunResult:
    return runs.run_plan(runs.plan(stem, tier, given, root), **options)


def start_cli(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "motionlab.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(path: Path, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < limit, f"{path} did not appear"
        time.sleep(0.05)


def children_gone(process: int, seconds: float = 10) -> bool:
    """Has every kernel that names this process as its parent ended?"""
    import psutil

    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found = [
            one
            for one in psutil.process_iter(["environ"])
            if (one.info["environ"] or {}).get("JPY_PARENT_PID") == str(process)
        ]
        if not found:
            return True
        time.sleep(0.1)
    return False


def result_of(root: Path, stem: str = "01_small") -> dict:
    return json.loads((root / "runs" / "smoke" / stem / "result.json").read_text())


# Checked before anything runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stem, tier, given, says",
    [
        ("01_smal", "smoke", {}, "01_small"),
        ("01_smoll", "smoke", {}, "Unknown notebook '01_smoll'. Did you mean '01_small'?"),
        ("0", "smoke", {}, "start of several notebooks"),
        ("01", "smok", {}, "Unknown tier 'smok'. Did you mean 'smoke'?"),
        ("01", "full", {}, "no tier 'full'"),
        ("01", "smoke", {"n_clip": "3"}, "Unknown parameter 'n_clip' for 01_small (from -p). Did you mean 'n_clips'?"),
        ("01", "smoke", {"n_clips": "many"}, "'n_clips' of 01_small wants a whole number, got 'many'"),
        ("01", "smoke", {"n_clips": True}, "wants a whole number, got 'True'"),
        ("01", "smoke", {"strict": "maybe"}, "wants true or false"),
        ("01", "smoke", {"flags": "3,4"}, "wants a list"),
        ("01", "smoke", {"tier": "full"}, "set by the runner"),
    ],
)
def test_mistakes_are_named_before_anything_runs(root, stem, tier, given, says):
    if stem == "01_smal":  # the start of exactly one stem is a name
        assert runs.plan(stem, tier, given, root).stem == says
        return
    with pytest.raises(MotionLabError) as error:
        runs.plan(stem, tier, given, root)
    assert says in str(error.value)
    assert not (root / "runs").exists()


def test_values_come_from_default_tier_and_command_line_in_this_order(root):
    todo = runs.plan("01", "smoke", {"sleep_s": "2", "strict": "yes", "flags": "x,y", "seed": "3"}, root)
    assert todo.values == {"n_clips": 2, "sleep_s": 2.0, "strict": True, "flags": ["x", "y"], "seed": 3}
    assert todo.fingerprint["parameter n_clips"] == 2 and todo.fingerprint["parameter video"] == ""
    assert runs.plan("01", "smoke", {"n_clips": 7, "seed": "null"}, root).values == {"n_clips": 7, "seed": None}
    assert str(todo.cost) == "about 6 s, 0.2 GB RAM"


def test_misspelt_parameter_in_a_tier_file_is_named(root):
    (root / "reproductions/audit/params/smoke.yaml").write_text("01_small: {n_clip: 2}\n")
    with pytest.raises(MotionLabError, match="smoke.yaml.*Did you mean 'n_clips'"):
        runs.plan("01", "smoke", {}, root)


@pytest.mark.parametrize(
    "cell, says",
    [("half = steps // 2", "plain values"), ("steps = 4\nprint(steps)", "plain values"), ("steps = ", "plain values")],
)
def test_parameters_cell_holds_literals_only(cell, says):
    with pytest.raises(MotionLabError, match=says):
        notebooks.read_parameters(cell)


def test_parameters_agree_with_papermill(root):
    import papermill

    ours = notebooks.read_notebook("01_small", root).parameters
    theirs = papermill.inspect_notebook(root / "notebooks" / "01_small.ipynb")
    # papermill overlooks `seed: int | None = None`, one reason why the cell is read here by its syntax tree
    assert set(theirs) == set(ours) - {"seed"}


def test_notebook_must_say_its_paper_and_have_one_parameters_cell(root):
    path = root / "notebooks" / "03_bare.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(MotionLabError, match="which paper"):
        notebooks.read_notebook("03_bare", root)
    nbformat.write(nbformat.v4.new_notebook(metadata={"motionlab": {"paper": "audit"}}), path)
    with pytest.raises(MotionLabError, match="0 cells tagged"):
        notebooks.read_notebook("03_bare", root)
    path.write_text("{")
    with pytest.raises(MotionLabError, match="not a readable notebook"):
        notebooks.read_notebook("03_bare", root)


def test_smoke_is_never_published(root):
    with pytest.raises(MotionLabError, match="never evidence"):
        run("01", "smoke", {}, root, publish=True)


# Fingerprint --------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kit"
    monkeypatch.syspath_prepend(tmp_path)
    fingerprint._graph.cache_clear()
    (folder / "world").mkdir(parents=True)
    (folder / "ledger").mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "flow.py").write_text("def f():\n    from kit.world import draw\n    import torch\n")
    (folder / "unused.py").write_text("")
    (folder / "world" / "__init__.py").write_text("from . import shapes\n")
    (folder / "world" / "draw.py").write_text("from ..errors import E\n")
    (folder / "world" / "shapes.py").write_text("")
    (folder / "world" / "palette.yaml").write_text("red: 1\n")
    (folder / "errors.py").write_text("class E(Exception): ...\n")
    (folder / "ledger" / "__init__.py").write_text(
        "import importlib\nHOMES = {'open_book': 'book'}\n"
        "def __getattr__(name):\n    return importlib.import_module(HOMES[name])\n"
    )
    (folder / "ledger" / "book.py").write_text("")
    (folder / "ledger" / "other.py").write_text("")
    return folder


def test_imports_are_followed_without_importing(package):
    found = fingerprint.imported_modules(["%matplotlib inline\n!ls\nfrom kit import flow"], "kit")
    assert set(found) == {
        "kit",
        "kit.flow",
        "kit.world",
        "kit.world/palette.yaml",
        "kit.world.draw",
        "kit.world.shapes",
        "kit.errors",
    }


def test_a_lazy_package_counts_with_all_its_modules(package):
    assert set(fingerprint.imported_modules(["from kit import ledger"], "kit")) == {
        "kit",
        "kit.ledger",
        "kit.ledger.book",
        "kit.ledger.other",
    }


def test_a_module_that_is_no_python_is_named(package):
    (package / "flow.py").write_text("def f(:\n")
    with pytest.raises(MotionLabError, match="flow.py"):
        fingerprint.imported_modules(["from kit import flow"], "kit")


def test_fingerprint_sees_code_parameters_claims_and_data(root, package, tmp_path):
    notebook = notebooks.read_notebook("01_small", root)
    write_notebook(root, "01_small", 'tier: str = "x"\nout_dir: str = "x"\nvideo: str = ""', "from kit import flow")
    notebook = notebooks.read_notebook("01_small", root)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"1")

    def now():
        fingerprint._graph.cache_clear()                        # kept for a process, which here outlives an edit
        return fingerprint.fingerprint(notebook, "smoke", {"video": str(clip)}, root, "kit")

    first = now()
    assert fingerprint.changes(first, now()) == [] and fingerprint.changes(None, first) == ["no finished run"]
    (package / "unused.py").write_text("x = 1\n")
    assert fingerprint.changes(first, now()) == []
    (package / "world" / "draw.py").write_text("x = 1\n")
    clip.write_bytes(b"22")
    (root / "reproductions/audit/claims.yaml").write_text("claims: {}\n")
    assert set(fingerprint.changes(first, now())) == {
        "module kit.world.draw",
        "module kit.errors",
        f"data {clip}",
        "claims.yaml",
    }


# Lock and recovery, without a kernel --------------------------------------------------------------------------------


def test_a_notebook_that_another_process_runs_is_refused(root):
    """The lock ends with its process: what a file says that is left behind does not matter."""
    todo = runs.plan("01", "smoke", {}, root)
    path = todo.folders.lock
    path.parent.mkdir(parents=True)
    path.write_text("1 on elsewhere")
    with locks.only_one(path) as other:
        assert other is None
        with pytest.raises(runs.RunFailed, match=f"being run by process {os.getpid()} on "):
            runs.run_plan(todo)
    with locks.only_one(path) as other:
        assert other is None


@pytest.mark.parametrize("killed", ["before", "between", "after", "half-run"])
def test_recovery_after_a_kill_at_each_moment_of_the_move(root, killed):
    todo = runs.plan("01", "smoke", {}, root)
    places = todo.folders
    for folder, text, complete in ((places.run, "old", True), (places.partial, "new", killed != "half-run")):
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(text)
        if complete:
            (folder / "fingerprint.json").write_text("{}")
    if killed in ("between", "after"):
        os.replace(places.run, places.old)
    if killed == "after":
        os.replace(places.partial, places.run)
    places.recover()
    assert (places.run / "result.json").read_text() == ("old" if killed == "half-run" else "new")
    assert not places.old.exists() and not places.partial.exists()
    assert places.failed.exists() == (killed == "half-run")


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "unlisted"])
def test_a_finished_run_with_a_damaged_file_is_not_up_to_date(root, damage):
    todo = runs.plan("01", "smoke", {}, root)
    (todo.folders.partial / "raw").mkdir(parents=True)
    raw = todo.folders.partial / "raw" / "a.csv"
    raw.write_text("item\n1\n")
    todo.folders.seal()
    (todo.folders.partial / "fingerprint.json").write_text(json.dumps(todo.fingerprint))
    todo.folders.promote()
    assert todo.changed() == []
    raw = todo.run_dir / "raw" / "a.csv"
    if damage == "unlisted":
        (todo.run_dir / folders.LISTED).write_text("{")
    elif damage == "gone":
        raw.unlink()
    else:
        raw.write_text({"cut": "item", "changed": "item\n2\n"}[damage])
    assert todo.changed() == ["damaged files.json" if damage == "unlisted" else "damaged raw/a.csv"]


def test_read_only_runs_folder_is_a_sentence(root, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "runs")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(runs.RunFailed, match="Cannot write runs: No space left on device"):
        run("01", "smoke", {}, root)


# Progress -----------------------------------------------------------------------------------------------------------


def test_estimate_of_what_is_left_comes_from_last_time_else_from_the_cost():
    lines: list[str] = []
    watch = progress.Progress("09", 3, [10.0, 20.0, 30.0], say=lines.append)
    watch.cell_started("# why\nimport x\ny = f(x)")
    assert watch.head == "y = f(x)" and 59 < watch.left() <= 60
    watch.cell_done()
    watch.cell_started("z")
    assert 49 < watch.left() <= 50
    assert 59 < progress.Progress("09", 3, [1.0], total_seconds=60, say=lines.append).left() <= 60
    assert progress.Progress("09", 3, say=lines.append).left() is None
    assert [progress.duration(s) for s in (8, 200, 3900 * 2)] == ["8 s", "3 min 20 s", "2 h 10 min"]


# With a kernel ------------------------------------------------------------------------------------------------------


@pytest.mark.notebook
def test_run_skip_fail_and_mirror(root, monkeypatch):
    lines: list[str] = []
    done = run("01", "smoke", {}, root, progress=lines.append)
    assert done.status == "finished" and done.claims == {"audit.A1": "holds"}
    assert lines[0] == "01_small  tier smoke: about 6 s, 0.2 GB RAM" and "    audit.A1  holds" in "\n".join(lines)
    assert result_of(root)["params"] == {"n_clips": 2}
    notebook = json.loads((done.run_dir / "executed.ipynb").read_text())
    assert "papermill" not in json.dumps(notebook["metadata"]) and ".partial" not in json.dumps(notebook)
    finish = folders.read_log(done.run_dir)[-1]
    assert finish["event"] == "finish" and finish["peak_ram_gb"] > 0.01
    assert [path.name for path in done.run_dir.parent.glob(".*")] == [".lock-01_small"]

    began = time.monotonic()
    again = run("01", "smoke", {}, root, progress=lines.append)
    assert again.status == "skipped" and time.monotonic() - began < 1

    (root / "reproductions/audit/claims.yaml").write_text("claims: {a: 1}\n")
    assert runs.plan("01", "smoke", {}, root).changed() == ["claims.yaml"]
    # A failure keeps the half-run notebook apart, and tells the sentence of the library's error.
    with pytest.raises(runs.RunFailed) as error:
        run("02", "smoke", {}, root, progress=lines.append)
    assert "02_broken failed in code cell 3" in str(error.value) and "Mask is empty." in str(error.value)
    assert "runs/smoke/02_broken.failed/" in str(error.value)
    assert (root / "runs/smoke/02_broken.failed/executed.ipynb").exists() and not (
        root / "runs/smoke/02_broken"
    ).exists()

    check_offline_mirror(done.run_dir, root, monkeypatch)


def check_offline_mirror(run_dir: Path, root: Path, monkeypatch) -> None:
    """An offline W&B run of the finished notebook, read back from its own file."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(root / "mirror"))
    place = Path(wandb_mirror.mirror(run_dir, root, wandb_mirror.mode("smoke")))
    records = written_records(place)
    started = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert started.display_name == "01_small-smoke" and started.run_group == "audit"
    config = {item.key: item.value_json for record in records for item in record.run.config.update}
    assert config["n_clips"] == "2"
    history = {
        (item.key or "/".join(item.nested_key)): item.value_json for record in records for item in record.history.item
    }
    assert json.loads(history["audit.A1/estimate"]) == 0.25 and json.loads(history["audit.A1/ci_low"]) == 0.2
    assert json.loads(history["note/speed"]) == 1.5 and json.loads(history["figure/dot/_type"]) == "image-file"
    summary = {
        (item.key or "/".join(item.nested_key)): item.value_json for record in records for item in record.summary.update
    }
    assert json.loads(summary["verdict/audit.A1"]) == "holds"
    assert list((place / "files").rglob("*.png"))


def written_records(place: Path, seconds: float = 20) -> list:
    """All records, once wandb's background service has written the last one (seen to lag on a busy machine)."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        records = [record for path in place.glob("*.wandb") for record in wandb_records(path)]
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        time.sleep(0.1)
    raise AssertionError(f"no complete W&B run in {place}: {sorted(path.name for path in place.rglob('*'))}")


def wandb_records(path: Path):
    """Records of an offline run: LevelDB's log format (32 KiB blocks; crc, length, type), a protobuf message each."""
    from wandb.proto import wandb_internal_pb2

    data, at, message = path.read_bytes(), 7, b""  # 7 bytes: magic and version
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last of several
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


@pytest.mark.notebook
def test_a_run_without_its_own_result_fails(root):
    with pytest.raises(runs.RunFailed, match="ran to its end but wrote no readable result.json"):
        run("02", "smoke", {"how": "none"}, root, progress=lambda _: None)


@pytest.mark.notebook
def test_interrupt_and_kill_keep_what_is_finished(root):
    """SIGINT: exit 130, kernel gone, half-run kept. kill -9: the finished result is whole, the next run takes over."""
    final = root / "runs/smoke/01_small"
    final.mkdir(parents=True)
    (final / "result.json").write_text('{"notebook": "01_small", "claims": {}, "old": true}')
    for number, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        (root / "started").unlink(missing_ok=True)
        process = start_cli("run", "01", "--tier", "smoke", "-p", "sleep_s=100")
        wait_for(root / "started")
        time.sleep(0.3)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == status, err
        assert result_of(root)["old"] and "Traceback" not in err
        assert children_gone(process.pid)
        if number == signal.SIGINT:
            assert "interrupted in 01_small; the half-run notebook is in runs/smoke/01_small.failed/" in err
            assert folders.read_log(root / "runs/smoke/01_small.failed")[-1]["error"] == "interrupted"
    assert (root / "runs/smoke/.lock-01_small").exists()  # of the killed runner
    done = run("01", "smoke", {}, root, progress=lambda _: None)
    assert done.status == "finished" and "old" not in result_of(root)
    assert [path.name for path in (root / "runs/smoke").glob(".*")] == [".lock-01_small"] and not (root / "runs/smoke/01_small.failed").exists()


# W&B's switch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked, key, gpu, tier, expected",
    [
        ("offline", "", False, "smoke", "offline"),
        ("online", "", False, "laptop", "online"),
        ("disabled", "k", True, "full", None),
        ("", "k", True, "full", "online"),
        ("", "k", True, "smoke", None),
        ("", "k", False, "full", None),
        ("", "", True, "full", None),
    ],
)
def test_mirror_is_on_only_where_it_should_be(monkeypatch, tmp_path, asked, key, gpu, tier, expected):
    for name, value in (("WANDB_MODE", asked), ("WANDB_API_KEY", key), ("NETRC", ""), ("HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(wandb_mirror, "has_gpu", lambda: gpu)
    assert wandb_mirror.mode(tier) == expected


def test_a_key_in_netrc_counts(monkeypatch, tmp_path):
    path = tmp_path / "netrc"
    path.write_text("machine api.wandb.ai login user password x\n")
    path.chmod(0o600)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(path))
    assert wandb_mirror.has_key()


def test_a_cell_that_does_nothing_is_stopped_and_one_that_speaks_goes_on(root, monkeypatch):
    monkeypatch.setitem(runs.CELL_LIMIT_S, "smoke", 3)
    began = time.monotonic()
    with pytest.raises(runs.RunFailed, match="01_small failed in code cell 3 .*the cell showed no progress for 3 s of work"):
        run("01", "smoke", {"sleep_s": 120.0}, root)
    assert time.monotonic() - began < 100
    write_notebook(root, "01_small", 'tier: str = "laptop"\nout_dir: str = "out"\nn_clips: int = 4',
                   "import time\nfor k in range(12):\n    time.sleep(0.5)\n    print(k, flush=True)", FINISH)
    assert run("01", "smoke", {}, root).status == "finished"
