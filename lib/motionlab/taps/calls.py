"""What a tap records: calls of the transformer, and what was kept of each."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from motionlab.core.errors import MotionLabError, nearest

Grid = tuple[int, int, int]
HALVES = ("first_half", "second_half")


@dataclass(frozen=True)
class Call:
    """One call of the transformer.

    Attributes:
        index: how many calls of the transformer came before it inside the tap, those that `when` left out included.
        timestep: as the transformer was given it, on the CPU; a Backbone gives 1000 (1 - t), (b,).
        grid: (f', h', w') of the video tokens.
        video, text: where these tokens stand in the self-attention's sequence; `text` is empty for Wan and LTX.
        batch: rows of the whole batch. rows: those of them that are recorded.
    """

    index: int
    timestep: torch.Tensor
    grid: Grid
    video: slice
    text: slice
    batch: int
    rows: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Length of the self-attention's sequence, text included."""
        return max(self.video.stop, self.text.stop)


class Recording(dict):
    """{block name: [one entry per recorded call]}; the entries line up with `calls`.

    A block that a call skipped has None there. A call that raised leaves nothing.
    """

    def __init__(self, names: Sequence[str]):
        super().__init__({name: [] for name in names})
        self.calls: list[Call] = []

    def __missing__(self, name):
        raise MotionLabError(f"Block {name!r} was not tapped.{nearest(name, self)}",
                             fix=f"Tapped were: {', '.join(self)}.")
