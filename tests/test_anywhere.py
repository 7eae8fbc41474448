"""The kit where it was not made: extras, Colab, conda, wheels through pip, uvx and pipx. What fetches packages is marked slow."""
import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import colab_cells

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HEAVY = {"papermill", "nbclient", "ipykernel", "IPython", "jupyterlab", "wandb", "nbformat"}
ENVIRONMENT = ("dependencies", "lab", "wandb", "test")  # what `make`, CI and conda install


def requirements(group):
    lines = PROJECT["dependencies"] if group == "dependencies" else PROJECT["optional-dependencies"][group]
    return {Requirement(line).name.lower().replace("_", "-") for line in lines}


# --------------------------------------------------------------------------------------------------------------- extras


def test_the_library_alone_asks_for_no_notebook_and_no_tracker():
    assert not {name.lower() for name in HEAVY} & requirements("dependencies")
    assert {"jupyterlab", "papermill", "ipykernel", "ipython"} <= requirements("lab") and requirements("wandb") == {"wandb"}


def test_modules_of_an_extra_are_imported_where_they_are_used():
    """Not at the top of a module, but for the one that the runner imports when there is something to run."""
    found = set()
    for path in (ROOT / "lib").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(
                node, ast.ImportFrom) else []
            found |= {path.name for name in names if name.split(".")[0] in HEAVY}
    assert found == {"kernel.py"}


def test_make_conda_and_pins_tell_of_one_environment():
    asked = f"-e .[{','.join(ENVIRONMENT[1:])}]"
    pip = next(entry["pip"] for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if isinstance(entry, dict))
    assert pip[:2] == ["-c constraints.txt", asked]
    assert asked.replace(".[", "'.[") + "'" in (ROOT / "Makefile").read_text() and asked in (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert not set().union(*map(requirements, ENVIRONMENT)) - pinned


def test_the_container_is_not_root_and_takes_the_common_road():
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^USER (.+)$", text, re.M) == ["motion"] and "make setup" in text.split("USER motion")[1]
    assert '"make", "lab", "LAB=' in text and "$(LAB)" in (ROOT / "Makefile").read_text() and "EXPOSE 8888" in text


# ---------------------------------------------------------------------------------------------------------------- Colab


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_opens_on_colab(path):
    """Mended by `python tests/colab_cells.py`."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert colab_cells.with_colab(notebook, path.stem) == notebook


def test_badge_and_cell_are_written_once_and_follow_the_repository(monkeypatch):
    old = {"cells": [{"cell_type": "markdown", "source": ["# 00 A title\n", "\n", "Text."]}, {"cell_type": "code", "source": ["x = 1"]}]}
    new = colab_cells.with_colab(old, "00_tour")
    assert len(new["cells"]) == 3 and new["cells"][0]["source"][2].startswith(colab_cells.BADGE) and new["cells"][0]["source"][-1] == "Text."
    monkeypatch.setattr(colab_cells, "home", lambda: "https://github.com/somebody/else")
    moved = colab_cells.with_colab(new, "00_tour")
    text = json.dumps(moved)
    assert len(moved["cells"]) == 3 and "somebody/else/blob/main/notebooks/00_tour.ipynb" in text and "git+https://github.com/somebody/else" in text
    assert colab_cells.home() == "https://github.com/somebody/else" and json.dumps(new) != text


def test_the_readme_has_the_badge():
    assert colab_cells.badge("00_tour") in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_cell_does_nothing_elsewhere(tmp_path):
    code = colab_cells.CELL.replace("%pip install -q {kit}", "raise SystemExit('installs')")
    env = {name: value for name, value in os.environ.items() if name not in ("COLAB_RELEASE_TAG", "MOTIONLAB_ROOT", "PYTHONPATH")}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env).returncode == 0 and not list(tmp_path.iterdir())
    on_colab = env | {"COLAB_RELEASE_TAG": "x", "PYTHONPATH": str(ROOT / "lib"), "MOTIONLAB_ROOT": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=on_colab).returncode == 0 and not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ with the registry at hand


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Skip where no package can be fetched."""
    words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "-d", str(tmp_path_factory.mktemp("pip")), "ftfy"]
    if subprocess.run(words, capture_output=True, timeout=120).returncode:
        pytest.skip("no package registry at hand")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory, registry):
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, ROOT / "weights"], check=True)
    return sorted(folder.glob("*.whl"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_wheels_are_small_enough_for_a_package_index(wheels):
    assert [path.name.split("-")[0] for path in wheels] == ["motionlab", "motionlab_weights"]
    assert all(path.stat().st_size < 95e6 for path in wheels)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tour_runs_on_colab(wheels, tmp_path):
    env = os.environ | {"TORCH_FROM": sysconfig.get_paths()["purelib"], "PYTHON": sys.executable}
    done = subprocess.run(["bash", str(ROOT / "tests/colab.sh"), str(tmp_path), *map(str, wheels)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "replaced: none" in done.stdout and "4 claims judged" in done.stdout and "every verdict and table follows" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_runs_through_uvx_and_pipx(wheels, tmp_path):
    env = os.environ | {"PYTHON": sys.executable, "TORCH": os.environ.get("TORCH", "torch")}
    done = subprocess.run(["bash", str(ROOT / "tests/uvx.sh"), str(tmp_path), str(wheels[0])], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "the same clip" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
