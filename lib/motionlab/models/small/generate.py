"""From prompts to clips: the backbone's sampler, guidance and the codec's decoder in one call."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from motionlab.diffusion import SAMPLERS, time_grid
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.noise import prompt_noise
from motionlab.models.small.backbone import Backbone, condition_mask, guided
from motionlab.models.small.codec import Codec
from motionlab.core.precision import autocast


@torch.no_grad()
def generate(backbone: Backbone, codec: Codec, prompts: Sequence[str], seeds: Sequence[int], *, length: int = 5, mode: str = "text",
             known: torch.Tensor | None = None, steps: int = 20, w: float = 2.0, solver: str = "euler", shift: float = 2.0,
             batch: int = 16, callback: Callable | None = None, bf16: bool = True) -> torch.Tensor:
    """Clips (b, 1 + 4 (length - 1), 3, h, w) in [-1, 1], float32, of prompts, one noise seed each.

    Args:
        length: latent frames. mode: "text", "first" or "first_last".
        known: latents (b, length, c, h, w) that the known frames of `mode` are taken from.
        steps, solver, shift: of the sampler (protocol: 20 Euler steps, shift 2). w: guidance, `diffusion.cfg`.
        callback: the sampler's step callback, called for each batch.
        bf16: autocast where that is fast; the state itself stays float32.

    Raises:
        MotionLabError: lists of different lengths, a word outside the grammar, known frames missing or of another size.
    """
    latents = generate_latents(backbone, prompts, seeds, length=length, mode=mode, known=known, steps=steps, w=w, solver=solver,
                               shift=shift, batch=batch, callback=callback, bf16=bf16)
    device = next(codec.parameters()).device
    with autocast(device, bf16):
        return torch.cat([codec.decode(part.to(device)).float().clamp(-1, 1).cpu() for part in latents.split(batch)])


@torch.no_grad()
def generate_latents(backbone, prompts, seeds, *, length=5, mode="text", known=None, steps=20, w=2.0, solver="euler", shift=2.0, batch=16,
                     callback=None, bf16=True) -> torch.Tensor:
    """As `generate`, without the decoder: latents (b, length, c, h, w) on the CPU."""
    prompts, seeds = list(prompts), list(seeds)
    if len(prompts) != len(seeds) or not prompts:
        raise MotionLabError(f"{len(prompts)} prompts and {len(seeds)} noise seeds were given.",
                             fix="Give one or more prompts and one seed for each.")
    if mode != "text" and known is None:
        raise MotionLabError(f"Mode '{mode}' needs known frames.", fix="Pass known=, the latents of a clip of the same length.")
    one_of(solver, SAMPLERS, "solver")
    c, device = backbone.config, next(backbone.parameters()).device
    tokens = backbone.grammar.encode(prompts)
    x0 = prompt_noise(seeds, (length, c.channels, c.height, c.width))
    grid, out = time_grid(steps, shift), []
    for part in torch.arange(len(prompts)).split(batch):
        mask = condition_mask(mode, len(part), length) if mode != "text" else None
        cond = known[part].to(device) if mask is not None else None
        u = guided(backbone, tokens[part].to(device), w, cond, mask)
        with autocast(device, bf16):
            out.append(SAMPLERS[solver](lambda x, t: u(x, t).float(), x0[part].to(device), grid, callback).cpu())
    return torch.cat(out)
