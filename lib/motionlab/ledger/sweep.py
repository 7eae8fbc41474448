"""`motionlab sweep`: the arms of an ablation, row by row: train, sample, measure, one raw CSV each.

A row is one arm at one seed. It is measured by a Python function that `reproductions/<paper>/ablations.yaml` names, in
a process of its own:

    paper: videojam
    row: motionlab.papers.videojam_rows:run_row     # run_row(arm: dict, seed: int, out_dir: Path, tier: str, **common)
    common: {prompts: 64}                           # keyword arguments of every row
    data: [reproductions/testbed/checkpoints]       # files and folders that rows read; may be left out
    arms:
      - {name: base, joint: false, seeds: [0, 1, 2]}
      - {name: joint, joint: true, grid: {lr: [1e-4, 1e-3]}, seeds: [0]}    # arms joint@lr=1e-4 and joint@lr=1e-3
    cost: {minutes_per_row: {full: 20, smoke: 0.1}, ram_gb: 3}              # measured

The function returns rows `{unit, metric, value, ...}`, one per prompt and metric, or `{item, metrics...}`, one
per prompt with a column per metric, which is the form that claims are judged from. It may keep whatever it likes below
`out_dir`, and goes on from there when it was broken off. Everything lies in `runs/sweep/<paper>/<tier>/`:

    base-0/             what the row function keeps; sweep.json says which settings and code began it
    logs/base-0.log     what it printed
    rows/base-0.csv     its rows, written in one step at the end
    rows/base-0.json    then its record: settings, code, commit, seconds, sha256 of the CSV. It makes the row finished.

A setting that changed makes a row stale: nothing is mixed, `--redo` measures it again. Files that `data` or a setting
names count with their contents, so that a new checkpoint makes rows stale. Code that changed (any module that the row
function imports) is told, and `--redo` measures these rows again too.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionlab.errors import MotionLabError, nearest, one_of
from motionlab.files import explained, shown, write_atomic
from motionlab.ledger import fingerprint as prints
from motionlab.ledger.claims import read_yaml
from motionlab.ledger.params import cost_text
from motionlab.ledger.progress import duration
from motionlab.ledger.runs import memory_short, read_json, write_json

TIERS = ("smoke", "full")
FIELDS = ("paper", "row", "common", "data", "arms", "cost")
ARM_FIELDS = ("name", "seeds", "grid")
COST_FIELDS = ("minutes_per_row", "ram_gb")
GIVEN = ("arm", "seed", "out_dir", "tier")  # what a row function is called with, besides `common`
LONG, WIDE = ["arm", "seed", "unit", "metric", "value"], ["item", "arm", "seed"]  # first columns of the two forms
TO_DO = ("new", "begun", "damaged")
REDONE = ("stale", "other code")
MARKER = "sweep.json"
BUSY, INTERRUPTED = 75, 130  # exit codes of a row's process
GRACE_S = 60.0  # a stopped row may take this long to write its checkpoint
HEARTBEAT_S = 60.0


# ------------------------------------------------------------------------------------------------- what the file says


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
            raise MotionLabError(f"{where} lacks the field '{name}'.", fix="See the top of motionlab.ledger.sweep.")
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


# ---------------------------------------------------------------------------------------------- rows and their states


@dataclass(frozen=True)
class Row:
    """One arm at one seed, and where its files are."""

    arm: str
    seed: int
    tier: str
    folder: Path  # <out>/<paper>/<tier>
    settings: dict[str, Any]
    code: str

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"

    @property
    def work(self) -> Path:
        return self.folder / self.name

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def csv(self) -> Path:
        return self.folder / "rows" / f"{self.name}.csv"

    @property
    def record(self) -> Path:
        return self.folder / "rows" / f"{self.name}.json"

    @property
    def lock(self) -> Path:
        return self.folder / f".lock-{self.name}"

    def state(self) -> tuple[str, list[str]]:
        """`finished`, `other code`, `stale`, `damaged`, `begun` or `new`, and the settings that changed."""
        record, begun = read_json(self.record), read_json(self.work / MARKER)
        if record and self.csv.is_file():
            from motionlab.ledger.verdict import file_sha

            changed = prints.changes(record.get("settings"), self.settings)
            if changed:
                return "stale", changed
            if file_sha(self.csv) != record.get("sha256"):
                return "damaged", []
            return ("finished" if record.get("code") == self.code else "other code"), []
        if begun:
            changed = prints.changes(begun.get("settings"), self.settings)
            return ("stale" if changed else "begun"), changed
        return "new", []


def plan(
    sweep: Sweep, tier: str, arms: Sequence[str] = (), seeds: Sequence[int] = (), out: str | Path | None = None
) -> list[Row]:
    """The rows of a sweep, seed by seed; of the named arms and seeds where any are named.

    Args:
        arms: names; that of an arm with a grid means all its points.

    Raises:
        MotionLabError: an unknown tier, arm or seed (naming the nearest), or no row left.
    """
    one_of(tier, TIERS, "tier")
    chosen = _chosen_arms(sweep, arms)
    having = sorted({seed for name in chosen for seed in sweep.seeds[name]})
    for seed in seeds:
        one_of(str(seed), map(str, having), "seed")
    folder = Path(out or sweep.root / "runs" / "sweep").resolve() / sweep.paper / tier
    return [
        Row(name, seed, tier, folder, _settings(sweep, name, seed, tier), sweep.code)
        for seed in having
        for name in chosen
        if seed in sweep.seeds[name] and (not seeds or seed in seeds)
    ]


def _chosen_arms(sweep: Sweep, named: Sequence[str]) -> list[str]:
    families = dict.fromkeys(name.split("@")[0] for name in sweep.arms)
    for name in named:
        one_of(name, dict.fromkeys([*sweep.arms, *families]), "arm")
    return [name for name in sweep.arms if not named or name in named or name.split("@")[0] in named]


def _settings(sweep: Sweep, arm: str, seed: int, tier: str) -> dict[str, Any]:
    """Everything that decides a row's numbers, flat; a file counts with its contents."""
    values = {f"arm {key}": value for key, value in sweep.arms[arm].items()}
    values |= {f"common {key}": value for key, value in sweep.common.items()}
    parts = {"row": sweep.function, "tier": tier, "seed": seed, **values}
    parts |= {f"data {name}": sha for name, sha in sweep.data.items()}
    for key, value in values.items():
        if isinstance(value, str) and value.strip(". ") and "\n" not in value:
            with contextlib.suppress(OSError):  # a text that is no possible path, such as a long prompt
                if Path(sweep.root, value).is_file():
                    parts[f"file of {key}"] = prints.sha_file(Path(sweep.root, value))
    return json.loads(json.dumps(parts, default=str))


