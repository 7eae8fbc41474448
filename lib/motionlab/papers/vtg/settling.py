"""Before an alignment is trained: its projector is fitted alone and its weight measured, as of every head of the kit; afterwards, whether
the alignment has arrived: a fresh projector is fitted to features at rest, and its cosine told on held-out clips."""
from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from motionlab.core.files import read_json, write_atomic
from motionlab.core.noise import SampleNoise
from motionlab.core.precision import autocast
from motionlab.models.pipe import Pipe, moved
from motionlab.papers.vtg.alignment import Projector
from motionlab.papers.vtg.training import BackwardRecipe, Second, alignment, gradients_at_layer, second_velocity
from motionlab.papers.vtg.training import projector as projector_of
from motionlab.training import TrainConfig, train

BATCHES = 64             # of clips that a weight is measured on
LITERAL = 0.5            # the weight that REPA has (card 4)


def settle(recipe: BackwardRecipe, second: Second, projector: Projector, encoder: nn.Module, data, judging, config: TrainConfig,
           folder: Path) -> float:
    """The weight of L_RAR that is trained with: recipe.rar, or where that is negative the one that `measured_weight` finds on `judging`
    clips, kept in folder/settled.json. The projector is fitted on `data` first, in place."""
    encoder, path = encoder.to(second.pipe.device), folder / "settled.json"
    fit_projector(recipe, second, projector, encoder, data, config, folder / "head")
    if recipe.rar >= 0:
        return recipe.rar
    if (found := read_json(path)) is None:
        found = measured_weight(recipe, second, projector, encoder, judging, config)
        write_atomic(path, json.dumps(found, indent=1))
    return found["weight"]


def fitted_afterwards(recipe: BackwardRecipe, second: Second, encoder: nn.Module, data, config: TrainConfig, folder: Path) -> Callable:
    """A fresh projector, fitted to the features of a pipe at rest for all of `config`'s steps: a batch -> cosines (b,)."""
    pipe, encoder = second.pipe, encoder.to(second.pipe.device)
    pipe.projector = projector_of(pipe, recipe.layer, encoder).to(pipe.device)
    fit_projector(recipe, second, pipe.projector, encoder, data, config, folder, config.steps)
    return lambda batch: cosines(recipe, second, pipe.projector, encoder, batch)


def fit_projector(recipe: BackwardRecipe, second: Second, projector: Projector, encoder: nn.Module, data, config: TrainConfig,
                  folder: Path, steps: int = 200) -> None:
    """The projector alone, in place: AdamW at the training's rate, constant, never for longer than the training itself."""
    alone = dataclasses.replace(config, steps=min(steps, config.steps), optimizer="adamw", schedule="constant", decay=0, ema=0.0,
                                sample_every=0, gradient_checkpointing=False, out_dir=str(folder))

    def loss_fn(model, batch, noise):
        _, _, _, t, seen = second_velocity(recipe, second, model, batch, noise)
        losses = alignment(second, projector, encoder, seen[0].detach(), batch["pictures"], recipe.other)
        return losses.mean(), {"t": t, "per_sample": losses}

    with only_trained(second.pipe, projector):
        train(second.pipe, loss_fn, data, alone)


@contextmanager
def only_trained(pipe: Pipe, part: nn.Module) -> Iterator[None]:
    """Inside, nothing of the pipe but `part` is trained."""
    before = {p: p.requires_grad for p in pipe.parameters()}
    for p in before:
        p.requires_grad_(False)
    part.requires_grad_(True)
    try:
        yield
    finally:
        for p, was in before.items():
            p.requires_grad_(was)


def measured_weight(recipe: BackwardRecipe, second: Second, projector: Projector, encoder: nn.Module, data, config: TrainConfig,
                    share: float = 0.2) -> dict[str, float]:
    """{"weight", at which L_RAR's gradient at the layer is `share` of L_BMP's, over up to 64 batches; "literal", the share that a weight
    of 0.5 would have; "main", "own", root mean squares of both norms; "batches"}."""
    main, own, b = [], [], min(config.batch_size, len(data))
    for k in range(min(BATCHES, max(1, config.steps))):
        batch = data.batch(torch.arange(k * b, (k + 1) * b) % len(data))
        batch = {key: moved(value, second.pipe.device) if isinstance(value, dict) else value.to(second.pipe.device)
                 for key, value in batch.items()}
        with autocast(second.pipe.device, config.bf16):
            pair = gradients_at_layer(recipe, second, projector, encoder, batch, SampleNoise(config.seed, k, range(b), second.pipe.device))
        for gradient, norms in zip(pair, (main, own)):
            norms.append(float(gradient.float().square().sum()))
    size, mine = math.sqrt(sum(main) / len(main)), math.sqrt(sum(own) / len(own))
    return {"weight": share * size / mine, "literal": LITERAL * mine / size, "main": size, "own": mine, "batches": len(main)}


@torch.no_grad()
def cosines(recipe: BackwardRecipe, second: Second, projector: Projector, encoder: nn.Module, batch: dict, draws: int = 4,
            seed: int = 0) -> torch.Tensor:
    """Mean cosine (b,) of projected and true features of clips, over `draws` fixed noises and times; both ends are seen and no text is
    dropped."""
    recipe = dataclasses.replace(recipe, both=1.0, text_dropout=0.0, attribute_dropout=0.0, other=False, rar=1.0)
    found = []
    for k in range(draws):
        noise = SampleNoise(seed, k, range(len(batch["x1"])), second.pipe.device)
        *_, seen = second_velocity(recipe, second, second.pipe, batch, noise)
        found.append(-alignment(second, projector, encoder, seen[0], batch["pictures"]))
    return torch.stack(found).mean(0)
