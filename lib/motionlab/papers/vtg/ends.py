"""What is made of a pair's two pictures before anything is sampled: a LoRA for each (card 2.2), their inverted noises (card 2.1)."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import save_weights
from motionlab.core.noise import SampleNoise, seed_of
from motionlab.diffusion import interpolate, velocity
from motionlab.models.pipe import Inputs, Pipe
from motionlab.models.row_lora import Factors, RowLora
from motionlab.papers.vtg.interpolation import invert

KIND = "motionlab.ends"


def fit_loras(pipe: Pipe, rows: RowLora, z: torch.Tensor, text: Inputs, rank: int, steps: int = 200, lr: float = 2e-4, seed: int = 0,
              watch=None) -> Factors:
    """One LoRA per picture, all at once, each as it would be alone: L(dtheta_i) = E |v - u_{theta + dtheta_i}|^2 on one-frame clips.

    Args:
        z: latents of the pictures (n, c, h, w). text: of their captions. rank, steps, lr: AdamW, constant, betas (0.9, 0.999), weight
            decay 1e-2 (DiffMorpher, card 2.2). seed: of the starts and of every step's noise and time, the same for all.
        watch: (step, losses (n,)) -> None.
    """
    factors = rows.begin(len(z), rank, seed)
    trained = [f.requires_grad_() for pair in factors.values() for f in pair]
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.999), weight_decay=1e-2)
    for p in (held := [p for p in pipe.parameters() if p.requires_grad]):
        p.requires_grad_(False)
    try:
        for step in range(steps):
            losses = _losses(pipe, rows, factors, z, text, _step_noise(pipe, seed, step))
            optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()                           # a sum: no picture's gradient depends on how many others there are
            optimizer.step()
            if watch is not None:
                watch(step, losses.detach())
    finally:
        for p in held:
            p.requires_grad_(True)
    return {name: tuple(f.detach() for f in pair) for name, pair in factors.items()}


@torch.no_grad()
def picture_losses(pipe: Pipe, rows: RowLora, factors: Factors | None, z: torch.Tensor, text: Inputs, draws: int = 16,
                   seed: int = 1) -> torch.Tensor:
    """Mean loss (n,) of one-frame clips at `draws` fixed noises and times: what a LoRA is judged by; factors None: the base."""
    return sum(_losses(pipe, rows, factors, z, text, _step_noise(pipe, seed, k)) for k in range(draws)) / draws


def _losses(pipe, rows, factors, z, text, noise):
    t, x0 = pipe.times(noise).expand(len(z)), noise.randn(1, *z.shape[1:]).expand(len(z), -1, -1, -1, -1)
    x1 = z[:, None]
    with rows.use(factors) if factors is not None else nullcontext(), pipe.autocast():
        u = pipe(interpolate(x0, x1, t), t, text)
    return (u.float() - velocity(x0, x1)).square().flatten(1).mean(1)


def _step_noise(pipe, seed, step):
    """A step's noise and time, one for all pictures, so that none depends on how many others there are."""
    return SampleNoise(seed_of("ends", seed), step, range(1), pipe.device)


def inverted(pipe: Pipe, z: torch.Tensor, text: Inputs, grid: torch.Tensor, until: float = 0.0, rows: RowLora | None = None,
             factors: Factors | None = None) -> torch.Tensor:
    """Latents of pictures z (n, c, h, w) carried to noise as one-frame clips: their own captions, no guidance, with their LoRAs if any."""
    def u(x, t):
        with rows.use(factors) if factors is not None else nullcontext():
            return pipe.velocity(x, t, text)

    return invert(u, z[:, None], grid, until)[:, 0]


# ---------------------------------------------------------------------------------------------- kept on disk
def name_of(pictures: torch.Tensor, captions: Sequence[str], pipe: Pipe, **settings) -> str:
    """Names pictures (n, 3, h, w), captions, generator and settings: kept LoRAs and noises belong to these alone."""
    parts = [(pictures.clamp(-1, 1) * 127.5 + 127.5).round().byte().cpu().numpy().tobytes(), json.dumps(list(captions)).encode(),
             f"{pipe.name} {pipe.codec_name}".encode(), json.dumps(settings, sort_keys=True).encode()]
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]


def save_ends(path: str | Path, name: str, noise: torch.Tensor | None, factors: Factors | None) -> Path:
    """Keep what was made of pictures under their name; whole or not at all."""
    tensors = {} if noise is None else {"noise": noise.float().cpu().contiguous()}
    for layer, (a, b) in (factors or {}).items():
        tensors |= {f"{layer}|A": a.cpu().contiguous(), f"{layer}|B": b.cpu().contiguous()}
    return save_weights(path, tensors, {"kind": KIND, "ends": name})


def load_ends(path: str | Path, name: str) -> tuple[torch.Tensor | None, Factors | None]:
    """(noise or None, factors or None) of a file of `save_ends`.

    Raises:
        MotionLabError: no such file, damaged, or made of other pictures, captions, generator or settings.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            meta, tensors = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise MotionLabError(f"'{path}' holds no LoRAs or noises of two ends ({error}).", fix="Delete it; it is made again.") from None
    if meta.get("kind") != KIND or meta.get("ends") != name:
        raise MotionLabError(f"'{path}' was made of other ends, captions, generator or settings ({meta.get('ends')}, not {name}).",
                             fix="Delete it, or give the pair that it was made of.")
    layers = sorted({key.rpartition("|")[0] for key in tensors if "|" in key})
    return tensors.get("noise"), {layer: (tensors[f"{layer}|A"], tensors[f"{layer}|B"]) for layer in layers} or None
