"""Which blocks decide the motion, which the appearance? One prompt for the first blocks, another for the rest (DeT, C3).

The paper shows one pair of pictures (walking tiger, lying tiger). Here two prompts run side by side on the same noise; at block
`depth` the first run's text states are replaced by the second run's, and the instruments read which prompt each attribute of the
clip follows, for every depth. At depth 0 it is the second prompt throughout, at the full depth the first.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from motionlab.diffusion import cfg
from motionlab.errors import MotionLabError
from motionlab.models.backbone import Backbone


def switched(backbone: Backbone, first: torch.Tensor, then: torch.Tensor, depth: int, w: float = 2.0) -> Callable:
    """A model (x, t) -> u whose first `depth` blocks read the prompt `first` and whose other blocks read `then`.

    Args:
        first, then: tokens (b, n). w: text guidance; its null half is not switched.

    Raises:
        MotionLabError: a depth that the backbone does not have, prompts of different shapes.
    """
    blocks = text_blocks(backbone.transformer)
    if not 0 <= depth <= len(blocks):
        raise MotionLabError(f"The backbone has {len(blocks)} blocks; there is no depth {depth}.", fix=f"Use 0 to {len(blocks)}.")
    if first.shape != then.shape:
        raise MotionLabError(f"The prompts have shapes {tuple(first.shape)} and {tuple(then.shape)}.", fix="Give as many of one as of the other.")
    tokens = torch.cat([first, then, backbone.grammar.null(len(first)).to(first.device)])

    def u(x, t):
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        with text_replaced(blocks, depth, len(x)):
            out = backbone(torch.cat([x] * 3), torch.cat([t] * 3), tokens)
        mixed, _, null = out.chunk(3)
        return cfg(mixed, null, w)

    return u


@contextmanager
def text_replaced(blocks: nn.ModuleList, depth: int, n: int) -> Iterator[None]:
    """From block `depth` on, rows 0..n of a batch carry the text states of rows n..2n; nothing stays behind after."""
    if depth == len(blocks):
        yield
        return

    def swap(module, args, kwargs):
        args = list(args)
        text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        text = torch.cat([text[n:2 * n], text[n:]])
        if "encoder_hidden_states" in kwargs:
            return tuple(args), kwargs | {"encoder_hidden_states": text}
        return (args[0], text, *args[2:]), kwargs

    handles = [blocks[k].register_forward_pre_hook(swap, with_kwargs=True) for k in range(depth, len(blocks))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def text_blocks(transformer: nn.Module) -> nn.ModuleList:
    """The blocks of a video DiT, in order.

    Raises:
        MotionLabError: none are found.
    """
    for name in ("transformer_blocks", "blocks"):
        found = getattr(transformer, name, None)
        if isinstance(found, nn.ModuleList) and len(found):
            return found
    raise MotionLabError(f"{type(transformer).__name__} has no list of blocks that reads text.", fix="Use CogVideoX, Wan or LTX.")
