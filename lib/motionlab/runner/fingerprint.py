"""When is a finished notebook still up to date? A fingerprint of everything its result depends on.

Code is followed by reading it, never by importing it: the import graph of the whole package, imports inside functions
included (grimp: 0.1 s). So an unchanged notebook is skipped in a moment, without torch.
"""
from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import itertools
import json
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError
from motionlab.ledger.notebooks import RUNNER_OWNED, Notebook

VERSIONS = {"torch": ("torch",), "numpy": ("numpy",),
            "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python")}
# What acts on a finished result cannot change it: a new style of the report is no reason to run a notebook again.
AFTER_THE_RUN = {f"motionlab.ledger.{name}" for name in ("publishing", "report", "standings", "verify")}
MAX_LISTED = 20_000  # files of a data folder that are looked at
_MISSING = object()


def fingerprint(notebook: Notebook, tier: str, values: dict[str, Any], root: Path, package: str = "motionlab") -> dict[str, Any]:
    """The parts that a result depends on: `{"module motionlab.world.scenes": sha256, "parameter n_clips": 200, ...}`.

    Args:
        values: the injected values (`params.resolve`); defaults are filled in from the notebook.
        package: the import package whose modules are followed.
    """
    defaults = {name: parameter.default for name, parameter in notebook.parameters.items()}
    parameters = {name: value for name, value in (defaults | values).items() if name not in RUNNER_OWNED}
    parts: dict[str, Any] = {"tier": tier, "notebook": _sha(json.dumps(notebook.sources).encode())}
    parts |= {f"parameter {name}": value for name, value in parameters.items()}
    parts |= {f"module {name}": sha_file(path) for name, path in imported_modules(notebook.sources, package).items()}
    claims = Path(root, "reproductions", notebook.paper, "claims.yaml")
    parts["claims.yaml"] = sha_file(claims) if claims.is_file() else None
    parts |= {f"data {name}": stamp for name, stamp in _data_stamps(notebook, parameters, root)}
    parts |= {f"version {name}": next(filter(None, map(_version, names)), None) for name, names in VERSIONS.items()}
    parts["version python"] = platform.python_version()
    return json.loads(json.dumps(parts))  # tuples become lists, as they will be read back


def changes(before: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    """Names of the parts that differ, in reading order; `["no finished run"]` where there is none to compare with."""
    if not before:
        return ["no finished run"]
    return [name for name in now | before if before.get(name, _MISSING) != now.get(name, _MISSING)]


# ---------------------------------------------------------------------------------------------------------------- code


def imported_modules(sources: tuple[str, ...] | list[str], package: str = "motionlab") -> dict[str, Path]:
    """`{dotted name: file}` of all modules of `package` that the code imports, directly or through each other.

    A package that is imported by its own name counts with all its modules: what it hands on by strings cannot be read.
    Files beside a package's modules (palettes, scenes, small weights) count as part of it.
    """
    graph, home = _graph(package), Path(importlib.util.find_spec(package).submodule_search_locations[0])
    waiting = [name for source in sources for name in _imports(source, graph.modules)]
    seen: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        named = {name, *(graph.find_children(name) if name != package else ())}
        for one in named | {name[:end] for end in range(len(name)) if name[end] == "."}:
            if one not in seen and one not in AFTER_THE_RUN:
                seen[one] = _file(one, home)
                waiting += graph.find_modules_directly_imported_by(one)
    packages = {name: path.parent for name, path in seen.items() if path.name == "__init__.py"}
    beside = {f"{name}/{file.name}": file for name, folder in packages.items() for file in _files_beside(folder)}
    return dict(sorted((seen | beside).items()))


@functools.cache
def _graph(package: str):
    """The package's import graph, once per process.

    Raises:
        MotionLabError: a module that is not Python.
    """
    import grimp

    try:
        return grimp.build_graph(package, cache_dir=None)
    except grimp.exceptions.SourceSyntaxError as error:
        raise MotionLabError(f"A module of {package} cannot be read: {error}", fix="Mend that line.") from None


def _imports(source: str, modules: set[str]) -> list[str]:
    """Those of the modules that the code names: `from a import b` means `a.b` where that is one, else `a`."""
    try:
        nodes = list(ast.walk(ast.parse(_without_magics(source))))
    except SyntaxError:
        return []  # the kernel will say what is wrong with it
    named = [(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named += [(f"{node.module}.{alias.name}", node.module) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    return [longer if longer in modules else shorter for longer, shorter in named if {longer, shorter} & modules]


def _without_magics(source: str) -> str:
    """IPython's own lines replaced by `pass`, which keeps the indentation valid."""
    bare = [(line, line.lstrip()) for line in source.splitlines()]
    return "\n".join(line[: len(line) - len(text)] + "pass" if text.startswith(("%", "!", "?")) else line for line, text in bare)


def _file(name: str, home: Path) -> Path:
    place = home.joinpath(*name.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_name(f"{place.name}.py")


def _files_beside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".so") and not path.name.startswith("."):
            yield path


# ---------------------------------------------------------------------------------------------------------------- data


def _data_stamps(notebook: Notebook, parameters: dict[str, Any], root: Path) -> Iterator[tuple[str, Any]]:
    """Every file or folder that the notebook lists or that a parameter names, with its size and time of change."""
    values = [item for value in parameters.values() for item in (value if isinstance(value, list) else [value])]
    for name in dict.fromkeys([*notebook.data, *(value for value in values if isinstance(value, str))]):
        with contextlib.suppress(OSError):  # a text that happens to be no possible path, such as a long prompt
            path = Path(root, name)
            if name.strip(". ") and path.exists():
                yield name, _stamp(path) if path.is_file() else _folder_stamp(path)


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _folder_stamp(folder: Path) -> str:
    files = itertools.islice((path for path in folder.rglob("*") if path.is_file()), MAX_LISTED)
    stamps = sorted(f"{path.relative_to(folder).as_posix()} {_stamp(path)}" for path in files)
    return _sha("\n".join(stamps).encode())


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    return _sha(path.read_bytes())
