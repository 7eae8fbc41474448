"""The two taps."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.taps.calls import Call, Recording
from motionlab.taps.hooks import AttentionTap, FeatureTap, opened
from motionlab.taps.reductions import Reduction, checked_reductions


@contextmanager
def features(model: nn.Module, blocks=None, *, at: str = "block", rows=None, when: Callable[[Call], bool] | None = None,
             keep: Callable[[torch.Tensor], object] | None = None, detach: bool = True) -> Iterator[Recording]:
    """Record hidden states of the video tokens, (b, f', h', w', d) per block and call, in the model's own dtype.

    Args:
        model: a supported transformer, or a module that holds exactly one.
        blocks: index, name or a list of them; indices count in the order of execution, from the end when negative.
            None: all.
        at: "block", the residual stream after the block; "attention", what its self-attention returns (DeT's feature).
        rows: rows of the batch: a slice, a list of indices, "first_half" or "second_half". With guidance in one batch
            the conditional half is the first in this kit (`guided`), the second in diffusers' pipelines; their Wan
            and Hunyuan pipelines call twice instead: choose with `when`. None: all.
        when: which calls to record, for example `lambda call: call.index in (0, 10)`. None: all.
        keep: reduces the (b, f', h', w', d) tensor before it is stored, for example `lambda x: x.mean((2, 3)).cpu()`.
        detach: False keeps the entries in the autograd graph, for a loss on features; they are then not copied.

    Memory: calls x blocks x what `keep` leaves of b f' h' w' d numbers; nothing else is held.

    Raises:
        MotionLabError: unsupported or compiled model, unknown block, rows outside the batch, LTX called without its
            grid; at the end, when a block recorded nothing.
    """
    one_of(at, ("block", "attention"), "place of a feature tap")
    tap = FeatureTap(model, blocks, rows, when)
    tap.at, tap.keep, tap.detach = at, keep, detach
    with opened(tap) as seen:
        yield seen


@contextmanager
def attention(model: nn.Module, reduce: Mapping[str, Reduction] | None = None, blocks=None, *, rows=None,
              when: Callable[[Call], bool] | None = None, renormalise: bool = False,
              chunk: int | None = None) -> Iterator[Recording]:
    """Record reduced self-attention maps: per block and call a dict of float32 CPU tensors, heads kept apart.

    Args:
        model, blocks, rows, when: as for `features`.
        reduce: {your name: reduction}; {"offsets": OffsetMass()} when None.
        renormalise: divide each row by its mass on the video tokens.
        chunk: queries at a time. None: as many as make a block of rows of 4 MiB (256 MiB on an accelerator).

    Each entry also holds "text" (b, heads): the mean share of a row's mass on text tokens, before renormalising; over
    all video queries, or over the asked ones when no reduction wants more.

    Memory: float32 copies of q and k, and three blocks of rows (b heads chunk keys floats); never the N x N map. A
    reduction's state is as large as its result.

    Raises:
        MotionLabError: as for `features`; no or more than one attention call of the block's sequence length seen.
    """
    if chunk is not None and chunk < 1:
        raise MotionLabError(f"chunk is {chunk}.", fix="Give the number of queries at a time, or None.")
    tap = AttentionTap(model, blocks, rows, when)
    tap.reduce, tap.renormalise, tap.chunk = checked_reductions(reduce), renormalise, chunk
    with opened(tap) as seen:
        yield seen
