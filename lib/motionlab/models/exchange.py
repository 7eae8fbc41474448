"""Queries and keys of one half of a batch for the other, with time reversed: how a branch that runs backwards borrows attention.

    sites = Exchange(network)                  # temporal self-attention of a U-Net, or all self-attention of a video transformer
    with sites.lockstep(): network(both)       # the batch's second half gets the first half's q and k, frames reversed
    with sites.recording(): network(first)     # or apart, where one half is to have a gradient
    with sites.replaying(): network(second)

softmax(J Q (J K)^T) V is the map of the first half turned by 180 degrees, times the second half's own values: nothing is stored but q
and k, and no kernel is replaced. They are exchanged at the call of `scaled_dot_product_attention`, so after norms and rotary positions.
Only frames are reversed: places stay, and so do text tokens in a joint sequence.
"""
from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from motionlab.core.errors import MotionLabError
from motionlab.taps.layouts import find_transformer, refuse_compiled

UNETS = ("UNetSpatioTemporalConditionModel", "I2VGenXLUNet", "UNet3DConditionModel")
STATES = ("off", "lockstep", "recording", "replaying")


def temporal_attentions(unet: nn.Module) -> dict[str, nn.Module]:
    """{name: module} of a video U-Net's self-attention over frames, of sequences (b h w, f, d).

    In I2VGen-XL's class both attentions of a temporal block are such; in Stable Video Diffusion's the second one reads text.
    """
    places = (".temporal_transformer_blocks.", "temp_attentions.", "transformer_in.")
    found = {name: m for name, m in unet.named_modules() if any(place in f".{name}" for place in places)
             and (name.endswith(".attn1") or (name.endswith(".attn2") and ".temporal_transformer_blocks." not in name))}
    return {name: m for name, m in found.items() if not getattr(m, "is_cross_attention", False)}


def exchange_sites(network: nn.Module) -> dict[str, nn.Module]:
    """{name: module} of the attention that an `Exchange` acts at: over frames in a U-Net, over all tokens in a video transformer.

    Raises:
        MotionLabError: neither of them.
    """
    if _is_unet(network):
        return temporal_attentions(network)
    transformer, layout = find_transformer(network)
    return {f"{stack}.{i}.{layout.attention}": getattr(block, layout.attention) for stack in layout.blocks
            for i, block in enumerate(getattr(transformer, stack))}


def _is_unet(network):
    return any(cls.__name__ in UNETS for cls in type(network).__mro__)


class Exchange:
    """The hooks of one network. reversed_time: False hands q and k on as they are, for a second half that does not run backwards.

    Raises:
        MotionLabError: a network that is neither a known video transformer nor a video U-Net; a compiled one.
    """

    def __init__(self, network: nn.Module, reversed_time: bool = True):
        self.state, self.reversed_time, self.kept, self._inside, self._grid = "off", reversed_time, {}, None, None
        self.sites = exchange_sites(network)
        called, self._layout = (network, None) if _is_unet(network) else find_transformer(network)
        called.register_forward_pre_hook(self._note, with_kwargs=True)
        refuse_compiled(network, list(self.sites.values()))
        self._mode = _Watch(self)
        for name, module in self.sites.items():
            module.register_forward_pre_hook(lambda _m, _a, name=name: self._enter(name))
            module.register_forward_hook(lambda _m, _a, _o: self._leave(), always_call=True)

    # ------------------------------------------------------------------ what callers do
    @contextmanager
    def _in(self, state: str) -> Iterator[None]:
        before, self.state = self.state, state
        try:
            yield
        finally:
            self.state = before

    def lockstep(self):
        """Inside, the second half of every batch gets the first half's q and k."""
        return self._in("lockstep")

    def recording(self):
        """Inside, q and k of every call are kept, until those of the next replace them."""
        return self._in("recording")

    def replaying(self):
        """Inside, every call gets the q and k that were kept."""
        return self._in("replaying")

    # ------------------------------------------------------------------ hooks
    def _note(self, network, args, kwargs):
        inputs = inspect.signature(type(network).forward).bind_partial(network, *args, **kwargs).arguments
        b = len(next(iter(inputs[name] for name in ("hidden_states", "sample") if name in inputs)))
        if self.state == "lockstep" and b % 2:
            raise MotionLabError(f"A batch of {b} has no halves.", fix="Give both branches in one batch.")
        if self._layout is not None:
            self._grid = tuple(self._layout.grid(network.config, inputs))

    def _enter(self, name):
        self._leave()
        if self.state != "off":
            self._inside = name
            self._mode.__enter__()                            # later than any other mode of the network's: it is asked before them

    def _leave(self):
        if self._inside is not None:
            self._inside = None
            self._mode.__exit__(None, None, None)

    def exchanged(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a call of the attention that runs is given instead of its q and k, (b, heads, n, d)."""
        if self.state == "recording":
            self.kept[self._inside] = q, k
            return q, k
        if self.state == "lockstep":
            halves = [x[:len(x) // 2] for x in (q, k)]
            return tuple(torch.cat([x, self.mirrored(x)]) for x in halves)
        if self._inside not in self.kept:
            raise MotionLabError(f"Nothing was kept of attention '{self._inside}'.", fix="Call the network in `recording()` first.")
        return tuple(self.mirrored(x) for x in self.kept[self._inside])

    def mirrored(self, x: torch.Tensor) -> torch.Tensor:
        """q or k (b, heads, n, d) with the order of frames reversed, places and text tokens kept."""
        if not self.reversed_time:
            return x
        if self._grid is None:
            return x.flip(2)                                  # a U-Net's temporal sequence: frames and nothing else
        n = self._grid[0] * self._grid[1] * self._grid[2]
        first = x.shape[2] - n if self._layout.text == "first" else 0
        video = x[:, :, first:first + n].unflatten(2, self._grid).flip(2).flatten(2, 4)
        return torch.cat([x[:, :, :first], video, x[:, :, first + n:]], 2)


class _Watch(TorchFunctionMode):
    """Lets an `Exchange` replace q and k of `scaled_dot_product_attention`, and changes nothing else."""

    def __init__(self, exchange):
        super().__init__()
        self.exchange = exchange

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args)) | kwargs
            given["query"], given["key"] = self.exchange.exchanged(given["query"], given["key"])
            return func(given.pop("query"), given.pop("key"), given.pop("value"), *args[3:], **given)
        return func(*args, **kwargs)
