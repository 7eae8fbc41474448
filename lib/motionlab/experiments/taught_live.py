"""A block is taught while a notebook watches: head fitted, weight measured, trained for a few hundred clips, and asked what it knows."""
from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from motionlab.core.files import read_json
from motionlab.core.noise import SampleNoise
from motionlab.core.precision import autocast
from motionlab.correlation import unpacked
from motionlab.data.correlations import draw_shown, encode_correlation, token_grid
from motionlab.data.prompts import Prompt
from motionlab.data.sidecars import Sidecar, encoded
from motionlab.data.sources import Listed, World
from motionlab.data.store import held_data, open_data
from motionlab.experiments.arms import Budget
from motionlab.experiments.finetune import bank_home, dev_bank, training_config, tuning_bank
from motionlab.experiments.heads import fit_head, settled
from motionlab.experiments.live import attached
from motionlab.experiments.matches import student_at
from motionlab.methods.base import Method
from motionlab.methods.files import load_method, save_method
from motionlab.methods.tapped import Tapped
from motionlab.metrics.correspondence import correspondence
from motionlab.models.pipe import Pipe
from motionlab.training import train
from motionlab.training.optim import make_optimizers
from motionlab.training.trained import load_trained

ASKED_AT = 0.7           # noise level at which features are asked on the way


@dataclass
class Taught:
    """A training that was watched. pipe: the trained generator, with its head where it has one. method: as it was trained. about: what was
    measured before (`experiments.heads.settled`). rows: {item, arm, seed, seen, hit, ...} on the way, seen: clips so far."""

    pipe: Pipe
    method: Method
    about: dict
    rows: list[dict]


