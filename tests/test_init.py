"""A working folder out of what the wheels carry: whole or not at all, checked, and nobody's files overwritten."""
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from motionlab import cli
from motionlab.core import extras, layout, paths
from motionlab.core.errors import MotionLabError
from motionlab.core.layout import lay_out, settle
from motionlab.ledger import history
from motionlab.models.shipped import shipped
from motionlab.runner import runs

ROOT = Path(__file__).resolve().parents[1]
MODEL = "testbed/checkpoints/base.safetensors"
FILES = {"README.md": b"# first steps\n", "notebooks/00_tour.ipynb": b"{}", "reproductions/audit/claims.yaml": b"claims: {}\n"}


def line(name, data):
    return f"{hashlib.sha256(data).hexdigest()}  {len(data)}  {name}\n"


def fill(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def kit(tmp_path):
    """What a wheel holds, in small."""
    files = FILES | {"reproductions/MANIFEST": ("# head\n" + line(MODEL, b"weights")).encode()}
    listed = "".join(line(name, data) for name, data in files.items())
    return fill(tmp_path / "site" / "kit", files | {"SHA256": listed.encode()})


@pytest.fixture
def weights(tmp_path):
    return fill(tmp_path / "site" / "motionlab_weights", {f"reproductions/{MODEL}": b"weights"})


@pytest.fixture
def nowhere(tmp_path, monkeypatch, kit, weights):
    """An installation from wheels, and an empty place to stand in."""
    monkeypatch.delenv("MOTIONLAB_ROOT", raising=False)
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site" / "paths.py"))
    monkeypatch.setattr(layout, "_kit", lambda: kit)
    monkeypatch.setattr(layout, "_weights", lambda: weights)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def held(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


WHOLE = sorted([*FILES, "reproductions/MANIFEST", f"reproductions/{MODEL}", layout.MARK])


# ---------------------------------------------------------------------------------------------------------- laying out


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_is_laid_out_whole_and_is_a_root(nowhere, there):
    folder = nowhere / "deep" / "lab"
    if there:
        folder.mkdir(parents=True)
    made = lay_out(folder)
    assert held(folder) == WHOLE and made.files == 5 and not made.missing
    assert paths.repo_root(folder / "notebooks") == folder and layout.was_laid_out(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["lab"] and not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_the_command_lays_out_here_and_says_what_to_do_next(nowhere, capsys):
    assert cli.main(["init", "."]) == 0
    assert held(nowhere) == WHOLE
    said = capsys.readouterr().out
    assert "5 files are laid out" in said and "motionlab run 00 --tier smoke" in said
    assert cli.main(["init", "."]) == 2 and "a working folder already, and whole" in capsys.readouterr().err


@pytest.mark.parametrize("make, says", [
    (lambda path: fill(path, {"mine.txt": b"x"}), "is not empty: it holds mine.txt"),
    (lambda path: fill(path, {"notebooks/x": b"", "reproductions/x": b""}), "is not empty"),
    (lambda path: path.write_text("x"), "is a file"),
    (lambda path: path.symlink_to(path.parent, target_is_directory=True), "is a link"),
])
def test_what_is_there_is_never_overwritten(nowhere, make, says):
    folder = nowhere / "lab"
    make(folder)
    before = held(nowhere)
    with pytest.raises(MotionLabError, match=says):
        lay_out(folder)
    assert held(nowhere) == before


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("place, name, data, says", [
    ("kit", "notebooks/00_tour.ipynb", b"{ }", "00_tour.ipynb is damaged"), ("kit", "README.md", None, "README.md is missing"),
    ("kit", "SHA256", None, "installation is damaged"), ("kit", "SHA256", line("../evil", b"").encode(), "outside of the folder"),
    ("weights", f"reproductions/{MODEL}", b"others!", "of another version, or damaged"),
])
def test_a_damaged_installation_lays_out_nothing(nowhere, request, there, place, name, data, says):
    file, folder = request.getfixturevalue(place) / name, nowhere / "lab"
    file.write_bytes(data) if data is not None else file.unlink()
    if there:
        folder.mkdir()
    with pytest.raises(MotionLabError, match=says) as told:
        lay_out(folder)
    assert "pip install --force-reinstall" in told.value.fix and held(nowhere) == [] and not list(nowhere.glob(".*"))
    assert folder.is_dir() == there and not (there and list(folder.iterdir()))


@pytest.mark.parametrize("there", [False, True])
def test_a_kill_leaves_no_folder_that_looks_whole(nowhere, kit, weights, there):
    folder = nowhere / "lab"
    if there:
        folder.mkdir()
    code = ("import os, sys; from pathlib import Path; from motionlab.core import layout\n"
            "copy, n = layout._copy, []\n"
            "layout._copy = lambda *a: (n.append(copy(*a)), len(n) == 3 and os._exit(9))\n"
            "layout.lay_out(*map(Path, sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-c", code, folder, kit, weights], env=os.environ | {"PYTHONPATH": str(ROOT / "lib")})
    assert done.returncode == 9 and not paths.is_root(folder) and len(list(nowhere.rglob("*.tmp"))) == 1
    lay_out(folder)
    assert held(folder) == WHOLE and held(nowhere) == [f"lab/{name}" for name in WHOLE]


def test_a_kill_at_the_last_step_is_made_good(nowhere, monkeypatch):
    folder, rename = nowhere / "lab", os.rename
    folder.mkdir()

    def killed(source, target):
        if Path(target).name == "notebooks":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(layout.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        lay_out(folder)
    assert not paths.is_root(folder) and (folder / "reproductions").is_dir()
    monkeypatch.undo()
    monkeypatch.chdir(nowhere)
    assert lay_out(folder, nowhere.parent / "site/kit", nowhere.parent / "site/motionlab_weights").files == 4
    assert held(folder) == WHOLE


def test_a_full_disk_is_a_sentence_before_anything_is_written(nowhere, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3})())
    with pytest.raises(MotionLabError, match="are free there"):
        lay_out("lab")
    assert held(nowhere) == []


def test_models_can_come_later(nowhere, weights, monkeypatch, capsys):
    monkeypatch.setattr(layout, "_weights", lambda: None)
    assert lay_out("lab").missing == (f"reproductions/{MODEL}",)
    with pytest.raises(MotionLabError, match="laid out without them") as told:
        shipped("base", nowhere / "lab")
    assert "pip install motionlab-weights" in told.value.fix
    assert cli.main(["init", "lab"]) == 0 and "pip install motionlab-weights" in capsys.readouterr().out
    monkeypatch.setattr(layout, "_weights", lambda: weights)
    assert lay_out("lab").files == 1 and held(nowhere / "lab") == WHOLE
    (nowhere / "lab" / "README.md").write_text("mine")
    with pytest.raises(MotionLabError, match="a working folder already"):
        lay_out("lab")
    assert (nowhere / "lab" / "README.md").read_text() == "mine"


# ------------------------------------------------------------------------------------------------- without any of this


def test_where_there_is_no_root_the_message_names_init(nowhere, capsys):
    for words in (["list"], ["verify"], ["run", "00"], ["doctor"]):
        assert cli.main(words) in (1, 2)
        assert "motionlab init FOLDER" in capsys.readouterr().err


def test_an_installation_from_a_checkout_says_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("MOTIONLAB_ROOT", str(ROOT))
    with pytest.raises(MotionLabError, match="installed from a checkout") as told:
        lay_out(tmp_path / "lab")
    assert str(ROOT) in told.value.fix and not list(tmp_path.iterdir())


def test_a_notebooks_first_cell_settles_once(nowhere, capsys, monkeypatch):
    assert settle("motionlab") == nowhere / "motionlab" == Path.cwd()
    assert "5 files" in capsys.readouterr().out
    assert settle("motionlab") == nowhere / "motionlab"             # from within: found
    monkeypatch.chdir(nowhere)
    assert settle("motionlab") == Path.cwd() and capsys.readouterr().out == ""  # the cell again after a reconnect


def test_history_is_told_in_one_line_where_there_is_none(nowhere):
    lay_out("lab")
    found = history.examine(nowhere / "lab")
    assert found.problems == [] and found.notes == ["history was not checked: `motionlab init`, which made this folder, brings none"]


def test_a_missing_extra_is_named_before_anything_starts(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MotionLabError, match="Running notebooks needs papermill") as told:
        runs.plan("00_tour", "smoke", {}, ROOT)
    assert told.value.fix == "pip install 'motionlab[lab]'"


# --------------------------------------------------------------------------------------------------- the wheels' contents


def built(tmp_path, where):
    """What setuptools lays into a wheel, without network and without packing it."""
    pytest.importorskip("setuptools")
    done = subprocess.run([sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def tracked(*patterns):
    """What git holds, or would hold: new files too, those that it ignores not."""
    words = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode or not done.stdout:
        pytest.skip("needs git's list of files")
    return {name for name in done.stdout.split("\n") if name and (ROOT / name).is_file()}


def test_the_librarys_wheel_carries_what_git_holds(tmp_path):
    folders = tracked("notebooks", "reproductions", "docs", "LICENSE", "CITATION.cff", "CONTRIBUTING.md", "constraints.txt")
    kit = {name for name in folders if not name.endswith(".safetensors")} - {"docs/first_steps.md"} | {"README.md", "SHA256"}
    code = {name.removeprefix("lib/") for name in tracked("lib/motionlab")}
    assert built(tmp_path, ROOT) == code | {f"motionlab/kit/{name}" for name in kit}
    listed = layout._listed(tmp_path / "motionlab" / "kit" / "SHA256")
    assert set(listed) == kit - {"SHA256"}
    readme = (tmp_path / "motionlab/kit/README.md").read_text(encoding="utf-8")
    assert readme.startswith("# A working folder") and "<!-- claims:begin -->" in readme and "## Claims and verdicts" in readme


def test_the_models_wheel_carries_the_others(tmp_path):
    models = tracked("reproductions/*.safetensors")
    names = built(tmp_path, ROOT / "weights")
    assert names == {"motionlab_weights/__init__.py"} | {f"motionlab_weights/{name}" for name in models}
    assert sum((ROOT / name).stat().st_size for name in models) < 95e6   # a package index takes no file above 100 MB


def test_a_tree_that_is_not_whole_makes_no_wheel(tmp_path, monkeypatch):
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("the_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fill(tmp_path, {"reproductions/MANIFEST": line("audit/raw/gone.csv", b"").encode()} | {name: b"" for name in module.PLAIN})
    monkeypatch.setattr(module, "HOME", tmp_path)
    with pytest.raises(SystemExit, match="gone.csv is listed"):
        module.carried()


def test_the_mark_says_who_made_the_folder(nowhere):
    lay_out("lab")
    assert json.loads((nowhere / "lab" / layout.MARK).read_text())["made by"] == "motionlab init"