# ---------------------------------------------------------------------------------------------------------- running


def announce(
    sweep: Sweep, rows: list[Row], redo: bool = False, jobs: int = 1, say: Callable[[str], None] = print
) -> list[Row]:
    """Tell what is finished and what the rest costs; return the rows to measure. Writes nothing."""
    states = [row.state() for row in rows]
    todo = [row for row, (state, _) in zip(rows, states) if state in TO_DO or (redo and state in REDONE)]
    minutes = sweep.cost.get("minutes_per_row", {}).get(rows[0].tier, 0)
    together = min(jobs, len(todo))
    cost = {"minutes": minutes * math.ceil(len(todo) / max(jobs, 1)), "ram_gb": sweep.cost.get("ram_gb", 0) * together}
    price = f": {cost_text(cost)}" if todo else ""
    each = f" ({minutes:g} min each, {together} at a time)" if todo and minutes else ""
    finished = sum(state in ("finished", "other code") for state, _ in states)
    counts = f"{len(rows)} rows, {finished} finished, {len(todo)} to measure"
    say(f"{sweep.paper}  tier {rows[0].tier}: {counts}{price}{each}")
    short = memory_short(cost["ram_gb"])
    if todo and short:
        say(f"  note: it needs {cost['ram_gb']:g} GB of memory and {short:.1f} GB are free here")
    for row, (state, changed) in zip(rows, states):
        if state != "new":
            say(f"  {row.name:<32} {_state_text(state, changed, redo)}")
    return todo