def taught_live(method: Method, base: Pipe, folder: Path, clip_steps: int, lr: float, judge: Sequence[Prompt], arm: str,
                points: int = 4) -> Taught:
    """Train the method on `base`, which stays as it is, each clip of the fine-tuning split once; a run that was stopped goes on.

    Args:
        judge: prompts whose true clips the block is asked of at the start, at the end and `points` - 1 times between; for a method without
            a head, nothing is asked on the way.
    """
    budget = Budget(lr=lr, clip_steps=clip_steps)
    config, pipe, rows = training_config(budget, 0, folder / "training"), attached(method, base).train(), []
    config = dataclasses.replace(config, sample_every=max(1, config.steps // points), log_every=10)
    data = open_data(World(tuning_bank(clip_steps, base.frames)), pipe, method.wants(), bank_home(), _quiet)

    def dev(sidecars):
        return open_data(World(dev_bank(budget, base.frames)), pipe, sidecars, bank_home(), _quiet)

    method = settled(method, pipe, data, config, folder, dev)

    def ask(model, step):
        if isinstance(method, Tapped):
            rows.extend(row | {"seen": step * config.batch_size} for row in asked(model, method, judge, arm))

    with torch.no_grad():
        ask(pipe.eval(), 0)
    result = train(pipe.train(), method.loss(pipe), data, config, on_sample=ask)
    load_trained(pipe, result.ema_state()).eval()
    return Taught(pipe, method, read_json(folder / "settled.json") or {}, rows)


def _quiet(text: str) -> None:
    """Banks of a few hundred clips need no progress line."""


def asked(pipe: Pipe, method: Tapped, prompts: Sequence[Prompt], arm: str, t: float = ASKED_AT) -> list[dict]:
    """Rows {item, arm, seed, t, hit, ...} of what features of the prompts' true clips say at time t, through the head that `pipe` has."""
    source, truth = Listed([p.clip(frames=pipe.frames) for p in prompts]), Sidecar("transport", {"where": "subject"}, key="truth")
    batch = encoded(source, (truth,), pipe)
    truth = unpacked(batch["truth"], token_grid(pipe), outside=0.0)
    found = correspondence(student_at(pipe, method, batch["x1"], list(prompts), t), truth.nan_to_num(), truth.isfinite().all(-1))
    return [{"item": p.id, "arm": arm, "seed": 0, "t": t} | {name: float(found[name][i]) for name in ("hit", "still_kept", "kl")}
            for i, p in enumerate(prompts)]


def probed(pipe: Pipe, method: Tapped, folder: Path, clip_steps: int, lr: float) -> Pipe:
    """A copy of a generator without a head with one of this method's, fitted alone."""
    other, budget = attached(method, pipe).train(), Budget(lr=lr, clip_steps=clip_steps)
    data = open_data(World(tuning_bank(clip_steps, pipe.frames)), other, method.wants(), bank_home(), _quiet)
    fit_head(method, other, data, training_config(budget, 0, folder / "unused"), folder / "probe")
    return other.eval()


def window_at(pipe: Pipe, method: Tapped, prompt: Prompt, place: tuple[int, int], t: float = ASKED_AT) -> np.ndarray:
    """Where the features say that one place of the first frame goes, (n, n)."""
    x1 = pipe.encode([prompt.clip(frames=pipe.frames)])
    p = student_at(pipe, method, x1, [prompt], t)[0, 0, place[0], place[1]]
    side = int(len(p) ** 0.5)
    return p.view(side, side).float().numpy()


# ---------------------------------------------------------------------------------------------- what it costs
def cost_rows(plain: Method, taught: Tapped, base: Pipe, prompts: Sequence[Prompt], folder: Path, repeats: int = 20) -> Iterator[dict]:
    """Rows {item, arm, seed, step_seconds, sample_seconds, parameters}, the item being the turn; one unmeasured turn comes first.

    Arms: "plain"; "cached", the taught method with its teacher's maps from disk; "online", the same with the teacher at work in every step.
    step_seconds: of a training step, the prompts as a batch. sample_seconds: of one velocity of what is kept of the training, read back
    from its file; parameters: numbers in that generator.

    Args:
        taught: with a weight and a temperature, so that nothing is measured first.
    """
    source, said = Listed([p.clip(frames=base.frames) for p in prompts]), [p.text for p in prompts]
    arms = {name: _Ready(method, base, source, said, folder / f"{name}.safetensors")
            for name, method in {"plain": plain, "cached": taught}.items()}
    look = _teacher(taught, base, source)
    for turn in range(repeats + 1):
        for name in ("plain", "cached", "online"):
            one, began = arms["plain" if name == "plain" else "cached"], time.perf_counter()
            if name == "online":
                look(turn)
            one.step(turn)
            row = {"item": str(turn), "arm": name, "seed": 0, "step_seconds": time.perf_counter() - began}
            row |= {"parameters": one.parameters, "sample_seconds": one.sample()}
            if turn:
                yield row


def _teacher(method, base, source):
    """A teacher at work: all of a sidecar's making but for rendering; each turn's pictures differ by one number, so that none is known."""
    sidecar = method.targets_of()[0]
    shown = np.stack([draw_shown(source, i, **_only(draw_shown, sidecar.settings)) for i in range(len(source))])

    def run(turn):
        shown[0, 0, 0, 0, 0] = turn % 256
        return encode_correlation(shown, base, **_only(encode_correlation, sidecar.settings))

    return run


def _only(function, settings: Mapping) -> dict:
    return {name: value for name, value in settings.items() if name in function.__code__.co_varnames[:function.__code__.co_argcount]}


class _Ready:
    """A method on its own copy of the generator, with its data and optimisers; and what is kept of it."""

    def __init__(self, method, base, source, said, path):
        self.pipe, config = attached(method, base).train(), training_config(Budget(clip_steps=8), 0, "unused")
        self.loss_fn, self.optimizers, self.clip = method.loss(self.pipe), make_optimizers(self.pipe, config), config.grad_clip
        self.trained, self.b = [p for p in self.pipe.parameters() if p.requires_grad], len(said)
        self.batch = held_data(source, said, base, method.wants()).batch(torch.arange(self.b))
        save_method(method, self.pipe, path)
        self.kept = load_method(method, copy.deepcopy(base), path)
        self.parameters = sum(p.numel() for p in self.kept.denoiser.parameters())
        self.text = base.text(said[:1])

    def step(self, turn):
        """One update, as `training.train` makes it."""
        self.pipe.zero_grad(set_to_none=True)
        with autocast("cpu"):
            loss, _ = self.loss_fn(self.pipe, self.batch, SampleNoise(0, turn, range(self.b)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.clip)
        for optimizer in self.optimizers.values():
            optimizer.step()

    @torch.no_grad()
    def sample(self):
        """Seconds of one velocity."""
        x, t, began = self.batch["x1"][:1].float(), torch.full((1,), 0.5), time.perf_counter()
        self.kept.velocity(x, t, self.text)
        return time.perf_counter() - began
