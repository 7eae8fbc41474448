"""The loop itself: how a run begins, one step, and what is done between steps."""
from __future__ import annotations

import dataclasses
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import require_room
from motionlab.core.noise import SampleNoise, seed_of
from motionlab.core.precision import autocast
from motionlab.training.checkpoints import (KEEP, check_same_base, check_same_model, check_same_run, export_ema, latest,
                                            read_checkpoint, write_checkpoint)
from motionlab.training.config import TrainConfig, lr_factor
from motionlab.training.cursor import DataCursor
from motionlab.training.ema import Ema
from motionlab.training.log import Log, Window
from motionlab.training.optim import flatten, make_optimizers, scaled_moves, set_lr, unflatten
from motionlab.training.prepare import alone, make_accelerator, prepared, unwrapped
from motionlab.training.shards import whole
from motionlab.training.signals import StopSignals
from motionlab.training.trained import demand_rest, frozen_entries, frozen_fingerprint, load_trained, trained_state


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    step: updates done. status: 'finished', or 'paused' when `until` was reached first. checkpoint: its folder.
    notes: what the run had to say, such as a broken checkpoint that it stepped over.
    """

    step: int
    status: str
    checkpoint: Path
    out_dir: Path
    notes: tuple[str, ...] = ()

    def export_ema(self, path: str | Path, dtype: torch.dtype = torch.bfloat16,
                   metadata: dict[str, Any] | None = None) -> Path:
        """`export_ema` of the last checkpoint."""
        return export_ema(self.checkpoint, path, dtype, metadata)

    def ema_state(self) -> dict[str, torch.Tensor]:
        """The averaged weights of what was trained, fp32: for `model.load_state_dict` where nothing is frozen, else for
        `load_trained`."""
        from safetensors.torch import load_file

        return load_file(self.checkpoint / "ema.safetensors")


def train(model: torch.nn.Module, loss_fn: Callable, data: Any, config: TrainConfig, resume: bool = True,
          on_sample: Callable | None = None, until: int | None = None) -> TrainResult:
    """Train `model` in place up to `config.steps`, from the newest whole checkpoint in `config.out_dir` if any.

    A parameter with an attribute `lr_scale` (a tensor of its shape, factors on its moves) learns faster or slower, entry by entry.
    What has no requires_grad is the base: it stays as it is, and no checkpoint holds it.

    Args:
        loss_fn: (model, batch, noise: SampleNoise) -> (loss, {"t": (b,) in [0, 1], "per_sample": (b,)}); the loss must
            be a mean over the samples.
        data: has `__len__` and `batch(indices: int64 (b,) on the CPU)`, which returns a tensor or a dict of tensors.
        resume: False demands an out_dir without checkpoints (they are never overwritten).
        on_sample: (model with the averaged weights, in eval mode, step) called every `sample_every` steps in the main
            process; numbers in a dict that it returns are logged. Its pictures belong below out_dir.
        until: pause after this step, 1 or more, with the learning rate still planned for `config.steps`.

    Returns:
        TrainResult. In the model are the last weights, not the averaged ones.

    Raises:
        Busy: another training has this out_dir.
        MotionLabError: a loss or gradient that is not finite (no update is made with it and the last checkpoint stays);
            a checkpoint of another model, base or run, or none that can be read; a frozen tensor that changed; a batch
            that the processes cannot share; a device that is not there; a loss_fn that returns something else.
        KeyboardInterrupt: after Ctrl-C, when the step is finished and its checkpoint written (SystemExit on SIGTERM).
    """
    if until is not None and until < 1:
        raise MotionLabError(f"until={until} leaves nothing to train.", fix="Give a step from 1 on, or None for all steps.")
    if config.threads:
        torch.set_num_threads(config.threads)
    run = _Run(make_accelerator(config), model, loss_fn, data, config, on_sample)
    with alone(run.accelerator, run.out_dir):
        run.start(resume)
        try:
            with StopSignals() as signals:
                return run.loop(config.steps if until is None else min(until, config.steps), signals)
        finally:
            run.log.close()


class _Run:
    """The moving parts of one call of `train`."""

    def __init__(self, accelerator, model, loss_fn, data, config: TrainConfig, on_sample):
        self.accelerator, self.config = accelerator, config
        self.loss_fn, self.data, self.on_sample = loss_fn, data, on_sample
        self.out_dir, self.main = Path(config.out_dir), accelerator.is_main_process
        self._share_batch()
        self.base = frozen_fingerprint(unwrapped(accelerator, model))  # while each process still has all of it
        self.model = prepared(accelerator, model, config, samples=bool(on_sample and config.sample_every))
        self.bare = unwrapped(accelerator, self.model)
        self.resting = frozen_entries(self.bare)
        self.optimizers, self.ema = make_optimizers(self.bare, config), Ema(self.bare, config.ema)
        self.params = [p for p in self.bare.parameters() if p.requires_grad]
        self.cursor = DataCursor(len(data), config.seed)
        self.step = self.began = 0
        self.checkpoint, self.notes, self.window = None, [], Window()

    def _share_batch(self) -> None:
        if len(self.data) == 0:
            raise MotionLabError("The training data is empty.", fix="Give data with len(data) > 0.")
        size, parts, rank = self.config.batch_size, self.accelerator.num_processes, self.accelerator.process_index
        if size % parts:
            raise MotionLabError(f"batch_size {size} cannot be shared by {parts} processes.",
                                 fix=f"Choose a multiple of {parts}.")
        self.positions = range(rank * size // parts, (rank + 1) * size // parts)

    # -- beginning

    def start(self, resume: bool) -> None:
        size = sum(p.numel() for p in self.params) * 4
        require_room(self.out_dir, (KEEP + 1) * 4 * size if self.main else 0)  # weights, average, two moments
        found, broken = latest(self.out_dir)
        if found is not None and not resume:
            raise MotionLabError(f"{self.out_dir} already has a checkpoint, {found.name}.",
                                 fix="Go on with resume=True, or choose another out_dir.")
        if found is not None:
            self._load(found)
        self.accelerator.wait_for_everyone()  # all have looked before the main process moves anything
        if self.main:
            self._tidy(broken)
        self.log = Log(self.config, self.main, self.step)
        for _, problem in broken:
            self.notes.append(f"{problem}; going on from {found.name}.")
            self.log.note(self.step, self.notes[-1])

    def _load(self, path: Path) -> None:
        state, tensors = read_checkpoint(path)
        check_same_run(path, state, self.config, len(self.data))
        check_same_model(path / "model.safetensors", tensors["model.safetensors"], self.bare)
        check_same_base(path, state.get("frozen"), self.base)
        load_trained(self.bare, tensors["model.safetensors"])
        self.ema.load(tensors["ema.safetensors"])
        unflatten(self.optimizers, tensors["optimizer.safetensors"])
        self.step, self.began, self.checkpoint = state["step"], state["step"], path

    def _tidy(self, broken: list[tuple[Path, str]]) -> None:
        (self.out_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        for path, _ in broken:
            target = path.with_name(f"broken_{path.name}")
            shutil.rmtree(target, ignore_errors=True)
            os.rename(path, target)
        for path in (self.out_dir / "checkpoints").glob("unfinished_*"):
            shutil.rmtree(path, ignore_errors=True)
        self.config.to_yaml(self.out_dir / "config.yaml")

    # -- steps

    def loop(self, until: int, signals: StopSignals) -> TrainResult:
        self.model.train()
        while self.step < until:
            stop = self._update(signals)
            self._after_step(until, stop)
            if stop:
                raise KeyboardInterrupt if stop == signal.SIGINT else SystemExit(128 + stop)
        if self.checkpoint is None or self.checkpoint.name != f"step_{self.step:08d}":
            self._save()
        status = "finished" if self.step >= self.config.steps else "paused"
        return TrainResult(self.step, status, self.checkpoint, self.out_dir, tuple(self.notes))

    def _update(self, signals: StopSignals) -> int:
        """One step; returns the stop signal that any process received, else 0."""
        set_lr(self.optimizers, lr_factor(self.config, self.step))
        self.bare.zero_grad(set_to_none=True)  # here, not after: a run that stopped on NaN may have left gradients
        loss, t, per_sample = self._forward()
        self.accelerator.backward(loss)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.params, self.config.grad_clip or math.inf))
        loss, t, per_sample, norm, stop = self._agree(loss, t, per_sample, norm, signals.received)
        self._demand_finite(loss, t, per_sample, norm)
        with scaled_moves(self.params):
            for optimizer in self.optimizers.values():
                optimizer.step()
        self.ema.update(self.step)
        self.window.add(loss, t, per_sample, norm)
        self.step += 1
        return stop

    def _forward(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        from accelerate.utils import send_to_device

        size, device, seed = self.config.batch_size, self.accelerator.device, self.config.seed
        first = self.step * size
        indices = self.cursor.indices(range(first + self.positions.start, first + self.positions.stop))
        batch = send_to_device(self.data.batch(indices), device)
        torch.manual_seed(seed_of("global", seed, self.step, self.accelerator.process_index))
        noise = SampleNoise(seed, self.step, self.positions, device, self.step / self.config.steps)
        with autocast(device, self.config.bf16):
            returned = self.loss_fn(self.model, batch, noise)
        return _check_returned(returned, len(self.positions))

    def _agree(self, loss, t, per_sample, norm, signal_number: int):
        """Put the processes' samples together in global order: every process then decides and logs the same."""
        device = self.accelerator.device
        scalars = [x.detach().to(device, torch.float32) for x in (loss, norm, torch.tensor(signal_number))]
        local = torch.cat([torch.stack(scalars), t.detach().to(device).float(), per_sample.detach().to(device).float()])
        rows = self.accelerator.gather(local[None]).cpu().double()  # one transfer per step
        b = len(self.positions)
        stop = int(rows[:, 2].max())
        return float(rows[:, 0].mean()), rows[:, 3:3 + b].flatten(), rows[:, 3 + b:].flatten(), float(rows[0, 1]), stop

    def _demand_finite(self, loss: float, t: torch.Tensor, per_sample: torch.Tensor, norm: float) -> None:
        bad = ~torch.isfinite(per_sample)
        if math.isfinite(loss) and math.isfinite(norm) and not bad.any():
            return
        what = "gradient" if math.isfinite(loss) and not bad.any() else "loss"
        times = ", ".join(f"{x:.3f}" for x in (t[bad] if bad.any() else t)[:8])
        last = self.checkpoint
        kept = f"{last} is the last good checkpoint" if last else "no checkpoint had been written yet"
        text = f"The {what} is not finite at step {self.step + 1} (t = {times}); {kept}."
        self.log.note(self.step, text)
        raise MotionLabError(text, fix="Lower lr or muon_lr, lengthen the warm-up, or look at those samples; "
                                       "the same call goes on from the last checkpoint.")

    def _demand_finite_weights(self, weights: dict[str, torch.Tensor]) -> None:
        bad = next((name for name, value in weights.items() if value.is_floating_point() and not torch.isfinite(value).all()), None)
        if bad:
            text = f"The weights '{bad}' are not finite after step {self.step}; no checkpoint was written."
            self.log.note(self.step, text)
            raise MotionLabError(text, fix="Lower lr or muon_lr (or a method's own rate); the same call goes on from the last checkpoint.")

    # -- between steps

    def _after_step(self, until: int, stop: int) -> None:
        if self.step == self.began + 1:  # what the loss moves behind the optimiser's back, it moves in every step
            demand_rest(self.bare, self.resting)
        every = self.config
        save = stop or _due(self.step, every.checkpoint_every) or self.step == until
        if save or _due(self.step, every.log_every):  # windows end at checkpoints: a resumed run logs the same rows
            row = {**self.window.row(), "lr": every.lr * lr_factor(every, self.step - 1)}
            self.log.progress(self.step, until, row)
            self.window = Window()
        if save:
            self._save()
        if self.on_sample and _due(self.step, every.sample_every) and not stop:
            self._sample()

    def _save(self) -> None:
        demand_rest(self.bare, self.resting)
        self.checkpoint = self.out_dir / "checkpoints" / f"step_{self.step:08d}"
        tensors = {"model.safetensors": trained_state(self.bare), "ema.safetensors": self.ema.state(self.bare),
                   "optimizer.safetensors": flatten(self.optimizers)}
        tensors = {file: {name: whole(value) for name, value in named.items()} for file, named in tensors.items()}
        self._demand_finite_weights(tensors["ema.safetensors"] | tensors["model.safetensors"])
        if self.main:
            write_checkpoint(self.out_dir, self.step, tensors, {
                "config": dataclasses.asdict(self.config), "data_length": len(self.data), "frozen": self.base,
                "data_cursor": self.step * self.config.batch_size, "rng": {"seed": self.config.seed, "step": self.step},
                "processes": self.accelerator.num_processes})
        self.accelerator.wait_for_everyone()

    def _sample(self) -> None:
        if self.main:
            self.bare.eval()
            with torch.no_grad(), self.ema.swapped_in():
                numbers = self.on_sample(self.bare, self.step)
            self.bare.train()
            if isinstance(numbers, dict):
                named = {f"sample/{name}": float(value) for name, value in numbers.items()}
                self.log.write({"step": self.step, **named})
        self.accelerator.wait_for_everyone()


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _check_returned(returned: Any, b: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    try:
        loss, parts = returned
        t, per_sample = parts["t"], parts["per_sample"]
        fits = loss.ndim == 0 and tuple(t.shape) == tuple(per_sample.shape) == (b,)
    except (TypeError, ValueError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise MotionLabError(f"loss_fn must return (loss, {{'t': ({b},), 'per_sample': ({b},)}}) with a scalar loss.",
                             fix="Compare with the example at the top of motionlab.training.")
    return loss, t, per_sample
