"""What an ablations.yaml says, read and checked without importing any of the code that it names."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.core.files import shown
from motionlab.runner import fingerprint as prints
from motionlab.core.yamls import read_yaml

FIELDS = ("paper", "row", "common", "data", "arms", "cost")
ARM_FIELDS = ("name", "seeds", "grid")
COST_FIELDS = ("minutes_per_row", "ram_gb")
TIERS = ("smoke", "full")
GIVEN = ("arm", "seed", "out_dir", "tier")  # what a row function is called with, besides `common`


@dataclass(frozen=True)
class Sweep:
    """An ablations.yaml, checked. `arms` maps names (grids expanded) to what the row function gets."""

    path: Path
    root: Path
    paper: str
    function: str
    common: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: dict[str, tuple[int, ...]]
    data: dict[str, str]  # {file: sha256}
    cost: dict[str, Any]
    code: str  # sha256 over the row function's module and all of motionlab that it imports


def read_sweep(file: str | Path, root: Path) -> Sweep:
    """Read and check an ablations.yaml, given as a path or as the name of its paper. Imports none of its code.

    Raises:
        MotionLabError: no such file, an unknown field, a malformed arm, a row function that is not there or does not
            take what it would be given; the nearest name is named.
    """
    path = _find(file, root)
    content = read_yaml(path)
    where = shown(path, root)
    if not isinstance(content, dict):
        raise MotionLabError(f"{where} is no mapping.", fix=f"It has the fields: {', '.join(FIELDS)}.")
    for name in content:
        one_of(name, FIELDS, f"field of {where}:")
    for name in ("paper", "row", "arms"):
        if not content.get(name):
            raise MotionLabError(f"{where} lacks the field '{name}'.", fix="See the top of motionlab.runner.sweep.")
    paper = str(content["paper"])
    if not re.fullmatch(r"[\w-]+", paper):
        raise MotionLabError(f"{where}: '{paper}' is no name of a paper.", fix="Use letters, digits, _ and -.")
    common = _numbers(content.get("common") or {})
    code = _check_function(str(content["row"]), common, path)
    arms, seeds = _read_arms(content["arms"], where)
    cost = _read_cost(content.get("cost") or {}, where)
    data = _read_data(content.get("data") or [], Path(root), where)
    return Sweep(path, Path(root), paper, str(content["row"]), common, arms, seeds, data, cost, code)


def _find(file: str | Path, root: Path) -> Path:
    path = Path(file)
    named = Path(root, "reproductions", str(file), "ablations.yaml")
    for found in (path, named):
        if found.is_file():
            return found.resolve()
    known = sorted(path.parent.name for path in Path(root, "reproductions").glob("*/ablations.yaml"))
    raise MotionLabError(
        f"There is no file '{file}', and no paper of that name with ablations.{nearest(str(file), known)}",
        fix=f"Papers with an ablations.yaml: {', '.join(known) or 'none'}.",
    )


def _numbers(value: Any) -> Any:
    """Text such as 1e-3, which YAML takes for a word, as the number that it means."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


def _read_arms(listed: Any, where: str) -> tuple[dict[str, dict], dict[str, tuple[int, ...]]]:
    arms, seeds = {}, {}
    for entry in listed if isinstance(listed, list) else [listed]:
        for name, arm in _expanded(entry, where):
            if name.casefold() in map(str.casefold, arms):  # file names on some systems know no case
                raise MotionLabError(f"{where}: the arm '{name}' stands twice.", fix="Give each arm its own name.")
            arms[name], seeds[name] = arm, _read_seeds(name, entry.get("seeds", [0]), where)
    return arms, seeds


def _expanded(entry: Any, where: str) -> Iterator[tuple[str, dict]]:
    """(name, arm) for each point of the arm's grid; the arm itself where it has none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise MotionLabError(f"{where}: an arm has no name: {entry!r}.", fix="Write - {name: base, seeds: [0]}.")
    name = entry["name"]
    for field in entry:
        near = nearest(field, ARM_FIELDS) if _slip(str(field)) else ""
        if near:
            raise MotionLabError(f"{where}: unknown field '{field}' of arm '{name}'.{near}", fix="Or rename it.")
    fields = _numbers({key: value for key, value in entry.items() if key not in ARM_FIELDS})
    grid = _numbers(entry.get("grid") or {})
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise MotionLabError(f"{where}: the grid of arm '{name}' is {grid!r}.", fix="Write grid: {lr: [1e-4, 1e-3]}.")
    for point in itertools.product(*grid.values()):
        setting = dict(zip(grid, point))
        label = ",".join(f"{key}={_label(value)}" for key, value in setting.items())
        full = f"{name}@{label}" if label else name
        if not re.fullmatch(r"[\w.+-]+(@[\w.+=,-]+)?", full):
            raise MotionLabError(
                f"{where}: '{full}' is no good name for an arm.", fix="Use letters, digits, _ . + and -."
            )
        yield full, {"name": full, **fields, **setting}


def _slip(field: str) -> bool:
    """Whether an arm's field, which may have any name, is a slip of the pen for one that we read."""
    import difflib

    return field not in ARM_FIELDS and bool(difflib.get_close_matches(field, ARM_FIELDS, 1, cutoff=0.85))


