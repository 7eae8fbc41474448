"""What no body does: pass through the ground or a pillar, stand still while it should move, come from nowhere."""
from __future__ import annotations

import numpy as np

from motionlab.metrics.failures.evidence import Evidence
from motionlab.world.motions import GROUND, MOTIONS
from motionlab.world.puppets import species as anatomy_of

STILL = 0.2            # pixels at 48 px height: edges that move less from frame to frame stand still


def interpenetration(seen: Evidence) -> float:
    """Share of the subject's pixels where none can be, mean of the worst quarter of frames (what stands or rolls).

    That is more than a pixel below the ground line, or inside the columns of the pillar that it should pass behind.
    """
    anatomy = anatomy_of(seen.actor["species"])
    stands = MOTIONS[seen.actor["motion"]].place == "ground" and (anatomy.feet or anatomy.radius)
    stands = stands and seen.actor["motion"] != "flip"                  # the world lets a somersault dip below the line
    if not stands or not seen.visible.any():
        return np.nan
    h = seen.reading.size[0]
    zoom = np.exp(seen.zoom - np.median(seen.zoom))
    ground = h * (0.5 + (GROUND - 0.5) * zoom) - 0.5
    below = np.arange(h) > ground[:, None] + seen.unit
    inside = np.pad(seen.pillar, ((0, 0), (1, 1)))
    inside = inside[:, 1:-1] & inside[:, :-2] & inside[:, 2:]           # without its antialiased edges
    wrong = seen.mask & (below[:, :, None] | inside[:, None])
    share = wrong.sum((1, 2))[seen.visible] / seen.mask.sum((1, 2))[seen.visible].clip(1)
    return np.sort(share)[-max(1, len(share) // 4):].mean()


def frozen(seen: Evidence) -> float:
    """Share of steps at which the subject's edges move by less than 0.2 px rms (at 48 px height), camera removed."""
    change = seen.change[~np.isnan(seen.change)]
    return (change < STILL * seen.unit).mean() if len(change) else np.nan


def appearing_vanishing(seen: Evidence) -> float:
    """Largest change of the visible area from a frame to the next, in doublings; gone counts as a 50th of the median.

    Steps at the left or right edge by a subject that is less than half in the frame are left out (it leaves or
    enters); NaN where a pillar is asked for.
    """
    area, at_edge = seen.reading.area.sum(1), ~seen.clear
    if not (area > 0).any() or seen.actor["motion"] == "pass_behind":
        return np.nan
    usual = np.median(area[area > 0])
    crossing = (at_edge[1:] | at_edge[:-1]) & (np.maximum(area[1:], area[:-1]) < usual / 2)
    change = np.abs(np.diff(np.log2(np.maximum(area, 0.02 * usual))))[~crossing]
    return change.max() if len(change) else np.nan
