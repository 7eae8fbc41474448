"""Optimisers over named parameters: AdamW, Muon for the matrices of blocks, rates per entry; their state as flat tensors."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from motionlab.core.errors import MotionLabError
from motionlab.training.config import TrainConfig
from motionlab.training.muon import Muon
from motionlab.training.shards import sharded_like


def block_matrices(model: torch.nn.Module) -> list[str]:
    """Names of the trainable 2-D parameters below a numbered module (`blocks.3.attn.to_q.weight`), no embeddings."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    matrices = [name for name, p in model.named_parameters()
                if p.requires_grad and p.ndim == 2 and id(p) not in embeddings]
    return [name for name in matrices if any(part.isdigit() for part in name.split("."))]


def make_optimizers(model: torch.nn.Module, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """{'adamw': ...} or {'adamw': ..., 'muon': ...}; every group knows its names and its base learning rate."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise MotionLabError("The model has no trainable parameter.",
                             fix="Set requires_grad on what should be trained.")
    muon = block_matrices(model) if config.optimizer == "muon" else []
    if config.optimizer == "muon" and not muon:
        raise MotionLabError("optimizer 'muon' found no 2-D matrix in a numbered block.", fix="Use optimizer 'adamw'.")
    rest = [name for name in trainable if name not in set(muon)]
    groups = [_group(trainable, [n for n in rest if trainable[n].ndim >= 2], config.lr, config.weight_decay),
              _group(trainable, [n for n in rest if trainable[n].ndim < 2], config.lr, 0.0)]
    groups = [group for group in groups if group["params"]]
    made: dict[str, torch.optim.Optimizer] = {}
    if groups:
        made["adamw"] = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
    if muon:
        made["muon"] = Muon([_group(trainable, muon, config.muon_lr, config.weight_decay)],
                                        lr=config.muon_lr, adjust_lr_fn=config.muon_adjust)
    return made


def _group(trainable: dict, names: list[str], lr: float, weight_decay: float) -> dict[str, Any]:
    params = [trainable[n] for n in names]
    return {"params": params, "names": names, "base_lr": lr, "lr": lr, "weight_decay": weight_decay}


def set_lr(optimizers: dict, factor: float) -> None:
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


@contextlib.contextmanager
def scaled_moves(params: list[torch.nn.Parameter]) -> Iterator[None]:
    """A parameter with an attribute `lr_scale`, a tensor of its shape, moves that many times as far: a rate per entry."""
    scaled = [(p, p.detach().clone()) for p in params if hasattr(p, "lr_scale")]
    yield
    with torch.no_grad():
        for p, before in scaled:
            p.copy_(before + p.lr_scale.to(p) * (p - before))


def flatten(optimizers: dict) -> dict[str, torch.Tensor]:
    """Optimiser state as {'adamw|exp_avg|blocks.0.weight': tensor}."""
    flat = {}
    for kind, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            for name, p in zip(group["names"], group["params"]):
                for key, value in optimizer.state.get(p, {}).items():
                    flat[f"{kind}|{key}|{name}"] = torch.as_tensor(value)
    return flat


def unflatten(optimizers: dict, flat: dict[str, torch.Tensor]) -> None:
    for kind, optimizer in optimizers.items():
        params = {name: p for group in optimizer.param_groups for name, p in zip(group["names"], group["params"])}
        plain = optimizer.state_dict()
        number = {name: i for group in plain["param_groups"] for name, i in zip(group["names"], group["params"])}
        plain["state"] = {}
        for full, value in flat.items():
            owner, key, name = full.split("|", 2)
            if owner == kind and name in number:
                value = sharded_like(value, params[name]) if value.ndim else value  # a count of steps has no parts
                plain["state"].setdefault(number[name], {})[key] = value
        optimizer.load_state_dict(plain)
