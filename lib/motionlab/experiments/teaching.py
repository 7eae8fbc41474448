"""The sidecars of a whole sweep, made in one go: each teacher looks at a clip once, whatever its arms want of it.

    python -m motionlab.experiments.teaching reproductions/PAPER/ablations.yaml

An arm that finds its own made takes them from there; one that is not in the file makes its own. A call that was stopped goes on.
"""
from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.paths import repo_root
from motionlab.core.protocol import read_protocol
from motionlab.data.sidecars import Sidecar
from motionlab.data.sources import World
from motionlab.data.store import open_data
from motionlab.experiments.arms import Arm, read_arm
from motionlab.experiments.finetune import bank_home, begin, dev_bank, tuning_bank
from motionlab.methods.tapped import Tapped
from motionlab.runner.sweep import read_sweep


def make_sidecars(arms: Iterable[Arm], home: Path | None = None, say=print) -> dict[str, list[str]]:
    """{name of the bank: labels of its sidecars}: of the training's clips and of those that heads are settled on.

    Args:
        arms: of one sweep; those that are not trained want nothing. home: by default where trainings look for them.
    """
    wanted: dict = {}
    for arm in arms:
        if arm.budget is None:
            continue
        own, dev = arm.method.wants(), arm.method.judged() if isinstance(arm.method, Tapped) else ()
        frames = 4 * arm.measure.length - 3
        _want(wanted, arm, tuning_bank(arm.budget.clips, frames), own)
        if isinstance(arm.method, Tapped) and arm.method.weight:
            _want(wanted, arm, dev_bank(arm.budget, frames), (*own, *dev))
    return {bank: _make(*entry, home or bank_home(), say) for bank, entry in wanted.items()}


def _want(wanted, arm, bank, sidecars):
    """The sidecars of one bank by their folders: an arm's key for one says nothing of its content."""
    _, _, found = wanted.setdefault(World(bank).name, (arm, bank, {}))
    found |= {one.label: Sidecar(one.kind, one.settings, one.label) for one in sidecars}


def _make(arm, bank, found, home, say):
    if found:
        open_data(World(bank), begin(arm), list(found.values()), home, say)
    return sorted(found)


def main(path: str) -> None:
    """The arms of an ablations.yaml, rates or not: no sidecar depends on one."""
    rate = float(read_protocol()["budget"]["learning_rates"]["grid"][0])
    sweep = read_sweep(path, repo_root())
    for bank, labels in make_sidecars(read_arm(_with_rate(arm, rate), sweep.common) for arm in sweep.arms.values()).items():
        print(f"{bank}: {', '.join(labels) or 'nothing beside the clips'}")


def _with_rate(arm, rate):
    """The arm with a number where its rate is still to be chosen."""
    train = {name: rate if str(value).startswith("chosen") else value for name, value in (arm.get("train") or {}).items()}
    return arm | ({"train": train} if "train" in arm else {})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    try:
        main(sys.argv[1])
    except MotionLabError as error:
        raise SystemExit(str(error)) from None
