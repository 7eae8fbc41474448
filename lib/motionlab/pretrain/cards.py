"""Model cards and training curves of the shipped checkpoints, written from what training itself logged."""
from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.files import parse_json, write_atomic


def write_card(checkpoint: Path, logs: dict[str, Path], out: Path, note: str = "") -> Path:
    """Write `out` (Markdown) beside a checkpoint: what it is, its data, steps, time and last losses per t-bin.

    Args:
        logs: stage -> log.jsonl of its training, in order.

    Raises:
        MotionLabError: no such checkpoint or log.
    """
    from safetensors import safe_open

    if not checkpoint.is_file():
        raise MotionLabError(f"There is no checkpoint {checkpoint} to write a card for.", fix="Run its stage first.")
    with safe_open(str(checkpoint), "pt") as file:
        meta = file.metadata() or {}
        count = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    lines = [f"# {checkpoint.stem}", ""] + ([note.strip(), ""] if note else [])
    lines += [f"- {count / 1e6:.2f} M numbers, {checkpoint.stat().st_size / 1e6:.1f} MB (bf16 safetensors)"]
    lines += [f"- {key}: {value}" for key, value in sorted(meta.items()) if key in ("kind", "format", "data", "codec", "seed") and value]
    lines += ["", "| stage | steps | minutes | last loss | per t-bin, noise to clean |", "|---|---|---|---|---|"]
    for stage, path in logs.items():
        rows = read_rows(path)
        last = next((row for row in reversed(rows) if "loss" in row), None)
        if last is None:
            raise MotionLabError(f"The training log {path} holds no loss.", fix="Train the stage again, or restore its log.")
        bins = " ".join("-" if v is None else f"{v:.2f}" for v in last["loss_per_t_bin"])
        lines.append(f"| {stage} | {last['step']} | {seconds(rows) / 60:.0f} | {last['loss']:.3f} | {bins} |")
    return write_atomic(out, "\n".join(lines) + "\n")


def write_curve(log: Path, out: Path) -> Path:
    """A training's log as CSV: step, minutes, loss, loss_0 ... loss_9 (per t-bin) and held_out columns where they were taken."""
    rows, table = read_rows(log), {}
    for k, row in enumerate(rows):
        line = table.setdefault(row["step"], {"step": row["step"]})
        if "loss" in row:
            line |= {"minutes": round(seconds(rows[:k + 1]) / 60, 2), "loss": round(row["loss"], 5)}
            line |= {f"loss_{i}": None if v is None else round(v, 5) for i, v in enumerate(row["loss_per_t_bin"])}
        line |= {name.removeprefix("sample/"): round(v, 5) for name, v in row.items() if name.startswith("sample/")}
    columns = list(dict.fromkeys(name for line in table.values() for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader(), writer.writerows(table.values())
    return write_atomic(out, text.getvalue())


def read_rows(log: Path) -> list[dict]:
    """All whole rows of a log.jsonl.

    Raises:
        MotionLabError: there is none.
    """
    if not log.is_file():
        raise MotionLabError(f"There is no training log {log}.", fix="The stage has not run below this folder.")
    rows = [row for line in log.read_text(encoding="utf-8").splitlines() if (row := _row(line)) is not None]
    return [row for row in rows if isinstance(row.get("step"), int)]


def _row(line: str) -> dict | None:
    try:
        row = parse_json(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def seconds(rows: list[dict]) -> float:
    """Seconds of training in all, over restarts: the clock of a log begins again with each."""
    total, before = 0.0, 0.0
    for row in rows:
        if "seconds" in row:
            total += row["seconds"] - before if row["seconds"] >= before else row["seconds"]
            before = row["seconds"]
    return total