def _state_text(state: str, changed: list[str], redo: bool) -> str:
    again = "measured again" if redo else "--redo measures it again"
    return {
        "finished": "finished",
        "other code": f"finished, with code that has changed since: {again}",
        "stale": f"stale, changed: {', '.join(changed)}: {again}",
        "damaged": "its CSV is not what was measured: measured again",
        "begun": "begun: goes on from what it kept",
    }[state]


def refuse_stale(rows: list[Row]) -> None:
    """Stop before rows of different settings are mixed.

    Raises:
        MotionLabError: naming the stale rows.
    """
    stale = {row.name: changed for row in rows for state, changed in [row.state()] if state == "stale"}
    if stale:
        listed = "; ".join(f"{name} ({', '.join(changed)})" for name, changed in stale.items())
        raise MotionLabError(
            f"Settings changed since these rows were measured: {listed}.",
            fix="Measure them again with --redo, set the old values again, or choose another --out.",
        )


def run_sweep(
    sweep: Sweep, todo: list[Row], jobs: int = 1, redo: bool = False, say: Callable[[str], None] = print
) -> dict[str, str]:
    """Measure rows, `jobs` at a time, each in a process of its own; {row: what went wrong} of those that failed.

    A row that fails does not stop the others. However this process ends, the rows' processes end with it.

    Raises:
        MotionLabError: a folder that cannot be written.
        KeyboardInterrupt: Ctrl-C; what the rows kept stays.
    """
    if jobs < 1:
        raise MotionLabError(f"--jobs {jobs} runs nothing.", fix="Give at least 1.")
    waiting, running, failed = list(todo), [], {}
    watch = _Watch(sweep, todo, jobs, say)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Child(sweep, waiting.pop(0), jobs, redo))
                say(f"  {running[-1].row.name}  started")
            time.sleep(0.05)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                child.close()
                problem = child.problem()
                if problem:
                    failed[child.row.name] = problem
                watch.done(child, problem)
            watch.beat(running)
    except KeyboardInterrupt:
        say(f"  stopping {', '.join(child.row.name for child in running)}: it may write a checkpoint first")
        raise
    finally:
        _stop(running)
    return failed


class _Watch:
    """Lines while rows are measured: each that ends, now and then those that run, and what is left."""

    def __init__(self, sweep: Sweep, todo: list[Row], jobs: int, say: Callable[[str], None]):
        self.all, self.jobs, self.say, self.count = len(todo), jobs, say, 0
        self.each = 60 * sweep.cost.get("minutes_per_row", {}).get(todo[0].tier, 0) if todo else 0
        self.seconds: list[float] = []
        self.spoke = time.monotonic()

    def done(self, child: _Child, problem: str | None) -> None:
        self.count += 1
        took = time.monotonic() - child.began
        if not problem:
            self.seconds.append(took)
        what = f"failed: {problem}" if problem else f"finished in {duration(took)}"
        self._tell(f"  {child.row.name}  {what}  ({self.count} of {self.all}{self._left()})")

    def beat(self, running: list[_Child]) -> None:
        if time.monotonic() - self.spoke > HEARTBEAT_S:
            for child in running:
                took = duration(time.monotonic() - child.began)
                self._tell(f"  {child.row.name}  {took}  {last_line(child.row.log)}")

    def _tell(self, text: str) -> None:
        self.say(text)
        self.spoke = time.monotonic()

    def _left(self) -> str:
        each = sum(self.seconds) / len(self.seconds) if self.seconds else self.each
        rounds = math.ceil((self.all - self.count) / self.jobs)
        return f", about {duration(each * rounds)} left" if each and rounds else ""


