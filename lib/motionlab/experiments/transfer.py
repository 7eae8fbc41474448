"""Motion transfer as a sweep: an adapter tuned on one clip per task, sampled with other captions, and what its clips score.

    - {name: lora, method: lora, train: {lr: chosen, steps: 200}, seeds: [0]}
    - {name: other, method: lora, train: {lr: chosen, steps: 200}, measure: {adapter: other}}

A row goes task by task and keeps the clips of each: killed, it goes on at its task. Arms that differ in sampling or measuring only
share their adapters.
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import read_json, write_json
from motionlab.core.locks import turn
from motionlab.core.noise import prompt_seeds
from motionlab.core.protocol import protocol_version
from motionlab.data.sidecars import encoded
from motionlab.data.sources import Listed
from motionlab.data.store import held_data
from motionlab.data.transfer import TransferTask, load_transfer
from motionlab.experiments.arms import Arm, read_arm
from motionlab.experiments.finetune import begin, trainings, tuned_once
from motionlab.experiments.rows import kept, keep_sheet, load_evaluators, sampling_device
from motionlab.methods import open_method
from motionlab.methods.base import Method
from motionlab.metrics.transfer import all_targets, middle, per_task, route, source_limbs, transfer_rows
from motionlab.models.checkpoint import fingerprint
from motionlab.models.image_encoder import load_image_encoder
from motionlab.models.shipped import shipped
from motionlab.training import TrainConfig
from motionlab.world import Scene, render

SOURCES = ("truth", "source", "redraw", "generated")


@dataclass(frozen=True)
class Tuning:
    """Of a training on one clip: lr of AdamW, constant; steps of batch 1. clip: the task's "source", or its "answer", the true clip of
    its first target (what a tuning that knew it would bring)."""

    lr: float = 1e-3
    steps: int = 200
    clip: str = "source"

    def __post_init__(self):
        one_of(self.clip, ("source", "answer"), "clip to tune on")
        if self.steps < 1:
            raise MotionLabError(f"A tuning of {self.steps} steps.", fix="Give 1 or more.")


@dataclass(frozen=True)
class Asked:
    """Which tasks, and what is asked of their adapters.

    tasks: set of the protocol; n: how many of it, 0 for all; length: latent frames. caption: "target", or "own", the source's. adapter:
    "own", or "other", that of the task of the same tier whose route is least like this one's.
    """

    tasks: str = "transfer"
    n: int = 0
    length: int = 5
    caption: str = "target"
    adapter: str = "own"

    def __post_init__(self):
        one_of(self.caption, ("target", "own"), "caption to sample with")
        one_of(self.adapter, ("own", "other"), "adapter to sample with")


def check_arm(arm: dict, common: dict) -> None:
    """`check` of an ablations.yaml: errors as `read_arm`."""
    read_transfer_arm(arm, common)


def read_transfer_arm(arm: dict, common: dict) -> Arm:
    """An arm of this experiment: source "truth" (the targets' true clips through the codec), "source" (the source's), "redraw" (other
    clips of the source's caption) or "generated"."""
    return read_arm(arm, common, Tuning, Asked, SOURCES)


def run_row(arm: dict, seed: int, out_dir: Path, tier: str, **common) -> list[dict]:
    """A row per task: what the clips of its targets score.

    Args:
        arm: an entry of `ablations.yaml`, see `read_transfer_arm`. common: fields that all arms of the file share.

    Raises:
        MotionLabError: an unknown field or value, a missing checkpoint.
    """
    one, home = read_transfer_arm(arm, common), trainings(out_dir)
    if tier == "smoke":
        one = smaller(one)
    tasks = load_transfer(one.measure.tasks, one.measure.n or None)
    made = []
    for k, task in enumerate(tasks):
        made.append(kept(out_dir / f"{k:02d}.npy", lambda task=task: clips_of(one, task, tasks, seed, home)))
        print(f"task {k + 1}/{len(tasks)}", flush=True)
    keep_sheet(np.concatenate(made), out_dir / "samples.png")
    return scored(one, tasks, made, seed, scale_of(one, home, "transfer_examples" if tier == "smoke" else "transfer_dev"))


def smaller(arm: Arm) -> Arm:
    """An arm for tier smoke, which proves that code runs: two steps of training and of sampling, and two tasks that judge nothing."""
    return dataclasses.replace(arm, budget=arm.budget and dataclasses.replace(arm.budget, steps=2), sampling=quick(arm.sampling),
                               measure=dataclasses.replace(arm.measure, tasks="transfer_examples", n=2))


def quick(sampling):
    """Two steps at most."""
    return dataclasses.replace(sampling, steps=min(sampling.steps or 2, 2))


# ---------------------------------------------------------------------------------------------- clips
def clips_of(arm: Arm, task: TransferTask, tasks: Sequence[TransferTask], seed: int, home: Path) -> np.ndarray:
    """Clips (targets, f, h, w, 3) of a task by an arm."""
    frames = 4 * arm.measure.length - 3
    pipe = base_of(arm)
    if arm.source == "generated":
        donor = task if arm.measure.adapter == "own" else least_alike(task, tasks)
        return sampled(arm, adapted(arm, donor, seed, home).to(sampling_device()), task, seed)
    scenes = {"truth": [t.scene for t in task.targets], "source": [task.source] * len(task.targets),
              "redraw": task.redraws()[:len(task.targets)]}[arm.source]
    return pipe.decode(pipe.encode([render(scene, pipe.size[0], frames) for scene in scenes]))


def least_alike(task: TransferTask, tasks: Sequence[TransferTask]) -> TransferTask:
    """The task of the same tier whose route is least like this one's."""
    others = [other for other in tasks if other.tier == task.tier and other.route != task.route]
    if not others:
        raise MotionLabError(f"No other task of tier {task.tier} among {len(tasks)}.", fix="Ask for more tasks: n is too small.")
    ways = {one.id: middle(*source_limbs(one.source, (48, 48), 17)) for one in (*others, task)}
    return min(others, key=lambda other: route(ways[other.id], ways[task.id]))


def sampled(arm: Arm, pipe, task: TransferTask, seed: int) -> np.ndarray:
    """Clips of a task's targets by the arm's method; noise follows from target and seed."""
    texts = [t.text if arm.measure.caption == "target" else task.caption for t in task.targets]
    seeds = prompt_seeds([t.noise for t in task.targets], seed)
    wanted = arm.method.truth(arm.sampling)
    shown = encoded(Listed([task.clip(frames=pipe.frames)]), wanted, pipe) if wanted else {}
    given = {name: value.expand(len(texts), *value.shape[1:]) for name, value in shown.items()} or None
    states = arm.method.sample(pipe, texts, seeds, arm.sampling, given=given)
    return pipe.decode(arm.method.video(states))


# ---------------------------------------------------------------------------------------------- adapters
def adapted(arm: Arm, task: TransferTask, seed: int, home: Path):
    """The generator with the arm's adapter for a task: tuned now, gone on with, or found below `home`; as it is where nothing is tuned."""
    if arm.budget is None:
        return base_of(arm)
    folder = adapter_folder(arm, task, seed, home)
    (scene, caption), config = _shown(arm.budget, task), tuning_config(arm.budget, seed, folder / "training")

    def clip(pipe):
        return held_data(Listed([render(scene, pipe.size[0], pipe.frames)]), [caption], pipe, arm.method.wants())

    pipe = tuned_once(arm.method, lambda: base_of(arm), clip, config, folder)
    shutil.rmtree(folder / "training" / "checkpoints", ignore_errors=True)          # of hundreds of adapters
    return pipe


def base_of(arm: Arm):
    """The generator that the arm starts from, at rest."""
    return begin(dataclasses.replace(arm, budget=None)).requires_grad_(False)


def adapter_folder(arm: Arm, task: TransferTask, seed: int, home: Path) -> Path:
    """Where the adapter of these fields on this very clip lies, below `home`."""
    scene, caption = _shown(arm.budget, task)
    known = {"method": arm.method.name, "settings": dataclasses.asdict(arm.method), "budget": dataclasses.asdict(arm.budget),
             "length": arm.measure.length, "seed": seed, "start": fingerprint(shipped(arm.weights)), "clip": scene.to_dict(),
             "caption": caption}
    name = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]
    return home / f"{arm.method.name}-on-one-clip" / name


