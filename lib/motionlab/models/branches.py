"""Small modules beside the self-attention of a video transformer: they read what it reads, of the video tokens only, and add to it.

    add_branches(network, lambda width: Module(width))       # module: (b, f', h', w', d) -> the same shape
    with only(branches(network), kept={0, 1, 2}): ...        # the others are silent

Works on every class that taps know (`taps.layouts`), by hooks: nothing of the network is replaced, so adapters, taps and gradient
checkpointing go with it. A branch that gives zeros leaves the network as it was, to the bit. The grid (f', h', w') is taken from
each call, so that any length and size will do. A branch is a submodule of its attention (`....attn1.branch`): trained, stored, moved
and copied with the network.
"""
from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.taps.layouts import find_transformer

PLACES = ("skip", "before_out", "kv", "qkv")


class Branch(nn.Module):
    """One block's branch. index: its block's number in the order of execution, of `total` blocks of the network. on: False is silent;
    flip: the module sees time run backwards (what it gives is turned back)."""

    def __init__(self, module: nn.Module, index: int, total: int, grids: Grids, text: str):
        super().__init__()
        self.module, self.index, self.total, self.text = module, index, total, text
        self.on, self.flip, self._grids, self._made = True, False, grids, None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the module makes of tokens (b, n, d) of one clip's grid, (b, n, d)."""
        x = tokens.unflatten(1, self._grids.of(tokens.shape[1]))
        return (self.module(x.flip(1)).flip(1) if self.flip else self.module(x)).flatten(1, 3)

    # ------------------------------------------------------------------ hooks: methods, so that a copy of the network has its own
    def beside(self, attention, args, kwargs, output):
        """Forward hook of the attention: its video output and the branch's, before the block's gate."""
        if not self.on:
            return None
        made = self(_read(args, kwargs))
        if torch.is_tensor(output):
            return output + made.to(output.dtype)
        return output[0] + made.to(output[0].dtype), *output[1:]

    def make(self, attention, args, kwargs):
        """Forward pre-hook of the attention, for the places inside it."""
        self._made = self(_read(args, kwargs)) if self.on else None

    def forget(self, attention, args, output):
        """Forward hook of the attention, also after an exception."""
        self._made = None

    def after(self, projection, args, output):
        """Forward hook of a projection."""
        return None if self._made is None else self._added(output)

    def before(self, projection, args):
        """Forward pre-hook of a projection."""
        return None if self._made is None else (self._added(args[0]), *args[1:])

    def _added(self, sequence):
        """A whole sequence (b, n + words, d) with what was made on its video tokens."""
        words = sequence.shape[1] - self._made.shape[1]
        return sequence + F.pad(self._made.to(sequence.dtype), (0, 0, words, 0) if self.text == "first" else (0, 0, 0, words))


class Grids:
    """The token grids of the network's calls, by their number of tokens.

    Gradient checkpointing runs a block again after the network's call is over, maybe after others: what is known is kept, and of two
    grids of as many tokens the later.
    """

    def __init__(self, grid: Callable):
        self.grid, self.known = grid, {}

    def note(self, network, args, kwargs):
        """Forward pre-hook of the network."""
        inputs = inspect.signature(type(network).forward).bind_partial(network, *args, **kwargs).arguments
        grid = tuple(self.grid(network.config, inputs))
        self.known[math.prod(grid)] = grid

    def of(self, tokens):
        if tokens not in self.known:
            raise MotionLabError(f"A self-attention ran on {tokens} tokens, and the network's call was for a grid of "
                                 f"{list(self.known.values())[-1:] or 'nothing'}.", fix="Call the whole network, with video tokens only.")
        return self.known[tokens]


def _read(args, kwargs):
    """The video tokens that an attention is given, whatever its class."""
    return args[0] if args else kwargs["hidden_states"]


def add_branches(network: nn.Module, make: Callable[[int], nn.Module], place: str = "skip", stack: str = "") -> list[Branch]:
    """A module beside the self-attention of every block, in place.

    Args:
        make: width d -> module (b, f', h', w', d) -> (b, f', h', w', d).
        place: where its output is added: "skip", to the attention's output behind its projection; "before_out", before that
            projection; "kv" or "qkv", to keys and values, or to queries too, before they are split into heads.
        stack: the list of blocks, for a class that has several; "" is the first.

    Raises:
        MotionLabError: an unsupported network, one that has branches; an unknown place or stack, or one that the class does not have.
    """
    one_of(place, PLACES, "place of a branch")
    transformer, layout = find_transformer(network)
    stack = one_of(stack or layout.blocks[0], layout.blocks, f"list of blocks of {type(transformer).__name__}:")
    total = sum(len(getattr(transformer, name)) for name in layout.blocks)
    first = sum(len(getattr(transformer, name)) for name in layout.blocks[:layout.blocks.index(stack)])
    if any(isinstance(module, Branch) for module in transformer.modules()):
        raise MotionLabError(f"This {type(transformer).__name__} has branches already.", fix="Open the generator anew.")
    grids, made = Grids(layout.grid), []
    transformer.register_forward_pre_hook(grids.note, with_kwargs=True)
    for index, block in enumerate(getattr(transformer, stack), first):
        attention = getattr(block, layout.attention)
        weight = next(attention.parameters())
        attention.branch = Branch(make(attention.to_q.in_features), index, total, grids, layout.text).to(weight.device, weight.dtype)
        _hook(attention, attention.branch, place)
        made.append(attention.branch)
    return made


def _hook(attention, branch, place):
    if place == "skip":
        attention.register_forward_hook(branch.beside, with_kwargs=True)
        return
    if place == "before_out" and getattr(attention, "to_out", None) is None:
        raise MotionLabError("This attention has no output projection to be added before.", fix="Use place 'skip', or other blocks.")
    attention.register_forward_pre_hook(branch.make, with_kwargs=True)
    attention.register_forward_hook(branch.forget, always_call=True)
    if place == "before_out":
        attention.to_out[0].register_forward_pre_hook(branch.before)
    for name in place if place in ("kv", "qkv") else ():
        getattr(attention, f"to_{name}").register_forward_hook(branch.after)


def branches(network: nn.Module) -> dict[int, Branch]:
    """{number of its block: branch} of those that were added, in the order of execution."""
    return dict(sorted((module.index, module) for module in network.modules() if isinstance(module, Branch)))


@contextmanager
def only(found: dict[int, Branch], kept: Collection[int], flip: bool = False) -> Iterator[None]:
    """Inside, the branches of the blocks `kept` act and the others are silent; flip: see `Branch`."""
    before = {index: (branch.on, branch.flip) for index, branch in found.items()}
    try:
        for index, branch in found.items():
            branch.on, branch.flip = index in kept, flip
        yield
    finally:
        for index, branch in found.items():
            branch.on, branch.flip = before[index]
