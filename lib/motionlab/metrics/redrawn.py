"""Does a motion score see the shape of a way, or only its directions? Steps keep their direction and get other lengths.

Known change `changes.step_lengths`, on exact tracks: what compares directions alone cannot tell it from the original, what compares
whole ways must (DeT's method card 6.2, C22).
"""
from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from motionlab.metrics.changes import step_lengths
from motionlab.metrics.motion import mf_dmt, mf_paper

ARMS = ("identity", "redrawn")


def redrawn_rows(clips: dict, points: int = 50) -> Iterator[dict]:
    """Rows {item, arm, seed, mf_paper, mf_dmt} of clips {item: clip with truth} and arms "identity" and "redrawn".

    Args:
        points: on the subject of the first frame; clips that show none there are left out.
    """
    for item, clip in clips.items():
        if not clip.object_mask(None)[0].any():
            continue
        tracks = clip.tracks(clip.foreground_points(points))[0]
        changed = {"identity": tracks, "redrawn": step_lengths(tracks, np.random.default_rng(zlib.crc32(item.encode())), clip.size)}
        for arm in ARMS:
            yield {"item": item, "arm": arm, "seed": 0, "mf_paper": mf_paper(changed[arm], tracks, clip.size),
                   "mf_dmt": mf_dmt(changed[arm], tracks)}
