"""What an ablations.yaml says, read and checked without importing any of the code that it names."""
from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motionlab.core.config import converted, from_values
from motionlab.core.errors import MotionLabError, located, nearest, one_of
from motionlab.core.files import shown
from motionlab.core.protocol import RULED
from motionlab.core.yamls import read_yaml
from motionlab.ledger.selection import check_budgets, read_chosen
from motionlab.runner import fingerprint as prints

CHOSEN = "chosen"  # in the place of a rate: what `motionlab sweep --choose` chose
PARTS = ("train", "sample")  # of an arm, in which it may stand
ARM_FIELDS = ("name", "seeds", "grid", "unequal", "ablates")
GIVEN = ("arm", "seed", "out_dir", "tier")  # what a row function is called with, besides `common`


@dataclass(frozen=True)
class Minutes:
    """Measured minutes of a row at each tier; 0: not known."""

    full: float = 0.0
    smoke: float = 0.0


@dataclass(frozen=True)
class Cost:
    """What a row takes."""

    minutes_per_row: Minutes = Minutes()
    ram_gb: float = 0.0


@dataclass(frozen=True)
class Choose:
    """How rates are chosen: the grid of each field that no arm sets by hand, the arm that all are compared with, and where (fields
    of `measure`). by: the column whose mean decides, of which `better` ("less" or "more") is wanted; "" for structure beside motion
    that is not lost (`ledger.selection.RULE`)."""

    grid: dict[str, list[float]]
    comparator: str = "plain"
    measure: dict = field(default_factory=lambda: {"prompts": "dev", "n": 64})
    seeds: tuple[int, ...] = (0,)
    by: str = ""
    better: str = "less"

    def __post_init__(self):
        one_of(self.better, ("less", "more"), "which way is better")


@dataclass(frozen=True)
class Written:
    """An ablations.yaml as written; arms are still plain values. protocol: the version that they follow; from 7 on, rates are chosen by
    rule and budgets are equal. publishes: what its file of rows is called, where it is not "sweep" or, of another file, its own name.

    Raises:
        MotionLabError: a paper that is no name, keyword arguments that every row has already.
    """

    paper: str
    row: str
    arms: list[dict]
    check: str | None = None
    common: dict = field(default_factory=dict)
    data: tuple[str, ...] = ()
    cost: Cost = Cost()
    protocol: int = RULED - 1
    choose: Choose | None = None
    publishes: str = ""

    def __post_init__(self):
        for name, what in ((self.paper, "a paper"), (self.publishes or "sweep", "a file of rows")):
            if not re.fullmatch(r"[\w-]+", name):
                raise MotionLabError(f"'{name}' is no name of {what}.", fix="Use letters, digits, _ and -.")
        if set(self.common) & set(GIVEN):
            raise MotionLabError(f"common is {self.common!r}.", fix=f"Write keyword arguments other than {', '.join(GIVEN)}.")
        for text in filter(None, (self.row, self.check)):
            module, sign, name = text.partition(":")
            if not sign or not all(part.isidentifier() for part in [*module.split("."), name]):
                raise MotionLabError(f"'{text}' is not package.module:function.", fix="For example: my_rows:run_row.")


@dataclass(frozen=True)
class Sweep:
    """An ablations.yaml, checked. `arms` maps names (grids expanded) to what the row function gets."""

    path: Path
    root: Path
    paper: str
    function: str
    check: str | None
    common: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: dict[str, tuple[int, ...]]
    data: dict[str, str]  # {file: sha256}
    cost: Cost
    protocol: int
    choose: Choose | None
    unequal: dict[str, str]  # {arm: why its budget is another}
    publishes: str  # <publishes>_<tier>.csv is its file of rows
    written: dict[str, dict]  # {arm: its PARTS with the word `chosen` still in them}
    rates: dict[str, dict[str, str]]  # {arm: {field: the arm whose grid it was chosen from}}
    code: str  # sha256 over the row function's module and all of motionlab that it imports


