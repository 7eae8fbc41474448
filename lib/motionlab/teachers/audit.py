"""How far the weight-free teachers are to be trusted: their error against the world's exact truth, one row per clip."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from motionlab.teachers.cotracker import cotracker_tracks, find_cotracker
from motionlab.teachers.flow import dis_flow, end_point_error, find_raft_weights, raft_flow
from motionlab.teachers.following import chain_flow_tracks, lucas_kanade_tracks
from motionlab.teachers.tracks import track_error
from motionlab.world import random_scene, render


def audit_teachers(seeds, size: int = 96, frames: int = 17, points: int = 60) -> Iterator[dict]:
    """Rows {item, arm, seed, error, relative, caught}: arms "dis" (flow), "lucas_kanade" and "dis_chained" (tracks), and
    "raft" and "cotracker" where their weights are on disk.

    `error` is in pixels over what the truth sees of the subject: mean end-point error of the flow, mean distance of tracks.
    `relative` divides it by what standing still would cost (mean speed, or mean displacement from the query). `caught` is
    the share of points lost in truth that Lucas-Kanade's forward-backward check also calls lost (NaN for flow).
    """
    flows, trackers = _teachers()
    for seed in seeds:
        clip = render(random_scene(seed), size, frames)
        xy, seen = clip.tracks(clip.foreground_points(points, seed))
        still, mask = np.zeros_like(clip.flow), flow_mask(clip)
        for arm, teach in flows.items():
            error = end_point_error(teach(clip.frames), clip.flow, mask)
            yield _row(seed, arm, error, end_point_error(still, clip.flow, mask))
        for arm, teach in trackers.items():
            guess = teach(clip.frames, xy[0])
            caught = float((~guess.visible)[~seen].mean()) if (~seen).any() else np.nan
            yield _row(seed, arm, track_error(guess, xy, seen, 0), _still_error(xy, seen), caught)


def _teachers():
    """The teachers that can run here: {arm: flow teacher}, {arm: track teacher}."""
    flows = {"dis": dis_flow} | ({"raft": raft_flow} if find_raft_weights() else {})
    trackers = {"lucas_kanade": lucas_kanade_tracks, "dis_chained": lambda frames, points: chain_flow_tracks(dis_flow(frames), points)}
    return flows, trackers | ({"cotracker": cotracker_tracks} if find_cotracker() else {})


def _row(seed, arm, error, still, caught=np.nan):
    return {"item": f"world-{seed}", "arm": arm, "seed": 0, "error": error, "relative": error / still, "caught": caught}


def flow_mask(clip) -> np.ndarray:
    """Subject pixels whose surface is still seen in the next frame, (f-1, h, w) bool."""
    return clip.object_mask(None)[:-1] & clip.flow_visible


def _still_error(xy, seen):
    return track_error(np.broadcast_to(xy[:1], xy.shape), xy, seen, 0)
