"""Weights of a pretrained teacher: read from a file, filled into its network, moved to a device; each mistake a sentence."""
from __future__ import annotations

from pathlib import Path

from motionlab.core.errors import MotionLabError


def load_state(file: Path) -> dict:
    """A state dict from .safetensors or .pth (tensors only: no code of the file runs).

    Raises:
        MotionLabError: unreadable, or not a dict of tensors.
    """
    import torch

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - both libraries raise many kinds here
        raise MotionLabError(f"'{file}' cannot be read as weights ({type(error).__name__}).",
                             fix="Download it again.") from None
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise MotionLabError(f"'{file}' holds no state dict.", fix="Save model.state_dict().")
    return state


def fill(model, state: dict, misfit: str, fix: str) -> None:
    """Load a state dict into a network.

    Args:
        misfit, fix: what an error says when names or shapes differ, before torch's own last line, and what to do.

    Raises:
        MotionLabError: names or shapes differ.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise MotionLabError(f"{misfit} ({str(error).splitlines()[-1].strip()}).", fix=fix) from None


def to_device(model, device: str):
    """`model.to(device)` with a sentence for a device that is not there.

    Raises:
        MotionLabError: unknown or absent device.
    """
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise MotionLabError(f"Device '{device}' cannot be used ({str(error).splitlines()[0]}).",
                             fix="Use device='cpu', 'cuda' or 'mps', whichever this machine has.") from None
