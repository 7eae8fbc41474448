"""Run notebooks headless: checked before, watched during, kept or replaced as a whole after.

A run lives in `runs/<tier>/<stem>/`. It is executed in `runs/<tier>/.partial-<stem>/` and moved into place only when it
is complete, so that killing the runner at any moment never damages a finished result. A run that failed or was
interrupted is kept in `runs/<tier>/<stem>.failed/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError
from motionlab.runner import fingerprint as prints
from motionlab.runner import params as parameters
from motionlab.core.files import write_atomic
from motionlab.runner.progress import Progress, duration

CELL_LIMIT_S = {"smoke": 300, "laptop": 1800, "full": 4 * 3600, "paper": 24 * 3600}


class RunFailed(MotionLabError):
    """A notebook that was started and did not finish, or could not be started because another runner has it."""


@dataclass(frozen=True)
class RunResult:
    """What became of a notebook: `status` is `finished` or `skipped`, `claims` maps claim ids to verdicts."""

    stem: str
    tier: str
    status: str
    run_dir: Path
    seconds: float = 0.0
    claims: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()  # what made the run necessary
    published: bool = False


@dataclass(frozen=True)
class Plan:
    """A checked run: nothing about the notebook, tier or values can be mistaken any more."""

    notebook: parameters.Notebook
    tier: str
    values: dict[str, Any]
    cost: dict[str, float]
    fingerprint: dict[str, Any]
    root: Path

    @property
    def stem(self) -> str:
        return self.notebook.stem

    @property
    def folder(self) -> Path:
        return self.root / "runs" / self.tier

    @property
    def run_dir(self) -> Path:
        return self.folder / self.stem

    @property
    def partial(self) -> Path:
        return self.folder / f".partial-{self.stem}"

    @property
    def failed(self) -> Path:
        return self.folder / f"{self.stem}.failed"

    def changed(self) -> list[str]:
        """Why it has to run: parts that differ from the finished run; empty when it is up to date."""
        return prints.changes(read_json(self.run_dir / "fingerprint.json"), self.fingerprint)


def plan(stem: str, tier: str, given: dict[str, Any], root: Path) -> Plan:
    """Check everything that can be checked without a kernel, in milliseconds.

    Raises:
        MotionLabError: unknown notebook, tier or parameter (naming the nearest match), or a value of the wrong type.
    """
    root = Path(root).resolve()
    parameters.one_of(tier, parameters.TIERS, "tier")
    notebook = parameters.read_notebook(parameters.find_notebook(stem, root), root)
    values = parameters.resolve(notebook, tier, given, root)
    cost = (parameters.tier_values(notebook, tier, root) or ({}, {}))[1]
    return Plan(notebook, tier, values, cost, prints.fingerprint(notebook, tier, values, root), root)


def run_notebook(
    stem: str,
    tier: str,
    params: dict[str, Any] | None = None,
    root: Path | str = ".",
    publish: bool = False,
    force: bool = False,
    progress: Callable[[str], None] = print,
) -> RunResult:
    """Run one notebook, or skip it when its finished run is up to date.

    Args:
        stem: the notebook's stem, its file, or the start of its name.
        tier: smoke, laptop, full or paper.
        params: values that override the tier's (text is parsed in the type of the notebook's default).
        root: the checkout.
        publish: copy the result into `reproductions/` and append its records to `measured.yaml`.
        force: run even when nothing has changed.
        progress: receives lines of text.

    Raises:
        MotionLabError: a mistake found before anything ran.
        RunFailed: another runner has this notebook, a cell failed, or no `result.json` was written.
        KeyboardInterrupt: Ctrl-C; the half-run notebook is kept, the kernel is gone.
    """
    return run_plan(plan(stem, tier, params or {}, Path(root)), publish, force, progress)


def run_plan(
    todo: Plan, publish: bool = False, force: bool = False, progress: Callable[[str], None] = print
) -> RunResult:
    """`run_notebook` for a run that is already checked."""
    if publish and todo.tier == "smoke":
        raise MotionLabError(
            "A smoke run is never evidence, so it cannot be published.", fix="Use --tier laptop or full."
        )
    try:
        recover(todo)
        changed = ["forced"] if force else todo.changed()
        if changed:
            return _run(todo, changed, publish, progress)
        return _finished(todo, "skipped", 0.0, [], publish, progress)
    except OSError as error:
        raise RunFailed(
            f"Cannot write {error.filename or todo.folder}: {error.strerror or error}.",
            fix="Free some disk space, or make the folder writable, and run again.",
        ) from None


def _run(todo: Plan, changed: list[str], publish: bool, progress: Callable[[str], None]) -> RunResult:
    """Execute under the lock, and move the complete run into place."""
    with _locked(todo):
        shutil.rmtree(todo.partial, ignore_errors=True)
        todo.partial.mkdir(parents=True)
        _announce(todo, changed, progress)
        began = time.monotonic()
        with _interrupts_restored():
            try:
                _execute(todo, progress)
            except BaseException as error:
                _keep_failed(todo, error)
                raise
        _promote(todo)
    return _finished(todo, "finished", time.monotonic() - began, changed, publish, progress)


def _announce(todo: Plan, changed: list[str], progress: Callable[[str], None]) -> None:
    """Cost and reason, before the kernel starts."""
    last = _last_cell_seconds(todo)
    cost = f"took {duration(sum(last))} last time" if last else parameters.cost_text(todo.cost)
    shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    because = "" if changed == ["no finished run"] else f" (changed: {shown})"
    progress(f"{todo.stem}  tier {todo.tier}: {cost}{because}")
    short = memory_short(todo.cost.get("ram_gb", 0.0))
    if short:
        progress(f"  note: it needs {todo.cost['ram_gb']:g} GB of memory and {short:.1f} GB are free here")


def memory_short(wanted_gb: float) -> float | None:
    """Free memory in GB where it is less than wanted, else None."""
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return free if free < wanted_gb else None


def _execute(todo: Plan, progress: Callable[[str], None]) -> None:
    """Run the kernel in the partial folder, then check, slim and mark the run as complete.

    Raises:
        RunFailed: with the failing cell, the last line of its traceback, and where the half-run notebook is.
    """
    from motionlab.runner import kernel

    notebook = todo.partial / "executed.ipynb"
    log = _Log(todo.partial / "log.jsonl")
    memory = _Memory()
    minutes = todo.cost.get("minutes")
    watch = Progress(
        todo.stem,
        1 + sum(1 for source in todo.notebook.sources if source.strip()),
        _last_cell_seconds(todo),
        60 * minutes if minutes else None,
        say=progress,
        sample=memory.sample,
    )
    values = {"tier": todo.tier, "out_dir": todo.partial.relative_to(todo.root).as_posix(), **todo.values}
    log(event="start", notebook=todo.stem, tier=todo.tier, parameters=todo.values)
    try:
        with watch:
            kernel.execute(
                todo.notebook.path, notebook, values, todo.root, CELL_LIMIT_S[todo.tier], watch, log, memory.follow
            )
    except kernel.CellFailure as failure:
        log(event="failed", cell=failure.cell, head=failure.head, error=failure.last_line, traceback=failure.traceback)
        raise RunFailed(
            f"{todo.stem} failed in code cell {failure.cell} ({failure.head}): {failure.last_line}",
            fix=f"The half-run notebook and its log are in {todo.failed.relative_to(todo.root).as_posix()}/.",
        ) from None
    _check_result(todo, log)
    _slim(notebook, todo)
    log(event="finish", seconds=round(sum(watch.seconds), 3), peak_ram_gb=round(memory.peak / 2**30, 3))
    write_json(todo.partial / "fingerprint.json", todo.fingerprint)  # last: it marks the run as complete


def _check_result(todo: Plan, log: Callable[..., None]) -> None:
    """A notebook that ran without an error has proved nothing yet: its result.json must be there and be its own."""
    result = read_json(todo.partial / "result.json")
    problem = None
    if result is None:
        problem = "wrote no readable result.json"
    elif result.get("notebook") != todo.stem or not isinstance(result.get("claims"), dict):
        problem = f"wrote a result.json of '{result.get('notebook')}'"
    if problem:
        log(event="failed", error=problem)
        raise RunFailed(
            f"{todo.stem} ran to its end but {problem}.",
            fix="Its last cell must call book.close() on a book opened with this notebook's name and out_dir; "
            f"see {todo.failed.relative_to(todo.root).as_posix()}/executed.ipynb.",
        )


def _slim(path: Path, todo: Plan) -> None:
    """Drop papermill's bookkeeping and widget state; let the injected cell name the folder the run ends up in."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for part in [notebook, *notebook["cells"]]:
        for key in ("papermill", "widgets", "execution", "ExecuteTime"):
            part["metadata"].pop(key, None)
    for cell in notebook["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["source"] = "".join(cell["source"]).replace(todo.partial.name, todo.stem)
    notebook["metadata"]["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    write_atomic(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def _finished(
    todo: Plan, status: str, seconds: float, changed: list[str], publish: bool, progress: Callable[[str], None]
) -> RunResult:
    """Tell the outcome, publish and mirror it where asked."""
    result = read_json(todo.run_dir / "result.json") or {}
    claims = {name: (record or {}).get("verdict", "not run") for name, record in result.get("claims", {}).items()}
    if status == "skipped":
        progress(f"{todo.stem}  tier {todo.tier}: up to date, {_counted(claims)}")
    else:
        peak = next((event["peak_ram_gb"] for event in read_log(todo.run_dir) if event.get("event") == "finish"), 0.0)
        progress(f"{todo.stem}  finished in {duration(seconds)}, {peak:.1f} GB RAM: {_counted(claims)}")
        _tell_missing(todo, claims, progress)
        _mirror(todo, progress)
    published = publish and _publish(todo, progress)
    return RunResult(todo.stem, todo.tier, status, todo.run_dir, seconds, claims, tuple(changed), published)


def _counted(claims: dict[str, str]) -> str:
    words = ("holds", "fails", "inconclusive", "not transferable", "not run")
    counts = [f"{list(claims.values()).count(word)} {word}" for word in words if word in claims.values()]
    return ", ".join(counts) or "no claims judged"


def _tell_missing(todo: Plan, claims: dict[str, str], progress: Callable[[str], None]) -> None:
    missing = [name for name in todo.notebook.claims if name not in claims]
    if missing:
        progress(f"  note: not judged in this run: {', '.join(missing)}")


def _publish(todo: Plan, progress: Callable[[str], None]) -> bool:
    """Copy the evidence into the checkout; a run that is already there adds nothing."""
    from motionlab.ledger import book

    new = book.publish(todo.run_dir, todo.root)
    where = f"reproductions/{todo.notebook.paper}/"
    progress(f"{todo.stem}  published to {where}: {', '.join(new)}" if new else f"{todo.stem}  is already in {where}")
    return bool(new)


def _mirror(todo: Plan, progress: Callable[[str], None]) -> None:
    """W&B is a mirror: whatever goes wrong with it never costs a result."""
    from motionlab.runner import wandb_mirror

    mode = wandb_mirror.mode(todo.tier)
    if mode is None:
        return
    try:
        place = wandb_mirror.mirror(todo.run_dir, todo.root, mode)
        progress(f"  W&B ({mode}): {place}")
    except Exception as error:  # any failure of a third party's service
        progress(f"  note: not mirrored to W&B: {type(error).__name__}: {error}")


# Folders: into place, out of the way, back again --------------------------------------------------------------------


def _promote(todo: Plan) -> None:
    """Replace the finished run by the complete partial one; `recover` mends a kill between the two renames."""
    old = todo.folder / f".old-{todo.stem}"
    if todo.run_dir.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(todo.run_dir, old)
    os.replace(todo.partial, todo.run_dir)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(todo.failed, ignore_errors=True)


def _keep_failed(todo: Plan, error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt):
        _Log(todo.partial / "log.jsonl")(event="failed", error="interrupted")
    shutil.rmtree(todo.failed, ignore_errors=True)
    with contextlib.suppress(OSError):  # the error that is on its way says more
        os.replace(todo.partial, todo.failed)


def recover(todo: Plan) -> None:
    """Mend what a killed runner left: finish a complete run, restore the previous one, keep a half-run as failed."""
    if not (todo.partial.exists() or (todo.folder / f".old-{todo.stem}").exists()) or _holder(_lock_path(todo)):
        return
    old = todo.folder / f".old-{todo.stem}"
    if (todo.partial / "fingerprint.json").exists():
        _promote(todo)
    elif old.exists() and not todo.run_dir.exists():
        os.replace(old, todo.run_dir)
    shutil.rmtree(old, ignore_errors=True)
    if todo.partial.exists():
        shutil.rmtree(todo.failed, ignore_errors=True)
        os.replace(todo.partial, todo.failed)


# One runner per notebook and tier -----------------------------------------------------------------------------------


def _lock_path(todo: Plan) -> Path:
    return todo.folder / f".lock-{todo.stem}"


@contextlib.contextmanager
def _locked(todo: Plan) -> Iterator[None]:
    """Hold the lock of this notebook and tier; the lock of a dead process is taken over.

    Raises:
        RunFailed: a living process holds it.
    """
    path = _lock_path(todo)
    path.parent.mkdir(parents=True, exist_ok=True)
    _take(path, todo)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _take(path: Path, todo: Plan) -> None:
    for _ in range(3):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            holder = _holder(path)
            if holder:
                raise RunFailed(
                    f"{todo.stem} (tier {todo.tier}) is being run by process {holder}.",
                    fix=f"Wait for it, or stop it; if it is not a motionlab runner, delete {path}.",
                ) from None
            _set_aside(path)
            continue
        with os.fdopen(handle, "w") as file:
            json.dump(_identity(), file)
        return
    raise RunFailed(f"Another runner took {todo.stem} at the same moment.", fix="Run again in a minute.")


def _set_aside(path: Path) -> None:
    """Remove a stale lock by renaming it first: of two runners that both found it stale, only one gets it."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, aside)
        if _holder(aside):  # between our look and the rename another runner took it over: hand it back
            os.replace(aside, path)
        aside.unlink(missing_ok=True)


def _identity() -> dict[str, Any]:
    import psutil

    return {"pid": os.getpid(), "began": psutil.Process().create_time(), "host": platform.node()}


def _holder(path: Path) -> str | None:
    """The living process that holds the lock (`1234`, or `1234 on box`), or None for no lock or a stale one."""
    try:
        young = time.time() - path.stat().st_mtime < 5
    except FileNotFoundError:
        return None
    written = read_json(path)
    if written is None:
        return "that has just started" if young else None
    if written.get("host") != platform.node():
        return f"{written.get('pid')} on {written.get('host')}"
    return str(written["pid"]) if _alive(written) else None


def _alive(identity: dict[str, Any]) -> bool:
    import psutil

    try:  # the time of its start tells a process from a later one with the same number
        process = psutil.Process(identity["pid"])
        return abs(process.create_time() - identity["began"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


@contextlib.contextmanager
def _interrupts_restored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# Small files --------------------------------------------------------------------------------------------------------


class _Log:
    """Appends events to `log.jsonl`, the run's local log."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, **event: Any) -> None:
        line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False)
        with contextlib.suppress(FileNotFoundError), open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


class _Memory:
    """Peak resident memory of the kernel and its children, in bytes, sampled once a second."""

    def __init__(self) -> None:
        self.peak, self._process = 0, None

    def follow(self, pid: int) -> None:
        import psutil

        self._process = psutil.Process(pid)
        self.sample()

    def sample(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(Exception):  # the kernel has ended between two looks
            family = [self._process, *self._process.children(recursive=True)]
            self.peak = max(self.peak, sum(process.memory_info().rss for process in family))


def _last_cell_seconds(todo: Plan) -> list[float] | None:
    """Seconds of each code cell in the finished run of this tier, or in the failed one; None where there is neither."""
    for folder in (todo.run_dir, todo.failed):
        events = read_log(folder)
        seconds = [event["seconds"] for event in events if event.get("event") == "cell"]
        if seconds and events[-1].get("event") != "failed":
            return seconds
    return None


def read_log(run_dir: Path) -> list[dict[str, Any]]:
    """The events of a run's `log.jsonl`, in order; a line cut short by a kill is left out."""
    events = []
    with contextlib.suppress(FileNotFoundError):
        for line in (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
    return events


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
