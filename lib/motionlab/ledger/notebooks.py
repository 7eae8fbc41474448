"""Numbered notebooks, read as files without Jupyter: paper, claims, parameters; and which of them this kernel runs."""
from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motionlab.core.config import converted, from_values
from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.core.files import parse_json

RUNNER_OWNED = ("tier", "out_dir")  # parameters that say where a run stands, not what it measures
KINDS = {kind.__name__: kind for kind in (bool, int, float, str, list, dict)}


@dataclass(frozen=True)
class Parameter:
    """One name of the parameters cell: its default, and the type of its values as an annotation (Any: whatever YAML can say)."""

    name: str
    default: Any
    kind: Any


@dataclass(frozen=True)
class Notebook:
    """A numbered notebook: what it asks, which claims it judges, what it takes."""

    stem: str
    path: Path
    paper: str
    title: str
    claims: tuple[str, ...]
    parameters: dict[str, Parameter] = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)  # its code cells, in order
    data: tuple[str, ...] = ()  # files and folders named in the metadata, relative to the root
    limits: Mapping[str, Any] = field(default_factory=dict, repr=False)  # of parameters, see `runner.limits`


@dataclass(frozen=True)
class About:
    """What a notebook's metadata says under `motionlab`."""

    paper: str = ""
    title: str = ""
    claims: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    limits: dict = field(default_factory=dict)


def notebook_paths(root: Path) -> dict[str, Path]:
    """`{stem: path}` of every notebook under `root/notebooks`, in numbered order."""
    found = [path for path in Path(root, "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    return {path.stem: path for path in sorted(found, key=lambda path: path.stem)}


def find_notebook(name: str, root: Path) -> str:
    """The stem that `name` means: a stem, a path to the file, or the start of exactly one stem (such as `09`).

    Raises:
        MotionLabError: no notebook starts like this, or several do.
    """
    stems = list(notebook_paths(root))
    wanted = Path(name).stem if str(name).endswith(".ipynb") else str(name)
    starts = [wanted] if wanted in stems else [stem for stem in stems if wanted and stem.startswith(wanted)]
    if len(starts) == 1:
        return starts[0]
    if starts:
        raise MotionLabError(f"'{name}' is the start of several notebooks: {', '.join(starts)}.", fix="Write more of the name.")
    listed = ", ".join(stems) if stems else f"there are none under {Path(root, 'notebooks')}"
    raise MotionLabError(f"Unknown notebook '{name}'.{nearest(wanted, stems)}", fix=f"Choose one of: {listed}.")


def read_notebook(stem: str, root: Path) -> Notebook:
    """Read notebook `stem` and its parameters cell.

    Raises:
        MotionLabError: unknown or unreadable notebook, no `metadata.motionlab.paper`, or not exactly one cell tagged
            `parameters` that holds literals only.
    """
    paths = notebook_paths(root)
    return read_file(paths[one_of(stem, paths, "notebook")])


def read_file(path: Path) -> Notebook:
    """`read_notebook` of a file."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        code = [{**cell, "source": "".join(cell["source"])} for cell in content["cells"] if cell["cell_type"] == "code"]
        tagged = [cell for cell in code if "parameters" in cell.get("metadata", {}).get("tags", [])]
        about = converted(dict, content.get("metadata", {}).get("motionlab") or {}, "metadata.motionlab", "notebook")
        about = from_values(About, {name: about[name] for name in vars(About()) if name in about}, "metadata.motionlab")
    except MotionLabError as error:
        raise MotionLabError(f"{path.name}: {error.what}", fix=error.fix) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MotionLabError(f"{path} is not a readable notebook ({error}).", fix="Restore the file from git.") from None
    if not about.paper:
        raise MotionLabError(f"{path.name} does not say which paper it belongs to.",
                             fix="Add metadata.motionlab: {paper: audit, title: ..., claims: [...]} to the notebook.")
    if len(tagged) != 1:
        raise MotionLabError(f"{path.name} has {len(tagged)} cells tagged 'parameters', wanted exactly one.",
                             fix="Tag the cell that holds the defaults, and only that one.")
    return Notebook(path.stem, path, about.paper, about.title or path.stem, about.claims, read_parameters(tagged[0]["source"], path.name),
                    tuple(cell["source"] for cell in code), about.data, about.limits)


def read_parameters(source: str, where: str = "the notebook") -> dict[str, Parameter]:
    """The `{name: Parameter}` that a parameters cell assigns (`steps: int = 4`, or without the annotation).

    Raises:
        MotionLabError: the cell holds something else than assignments of literals to names.
    """
    found: dict[str, Parameter] = {}
    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
            default = ast.literal_eval(node.value)
            found[target.id] = Parameter(target.id, default, _kind_of(default, annotation))
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError) as error:
        raise MotionLabError(f"The parameters cell of {where} must assign plain values to names ({error}).",
                             fix="Keep only lines like `n_clips: int = 4`; derive other values in the next cell.") from None
    return found


def _kind_of(default: Any, annotation: str) -> Any:
    if default is None:
        named = [kind for name, kind in KINDS.items() if name in annotation]
        return named[0] | None if len(named) == 1 else Any
    if isinstance(default, (list, tuple)):
        inner = {type(item) for item in default}
        return list[inner.pop()] if len(inner) == 1 else list
    return type(default)


# ---------------------------------------------------------------------------------------------------------- from within


def this_notebook(values: Mapping[str, Any], root: Path, said: str | None = None) -> Notebook:
    """The notebook that this kernel runs.

    Args:
        values: the kernel's namespace. said: its stem, where nothing else tells.

    Raises:
        MotionLabError: nothing tells; and as `read_notebook`.
    """
    paths = notebook_paths(root)
    if said:
        return read_notebook(said, root)
    for name in _told(values):
        if name.endswith(".ipynb") and Path(name).is_file():
            return read_file(Path(name))
        if Path(name).stem in paths:
            return read_file(paths[Path(name).stem])
    raise MotionLabError("Nothing tells which notebook this is.", fix='Say it: open_book("01_its_name").')


def _told(values: Mapping[str, Any]) -> Iterator[str]:
    """What may name the notebook: the runner, VS Code, JupyterLab (its own path), and the folder for its results."""
    for name in (os.environ.get("MOTIONLAB_NOTEBOOK"), values.get("__vsc_ipynb_file__"), values.get("__session__"),
                 os.environ.get("JPY_SESSION_NAME"), values.get("out_dir")):
        if name:
            yield str(name)


def parameters_now(notebook: Notebook, values: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook's parameters with the values that they have in the namespace, but for those of the runner.

    Raises:
        MotionLabError: a parameter is not set.
    """
    names = [name for name in notebook.parameters if name not in RUNNER_OWNED]
    for name in names:
        if name not in values:
            raise MotionLabError(f"The parameter '{name}' of {notebook.stem} is not set.", fix="Run the cell tagged `parameters` first.")
    return {name: values[name] for name in names}
