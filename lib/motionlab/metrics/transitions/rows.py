"""One row per pair: every number that an arm's clips between two frames are judged by, the same columns in every experiment."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.data.transitions import Ends
from motionlab.metrics.palette import subject_mask
from motionlab.metrics.transitions.completion import completed, judged_by_reader, tc_score
from motionlab.metrics.transitions.plane import background_flicker, edge_fall, edge_strengths, jump, middle_frames, mix
from motionlab.metrics.transitions.pose import limb_distance, order_gap, true_pose
from motionlab.metrics.transitions.published import (completion_by_embedding, fid_of_ends, path_length, perceptual_steps, projected,
                                                     smoothness)
from motionlab.models.evaluator import CLASSES, LIMBS, Evaluator
from motionlab.models.image_encoder import ImageEncoder
from motionlab.video import as_video

PEAK = 255.0 ** 2


def transition_rows(frames: np.ndarray, pairs: Sequence[Ends], ends: np.ndarray, readers: Mapping[str, Evaluator],
                    encoder: ImageEncoder, arm: str, seed: int = 0, swapped: np.ndarray | None = None) -> list[dict]:
    """Rows {item, arm, seed, task, half, species, metrics} of clips between the ends of pairs.

    Args:
        frames: uint8 (n, f, h, w, 3), one clip per pair. ends: (n, 2, h, w, 3), the given pictures as a clip could show them at best:
            through the codec that the clips went through. readers: name -> learned reader. encoder: of distances and embeddings.
        swapped: clips of the same pairs with their ends swapped, as sampled: from the last end to the first.

    Columns, NaN where a task does not have them:
        edge, edge_fall, and edge_f0, ... of each frame (clips without a pillar), jump, flicker (where the place stays), psnr_ends (of the
            first and last frame, dB)
        ppl, smooth, smooth_inverse, consistency, consistency_max, tcr_clip, tc_clip; fid, a pair's share of its set's
            (`published.EndsFid.per_pair`), fid_set, fid_pictures
        grey (levels) and pose_<reader> (px) against the truth, frames in between
        by each reader species_ok, the first caption's species is read in the clip; on `blend` mix; on `change` tcr and tc_score
        with `swapped`: order_gap_<reader>, pose_swapped_<reader>, order_cost_<reader>

    Raises:
        MotionLabError: another number of clips or ends than pairs, clips of fewer than three frames, no readers.
    """
    _check(frames, pairs, ends, readers, swapped)
    rows = [{"item": pair.id, "arm": arm, "seed": seed, "task": pair.task, "half": pair.half,
             "species": pair.first.actors[0].species} for pair in pairs]
    pooled = [[encoder.pooled(as_video(one)).numpy() for one in clip_and_ends] for clip_and_ends in zip(frames, ends)]
    for row, clip, own, pair, of_both in zip(rows, frames, ends, pairs, pooled):
        row |= _of_pixels(clip, own, pair) | _of_steps(perceptual_steps(clip, encoder)) | completion_by_embedding(*of_both)
    for name, reader in readers.items():
        for row, found in zip(rows, _by_reader(frames, swapped, pairs, reader, [row["edge"] for row in rows])):
            row |= {f"{column}_{name}": value for column, value in found.items()}
    return [row | found for row, found in zip(rows, _fids(pooled, pairs))]


def with_pillar(pair: Ends) -> bool:
    """Whether something stands before the subject: the strongest edges may be its, and come and go."""
    return bool(pair.first.occluders or pair.last.occluders)


def background_of(pair: Ends, size: int, frames: int) -> np.ndarray:
    """(h, w) bool: pixels that show background, in every frame of a true clip, else in both ends; none where the place changes."""
    if pair.first.place != pair.last.place:
        return np.zeros((size, size), bool)
    if pair.task in ("between", "change"):
        return (pair.clips(size, frames)[0].object_mask(None).sum(0) == 0)
    return ~subject_mask(np.stack(pair.pictures(size)), pair.first.place).any(0)


# ---------------------------------------------------------------------------------------------- one clip
def _of_pixels(clip, ends, pair):
    f, size = len(clip), clip.shape[1]
    strengths = np.full(f, np.nan) if with_pillar(pair) else edge_strengths(clip, ends)
    out = {"edge": float(strengths[middle_frames(f)].mean()), "edge_fall": edge_fall(strengths)}
    out |= {f"edge_f{k}": float(value) for k, value in enumerate(strengths)}
    out |= {"flicker": background_flicker(clip, background_of(pair, size, f)),
            "psnr_ends": float(np.mean([_psnr(clip[at], end) for at, end in zip((0, -1), ends)]))}
    truth = pair.truth(size, f)
    gap = np.nan if truth is None else np.abs(clip[1:-1].astype(float) - truth[1:-1]).mean()
    return out | {"grey": float(gap)}


def _psnr(frame, end):
    return 10 * np.log10(PEAK / max(float(((frame.astype(float) - end) ** 2).mean()), 1e-2))


def _of_steps(steps):
    return {"jump": jump(steps), "ppl": path_length(steps)} | smoothness(steps)


def _by_reader(frames, swapped, pairs, reader, crisp):
    """What one reader says of each clip."""
    species = [pair.first.actors[0].species for pair in pairs]
    read = reader.read(frames, species=species)
    turned = None if swapped is None else reader.read(np.ascontiguousarray(swapped), species=species)["positions"]
    out = []
    for i, pair in enumerate(pairs):
        found = {"species_ok": float(read["species"][i] == species[i])}
        n = len(LIMBS[species[i]])
        if pair.task == "between":
            clip = pair.clips(frames.shape[2], frames.shape[1])[0]
            truth, shown = true_pose(clip)
            mine = read["positions"][i][:, :n].astype(float)
            found["pose"] = limb_distance(mine, truth, shown)
            if turned is not None:
                other = turned[i][:, :n].astype(float)
                found |= {"order_gap": order_gap(mine, other, shown), "pose_swapped": limb_distance(other[::-1], truth, shown)}
                found["order_cost"] = found["pose_swapped"] - found["pose"]
        if pair.task in ("blend", "change"):
            found |= _looks(frames[i], pair, reader, crisp[i])
        out.append(found)
    return out


def _looks(clip, pair, reader, crisp):
    """Of a clip between two looks, its frames read alone: mix of species, or completion in TC-Bench's form."""
    what = "species" if pair.task == "blend" else pair.half
    read = reader.read(clip[:, None])
    p = [read["probabilities"][what][:, CLASSES[what].index(_look(scene, what))] for scene in (pair.first, pair.last)]
    if pair.task == "blend":
        at = len(clip) // 2
        return {"mix": mix(p[0][at], p[1][at], crisp)}
    same = np.array([name == read["species"][0] for name in read["species"]])
    answers = judged_by_reader(*p, same)
    return {"tcr": float(completed(answers)), "tc_score": tc_score(answers)}


