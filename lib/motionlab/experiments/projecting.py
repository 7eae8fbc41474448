"""Which projector can express motion? Heads of one kind each, fitted alone on exact transport at their own grid and frame rate.

The hidden states are taken once and held, since nothing but the head is trained; fitted and judged clips are apart.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from motionlab.core.noise import prompt_seeds
from motionlab.correlation import inside, local_correlation, unpacked
from motionlab.data.correlations import CELL
from motionlab.data.prompts import Prompt
from motionlab.data.sidecars import Sidecar
from motionlab.data.sources import Listed
from motionlab.diffusion import interpolate
from motionlab.metrics.correspondence import correspondence
from motionlab.models.pipe import Pipe
from motionlab.taps import features

TAU, BATCH, RATE = 0.1, 8, 3e-3
TIMES = (0.3, 0.5, 0.7, 0.9)                # prompts take turns: what a head reads is noised, as in training


@dataclass(frozen=True)
class Held:
    """Hidden states (n, t, h, w, d) of prompts' true clips after one block, half precision, and the clips themselves."""

    hidden: torch.Tensor
    prompts: Sequence[Prompt]
    source: Listed

    def __len__(self) -> int:
        return len(self.prompts)


@torch.no_grad()
def hidden_states(pipe: Pipe, prompts: Sequence[Prompt], blocks: Sequence[int], together: int = 8) -> dict[int, Held]:
    """{block: `Held`} after each of these blocks (counted from 0); noise by prompt, times in turn."""
    clips, out = [p.clip(frames=pipe.frames) for p in prompts], {block: [] for block in sorted(blocks)}
    times = torch.tensor([TIMES[i % len(TIMES)] for i in range(len(prompts))])
    for first in range(0, len(prompts), together):
        part = slice(first, first + together)
        x1 = pipe.encode(clips[part])
        x_t = interpolate(pipe.noise(prompt_seeds([p.noise for p in prompts[part]], 0), x1), x1, times[part].view(-1, 1, 1, 1, 1))
        with features(pipe.denoiser, sorted(blocks)) as tapped:
            pipe.velocity(x_t, times[part], pipe.text([p.text for p in prompts[part]]))
        for kept, seen in zip(out.values(), tapped.values(), strict=True):
            kept.append(seen[-1].half())
    return {block: Held(torch.cat(parts), prompts, Listed(clips)) for block, parts in out.items()}


def transports(held: Held, pipe: Pipe, every: int, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(exact transport (n, t - 1, h, w, m), cells near the subject of which it is known) between frames `every` apart on a grid."""
    cell = CELL * pipe.size[0] // pipe.cell // grid[0]
    sidecar = Sidecar("transport", {"where": "subject", "every": every, "cell": cell})
    maps = unpacked(torch.from_numpy(np.stack([sidecar.draw(held.source, i) for i in range(len(held))])), grid, outside=0.0)
    return maps.nan_to_num(), maps.isfinite().all(-1)


def fitted(head: nn.Module, held: Held, truth: torch.Tensor, known: torch.Tensor, steps: int, seed: int = 0) -> nn.Module:
    """The head, fitted by KL(exact transport || what it says), `BATCH` clips a step."""
    head, optimiser = head.train(), torch.optim.AdamW(head.parameters(), RATE)
    rng, size = np.random.default_rng(seed), min(BATCH, len(held))
    for _ in range(steps):
        rows = torch.from_numpy(rng.permutation(len(held))[:size])
        log_q = (local_correlation(head(held.hidden[rows].float())) / TAU).log_softmax(-1)
        far = (torch.xlogy(truth[rows], truth[rows]) - truth[rows] * log_q).sum(-1)
        loss = (far * known[rows]).sum() / known[rows].sum().clamp(min=1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return head.eval()


@torch.no_grad()
def said_rows(head: nn.Module, held: Held, truth: torch.Tensor, known: torch.Tensor, arm: str, **more) -> Iterator[dict]:
    """Rows {item, arm, seed, hit, own_place, ...} of a fitted head on clips that it was not fitted on; own_place: share of the cells that
    move of which it says that they stay."""
    for first in range(0, len(held), BATCH):
        part = slice(first, first + BATCH)
        p = (local_correlation(head(held.hidden[part].float())) / TAU).softmax(-1)
        found = correspondence(p, truth[part], known[part]) | {"own_place": stays(p, truth[part], known[part])}
        for i, prompt in enumerate(held.prompts[part]):
            yield {"item": prompt.id, "arm": arm, "seed": 0} | more | {name: float(found[name][i])
                                                                       for name in ("hit", "own_place", "still_kept", "kl", "border")}


def stays(p: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Share (b,) of the cells that move whose arg-max is their own place; NaN where none moves."""
    here = p.shape[-1] // 2
    moving = known & (truth.argmax(-1) != here)
    n = moving.flatten(1).sum(1)
    return ((p.argmax(-1) == here) & moving).flatten(1).sum(1) / torch.where(n > 0, n, torch.nan)


def projector_rows(make: Callable[[str, int], nn.Module], names: Sequence[str], every: Callable[[str], int], pipe: Pipe, fit: Held,
                   judge: Held, steps: int, **more) -> Iterator[dict]:
    """`said_rows` of each named projector, fitted on `fit` and judged on `judge`.

    Args:
        make: (name, width) -> projector. every: name -> frames between its outputs.
    """
    for name in names:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = make(name, fit.hidden.shape[-1])
        with torch.no_grad():
            grid = tuple(head(fit.hidden[:1].float()).shape[2:4])
        head = fitted(head, fit, *transports(fit, pipe, every(name), grid), steps)
        yield from said_rows(head, judge, *transports(judge, pipe, every(name), grid), name, **more)


def moving_features(frames: int, speed: int, every: int, grid: int = 16, width: int = 64, seed: int = 0) -> torch.Tensor:
    """Random unit features (1, t, grid, grid, width) that move `speed` cells to the right between frames `every` apart, on a torus."""
    canvas = torch.nn.functional.normalize(torch.randn(grid, grid, width, generator=torch.Generator().manual_seed(seed)), dim=-1)
    return torch.stack([canvas.roll(k // every * speed, 1) for k in range(frames)])[None]


@torch.no_grad()
def moving_rows(arms: dict[str, Callable], latents: int = 4, n: int = 16) -> Iterator[dict]:
    """Rows {item, arm, seed, hit, own_place}: random features at latents, sent through each arm's own steps in time with an identity for
    its projection. Arms: {name: (projector, cells moved from latent to latent, right offset (dx) between its outputs)}."""
    for name, (head, speed, right) in arms.items():
        for seed in range(n):
            said = local_correlation(head(moving_features(latents, speed, 1, seed=seed)))
            best, side = said.argmax(-1), int(said.shape[-1] ** 0.5)
            middle, valid = side ** 2 // 2, inside(*said.shape[2:4])[..., side ** 2 // 2 + right]
            yield {"item": f"draw {seed}", "arm": name, "seed": 0, "hit": float((best == middle + right)[:, :, valid].double().mean()),
                   "own_place": float((best == middle)[:, :, valid].double().mean())}
