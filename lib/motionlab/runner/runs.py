"""Run notebooks headless: checked before, watched during, kept or replaced as a whole after (see `folders`)."""
from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.extras import demand_extra
from motionlab.core.files import read_json, require_room, write_json
from motionlab.ledger.criteria import TIERS, VERDICTS
from motionlab.ledger.notebooks import Notebook, find_notebook, read_notebook
from motionlab.runner import fingerprint as prints
from motionlab.runner import params as parameters
from motionlab.runner.folders import Folders, Log, read_log, slim
from motionlab.core.locks import only_one
from motionlab.runner.memory import Peak, demand_memory, short_of
from motionlab.runner.patience import Patience
from motionlab.runner.progress import Progress, duration

ROOM = 200_000_000  # bytes that a run's figures, raw data and notebook may take
# Seconds of a cell's work without a sign of progress.
CELL_LIMIT_S = {"smoke": 300, "laptop": 1800, "full": 4 * 3600, "paper": 24 * 3600}
Say = Callable[[str], None]


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

    notebook: Notebook
    tier: str
    values: dict[str, Any]
    cost: parameters.Cost
    fingerprint: dict[str, Any]
    root: Path

    @property
    def stem(self) -> str:
        return self.notebook.stem

    @property
    def folders(self) -> Folders:
        return Folders(self.root / "runs" / self.tier, self.stem)

    @property
    def run_dir(self) -> Path:
        return self.folders.run

    def shown(self, folder: Path) -> str:
        """A folder as people read it."""
        return f"{folder.relative_to(self.root).as_posix()}/"

    def changed(self) -> list[str]:
        """Why it has to run: parts that differ from the finished run; empty when it is up to date."""
        changed = prints.changes(read_json(self.run_dir / "fingerprint.json"), self.fingerprint)
        return changed or [f"damaged {name}" for name in self.folders.broken()]


def plan(stem: str, tier: str, given: dict[str, Any], root: Path) -> Plan:
    """Check everything that can be checked without a kernel, in less than a second.

    Args:
        stem: the notebook's stem, its file, or the start of its name.
        tier: smoke, laptop, full or paper.
        given: values that override the tier's (text is parsed in the type of the notebook's default).
        root: the checkout.

    Raises:
        MotionLabError: unknown notebook, tier or parameter (naming the nearest match), a value of the wrong type or out of
            range, no papermill, a machine with less memory than the notebook takes, a full disk.
    """
    root = Path(root).resolve()
    one_of(tier, TIERS, "tier")
    notebook = read_notebook(find_notebook(stem, root), root)
    values = parameters.resolve(notebook, tier, given, root)
    _, cost = parameters.tier_values(notebook, tier, root)
    demand_extra("lab", "Running notebooks", "papermill", "ipykernel")
    demand_memory(notebook.stem, cost.ram_gb)
    require_room(root / "runs", ROOM)
    return Plan(notebook, tier, values, cost, prints.fingerprint(notebook, tier, values, root), root)


def run_plan(todo: Plan, publish: bool = False, force: bool = False, progress: Say = print) -> RunResult:
    """Run one notebook, or skip it when its finished run is up to date.

    Args:
        publish: copy the result into `reproductions/` and append its records to `measured.yaml`.
        force: run even when nothing has changed.
        progress: receives lines of text.

    Raises:
        MotionLabError: a smoke run that is to be published.
        RunFailed: another runner has this notebook, a cell failed, or no `result.json` was written.
        KeyboardInterrupt: Ctrl-C; the half-run notebook is kept, the kernel is gone.
    """
    if publish:
        refuse_smoke(todo.tier)
    try:
        with only_one(todo.folders.lock) as other:
            if other:
                raise RunFailed(f"{todo.stem} (tier {todo.tier}) is being run by process {other}.", fix="Wait for it, or stop it.")
            todo.folders.recover()
            changed = ["forced"] if force else todo.changed()
            seconds = _run(todo, changed, progress) if changed else 0.0
        return _finished(todo, seconds, changed, publish, progress)
    except OSError as error:
        raise RunFailed(f"Cannot write {error.filename or todo.folders.home}: {error.strerror or error}.",
                        fix="Free some disk space, or make the folder writable, and run again.") from None


def refuse_smoke(tier: str) -> None:
    """Refuse to publish tier smoke.

    Raises:
        MotionLabError: it is smoke.
    """
    if tier == "smoke":
        raise MotionLabError("A smoke run is never evidence, so it cannot be published.", fix="Use --tier laptop or full.")


def _run(todo: Plan, changed: list[str], progress: Say) -> float:
    """Execute in the partial folder, and move the complete run into place; its seconds."""
    folders = todo.folders
    folders.partial.mkdir(parents=True)
    _announce(todo, changed, progress)
    began = time.monotonic()
    with _interrupts_restored():
        try:
            _execute(todo, progress)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                Log(folders.partial)(event="failed", error="interrupted")
            folders.keep_failed()
            raise
    folders.promote()
    return time.monotonic() - began


def _announce(todo: Plan, changed: list[str], progress: Say) -> None:
    """Cost and reason, before the kernel starts."""
    last = todo.folders.last_cell_seconds()
    cost = f"took {duration(sum(last))} last time" if last else todo.cost
    shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    because = "" if changed == ["no finished run"] else f" (changed: {shown})"
    progress(f"{todo.stem}  tier {todo.tier}: {cost}{because}")
    if note := short_of(todo.cost.ram_gb):
        progress(note)


