"""Image morphing, frame by frame: every frame of the transition is a picture that the generator makes as a clip of one frame.

All begin at the SLERP of the two inverted ends. What they interpolate besides:

| kind | source | text | in spatial self-attention |
|---|---|---|---|
| tei | text-embedding interpolation (AID's first baseline) | linear in the embedding | - |
| di | denoising interpolation (AID's second) | the first caption, then the last for the final share lam_n of the steps | - |
| aid | He et al., arXiv 2403.17924, fused outer attention | linear | (1 - lam) A(q; [K_1, K], [V_1, V]) + lam A(q; [K_N, K], [V_N, V]) |
| diffmorpher | Zhang et al., arXiv 2312.07409 | linear; LoRAs of the ends, factors mixed | K and V between the ends', 0.6 of the steps |

Differences: AID's Beta-distributed coefficients and DiffMorpher's rescheduling are left out, so that all frames are spaced alike; both
were made for text-to-image networks, of which this generator's one-frame clips take the place.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.diffusion import cfg
from motionlab.methods.base import Method, Sampling
from motionlab.models.end_keys import EndKeys
from motionlab.models.pipe import Pipe
from motionlab.models.row_lora import RowLora, spatial_projections
from motionlab.papers.vtg import frame_lerp, frame_slerp, frame_weights
from motionlab.papers.vtg.branches import framewise_text
from motionlab.papers.vtg.ends import fit_loras, inverted

KINDS = ("tei", "di", "aid", "diffmorpher")
EARLY = 0.6              # of the steps, in which DiffMorpher replaces keys and values


@dataclass(frozen=True)
class Morph(Sampling):
    """kind: see the table above. rank, lora_steps, lora_lr: of DiffMorpher's LoRAs."""

    kind: str = "tei"
    rank: int = 4
    lora_steps: int = 200
    lora_lr: float = 2e-4

    def __post_init__(self):
        one_of(self.kind, KINDS, "way to morph")


@dataclass(frozen=True)
class Morphing(Method):
    """Nothing is trained but LoRAs of the two pictures, where the kind has them."""

    name: ClassVar[str] = "morphing"
    tunes_base: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    Sampling: ClassVar[type] = Morph

    def attach(self, pipe: Pipe) -> None:
        pipe.requires_grad_(False)
        pipe.morph_rows, pipe.morph_keys = RowLora(pipe.denoiser, spatial_projections(pipe.denoiser)), EndKeys(pipe.denoiser)

    def sample(self, pipe: Pipe, prompts: Sequence[str], seeds: Sequence[int], options: Morph | None = None, *, first=None, last=None,
               prompts_last: Sequence[str] | None = None, given=None, callback: Callable | None = None, batch: int = 4) -> torch.Tensor:
        """Latents (b, f, c, h, w) between pictures first and last (b, 3, h, w); prompts_last: their last captions.

        Raises:
            MotionLabError: a picture is missing; a generator that is no U-Net with its own text per frame.
        """
        o, lasts = options or Morph(), list(prompts if prompts_last is None else prompts_last)
        if first is None or last is None or first.shape != last.shape:
            raise MotionLabError("Morphing needs a first and a last picture of one size.",
                                 fix="Give first= and last=, (b, 3, h, w) in [-1, 1].")
        parts = [slice(k, k + batch) for k in range(0, len(prompts), batch)]
        return torch.cat([morphed(pipe, list(prompts[p]), lasts[p], first[p], last[p], o).cpu() for p in parts])


def morphed(pipe: Pipe, texts: list[str], lasts: list[str], first: torch.Tensor, last: torch.Tensor, o: Morph) -> torch.Tensor:
    """Latents (b, f, c, h, w) of one batch of pairs: b f clips of one frame, in one batch."""
    b, f, grid, rows = len(texts), pipe.shape[0], pipe.grid(o.steps or None), pipe.morph_rows
    lam, both = frame_weights(f), pipe.text(texts + lasts)
    with torch.no_grad():
        z = pipe.encode_video(torch.cat([first, last])[:, None])[:, 0]
    factors = fit_loras(pipe, rows, z, both, o.rank, o.lora_steps, o.lora_lr) if o.kind == "diffmorpher" else None
    with torch.no_grad():
        x = frame_slerp(*inverted(pipe, z, both, grid, rows=rows, factors=factors).chunk(2), lam).flatten(0, 1)[:, None]
        c_1, c_n = framewise_text(pipe, both).chunk(2)
        middle, null = frame_lerp(c_1, c_n, lam).flatten(0, 1), framewise_text(pipe, pipe.text([""])).expand(b * f, -1, -1)
        mixed = None if factors is None else [{n: tuple(a[part].repeat_interleave(f, 0) for a in pair) for n, pair in factors.items()}
                                              for part in (slice(None, b), slice(b, None))]
        w, shares = pipe.w if o.w < 0 else o.w, lam.float().repeat(b)

        def u(x, t):
            done = float((grid < t[0] + 1e-6).sum() - 1) / (len(grid) - 1)                  # share of the steps before this one
            text = _switched(c_1, c_n, lam, done) if o.kind == "di" else middle
            with ExitStack() as stack:
                if o.kind == "aid" or (o.kind == "diffmorpher" and done < EARLY):
                    stack.enter_context(pipe.morph_keys.between(shares, f, fused=o.kind == "aid"))
                if mixed:
                    stack.enter_context(rows.use(*mixed, shares[:, None], "factor"))
                said = [pipe.velocity(x, t, {"states": states}) for states in ([text, null] if w else [text])]
            return cfg(*said, w) if w else said[0]

        return pipe.solve(u, x, steps=o.steps or None, solver=o.solver or None)[:, 0].unflatten(0, (b, f))


def _switched(c_1, c_n, lam, done):
    """Of each frame the last caption once no more than its share of the steps is left, (b f, words, d)."""
    late = (done >= 1 - lam).repeat(len(c_1)).to(c_1.device)
    return torch.where(late[:, None, None], c_n.repeat_interleave(len(lam), 0), c_1.repeat_interleave(len(lam), 0))
