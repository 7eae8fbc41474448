"""Heads: small networks that read hidden states during a training and are thrown away after it.

A head is a submodule of the network (`network.heads[name]`), so that it is trained, moved, averaged and kept in the resume checkpoint
with it. What is kept of a training is written without: `methods.files` takes heads off first, and sampling never runs one.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.models.branches import Grids
from motionlab.taps.layouts import find_transformer, selected_blocks


def tapped_block(network: nn.Module, block: int, share: float) -> int:
    """The index of a block that is counted from 1; 0: the block at this share of the depth.

    Raises:
        MotionLabError: an unsupported network, no such block.
    """
    transformer, layout = find_transformer(network)
    total = sum(len(getattr(transformer, stack)) for stack in layout.blocks)
    chosen = block or max(1, round(share * total))
    if not 1 <= chosen <= total:
        raise MotionLabError(f"Block {block} is to be tapped, and {type(transformer).__name__} has {total}.",
                             fix=f"Count from 1 to {total}, or give 0 for block {max(1, round(share * total))}.")
    return chosen - 1


@contextlib.contextmanager
def raw_output(network: nn.Module, index: int) -> Iterator[list[torch.Tensor]]:
    """The video tokens (b, n, d) that a block gives, call by call, as the next block reads them: what a gradient can be asked for."""
    block, = selected_blocks(*find_transformer(network), index).values()
    seen: list[torch.Tensor] = []
    handle = block.register_forward_hook(lambda _m, _a, output: seen.append(output if torch.is_tensor(output) else output[0]))
    try:
        yield seen
    finally:
        handle.remove()


def width(network: nn.Module) -> int:
    """Channels of the network's hidden states."""
    transformer, layout = find_transformer(network)
    return getattr(getattr(transformer, layout.blocks[0])[0], layout.attention).to_q.in_features


def add_head(network: nn.Module, name: str, make: Callable[[int], nn.Module], block: int) -> nn.Module:
    """`network.heads[name]` = make(width of the hidden states), with weights that are alike in every run; it reads block `block`, an index.

    Raises:
        MotionLabError: the network has a head of this name.
    """
    transformer, _ = find_transformer(network)
    if not hasattr(transformer, "heads"):
        transformer.heads = nn.ModuleDict()
    if name in transformer.heads:
        raise MotionLabError(f"This {type(transformer).__name__} has a head '{name}' already.", fix="Open the generator anew.")
    weight = next(transformer.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer.heads[name] = make(width(transformer)).to(weight.device, weight.dtype)
    transformer.heads[name].block = block
    return transformer.heads[name]


def head(network: nn.Module, name: str) -> nn.Module:
    """A head of `add_head`.

    Raises:
        MotionLabError: the network has none of this name: it came from a file, which holds no heads.
    """
    found = getattr(find_transformer(network)[0], "heads", {})
    if name not in found:
        raise MotionLabError(f"The network has no head '{name}'.", fix="Attach the method to a generator that is to be trained.")
    return found[name]


@contextlib.contextmanager
def heads_run(model: nn.Module) -> Iterator[None]:
    """Inside, a call of the model runs its heads too, and their mean is added to what it returns: for counting what they cost."""
    networks = [module for module in model.modules() if isinstance(getattr(module, "heads", None), nn.ModuleDict)]
    with contextlib.ExitStack() as stack:
        for network in networks:
            grids = Grids(find_transformer(network)[1].grid)
            seen = {each: stack.enter_context(raw_output(network, each.block)) for each in network.heads.values()}

            def with_heads(_module, _args, output, seen=seen, grids=grids):
                extra = sum(each(said[-1].unflatten(1, grids.of(said[-1].shape[1]))).mean() for each, said in seen.items())
                return output + extra if torch.is_tensor(output) else (output[0] + extra, *output[1:])

            handles = (network.register_forward_pre_hook(grids.note, with_kwargs=True), network.register_forward_hook(with_heads))
            for handle in handles:
                stack.callback(handle.remove)
        yield


def without_heads(names: list[str]) -> list[str]:
    """Names of tensors, those of heads left out."""
    return [name for name in names if "heads" not in name.split(".")]


def drop_heads(network: nn.Module) -> None:
    """Take all heads off, in place."""
    for module in network.modules():
        if isinstance(getattr(module, "heads", None), nn.ModuleDict):
            del module.heads


@contextlib.contextmanager
def heads_alone(model: nn.Module) -> Iterator[None]:
    """Inside, nothing but heads is trained; after it, what was trained before is again."""
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    mine = set(before) - set(without_heads(list(before)))
    for name, p in model.named_parameters():
        p.requires_grad_(name in mine)
    try:
        yield
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(before[name])
