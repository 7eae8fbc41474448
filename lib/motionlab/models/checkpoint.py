"""Checkpoints of the kit's own models: one safetensors file each, with kind and config in its metadata."""
from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from torch import nn

from motionlab.core.config import Config, from_values
from motionlab.core.errors import MotionLabError
from motionlab.core.files import save_weights

AGAIN = "`make pretrain` makes it again; or fetch the file again."


def save_model(model: nn.Module, path: str | Path, kind: str, dtype: torch.dtype | None = torch.bfloat16, **card) -> Path:
    """Write weights with kind, `model.config` and `card` (text about data, steps) as metadata; whole or not at all.

    Args:
        dtype: of floating tensors in the file; None keeps them exact.
    """
    tensors = {name: value.detach().cpu().to(dtype or value.dtype).contiguous() for name, value in model.state_dict().items()}
    meta = {"kind": kind, "config": json.dumps(dataclasses.asdict(model.config))}
    return save_weights(path, tensors, meta | {name: str(value) for name, value in card.items()})


def kind_of(path: str | Path) -> str:
    """The kind of model that a checkpoint says it holds; "" for a file that says nothing or cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get("kind", "")
    except (SafetensorError, OSError):
        return ""


def read_model(path: str | Path, kind: str, noun: str, config: type[Config]) -> tuple[Config, dict[str, str], dict[str, torch.Tensor]]:
    """Config (of the dataclass `config`), metadata and float32 tensors of a file that must be of this kind.

    Raises:
        MotionLabError: no such file, truncated, the file of something else, values that are not finite.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise MotionLabError(f"No {noun} at {path}.", fix="`make pretrain` makes one, or give the path of a shipped checkpoint.")
    try:
        with safe_open(str(path), framework="pt") as file:
            meta, tensors = file.metadata() or {}, {name: file.get_tensor(name).float() for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise MotionLabError(f"{path} is no readable safetensors file ({error}); it may be truncated.", fix=AGAIN) from None
    if meta.get("kind") != kind:
        raise MotionLabError(f"{path} holds {meta.get('kind', 'no motionlab model')}, not {kind}.", fix="Check which checkpoint you meant.")
    bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise MotionLabError(f"{path} holds values that are not finite in '{bad[0]}'.", fix=AGAIN)
    return from_values(config, json.loads(meta["config"]), f"{noun} config"), meta, tensors


def fill(model: nn.Module, tensors: dict[str, torch.Tensor], path: str | Path) -> nn.Module:
    """The model with these weights.

    Raises:
        MotionLabError: names or shapes that differ from the model's.
    """
    wanted = model.state_dict()
    odd = sorted(set(wanted) ^ set(tensors)) or [name for name in wanted if wanted[name].shape != tensors[name].shape]
    if odd:
        raise MotionLabError(f"The weights in {path} do not fit its config; the first that differs is '{odd[0]}'.", fix=AGAIN)
    model.load_state_dict(tensors)
    return model


def fingerprint(path: str | Path) -> str:
    """Eight hex digits that name a file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]
