"""Every number that an arm's clips are judged by: one row per clip, the same columns in every experiment."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from motionlab.core.errors import MotionLabError
from motionlab.data.prompts import Prompt
from motionlab.metrics.edges import edge_contrast
from motionlab.metrics.failures import detect_failures
from motionlab.metrics.motion import dynamic_degree, motion_smoothness
from motionlab.metrics.palette import read_limbs, subject_mask
from motionlab.metrics.structure import reading_of, structure_error
from motionlab.metrics.vbench import world_style
from motionlab.models.evaluator import CLASSES, Evaluator, labels_of
from motionlab.models.image_encoder import ImageEncoder
from motionlab.teachers.flow import flow
from motionlab.video import as_video

FPS = 16.0
FD = 16                     # width of the features that Frechet distances are taken of
JOINTS = ("jump", "length_variation", "length_error")          # terms of the structure error that are of joints
LOOK = ("species", "colour", "place")


def measure(frames: np.ndarray, prompts: Sequence[Prompt], evaluators: dict[str, Evaluator], arm: str, seed: int = 0,
            encoder: ImageEncoder | None = None) -> list[dict]:
    """Rows {item, arm, seed, kind, size, metrics} of generated (or real) clips; size: the scene's subject, small or large.

    Args:
        frames: uint8 (n, f, h, w, 3), one clip per prompt.
        evaluators: name -> learned reader; the first one's columns have no suffix, the others' end in `_<name>`.
        encoder: adds the VBench-style columns of `metrics.vbench.world_style`, edge (`metrics.edges`), and fd_00 to fd_15
            (`clip_features`).

    Columns: for each evaluator species_ok, colour_ok, place_ok, motion_ok, heading_ok, camera_ok (1 or 0; motion only where
    the clip has several frames), look_ok and move_ok (all of the first three; motion and heading); dynamic_degree (0/1), speed
    (mean of the fastest 5 % of pixels, pixels per sampled step), smoothness; structure_<evaluator> (metrics.structure `articulation`
    of a learned reader's limbs, the columns that judge structure), and of its terms jump_<evaluator>, length_variation_<evaluator>,
    length_error_<evaluator>; structure, the same by the palette, which judges nothing
    (`metrics.palette` says why); failure_<name> of every detector.

    Raises:
        MotionLabError: another number of clips than prompts.
    """
    if len(frames) != len(prompts):
        raise MotionLabError(f"{len(frames)} clips were given for {len(prompts)} prompts.", fix="Give one clip per prompt.")
    species = [p.asked["actors"][0]["species"] for p in prompts]
    rows = [{"item": p.id, "arm": arm, "seed": seed, "kind": p.kind, "size": p.size} for p in prompts]
    for k, (name, evaluator) in enumerate(evaluators.items()):
        for row, seen, terms in zip(rows, recognised(frames, prompts, evaluator), learned_terms(frames, species, evaluator)):
            row |= {column + (f"_{name}" if k else ""): value for column, value in seen.items()}
            row |= {f"structure_{name}": terms["articulation"]} | {f"{term}_{name}": terms[term] for term in JOINTS}
    if encoder is not None:
        rows = [row | found for row, found in zip(rows, clip_features(frames, next(iter(evaluators.values()))))]
    for row, clip, prompt in zip(rows, frames, prompts):
        row |= _without_network(clip, prompt)
        if encoder is not None and len(clip) > 2:
            subject = subject_mask(clip, prompt.asked["place"])
            row |= world_style(clip, encoder, subject, row["smoothness"], row["dynamic_degree"]) | {"edge": edge_contrast(clip, subject)}
    return rows


def recognised(frames: np.ndarray, prompts: Sequence[Prompt], evaluator: Evaluator) -> list[dict]:
    """What was asked for and is seen, 1 or 0, by a learned reader; columns as in `measure`."""
    read, out = evaluator.read(frames), []
    for i, prompt in enumerate(prompts):
        asked = {name: CLASSES[name][index] for name, index in labels_of(prompt.asked).items()}
        ok = {f"{name}_ok": float("nan") if read[name][i] is None else float(read[name][i] == asked[name]) for name in CLASSES}
        ok["look_ok"] = min(ok[f"{name}_ok"] for name in LOOK)
        ok["move_ok"] = ok["motion_ok"] * ok["heading_ok"]
        out.append(ok)
    return out


def clip_features(frames: np.ndarray, evaluator: Evaluator, batch: int = 32) -> list[dict[str, float]]:
    """fd_00 to fd_15 of each clip, for Frechet distances from raw rows: the evaluator's clip features under a fixed projection.

    Sixteen orthonormal directions drawn once: few enough for a covariance from 64 clips, the same in every experiment.
    """
    with torch.no_grad():
        parts = np.array_split(frames, -(-len(frames) // batch))
        found = torch.cat([evaluator.features(as_video(part)) for part in parts]).double().numpy()
    basis, _ = np.linalg.qr(np.random.default_rng(20261).normal(size=(found.shape[1], FD)))
    return [{f"fd_{k:02d}": float(v) for k, v in enumerate(row)} for row in found @ basis]


def learned_structure(frames: np.ndarray, species: Sequence[str], evaluator: Evaluator) -> list[float]:
    """Articulation error of the subjects that are meant to be there, one species per clip, by a learned reader's limbs."""
    return [terms["articulation"] for terms in learned_terms(frames, species, evaluator)]


def learned_terms(frames: np.ndarray, species: Sequence[str], evaluator: Evaluator) -> list[dict[str, float]]:
    """The same term by term: `metrics.structure.structure_error` of each clip."""
    read, out = evaluator.read(frames, species=list(species)), []
    for i, name in enumerate(species):
        n = len(read["limbs"][i])
        reading = reading_of(read["positions"][i][:, :n], read["visible"][i][:, :n], read["limbs"][i], name, frames.shape[2:4])
        out.append(structure_error(reading))
    return out


def _without_network(clip, prompt):
    actor = prompt.asked["actors"][0]
    reading = read_limbs(clip, actor["species"], actor["colour"], prompt.asked["place"])
    out = {"structure": structure_error(reading)["articulation"]}
    if len(clip) > 2:
        moving = flow(clip, "dis")
        degree = dynamic_degree(moving, FPS)
        out |= {"dynamic_degree": float(degree.dynamic), "speed": degree.top5, "smoothness": motion_smoothness(clip, moving)}
    return out | {f"failure_{name}": value for name, value in detect_failures(clip, prompt.asked).items()}
