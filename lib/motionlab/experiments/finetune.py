"""The standard fine-tune, by any method: what a cure is trained with, and what it is compared with."""
from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from motionlab.core import digests
from motionlab.core.errors import MotionLabError
from motionlab.core.digests import copy_recorded
from motionlab.core.files import copy_file
from motionlab.core.locks import turn
from motionlab.core.paths import repo_root
from motionlab.core.protocol import read_protocol
from motionlab.data.bank import BankConfig
from motionlab.data.sidecars import Sidecar
from motionlab.data.sources import World
from motionlab.data.store import Data, open_data
from motionlab.experiments.arms import Arm, Budget, read_arm
from motionlab.experiments.heads import BATCHES, settled
from motionlab.methods.base import Method
from motionlab.methods.files import load_method, save_method
from motionlab.models.checkpoint import fingerprint
from motionlab.models.shipped import shipped
from motionlab.models.small.backbone import deeper, load_backbone
from motionlab.models.small.codec import load_codec
from motionlab.models.small.pipe import SmallPipe, open_small
from motionlab.pretrain.stages import checkpoint
from motionlab.training import TrainConfig, train
from motionlab.training.trained import load_trained


def trained(arm: Arm, seed: int, home: Path) -> SmallPipe:
    """The arm's generator: trained now, gone on with, or found below `home`; untrained where the arm says so.

    Arms that differ in sampling or measuring only share one training.

    Raises:
        MotionLabError: a budget that is no whole number of batches, no such checkpoint.
    """
    if arm.budget is None:
        return begin(arm).requires_grad_(False)
    folder = training_folder(arm, seed, home)

    def clips(pipe: SmallPipe) -> Data:
        return open_data(World(tuning_bank(arm.budget.clips, pipe.frames)), pipe, arm.method.wants(), bank_home())

    def dev(pipe: SmallPipe, sidecars: tuple[Sidecar, ...]) -> Data:
        return open_data(World(dev_bank(arm.budget, pipe.frames)), pipe, sidecars, bank_home())

    return tuned_once(arm.method, lambda: begin(arm), clips, training_config(arm.budget, seed, folder / "training"), folder, dev)


def tuned_once(method: Method, start: Callable[[], SmallPipe], clips: Callable[[SmallPipe], Data], config: TrainConfig,
               folder: Path, dev: Callable[[SmallPipe, tuple[Sidecar, ...]], Data] | None = None) -> SmallPipe:
    """The generator of `start` with what the method trains on `clips`: trained now, gone on with, or found as folder/trained.safetensors.

    A method with a head is settled first (`experiments.heads`), on clips of `dev` with the sidecars that it asks for. Whoever asks for the
    same folder at the same time, in any sweep, waits for it.
    """
    path = folder / "trained.safetensors"
    with turn(folder.parent / f".lock-{folder.name}", f"training {folder.name}"):
        if digests.problem_of(path):
            pipe = start()
            method.attach(pipe)
            data = clips(pipe)
            method = settled(method, pipe, data, config, folder, dev and partial(dev, pipe))
            result = train(pipe, method.loss(pipe), data, config)
            path.unlink(missing_ok=True)
            save_method(method, load_trained(pipe, result.ema_state()), path, {"seed": str(config.seed), "steps": str(result.step)})
            digests.record(path)
    return load_method(method, start(), path)


def begin(arm: Arm) -> SmallPipe:
    """The generator that the arm starts from."""
    frames = 4 * arm.measure.length - 3
    pipe = open_small(shipped(arm.weights), frames)
    if arm.budget and arm.budget.layers:
        pipe = SmallPipe(deeper(pipe.backbone, arm.budget.layers), pipe.codec, pipe.name, frames)
    return pipe.eval()


def trainings(row: Path) -> Path:
    """Where a row's training lies, or will: one place for the sweeps of all papers, so that they share their comparators.

    Args:
        row: the row's own folder, <out>/<paper>/<tier>/<row>.
    """
    return row.parents[2] / "trained"


def training_folder(arm: Arm, seed: int, home: Path) -> Path:
    """Where the training of these fields from this checkpoint (by contents) under the protocol's budget lies, below `home`.

    It does not know of changed code: `--redo` measures a row again, deleting `home` trains again.
    """
    known = {"method": arm.method.name, "settings": dataclasses.asdict(arm.method), "budget": dataclasses.asdict(arm.budget),
             "length": arm.measure.length, "seed": seed, "start": fingerprint(shipped(arm.weights)), "protocol": read_protocol()["budget"]}
    return home / f"{arm.method.name}-{hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]}"


def tuning_bank(clips: int = 0, frames: int = 17) -> BankConfig:
    """The fine-tuning split's clips, as many as the protocol says and in its balance of motions: one set for all arms of all papers."""
    budget = read_protocol()["budget"]
    return BankConfig(split="fine_tuning", clips=clips or budget["fine_tune_clips"], frames=frames,
                      balanced=bool(budget.get("fine_tune_balanced")))


def dev_bank(budget: Budget, frames: int = 17) -> BankConfig:
    """Clips that a method with a head is settled on, never those that it trains on: at most as many as it is trained with."""
    batch = read_protocol()["budget"]["fine_tune_batch"]
    return BankConfig(split="dev", clips=min(BATCHES * batch, budget.clip_steps or BATCHES * batch), frames=frames)


def bank_home() -> Path:
    """Where latents and sidecars are kept; can be deleted at any time."""
    return repo_root() / "runs" / "banks"


def training_config(budget: Budget, seed: int, out_dir: Path | str = "runs/train") -> TrainConfig:
    """The standard fine-tune as a training config: a short warm-up, then batch, schedule and EMA of the protocol."""
    protocol = read_protocol()["budget"]
    total, batch = budget.clip_steps or protocol["fine_tune_clip_steps"]["default"], protocol["fine_tune_batch"]
    for count in (total, budget.decay):
        if count % batch:
            raise MotionLabError(f"{count} clip-steps are no whole number of batches of {batch}.",
                                 fix=f"For example {count // batch * batch}.")
    return TrainConfig(steps=total // batch, batch_size=batch, optimizer="muon", lr=budget.lr, muon_lr=budget.lr, warmup=20,
                       schedule=protocol["fine_tune_schedule"], decay=budget.decay // batch, ema=0.98, bf16=True, checkpoint_every=50,
                       seed=seed, out_dir=str(out_dir))                                 # threads: as the sweep shares them out


def method_stage(settings: dict, work: Path, out: Path, until: int | None = None) -> Path:
    """A stage of `make pretrain` that ships what a method trained, or takes the sweep's where it has it.

    Args:
        settings: of `pretrain.yaml`: `arm` as in an ablations.yaml, seed.
        work: its base is taken where it has one; gets the training's log. until: not used, the training resumes by itself.

    Raises:
        MotionLabError: a base of `work` that was trained with another codec than the shipped one, whose latents it is given.
    """
    base, seed = checkpoint("base", work), settings.get("seed", 0)
    load_backbone(base, load_codec(shipped("codec")))
    arm, home = read_arm({"weights": str(base)} | settings["arm"]), repo_root() / "runs" / "sweep" / "trained"
    trained(arm, seed, home)
    folder = training_folder(arm, seed, home)
    copy_file(folder / "training" / "log.jsonl", work / out.stem / "log.jsonl")
    return copy_recorded(folder / "trained.safetensors", out)
