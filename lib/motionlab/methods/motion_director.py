"""Two LoRAs, one for what a clip shows and one for how it moves (Zhao et al. 2023, MotionDirector), on a video transformer.

The first ("spatial") learns single frames of the clip by the plain loss, then stays as it is. The second ("temporal") then learns the
whole clip beside it, by the plain loss and the same loss of velocities whose appearance is taken out, prediction and target alike:

    L = mean |u - v|^2 + mean |phi(u) - phi(v)|^2,    phi(e)_f = sqrt(2) e_f - e_a,    a: one frame drawn per clip

It samples with the second alone. Differences from MotionDirector: there each LoRA is at attention layers of its own, over space or
over time, and both are trained in every step; a transformer has one attention over both, so that both LoRAs are at the same layers
and the first must be finished before the second sees what it leaves. peft cannot use an adapter and keep it still without also
taking it out of what is trained (and of the checkpoint), hence `LowRank`.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.data.sidecars import Sidecar
from motionlab.methods.base import Sampling
from motionlab.methods.plain import Plain, Prediction, flow_matching_loss
from motionlab.models.adapters import linear_layers, usual_rank
from motionlab.models.pipe import Inputs, Pipe

NAMES = ("spatial", "temporal")


@dataclass(frozen=True)
class MotionDirector(Plain):
    """spatial_share: of the training's steps, those of the first LoRA. rank: of each, 0 is a sixteenth of the width that the first
    target reads. targets: ends of module names, by comma. debias: weight of the second term.

    Raises:
        MotionLabError: spatial_share outside [0, 1).
    """

    name: ClassVar[str] = "motion_director"
    tunes_base: ClassVar[bool] = False
    spatial_share: float = 0.3
    rank: int = 0
    targets: str = "to_k, to_v"
    debias: float = 1.0

    def __post_init__(self):
        if not 0 <= self.spatial_share < 1:
            raise MotionLabError(f"spatial_share is {self.spatial_share}, which leaves the temporal LoRA, the one that samples, no step.",
                                 fix="Give a share of the steps from 0 to below 1, for example 0.3.")

    def wants(self) -> tuple[Sidecar, ...]:
        """Single frames are encoded alone: a latent of the clip stands for several frames."""
        return (*super().wants(), Sidecar("stills", key="single"))

    def attach(self, pipe: Pipe) -> None:
        """Raises MotionLabError for a generator that cannot be shown a single frame, and as `attach_to`."""
        if pipe.reads:
            raise MotionLabError(f"Method {self.name} trains on single frames, and '{pipe.name}' ({pipe.kind}) reads those of a whole clip "
                                 "beside them.", fix="Use a text-to-video generator.")
        super().attach(pipe)

    def attach_to(self, network: nn.Module, channels: int) -> None:
        """Raises MotionLabError where no linear layer of the network has one of the names."""
        layers, generator = linear_layers(network, self.targets), torch.Generator().manual_seed(0)      # alike in every run
        for layer in layers.values():
            for name in NAMES:
                layer.add_module(name, LowRank(layer, self.rank or usual_rank(layers), generator))
            layer.register_forward_hook(_with_updates)
        use(network, temporal="trained")

    def loss(self, pipe: Pipe) -> Callable:
        still = flow_matching_loss(self.recipe, pipe)
        whole = flow_matching_loss(self.recipe, pipe, more=self._debiased)

        def loss_fn(model, batch, noise):
            if noise.progress < self.spatial_share:                     # follows from the step: a resumed run is in the same phase
                use(pipe.denoiser, spatial="trained")
                return still(model, single_frame(pipe, batch, noise), noise)
            use(pipe.denoiser, spatial="still", temporal="trained")
            return whole(model, batch, noise)

        return loss_fn

    def _debiased(self, said: Prediction, batch, noise) -> torch.Tensor:
        anchor = noise.randint(0, said.u.shape[1])
        return self.debias * (debiased(said.u, anchor) - debiased(said.v, anchor)).square().mean(dim=(1, 2, 3, 4))

    def model(self, pipe: Pipe, text: Inputs, known: Inputs, options: Sampling, given: dict | None = None) -> Callable:
        """Usual text guidance with the temporal LoRA alone."""
        guided = super().model(pipe, text, known, options, given)

        def u(x, t):
            use(pipe.denoiser, temporal="trained")
            return guided(x, t)

        return u


def debiased(e: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
    """phi(e)_f = sqrt(2) e_f - e_a of e (b, f, ...), with anchor frames a (b,): of what all frames share, sqrt(2) - 1 is left."""
    return 2 ** 0.5 * e - e[torch.arange(len(e), device=e.device), anchor.to(e.device)][:, None]


def single_frame(pipe: Pipe, batch: dict, noise) -> dict:
    """The batch with one frame per clip, drawn from its `single` (b, f, c, h, w), as x1; as often as a token has frames."""
    frames = batch["single"]
    k = noise.randint(0, frames.shape[1]).to(frames.device)
    picture = frames[torch.arange(len(frames), device=frames.device), k][:, None]
    over = getattr(pipe.denoiser.config, "patch_size_t", 1) or 1
    return {"x1": picture.repeat_interleave(over, 1), "text": batch["text"]}


# ---------------------------------------------------------------------------------------------- the adapters
class LowRank(nn.Module):
    """x -> B A x beside a linear layer, B zero at first. state: "off", "trained" or "still" (used, without gradient)."""

    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator):
        super().__init__()
        bound = layer.in_features ** -0.5                               # as peft's LoRA and torch's linear layers begin
        start = (2 * torch.rand(rank, layer.in_features, generator=generator, device="cpu") - 1) * bound
        self.lora_A = nn.Parameter(start.to(layer.weight))
        self.lora_B = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        self.state = "off"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = (self.lora_A.detach(), self.lora_B.detach()) if self.state == "still" else (self.lora_A, self.lora_B)
        return F.linear(F.linear(x, a), b)


def _with_updates(layer, args, out):
    for name in NAMES:
        if getattr(layer, name).state != "off":
            out = out + getattr(layer, name)(args[0])
    return out


def use(network: nn.Module, spatial: str = "off", temporal: str = "off") -> None:
    """Set the states of all adapters, until they are set again: gradient checkpointing runs layers again in the backward pass."""
    for module in network.modules():
        if isinstance(getattr(module, "temporal", None), LowRank):
            module.spatial.state, module.temporal.state = spatial, temporal
