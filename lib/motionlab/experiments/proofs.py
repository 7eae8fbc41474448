"""Preconditions of the papers' effects, measured on the testbed with their controls before anyone builds on them."""
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError
from motionlab.core.noise import prompt_seeds
from motionlab.models.evaluator import Evaluator, true_limbs
from motionlab.models.small.backbone import condition_mask
from motionlab.models.small.pipe import SmallPipe
from motionlab.models.image_encoder import ImageEncoder
from motionlab.video import as_video

CELL = 4          # pixels per token at 48 px: the codec's stride
GROUP = 4         # frames per latent after the first


@torch.no_grad()
def track_matching(encoder: ImageEncoder, clip, points: int = 64, seed: int = 0) -> dict[str, float]:
    """Do features follow the content? Cosine similarity of patch features one latent frame apart, on and off exact tracks.

    Only points that move to another cell and stay visible count: for one that stays in its cell, on and off are one place.

    Returns:
        on_track: mean similarity of a point's cell and the cell that it moved to. same_place: with the cell that it left.
        other_point: with the cell of another foreground point in the later frame. cells: median displacement of all
        foreground points per latent frame, in cells. All NaN but `cells` where no point counts.

    Raises:
        MotionLabError: a clip that is shorter than two latent frames.
    """
    if len(clip.frames) <= GROUP:
        raise MotionLabError(f"The clip has {len(clip.frames)} frames; two latent frames need {GROUP + 1}.", fix="Render a longer clip.")
    times = np.arange(0, len(clip.frames), GROUP)
    features = F.normalize(encoder.features(as_video(clip.frames[times])), dim=-1)
    grid = clip.size[1] // CELL
    rng, sums, moves = np.random.default_rng(seed), [], []
    for k, (now, then) in enumerate(zip(times, times[1:])):
        if not clip.object_mask(None)[now].any():
            continue
        tracks, visible = clip.tracks(clip.foreground_points(points, seed, now), now)
        keep = visible[now] & visible[then]
        here, there = (_cells(tracks[t][keep], clip.size) for t in (now, then))
        moves.append(np.linalg.norm(tracks[then][keep] - tracks[now][keep], axis=1) / CELL)
        index_here, index_there = (c[:, 1] * grid + c[:, 0] for c in (here, there))
        other = rng.permutation(index_there)
        counts = (index_here != index_there) & (other != index_there)
        a, b = features[k], features[k + 1]
        rows = [(a[index_here] * b[to]).sum(-1).numpy()[counts] for to in (index_there, index_here, other)]
        sums.append(np.stack(rows, 1))
    found = np.concatenate(sums) if sums else np.empty((0, 3))
    means = found.mean(0) if len(found) else np.full(3, np.nan)
    cells = float(np.median(np.concatenate(moves))) if moves else float("nan")
    return {"on_track": float(means[0]), "same_place": float(means[1]), "other_point": float(means[2]), "cells": cells}


