"""Looking at a joint model: the motion that it sees, both halves of its loss by noise level, the terms of Inner-Guidance."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from motionlab.analyses.inputs import Model, item_seed
from motionlab.diffusion import data_estimate, euler, interpolate, time_grid
from motionlab.core.errors import MotionLabError
from motionlab.data.prompts import Prompt
from motionlab.experiments.videojam.shuffled import losses
from motionlab.flow_rgb import WORLD_SIGMA
from motionlab.core.noise import prompt_noise
from motionlab.papers.videojam import Guidance, JointBackbone, inner_guidance, motion_latent
from motionlab.core.precision import autocast


def joint_latents(model: Model, clips: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """x1 and d1 (b, f', c, h', w') of clips {item: Clip}, motion drawn from their exact flow."""
    chosen = list(clips.values())
    return model.encode(chosen), torch.stack([motion_latent(model.encode_video, clip.flow, WORLD_SIGMA) for clip in chosen])


@torch.no_grad()
def seen_motion(model: Model, clips: dict, t: float = 0.3) -> np.ndarray:
    """Flow pictures uint8 (b, f, h, w, 3) that a joint model expects for clips noised to t: the decode of its estimate of d1.

    The motion input is noised to the same t, as in training: at d = 0 the motion half was never trained.
    """
    x1, d1 = joint_latents(model, clips)
    seeds = [item_seed(k) for k in clips]
    x_t, d_t = interpolate(model.noise(seeds, x1), x1, t), interpolate(model.noise([s + 1 for s in seeds], d1), d1, t)
    with model.autocast():
        _, u_d = model.backbone(x_t, d_t, torch.full((len(x1),), float(t)), model.tokens([c.caption for c in clips.values()]))
    return model.decode(data_estimate(d_t, u_d.float(), t))


def losses_by_t(model: Model, clips: dict, times: Sequence[float], batch: int = 16) -> Iterator[dict]:
    """Rows {item, arm, seed, t, loss, motion, blind} of a joint model on clips {item: Clip}; of a plain one, loss only.

    Raises:
        MotionLabError: a time outside [0, 1].
    """
    beyond = [t for t in times if not 0 <= t <= 1]
    if beyond:
        raise MotionLabError(f"t = {beyond[0]:g} is no time of the path.", fix="Give times from 0 (noise) to 1 (clean).")
    items = list(clips)
    for part in (items[k:k + batch] for k in range(0, len(items), batch)):
        chosen = {k: clips[k] for k in part}
        x1, d1 = joint_latents(model, chosen)
        seeds = [item_seed(k) for k in part]
        x0, d0 = model.noise(seeds, x1), model.noise([s + 1 for s in seeds], d1)
        for t in times:
            found = losses(model, x0, x1, d0, d1, torch.full((len(part),), float(t)), model.tokens([c.caption for c in chosen.values()]))
            for i, item in enumerate(part):
                yield {"item": item, "arm": model.name, "seed": 0, "t": float(t)} | {name: float(v[i]) for name, v in found.items()}


# ---------------------------------------------------------------------------------------------- terms of guidance
class Watched(nn.Module):
    """A joint model that keeps the passes of every step of `inner_guidance` for `guidance_terms`."""

    def __init__(self, model: JointBackbone, options: Guidance):
        super().__init__()
        self.model, self.options, self.grammar, self.steps = model, options, model.grammar, []

    def forward(self, x_t, d_t, t, tokens, *conditions):
        """As the joint model; one entry {passes, d, t} per call is appended to `steps`."""
        out = self.model(x_t, d_t, t, tokens, *conditions)
        given = list(self.options.passes(float(t[0])))
        u_x, u_d, d = (x.float().chunk(len(given)) for x in (*out, d_t))
        moving = [k for k, (_, motion) in enumerate(given) if motion]
        self.steps.append({"t": float(t[0]), "d": d[moving[0]] if moving else None, "passes": dict(zip(given, zip(u_x, u_d)))})
        return out


@torch.no_grad()
def guidance_terms(model: JointBackbone, prompts: Sequence[Prompt], options: Guidance, length: int = 5, steps: int = 20) -> list[dict]:
    """Rows {item, arm, seed, step, t, ...} along one sampling path per prompt; sizes are root mean squares.

    Columns: text, motion: of the two guidance directions in the video's half, u(x,d,y) - u(x,d,0) and u(x,d,y) - u(x,0,y),
    before their weights; cosine between them; text_d, motion_d: the same in the motion half; d: of the motion state.
    """
    watched, c = Watched(model, options), model.config
    shape, seeds = (length, c.channels, c.height, c.width), [p.noise for p in prompts]
    z0 = torch.cat([prompt_noise(seeds, shape), prompt_noise([s + 1 for s in seeds], shape)], 2)
    with autocast("cpu"):
        euler(inner_guidance(watched, model.grammar.encode([p.text for p in prompts]), options), z0, time_grid(steps))
    out = []
    for k, step in enumerate(watched.steps):
        found = _terms(step)
        for i, prompt in enumerate(prompts):
            sizes = {name: float(values[i]) for name, values in found.items()}
            out.append({"item": prompt.id, "arm": "full", "seed": 0, "step": k, "t": step["t"]} | sizes)
    return out


def _terms(step):
    passes, found = step["passes"], {"d": _rms(step["d"])} if step["d"] is not None else {}
    both = passes.get((True, True))
    for name, key in (("text", (False, True)), ("motion", (True, False))):
        if both is not None and key in passes:
            found |= {name: _rms(both[0] - passes[key][0]), f"{name}_d": _rms(both[1] - passes[key][1])}
    if {"text", "motion"} <= set(found):
        a, b = (both[0] - passes[key][0] for key in ((False, True), (True, False)))
        found["cosine"] = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))
    return found


def _rms(x):
    return x.float().square().flatten(1).mean(1).sqrt()


