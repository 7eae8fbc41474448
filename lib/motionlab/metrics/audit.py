"""Audit of motion metrics: apply known changes to clips whose motion is known, and record what each metric answers.

Reference metrics (hybrid motion fidelity in both forms, DMT's base metric) compare changed tracks with the true ones.
No-reference metrics (dynamic degree, smoothness in VBench's and VTG's forms) look at the changed pictures alone. Besides changes
of motion there are static ones (`still_changes`), which no metric of motion should answer; exact tracks cannot, by construction.
Rows are flat dicts `{item, arm, seed, <metric>: value}` as the ledger stores them; an undefined value is NaN.
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from motionlab.metrics import still_changes
from motionlab.metrics.changes import CHANGES, apply_change
from motionlab.metrics.motion import (consistency, dynamic_degree, gini_smoothness, mf_dmt, mf_paper, mf_release,
                                      motion_smoothness)
from motionlab.teachers.flow import dis_flow
from motionlab.world import random_scene, render

MOVING = ("identity", *CHANGES)
ARMS = (*MOVING, *still_changes.ARMS)
OF_TRACKS = ("step_lengths",)       # changes that no picture can show: without a score where there is no reference
REFERENCE = ("mf_paper", "mf_release", "mf_dmt")
NO_REFERENCE = ("dynamic_top5", "dynamic", "smoothness", "vtg_smoothness", "vtg_undefined", "roughness")


def audit_world(seeds, size: int = 64, frames: int = 17, points: int = 40, fps: float = 16.0) -> Iterator[dict]:
    """Rows of the audit on exact tracks: for each world seed, the original and every change.

    Args:
        seeds: world seeds, one clip each. size, frames, fps: of the clips. points: foreground tracks per clip.
    """
    other, other_tracks = _world_clip(seeds[-1], size, frames, points, fps)
    for seed in seeds:
        clip, tracks = _world_clip(seed, size, frames, points, fps)
        limbs = np.array([clip.layers[i].limb for i in clip.owner(tracks[0], 0)])
        rng = np.random.default_rng([seed, 9])
        for arm in ARMS:
            changed = changed_tracks(arm, tracks, rng, clip.size, other=other_tracks, parts=limbs)
            pictures = None if arm in OF_TRACKS else changed_pictures(arm, clip, np.random.default_rng([seed, 10]), other)
            seen = dict.fromkeys(NO_REFERENCE, float("nan")) if pictures is None else picture_scores(pictures, fps)
            yield {"item": f"world-{seed}", "arm": arm, "seed": 0, "kind": kind_of(clip),
                   **reference_scores(changed, tracks, clip.size, seed), **seen}
        other, other_tracks = clip, tracks


def audit_tracks(item: str, tracks: np.ndarray, size, other: np.ndarray, seed: int = 0) -> Iterator[dict]:
    """Rows of the audit on given tracks (f, n, 2) of a real clip; `other` (f', m, 2) serves as another clip."""
    rng = np.random.default_rng([seed, 9])
    for arm in MOVING:
        yield {"item": item, "arm": arm, "seed": 0, **reference_scores(
                changed_tracks(arm, tracks, rng, size, other=other), tracks, size, seed)}


def kind_of(clip) -> str:
    """Motion kind (basic, complex, rotation, physics) of a clip's first subject."""
    from motionlab.world.motions import MOTIONS

    return MOTIONS[clip.scene.actors[0].motion].kind


# ---------------------------------------------------------------------------------------------- changes
def changed_tracks(arm: str, tracks, rng, size, other=None, parts=None) -> np.ndarray:
    """Tracks (f, n, 2) after one change; "identity" and static changes leave them."""
    if arm == "identity" or arm in still_changes.ARMS:
        return tracks
    labels = parts if parts is not None and len(np.unique(parts)) > 1 else None
    return apply_change(arm, tracks, rng, size, other=other, parts=labels)


def changed_pictures(arm: str, clip, rng, other) -> np.ndarray:
    """Frames (f, h, w, 3) of the world clip after one change, none of `OF_TRACKS`: scenes are rendered anew where tracks would lie.

    Speed, amplitude and lost limbs change the scene; the rest changes the frames. At double speed the scene simply goes
    on for twice as long, so a subject that travels may leave the frame towards the end, as it would before a camera.
    """
    frames, size, fps = clip.frames, clip.size, clip.fps
    if arm in ("speed_half", "speed_double"):
        return render(clip.scene, size, len(frames), fps * (2.0 if arm == "speed_half" else 0.5)).frames
    if arm in ("amplitude_half", "amplitude_more"):
        factor = 0.5 if arm == "amplitude_half" else 1.5
        actor = clip.scene.actors[0]
        scene = clip.scene.with_actor(0, amplitude=actor.amplitude * factor, speed=actor.speed * factor)
        return render(scene, size, len(frames), fps).frames
    if arm == "dropped_limb":
        limbs = list(clip.limb_masks())
        return render(clip.scene.with_actor(0, hide=(limbs[rng.integers(len(limbs))],)), size, len(frames), fps).frames
    return _frame_change(arm, frames, rng, other)


def _frame_change(arm, frames, rng, other):
    h, w = frames.shape[1:3]
    if arm == "identity":
        return frames
    if arm in still_changes.ARMS:
        return still_changes.by_arm(frames, arm, rng)
    if arm == "time_reversal":
        return frames[::-1].copy()
    if arm == "frame_shuffle":
        return frames[rng.permutation(len(frames))]
    if arm == "mirror":
        return frames[:, :, ::-1].copy()
    if arm == "spatial_shift":
        return np.roll(frames, (int(0.2 * h), int(0.2 * w)), axis=(1, 2))
    if arm == "jitter":
        steps = np.round(rng.normal(0, h / 48, (len(frames), 2))).astype(int)
        return np.stack([np.roll(frame, tuple(step), axis=(0, 1)) for frame, step in zip(frames, steps)])
    return np.repeat(frames[:1], len(frames), axis=0) if arm == "frozen" else other.frames


# ---------------------------------------------------------------------------------------------- scores
def reference_scores(changed, tracks, size, seed: int = 0) -> dict[str, float]:
    """Both forms of hybrid motion fidelity and DMT's base metric of changed against true tracks."""
    return {"mf_paper": mf_paper(changed, tracks, size, match="index"),
            "mf_release": mf_release(changed, tracks, size, seed=seed), "mf_dmt": mf_dmt(changed, tracks)}


def picture_scores(frames, fps: float) -> dict[str, float]:
    """No-reference scores of frames (f, h, w, 3), flow by DIS; `roughness` is AID's mean distance of neighbours."""
    flow = dis_flow(frames)
    degree, even = dynamic_degree(flow, fps), gini_smoothness(frames)
    return {"dynamic_top5": degree.top5, "dynamic": float(degree.dynamic), "smoothness": motion_smoothness(frames, flow),
            "vtg_smoothness": even, "vtg_undefined": float(np.isnan(even)), "roughness": consistency(frames)["mean"]}


def _world_clip(seed, size, frames, points, fps):
    clip = render(random_scene(seed), size, frames, fps)
    return clip, clip.tracks(clip.foreground_points(points, seed))[0]
