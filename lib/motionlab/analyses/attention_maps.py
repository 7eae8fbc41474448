"""Attention maps as DeT draws them, and its released recipe (method card, section 7).

The release keeps, of one query frame, the rows of the softmax averaged over heads, (h'w', f' h' w'); per block, of the
conditional half of the guided batch, summed over the steps of a generation (`recipe="release"`). The kit's default is
one pass over a real clip noised to t (`recipe="clips"`): cheaper, and content is known. Text columns are in the softmax
and dropped afterwards in both.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from motionlab import taps
from motionlab.analyses.attention import tapped
from motionlab.analyses.attention_follow import window_sums
from motionlab.analyses.depth import block_labels, block_number
from motionlab.analyses.inputs import GROUP, item_seed, own_frames
from motionlab.models.pipe import Pipe
from motionlab.diffusion import euler
from motionlab.core.errors import MotionLabError, one_of
from motionlab.figures import key_frame_mass

RECIPES = ("clips", "release")
QUERY_FRAME = 2                   # the paper's "frame 3": in the middle of five


@dataclass(frozen=True)
class FrameRows(taps.Reduction):
    """(b, h'w', f', h', w'): the rows of one latent frame's tokens, averaged over heads."""

    frame: int

    def queries(self, grid):
        if not 0 <= self.frame < grid[0]:
            raise MotionLabError(f"There is no query frame {self.frame} in a clip of {grid[0]} latent frames.",
                                 fix=f"Use 0 to {grid[0] - 1}, or a longer clip (four frames per latent).")
        n = grid[1] * grid[2]
        return list(range(self.frame * n, (self.frame + 1) * n))

    def add(self, total, rows):
        p, n = rows.p.mean(1), rows.grid[1] * rows.grid[2]
        mine = rows.queries // n == self.frame
        total = p.new_zeros(len(p), n, *rows.grid) if total is None else total
        total[:, rows.queries[mine] % n] = p[:, mine]
        return total

    def end(self, total, grid):
        return total


# ---------------------------------------------------------------------------------------------- maps
@dataclass(frozen=True)
class Maps:
    """rows: {block name: (h'w', f', h', w') float32}; frames: what is seen, uint8 (f, h, w, 3); steps: summed over."""

    rows: dict[str, np.ndarray]
    frames: np.ndarray
    steps: int = 1

    def of(self, token: tuple[int, int]) -> dict[str, np.ndarray]:
        """{block name: (f', h', w')}: where the token (y, x) of the query frame looks."""
        return {name: rows[token[0] * rows.shape[3] + token[1]] for name, rows in self.rows.items()}


@torch.no_grad()
def attention_maps(model: Pipe, item: str, clip, recipe: str = "clips", blocks=None, frame: int = QUERY_FRAME,
                   t: float = 0.5, steps: int = 20) -> Maps:
    """The maps of a clip's tokens in latent `frame` (from 0); of a generation from its caption with recipe="release".

    Args:
        item: the clip's name, from which its noise follows. blocks: as of `taps.attention`. t: noise level of recipe
            "clips".
        steps: of recipe "release".

    Raises:
        MotionLabError: an unknown recipe or block, a clip without that latent frame.
    """
    one_of(recipe, RECIPES, "recipe")
    if recipe == "release":
        return _while_generating(model, item, clip, blocks, frame, steps)
    seen = tapped(model, {item: clip}, t, {"rows": FrameRows(frame)}, blocks)
    return Maps({name: calls[0]["rows"][0].numpy() for name, calls in seen.items()}, clip.frames)


def _while_generating(model, item, clip, blocks, frame, steps):
    total, inner = {}, model.guided([clip.caption], known=own_frames(model, [clip]))

    def u(x, t):                            # a tap per step: only the sum is ever held
        with taps.attention(model.denoiser, {"rows": FrameRows(frame)}, blocks, rows="first_half") as seen:
            out = inner(x, t)
        for name, calls in seen.items():
            total[name] = total.get(name, 0) + calls[0]["rows"][0]
        return out

    x1 = euler(u, model.noise([item_seed(item)], model.encode([clip])), model.grid(steps))
    return Maps({name: rows.numpy() for name, rows in total.items()}, model.decode(x1)[0], steps)


def release_rows(model: Pipe, clips: dict, steps: int = 20, blocks=None, frame: int = QUERY_FRAME) -> Iterator[dict]:
    """Rows {item, arm, seed, block, depth, steps, ...} of the released recipe, one per clip and block.

    Args:
        clips: {item: clip}, for their captions.

    Columns, by |frame offset| d from the query frame, both directions averaged, all summed over steps as in the
    release: mass_<d>; near_<d> (share of it within one token of the same position, not summed); peak_<d>, the largest
    entry of the frame-to-frame map: the maximum of the paper's colour bars.
    """
    for item, clip in clips.items():
        maps = attention_maps(model, item, clip, "release", blocks, frame, steps=steps)
        where = block_labels(model, maps.rows)
        for name, rows in maps.rows.items():
            row = {"item": item, "arm": model.name, "seed": 0} | where[name]
            yield row | {"steps": steps} | frame_summary(rows, frame)


def peak_ratios(released) -> list[dict]:
    """Rows {item, arm, seed, next_over_own, next_over_second} of `release_rows` (a DataFrame): how the largest entries of the maps
    fall with the distance in frames, means over blocks, as the paper's colour bars show them (about 0.5, and 7 to 9)."""
    means = released.groupby(["item", "arm", "seed"], sort=False)[[f"peak_{d}" for d in (0, 1, 2)]].mean().reset_index()
    return [{"item": row["item"], "arm": row["arm"], "seed": row["seed"], "next_over_own": row["peak_1"] / row["peak_0"],
             "next_over_second": row["peak_1"] / row["peak_2"]} for row in means.to_dict("records")]


def frame_summary(rows: np.ndarray, frame: int) -> dict[str, float]:
    """mass_<d>, near_<d> and peak_<d> of maps (h'w', f', h', w') of the tokens of one latent frame."""
    n, f = rows.shape[:2]
    mass, peak = rows.reshape(n, f, -1).sum(-1).mean(0), rows.reshape(n, f, -1).max((0, 2))
    near = window_sums(torch.from_numpy(rows)).numpy().reshape(n, f, n)[np.arange(n), :, np.arange(n)].mean(0)
    out = {}
    for d in range(max(frame, f - 1 - frame) + 1):
        keys = [k for k in {frame - d, frame + d} if 0 <= k < f]
        out |= {f"mass_{d}": float(mass[keys].mean()), f"near_{d}": float(near[keys].sum() / mass[keys].sum()),
                f"peak_{d}": float(peak[keys].mean())}
    return out


def labelled(maps: dict[str, Maps], token: tuple[int, int], table, frame: int = QUERY_FRAME) -> tuple[dict, dict]:
    """For `figures.attention_pictures`: {label: (f', h', w')} of one token, {label: mass per key frame}.

    Args:
        maps: by arm. table: rows of `attention_rows`, whose arms and blocks the maps' are.
    """
    pictures, mass = {}, {}
    for arm, made in maps.items():
        for name, picture in made.of(token).items():
            block, label = block_number(name), f"{arm},\nblock {block_number(name)}"
            part = table[(table["arm"] == arm) & (table["block"] == block)]
            pictures[label], mass[label] = picture, key_frame_mass(part, frame, len(picture))
    return pictures, mass


# ---------------------------------------------------------------------------------------------- the query
def token_at(model: Pipe, point) -> tuple[int, int]:
    """Token (y, x) of a pixel (x, y).

    Raises:
        MotionLabError: no pair of numbers, or outside the frame.
    """
    h, w = model.size
    try:
        x, y = (float(value) for value in point)
    except (TypeError, ValueError):
        raise MotionLabError(f"The query point is {point!r}.", fix="Give two numbers, x and y in pixels.") from None
    if not (0 <= x <= w - 1 and 0 <= y <= h - 1):
        raise MotionLabError(f"The query point ({x:g}, {y:g}) lies outside the frame of {w} x {h} pixels.",
                             fix=f"Give x in 0 to {w - 1} and y in 0 to {h - 1}.")
    return int((y + 0.5) // model.cell), int((x + 0.5) // model.cell)


def subject_point(clip, frame: int = QUERY_FRAME) -> tuple[float, float]:
    """Pixel (x, y) in the middle of the subject in latent `frame`; of the picture for a clip without truth."""
    h, w = clip.frames.shape[1:3]
    shown = clip.object_mask(None)[GROUP * frame] if hasattr(clip, "object_mask") else np.zeros((h, w), bool)
    if not shown.any():
        return w / 2, h / 2
    rows, cols = np.nonzero(shown)
    best = np.argmin((rows - rows.mean()) ** 2 + (cols - cols.mean()) ** 2)
    return float(cols[best]), float(rows[best])
