"""Was the motion transferred, to what was asked, and nothing else with it? Every number of a motion transfer, per clip.

Limbs are found by a learned reader (`models.evaluator`); run it with two, which must agree. The source's limbs and way are exact.
Equations: hybrid motion fidelity and temporal consistency are DeT's (arXiv 2503.17350; card 6.2, 6.4), the rest is the kit's own.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError
from motionlab.data.transfer import Target, TransferTask
from motionlab.metrics.motion import mf_dmt, mf_paper, mf_release
from motionlab.metrics.reconstruction import VISIBLE
from motionlab.metrics.structure import reading_of, structure_error
from motionlab.metrics.transfer_leak import leak
from motionlab.models.evaluator import CLASSES, LIMBS, Evaluator, true_limbs
from motionlab.models.image_encoder import ImageEncoder
from motionlab.video import as_video
from motionlab.world import Scene, render

LOOK = ("species", "colour", "place")
ABOUT = ("item", "task", "target", "kind", "route", "arm", "seed")       # of a row: all that is no metric
BATCH = 24
# Frames that motion fidelity looks at: on dev, through the codec, every fourth leaves 0.62 between the truth and other clips of the same
# caption, every one 0.59 (mean of both readers 0.974 and 0.362, 0.945 and 0.354): a reader's noise is large against one frame's step.
EVERY = 4


def transfer_rows(frames: np.ndarray, asked: Sequence[tuple[TransferTask, Target]], readers: Mapping[str, Evaluator], arm: str,
                  seed: int = 0, encoder: ImageEncoder | None = None, ends: Mapping[str, tuple[float, float]] | None = None,
                  every: int = EVERY) -> list[dict]:
    """Rows {item, task, target, kind, route, arm, seed, metrics} of clips, one per asked target; kind: the task's tier.

    Args:
        frames: uint8 (n, f, h, w, 3). asked: the task and target of each clip, such as `all_targets(tasks)`.
        readers: name -> learned reader. encoder: adds `tc` and `diversity`.
        ends: name of a reader -> (mf of the base, mf of the truth through the codec), means on dev: adds `m_<reader>`, `score_<reader>`.
        every: motion fidelity looks at every `every`-th frame.

    Columns, by each reader: edit (`edit_fidelity`), look (the same without leak), structure (`articulation`) and jump of
    `metrics.structure`, route, and route_reversed, the same to the source played backwards; on targets "a" also mf, mf_release,
    mf_dmt, m, score, which are NaN on "b". Without a reader: leak,
    tc, diversity (of the two noises of "a", where both are there, else NaN).

    Raises:
        MotionLabError: another number of clips than targets, clips of one frame, no readers, an end for no reader.
    """
    _check(frames, asked, readers, ends, every)
    rows = [{"item": target.id, "arm": arm, "seed": seed, "task": task.id, "target": target.kind, "kind": task.tier, "route": task.route}
            for task, target in asked]
    for row, clip, (task, _) in zip(rows, frames, asked):
        row["leak"] = leak(clip, task.source)
    for name, reader in readers.items():
        species = [target.scene.actors[0].species for _, target in asked]
        read = reader.read(frames, species=species, batch=BATCH)
        for i, (row, (task, target)) in enumerate(zip(rows, asked)):
            found = _look(read, i, target, row["leak"]) | _motion(read, i, task, target, frames.shape[1:4], every)
            found |= _judged(found, ends[name]) if ends else {}
            row |= {f"{column}_{name}": value for column, value in found.items()}
    return rows if encoder is None else [row | found for row, found in zip(rows, _by_encoder(frames, asked, encoder))]


def all_targets(tasks: Sequence[TransferTask]) -> list[tuple[TransferTask, Target]]:
    """Each task with each of its targets, in order: "a" twice, then "b"."""
    return [(task, target) for task in tasks for target in task.targets]


def per_task(rows: Sequence[dict]) -> list[dict]:
    """One row {item, arm, seed, kind, route, metrics} per task, arm and seed: means over the clips of "a", and those of "b" as
    `<column>_b` where they are asked of "b" at all. An undefined value of one of several makes the mean undefined."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["task"], row["arm"], row["seed"]].append(row)
    out = []
    for (task, arm, seed), mine in groups.items():
        one = {"item": task, "arm": arm, "seed": seed, "kind": mine[0]["kind"], "route": mine[0]["route"]}
        for kind, ending in (("a", ""), ("b", "_b")):
            chosen = [row for row in mine if row["target"] == kind]
            for column in [c for c in (chosen[0] if chosen else ()) if c not in ABOUT]:
                values = np.array([row[column] for row in chosen], dtype=float)
                if kind == "a" or not np.isnan(values).all():
                    one[column + ending] = float(values.mean())
        out.append(one)
    return out


