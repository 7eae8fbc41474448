"""VTG as a method: a backward branch that borrows the forward one's temporal attention. Equations: papers/vtg."""
from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.data.sidecars import Sidecar
from motionlab.methods.base import Method, Sampling
from motionlab.models.adapters import usual_rank
from motionlab.models.exchange import Exchange, exchange_sites
from motionlab.models.image_encoder import load_image_encoder
from motionlab.models.pipe import Pipe
from motionlab.models.residuals import add_residuals
from motionlab.models.shipped import shipped
from motionlab.papers.vtg import sampling, settling, training

TRAINED, TARGETS, MEASURED = ("vo", "o", "temporal"), ("own", "other"), -1.0


@dataclass(frozen=True)
class Fused(Sampling, sampling.Settings):
    """`papers.vtg.sampling.Settings` beside what every method's sampling has; both branches by default. kept: a folder for LoRAs and
    inverted noises of the ends, "" for none."""

    option: str = "E"
    kept: str = ""


@dataclass(frozen=True)
class VTG(Method):
    """trained: "vo", dW of value and output projections of temporal self-attention; "o", output alone (O6); "temporal", every temporal
    weight of a U-Net. shared: False: the backward branch has its own q and k; rotated: False: it gets them as they are; reversed_time:
    False: two forward branches. rank: of dW, 0 is whole matrices; -1, the latter in a U-Net and a sixteenth of the width elsewhere.
    both, text_dropout, attribute_dropout, rar, layer: of `papers.vtg.training.BackwardRecipe`; rar -1: measured, so that its gradient is a
    fifth of L_BMP's; targets: the clip's own or another's; encoder: "" is the kit's, else a folder of DINOv2."""

    name: ClassVar[str] = "vtg"
    tunes_base: ClassVar[bool] = False
    Sampling: ClassVar[type] = Fused
    trained: str = "vo"
    shared: bool = True
    rotated: bool = True
    reversed_time: bool = True
    rank: int = -1
    both: float = 0.5
    text_dropout: float = 0.15
    attribute_dropout: float = 0.05
    rar: float = 0.0
    layer: str = "up_blocks.0"
    targets: str = "own"
    encoder: str = ""

    def __post_init__(self):
        one_of(self.trained, TRAINED, "trained weights")
        one_of(self.targets, TARGETS, "targets of the alignment")
        if not 0 <= self.both <= 1 or (self.rar < 0 and self.rar != MEASURED) or self.rank < -1:
            raise MotionLabError(f"both {self.both}, rar {self.rar}, rank {self.rank}: one is out of range.",
                                 fix="both is a share, rar 0 or more, or -1 for measured.")

    def wants(self) -> tuple[Sidecar, ...]:
        return (Sidecar("stills"), *((Sidecar("pictures"),) if self.rar else ()))

    def check(self, pipe: Pipe) -> None:
        if not {"first", "first_last"} & set(pipe.modes):
            raise MotionLabError(f"Method {self.name} trains between two known frames, which '{pipe.name}' ({pipe.kind}) is not given.",
                                 fix="Use a generator of mode first_last, such as the kit's own, or of mode first.")
        if self.trained == "temporal" and "UNet" not in type(pipe.denoiser).__name__:
            raise MotionLabError(f"'{pipe.name}' has no temporal weights apart from the spatial ones.", fix="Use trained='vo', or a U-Net.")

    # ------------------------------------------------------------------ training
    def attach(self, pipe: Pipe) -> None:
        self.check(pipe)
        pipe.requires_grad_(False)
        if self.trained == "temporal":
            pipe.forward_branch = [copy.deepcopy(pipe)]                       # in a list: it is no part of what is trained
        self.attach_to(pipe.denoiser, pipe.shape[1])
        pipe.exchange = Exchange(pipe.denoiser, self.rotated and self.reversed_time)
        if self.rar:
            pipe.projector = training.projector(pipe, self.layer, self._encoder()).to(pipe.device)

    def attach_to(self, network: nn.Module, channels: int) -> None:
        if self.trained == "temporal":
            for name, p in network.named_parameters():
                p.requires_grad_("temporal_" in name)
            return
        sites = exchange_sites(network)
        rank = self.rank if self.rank >= 0 else 0 if "UNet" in type(network).__name__ else usual_rank({"": next(iter(sites.values())).to_q})
        ends = (".to_out.0",) if self.trained == "o" else (".to_v", ".to_out.0")
        add_residuals(network, [site + end for site in sites for end in ends], rank)

    def loss(self, pipe: Pipe) -> Callable:
        encoder = self._encoder().to(pipe.device) if self.rar else None
        return training.backward_loss(self.recipe, self.second(pipe), getattr(pipe, "projector", None), encoder)

    def settled(self, pipe: Pipe, data, config, folder: Path, dev=None) -> VTG:
        if not self.rar:
            return self
        judging = dev(self.wants()) if dev and self.rar == MEASURED else data
        weight = settling.settle(self.recipe, self.second(pipe), pipe.projector, self._encoder(), data, judging, config, folder)
        return replace(self, rar=weight)

    @property
    def recipe(self) -> training.BackwardRecipe:
        return training.BackwardRecipe(self.both, self.text_dropout, self.attribute_dropout, self.rar, self.layer, self.targets == "other")

    def second(self, pipe: Pipe) -> training.Second:
        """The branch that is trained, beside the frozen one."""
        apart = getattr(pipe, "forward_branch", [None])[0]
        return training.second_branch(pipe, apart, pipe.exchange if self.shared else None, self.reversed_time)

    # ------------------------------------------------------------------ sampling
    def sample(self, pipe: Pipe, prompts: Sequence[str], seeds: Sequence[int], options: Fused | None = None, *, first=None, last=None,
               prompts_last: Sequence[str] | None = None, given=None, callback: Callable | None = None, batch: int = 16) -> torch.Tensor:
        """Latents (b, f, c, h, w) between pictures, as of the base class; prompts_last: captions of the last ones, by default `prompts`."""
        if self.trained == "temporal":
            raise MotionLabError("With every temporal weight trained there are two networks, which are compared by their losses only.",
                                 fix="Sample with trained='vo'.")
        o = replace(options or self.Sampling(), shared=(options or self.Sampling()).shared and self.shared)
        how = {"reversed_time": self.reversed_time, "steps": o.steps or None, "solver": o.solver or None,
               "kept": Path(o.kept) if o.kept else None, "callback": callback}
        return sampling.transitions(pipe, prompts, seeds, o, None if o.w < 0 else o.w, first=first, last=last, prompts_last=prompts_last,
                                    true=(given or {}).get("x1"), mode=o.mode, batch=batch, **how)

    @torch.no_grad()
    def losses(self, pipe: Pipe, x_t, t, text, data, noise) -> dict[str, torch.Tensor]:
        """Of the second branch with both ends, "loss", and with one, "one"; of the first with both, "forward"."""
        return training.branch_losses(self.second(pipe), x_t, t, text, data, noise["x1"])

    def branch_velocities(self, pipe: Pipe, x_t, t, text, x1) -> dict[str, torch.Tensor]:
        """`papers.vtg.training.branch_velocities`."""
        return training.branch_velocities(self.second(pipe), x_t, t, text, x1)

    def alignment_of(self, pipe: Pipe, data, config, folder: Path) -> Callable:
        """`papers.vtg.settling.fitted_afterwards`."""
        recipe = replace(self, rar=1.0, targets="own").recipe
        return settling.fitted_afterwards(recipe, self.second(pipe), self._encoder(), data, config, folder)

    def _encoder(self):
        if not self.encoder:
            return load_image_encoder(shipped("image_encoder"))
        from motionlab.teachers.dinov2 import open_dinov2

        return open_dinov2(self.encoder)
