"""A row function for the tests of the sweep: three steps, each kept, so that tests can count what was done again."""
from __future__ import annotations

import time
from pathlib import Path

from motionlab.core.errors import one_of


def run_row(arm: dict, seed: int, out_dir: Path, tier: str, units: int = 2, sleep_s: float = 0.0) -> list[dict]:
    """Rows of two metrics: `gain` is arm's gain + seed, `unit` that of the first unit only."""
    for step in range(3):
        kept = out_dir / f"step_{step}"
        if not kept.exists():
            (out_dir / "begun").open("a").write(f"{step}\n")
            time.sleep(arm.get("sleep_s", sleep_s) if step == 1 else 0)
            if arm.get("fails"):
                raise ValueError(f"arm {arm['name']} is broken on purpose")
            kept.touch()
    return [{"item": f"p{unit}", "gain": arm.get("gain", 0) + seed, "unit": None if unit else 0.1} for unit in range(units)]


def check_arm(arm: dict, common: dict) -> None:
    for name in arm:
        one_of(name, ("name", "gain", "lr", "fails", "sleep_s"), "field of an arm")


def trained(arm: dict, seed: int, out_dir: Path, tier: str, n: int = 4) -> list[dict]:
    """Rows as a training of rate `lr` gives them: plain is best at 1e-3; the cure is better the faster, but 3e-3 loses motion."""
    (out_dir / "begun").open("a").write("trained\n")
    lr, cure = arm["train"]["lr"], arm.get("method") == "cure"
    structure = {3e-4: 0.25, 1e-3: 0.2, 3e-3: 0.2}[lr] - cure * {3e-4: 0, 1e-3: 0.05, 3e-3: 0.1}[lr]
    assert arm["measure"]["prompts"] in ("dev", "test")
    return [{"item": f"p{k}", "structure_0": structure + 0.01 * k, "structure_1": structure, "move_ok": float(k > 0 or not cure or lr < 3e-3)}
            for k in range(n)]


def few(arm, seed):
    return []


def no_rows(arm, seed, out_dir, tier):
    return []


def wide(arm, seed, out_dir, tier):
    speed = {0: 2.0, 1: float("nan")}
    return [{"item": f"p{unit}", "kind": "easy", "gain": seed + unit, "speed": speed[unit]} for unit in (1, 0)]


def twice(arm, seed, out_dir, tier):
    return [{"item": "p0", "gain": 1.0}, {"item": "p0", "gain": 2.0}]
