"""When is a finished notebook still up to date? A fingerprint of everything its result depends on.

Code is followed by reading it, never by importing it: a static walk over the notebook's imports, function-local ones
included, through all of `motionlab`. So an unchanged notebook is skipped in milliseconds, without torch.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from motionlab.runner.params import RUNNER_OWNED, Notebook

PACKAGE = Path(__file__).resolve().parents[1]
VERSIONS = {
    "torch": ("torch",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
}
# What acts on a finished result cannot change it: a new style of the report is no reason to run a notebook again.
AFTER_THE_RUN = {
    f"motionlab.ledger.{name}"
    for name in ("fingerprint", "kernel", "params", "progress", "report", "runs", "sweep", "verify", "wandb_mirror")
}
MAX_LISTED = 20_000  # files of a data folder that are looked at


def fingerprint(
    notebook: Notebook, tier: str, values: dict[str, Any], root: Path, package: Path = PACKAGE
) -> dict[str, Any]:
    """The parts that a result depends on: `{"module motionlab.world.scenes": sha256, "parameter n_clips": 200, ...}`.

    Args:
        values: the injected values (`params.resolve`); defaults are filled in from the notebook.
        package: folder of the import package whose modules are followed.
    """
    parameters = {name: parameter.default for name, parameter in notebook.parameters.items()} | values
    parameters = {name: value for name, value in parameters.items() if name not in RUNNER_OWNED}
    parts: dict[str, Any] = {"tier": tier, "notebook": _sha(json.dumps(notebook.sources).encode())}
    parts |= {f"parameter {name}": value for name, value in parameters.items()}
    parts |= {f"module {name}": sha_file(path) for name, path in imported_modules(notebook.sources, package).items()}
    claims = Path(root, "reproductions", notebook.paper, "claims.yaml")
    parts["claims.yaml"] = sha_file(claims) if claims.is_file() else None
    parts |= {f"data {name}": stamp for name, stamp in _data_stamps(notebook, parameters, root)}
    parts |= {f"version {name}": version for name, version in _versions()}
    return json.loads(json.dumps(parts))  # tuples become lists, as they will be read back


def changes(before: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    """Names of the parts that differ, in reading order; `["no finished run"]` where there is none to compare with."""
    if not before:
        return ["no finished run"]
    names = list(now) + [name for name in before if name not in now]
    return [name for name in names if before.get(name, _MISSING) != now.get(name, _MISSING)]


_MISSING = object()


def imported_modules(sources: tuple[str, ...] | list[str], package: Path = PACKAGE) -> dict[str, Path]:
    """`{dotted name: file}` of all modules of `package` that the code imports, directly or through each other.

    Files beside a package's modules (palettes, scenes, small weights) count as part of it.
    """
    seen: dict[str, Path] = {}
    waiting = [name for source in sources for name in _imports(_parse(_without_magics(source)), package.name, False)]
    while waiting:
        for name in _with_parents(waiting.pop()):
            path = _module_file(name, package)
            if path is None or name in seen or name in AFTER_THE_RUN:
                continue
            seen[name] = path
            is_package = path.name == "__init__.py"
            tree = _parse(path.read_text(encoding="utf-8"))
            waiting += _imports(tree, name, is_package)
            if is_package:
                waiting += _lazy_exports(tree, name, path.parent)
                seen |= {f"{name}/{file.name}": file for file in _files_beside(path.parent)}
    return dict(sorted(seen.items()))


def _parse(source: str) -> ast.AST:
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])  # the kernel will say what is wrong with it


def _without_magics(source: str) -> str:
    """IPython's own lines replaced by `pass`, which keeps the indentation valid."""

    def plain(line: str) -> str:
        bare = line.lstrip()
        return line[: len(line) - len(bare)] + "pass" if bare.startswith(("%", "!", "?")) else line

    return "\n".join(plain(line) for line in source.splitlines())


def _imports(tree: ast.AST, module: str, is_package: bool) -> list[str]:
    """Dotted names that may be modules: `from a import b` gives `a` and `a.b`."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            names += [base] + [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            names += [
                arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            ]
    return names


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join(parts + ([node.module] if node.module else []))


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _lazy_exports(tree: ast.AST, name: str, folder: Path) -> list[str]:
    """Modules behind a package's `__getattr__`: those its strings name, or all of them where none is named."""
    if not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in ast.walk(tree)):
        return []
    modules = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    modules += [path.parent.name for path in folder.glob("*/__init__.py")]
    strings = {
        node.value.lstrip(".").removeprefix(f"{name}.")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return [f"{name}.{module}" for module in modules if module in strings] or [f"{name}.{module}" for module in modules]


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _module_file(name: str, package: Path) -> Path | None:
    parts = name.split(".")
    if parts[0] != package.name:
        return None
    place = package.joinpath(*parts[1:])
    for path in (place / "__init__.py", place.with_name(place.name + ".py")):
        if path.is_file():
            return path
    return None


def _files_beside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".so", ".css") and not path.name.startswith("."):
            yield path


def _data_stamps(notebook: Notebook, parameters: dict[str, Any], root: Path) -> Iterator[tuple[str, Any]]:
    """Every file or folder that the notebook lists or that a parameter names, with its size and time of change."""
    named = list(notebook.data)
    for value in parameters.values():
        named += [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
    for name in dict.fromkeys(named):
        path = Path(root, name) if name.strip(". ") else None
        if path is None:
            continue
        try:
            if path.is_file():
                yield name, _stamp(path)
            elif path.is_dir():
                yield name, _folder_stamp(path)
        except OSError:  # a text that happens to be no possible path, such as a long prompt
            continue


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _folder_stamp(folder: Path) -> str:
    digest, count = hashlib.sha256(), 0
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(parent, name)
            if path.is_file():
                digest.update(f"{path.relative_to(folder).as_posix()} {_stamp(path)}\n".encode())
            count += 1
            if count >= MAX_LISTED:
                return digest.hexdigest()
    return digest.hexdigest()


def _versions() -> Iterator[tuple[str, str | None]]:
    yield "python", platform.python_version()
    for name, distributions in VERSIONS.items():
        yield name, next((found for found in map(_version, distributions) if found), None)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha_file(path: Path) -> str:
    return _sha(path.read_bytes())