class _Child:
    """A row's process. Its standard input is its lifeline: when that closes, for whatever reason, it stops."""

    def __init__(self, sweep: Sweep, row: Row, jobs: int, redo: bool):
        self.row, self.began = row, time.monotonic()
        job = {
            "row": {**dataclasses.asdict(row), "folder": str(row.folder)},
            "function": sweep.function,
            "beside": str(sweep.path.parent),
            "root": str(sweep.root),
            "arm": sweep.arms[row.arm],
            "common": sweep.common,
            "redo": redo,
        }
        environment = dict(os.environ)
        if jobs > 1:  # rows side by side share the cores instead of fighting for them
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        apart = {"start_new_session": True}  # a terminal's Ctrl-C is ours to pass on
        if os.name == "nt":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        with explained(row.log):
            row.log.parent.mkdir(parents=True, exist_ok=True)
            with open(row.log, "ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-u", "-m", "motionlab.ledger.sweep", row.name],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=sweep.root, env=environment, **apart,
                )  # fmt: skip
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit code tells
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def problem(self) -> str | None:
        """What went wrong, in a sentence; None when the row is finished."""
        code = self.process.returncode
        state = self.row.state()[0]
        if state == "finished" or (code == 0 and state == "other code"):
            return None
        if code == BUSY:
            return f"it is being measured by process {_holder(self.row.lock)}"
        killed = f"killed by signal {-code} (out of memory?)" if code < 0 else None
        why = killed or last_line(self.row.log) or f"exit code {code}"
        return f"{why}  log: {shown(self.row.log)}"


def _stop(running: list[_Child]) -> None:
    """Close the lifelines and wait; a second Ctrl-C, or the end of the grace, kills."""
    for child in running:
        child.close()
    try:
        until = time.monotonic() + GRACE_S + 5
        for child in running:
            child.process.wait(max(0.0, until - time.monotonic()))
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        for child in running:
            child.process.kill()
            child.process.wait()


def last_line(path: Path) -> str:
    """The last line of a log that says something; empty where there is none."""
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 4000))
            lines = file.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
        lines = [line for line in lines if line.strip() and not line.startswith("  -> ")]
        return lines[-1].strip()[:200] if lines else ""
    return ""


