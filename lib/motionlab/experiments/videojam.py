"""VideoJAM's arms as sweep rows: joint training by the protocol, Inner-Guidance and its ablations, all controls."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from motionlab.config import from_values
from motionlab.diffusion import SAMPLERS, time_grid
from motionlab.experiments import arms as plain
from motionlab.experiments.finetune import bank_home, begin, budget, training_folder, tuning_bank
from motionlab.experiments.measure import measure
from motionlab.experiments.prompts import Prompt, load_prompts
from motionlab.ledger.protocol import read_protocol
from motionlab.models.backbone import load_backbone
from motionlab.models.checkpoint import fill, read_model, save_model
from motionlab.models.codec import load_codec
from motionlab.models.generate import prompt_noise
from motionlab.models.image_encoder import load_image_encoder
from motionlab.models.shipped import shipped
from motionlab.papers.videojam import Guidance, JointBackbone, JointRecipe, inner_guidance, joint_training_loss, split
from motionlab.pretrain.latents import JointLatents, open_joint_latents
from motionlab.training import train
from motionlab.video import as_frames

TRAINED = ("lr", "clip_steps", "clips", "layers", "teacher", "noise", "motion_weight", "new", "text_dropout", "motion_dropout")
RECIPE = ("motion_weight", "text_dropout", "motion_dropout")
KIND = "motionlab.joint"
GUIDED = ("w1", "w2", "interval", "rule", "motion_half")


def run_row(arm: dict, seed: int, out_dir: Path, tier: str, prompts: str = "test", n: int | None = None, length: int = 5, steps: int = 20,
            w: float = 2.0, weights: str = "base") -> list[dict]:
    """Clips of one arm and what they score; with `measure: shuffle`, what its loss says of shuffled frames instead.

    Args:
        arm: source "joint" (train from `weights`, or find the training that another arm with the same training fields left),
            or a source of `experiments.arms.run_row`. Training fields: lr, clip_steps, clips, layers, teacher, noise,
            motion_weight, new, text_dropout, motion_dropout. Guidance fields: w1, w2, interval, rule, motion_half.

    Raises:
        MotionLabError: an unknown source or field value, a missing checkpoint.
    """
    arm = arm | {"n": arm.get("n", n), "weights": arm.get("weights", weights)}
    if tier == "smoke":
        arm, steps = plain.smaller(arm, steps)
    if arm.get("measure") == "shuffle":
        from motionlab.experiments.videojam_shuffle import shuffle_gap

        return shuffle_gap(arm, seed, out_dir.parent / "trained", length)
    if arm.get("source") != "joint":
        return plain.run_row(arm, seed, out_dir, tier, prompts, n, length, steps, w)
    chosen = load_prompts(arm.get("prompts", prompts), arm["n"])

    def make():
        model = trained(arm, seed, out_dir.parent / "trained", length)
        return joint_clips(model, chosen, seed, from_values(Guidance, guidance_of(arm, w), "guidance"), length, steps)[0]

    frames = plain.kept(out_dir / "frames.npy", make)
    plain.keep_sheet(frames, out_dir / "samples.png")
    return measure(frames, chosen, plain.load_evaluators(), arm["name"], seed, load_image_encoder(shipped("image_encoder")))


def guidance_of(arm: dict, w: float) -> dict:
    """The arm's guidance fields; w1 is the protocol's text guidance where the arm does not say."""
    out = {"w1": w} | {k: arm[k] for k in GUIDED if k in arm}
    return out | ({"interval": tuple(out["interval"])} if "interval" in out else {})


def trained(arm: dict, seed: int, home: Path, length: int = 5) -> JointBackbone:
    """The joint model of an arm's training fields: trained now, gone on with, or found below `home`."""
    start, fields = arm["weights"], {k: arm[k] for k in TRAINED if k in arm}
    folder = training_folder(home, start, fields | {"kind": "joint", "length": length, "seed": seed})
    path, base = folder / "joint.safetensors", begin(start, arm.get("layers"), folder)
    if not path.is_file():
        model = JointBackbone(load_backbone(base), arm.get("new", "zero"))
        recipe = from_values(JointRecipe, {k: arm[k] for k in RECIPE if k in arm}, "joint recipe")
        data = motion_data(start, arm.get("teacher", "exact"), arm.get("noise", 0.0), length, arm.get("clips"))
        config = budget(seed, arm["lr"], arm.get("clip_steps") or read_protocol()["budget"]["fine_tune_clip_steps"]["videojam"], folder / "training")
        result = train(model, joint_training_loss(recipe, model.grammar.null(1)), data, config)
        model.load_state_dict(result.ema_state())
        save_joint(model, path, fields)
    return load_joint(path, base)


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
def joint_clips(model: JointBackbone, prompts: list[Prompt], seed: int, guidance: Guidance, length: int = 5, steps: int = 20, shift: float = 2.0,
                batch: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Generated clips and the flow pictures generated with them, each uint8 (n, f, h, w, 3).

    The video's starting noise is that of every other arm; the motion's comes from the same seeds, shifted.
    """
    codec, c = load_codec(shipped("codec")), model.config
    shape, seeds = (length, c.channels, c.height, c.width), [p.noise + plain.NOISE_STRIDE * seed for p in prompts]
    z0 = torch.cat([prompt_noise(seeds, shape), prompt_noise([s + 1 for s in seeds], shape)], 2)
    tokens, grid, out = model.grammar.encode([p.text for p in prompts]), time_grid(steps, shift), []
    for part in torch.arange(len(prompts)).split(batch):
        u = inner_guidance(model, tokens[part], guidance)
        with torch.autocast("cpu", torch.bfloat16):
            z = SAMPLERS["euler"](u, z0[part], grid)
            out.append([as_frames(codec.decode(half)) for half in split(z)])
    return tuple(np.concatenate(half) for half in zip(*out))
