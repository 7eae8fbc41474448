"""What of a model a training can change, and what it leaves alone: checkpoints hold the first, and know the second again.

Trained are the parameters with requires_grad, and the persistent buffers of every module that is not frozen. A module is
frozen when it has parameters and trains none of them; one without parameters goes with the module around it. Running
statistics (batch norm's) count as trained wherever they are, since they move in training mode, frozen or not.
"""
from __future__ import annotations

import hashlib
from typing import Any

import torch

from motionlab.core.errors import MotionLabError
from motionlab.training.shards import own_part, sharded_like

SAMPLES = 64                        # entries per frozen tensor by which its values are known again


def trained_names(model: torch.nn.Module) -> list[str]:
    """Names in the model's state dict of what a training can change, in its order."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return [name for name in model.state_dict() if name not in frozen and not (name in buffers and _rests(model, name))]


def _rests(model, buffer):
    """Whether the innermost module around this buffer that has parameters trains none of them."""
    path = buffer.split(".")[:-1]
    if getattr(model.get_submodule(".".join(path)), "track_running_stats", False):
        return False
    for depth in range(len(path), -1, -1):
        needs_grad = [p.requires_grad for p in model.get_submodule(".".join(path[:depth])).parameters()]
        if needs_grad:
            return not any(needs_grad)
    return False


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The part of the model's state dict that a training can change; the tensors are the model's own."""
    state = model.state_dict()
    return {name: state[name] for name in trained_names(model)}


def load_trained(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The model with `state`, such as `TrainResult.ema_state()`, as its trained part; what is frozen stays as it is.

    Raises:
        MotionLabError: `state` has not exactly the names and shapes of the trained part.
    """
    odd = difference(model, state)
    if odd:
        raise MotionLabError(f"This state is not the trained part of this {type(model).__name__}: {odd}.",
                             fix="Freeze and extend the model as its training did (requires_grad), then load.")
    own = trained_state(model)
    model.load_state_dict({name: sharded_like(state[name], own[name]) for name in own}, strict=False)
    return model


def difference(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> str | None:
    """The first difference between `state` and the model's trained part in names or shapes; None: there is none."""
    own = {name: tuple(value.shape) for name, value in trained_state(model).items()}
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    odd = sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
    if not odd:
        return None
    missing = "not trained" if odd[0] in model.state_dict() else "absent"
    return f"'{odd[0]}' is {theirs.get(odd[0], 'absent')} there and {own.get(odd[0], missing)} in yours"


def frozen_entries(model: torch.nn.Module) -> dict[str, bytes]:
    """Up to 64 entries, evenly spaced, of each frozen tensor, as float64; of sharded ones from this process's part."""
    trained = set(trained_names(model))
    return {name: _entries(own_part(value)) for name, value in model.state_dict().items() if name not in trained}


def _entries(x):
    n = min(SAMPLES, x.numel())
    return x.detach().reshape(-1)[torch.arange(n) * x.numel() // max(1, n)].cpu().double().numpy().tobytes()


def frozen_fingerprint(model: torch.nn.Module) -> dict[str, Any] | None:
    """How a base is known again: number, names with shapes, and sampled entries of its frozen tensors (SHA-256).

    None when nothing is frozen. Cheap: it reads 64 entries of each tensor, so other weights differ, single ones may not.
    """
    entries, state = frozen_entries(model), model.state_dict()
    if not entries:
        return None
    names = "\n".join(f"{name} {tuple(state[name].shape)}" for name in entries)
    return {"tensors": len(entries), "names": hashlib.sha256(names.encode()).hexdigest(),
            "entries": hashlib.sha256(b"".join(entries.values())).hexdigest()}


def demand_rest(model: torch.nn.Module, entries: dict[str, bytes]) -> None:
    """Demand that the frozen tensors are as they were at `entries`: what moves and is not stored would spoil a resume.

    Raises:
        MotionLabError: one has changed.
    """
    moved = [name for name, now in frozen_entries(model).items() if now != entries.get(name)]
    if moved:
        raise MotionLabError(f"'{moved[0]}' is not trained and changed during the training: no checkpoint would hold it.",
                             fix="Keep outside of the model what the loss updates itself, or register it as a buffer of a "
                                 "trained module, or as one that is not persistent.")