def _look(scene, what):
    return scene.place if what == "place" else getattr(scene.actors[0], what)


# ---------------------------------------------------------------------------------------------- of a set
def _fids(pooled, pairs):
    """fid, fid_set and fid_pictures of each clip, task by task; NaN for a task of fewer than four pairs. pooled: (f, d) of each clip's
    frames and (2, d) of its ends."""
    groups, out = defaultdict(list), [{"fid": np.nan, "fid_set": np.nan, "fid_pictures": np.nan} for _ in pairs]
    for i, pair in enumerate(pairs):
        groups[pair.task].append(i)
    for mine in groups.values():
        if len(mine) < 4:
            continue
        found = fid_of_ends(*(projected(np.stack([pooled[i][which] for i in mine])) for which in (0, 1)))
        for i, share in zip(mine, found.per_pair):
            out[i] = {"fid": float(share), "fid_set": found.value, "fid_pictures": found.pictures}
    return out


def _check(frames, pairs, ends, readers, swapped):
    others = [one for one in (ends, swapped) if one is not None]
    if not len(pairs) or len(frames) != len(pairs) or any(len(one) != len(pairs) for one in others) or frames.shape[1] < 3:
        raise MotionLabError(f"Clips {frames.shape} with ends {ends.shape} were given for {len(pairs)} pairs.",
                             fix="Give one clip of three frames or more, and both its ends, per pair.")
    if not len(readers):
        raise MotionLabError("No reader was given.", fix="Pass readers={'0': evaluator}, such as experiments.rows.load_evaluators().")
