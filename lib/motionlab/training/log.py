"""What a run says of itself: out_dir/log.jsonl, a progress line, and W&B beside it where WANDB_MODE is set."""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from motionlab.core.extras import demand_extra
from motionlab.core.files import write_atomic
from motionlab.training.config import TrainConfig

BINS = 10


class Window:
    """Sums since the last log row: loss, loss per bin of t, gradient norm."""

    def __init__(self):
        self.steps, self.loss, self.grad_norm = 0, 0.0, 0.0
        self.bin_sum, self.bin_count = torch.zeros(BINS, dtype=torch.float64), torch.zeros(BINS, dtype=torch.float64)

    def add(self, loss: float, t: torch.Tensor, per_sample: torch.Tensor, grad_norm: float) -> None:
        self.steps, self.loss, self.grad_norm = self.steps + 1, self.loss + loss, self.grad_norm + grad_norm
        bins = (t * BINS).long().clamp(0, BINS - 1)
        self.bin_sum.index_add_(0, bins, per_sample)
        self.bin_count.index_add_(0, bins, torch.ones_like(per_sample))

    def row(self) -> dict[str, Any]:
        per_bin = [float(s / c) if c else None for s, c in zip(self.bin_sum, self.bin_count)]
        return {"loss": self.loss / self.steps, "loss_per_t_bin": per_bin,
                "n_per_t_bin": [int(c) for c in self.bin_count], "grad_norm": self.grad_norm / self.steps}


class Log:
    """out_dir/log.jsonl and a progress line, in the main process; W&B beside it when WANDB_MODE is set."""

    def __init__(self, config: TrainConfig, main: bool, start: int):
        self.config, self.main, self.start, self.began = config, main, start, time.monotonic()
        self.path, self.wandb = Path(config.out_dir) / "log.jsonl", None
        if main:
            self._cut_after(start)
            self.wandb = self._start_wandb()

    def _cut_after(self, step: int) -> None:
        """Drop the rows of steps that a kill has undone, and a half-written last line."""
        kept = [line for line in _lines(self.path) if json.loads(line).get("step", 0) <= step]
        write_atomic(self.path, "".join(line + "\n" for line in kept))

    def _start_wandb(self):
        if os.environ.get("WANDB_MODE", "disabled") == "disabled":
            return None
        try:
            demand_extra("wandb", "Its log", "wandb")
            import wandb

            return wandb.init(project="motionlab", dir=self.config.out_dir, name=Path(self.config.out_dir).name,
                              config=dataclasses.asdict(self.config))
        except Exception as error:  # a missing login must not cost a night of training
            print(f"W&B is off ({error}); log.jsonl has everything.", flush=True)
            return None

    def write(self, row: dict[str, Any]) -> None:
        if not self.main:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.wandb is not None:
            self.wandb.log({k: v for k, v in row.items() if isinstance(v, (int, float))}, step=row["step"])

    def progress(self, step: int, until: int, row: dict[str, Any]) -> None:
        seconds = time.monotonic() - self.began
        left = seconds / max(1, step - self.start) * (until - step)
        self.write({"step": step, **row, "seconds": round(seconds, 3), "seconds_left": round(left, 3)})
        if self.main:
            done = f"step {step}/{self.config.steps}"
            print(f"{done}  loss {row['loss']:.4f}  lr {row['lr']:.2e}  {_clock(left)} left", flush=True)

    def note(self, step: int, text: str) -> None:
        self.write({"step": step, "note": text})
        if self.main:
            print(f"note: {text}", flush=True)

    def close(self) -> None:
        if self.wandb is not None:
            self.wandb.finish()


def _lines(path: Path) -> list[str]:
    """The lines of a log file that are whole JSON mappings: a kill leaves half of one."""
    good = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(line), dict):
                good.append(line)
    return good


def read_log(out_dir: str | Path) -> list[dict[str, Any]]:
    """The rows with a loss of out_dir/log.jsonl: step, loss, loss_per_t_bin (10 numbers or None), n_per_t_bin, lr,
    grad_norm (means since the row before), seconds, seconds_left."""
    rows = [json.loads(line) for line in _lines(Path(out_dir) / "log.jsonl")]
    return [row for row in rows if "loss" in row]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
