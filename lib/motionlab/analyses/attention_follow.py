"""Does attention follow what moves, or stay where it is? (control of DeT's C1, which static content cannot tell apart)

For a token whose content moves to another token, the mass on a frame one or two latents away is summed within one token
of three
places: where the content went by its exact track (`there`), the same position (`here`), and the mirror of `there` about
`here` (`opposite`). Attention that knows positions only gives `there` and `opposite` the same; what exceeds it follows
the content.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from motionlab import taps
from motionlab.analyses.attention import in_batches, tapped
from motionlab.analyses.depth import block_labels
from motionlab.analyses.inputs import GROUP
from motionlab.models.pipe import Pipe
from motionlab.world import Camera, Clip, random_scene, render

# Frame heights per second. The fastest pan of the world's random scenes moves the ground by 0.4 tokens per latent frame
# (of 48 pixels, 16 frames per second), so to another token in two; the fast one by 0.9, which no training clip has.
# Hills move by 0.45 of that and the sky by 0.15: "background" is mostly ground, since what stays does not count.
PAN, FAST = 0.13, 0.3
POINTS = ("foreground", "background")
WHERE = ("there", "here", "opposite")


def pan_clips(seeds: Sequence[int], model: Pipe, speed: float = PAN, **options) -> dict[str, Clip]:
    """{seed: clip} at the model's size, all with a camera that pans against the subject's heading, so that both move.

    Args:
        speed: in frame heights per second. options: as of `world.random_scene`.
    """
    options = {"aspect": model.size[1] / model.size[0]} | options | {"camera": False}
    out = {}
    for seed in seeds:
        scene = random_scene(int(seed), **options)
        pan = (speed if scene.actors[0].heading == "left" else -speed, 0.0)
        out[str(seed)] = render(dataclasses.replace(scene, camera=Camera(pan=pan)), model.size, model.frames)
    return out


# ---------------------------------------------------------------------------------------------- rows
@torch.no_grad()
def follow_rows(model: Pipe, clips: dict[str, Clip], t: float = 0.5, batch: int = 4, blocks=None,
                distances: Sequence[int] = (1, 2)) -> Iterator[dict]:
    """Rows {item, arm, seed, block, depth, t, point, ...}, one per clip, block and kind of point.

    Args:
        clips: with their truth. t: noise level. distances: in latent frames, both directions taken together.

    Columns: there_<d>, here_<d>, opposite_<d>: shares of the mass on that frame, means over queries; queries_<d>: how
    many. Queries count when their content is seen in both frames and moves to another token, and when all three windows
    lie inside the frame; NaN where there is none.
    """
    for part in in_batches(clips, batch):
        keys = [Keys.of(clip, model.cell, distances) for clip in part.values()]
        seen = tapped(model, part, t, {"at": WindowMass(torch.stack([k.tokens for k in keys]))}, blocks)
        where = block_labels(model, seen)
        for name, calls in seen.items():
            for i, item in enumerate(part):
                for point in POINTS:
                    row = {"item": item, "arm": model.name, "seed": 0} | where[name] | {"t": float(t), "point": point}
                    yield row | keys[i].shares(calls[0]["at"][i], point)


def by_place(table, cases: dict[tuple[str, float, int], str]):
    """Rows {case, series, share, ...} for drawing, from rows of `follow_rows` with a column `pan`: one per place.

    Args:
        cases: (point, pan, frames away) -> what it is called. series is "<arm> <place>".
    """
    import pandas as pd

    return pd.concat([part.assign(case=label, series=part["arm"] + f" {place}", share=part[f"{place}_{d}"])
                      for (point, pan, d), label in cases.items() for place in WHERE
                      for part in [table[(table["point"] == point) & (table["pan"] == pan)]]], ignore_index=True)


@dataclasses.dataclass(frozen=True)
class Keys:
    """The places to look at, for every token of a clip's grid as a query.

    Attributes:
        tokens: (n, k, 3) int64, the raster indices of there, here and opposite for each of k frame offsets; any where
            not valid.
        valid: (n, k) bool. distance: |offset| of each k. foreground: (n,) bool, background: (n,) bool, of the query.
    """

    tokens: torch.Tensor
    valid: np.ndarray
    distance: np.ndarray
    foreground: np.ndarray
    background: np.ndarray

    @classmethod
    def of(cls, clip: Clip, cell: int, distances: Sequence[int] = (1, 2), group: int = GROUP) -> Keys:
        """From a clip's exact tracks of the token centres; latent k stands for frame group * k."""
        h, w = (side // cell for side in clip.size)
        frames = (len(clip.frames) - 1) // group + 1
        offsets = [sign * d for d in distances for sign in (-1, 1)]
        found = [_places(clip, cell, group, i, offsets, (frames, h, w)) for i in range(frames)]
        tokens, valid, owner = (np.concatenate(parts) for parts in zip(*found))
        kinds = clip.layer_objects[owner]
        return cls(torch.from_numpy(tokens), valid, np.abs(offsets), kinds >= 0, kinds == -1)

    def shares(self, mass: torch.Tensor, point: str) -> dict[str, float]:
        """there_<d>, here_<d>, opposite_<d>, queries_<d> of one kind of point, from a WindowMass (n, k, 4)."""
        mass, mine, out = mass.double().numpy(), getattr(self, point)[:, None] & self.valid, {}
        for d in np.unique(self.distance):
            kept = mass[:, self.distance == d][mine[:, self.distance == d]]                    # (queries, 4)
            shares = kept[:, :3].sum(0) / kept[:, 3].sum() if len(kept) else np.full(3, np.nan)
            out |= {f"{name}_{d}": float(share) for name, share in zip(WHERE, shares)}
            out[f"queries_{d}"] = len(kept)
        return out


def _places(clip, cell, group, i, offsets, grid):
    """Tokens (h'w', k, 3), validity (h'w', k) and owning layer (h'w',) of the queries of latent i."""
    frames, h, w = grid
    y, x = (a.ravel() for a in np.mgrid[:h, :w])
    centres = np.stack([x, y], -1) * cell + (cell - 1) / 2
    tracks, visible = clip.tracks(centres, group * i)
    here, tokens, valid = np.stack([y, x], -1), [], []
    for offset in offsets:
        j = min(max(i + offset, 0), frames - 1)
        there = np.floor((tracks[group * j] + 0.5) / cell).astype(np.int64)[:, ::-1]
        three = np.stack([there, here, 2 * here - there], 1)                                   # (n, 3, 2) as (y, x)
        fits = ((three >= 1) & (three <= [h - 2, w - 2])).all((1, 2))
        valid.append(fits & visible[group * j] & (there != here).any(-1) & (j == i + offset))
        y3, x3 = np.moveaxis(np.clip(three, 0, [h - 1, w - 1]), -1, 0)
        tokens.append((j * h + y3) * w + x3)
    return np.stack(tokens, 1), np.stack(valid, 1), clip.owner(centres, group * i)


@dataclasses.dataclass(frozen=True)
class WindowMass(taps.Reduction):
    """(b, n, k, 4): mass of each query within one token of three keys, and on their whole frame, averaged over heads.

    Attributes:
        tokens: (b, n, k, 3) raster indices of the keys; the three of a k lie in one frame.
    """

    tokens: torch.Tensor

    def add(self, total, rows):
        p, (f, h, w) = rows.p.mean(1), rows.grid
        at = self.tokens[:, rows.queries.cpu()].to(p.device)                                   # (b, q, k, 3)
        windows = window_sums(p)
        near = windows.flatten(2).gather(2, at.flatten(2)).view(at.shape)
        frame = p.sum((-1, -2)).gather(2, at[..., 0] // (h * w))
        total = p.new_zeros(len(p), f * h * w, at.shape[2], 4) if total is None else total
        total[:, rows.queries] = torch.cat([near, frame[..., None]], -1)
        return total

    def end(self, total, grid):
        return total


def window_sums(p: torch.Tensor) -> torch.Tensor:
    """Sums (..., h', w') over the 3x3 window around each token; outside the frame there is nothing."""
    return 9 * F.avg_pool2d(p.flatten(0, -3)[:, None], 3, 1, 1).view_as(p)
