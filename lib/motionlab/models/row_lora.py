"""Low-rank updates of a batch's own: every clip (and every frame of it) may have other ones, by batched products.

peft knows one set of weights for the whole batch. Here each row brings its factors, so that LoRAs of many pictures are trained at
once, each as it would be alone, and the LoRAs of a clip's two ends are mixed frame by frame without swapping a weight.

    rows = RowLora(network, names)
    with rows.use(lora): network(...)                        # lora: {name: (A (b, r, in), B (b, out, r))}, a row per clip
    with rows.use(first, last, shares, "product"): ...       # shares (b, f) of the last end, per frame
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]
MIXES = ("product", "factor")


class RowLora:
    """The hooks of one network at linear layers `names`, which read (rows, tokens, in): rows are clips, or clips times frames."""

    def __init__(self, network: nn.Module, names: Sequence[str]):
        self.layers = {name: network.get_submodule(name) for name in names}
        self._first = self._last = self._shares = None
        self._mix = "product"
        for name, layer in self.layers.items():
            layer.register_forward_hook(lambda module, args, out, name=name: self._with_update(name, args[0], out))

    def begin(self, n: int, rank: int, seed: int = 0) -> Factors:
        """Factors of n clips that add nothing yet: the same A for all (fixed seed, as DiffMorpher), B zero."""
        generator, found = torch.Generator().manual_seed(seed), {}
        for name, layer in self.layers.items():
            a = (2 * torch.rand(rank, layer.in_features, generator=generator) - 1) * layer.in_features ** -0.5
            a = a.to(layer.weight.device, torch.float32)
            found[name] = a.expand(n, -1, -1).clone(), a.new_zeros(n, layer.out_features, rank)
        return found

    @contextmanager
    def use(self, first: Factors | None, last: Factors | None = None, shares: torch.Tensor | None = None,
            mix: str = "product") -> Iterator[None]:
        """Inside, clip i of every batch has the factors of its row.

        Args:
            first, last: of the two ends; last None: the first ones alone. shares: (b, f), each frame's share of the last.
            mix: "product", (1 - s) B_1 A_1 + s B_N A_N, or "factor", A and B mixed apart.
        """
        self._mix = one_of(mix, MIXES, "mix of LoRAs")
        self._first, self._last, self._shares = first, last, shares
        try:
            yield
        finally:
            self._first = self._last = self._shares = None

    def _with_update(self, name, x, out):
        if self._first is None:
            return None
        a, b = self._first[name]
        if x.dim() != 3 or len(x) % len(a):
            raise MotionLabError(f"Layer '{name}' read {tuple(x.shape)} with the factors of {len(a)} clips.",
                                 fix="Give factors for each row.")
        tokens = x.reshape(len(a), -1, x.shape[-1])          # rows of one clip lie together
        if self._last is None:
            return out + _low_rank(tokens, a, b).reshape(out.shape).to(out.dtype)
        share = self._shares_of(len(x), x.shape[1])
        return out + _mixed(tokens, a, b, *self._last[name], share.to(tokens), self._mix).reshape(out.shape).to(out.dtype)

    def _shares_of(self, rows, tokens):
        """The share of every token (b, rows / b * tokens, 1): rows are clips times frames, of `tokens` tokens each."""
        b, f = self._shares.shape
        if rows != b * f:
            raise MotionLabError(f"{rows} rows were read with shares of {b} clips of {f} frames.", fix="Give a share per clip and frame.")
        return self._shares.repeat_interleave(tokens, 1)[..., None]


def _low_rank(x, a, b):
    """(b, n, in) -> (b, n, out) by each row's own factors."""
    return (x @ a.mT.to(x.dtype)) @ b.mT.to(x.dtype)


def _mixed(x, a_1, b_1, a_n, b_n, share, mix):
    a_1, b_1, a_n, b_n = (f.to(x.dtype) for f in (a_1, b_1, a_n, b_n))
    if mix == "product":
        weights = torch.cat([(1 - share).expand(-1, -1, a_1.shape[1]), share.expand(-1, -1, a_n.shape[1])], -1)
        return ((x @ torch.cat([a_1, a_n], 1).mT) * weights) @ torch.cat([b_1, b_n], 2).mT
    inner = (1 - share) * (x @ a_1.mT) + share * (x @ a_n.mT)
    return (1 - share) * (inner @ b_1.mT) + share * (inner @ b_n.mT)


def spatial_projections(unet: nn.Module) -> list[str]:
    """Names of q, k and v of a video U-Net's spatial self- and cross-attention.

    Raises:
        MotionLabError: a network without such layers.
    """
    found = [name for name, m in unet.named_modules() if isinstance(m, nn.Linear) and name.rpartition(".")[2] in ("to_q", "to_k", "to_v")
             and ".transformer_blocks." in name and not any(part in name for part in ("temp_attentions", "transformer_in", "temporal_"))]
    if not found:
        raise MotionLabError(f"{type(unet).__name__} has no spatial attention of its own.", fix="Give a video U-Net.")
    return found
