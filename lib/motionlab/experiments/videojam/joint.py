"""The joint model in the kit's protocol: its training (shared by arms that differ in sampling), its file, its clips."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from motionlab.core.config import from_values
from motionlab.diffusion import SAMPLERS, time_grid
from motionlab.experiments.arms import NOISE_STRIDE, sampling_device
from motionlab.experiments.finetune import bank_home, begin, budget, training_folder, tuning_bank
from motionlab.data.prompts import Prompt
from motionlab.core.paths import repo_root
from motionlab.core.protocol import read_protocol
from motionlab.models.small.backbone import load_backbone
from motionlab.models.checkpoint import fill, read_model, save_model
from motionlab.models.small.codec import load_codec
from motionlab.core.noise import prompt_noise
from motionlab.models.shipped import shipped
from motionlab.papers.videojam import Guidance, JointBackbone, JointRecipe, inner_guidance, joint_training_loss, split
from motionlab.core.precision import autocast
from motionlab.data.latents import JointLatents, open_joint_latents
from motionlab.pretrain.stages import checkpoint
from motionlab.training import train
from motionlab.video import as_frames

TRAINED = ("lr", "new_lr", "clip_steps", "clips", "layers", "teacher", "noise", "motion_weight", "new", "text_dropout", "motion_dropout")
RECIPE = ("motion_weight", "text_dropout", "motion_dropout")
KIND = "motionlab.joint"


def trained(arm: dict, seed: int, home: Path, length: int = 5) -> JointBackbone:
    """The joint model of an arm's training fields: trained now, gone on with, or found below `home`."""
    start, folder = arm["weights"], folder_of(arm, seed, home, length)
    path, base = folder / "joint.safetensors", begin(start, arm.get("layers"), folder)
    if not path.is_file():
        model = JointBackbone(load_backbone(base), arm.get("new", "zero"), arm.get("new_lr", 1.0))
        recipe = from_values(JointRecipe, {k: arm[k] for k in RECIPE if k in arm}, "joint recipe")
        data = motion_data(start, arm.get("teacher", "exact"), arm.get("noise", 0.0), length, arm.get("clips"))
        usual = read_protocol()["budget"]["fine_tune_clip_steps"]["videojam"]
        config = budget(seed, arm["lr"], arm.get("clip_steps") or usual, folder / "training")
        result = train(model, joint_training_loss(recipe, model.grammar.null(1)), data, config)
        model.load_state_dict(result.ema_state())
        save_joint(model, path, {k: arm[k] for k in TRAINED if k in arm} | {"seed": seed})
    return load_joint(path, base)


def joint_stage(settings: dict, work: Path, out: Path, until: int | None = None) -> Path:
    """The stage `joint` of `make pretrain`: trains the joint model that notebooks load, or takes the sweep's where it has it.

    Args:
        settings: of `pretrain.yaml`; `arm` holds training fields as an arm of `ablations.yaml` does, beside seed and length.
        work: its base is taken where it has one; gets the training's log. until: not used, the training resumes by itself.

    Raises:
        MotionLabError: a base of `work` that was trained with another codec than the shipped one, whose latents it is given.
    """
    base, length, seed = checkpoint("base", work), settings.get("length", 5), settings.get("seed", 0)
    load_backbone(base, load_codec(shipped("codec")))
    arm, home = {"weights": str(base)} | settings["arm"], repo_root() / "runs" / "sweep" / "videojam" / "full" / "trained"
    trained(arm, seed, home, length)
    folder = folder_of(arm, seed, home, length)
    for source, target in ((folder / "training" / "log.jsonl", work / out.stem / "log.jsonl"), (folder / "joint.safetensors", out)):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return out


def folder_of(arm: dict, seed: int, home: Path, length: int = 5) -> Path:
    """Where the training of an arm's training fields lies."""
    fields = {k: arm[k] for k in TRAINED if k in arm}
    return training_folder(home, arm["weights"], fields | {"kind": "joint", "length": length, "seed": seed})


def save_joint(model: JointBackbone, path: Path, fields: dict) -> Path:
    """All weights of a joint model in bf16, with the fields that it was trained by."""
    return save_model(model.base, path, KIND, torch.bfloat16, fields=json.dumps(fields))


def load_joint(path: Path, base: Path | str = "base") -> JointBackbone:
    """The joint model of a file that `save_joint` wrote; `base`, a checkpoint's name or file, gives its sizes.

    Raises:
        MotionLabError: no such file, truncated, or the file of something else.
    """
    _, _, tensors = read_model(path, KIND, "joint model")
    model = JointBackbone(load_backbone(shipped(base) if isinstance(base, str) else base))
    fill(model.base, tensors, path)
    return model.eval()


def motion_data(weights: str, teacher: str = "exact", noise: float = 0.0, length: int = 5, clips: int | None = None) -> JointLatents:
    """Clips of the fine-tuning split with their motion latents."""
    grammar = load_backbone(shipped(weights)).grammar
    return open_joint_latents(tuning_bank(4 * length - 3, clips), shipped("codec"), bank_home(), grammar, teacher, noise)


@torch.no_grad()
def joint_clips(model: JointBackbone, prompts: list[Prompt], seed: int, guidance: Guidance, length: int = 5, steps: int = 20,
                shift: float = 2.0, batch: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Generated clips and the flow pictures generated with them, each uint8 (n, f, h, w, 3).

    The video's starting noise is that of every other arm; the motion's comes from the same seeds, shifted.
    """
    device, c = sampling_device(), model.config
    codec, model = load_codec(shipped("codec")).to(device), model.to(device)
    shape, seeds = (length, c.channels, c.height, c.width), [p.noise + NOISE_STRIDE * seed for p in prompts]
    z0 = torch.cat([prompt_noise(seeds, shape), prompt_noise([s + 1 for s in seeds], shape)], 2)
    tokens, grid, out = model.grammar.encode([p.text for p in prompts]), time_grid(steps, shift), []
    for part in torch.arange(len(prompts)).split(batch):
        u = inner_guidance(model, tokens[part].to(device), guidance)
        with autocast(device):
            z = SAMPLERS["euler"](u, z0[part].to(device), grid)
            out.append([as_frames(codec.decode(half)) for half in split(z)])
    return tuple(np.concatenate(half) for half in zip(*out))