def read_sweep(file: str | Path, root: Path) -> Sweep:
    """Read and check an ablations.yaml, given as a path or as the name of its paper. Imports none of its code.

    Raises:
        MotionLabError: no such file, an unknown field, a malformed arm, no module of the row function's name, files that
            include each other in a circle; under protocol 7, a rate set by hand or a budget of its own.
    """
    path = _find(file, root)
    content = _included(path, root)
    with located(shown(path, root)):
        written = from_values(Written, content, "file")
        arms, seeds = _read_arms(written.arms)
        unequal = {name: str(said) for name, said in _said(written.arms, "unequal", arms).items()}
        if written.protocol >= RULED:
            check_by_rule(arms, unequal, _said(written.arms, "ablates", arms), written.choose)
        given = {name: {part: dict(arm[part]) for part in parts_of(arm)} for name, arm in arms.items()}
        chosen = read_chosen(path.parent)
        rates = {name: owners(arm, arms) for name, arm in arms.items()}
        arms = {name: with_chosen(arm, rates[name], chosen.arms if chosen else {}) for name, arm in arms.items()}
        data = _read_data(written.data, Path(root))
        code = _code(written.row.partition(":")[0], path)
    common = _numbers(written.common)
    return Sweep(path, Path(root), written.paper, written.row, written.check, common, arms, seeds, data, written.cost,
                 written.protocol, written.choose, unequal,
                 written.publishes or {"ablations": "sweep"}.get(path.stem, path.stem), given, rates, code)


def _find(file: str | Path, root: Path) -> Path:
    path = Path(file)
    for found in (path, Path(root, "reproductions", str(file), "ablations.yaml")):
        if found.is_file():
            return found.resolve()
    known = sorted(path.parent.name for path in Path(root, "reproductions").glob("*/ablations.yaml"))
    raise MotionLabError(f"There is no file '{file}', and no paper of that name with ablations.{nearest(str(file), known)}",
                         fix=f"Papers with an ablations.yaml: {', '.join(known) or 'none'}.")


