"""How far the weight-free teachers are to be trusted: their error against the world's exact truth, one row per clip."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from motionlab.teachers.flow import dis_flow, end_point_error
from motionlab.teachers.tracks import chain_flow_tracks, lucas_kanade_tracks, track_error
from motionlab.world import random_scene, render


def audit_teachers(seeds, size: int = 96, frames: int = 17, points: int = 60) -> Iterator[dict]:
    """Rows {item, arm, seed, error, relative, caught}: arms "dis" (flow), "lucas_kanade" and "dis_chained" (tracks).

    `error` is in pixels over what the truth sees of the subject: mean end-point error of the flow, mean distance of tracks.
    `relative` divides it by what standing still would cost (mean speed, or mean displacement from the query). `caught` is
    the share of points lost in truth that Lucas-Kanade's forward-backward check also calls lost (NaN for flow).
    """
    for seed in seeds:
        clip = render(random_scene(seed), size, frames)
        xy, seen = clip.tracks(clip.foreground_points(points, seed))
        dis = dis_flow(clip.frames)
        klt = lucas_kanade_tracks(clip.frames, xy[0])
        chained = chain_flow_tracks(dis, xy[0])
        lost = ~seen
        caught = float((~klt.visible)[lost].mean()) if lost.any() else np.nan
        for arm, error, still, share in (
                ("dis", end_point_error(dis, clip.flow, flow_mask(clip)), end_point_error(np.zeros_like(dis), clip.flow, flow_mask(clip)), np.nan),
                ("lucas_kanade", track_error(klt, xy, seen, 0), _still_error(xy, seen), caught),
                ("dis_chained", track_error(chained, xy, seen, 0), _still_error(xy, seen), np.nan)):
            yield {"item": f"world-{seed}", "arm": arm, "seed": 0, "error": error, "relative": error / still, "caught": share}


def flow_mask(clip) -> np.ndarray:
    """Subject pixels whose surface is still seen in the next frame, (f-1, h, w) bool."""
    return clip.object_mask(None)[:-1] & clip.flow_visible


def _still_error(xy, seen):
    return track_error(np.broadcast_to(xy[:1], xy.shape), xy, seen, 0)
