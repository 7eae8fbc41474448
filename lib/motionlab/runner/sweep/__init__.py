"""`motionlab sweep`: the arms of an ablation, row by row: train, sample, measure, one raw CSV each.

A row is one arm at one seed. It is measured by a Python function that `reproductions/<paper>/ablations.yaml` names, in
a process of its own, here or as a job of Slurm:

    paper: videojam
    row: motionlab.experiments.rows:run_row         # run_row(arm: dict, seed: int, out_dir: Path, tier: str, **common)
    check: motionlab.experiments.rows:check_arm     # check_arm(arm: dict, common: dict) raises MotionLabError; may be left out
    common: {prompts: 64}                           # keyword arguments of every row
    data: [reproductions/testbed/checkpoints]       # files and folders that rows read; may be left out
    arms:
      - {name: base, joint: false, seeds: [0, 1, 2]}
      - {name: joint, joint: true, grid: {lr: [1e-4, 1e-3]}, seeds: [0]}    # arms joint@lr=1e-4 and joint@lr=1e-3
    cost: {minutes_per_row: {full: 20, smoke: 0.1}, ram_gb: 3}              # measured
    include: header.yaml                            # its fields count where this file has none of that name; may be left out

The function returns rows `{item, metrics...}`, one per prompt with a column per metric, which is what claims are judged
from. It may keep whatever it likes below `out_dir`, and goes on from there when it was broken off. Everything lies in
`runs/sweep/<paper>/<tier>/`:

    base-0/             what the row function keeps; sweep.json says which settings and code began it
    logs/base-0.log     what it printed
    rows/base-0.csv     its rows, written in one step at the end
    rows/base-0.json    then its record: settings, code, commit, seconds, sha256 of the CSV. It makes the row finished.

A setting that changed makes a row stale: nothing is mixed, `--redo` measures it again. Files that `data` or a setting
names count with their contents, so that a new checkpoint makes rows stale. Code that changed (any module that the row
function imports) is told, and `--redo` measures these rows again too.

Under `protocol: 7` no rate is set by hand. The file says `choose: {grid: {lr: [3e-4, 1e-3]}}`, one grid for every arm, and arms say
`train: {lr: chosen}`, or `lr: chosen@full` for what was chosen for another arm. `--choose` measures the grids on dev and writes
chosen.yaml (`motionlab.ledger.selection`). Budgets are equal; an arm that needs another says why: `unequal: "..."`.

Arms that take too long for the main file may stand in another one beside it, such as longer.yaml.
"""
from __future__ import annotations

from motionlab.runner.sweep.ablations import read_sweep
from motionlab.runner.sweep.check import check_apart
from motionlab.runner.sweep.choose import grids, settle
from motionlab.runner.sweep.publish import check_publishable, publish, summary
from motionlab.runner.sweep.rows import plan, refuse_stale, refuse_unchosen
from motionlab.runner.sweep.running import announce, run_sweep

__all__ = ["announce", "check_apart", "check_publishable", "grids", "plan", "publish", "read_sweep", "refuse_stale",
           "refuse_unchosen", "run_sweep", "settle", "summary"]
