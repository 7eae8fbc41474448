"""When is what decided? Noise a real clip to time t, resume sampling, and see what of it survives (VideoJAM App. B, Fig. 8).

The paper shows three pictures. Here everything that the instruments read gets a curve over t. To tell "kept from the clip"
from "asked for by the prompt", the clip is resumed twice: under its own caption (what no caption says: pose, phase, place of
the subject) and under another clip's caption (does motion, heading or colour follow the clip or the new prompt?).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from motionlab.diffusion import SAMPLERS, interpolate
from motionlab.core.errors import MotionLabError, one_of
from motionlab.analyses.inputs import item_seed, own_frames
from motionlab.models.pipe import Pipe
from motionlab.models.evaluator import CLASSES, Evaluator, labels_of

FOLLOWED = ("species", "colour", "place", "motion", "heading")


def resumed(model: Callable, x1: torch.Tensor, x0: torch.Tensor, t: float, grid: torch.Tensor, solver: str = "euler") -> torch.Tensor:
    """Clips sampled from x_t = t x1 + (1 - t) x0 on; t = 0 is ordinary sampling, t = 1 gives x1 back.

    Args:
        model: (x, t) -> u. x1: latents of real clips (b, f, c, h, w). x0: noise of the same shape.
        grid: times of the whole sampling path (`diffusion.time_grid`); what lies above t of it is walked.

    Raises:
        MotionLabError: t outside [0, 1], an unknown solver.
    """
    if not 0 <= t <= 1:
        raise MotionLabError(f"A clip cannot be noised to t = {t}.", fix="t is 0 (noise) to 1 (the clip).")
    one_of(solver, SAMPLERS, "solver")
    x = interpolate(x0, x1, t)
    if t == 1:
        return x
    return SAMPLERS[solver](model, x, grid_from(t, grid))


def grid_from(t: float, grid: torch.Tensor) -> torch.Tensor:
    """The sampler's times from t on: t itself and what of `grid` lies above it."""
    return torch.cat([torch.tensor([t], dtype=grid.dtype), grid[grid > t + 1e-9]])


# ---------------------------------------------------------------------------------------------- a curve per attribute
def resume_rows(model: Pipe, evaluator: Evaluator, clips: dict, times: Sequence[float], steps: int = 20, w: float | None = None,
                batch: int = 12) -> Iterator[dict]:
    """Rows {item, arm, seed, t, ...} of clips {item: Clip}, resumed at each of `times`.

    Arm "own" (resumed under its own caption): layout_error (distance of the subject's middle) and pose_error (mean distance of
    limbs once the middles are laid over each other), in pixels of 48, against the reading of the undisturbed reconstruction.
    Arm "other" (under the caption of another clip of the list, all of whose attributes should differ, see `rivals`): for species,
    colour, place, motion and heading kept_<name>, 1 where the clip's own is read, and asked_<name>, 1 where the prompt's is; NaN
    where both are the same.
    """
    items, grid = list(clips), model.grid(steps)
    rival = dict(zip(items, rivals([clips[k].attributes for k in items])))
    for part in (items[k:k + batch] for k in range(0, len(items), batch)):
        x1 = model.encode([clips[k] for k in part])
        x0 = model.noise([item_seed(k) for k in part], x1)
        species = [clips[k].attributes["actors"][0]["species"] for k in part]
        truth = evaluator.read(readable(model.decode(x1)), species=species)
        known = own_frames(model, [clips[k] for k in part])
        captions = {"own": [clips[k].caption for k in part], "other": [clips[items[rival[k]]].caption for k in part]}
        for t in times:
            for arm, said in captions.items():
                frames = readable(model.decode(resumed(model.guided(said, w, known), x1, x0, t, grid)))
                read = evaluator.read(frames, species=species if arm == "own" else None)
                for i, k in enumerate(part):
                    row = {"item": k, "arm": arm, "seed": 0, "t": float(t)}
                    other = clips[items[rival[k]]].attributes
                    yield row | (_distances(read, truth, i) if arm == "own" else _followed(read, i, clips[k].attributes, other))