# ---------------------------------------------------------------------------------------------- motion
@lru_cache(maxsize=64)
def source_limbs(source: Scene, size: tuple[int, int], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact tracks (f, limbs, 2) in pixels of the source's limbs, and visibility (f, limbs): middles of what is seen of them.

    Where a limb shows less than 4 pixels (at 48) its middle lies on the straight line between the times before and after.
    """
    clip = render(source, size, frames)
    n = len(LIMBS[source.actors[0].species])
    tracks, seen = true_limbs(clip, least=VISIBLE * (size[0] / 48) ** 2)
    return filled(tracks[:, :n].astype(float), seen[:, :n]), seen[:, :n]


def filled(tracks: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Tracks (f, n, 2) with positions at times not `seen` (f, n) interpolated; a track that is never seen stays as it is."""
    tracks, times = tracks.copy(), np.arange(len(tracks))
    for k in np.flatnonzero(seen.any(0) & ~seen.all(0)):
        for axis in range(2):
            tracks[:, k, axis] = np.interp(times, times[seen[:, k]], tracks[seen[:, k], k, axis])
    return tracks


def middle(tracks: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """A subject's middle (f, 2): the mean of its limbs that are seen in half of the frames or more; NaN without one."""
    kept = seen.mean(0) >= 0.5
    return filled(tracks, seen)[:, kept].mean(1) if kept.any() else np.full((len(tracks), 2), np.nan)


def route(way: np.ndarray, source: np.ndarray) -> float:
    """1 - RMS distance between two ways / RMS of the source's, both less their means: 1 the same way, 0 standing still, below 0 worse.

    Along x only, where routes lie: how a subject goes up and down is its verb's, which another species does not share.

    Args:
        way, source: middles (f, 2) of both subjects, pixels.

    Returns:
        the score; NaN where no subject is seen, or where the source stands still.
    """
    way, source = np.asarray(way, float), np.asarray(source, float)
    if way.shape != source.shape or way.ndim != 2:
        raise MotionLabError(f"The ways have shapes {way.shape} and {source.shape}; wanted (f, 2) twice.",
                             fix="Give both for the same frames.")
    x, y = (one[:, 0] - one[:, 0].mean() for one in (way, source))
    size = np.sqrt((y ** 2).mean())
    return float(1 - np.sqrt(((x - y) ** 2).mean()) / size) if size > 1e-6 else float("nan")


def motion_fidelity(tracks: np.ndarray, source: np.ndarray, seen: np.ndarray, size, every: int = EVERY) -> dict[str, float]:
    """mf (`mf_paper`), mf_release and mf_dmt of limbs (f, n, 2) read in a clip against the source's, limb by limb, pixels.

    Args:
        seen: (f, n), where the source shows a limb. At other times both tracks are interpolated; a limb that the source shows in
            fewer than half of the frames is left out. What the clip itself hides is no excuse.
        size: (h, w). every: look at every `every`-th frame.

    Raises:
        MotionLabError: as `mf_paper`; the source shows no limb in half of the frames.
    """
    both = [filled(np.asarray(one, float), seen)[::every] for one in (tracks, source)]
    kept = seen.mean(0) >= 0.5
    gen, src = (one[:, kept] for one in both)
    return {"mf": mf_paper(gen, src, size), "mf_release": mf_release(gen, src, size), "mf_dmt": mf_dmt(gen, src)}


def rescaled(mf: float, base: float, truth: float) -> float:
    """m: motion fidelity with base and caption as 0 and the true clip through the codec as 1.

    Raises:
        MotionLabError: the truth is not above the base: there is no room to measure in.
    """
    if not truth > base:
        raise MotionLabError(f"The true clips' motion fidelity {truth:g} is not above the base's {base:g}.",
                             fix="These tasks cannot show a transfer: choose others.")
    return (mf - base) / (truth - base)


# ---------------------------------------------------------------------------------------------- edit, score
def edit_fidelity(look: float, leaked: float) -> float:
    """Mean probability `look` of the asked species, colour and place, times (1 - leak), leak cut to 0..1."""
    return look * (1 - min(1.0, max(0.0, leaked)))


def transfer_score(m: float, edit: float) -> float:
    """Harmonic mean of m and edit, each cut to 0..1; 0 where either is 0, NaN where either is."""
    m, edit = (np.clip(value, 0.0, 1.0) for value in (m, edit))
    return float(0.0 if m + edit == 0 else 2 * m * edit / (m + edit))


# ---------------------------------------------------------------------------------------------- by an image encoder
def temporal_consistency(features: np.ndarray) -> float:
    """Mean over frames of half the cosine to the first frame plus half that to the frame before, frame 0 counting 1, times 100.

    DeT's TC (card 6.4). The kit's encoder has no CLS token: give the mean of its patch features, `ImageEncoder.pooled`.

    Args:
        features: (f, d) of one clip's frames.
    """
    x = np.asarray(features, float)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return float(100 * np.mean([1.0, *((x[1:] @ x[0] + (x[1:] * x[:-1]).sum(1)) / 2)]))


def diversity(one: torch.Tensor, other: torch.Tensor) -> float:
    """1 - cosine of the patch features (f, n, d) of two clips, at the same place and time, averaged; 0: they are the same clip."""
    return float(1 - F.cosine_similarity(one, other, dim=-1).mean())


def _by_encoder(frames, asked, encoder):
    """tc and diversity of each clip."""
    patches = [encoder.features(as_video(clip)) for clip in frames]
    twins = defaultdict(list)
    for i, (task, target) in enumerate(asked):
        twins[task.id, target.kind].append(i)
    apart = {key: diversity(patches[mine[0]], patches[mine[1]]) for key, mine in twins.items() if len(mine) == 2}
    return [{"tc": temporal_consistency(features.mean(1).numpy()), "diversity": apart.get((task.id, target.kind), float("nan"))}
            for features, (task, target) in zip(patches, asked)]


# ---------------------------------------------------------------------------------------------- one clip, one reader
def _look(read, i, target, leaked):
    actor = target.scene.actors[0]
    wanted = {"species": actor.species, "colour": actor.colour, "place": target.scene.place}
    look = float(np.mean([read["probabilities"][name][i][CLASSES[name].index(wanted[name])] for name in LOOK]))
    return {"look": look, "edit": edit_fidelity(look, leaked)}


def _motion(read, i, task, target, shape, every):
    f, size, species = shape[0], tuple(shape[1:]), target.scene.actors[0].species
    n = len(LIMBS[species])
    tracks, visible = read["positions"][i][:, :n].astype(float), read["visible"][i][:, :n]
    terms = structure_error(reading_of(tracks, visible, read["limbs"][i], species, size))
    source, seen = source_limbs(task.source, size, f)
    out = {"structure": terms["articulation"], "jump": terms["jump"]}
    way = middle(tracks, visible > 0.5 if target.kind == "b" else seen)
    out |= {"route": route(way, middle(source, seen)), "route_reversed": route(way, middle(source, seen)[::-1])}
    if target.kind == "b":                              # other limbs: only the way can be compared
        return out | dict.fromkeys(("mf", "mf_release", "mf_dmt"), float("nan"))
    return out | motion_fidelity(tracks, source, seen, size, every)


def _judged(found, end):
    m = rescaled(found["mf"], *end)
    return {"m": m, "score": transfer_score(m, found["edit"])}


def _check(frames, asked, readers, ends, every):
    if len(frames) != len(asked):
        raise MotionLabError(f"{len(frames)} clips were given for {len(asked)} targets.", fix="Give one clip per target.")
    if not len(readers):
        raise MotionLabError("No reader was given.", fix="Pass readers={'0': evaluator}, such as experiments.rows.load_evaluators().")
    if ends is not None and set(ends) != set(readers):
        raise MotionLabError(f"Ends are given for {sorted(ends)}, readers are {sorted(readers)}.",
                             fix="Give (base, truth) for each reader.")
    if every < 1 or (len(frames) and frames.shape[1] <= every):
        raise MotionLabError(f"Clips of {frames.shape[1]} frames, every {every} looked at, show no motion.",
                             fix="Give longer clips, or every=1.")
