"""Where and how a model is trained: its device, one process or several, whole or sharded, compiled or not."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import shown
from motionlab.core.locks import Busy, only_one
from motionlab.training.config import TrainConfig
from motionlab.training.shards import sharded_like


def make_accelerator(config: TrainConfig):
    """accelerate's Accelerator; precision comes from `config.bf16` alone, whatever the user's configuration of it says.

    Raises:
        MotionLabError: the device is not there.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    if int(os.environ.get("WORLD_SIZE", 1)) == 1:  # a notebook may have trained on another device before
        AcceleratorState._reset_state(reset_partial_state=True)
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=config.find_unused_parameters)
    try:
        accelerator = Accelerator(cpu=config.cpu, mixed_precision="no", kwargs_handlers=[wrapping])
        torch.empty(1, device=accelerator.device)
    except (RuntimeError, AssertionError, ZeroDivisionError) as error:  # torch's ways to say that there is no such device
        device = os.environ.get("ACCELERATE_TORCH_DEVICE", "the CPU" if config.cpu else "a GPU")
        raise MotionLabError(f"The training cannot start on {device}: {str(error).splitlines()[0]}",
                             fix="Set cpu to true, unset ACCELERATE_TORCH_DEVICE, or start at most as many processes as there "
                                 "are GPUs (`motionlab doctor` lists them).") from error
    return accelerator


@contextlib.contextmanager
def alone(accelerator, out_dir: Path) -> Iterator[None]:
    """The processes of this run have `out_dir` for themselves; the main one holds its lock.

    Raises:
        Busy: another training has it (all processes hear of it, so that none waits for the others).
    """
    with only_one(out_dir / ".lock") if accelerator.is_main_process else contextlib.nullcontext() as other:
        taken = torch.tensor([1.0 if other else 0.0], device=accelerator.device)
        if float(accelerator.reduce(taken, "sum")) > 0:
            raise Busy(f"{shown(out_dir)} is in use by process {other or 'of another training'}.",
                       fix="Wait for it, stop it, or choose another out_dir.")
        yield


def unwrapped(accelerator, model: torch.nn.Module) -> torch.nn.Module:
    """The model itself, as its names in checkpoints are.

    Raises:
        MotionLabError: it has no weights yet (torch's device 'meta').
    """
    bare = accelerator.unwrap_model(model, keep_torch_compile=False)
    empty = [name for name, value in bare.state_dict().items() if value.is_meta]
    if empty:
        raise MotionLabError(f"'{empty[0]}' lies on the device 'meta': the model has a shape, but no weights to train.",
                             fix="Load its weights first (`to_empty` and `load_state_dict`, or build it on the CPU).")
    return bare


def prepared(accelerator, model: torch.nn.Module, config: TrainConfig, samples: bool) -> torch.nn.Module:
    """The model on its device, wrapped so that the processes share its gradients (DDP) or its weights too (FSDP2).

    Args:
        samples: whether the run wants to sample from it in between.

    Raises:
        MotionLabError: no part of it can checkpoint gradients; a setting that does not go with FSDP2; FSDP1.
    """
    if config.gradient_checkpointing:
        _checkpoint_gradients(model)
    sharded = str(accelerator.distributed_type).endswith("FSDP")
    wrapped = _sharded(accelerator, model, config, samples) if sharded else accelerator.prepare(model)
    return torch.compile(wrapped) if config.compile else wrapped


def _checkpoint_gradients(model):
    able = [m for m in model.modules() if hasattr(m, "enable_gradient_checkpointing")
            and getattr(m, "_supports_gradient_checkpointing", True)]
    if not able:
        raise MotionLabError(f"gradient_checkpointing is set, but {type(model).__name__} holds no model that can do it.",
                             fix="Set it to false; models of diffusers can, by their enable_gradient_checkpointing().")
    for module in able:
        module.enable_gradient_checkpointing()


def _sharded(accelerator, model, config, samples):
    from accelerate.utils import fsdp2_prepare_model

    if not accelerator.is_fsdp2:
        raise MotionLabError("accelerate is configured for FSDP 1, which this loop does not know.",
                             fix="Set fsdp_version: 2, as in docs/accelerate_fsdp.yaml.")
    if config.optimizer == "muon":
        raise MotionLabError("optimizer 'muon' needs whole matrices, and FSDP shares them out.",
                             fix="Use optimizer 'adamw', or several processes without FSDP.")
    if samples:
        raise MotionLabError("sample_every is set, but with FSDP no process has a whole model to sample from.",
                             fix="Set sample_every to 0 and sample from the checkpoints.")
    scales = {name: p.lr_scale for name, p in model.named_parameters() if hasattr(p, "lr_scale")}
    sharded = fsdp2_prepare_model(accelerator, model)
    for name, p in sharded.named_parameters():  # these are new parameters, which know nothing of the old ones' attributes
        if name in scales:
            p.lr_scale = sharded_like(scales[name], p)
    return sharded