def _included(path: Path, root: Path, trail: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The fields of a file, and those that it has not from the file that it includes."""
    if path in trail:
        raise MotionLabError(f"{' includes '.join(shown(one, root) for one in (*trail, path))}: a circle.", fix="Take one `include` out.")
    with located(shown(path, root)):
        content = dict(converted(dict, read_yaml(path), "fields", "file"))
        other = content.pop("include", None)
        if other is None:
            return content
        place = (path.parent / str(other)).resolve()
        if not place.is_file():
            beside = nearest(str(other), (file.name for file in path.parent.glob("*.yaml")))
            raise MotionLabError(f"There is no '{other}' to include.{beside}", fix="Its path counts from this file's folder.")
    return _included(place, root, (*trail, path)) | content


def _numbers(value: Any) -> Any:
    """Text such as 1e-3, which YAML takes for a word, as the number that it means."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) else value


def _read_arms(listed: list[dict]) -> tuple[dict[str, dict], dict[str, tuple[int, ...]]]:
    arms, seeds = {}, {}
    for entry in listed:
        for name, arm in _expanded(entry):
            if name.casefold() in map(str.casefold, arms):  # file names on some systems know no case
                raise MotionLabError(f"the arm '{name}' stands twice.", fix="Give each arm its own name.")
            arms[name], seeds[name] = arm, _read_seeds(name, entry.get("seeds", [0]))
    return arms, seeds


def _said(listed: list[dict], field_: str, arms: dict) -> dict[str, Any]:
    """{arm: what its entry says in one of ARM_FIELDS}, for every point of its grid."""
    said = {entry["name"]: entry[field_] for entry in listed if entry.get(field_)}
    return {name: said[name.split("@")[0]] for name in arms if name.split("@")[0] in said}


def _expanded(entry: dict) -> Iterator[tuple[str, dict]]:
    """(name, arm) for each point of the arm's grid; the arm itself where it has none."""
    name, grid = entry.get("name"), _numbers(entry.get("grid") or {})
    if not isinstance(name, str):
        raise MotionLabError(f"an arm has no name: {entry!r}.", fix="Write - {name: base, seeds: [0]}.")
    for slip in (one for one in entry if one not in ARM_FIELDS and difflib.get_close_matches(str(one), ARM_FIELDS, 1, cutoff=0.85)):
        raise MotionLabError(f"unknown field '{slip}' of arm '{name}'.{nearest(slip, ARM_FIELDS)}", fix="Or rename it.")
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise MotionLabError(f"the grid of arm '{name}' is {grid!r}.", fix="Write grid: {lr: [1e-4, 1e-3]}.")
    fields = _numbers({key: value for key, value in entry.items() if key not in ARM_FIELDS})
    for point in itertools.product(*grid.values()):
        setting = dict(zip(grid, point))
        full = "@".join(filter(None, (name, ",".join(f"{key}={label(value)}" for key, value in setting.items()))))
        if not re.fullmatch(r"[\w.+-]+(@[\w.+=,-]+)?", full):
            raise MotionLabError(f"'{full}' is no good name for an arm.", fix="Use letters, digits, _ . + and -.")
        yield full, {"name": full, **fields, **setting}


def label(value: Any) -> str:
    """A value in an arm's name: the shorter of 0.001 and 1e-3."""
    if not isinstance(value, float):
        return str(value)
    plain, power = f"{value:g}", re.sub(r"\.?0*e([-+])0*(\d)", r"e\1\2", f"{value:e}").replace("e+", "e")
    return power if len(power) < len(plain) else plain


def check_by_rule(arms: dict[str, dict], unequal: dict[str, str], ablates: dict[str, list[str]], choose: Choose | None) -> None:
    """What protocol 7 asks of arms that are trained: no rate by hand, one budget.

    Args:
        unequal: why an arm's budget is another. ablates: fields of the grid that an arm turns on purpose; lr is never one.

    Raises:
        MotionLabError: naming the arm and the field.
    """
    trained = {name: arm["train"] for name, arm in arms.items() if isinstance(arm.get("train"), dict)}
    if trained and (choose is None or "lr" not in choose.grid):
        raise MotionLabError("its arms are trained under protocol 7, and it says no grid of rates.",
                             fix="Write choose: {grid: {lr: [3.0e-4, 1.0e-3, 3.0e-3]}}, one grid for every arm.")
    for name, train in trained.items():
        turned = {one_of(str(one), [key for key in choose.grid if key != "lr"], f"field of the grid to ablate in arm '{name}':")
                  for one in ablates.get(name, [])}
        for field_ in (key for key in choose.grid if key not in turned):
            value = next((fields[field_] for fields in (*parts_of(arms[name]).values(), arms[name]) if field_ in fields), None)
            if (value is not None or field_ == "lr") and not is_chosen(value):
                said = "left to its default" if value is None else value
                raise MotionLabError(f"the {field_} of arm '{name}' is {said}, set by hand.",
                                     fix=f"Write {field_}: chosen (by its own grid) or {field_}: chosen@ARM (as another arm's).")
    check_budgets({name: (train, unequal.get(name)) for name, train in trained.items()})


def is_chosen(value: Any) -> bool:
    """Is it `chosen`, or `chosen@ARM`?"""
    return isinstance(value, str) and (value == CHOSEN or value.startswith(f"{CHOSEN}@"))


def parts_of(arm: dict) -> dict[str, dict]:
    """Those of PARTS that an arm has."""
    return {part: arm[part] for part in PARTS if isinstance(arm.get(part), dict)}


def waiting(arm: dict) -> list[str]:
    """Fields of its training and sampling for which nothing was chosen yet."""
    return [name for fields in parts_of(arm).values() for name, value in fields.items() if is_chosen(value)]


def owners(arm: dict, arms: dict[str, dict]) -> dict[str, str]:
    """{field: arm whose grid it is chosen from} of an arm as written.

    Raises:
        MotionLabError: `chosen@ARM` of an arm that there is not.
    """
    found, words = {}, {name: value for fields in parts_of(arm).values() for name, value in fields.items()}
    for name in waiting(arm):
        asked = words[name].partition("@")[2]
        other = arms[one_of(asked, arms, f"arm in '{name}: chosen@{asked}' of arm '{arm['name']}':")] if asked else arm
        found[name] = tuned_as(other, arms)
    return found


def with_chosen(arm: dict, owner: dict[str, str], chosen: dict[str, dict[str, float]]) -> dict:
    """The arm with what was chosen in the place of `chosen`; where nothing was, the word stays, and `refuse_unchosen` tells it."""
    values = {field: chosen[name][field] for field, name in owner.items() if field in chosen.get(name, {})}
    return with_values(arm, values) if values else arm


def with_values(arm: dict, values: dict[str, Any]) -> dict:
    """The arm with these values in the place of its fields of the same name; whole numbers stay whole."""
    whole = {name: int(value) for name, value in values.items() if isinstance(value, float) and value.is_integer() and name != "lr"}
    values = {**values, **whole}
    return {**arm, **{part: {name: values.get(name, value) for name, value in fields.items()} for part, fields in parts_of(arm).items()}}


def tuned_as(arm: dict, arms: dict[str, dict]) -> str:
    """The first arm with the same training: those that differ in sampling or measuring only share its choice."""
    def training(one: dict) -> dict:
        return {key: value for key, value in one.items() if key not in ("name", "sample", "measure")}

    return next(name for name, other in arms.items() if training(other) == training(arm))


def _read_seeds(name: str, seeds: Any) -> tuple[int, ...]:
    good = isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not good or len(set(seeds)) != len(seeds):
        raise MotionLabError(f"the seeds of arm '{name}' are {seeds!r}.", fix="Write whole numbers, such as [0, 1, 2].")
    return tuple(seeds)


def _read_data(named: tuple[str, ...], root: Path) -> dict[str, str]:
    """{path below the root: sha256} of the named files, and of the files in the named folders."""
    found = {}
    for name in named:
        place = Path(root, name)
        if not place.resolve().is_relative_to(root.resolve()) or place.resolve() == root.resolve():
            raise MotionLabError(f"data names '{name}', which is not below the root.", fix="Give files and folders below the root.")
        if not os.path.exists(place):                 # False too for a name that no file system could hold
            raise MotionLabError(f"there is no '{name}', which data names.",
                                 fix="Give paths below the root; shipped checkpoints are made by `make pretrain`.")
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        found |= {file.relative_to(root).as_posix(): prints.sha_file(file) for file in files if file.is_file()}
    return found


def _code(module: str, path: Path) -> str:
    """sha256 over a module, found without importing it, and all of motionlab that it imports."""
    with importable(path.parent):
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        folder = Path(importlib.util.find_spec("motionlab").origin).parent.joinpath(*module.split(".")[1:-1])
        known = [".".join([*module.split(".")[:-1], file.stem]) for file in (folder if "." in module else path.parent).glob("*.py")]
        raise MotionLabError(f"There is no module '{module}' to measure rows with.{nearest(module, known)}",
                             fix=f"Name an installed module, or put {module.split('.')[-1]}.py beside {path.name}.")
    source = Path(spec.origin).read_bytes()
    modules = prints.imported_modules((f"import {module}", source.decode("utf-8")))
    parts = [hashlib.sha256(source).hexdigest()] + [f"{key} {prints.sha_file(file)}" for key, file in modules.items()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Modules in the folder, that of the YAML file, can be found."""
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        yield
    finally:
        sys.path.remove(str(folder))
