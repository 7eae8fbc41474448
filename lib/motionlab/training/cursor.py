"""Which items of the data the samples of a run are."""
from __future__ import annotations

import torch

from motionlab.core.noise import seed_of


class DataCursor:
    """Which items the k-th, k+1-th, ... samples of a run are: a fresh permutation of `length` items per epoch."""

    def __init__(self, length: int, seed: int):
        self.length, self.seed, self._orders = length, seed, {}

    def order(self, epoch: int) -> torch.Tensor:
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}  # a batch spans few epochs
            generator = torch.Generator().manual_seed(seed_of("epoch", self.seed, epoch))
            self._orders[epoch] = torch.randperm(self.length, generator=generator)
        return self._orders[epoch]

    def indices(self, samples: range) -> torch.Tensor:
        """Item numbers, int64 (b,), of the samples with these global counts."""
        return torch.stack([self.order(k // self.length)[k % self.length] for k in samples])
