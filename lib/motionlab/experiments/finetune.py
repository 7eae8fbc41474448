"""The protocol's standard fine-tune without any cure: what every cure is compared with."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.paths import repo_root
from motionlab.core.protocol import read_protocol
from motionlab.models.small.backbone import deeper, load_backbone, save_backbone
from motionlab.models.checkpoint import fingerprint
from motionlab.models.shipped import shipped
from motionlab.data.bank import BankConfig
from motionlab.pretrain.base import BaseRecipe, train_base
from motionlab.data.latents import Latents, open_latents
from motionlab.training import TrainConfig


def continued_training(start: str, home: Path, seed: int, lr: float, clip_steps: int | None = None, length: int = 5,
                       clips: int | None = None, layers: int | None = None) -> Path:
    """Continue the base's own training for the standard budget; returns the bf16 file of the averaged weights.

    Args:
        start: shipped checkpoint by name, or a path below the repository. home: of the trainings that arms share.
        lr: learning rate of AdamW and Muon. clip_steps: clips seen in total; clips: of how many (protocol: 2 400 of 2 000).
        layers: train on as a deeper model, which begins as the same function (`models.backbone.deeper`).

    Raises:
        MotionLabError: a budget that is no whole number of batches.
    """
    training = budget(seed, lr, clip_steps)
    folder = training_folder(home, start, {"kind": "continued", "lr": lr, "clip_steps": clip_steps, "length": length, "clips": clips,
                                           "layers": layers, "seed": seed})
    path = folder / "ema.safetensors"
    if path.is_file():
        return path
    first, data = begin(start, layers, folder), tuning_data(start, length, clips)
    return train_base(load_backbone(first).config, data, BaseRecipe(length=length), training, folder, first)


def training_folder(home: Path, start: str, fields: dict) -> Path:
    """Where a training of these fields from this checkpoint (by contents) under the protocol's budget lies, below `home`.

    Arms that differ in sampling or measuring only find the same one. It does not know of changed code: `--redo` measures a row
    again, deleting `home` trains again.
    """
    known = {k: v for k, v in fields.items() if v is not None} | {"start": fingerprint(shipped(start)), "budget": read_protocol()["budget"]}
    return home / f"{fields['kind']}-{hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]}"


def begin(start: str, layers: int | None, out_dir: Path) -> Path:
    """The checkpoint to go on from; a deeper one is written to `out_dir`."""
    if layers is None:
        return shipped(start)
    return save_backbone(deeper(load_backbone(shipped(start)), layers), out_dir / f"start_{layers}.safetensors")


def tuning_data(start: str, length: int = 5, clips: int | None = None) -> Latents:
    """Latents of the fine-tuning split's clips, as many as the protocol says."""
    return open_latents(tuning_bank(4 * length - 3, clips), shipped("codec"), bank_home(), load_backbone(shipped(start)).grammar)


def tuning_bank(frames: int = 17, clips: int | None = None) -> BankConfig:
    """The fine-tuning split's clips, with flow pictures: one bank for all arms of all papers."""
    return BankConfig(split="fine_tuning", clips=clips or read_protocol()["budget"]["fine_tune_clips"], frames=frames, flow=True)


def bank_home() -> Path:
    """Where rendered banks and their latents are kept; can be deleted at any time."""
    return repo_root() / "runs" / "banks"


def budget(seed: int, lr: float, clip_steps: int | None = None, out_dir: Path | str = "runs/train") -> TrainConfig:
    """The standard fine-tune as a training config: a short warm-up, then batch, schedule and EMA of the protocol."""
    protocol = read_protocol()["budget"]
    total, batch = clip_steps or protocol["fine_tune_clip_steps"]["default"], protocol["fine_tune_batch"]
    if total % batch:
        raise MotionLabError(f"{total} clip-steps are no whole number of batches of {batch}.", fix=f"For example {total // batch * batch}.")
    return TrainConfig(steps=total // batch, batch_size=batch, optimizer="muon", lr=lr, muon_lr=lr, warmup=20,
                       schedule=protocol["fine_tune_schedule"], ema=0.98, bf16=True, checkpoint_every=50, seed=seed,
                       out_dir=str(out_dir))                                 # threads: as the sweep shares them out