def _label(value: Any) -> str:
    """A value in an arm's name: the shorter of 0.001 and 1e-3."""
    if not isinstance(value, float):
        return str(value)
    plain, power = f"{value:g}", re.sub(r"\.?0*e([-+])0*(\d)", r"e\1\2", f"{value:e}").replace("e+", "e")
    return power if len(power) < len(plain) else plain


def _read_seeds(name: str, seeds: Any, where: str) -> tuple[int, ...]:
    good = isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not good or len(set(seeds)) != len(seeds):
        raise MotionLabError(
            f"{where}: the seeds of arm '{name}' are {seeds!r}.", fix="Write whole numbers, such as [0, 1, 2]."
        )
    return tuple(seeds)


def _read_data(named: Any, root: Path, where: str) -> dict[str, str]:
    """{path below the root: sha256} of the named files, and of the files in the named folders."""
    found = {}
    for name in named if isinstance(named, list) else [named]:
        place = Path(root, str(name))
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        if not place.exists():
            raise MotionLabError(f"{where}: there is no '{name}', which data names.",
                                 fix="Give paths below the root; shipped checkpoints are made by `make pretrain`.")
        found |= {file.relative_to(root).as_posix(): prints.sha_file(file) for file in files if file.is_file()}
    return found


def _read_cost(cost: Any, where: str) -> dict[str, Any]:
    minutes = cost.get("minutes_per_row", {}) if isinstance(cost, dict) else None
    for name in cost if isinstance(cost, dict) else ():
        one_of(name, COST_FIELDS, f"field of the cost in {where}:")
    for name in minutes if isinstance(minutes, dict) else ():
        one_of(name, TIERS, f"tier of the cost in {where}:")
    values = [*minutes.values(), cost.get("ram_gb", 0)] if isinstance(minutes, dict) else [None]
    if not all(isinstance(value, (int, float)) and value >= 0 for value in values):
        raise MotionLabError(
            f"{where}: the cost is {cost!r}.", fix="Write cost: {minutes_per_row: {full: 20, smoke: 0.1}, ram_gb: 3}."
        )
    return cost


# The row function is looked up by reading its module, never by importing it here: a bad name is told in milliseconds
# and without torch, and the ledger does not depend on the papers.


def _check_function(text: str, common: Any, path: Path) -> str:
    """Check that `package.module:function` is there and takes `common`; the code's sha256.

    Raises:
        MotionLabError: not of that form, no such module or function, a keyword argument that it does not take.
    """
    module, sign, name = text.partition(":")
    if not sign or not all(part.isidentifier() for part in [*module.split("."), name]):
        raise MotionLabError(f"row '{text}' is not package.module:function.", fix="Or my_rows:run_row.")
    source = _source(module, path)
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    one_of(name, functions, f"function of {module}:")
    _check_arguments(functions[name].args, common, text)
    modules = prints.imported_modules((f"import {module}", source.decode("utf-8")))
    parts = [hashlib.sha256(source).hexdigest()] + [f"{key} {prints.sha_file(file)}" for key, file in modules.items()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _source(module: str, path: Path) -> bytes:
    with _importable(path):
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        folder = prints.PACKAGE.joinpath(*module.split(".")[1:-1]) if module.startswith("motionlab.") else path.parent
        known = [".".join([*module.split(".")[:-1], file.stem]) for file in folder.glob("*.py")]
        raise MotionLabError(
            f"There is no module '{module}' to measure rows with.{nearest(module, known)}",
            fix=f"Name an installed module, or put {module.split('.')[-1]}.py beside {path.name}.",
        )
    return Path(spec.origin).read_bytes()


@contextlib.contextmanager
def _importable(path: Path) -> Iterator[None]:
    """Modules beside the YAML file can be found."""
    sys.path.insert(0, str(path.parent))
    try:
        importlib.invalidate_caches()
        yield
    finally:
        sys.path.remove(str(path.parent))


def _check_arguments(arguments: ast.arguments, common: Any, text: str) -> None:
    if not isinstance(common, dict) or set(common) & set(GIVEN):
        raise MotionLabError(
            f"common is {common!r}.", fix=f"Write a mapping of keyword arguments other than {', '.join(GIVEN)}."
        )
    positional = [argument.arg for argument in arguments.posonlyargs + arguments.args]
    if len(positional) < len(GIVEN) and not arguments.vararg:
        raise MotionLabError(f"{text} takes {len(positional)} arguments.", fix=f"It is called with {', '.join(GIVEN)}.")
    taken = positional[len(GIVEN) :] + [argument.arg for argument in arguments.kwonlyargs]
    for name in common if not arguments.kwarg else ():
        one_of(name, taken, f"field of common (an argument of {text}):")
