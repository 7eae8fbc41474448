"""VideoJAM: joint appearance-motion representations for motion generation (Chefer et al., arXiv 2502.02492).

In the paper's order: motion as a video (Eq. 5, `motion_latent`), two wider projections (Eq. 4, `widen`), one loss on both
velocities (Eq. 6, `joint_loss`, `drop`), and Inner-Guidance (Eq. 7-8, `inner_guidance`). What the paper leaves open is an option
with the default that its method card recommends. Symbols as there: x appearance, d motion, u_x and u_d their predicted
velocities, y text; the kit's time runs from noise (t = 0) to data (t = 1), as the paper's does.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from motionlab.diffusion import interpolate, velocity
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.noise import noise_version
from motionlab.core.protocol import RULED
from motionlab.flow_rgb import SIGMA, flow_video
from motionlab.models.pipe import Inputs, Pipe, joined
from motionlab.models.widening import more_inputs, more_outputs

MOTION_HALVES = ("literal", "cfg_d", "exact")
RULES = ("inner", "ip2p", "composable", "no_motion")
EARLIEST = 0.02          # `exact` divides by t: below this it is t of the division, not of the sampler


# ---------------------------------------------------------------------------------------------- motion as a video, Eq. 5
def motion_latent(encode: Callable, flow: np.ndarray, sigma: float = SIGMA, background: str = "white") -> torch.Tensor:
    """d1: optical flow, drawn as RGB and encoded by the *same* frozen autoencoder as the video.

    Args:
        encode: video (b, f, 3, h, w) in [-1, 1] -> latents, such as `Codec.encode`.
        flow: (f-1, 2, h, w) pixels per frame; the last one is repeated (card A4).
        sigma: share of the diagonal at which a pixel saturates; 0.15 in the paper, `flow_rgb.WORLD_SIGMA` for the world.

    Raises:
        MotionLabError: flow of another shape or that is not finite; a clip of one frame, which has no flow.
    """
    from motionlab.video import as_video

    flow = np.asarray(flow)
    if flow.ndim != 4 or flow.shape[1] != 2 or len(flow) == 0:
        raise MotionLabError(f"The flow has shape {flow.shape}; a clip of one frame has none.", fix="Give (f-1, 2, h, w) with f > 1.")
    return encode(as_video(flow_video(flow, sigma, background))[None])[0]


# ---------------------------------------------------------------------------------------------- two wider projections, Eq. 4
def widen(transformer: nn.Module, channels: int, new: str = "zero", new_lr: float = 1.0) -> nn.Module:
    """W_in gets rows for `channels` motion channels, W_out columns for as many: in place, nothing else changes.

    Input rows are zero, so whatever d is, the appearance half is the base model's output to the bit. Knows CogVideoX (2-D
    convolution over patches; 1.5: linear over patches), Wan and HunyuanVideo (3-D convolution) and any transformer with a
    linear embedding `proj_in` (LTX).

    Args:
        new: output columns: "zero" (default, card A6) or "copy" of the appearance columns.
        new_lr: how many times as fast as all else the new rows and columns learn (their `lr_scale`, see `training`). 1 in the
            paper, whose 50,000 updates give them time; Adam moves a weight by at most its rate per update, so that in a few
            hundred nothing that begins at zero gets anywhere.

    Raises:
        MotionLabError: a transformer without the projections that are expected, new_lr not above 0.
    """
    return more_outputs(more_inputs(transformer, channels, new_lr), channels, new, new_lr)


def joint_velocity(model: Callable, x_t, d_t, t, text: Inputs, known: Inputs | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(u_x, u_d), each (b, f, c, h, w), of a `Pipe` whose denoiser was widened; d_t = 0 is "no motion" (card A7).

    A pretrained generator converts both halves alike, by the one t that they share. Where its network predicts v
    (CogVideoX), u_d therefore depends on d_t also directly, u_d = s (alpha - sigma) d_t - (alpha + sigma) v_d, and at
    d_t = 0 on v_d alone: guidance is a rule for velocities, not for what the network happens to predict.

    Raises:
        MotionLabError: motion of another shape than the video's.
    """
    if d_t.shape != x_t.shape:
        raise MotionLabError(f"Motion latents {tuple(d_t.shape)} and video latents {tuple(x_t.shape)} differ in shape.",
                             fix="Draw the flow of the same clip, at the same size and length.")
    return split(model(x_t, t, text, known, extra=d_t))


# ---------------------------------------------------------------------------------------------- one loss on both, Eq. 6
def drop(batch: int, generator, p: float) -> torch.Tensor:
    """Which samples keep a condition that is dropped with probability `p`: (b,) bool; p = 0 draws nothing.

    Args:
        generator: one `torch.Generator`, or a list of one per sample.
    """
    if not 0 <= p <= 1:
        raise MotionLabError(f"A dropout of {p} is no probability.", fix="The paper's are 0.3 (text) and 0.2 (motion).")
    if p == 0:
        return torch.ones(batch, dtype=torch.bool)
    if batch == 0:
        return torch.ones(0, dtype=torch.bool)
    if isinstance(generator, torch.Generator):
        return torch.rand(batch, generator=generator) >= p
    return torch.cat([torch.rand(1, generator=g) for g in generator]) >= p