def _shown(tuning: Tuning, task: TransferTask) -> tuple[Scene, str]:
    """The scene that is tuned on, and its caption."""
    answer = task.of("a")[0]
    return (task.source, task.caption) if tuning.clip == "source" else (answer.scene, answer.text)


def tuning_config(tuning: Tuning, seed: int, out_dir: Path) -> TrainConfig:
    """One clip a step, AdamW with betas 0.9 and 0.95 and weight decay 1e-4 at a constant rate, the last weights (DeT's release, card 4)."""
    return TrainConfig(steps=tuning.steps, batch_size=1, lr=tuning.lr, beta2=0.95, weight_decay=1e-4, warmup=0, ema=0.0, bf16=True,
                       checkpoint_every=100, seed=seed, out_dir=str(out_dir))


# ---------------------------------------------------------------------------------------------- numbers
def scored(arm: Arm, tasks: Sequence[TransferTask], made: Sequence[np.ndarray], seed: int, scale: Scale) -> list[dict]:
    """Columns of `metrics.transfer.per_task`, a row per task."""
    encoder = load_image_encoder(shipped("image_encoder"))
    rows = transfer_rows(np.concatenate(made), all_targets(tasks), load_evaluators(), arm.name, seed, encoder,
                         {name: tuple(ends) for name, ends in scale.ends.items()}, scale.every)
    return per_task(rows)


