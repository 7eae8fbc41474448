"""Cuts in a clip: what changes across one is no motion."""
from __future__ import annotations

import numpy as np

from motionlab.video.clip import check_frames


def find_cuts(frames: np.ndarray) -> list[int]:
    """Frames that begin a new shot, by PySceneDetect's adaptive detector: a change of content three times as large as around it.

    Args:
        frames: uint8 (f, h, w, 3).

    Returns:
        Indices in 1..f-1, in order; hard cuts only, a dissolve is not found.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    check_frames(frames)
    detector, found = AdaptiveDetector(min_scene_len=1), []
    for k, frame in enumerate(frames):
        found += detector.process_frame(FrameTimecode(k, 1.0), np.ascontiguousarray(frame[..., ::-1]))
    found += detector.post_process(FrameTimecode(len(frames) - 1, 1.0))
    return sorted({cut.frame_num for cut in found})


def cuts_said(frames: np.ndarray, name: str) -> str:
    """A line for whoever is about to read motion off these frames, "" where there is no cut."""
    cuts = find_cuts(frames)
    if not cuts:
        return ""
    where = f"a cut at frame {cuts[0]}" if len(cuts) == 1 else f"{len(cuts)} cuts, the first at frame {cuts[0]}"
    return f"'{name}' has {where}: what changes across a cut is no motion. Give one shot."