# --------------------------------------------------------------------------------------------- one writer for each row


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[bool]:
    """Hold the system's lock on the file `path`; yields whether we have it. It ends with the process, in any case."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        locked = _try_lock(file)
        if locked:
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
        yield locked  # closing the file gives the lock back; the file stays, since removing it would race


def _try_lock(file) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 30)  # far behind the text, which stays readable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip() or "unknown"
    return "unknown"


# ------------------------------------------------------------------------------------------------- in a row's process


def measure(row: Row, job: dict[str, Any]) -> None:
    """Call the row function and write what it returns: first the CSV, then the record that makes it count.

    Raises:
        MotionLabError: rows that are none, a folder that cannot be written; and whatever the function raises.
    """
    from motionlab.ledger.book import csv_text, environment
    from motionlab.ledger.verdict import file_sha

    resumed = _prepare(row, job["redo"])
    began = time.monotonic()
    module, _, name = job["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    returned = function(dict(job["arm"]), row.seed, row.work, row.tier, **job["common"])
    text = csv_text(_table(row, returned))
    write_atomic(row.csv, text)
    record = {
        "arm": row.arm,
        "seed": row.seed,
        "tier": row.tier,
        "settings": row.settings,
        "fingerprint": hashlib.sha256(json.dumps(row.settings, sort_keys=True).encode()).hexdigest(),
        "code": row.code,
        "seconds": round(time.monotonic() - began, 2),
        "resumed": resumed,  # then `seconds` are those of the last part only
        "sha256": file_sha(row.csv),
        **environment(Path(job["root"]), job["common"].get("device")),
    }
    write_json(row.record, record)


def _prepare(row: Row, redo: bool) -> bool:
    """Make the work folder; empty it where other settings, or (with redo) other code, began it. Returns: goes on?"""
    begun = read_json(row.work / MARKER)
    now = {"settings": row.settings, "code": row.code}
    fits = begun and begun.get("settings") == row.settings and (begun.get("code") == row.code or not redo)
    if begun and not fits:
        if not redo:
            raise MotionLabError(f"{shown(row.work)} was begun with other settings.", fix="Use --redo to start afresh.")
        shutil.rmtree(row.work)
    if not fits:
        write_json(row.work / MARKER, now)
    return bool(fits)


def _table(row: Row, returned: Any):
    """The returned rows as a sorted DataFrame: arm, seed, unit, metric, value, ...; or item, arm, seed, metrics...

    Raises:
        MotionLabError: no rows, a column that is missing, a value that is no number, a row that stands twice.
    """
    import pandas

    fix = "A row function returns [{unit: prompt id, metric: name, value: number}, ...], or [{item: id, metrics...}]."
    frame = pandas.DataFrame(returned)
    form = WIDE if "item" in frame.columns else LONG
    missing = [column for column in form if column not in [*frame.columns, "arm", "seed"]]
    if frame.empty or missing:
        what = f"lack the column '{missing[0]}'" if missing and not frame.empty else "are none"
        raise MotionLabError(f"The rows returned for {row.name} {what}.", fix=fix)
    frame = frame.assign(arm=row.arm, seed=row.seed)
    try:
        frame = frame if form is WIDE else frame.assign(value=frame["value"].astype(float))
    except (TypeError, ValueError) as error:
        raise MotionLabError(f"A value returned for {row.name} is no number ({error}).", fix=fix) from None
    twice = frame[frame.duplicated([column for column in frame.columns if frame[column].dtype.kind != "f"])]
    if len(twice):
        what = ", ".join(str(twice.iloc[0][name]) for name in form if name in ("item", "unit", "metric"))
        raise MotionLabError(f"{row.name} has {what} twice.", fix=fix)
    return _sorted(frame)


def _sorted(frame):
    """Rows in an order that depends on their contents only: by arm and seed, then as text; first columns first."""
    form = WIDE if "item" in frame.columns else LONG
    frame = frame[[*form, *(column for column in frame.columns if column not in form)]]
    keys = ["arm", "seed", *(column for column in frame.columns if column not in ("arm", "seed", "value"))]

    def order(column):
        return column.astype(int) if column.name == "seed" else column.map(str)

    return frame.sort_values(keys, key=order, kind="stable").reset_index(drop=True)


def _child() -> int:
    """The process of one row: the job comes as the first line of standard input, and the end of that input stops it."""
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # programs that the row starts do not read from it
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(lifeline, 1)):
            return INTERRUPTED
        line += byte
    job = json.loads(line)
    threading.Thread(target=_until_closed, args=(lifeline,), daemon=True).start()
    row = Row(**{**job["row"], "folder": Path(job["row"]["folder"])})
    with only_writer(row.lock) as locked:
        if not locked:
            return BUSY
        state = row.state()[0]
        if state == "finished" or (state == "other code" and not job["redo"]):
            return 0  # another sweep finished it while this one was on its way
        print(f"--- {row.name}  {time.strftime('%Y-%m-%d %H:%M:%S')}  process {os.getpid()}", flush=True)
        sys.path.insert(0, job["beside"])
        try:
            measure(row, job)
        except MotionLabError as error:
            print(f"error: {error}", flush=True)
            return 1
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            return INTERRUPTED
    return 0


def _until_closed(lifeline: int) -> None:
    """Stop as on Ctrl-C once the sweep is gone or asks for it; a row that does not listen is ended."""
    while os.read(lifeline, 4096):
        pass
    if os.name == "nt":
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)  # a real signal also ends a sleep
    time.sleep(GRACE_S)
    os._exit(INTERRUPTED)


# -------------------------------------------------------------------------------------------- merged rows and summary


def finished_rows(rows: list[Row]) -> list[Row]:
    """Those whose numbers count."""
    return [row for row in rows if row.state()[0] in ("finished", "other code")]


def merged(rows: list[Row]):
    """The finished rows' CSVs as one sorted DataFrame of text; empty where none is finished.

    Raises:
        MotionLabError: rows of both forms.
    """
    import pandas

    rows = sorted(finished_rows(rows), key=lambda row: (row.arm, row.seed))  # decides the order of further columns
    tables = [pandas.read_csv(row.csv, dtype=str, keep_default_na=False) for row in rows]
    if not tables:
        return pandas.DataFrame(columns=LONG)
    if len({"item" in table.columns for table in tables}) > 1:
        raise MotionLabError("Some rows have a column per metric, some a line per metric.", fix="Measure with --redo.")
    return _sorted(pandas.concat(tables).fillna(""))


def summary(rows: list[Row]) -> str:
    """Arms x metrics as text: the mean over units and seeds of what is finished, undefined values left out."""
    import pandas

    frame = merged(rows)
    if frame.empty:
        return "no row is finished yet"
    if "item" in frame.columns:
        means = frame.drop(columns=WIDE).apply(pandas.to_numeric, errors="coerce").dropna(axis=1, how="all")
        means = means.groupby(frame["arm"]).mean()
        extra = []
    else:
        frame["value"] = pandas.to_numeric(frame["value"])
        means = frame.pivot_table(index="arm", columns="metric", values="value", aggfunc="mean", dropna=False)
        extra = [column for column in frame.columns if column not in LONG]
    unit = "item" if "item" in frame.columns else "unit"
    means.insert(0, "seeds", frame.groupby("arm")["seed"].nunique())
    means.insert(1, f"{unit}s", frame.groupby("arm")[unit].nunique())
    means = means.loc[[name for name in dict.fromkeys(row.arm for row in rows) if name in means.index]]
    means.index.name = means.columns.name = None
    note = f"\n(means also run over: {', '.join(extra)})" if extra else ""
    shown_as = means.T if means.shape[1] > 10 else means  # many metrics read better below each other
    return shown_as.to_string(float_format=lambda value: f"{value:.4g}", na_rep="-") + note


def check_publishable(tier: str, rows: list[Row], selected: Sequence[Row] = ()) -> None:
    """Refuse before hours are spent what `publish` would refuse after.

    Args:
        rows: all rows of the sweep. selected: those that are about to be measured.

    Raises:
        MotionLabError: tier smoke, or a stale row that is not measured again.
    """
    if tier == "smoke":
        raise MotionLabError("A smoke sweep is never evidence, so it cannot be published.", fix="Use --tier full.")
    names = {row.name for row in selected}
    refuse_stale([row for row in rows if row.name not in names])


def publish(sweep: Sweep, rows: list[Row], say: Callable[[str], None] = print) -> Path:
    """Write all finished rows of the sweep as reproductions/<paper>/raw/sweep_<tier>.csv; return its path.

    The rows' records (settings, code, commit, seconds) go beside it as sweep_<tier>.json.

    Raises:
        MotionLabError: tier smoke, a stale row, nothing finished, or published rows that would be lost.
    """
    from motionlab.ledger.book import csv_text

    tier = rows[0].tier
    check_publishable(tier, rows)
    done = finished_rows(rows)
    if not done:
        raise MotionLabError("No row is finished, so there is nothing to publish.", fix="Run the sweep first.")
    path = sweep.root / "reproductions" / sweep.paper / "raw" / f"sweep_{tier}.csv"
    missing = [row for row in rows if row not in done]
    lost = sorted({row.name for row in missing} & _published(path))
    if lost:
        raise MotionLabError(
            f"{shown(path, sweep.root)} holds rows that are not finished here: {', '.join(lost)}.",
            fix="Measure them here too, or take them out of the ablations.yaml: nothing is dropped silently.",
        )
    if missing:
        say(f"  note: not finished, so not published: {', '.join(row.name for row in missing)}")
    records = sorted((read_json(row.record) for row in done), key=lambda record: (record["arm"], record["seed"]))
    commits = {(record["code"], record["commit"]) for record in records}
    if len({code for code, _ in commits}) > 1:
        say(f"  note: measured by different code, at commits {', '.join(sorted(str(one)[:9] for _, one in commits))}")
    write_atomic(path, csv_text(merged(rows)))
    write_atomic(path.with_suffix(".json"), json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    return path


def _published(path: Path) -> set[str]:
    """Names of the rows in a published CSV."""
    import csv

    if not path.is_file():
        return set()
    with open(path, newline="", encoding="utf-8") as file:
        return {f"{row['arm']}-{row['seed']}" for row in csv.DictReader(file)}


if __name__ == "__main__":
    sys.exit(_child())
