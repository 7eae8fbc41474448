"""A sweep over a generator and videos of your own: how well do its arms foretell videos that they were not trained on?

    paper: mine
    row: motionlab.experiments.own_videos:run_row
    check: motionlab.experiments.own_videos:check_arm
    common: {weights: /models/CogVideoX-2b, videos: /clips, held_out: 16}
    arms:
      - {name: as_it_is}
      - {name: lora, method: lora, train: {lr: 1.0e-4, steps: 500}, grid: {rank: [16, 64]}, seeds: [0]}
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.noise import SampleNoise
from motionlab.core.paths import repo_root
from motionlab.data.sidecars import Sidecar
from motionlab.data.sources import Folder
from motionlab.data.store import Data, open_data
from motionlab.experiments.arms import Arm, read_arm
from motionlab.experiments.finetune import trainings
from motionlab.experiments.rows import sampling_device
from motionlab.experiments.tuning import TuneConfig, check_clips, tune
from motionlab.methods.files import load_method
from motionlab.models.open import open_pipe
from motionlab.models.pipe import Pipe


@dataclass(frozen=True)
class Tuned:
    """Of a training, see `experiments.tuning.TuneConfig`."""

    lr: float = 1e-4
    steps: int = 500
    batch_size: int = 1
    warmup: int = 0
    ema: float = 0.0
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Shown:
    """Which videos, and how they are measured.

    videos: folder with *.mp4 and captions, see `data.sources.find_clips`; held_out: of them the last so many, by name, are measured
    and never trained on. frames, height, width, fps: of the clips, 0 for the generator's own. draws: of noise and time for each video.
    """

    videos: str = ""
    held_out: int = 8
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    draws: int = 16

    def __post_init__(self):
        for name in ("held_out", "draws"):
            if getattr(self, name) < 1:
                raise MotionLabError(f"{name} is {getattr(self, name)}.", fix="Give 1 or more.")


def check_arm(arm: dict, common: dict) -> None:
    """`check` of an ablations.yaml: errors as `read_own_arm`, and as `tuning.check_clips`."""
    one = read_own_arm(arm, common)
    check_clips(tuning(one, 0, Path("runs")), one.method.wants())


def read_own_arm(arm: dict, common: dict) -> Arm:
    """An arm of this experiment; weights: folder of a snapshot, "base" for the kit's own generator."""
    return read_arm(arm, common, Tuned, Shown, ("generated",))


def run_row(arm: dict, seed: int, out_dir: Path, tier: str, **common) -> list[dict]:
    """Rows {item, arm, seed, loss, loss_early, loss_late}, one per held-out video: mean over the draws of |u - v|^2 of the video,
    in all, and at t < 0.5 and t >= 0.5.

    Noise, times and known frames are drawn as training draws them, from the video's place and the draw: every arm and seed meets the same.

    Raises:
        MotionLabError: an unknown field or value; as `tuning.tune`.
    """
    one = read_own_arm(arm, common)
    if tier == "smoke":
        one = smaller(one)
    config = tuning(one, seed, trainings(out_dir))
    pipe = trained(one, config)
    source = dataclasses.replace(config.source(pipe), leave_out=-one.measure.held_out)
    data = open_data(source, pipe, (*one.method.judging(), *(Sidecar(kind) for kind in pipe.reads)), Path(config.out_dir) / "held_out")
    return [{"item": name, "arm": one.name, "seed": seed} | row for name, row in zip(source.files, losses(one, pipe, data))]


def smaller(arm: Arm) -> Arm:
    """An arm for tier smoke, which proves that code runs: two steps, two draws."""
    budget = arm.budget and dataclasses.replace(arm.budget, steps=2)
    return dataclasses.replace(arm, budget=budget, measure=dataclasses.replace(arm.measure, draws=2))


def tuning(arm: Arm, seed: int, home: Path) -> TuneConfig:
    """The arm's training; its folder, below `home`, is that of these very settings. An arm that is not trained has one of no use."""
    backbone = "" if arm.weights == "base" else str((repo_root() / arm.weights).resolve())
    videos = str((repo_root() / arm.measure.videos).resolve()) if arm.measure.videos else ""
    clips = {name: getattr(arm.measure, name) for name in ("frames", "height", "width", "fps")}
    settings = dataclasses.asdict(arm.budget or Tuned()) | clips | {"backbone": backbone, "videos": videos, "seed": seed}
    known = settings | {"method": arm.method.name, "of": dataclasses.asdict(arm.method), "leave_out": arm.measure.held_out}
    name = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]
    return TuneConfig(**settings, leave_out=arm.measure.held_out, out_dir=str(home / f"{arm.method.name}-on-your-videos" / name))


def trained(arm: Arm, config: TuneConfig) -> Pipe:
    """The arm's generator: tuned now, gone on with, or found; as it is where nothing is trained."""
    path = Path(config.out_dir) / f"{arm.method.name}.safetensors"
    if arm.budget and not path.is_file():
        tune(arm.method, config)
    pipe = open_pipe(config.backbone, config.frames or None, config.height or None, config.width or None, device=str(sampling_device()),
                     cache=Path(config.out_dir) / "text", dtype=torch.float32)
    return load_method(arm.method, pipe, path) if arm.budget else pipe.requires_grad_(False)


@torch.no_grad()
def losses(arm: Arm, pipe: Pipe, data: Data) -> list[dict[str, float]]:
    """{loss, loss_early, loss_late} of each clip."""
    from accelerate.utils import send_to_device

    loss_fn, out = arm.method.judging_loss(pipe), []
    for k in range(len(data)):
        batch, found = send_to_device(data.batch(torch.tensor([k])), pipe.device), []
        for draw in range(arm.measure.draws):
            about = loss_fn(pipe, batch, SampleNoise(0, draw, range(k, k + 1), pipe.device))[1]
            found.append((float(about["t"]), float(about["per_sample"])))
        halves = {"loss": found, "loss_early": [f for f in found if f[0] < 0.5], "loss_late": [f for f in found if f[0] >= 0.5]}
        out.append({name: sum(value for _, value in part) / len(part) if part else float("nan") for name, part in halves.items()})
    return out