def _cells(points, size):
    """Cell coordinates (n, 2) int of pixel points (n, 2), kept inside the frame."""
    h, w = size
    return np.clip(np.floor((points + 0.5) / CELL), 0, [w // CELL - 1, h // CELL - 1]).astype(int)


def middle_errors(frames: np.ndarray, true: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """Is the generated middle nearer the true one than a cross-fade? Root mean square errors in 0..255 of the unknown frames.

    Args:
        frames: generated with first and last latent frame given, uint8 (f, h, w, 3).
        true: the clip. known: its reconstruction, from which the cross-fade takes its ends (frame 0 and frame f - 4).

    Returns:
        generated, crossfade, and still (the first known frame repeated).
    """
    target, made = true.astype(float), middles(frames, known)
    middle = slice(1, len(true) - GROUP)
    return {name: float(np.sqrt(((x[middle] - target[middle]) ** 2).mean())) for name, x in made.items()}


def middles(frames: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Whole clips (f, h, w, 3) between the same known ends: generated, crossfade, and still (the first known frame repeated)."""
    last = len(known) - GROUP
    share = np.clip(np.arange(len(known)) / last, 0, 1)[:, None, None, None]
    fade = (1 - share) * known[0].astype(float) + share * known[last]
    out = {"generated": frames.astype(float), "crossfade": fade, "still": np.broadcast_to(known[0].astype(float), fade.shape).copy()}
    for clip in out.values():
        clip[0], clip[last:] = known[0], known[last:]
    return out


def middle_poses(frames: np.ndarray, clip, known: np.ndarray, evaluator: Evaluator) -> dict[str, float]:
    """The same by where the limbs are: mean distance in pixels of the limbs read in the unknown frames from the clip's own.

    A subject in another shade or with a soft edge costs nothing here; a leg in another place does. Limbs that are hidden in the
    true frame do not count.

    Args:
        frames, known: as of `middle_errors`. clip: the world's clip, with its limbs.

    Returns:
        pose_generated, pose_crossfade, pose_still; NaN where no limb of the first subject shows.
    """
    positions, visible = true_limbs(clip)
    made, middle = middles(frames, known), slice(1, len(known) - GROUP)
    videos = np.stack([np.clip(np.rint(x), 0, 255).astype(np.uint8) for x in made.values()])
    read = evaluator.read(videos, species=[clip.scene.actors[0].species] * len(videos))["positions"]
    away, counts = np.linalg.norm(read - positions, axis=-1)[:, middle], visible[middle]
    return {f"pose_{name}": float(x[counts].mean()) if counts.any() else float("nan") for name, x in zip(made, away)}


def middle_rows(model: SmallPipe, prompts: str, n: int, steps: int = 20, evaluator: Evaluator | None = None) -> list[dict]:
    """Rows {item, arm, seed, kind, generated, crossfade, still} of `middle_errors` for the first n prompts of a set.

    Args:
        evaluator: adds the columns of `middle_poses`.
    """
    from motionlab.experiments.rows import encode_true
    from motionlab.data.prompts import load_prompts

    chosen = load_prompts(prompts, n)
    z = encode_true(model.codec, chosen, model.codec.latent_frames(model.frames))
    parts = (slice(k, k + 16) for k in range(0, len(chosen), 16))
    made = np.concatenate([_between(model, chosen[part], z[part], steps) for part in parts])
    out = []
    for prompt, frames, known in zip(chosen, made, model.decode(z)):
        clip = prompt.clip(frames=model.frames)
        poses = middle_poses(frames, clip, known, evaluator) if evaluator else {}
        about = {"item": prompt.id, "arm": model.name, "seed": 0, "kind": prompt.kind}
        out.append(about | middle_errors(frames, clip.frames, known) | poses)
    return out


def _between(model, prompts, z, steps):
    """Clips generated between the first and the last of latents z (b, f, c, h, w), which the network is given as they are."""
    u = model.guided([p.text for p in prompts], known={"cond": z, "cond_mask": condition_mask("first_last", *z.shape[:2])})
    return model.decode(model.solve(u, model.noise(prompt_seeds([p.noise for p in prompts], 0)), steps=steps))


def attention_fall(rows: list[dict]) -> list[dict]:
    """Rows {item, arm, seed, mass_<d>, fall} of rows of `attention_rows`, blocks averaged; fall = mass_1 - mass_<farthest>."""
    import pandas as pd

    table = pd.DataFrame(rows)
    columns = sorted(c for c in table.columns if c.startswith("mass_"))
    means = table.groupby(["item", "arm", "seed"], sort=False)[columns].mean().reset_index()
    return means.assign(fall=means["mass_1"] - means[columns[-1]]).to_dict("records")


def by_offset(rows: list[dict]):
    """Rows of `attention_rows` as a long DataFrame {item, arm, offset, mass}."""
    import pandas as pd

    table = pd.DataFrame(attention_fall(rows)).drop(columns="fall")
    long = table.melt(id_vars=["item", "arm", "seed"], var_name="offset", value_name="mass")
    return long.assign(offset=long["offset"].str.removeprefix("mass_").astype(int))
