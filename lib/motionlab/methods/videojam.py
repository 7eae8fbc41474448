"""VideoJAM as a method: a second stream of motion latents, learned and sampled beside the video's. Equations: papers/videojam.py."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import nn

from motionlab.analyses.inputs import item_seed
from motionlab.core.errors import one_of
from motionlab.core.noise import prompt_noise, prompt_seeds, stream_seeds
from motionlab.data.prompts import Prompt
from motionlab.data.sidecars import TEACHERS, Sidecar, encoded
from motionlab.data.sources import Listed
from motionlab.diffusion import data_estimate, interpolate, velocity
from motionlab.methods.base import Method, Sampling
from motionlab.models.pipe import Inputs, Pipe
from motionlab.papers import videojam as paper


@dataclass(frozen=True)
class InnerGuidance(Sampling):
    """`papers.videojam.Guidance` beside what every method's sampling has; w is its w1. motion: "own", what is predicted on the way, or
    "true", that of the prompt's own clip at the noise level of each step (a control: where the cure would stop if it predicted well)."""

    w2: float = 1.0
    interval: tuple[float, float] = (0.0, 0.5)
    motion_half: str = "literal"
    rule: str = "inner"
    batched: bool = True
    motion: str = "own"

    def __post_init__(self):
        one_of(self.motion, ("own", "true"), "motion that guides")
        self.guidance(0.0)

    def guidance(self, usual_w: float) -> paper.Guidance:
        """The paper's own; raises MotionLabError for a rule, motion half or interval that it does not know."""
        own = {f.name: getattr(self, f.name) for f in fields(paper.Guidance) if f.name != "w1"}
        return paper.Guidance(w1=usual_w if self.w < 0 else self.w, **own | {"interval": tuple(own["interval"])})


@dataclass(frozen=True)
class VideoJAM(Method):
    """new, new_lr: of `papers.videojam.widen`; text_dropout to first_last: of `JointRecipe`; stills: known frames are pictures encoded
    alone; teacher, noise: of the motion latents (`data.sidecars.draw_motion`)."""

    name: ClassVar[str] = "videojam"
    Sampling: ClassVar[type] = InnerGuidance

    new: str = "zero"
    new_lr: float = 1.0
    text_dropout: float = 0.3
    motion_dropout: float = 0.2
    motion_weight: float = 1.0
    attribute_dropout: float = 0.0
    first: float = 0.0
    first_last: float = 0.0
    stills: bool = False
    teacher: str = "auto"
    noise: float = 0.0

    def __post_init__(self):
        one_of(self.new, ("zero", "copy"), "start of the new output columns")
        one_of(self.teacher, TEACHERS, "motion teacher")
        for name in ("text_dropout", "motion_dropout", "attribute_dropout", "first", "first_last"):
            paper.drop(0, [], getattr(self, name))

    def wants(self) -> tuple[Sidecar, ...]:
        own = (Sidecar("motion", {"teacher": self.teacher, "noise": self.noise}, key="d1"),)
        return (Sidecar("stills"), *own) if self.stills else own

    def attach_to(self, network: nn.Module, channels: int) -> None:
        paper.widen(network, channels, self.new, self.new_lr)

    def loss(self, pipe: Pipe) -> Callable:
        return paper.joint_training_loss(paper.JointRecipe(**{f.name: getattr(self, f.name) for f in fields(paper.JointRecipe)}), pipe)

    def start(self, pipe: Pipe, x0: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Motion starts from noise of its own."""
        return torch.cat([x0, prompt_noise(stream_seeds(seeds, 1), x0.shape[1:]).to(x0)], 2)

    def truth(self, options: InnerGuidance) -> tuple[Sidecar, ...]:
        return (Sidecar("motion", {"teacher": "exact"}, key="d1"),) if options.motion == "true" else ()

    def model(self, pipe: Pipe, text: Inputs, known: Inputs, options: InnerGuidance, given: dict | None = None) -> Callable:
        u = paper.inner_guidance(pipe, text, options.guidance(pipe.w), known)
        return u if options.motion == "own" else _towards(u, given["d1"])

    def streams(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(("video", "motion"), paper.split(state)))

    def forward(self, pipe: Pipe, x_t: torch.Tensor, other: torch.Tensor, t: torch.Tensor, text: Inputs) -> torch.Tensor:
        return torch.cat(paper.joint_velocity(pipe, x_t, other, t, text), 2)

    @torch.no_grad()
    def losses(self, pipe: Pipe, x_t: torch.Tensor, t: torch.Tensor, text: Inputs, data: dict[str, torch.Tensor],
               noise: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Of the video, "loss"; the same without motion as input, "blind"; of the motion, "motion"."""
        d_t = interpolate(noise["d1"], data["d1"], t)
        with pipe.autocast():
            u_x, u_d = paper.joint_velocity(pipe, x_t, d_t, t, text)
            blind, _ = paper.joint_velocity(pipe, x_t, torch.zeros_like(d_t), t, text)
        return {name: (u.float() - velocity(noise[key], data[key])).square().flatten(1).mean(1)
                for name, u, key in (("loss", u_x, "x1"), ("motion", u_d, "d1"), ("blind", blind, "x1"))}

    @torch.no_grad()
    def expected_motion(self, pipe: Pipe, clips: dict, t: float = 0.3) -> torch.Tensor:
        """Motion latents that a trained generator expects for clips {item: Clip} noised to t: its estimate of d1.

        The motion input is noised to the same t, as in training: at d = 0 the motion half was never trained.
        """
        data, seeds = encoded(Listed(list(clips.values())), self.wants(), pipe), [item_seed(item) for item in clips]
        x_t, d_t = (interpolate(pipe.noise(stream_seeds(seeds, k), data[key]), data[key], t) for k, key in enumerate(("x1", "d1")))
        with pipe.autocast():
            _, u_d = paper.joint_velocity(pipe, x_t, d_t, torch.full((len(x_t),), float(t)), pipe.text([c.caption for c in clips.values()]))
        return data_estimate(d_t, u_d.float(), t)


def _towards(u: Callable, d1: torch.Tensor) -> Callable:
    """u with its motion half led straight to d1: the motion state is then d1 noised to every t, with the noise that it began with."""

    def led(state, t):
        u_x, _ = paper.split(u(state, t))
        return torch.cat([u_x, (d1 - paper.split(state)[1]) / (1 - t.view(-1, 1, 1, 1, 1))], 2)

    return led


@torch.no_grad()
def guidance_terms(pipe: Pipe, prompts: Sequence[Prompt], options: InnerGuidance) -> list[dict]:
    """Rows {item, arm, seed, step, t, ...} along one sampling path per prompt; sizes are root mean squares.

    Columns: text, motion: of the two guidance directions in the video's half, u(x,d,y) - u(x,d,0) and u(x,d,y) - u(x,0,y),
    before their weights; cosine between them; text_d, motion_d: the same in the motion half; d: of the motion state.
    """
    seen, method, seeds = [], VideoJAM(), prompt_seeds([p.noise for p in prompts], 0)
    u = paper.inner_guidance(pipe, pipe.text([p.text for p in prompts]), options.guidance(pipe.w),
                             watch=lambda t, d, passes: seen.append((t, paper.terms(d, passes))))
    pipe.solve(u, method.start(pipe, pipe.noise(seeds), seeds), steps=options.steps or None)
    return [{"item": prompt.id, "arm": "full", "seed": 0, "step": k, "t": t} | {name: float(values[i]) for name, values in found.items()}
            for k, (t, found) in enumerate(seen) for i, prompt in enumerate(prompts)]
