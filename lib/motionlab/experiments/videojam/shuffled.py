"""Permuted-frame losses of trained arms (VideoJAM, Fig. 3; C2): does the joint model notice what the base does not?"""
from __future__ import annotations

from pathlib import Path

import torch

from motionlab.analyses import shuffle
from motionlab.analyses.inputs import CaptionedClip, Model, world_clips
from motionlab.diffusion import interpolate, velocity
from motionlab.experiments.finetune import continued_training
from motionlab.experiments.videojam.joint import trained
from motionlab.flow_rgb import WORLD_SIGMA
from motionlab.core.protocol import judged_seeds
from motionlab.models.small.backbone import load_backbone
from motionlab.models.small.codec import load_codec
from motionlab.models.shipped import shipped
from motionlab.papers.videojam import JointBackbone, motion_latent


def shuffle_gap(arm: dict, seed: int, home: Path, length: int = 5, batch: int = 16,
                tier: str = "full") -> list[dict]:
    """Rows {item, arm, seed, reading, step, t, upto_60, loss_<version>, ...} of an arm's model on shuffled clips.

    Clips are those of split `test`, at tier smoke of `examples`.

    Columns: loss_original, loss_shuffled, loss_latents: appearance loss as in `analyses.shuffle`, every version at the same
    noise and time; of a joint model with the motion latents of that version (exact flow between the frames in their new
    order), and also blind_<version> (motion input zero, a control) and motion_<version> (loss of the motion half).

    Args:
        arm: fields as of `rows.run_row`; n clips (512).
    """
    seeds, codec = judged_seeds(tier, arm["n"] or 512), load_codec(shipped("codec"))
    model = Model(arm["name"], "motionlab", _network(arm, seed, home, length), codec, 4 * length - 3, (48, 48))
    out = []
    for first in range(0, len(seeds), batch):
        clips = world_clips(seeds[first:first + batch], model)
        versions = changed(clips, model, torch.Generator().manual_seed(seeds[first]))
        out += _rows(clips, model, versions, arm["name"], seed, torch.Generator().manual_seed(seeds[first] + seed))
    return out


def _network(arm, seed, home, length):
    """The arm's own network: joint, fine-tuned without a cure, or the bare base."""
    if arm["source"] == "joint":
        return trained(arm, seed, home, length)
    if arm["source"] == "base":
        return load_backbone(shipped(arm["weights"]))
    more = {k: arm[k] for k in ("clip_steps", "clips", "layers") if k in arm}
    return load_backbone(continued_training(arm["weights"], home, seed, arm["lr"], length=length, **more))


def changed(clips: dict, model: Model, generator: torch.Generator) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """{version: (x1, d1)} of clips {item: Clip}: original, frames shuffled, latents shuffled with the first kept.

    Each clip has its own order, the same for its video and its motion. Latents are (b, f', c, h', w').
    """
    chosen, f = list(clips.values()), model.frames
    orders = {"original": [torch.arange(f)] * len(chosen), "shuffled": [shuffle.frame_order("shuffled", f, generator) for _ in chosen]}
    out = {}
    for name, of in orders.items():
        x1 = model.encode([CaptionedClip(clip.frames[order.numpy()]) for clip, order in zip(chosen, of)])
        flows = [clip.flow_between(order.tolist()) for clip, order in zip(chosen, of)]
        d1 = torch.stack([motion_latent(model.encode_video, flow, WORLD_SIGMA) for flow in flows])
        out[name] = (x1, d1)
    latent = [shuffle.latent_order("latents_shuffled", out["original"][0].shape[1], generator) for _ in chosen]
    return out | {"latents": tuple(torch.stack([z[o] for z, o in zip(half, latent)]) for half in out["original"])}


def _rows(clips, model, versions, arm, seed, generator):
    tokens = model.backbone.grammar.encode([c.caption for c in clips.values()])
    shape, out = versions["original"][0].shape, []
    for reading in shuffle.READINGS:
        step = 100 * torch.rand(len(clips), generator=generator)
        t = shuffle.time_of_step(step, reading)
        x0, d0 = (torch.randn(shape, generator=generator) for _ in range(2))
        found = {}
        for name, (x1, d1) in versions.items():
            found |= {f"{kind}_{name}": values for kind, values in losses(model, x0, x1, d0, d1, t, tokens).items()}
        for i, item in enumerate(clips):
            where = {"reading": reading, "step": float(step[i]), "t": float(t[i]), "upto_60": int(step[i] <= 60)}
            out.append({"item": item, "arm": arm, "seed": seed} | where | {name: float(values[i]) for name, values in found.items()})
    return out


@torch.no_grad()
def losses(model: Model, x0, x1, d0, d1, t, tokens) -> dict[str, torch.Tensor]:
    """{"loss": (b,)} of a plain network; of a joint one also "blind" (appearance, motion input zero) and "motion"."""
    x_t, net = interpolate(x0, x1, t), model.backbone
    with model.autocast():
        if not isinstance(net, JointBackbone):
            return {"loss": _error(net(x_t, t, tokens), x0, x1)}
        d_t = interpolate(d0, d1, t)
        u_x, u_d = net(x_t, d_t, t, tokens)
        blind, _ = net(x_t, torch.zeros_like(d_t), t, tokens)
    return {"loss": _error(u_x, x0, x1), "motion": _error(u_d, d0, d1), "blind": _error(blind, x0, x1)}


def _error(u, x0, x1):
    return (u.float() - velocity(x0, x1)).square().flatten(1).mean(1)
