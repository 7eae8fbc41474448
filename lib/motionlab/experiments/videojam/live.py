"""Joint training on a small scale, to be watched in a notebook: widen, train for a few minutes, look."""
from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from motionlab.analyses.inputs import Model, item_seed
from motionlab.experiments.finetune import budget
from motionlab.data.prompts import load_prompts
from motionlab.experiments.videojam.joint import KIND, joint_clips, motion_data
from motionlab.core.paths import repo_root
from motionlab.models.checkpoint import fill, read_model, save_model
from motionlab.models.shipped import HOME
from motionlab.papers.videojam import Guidance, JointBackbone, JointRecipe, joint_training_loss
from motionlab.training import train


def widened(base: Model, new: str = "zero", new_lr: float = 1.0) -> Model:
    """A joint model that begins as `base`, which stays as it is; new, new_lr: of `papers.videojam.JointBackbone`.

    A deep copy of it would forget `new_lr`: whoever trains widens afresh.
    """
    return joint_model(base, JointBackbone(copy.deepcopy(base.backbone), new, new_lr).eval())


def joint_model(base: Model, joint: JointBackbone) -> Model:
    """`joint` with the codec and sizes of `base`."""
    return Model("joint", base.kind, joint, base.codec, base.frames, base.size)


def has_joint() -> bool:
    """Whether the shipped joint model is there."""
    return (repo_root() / HOME / "joint.safetensors").is_file()


@torch.no_grad()
def noop_rows(base: Model, joint: Model, clips: dict) -> Iterator[dict]:
    """Rows {item, arm, seed, changed, parameters_added}: share of output values that the widened model changes for random motion."""
    added = sum(p.numel() for p in joint.backbone.parameters()) - sum(p.numel() for p in base.backbone.parameters())
    for item, clip in clips.items():
        generator = torch.Generator().manual_seed(item_seed(item))
        x1 = base.encode([clip])
        x_t, d_t = (torch.randn(x1.shape, generator=generator) for _ in range(2))
        t, tokens = torch.rand(1, generator=generator), base.tokens([clip.caption])
        u_x, _ = joint.backbone(x_t, 10 * d_t, t, tokens)
        changed = float((u_x != base.backbone(x_t, t, tokens)).float().mean())
        yield {"item": item, "arm": "start", "seed": 0, "changed": changed, "parameters_added": added}


def train_live(base: Model, folder: Path, clip_steps: int, lr: float, new_lr: float = 1.0, seed: int = 0,
               snapshots: int = 3) -> tuple[Model, dict[int, Model]]:
    """Train the joint model that begins as `base` on the fine-tuning split; a run that was stopped goes on.

    Args:
        new_lr: how many times as fast as all else the new rows and columns learn.

    Returns:
        the trained model (averaged weights) and {clips seen: model} on the way, the start included.
    """
    training = budget(seed, lr, clip_steps, folder)
    training = dataclasses.replace(training, sample_every=max(1, training.steps // snapshots), log_every=10)
    kept = folder / "snapshots"

    def keep(model, step):
        save_model(model.base, kept / f"{step * training.batch_size:06d}.safetensors", KIND)
        return {}

    start, model = widened(base), widened(base, new_lr=new_lr).backbone
    data = motion_data("base", length=start.codec.latent_frames(start.frames), clips=clip_steps)           # each clip once
    result = train(model, joint_training_loss(JointRecipe(), model.grammar.null(1)), data, training, on_sample=keep)
    model.load_state_dict(result.ema_state())
    on_the_way = {int(path.stem): _read(start, path) for path in sorted(kept.glob("*.safetensors"))}
    return joint_model(start, model.eval()), {0: start} | on_the_way


def _read(start, path):
    _, _, tensors = read_model(path, KIND, "joint model")
    model = copy.deepcopy(start.backbone)
    fill(model.base, tensors, path)
    return joint_model(start, model.eval())


def halves(table):
    """Rows of `losses_by_t` as long DataFrame {item, arm, t, half, value}: video and motion."""
    long = table.melt(id_vars=["item", "arm", "seed", "t"], value_vars=["loss", "motion"], var_name="half")
    return long.assign(half=long["half"].map({"loss": "video", "motion": "motion"}))


def generated_pairs(model: Model, n: int, steps: int = 20, prompts: str = "examples") -> dict[str, np.ndarray]:
    """{caption: frames} of generated clips, each followed by the flow pictures generated with it."""
    chosen = load_prompts(prompts, n)
    frames, motion = joint_clips(model.backbone, chosen, 0, Guidance(w1=2.0, w2=1.0), model.codec.latent_frames(model.frames), steps)
    out = {}
    for k, p in enumerate(chosen):
        out |= {p.text.replace(" to the ", "\nto the ").replace(", ", ",\n"): frames[k], f"its motion {k + 1}": motion[k]}
    return out
