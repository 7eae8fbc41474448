"""The adapters of one arm as one file: what is shipped, so that a laptop can look inside a tuning that took hours.

    python -m motionlab.experiments.transfer_adapters PAPER ARM

writes reproductions/PAPER/checkpoints/ARM.safetensors from the sweep's own adapters (runs/sweep/trained), bf16 as they are kept there.
"""
from __future__ import annotations

import copy
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from motionlab.core import digests
from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, nearest
from motionlab.core.files import save_weights
from motionlab.core.paths import repo_root
from motionlab.data.transfer import TransferTask, load_transfer
from motionlab.experiments.arms import Arm
from motionlab.experiments.transfer import adapter_folder, read_transfer_arm
from motionlab.experiments.transfer_live import clip_of_task, tuned_live
from motionlab.methods import method_class
from motionlab.methods.base import Method, Sampling
from motionlab.methods.files import load_method, read_about
from motionlab.models.pipe import Pipe


@dataclass(frozen=True)
class Adapters:
    """A file of adapters. method, sampling: settings of their tuning, and those that the sweep sampled them with. tasks: ids."""

    path: Path
    method: Method
    sampling: Sampling
    tasks: tuple[str, ...]

    def open(self, task: str, base: Pipe) -> Pipe:
        """A copy of `base` with the adapter of a task.

        Raises:
            MotionLabError: a task that it has no adapter of; errors as `methods.files.load_method`.
        """
        if task not in self.tasks:
            raise MotionLabError(f"'{self.path.name}' holds no adapter of '{task}'.{nearest(task, self.tasks)}",
                                 fix=f"It holds {self.tasks[0]} to {self.tasks[-1]}.")
        from safetensors.torch import load_file

        start, about = f"{self.tasks.index(task):02d}/", read_about(self.path)
        mine = {name.removeprefix(start): value for name, value in load_file(str(self.path)).items() if name.startswith(start)}
        with tempfile.TemporaryDirectory() as folder:
            one = save_weights(Path(folder) / "one.safetensors", mine, about)
            return load_method(self.method, copy.deepcopy(base), one)


def write_adapters(arm: Arm, tasks: Sequence[TransferTask], seed: int, home: Path, path: Path) -> Path:
    """Put an arm's adapters for these tasks into one file.

    Args:
        home: where the sweep keeps what it trains.

    Raises:
        MotionLabError: a task whose adapter is not there yet; an arm that trains nothing.
    """
    from safetensors.torch import load_file

    if arm.budget is None:
        raise MotionLabError(f"Arm '{arm.name}' trains nothing.", fix="Name an arm that tunes an adapter.")
    tensors, about = {}, {}
    for k, task in enumerate(tasks):
        file = adapter_folder(arm, task, seed, home) / "trained.safetensors"
        if problem := digests.problem_of(file):
            raise MotionLabError(f"The adapter of arm '{arm.name}' for {task.id} cannot be taken: {problem}.",
                                 fix="Run its row of the sweep.")
        tensors |= {f"{k:02d}/{name}": value for name, value in load_file(str(file)).items()}
        about = read_about(file)
    about |= {"tasks": json.dumps([task.id for task in tasks]), "sampling": json.dumps(dataclasses.asdict(arm.sampling))}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, tensors, about)
    digests.record(path)
    return path


def read_adapters(path: str | Path) -> Adapters:
    """What a file of `write_adapters` holds.

    Raises:
        MotionLabError: no such file, another kind of file, not as it was recorded.
    """
    about = read_about(digests.checked(path, fix="Run the sweep, then python -m motionlab.experiments.transfer_adapters PAPER ARM."))
    if "tasks" not in about:
        raise MotionLabError(f"'{path}' holds one adapter.", fix="Give a file that motionlab.experiments.transfer_adapters wrote.")
    kind = method_class(about["method"])
    method, sampling = (from_values(known, json.loads(about[name]), f"{name} in {path}")
                        for known, name in ((kind, "settings"), (kind.Sampling, "sampling")))
    return Adapters(Path(path), method, sampling, tuple(json.loads(about["tasks"])))


def tuned_pipes(tasks: Sequence[TransferTask], base: Pipe, path: Path, method: Method, folder: Path, steps: int = 0,
                lr: float = 3e-3) -> Iterator[tuple[TransferTask, Pipe]]:
    """(task, generator with its adapter) one after another: the shipped one, or where steps are given one that is tuned now.

    Raises:
        MotionLabError: as `read_adapters`, where no steps are given.
    """
    shipped = None if steps else read_adapters(path)
    for task in tasks:
        if shipped:
            yield task, shipped.open(task.id, base)
        else:
            one, place = clip_of_task(task, base), folder / task.id.replace("/", "_")
            yield task, tuned_live(method, base, one, place, steps, lr, snapshots=1)[0]


def arm_of(paper: str, name: str) -> Arm:
    """An arm of a paper's sweep as it is run, with the rates that were chosen for it.

    Raises:
        MotionLabError: no sweep of that paper, no such arm (the nearest is named), rates that nobody chose yet.
    """
    from motionlab.runner.sweep import plan, read_sweep, refuse_unchosen

    sweep = read_sweep(paper, repo_root())
    refuse_unchosen(sweep, plan(sweep, "full", [name]))
    return read_transfer_arm(sweep.arms[name], sweep.common)


def ship(paper: str, name: str, seed: int = 0) -> Path:
    """Write the shipped file of an arm of a paper's sweep; errors as `arm_of` and `write_adapters`."""
    arm, root = arm_of(paper, name), repo_root()
    tasks = load_transfer(arm.measure.tasks, arm.measure.n or None)
    return write_adapters(arm, tasks, seed, root / "runs" / "sweep" / "trained", shipped_at(paper, name))


def shipped_at(paper: str, name: str) -> Path:
    """Where the shipped file of an arm lies."""
    return repo_root() / "reproductions" / paper / "checkpoints" / f"{name}.safetensors"


if __name__ == "__main__":
    print(ship(*sys.argv[1:3]))
