"""What a method trained, as one safetensors file: its weights, its settings, and which generator they belong to."""
from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import save_weights
from motionlab.models.checkpoint import fingerprint
from motionlab.models.heads import drop_heads, without_heads
from motionlab.models.pipe import Pipe
from motionlab.training.trained import frozen_fingerprint, load_trained, trained_state

KIND = "motionlab.method"
SHIPPED_FIRST = "motionlab.joint"         # the form of the joint model that is shipped until it is trained again


def save_method(method, pipe: Pipe, path: str | Path, note: dict[str, str] | None = None, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write the trained part of `pipe`, in bf16, whole or not at all; heads (`models.heads`) are left out.

    Args:
        note: further metadata, text to text (steps, data).
    """
    tensors = {method.stored_name(pipe, name): value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
               for name, value in _kept(pipe).items()}
    return save_weights(path, tensors, about(method, pipe) | (note or {}))


def _kept(pipe):
    """What of the trained part serves sampling."""
    state = trained_state(pipe)
    return {name: state[name] for name in without_heads(list(state))}


def about(method, pipe: Pipe) -> dict[str, str]:
    """The metadata of a method's file: kind, method, settings, the generator's kind and what it did not train."""
    return {"kind": KIND, "method": method.name, "settings": json.dumps(dataclasses.asdict(method)), "generator": pipe.kind,
            "autoencoder": pipe.codec_name, "frozen": json.dumps(frozen_fingerprint(pipe))}


def read_about(path: str | Path) -> dict[str, str]:
    """The metadata of a method's file.

    Raises:
        MotionLabError: no such file, truncated, or the file of something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise MotionLabError(f"There is no file '{path}'.", fix="Give a file that `motionlab train` wrote.")
    try:
        with safe_open(str(path), "pt") as file:
            found = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise MotionLabError(f"'{path}' is no readable safetensors file ({error}); it may be truncated.",
                             fix="Train again, or fetch it again.") from None
    if found.get("kind") == SHIPPED_FIRST:
        return {"kind": KIND, "method": "videojam", "settings": "{}", "generator": "motionlab", "frozen": "null", "prefix": "backbone."}
    if found.get("kind") != KIND:
        raise MotionLabError(f"'{path}' holds no method's weights.", fix="Give a file that `motionlab train` wrote.")
    return found


def load_method(method, pipe: Pipe, path: str | Path) -> Pipe:
    """Attach `method` to `pipe` and fill in what a file of `save_method` holds; the pipe, in eval mode.

    Raises:
        MotionLabError: no such file; another method's, another generator's, or one trained on another base.
    """
    from safetensors.torch import load_file

    found = read_about(path)
    if found["method"] != method.name:
        raise MotionLabError(f"'{path}' was trained by method {found['method']}, not {method.name}.", fix=f"Use method {found['method']}.")
    if found["generator"] != pipe.kind:
        raise MotionLabError(f"'{path}' was trained on a generator of kind {found['generator']}; '{pipe.name}' is {pipe.kind}.",
                             fix="Open the generator that it was trained on.")
    method.attach(pipe)
    drop_heads(pipe)
    if json.loads(found["frozen"]) != frozen_fingerprint(pipe):
        raise MotionLabError(f"'{path}' ({fingerprint(path)}) was trained on another base than '{pipe.name}'.",
                             fix="Open the very base that it was trained on.")
    own = trained_state(pipe)
    names = {method.stored_name(pipe, name).removeprefix(found.get("prefix", "")): name for name in own}
    state = {names.get(stored, stored): value for stored, value in load_file(str(path)).items()}
    load_trained(pipe, {name: value.to(own[name].dtype) if name in own else value for name, value in state.items()})
    return pipe.eval()
