"""What every notebook has for Colab: a badge below its title and the first code cell. Run it to write both into all of them.

    python tests/colab_cells.py      # after adding a notebook, or when the kit moved: pyproject.toml says where it lives
"""
import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
CELL = '''\
import os
if "COLAB_RELEASE_TAG" in os.environ:   # elsewhere there is nothing to do
    home = "git+HOME"
    kit = os.environ.get("MOTIONLAB_SOURCE", f"{home} {home}#subdirectory=weights")
    try:
        import motionlab
    except ImportError:                 # two minutes; Colab's own torch stays, no restart
        %pip install -q {kit}
    from motionlab.core.layout import settle
    settle("motionlab")'''


def home() -> str:
    """Where the kit lives, by pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]


def badge(stem: str) -> str:
    """A link that opens a notebook on Colab."""
    owner_and_name = home().removeprefix("https://github.com/")
    return f"{BADGE}(https://colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{stem}.ipynb)"


def with_colab(notebook: dict, stem: str) -> dict:
    """The notebook with its badge and its first code cell as they should be."""
    title, *cells = notebook["cells"]
    heading, *lines = (line for line in title["source"] if not line.startswith(BADGE))
    while lines and not lines[0].strip():
        lines.pop(0)
    title = {**title, "source": [f"{heading.rstrip()}\n", "\n", f"{badge(stem)}\n", "\n", *lines]}
    first = {"cell_type": "code", "execution_count": None, "id": f"{stem[:2]}-colab", "metadata": {}, "outputs": [],
             "source": CELL.replace("HOME", home()).splitlines(keepends=True)}
    return {**notebook, "cells": [title, first, *(cell for cell in cells if "COLAB_RELEASE_TAG" not in "".join(cell["source"]))]}


def write() -> None:
    """Bring badge and cell up to date in every notebook and in the README."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = with_colab(json.loads(path.read_text(encoding="utf-8")), path.stem)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    readme = ROOT / "README.md"
    text = re.sub(re.escape(BADGE) + r"\(\S+\)", badge("00_tour"), readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()