def joint_loss(u_x, u_d, x0, x1, d0, d1, keep: torch.Tensor, motion_weight: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The two halves of Eq. 6 per sample: |u_x - (x1 - x0)|^2 and, where motion was kept, weight x |u_d - (d1 - d0)|^2.

    Each half is a mean over its own channels and they are added: a sample whose motion was dropped trains its appearance
    exactly as the base model would, and its motion half not at all.

    Args:
        keep: (b,) bool. motion_weight: 1 in the paper.

    Returns:
        (b,) and (b,).
    """
    appearance = (u_x.float() - velocity(x0, x1)).square().flatten(1).mean(1)
    error = (u_d.float() - velocity(d0, d1)).square().flatten(1).mean(1)
    return appearance, motion_weight * torch.where(keep.to(error.device), error, torch.zeros_like(error))


@dataclass(frozen=True)
class JointRecipe:
    """text_dropout 0.3 and motion_dropout 0.2, independent per sample; motion_weight 1 (paper, section 4.3 and Eq. 6).

    attribute_dropout, first, first_last: of the generator's own training, none in the paper; an arm that is compared with another
    takes that one's.
    """

    text_dropout: float = 0.3
    motion_dropout: float = 0.2
    motion_weight: float = 1.0
    attribute_dropout: float = 0.0
    first: float = 0.0
    first_last: float = 0.0


def joint_training_loss(recipe: JointRecipe, pipe: Pipe):
    """`loss_fn` of `training.train` for a widened `Pipe`; batches hold x1, d1 (b, f, c, h, w) and text.

    One t for both streams, drawn as the base's training drew it (card A15); d0 independent of x0. From protocol 7 on, what belongs
    to motion is drawn last, so that time, noise and dropouts of the video are those of a training without motion; up to 6 its
    noise came before the dropouts, and trainings of then stay what they were.
    """
    last = noise_version() >= RULED

    def loss_fn(model, batch, noise):
        x1, d1 = batch["x1"], batch["d1"]
        t, x0 = pipe.times(noise), noise.randn(*x1.shape[1:])
        d0 = None if last else noise.randn(*d1.shape[1:])
        text = pipe.drop_text(batch["text"], noise, recipe.text_dropout, recipe.attribute_dropout)
        known = pipe.draw_known(batch, noise, recipe.first, recipe.first_last)
        d0 = noise.randn(*d1.shape[1:]) if last else d0
        keep = drop(len(x1), noise, recipe.motion_dropout).to(x1.device)
        d_t = interpolate(d0, d1, t) * keep[:, None, None, None, None]
        u_x, u_d = joint_velocity(model, interpolate(x0, x1, t), d_t, t, text, known)
        appearance, motion = joint_loss(u_x, u_d, x0, x1, d0, d1, keep, recipe.motion_weight)
        return (appearance + motion).mean(), {"t": t, "per_sample": appearance}

    return loss_fn


# ---------------------------------------------------------------------------------------------- Inner-Guidance, Eq. 7-8
@dataclass(frozen=True)
class Guidance:
    """Options of `inner_guidance`.

    w1, w2: text and motion weights, 5 and 3 in the paper. Factors are (1 + w): diffusers' guidance_scale is 1 + w1.
    interval: of t in which w2 acts. The paper's is the first half of the *steps* of a linear-quadratic grid; what matters
    is where that lies in t, so here it is given in t (card A10).
    motion_half: of the third term, whose motion half was never trained: "literal" (the equation on all channels), "cfg_d"
    (motion channels by text guidance alone) or "exact" (u_d of the third term replaced by d_t / t, its value for a zero score).
    rule: "inner"; "ip2p" (InstructPix2Pix, card 4.4); "composable" (Liu et al. 2022); "no_motion" (d = 0 at every step).
    batched: all passes of a step as one batch, or one after the other, with a third of the activations.

    Raises:
        MotionLabError: an unknown rule or motion half, an interval outside [0, 1].
    """

    w1: float = 5.0
    w2: float = 3.0
    interval: tuple[float, float] = (0.0, 0.5)
    motion_half: str = "literal"
    rule: str = "inner"
    batched: bool = True

    def __post_init__(self):
        one_of(self.motion_half, MOTION_HALVES, "motion half")
        one_of(self.rule, RULES, "guidance rule")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise MotionLabError(f"The guidance interval {self.interval} does not lie in [0, 1].",
                                 fix="Give (start, end) in t, for example (0, 0.5).")

    def passes(self, t: float) -> dict[tuple[bool, bool], float]:
        """Which evaluations the step at t needs and their coefficients, which sum to one: {(text given, motion given): c}."""
        w2 = self.w2 if self.interval[0] <= t <= self.interval[1] else 0.0
        if self.rule == "no_motion":
            terms = {(True, False): 1 + self.w1, (False, False): -self.w1}
        elif self.rule == "ip2p":              # motion first, then text; w2 and w1 are its s_d and s_y
            terms = {(False, False): 1 - w2, (False, True): w2 - self.w1, (True, True): self.w1}
        elif self.rule == "composable":
            terms = {(False, False): 1 - self.w1 - w2, (True, False): self.w1, (False, True): w2}
        else:
            terms = {(True, True): 1 + self.w1 + w2, (False, True): -self.w1, (True, False): -w2}
        return {key: c for key, c in terms.items() if c != 0}


def inner_guidance(pipe: Pipe, text: Inputs, options: Guidance = Guidance(), known: Inputs | None = None,
                   watch: Callable | None = None) -> Callable:
    """A model (z, t) -> u for the samplers, on z = [x, d] (b, f, 2c, h, w).

    At w1 = w2 = 0 it is the conditional prediction; at w2 = 0 ordinary text guidance.

    Args:
        text, known: `Pipe.text` and `Pipe.known` of the batch.
        watch: called at every evaluation with t, d and {(text given, motion given): (u_x, u_d)}.
    """
    null = pipe.text([""])

    @torch.no_grad()
    def u(z, t):
        time = float(torch.as_tensor(t).flatten()[0])
        terms = options.passes(time)
        x, d = split(z)
        given = list(terms)
        groups = [given] if options.batched else [[key] for key in given]
        with pipe.autocast():
            made = [_evaluate(pipe, x, d, t, text, null, group, known) for group in groups]
        u_x, u_d = ([half.float() for pair in made for half in pair[k].split(len(x))] for k in (0, 1))
        if watch is not None:
            watch(time, d, dict(zip(given, zip(u_x, u_d))))
        total_x = sum(terms[key] * u_x[k] for k, key in enumerate(given))
        return torch.cat([total_x, _motion_velocity(options, terms, given, u_d, d, time)], 2)

    return u


def _evaluate(pipe, x, d, t, text, null, given, known):
    """u_x and u_d, each (len(given) b, f, c, h, w): one batch of the passes (text given, motion given)."""
    n, nothing = len(given), {name: value.expand(len(x), *value.shape[1:]) for name, value in null.items()}
    return joint_velocity(pipe, torch.cat([x] * n), torch.cat([d if motion else torch.zeros_like(d) for _, motion in given]),
                          torch.as_tensor(t, device=x.device).expand(len(x)).repeat(n),
                          joined(*(text if said else nothing for said, _ in given)), joined(*[known] * n) if known else known)


def _motion_velocity(options, terms, given, u_d, d, t):
    """The guided u_d: what the third term means for it is an option, since it was never trained there."""
    if options.motion_half == "cfg_d" and options.rule == "inner":
        kept = {(True, True): 1 + options.w1, (False, True): -options.w1}
        return sum(c * u_d[given.index(key)] for key, c in kept.items() if c != 0)
    total = 0.0
    for k, key in enumerate(given):
        exact = options.motion_half == "exact" and not key[1]
        total = total + terms[key] * (d.float() / max(t, EARLIEST) if exact else u_d[k])
    return total


def terms(d: torch.Tensor, passes: dict) -> dict[str, torch.Tensor]:
    """Sizes (b,), root mean squares, of what Eq. 8 adds up at one step, as `inner_guidance` shows it to `watch`.

    text, motion: u(x,d,y) - u(x,d,0) and u(x,d,y) - u(x,0,y) of the video's half, before their weights, and the cosine between
    them; text_d, motion_d: the same of the motion half; d: of the motion state.
    """
    both, found = passes.get((True, True)), {"d": _rms(d)} if any(motion for _, motion in passes) else {}
    for name, key in (("text", (False, True)), ("motion", (True, False))):
        if both is not None and key in passes:
            found |= {name: _rms(both[0] - passes[key][0]), f"{name}_d": _rms(both[1] - passes[key][1])}
    if {"text", "motion"} <= set(found):
        a, b = (both[0] - passes[key][0] for key in ((False, True), (True, False)))
        found["cosine"] = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))
    return found


def _rms(x):
    return x.float().square().flatten(1).mean(1).sqrt()


def split(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Video and motion latents of a joint state (b, f, 2c, h, w)."""
    x, d = z.chunk(2, dim=2)
    return x, d


def extra_parameters(d_model: int, channels: int, patch: int = 1) -> int:
    """What `widen` adds: p^2 C D rows in, D p^2 C columns and their p^2 C biases out (card 2.4)."""
    return math.prod((2, patch, patch, channels, d_model)) + patch * patch * channels
