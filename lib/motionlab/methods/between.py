"""The generator's own way between two pictures, with whatever needs no training: interpolated noises, LoRAs of the ends, a text per
frame, the base fused with itself read backwards. What a trained cure is compared with. Equations: papers/vtg."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from motionlab.methods.base import Method, Sampling
from motionlab.models.exchange import Exchange
from motionlab.models.pipe import Pipe
from motionlab.models.row_lora import RowLora, spatial_projections
from motionlab.papers.vtg import sampling
from motionlab.papers.vtg.ends import fit_loras, picture_losses


@dataclass(frozen=True)
class TwoEnds(Sampling, sampling.Settings):
    """`papers.vtg.sampling.Settings` beside what every method's sampling has; one branch by default. kept: a folder for LoRAs and
    inverted noises of the ends, "" for none.

    `flip` of the tables is option="P"; `slerp`, `lerp` start=...; `early` early=0.2; `oracle_noise` start="true"; `lora` lora=rank; `text`
    text="slerp"; `first_only` mode="first"."""

    kept: str = ""


@dataclass(frozen=True)
class Between(Method):
    """Nothing is trained."""

    name: ClassVar[str] = "between"
    tunes_base: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    Sampling: ClassVar[type] = TwoEnds

    def attach(self, pipe: Pipe) -> None:
        pipe.requires_grad_(False)
        pipe.exchange = Exchange(pipe.denoiser)

    def sample(self, pipe: Pipe, prompts: Sequence[str], seeds: Sequence[int], options: TwoEnds | None = None, *, first=None, last=None,
               prompts_last: Sequence[str] | None = None, given=None, callback: Callable | None = None, batch: int = 16) -> torch.Tensor:
        """Latents (b, f, c, h, w) between pictures, as of the base class.

        Args:
            prompts_last: captions of the last pictures, by default `prompts`. given: {"x1": latents of the true clips}, for start "true".
        """
        o = options or self.Sampling()
        how = {"steps": o.steps or None, "solver": o.solver or None, "kept": Path(o.kept) if o.kept else None, "callback": callback}
        return sampling.transitions(pipe, prompts, seeds, o, None if o.w < 0 else o.w, first=first, last=last, prompts_last=prompts_last,
                                    true=(given or {}).get("x1"), mode=o.mode, batch=batch, **how)

    def end_losses(self, pipe: Pipe, pictures: torch.Tensor, texts: Sequence[str], o: TwoEnds) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses (n,) of pictures (n, 3, h, w) as one-frame clips, by the base and by the base with each one's own LoRA."""
        rows, text = RowLora(pipe.denoiser, spatial_projections(pipe.denoiser)), pipe.text(list(texts))
        z = pipe.encode_video(pictures[:, None])[:, 0]
        factors = fit_loras(pipe, rows, z, text, o.lora, o.lora_steps, o.lora_lr)
        return tuple(picture_losses(pipe, rows, one, z, text) for one in (None, factors))