def readable(frames: np.ndarray, size: int = 48) -> np.ndarray:
    """Clips uint8 (b, f, h, w, 3) at the size that the evaluators read; larger ones are averaged down."""
    import cv2

    if frames.shape[2:4] == (size, size):
        return frames
    return np.stack([[cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in clip] for clip in frames])


def rivals(said: Sequence[dict]) -> list[int]:
    """For each parsed caption the index of the one that differs from it in most attributes (the next such in the list)."""
    labels = [labels_of(one) for one in said]
    out = []
    for i, mine in enumerate(labels):
        order = [(i + 1 + k) % len(labels) for k in range(len(labels))]
        out.append(max(order, key=lambda j: sum(mine[name] != labels[j][name] for name in CLASSES)))
    return out


def _distances(read, truth, i):
    here, there = read["positions"][i], truth["positions"][i]
    seen = (truth["visible"][i] > 0.5) & np.isfinite(here[..., 0]) & np.isfinite(there[..., 0])
    if not seen.any():
        return {"layout_error": float("nan"), "pose_error": float("nan")}
    weight = seen[..., None] / np.maximum(seen.sum(1, keepdims=True), 1)[..., None]
    gap = np.where(seen[..., None], here - there, 0.0)
    middle = (gap * weight).sum(1)                                             # (f, 2): how far the subject's middle is off
    rest = np.linalg.norm(gap - middle[:, None], axis=-1)[seen]
    return {"layout_error": float(np.linalg.norm(middle[seen.any(1)], axis=-1).mean()), "pose_error": float(rest.mean())}


def _followed(read, i, mine, asked):
    out = {}
    for name, (a, b) in {n: (labels_of(mine)[n], labels_of(asked)[n]) for n in FOLLOWED}.items():
        seen = read[name][i]
        out |= {f"kept_{name}": float(seen == CLASSES[name][a]) if a != b else float("nan"),
                f"asked_{name}": float(seen == CLASSES[name][b]) if a != b else float("nan")}
    return out


def kept_shares(rows: Iterator[dict]):
    """Long rows {item, arm, seed, t, attribute, kept} as DataFrame, of rows of `resume_rows`.

    kept of a word's attribute: 1 where the resumed clip shows the clip's and not the other prompt's. kept of layout and pose:
    1 - error / mean error of clips sampled from pure noise (t = 0, which `resume_rows` must have been given).
    """
    import pandas as pd

    table, out = pd.DataFrame(list(rows)), []
    if not (table["t"] == 0).any():
        raise MotionLabError("No clip was resumed from t = 0, to which the others are compared.", fix="Begin `times` with 0.0.")
    own, other = table[table["arm"] == "own"], table[table["arm"] == "other"]
    for name in ("layout", "pose"):
        from_noise = own.loc[own["t"] == 0, f"{name}_error"].mean()
        out.append(own[["item", "t"]].assign(attribute=name, kept=1 - own[f"{name}_error"] / from_noise))
    for name in FOLLOWED:
        out.append(other[["item", "t"]].assign(attribute=name, kept=other[f"kept_{name}"]))
    return pd.concat(out, ignore_index=True).assign(arm="kept", seed=0)


def film(model: Pipe, clip, times: Sequence[float], steps: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    """{label: frames} of one clip, its reconstruction and what resuming from each of `times` makes of it."""
    x1 = model.encode([clip])
    x0, grid, u = model.noise([seed], x1), model.grid(steps), model.guided([clip.caption], known=own_frames(model, [clip]))
    strips = {f"from t = {t}": model.decode(resumed(u, x1, x0, t, grid))[0] for t in times}
    return {"clip": clip.frames} | strips | {"reconstruction": model.decode(x1)[0]}
