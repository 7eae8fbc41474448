"""Random numbers: every stream follows from a seed alone, drawn on the CPU, whatever the device or its neighbours."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch


def seed_of(*parts: Any) -> int:
    """A 63-bit seed from any values: near seeds and steps give unrelated streams."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SampleNoise(list):
    """One `torch.Generator` per sample of this process's slice; draws on the CPU, results on `device`.

    Args:
        seed, step: of the run.
        positions: global positions in the batch, one per local sample.
    """

    def __init__(self, seed: int, step: int, positions: range, device: torch.device | str = "cpu"):
        super().__init__(torch.Generator().manual_seed(seed_of("noise", seed, step, p)) for p in positions)
        self.device = device

    def randn(self, *shape: int) -> torch.Tensor:
        """Standard normal (b, *shape)."""
        return torch.stack([torch.randn(shape, generator=g) for g in self]).to(self.device)

    def rand(self, *shape: int) -> torch.Tensor:
        """Uniform in [0, 1), (b, *shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self]).to(self.device)

    def randint(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Whole numbers in [low, high), int64 (b, *shape)."""
        return torch.stack([torch.randint(low, high, shape, generator=g) for g in self]).to(self.device)


def prompt_noise(seeds: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Starting noise (b, *shape), each row from its own seed: a prompt's noise never depends on its neighbours."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])
