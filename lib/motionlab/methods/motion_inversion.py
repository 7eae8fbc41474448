"""Motion as embeddings of one clip (Wang et al. 2024, MotionInversion), in the form that DeT's release gives it for video transformers.

Every block's self-attention has two tables, zero at first and trained by the plain loss (DeT card, section 2.5):

    Q = W_q (X + M),  K = W_k (X + M),  V = W_v (X + A)        X: video tokens entering attention, (b, T H W, C)

M (T, C) is one row per latent frame, the same at every place: motion. A (H, W, C) is one row per place, the same in every frame:
appearance, learned so that motion need not hold it, and dropped at sampling. Text tokens get neither. Known layouts are those of
`taps`: CogVideoX, HunyuanVideo, LTX and Wan; a U-Net has no one grid of tokens and is refused.

Tables are as large as the grid that they were trained on. A call on another grid reads them stretched linearly, ends to ends, as
learned positions are; a file's tables load into a generator that is set to its own clip size only.
"""
from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError, located
from motionlab.methods.base import Sampling
from motionlab.methods.plain import Plain
from motionlab.models.pipe import Inputs, Pipe
from motionlab.taps.layouts import find_transformer, selected_blocks


@dataclass(frozen=True)
class TablesSampling(Sampling):
    """appearance: keep the appearance tables, which then show the source clip's places again."""

    appearance: bool = False


@dataclass(frozen=True)
class MotionInversion(Plain):
    """grid: (frames, height, width) of the tables, in tokens; zeros: of the clips that the generator is set to."""

    name: ClassVar[str] = "motion_inversion"
    tunes_base: ClassVar[bool] = False
    Sampling: ClassVar[type] = TablesSampling
    grid: tuple[int, int, int] = (0, 0, 0)

    def attach(self, pipe: Pipe) -> None:
        """Raises MotionLabError for a generator whose attention has no known layout."""
        pipe.requires_grad_(False)
        add_tables(pipe.denoiser, self.grid if any(self.grid) else token_grid(pipe))

    def attach_to(self, network: nn.Module, channels: int) -> None:
        """As `attach`; a network alone knows no clip, so that it needs `grid`."""
        add_tables(network, self.grid)

    def model(self, pipe: Pipe, text: Inputs, known: Inputs, options: TablesSampling, given: dict | None = None) -> Callable:
        guided = super().model(pipe, text, known, options, given)

        def u(x, t):
            show_appearance(pipe.denoiser, options.appearance)
            try:
                return guided(x, t)
            finally:
                show_appearance(pipe.denoiser, True)

        return u


def token_grid(pipe: Pipe) -> tuple[int, int, int]:
    """(frames, height, width) in tokens of the clips that the generator is set to."""
    over = getattr(pipe.denoiser.config, "patch_size_t", 1) or 1
    return pipe.shape[0] // over, pipe.size[0] // pipe.cell, pipe.size[1] // pipe.cell


# ---------------------------------------------------------------------------------------------- the tables
class Tables(nn.Module):
    """One block's `motion` (T, C) and `appearance` (H, W, C)."""

    def __init__(self, grid: tuple[int, int, int], like: torch.Tensor):
        super().__init__()
        self.motion = nn.Parameter(like.new_zeros(grid[0], like.shape[1]))
        self.appearance = nn.Parameter(like.new_zeros(*grid[1:], like.shape[1]))
        self.shown, self.call = True, None               # whether appearance is added; (grid, text tokens, those before the video's)

    def rows(self, name: str) -> torch.Tensor:
        """One of the tables for every video token of the call, (f h w, C)."""
        f, h, w = self.call[0]
        if name == "motion":
            return _stretched(self.motion.T[None], (f,))[0].T.repeat_interleave(h * w, 0)
        return _stretched(self.appearance.permute(2, 0, 1)[None], (h, w))[0].flatten(1).T.repeat(f, 1)


def _stretched(table, size):
    """(1, C, ...) over another grid, ends to ends."""
    if tuple(table.shape[2:]) == size:
        return table
    return F.interpolate(table.float(), size, mode="linear" if len(size) == 1 else "bilinear", align_corners=True).to(table)


def add_tables(network: nn.Module, grid: tuple[int, int, int]) -> None:
    """Zero tables, and the hooks that add them, at every self-attention of a known transformer; in place.

    Raises:
        MotionLabError: no known transformer in `network`; a grid that is none.
    """
    with located("Method motion_inversion"):
        transformer, layout = find_transformer(network)
        if len(grid) != 3 or min(grid) < 1:
            raise MotionLabError(f"its tables have no size: grid is {tuple(grid)}.",
                                 fix="Attach it to an opened generator, or give grid=(frames, height, width), the clip's size in tokens.")
        attentions = [getattr(block, layout.attention) for block in selected_blocks(transformer, layout, None).values()]
    for attention in attentions:
        attention.tables = Tables(grid, attention.to_q.weight)
        for layer, name in ((attention.to_q, "motion"), (attention.to_k, "motion"), (attention.to_v, "appearance")):
            layer.register_forward_pre_hook(partial(_added, attention.tables, name))
    transformer.register_forward_pre_hook(partial(_describe, layout, [a.tables for a in attentions]), with_kwargs=True)


def show_appearance(network: nn.Module, shown: bool) -> None:
    """Whether the appearance tables are added from now on."""
    for module in network.modules():
        if isinstance(module, Tables):
            module.shown = shown


def _describe(layout, tables, transformer, args, kwargs):
    """Where video tokens stand in the attention of this call. Kept after it: checkpointing runs blocks again in the backward pass."""
    inputs = inspect.signature(type(transformer).forward).bind_partial(transformer, *args, **kwargs).arguments
    words = 0 if layout.text == "none" else inputs["encoder_hidden_states"].shape[1]
    for one in tables:
        one.call = (layout.grid(transformer.config, inputs), words, words if layout.text == "first" else 0)


def _added(tables, name, layer, args):
    x, (grid, words, first) = args[0], tables.call
    n = math.prod(grid)
    if x.shape[1] not in (n, n + words):                 # a dual-stream block projects its text elsewhere
        raise MotionLabError(f"Attention reads {x.shape[1]} tokens, of a clip of {n} and {words} of text.",
                             fix="Give the clip's own tokens alone, and no other clip size between a call and its backward pass.")
    if name == "appearance" and not tables.shown:
        return None
    video = x[:, first:first + n] + tables.rows(name).to(x.dtype)
    return (torch.cat([x[:, :first], video, x[:, first + n:]], 1), *args[1:])