def _execute(todo: Plan, progress: Say) -> None:
    """Run the kernel in the partial folder, then check, slim and mark the run as complete.

    Raises:
        RunFailed: with the failing cell, the last line of its traceback, and where the half-run notebook is.
    """
    from motionlab.runner import kernel

    folders, memory = todo.folders, Peak()
    notebook, log = folders.partial / "executed.ipynb", Log(folders.partial)
    cells = 1 + sum(1 for source in todo.notebook.sources if source.strip())
    patience = Patience(CELL_LIMIT_S[todo.tier])
    stopper = kernel.Stopper(patience)
    looks = (memory.sample, stopper.look)
    watch = Progress(todo.stem, cells, folders.last_cell_seconds(), 60 * todo.cost.minutes, say=progress,
                     sample=lambda: [look() for look in looks])
    values = {"tier": todo.tier, "out_dir": folders.partial.relative_to(todo.root).as_posix(), **todo.values}
    log(event="start", notebook=todo.stem, tier=todo.tier, parameters=todo.values)
    try:
        with watch:
            context = kernel.Context(todo.root, patience, watch, log, lambda pid: (memory.follow(pid), stopper.follow(pid)))
            kernel.execute(todo.notebook.path, notebook, values, context)
    except kernel.CellFailure as failure:
        log(event="failed", cell=failure.cell, head=failure.head, error=failure.last_line, traceback=failure.traceback)
        raise RunFailed(f"{todo.stem} failed in code cell {failure.cell} ({failure.head}): {failure.last_line}",
                        fix=f"The half-run notebook and its log are in {todo.shown(folders.failed)}.") from None
    _check_result(todo, log)
    slim(notebook, folders.partial.name, todo.stem)
    log(event="finish", seconds=round(sum(watch.seconds), 3), peak_ram_gb=round(memory.peak / 2**30, 3))
    folders.seal()
    write_json(folders.partial / "fingerprint.json", todo.fingerprint)  # last: it marks the run as complete


def _check_result(todo: Plan, log: Log) -> None:
    """A notebook that ran without an error has proved nothing yet: its result.json must be there and be its own."""
    result, problem = read_json(todo.folders.partial / "result.json"), None
    if result is None:
        problem = "wrote no readable result.json"
    elif result.get("notebook") != todo.stem or not isinstance(result.get("claims"), dict):
        problem = f"wrote a result.json of '{result.get('notebook')}'"
    if problem:
        log(event="failed", error=problem)
        raise RunFailed(f"{todo.stem} ran to its end but {problem}.",
                        fix="Its last cell must call book.close() on a book of open_book(); "
                            f"see {todo.shown(todo.folders.failed)}executed.ipynb.")


def _finished(todo: Plan, seconds: float, changed: list[str], publish: bool, progress: Say) -> RunResult:
    """Tell the outcome, publish and mirror it where asked."""
    result = read_json(todo.run_dir / "result.json") or {}
    claims = {name: str(record.get("verdict")) for name, record in result.get("claims", {}).items() if isinstance(record, dict)}
    if changed:
        peak = next((event["peak_ram_gb"] for event in read_log(todo.run_dir) if isinstance(event.get("peak_ram_gb"), float)), 0.0)
        progress(f"{todo.stem}  finished in {duration(seconds)}, {peak:.1f} GB RAM: {_counted(claims)}")
        missing = [name for name in todo.notebook.claims if name not in claims]
        if missing:
            progress(f"  note: not judged in this run: {', '.join(missing)}")
        _mirror(todo, progress)
    else:
        progress(f"{todo.stem}  tier {todo.tier}: up to date, {_counted(claims)}")
    published = publish and _publish(todo, progress)
    status = "finished" if changed else "skipped"
    return RunResult(todo.stem, todo.tier, status, todo.run_dir, seconds, claims, tuple(changed), published)


def _counted(claims: dict[str, str]) -> str:
    counts = [f"{list(claims.values()).count(word)} {word}" for word in VERDICTS if word in claims.values()]
    return ", ".join(counts) or "no claims judged"


def _publish(todo: Plan, progress: Say) -> bool:
    """Copy the evidence into the checkout; a run that is already there adds nothing."""
    from motionlab.ledger.publishing import publish

    new = publish(todo.run_dir, todo.root)
    where = f"reproductions/{todo.notebook.paper}/"
    progress(f"{todo.stem}  published to {where}: {', '.join(new)}" if new else f"{todo.stem}  is already in {where}")
    return bool(new)


def _mirror(todo: Plan, progress: Say) -> None:
    """W&B is a mirror: whatever goes wrong with it never costs a result."""
    from motionlab.runner import wandb_mirror

    mode = wandb_mirror.mode(todo.tier)
    if mode is None:
        return
    try:
        progress(f"  W&B ({mode}): {wandb_mirror.mirror(todo.run_dir, todo.root, mode)}")
    except Exception as error:  # any failure of a third party's service
        progress(f"  note: not mirrored to W&B: {type(error).__name__}: {error}")


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
