"""Random numbers: every stream follows from a seed alone, drawn on the CPU, whatever the device or its neighbours."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.protocol import RULED, protocol_version

STRIDE = 1000000007     # up to protocol 6: between the noise seeds of one prompt under two run seeds


def seed_of(*parts: Any) -> int:
    """A 63-bit seed from any values: near seeds and steps give unrelated streams."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SampleNoise(list):
    """One `torch.Generator` per sample of this process's slice; draws on the CPU, results on `device`.

    Args:
        seed, step: of the run.
        positions: global positions in the batch, one per local sample.
        progress: share of the training that is done before this step, in [0, 1): all that a loss may know of time.
    """

    def __init__(self, seed: int, step: int, positions: range, device: torch.device | str = "cpu", progress: float = 0.0):
        super().__init__(torch.Generator().manual_seed(seed_of("noise", seed, step, p)) for p in positions)
        self.device, self.progress = device, progress

    def randn(self, *shape: int) -> torch.Tensor:
        """Standard normal (b, *shape)."""
        return torch.stack([torch.randn(shape, generator=g) for g in self]).to(self.device)

    def rand(self, *shape: int) -> torch.Tensor:
        """Uniform in [0, 1), (b, *shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self]).to(self.device)

    def randint(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Whole numbers in [low, high), int64 (b, *shape)."""
        return torch.stack([torch.randint(low, high, shape, generator=g) for g in self]).to(self.device)


def noise_version() -> int:
    """The protocol that decides how seeds are drawn: the checkout's, and the newest known where there is none."""
    try:
        return protocol_version() or RULED
    except MotionLabError:
        return RULED


def prompt_seeds(prompts: Sequence[int], run_seed: int, version: int | None = None) -> list[int]:
    """The noise seed of each prompt, given by the seed of its scene, under a run's seed.

    From protocol 7 on a hash of both, so that no two are neighbours. Up to 6 they were consecutive, and prompt k's second stream
    (one on, see `stream_seeds`) was prompt k+1's first.

    Args:
        version: of the protocol; None: the checkout's.
    """
    if (noise_version() if version is None else version) < RULED:
        return [int(prompt) + STRIDE * run_seed for prompt in prompts]
    return [seed_of("prompt", int(prompt), int(run_seed)) for prompt in prompts]


def stream_seeds(seeds: Sequence[int], stream: int, version: int | None = None) -> list[int]:
    """The seeds of one of the streams that are generated together: 0 is the video, whose seeds are the prompts' own; 1, 2, ...
    are what a method generates beside it, in its order.

    From protocol 7 on a hash of seed and stream; up to 6 the seed plus the stream's number.
    """
    if (noise_version() if version is None else version) < RULED:
        return [int(seed) + stream for seed in seeds]
    return [seed_of("stream", int(seed), stream) if stream else int(seed) for seed in seeds]


def prompt_noise(seeds: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Starting noise (b, *shape), each row from its own seed: a prompt's noise never depends on its neighbours."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])
