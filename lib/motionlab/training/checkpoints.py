"""Checkpoints: out_dir/checkpoints/step_00000500/{model,ema,optimizer}.safetensors and state.json.

They hold what is trained (`trained`), in whole tensors. state.json lists size and SHA-256 of the others, and by what the
frozen base is known again. A folder is written under another name and renamed when it is complete: a name `step_*` is a whole one.
"""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from motionlab.core.digests import digest_of
from motionlab.core.errors import MotionLabError
from motionlab.core.files import replacing_folder, write_json
from motionlab.training.config import TrainConfig
from motionlab.training.trained import difference

FORMAT = "motionlab-training-1"
KEEP = 2
TENSOR_FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
MUST_MATCH = ("seed", "batch_size", "optimizer")


def checkpoints(out_dir: str | Path) -> list[Path]:
    """Finished checkpoints below `out_dir`, oldest first (found by name, not verified)."""
    found = (Path(out_dir) / "checkpoints").glob("step_*")
    return sorted(path for path in found if path.is_dir() and path.name[5:].isdigit())


def write_checkpoint(out_dir: Path, step: int, tensors: dict[str, dict], state: dict[str, Any]) -> Path:
    from safetensors.torch import save_file

    folder = out_dir / "checkpoints"
    final, temporary = folder / f"step_{step:08d}", folder / f"unfinished_{step:08d}"
    with replacing_folder(final, temporary):
        for name in TENSOR_FILES:
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors[name].items()}, temporary / name)
        files = {name: _fingerprint(temporary / name) for name in TENSOR_FILES}
        write_json(temporary / "state.json", {"format": FORMAT, "step": step, **state, "files": files})
    for old in checkpoints(out_dir)[:-KEEP]:
        _discard(old)
    return final


def _discard(path: Path) -> None:
    """Rename, then delete: a kill in between leaves no half checkpoint under a good name."""
    doomed = path.with_name(f"unfinished_{path.name[5:]}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _fingerprint(path: Path) -> dict[str, Any]:
    sha, size = digest_of(path)
    return {"bytes": size, "sha256": sha}


def problem_of(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, naming the file; None when it is whole."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        known = state["files"] if state["format"] == FORMAT else None
    except OSError:
        return f"{path / 'state.json'} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{path / 'state.json'} is truncated or foreign"
    if known is None:
        return f"{path / 'state.json'} has format {state['format']!r}, not {FORMAT!r}"
    for name in TENSOR_FILES:
        if not (path / name).is_file():
            return f"{path / name} is missing"
        if _fingerprint(path / name) != known.get(name):
            return f"{path / name} is truncated or changed since it was written"
    return None


def latest(out_dir: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint (None: there is no checkpoint at all), and the broken ones that are newer.

    Raises:
        MotionLabError: there are checkpoints and none of them is whole.
    """
    broken = []
    for path in reversed(checkpoints(out_dir)):
        problem = problem_of(path)
        if problem is None:
            return path, broken
        broken.append((path, problem))
    if broken:
        problems = "; ".join(problem for _, problem in broken)
        raise MotionLabError(f"No checkpoint in {out_dir / 'checkpoints'} can be read: {problems}.",
                             fix="Restore the files from a copy, or delete that folder to start from step 0.")
    return None, []


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    from safetensors.torch import load_file

    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return state, {name: load_file(path / name) for name in TENSOR_FILES}


def check_same_run(path: Path, state: dict, config: TrainConfig, length: int) -> None:
    """Demand the seed, batch size, optimiser and length of data that the checkpoint was made with."""
    before = {**{name: state["config"].get(name) for name in MUST_MATCH}, "data length": state["data_length"]}
    now = {**{name: getattr(config, name) for name in MUST_MATCH}, "data length": length}
    changed = [f"{name} was {before[name]} and is now {now[name]}" for name in now if before[name] != now[name]]
    if changed:
        raise MotionLabError(f"{path} belongs to another run: {', '.join(changed)}.",
                             fix="Set the old values to go on with it, or choose another out_dir.")


def check_same_model(path: Path, stored: dict[str, torch.Tensor], model: torch.nn.Module) -> None:
    """Demand that the stored tensors are the model's trained part, by names and shapes."""
    odd = difference(model, stored)
    if odd:
        raise MotionLabError(f"{path} holds another model: {odd}.",
                             fix="Build the model with the configuration of that run and freeze the same parts of it, or "
                                 "choose another out_dir.")


def check_same_base(path: Path, stored: dict[str, Any] | None, own: dict[str, Any] | None) -> None:
    """Demand that the frozen tensors, by `frozen_fingerprint`, are those that the stored part was trained over."""
    if stored == own:
        return
    same_names = stored is not None and own is not None and stored["names"] == own["names"]
    raise MotionLabError(f"{path} was trained over another base: the {'values' if same_names else 'names or shapes'} of its "
                         "frozen tensors are not those of yours.",
                         fix="Load the base that this run began with, or choose another out_dir.")