@dataclass(frozen=True)
class Scale:
    """What m is 0 and 1 at. ends: name of a reader -> mean mf on dev of base and caption, and of the true clips through the codec. every:
    which frames motion fidelity looks at, those that leave more room between the two."""

    ends: dict[str, list[float]]
    every: int = 1


def scale_of(arm: Arm, home: Path, tasks: str = "transfer_dev") -> Scale:
    """The scale of m: measured once for a base and a sampler on the dev tasks, and kept below `home`.

    Raises:
        MotionLabError: the true clips are not above the base, so that there is no room.
    """
    plain = Method.Sampling(steps=arm.sampling.steps, w=arm.sampling.w)
    base = Arm("base", "generated", arm.weights, open_method("plain"), None, plain, Asked(tasks, length=arm.measure.length))
    known = {"start": fingerprint(shipped(arm.weights)), "steps": plain.steps, "w": plain.w, "measure": dataclasses.asdict(base.measure),
             "readers": [fingerprint(shipped(f"evaluator_{name}")) for name in ("0", "1")], "protocol": protocol_version()}
    path = home / f"scale-{hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]}.json"
    with turn(home / f".lock-{path.stem}", "the scale of m"):
        if not path.is_file():
            write_json(path, dataclasses.asdict(_measured_scale(base, home)))
    return from_values(Scale, read_json(path), "scale")


def _measured_scale(base: Arm, home: Path) -> Scale:
    tasks, readers, found = load_transfer(base.measure.tasks, base.measure.n or None), load_evaluators(), {}
    clips = {source: np.concatenate([clips_of(dataclasses.replace(base, source=source), task, tasks, 0, home) for task in tasks])
             for source in ("generated", "truth")}
    for every in (1, 4):
        rows = {source: transfer_rows(made, all_targets(tasks), readers, source, every=every) for source, made in clips.items()}
        found[every] = {name: [float(np.nanmean([row[f"mf_{name}"] for row in rows[source]])) for source in ("generated", "truth")]
                        for name in readers}
    room = {every: sum(truth - none for none, truth in ends.values()) for every, ends in found.items()}
    every = max(room, key=room.get)
    return Scale(found[every], every)
