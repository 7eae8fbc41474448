"""The protocol's standard fine-tune without any cure: what every cure is compared with."""
from __future__ import annotations

from pathlib import Path

from motionlab.errors import MotionLabError
from motionlab.ledger.paths import repo_root
from motionlab.ledger.protocol import read_protocol
from motionlab.models.backbone import load_backbone
from motionlab.models.shipped import shipped
from motionlab.pretrain.bank import BankConfig
from motionlab.pretrain.base import BaseRecipe, train_base
from motionlab.pretrain.latents import Latents, open_latents
from motionlab.training import TrainConfig


def continued_training(start: str, out_dir: Path, seed: int, lr: float, clip_steps: int | None = None, length: int = 5) -> Path:
    """Continue the base's own training for the standard budget; returns the bf16 file of the averaged weights.

    Args:
        start: shipped checkpoint by name, or a path below the repository.
        lr: learning rate of AdamW and Muon. clip_steps: clips seen in total (protocol: 4 000).

    Raises:
        MotionLabError: a budget that is no whole number of batches.
    """
    training = budget(seed, lr, clip_steps)
    path = out_dir / "training" / "ema.safetensors"
    if path.is_file():
        return path
    config = load_backbone(shipped(start)).config
    return train_base(config, tuning_data(start, length), BaseRecipe(length=length), training, path.parent, shipped(start))


def tuning_data(start: str, length: int = 5) -> Latents:
    """Latents of the fine-tuning split's clips, as many as the protocol says."""
    return open_latents(tuning_bank(4 * length - 3), shipped("codec"), bank_home(), load_backbone(shipped(start)).grammar)


def tuning_bank(frames: int = 17) -> BankConfig:
    """The fine-tuning split's clips, with flow pictures: one bank for all arms of all papers."""
    return BankConfig(split="fine_tuning", clips=read_protocol()["budget"]["fine_tune_clips"], frames=frames, flow=True)


def bank_home() -> Path:
    """Where rendered banks and their latents are kept; can be deleted at any time."""
    return repo_root() / "runs" / "banks"


def budget(seed: int, lr: float, clip_steps: int | None = None, out_dir: Path | str = "runs/train") -> TrainConfig:
    """The standard fine-tune as a training config: constant rate after a short warm-up, batch and EMA of the protocol."""
    protocol = read_protocol()["budget"]
    total, batch = clip_steps or protocol["fine_tune_clip_steps"]["default"], protocol["fine_tune_batch"]
    if total % batch:
        raise MotionLabError(f"{total} clip-steps are no whole number of batches of {batch}.", fix=f"For example {total // batch * batch}.")
    return TrainConfig(steps=total // batch, batch_size=batch, optimizer="muon", lr=lr, muon_lr=lr, warmup=20, ema=0.98, bf16=True,
                       checkpoint_every=50, seed=seed, threads=2, out_dir=str(out_dir))
