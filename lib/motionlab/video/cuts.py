"""Cuts in a clip: what changes across one is no motion."""
from __future__ import annotations

import numpy as np

from motionlab.video.clip import check_frames

SIDE = 96                      # pixels of the side at which frames are compared: finer detail moves, and tells nothing of a cut
AROUND = 2                     # changes before and after one that it is compared with
TIMES, LEAST = 5.0, 6.0        # how much larger than their mean a cut's change is beyond motion, and how large at all, in grey levels
PLAIN = 1.15                   # how much larger than their mean its plain change is: motion too fast to be followed is as fast around it
FLASH = 3                      # frames after which the old picture is back, where nothing was cut but the light


def find_cuts(frames: np.ndarray) -> list[int]:
    """Frames that begin a new shot.

    The rule is that of PySceneDetect's adaptive detector, a change much larger than those around it. Its measure, the plain change of
    brightness, cannot tell a cut between two moving textures (1.2 to 4 times the changes around it) from a camera that shakes (1.2 to
    3.7 times): so a cut must also be a change that no motion explains. At the ends neighbours are those that exist, where its detector
    looks at none of the first and last two changes; and what a flash changes is no cut, where its detector finds two.

    Measured on clips of 17 frames of 48 x 48 (tests/test_own_clip.py): ten of ten cuts between the world's renders and moving textures,
    five of them alike in colour, none false; none in ten clips without a cut (fast motion, flashes, fading light, noise, a real camera).
    All five cuts of a real film of 250 frames. PySceneDetect's detector alone found 210 of 292 cuts of these kinds in the middle of a
    clip and 12 of 108 next to its ends, of 100 between textures 6, and took 81 of 100 flashes for a cut.

    Args:
        frames: uint8 (f, h, w, 3).

    Returns:
        Indices in 1..f-1, in order; hard cuts only, a dissolve is not found. A shot of up to `FLASH` frames after which the picture
        before it returns is taken for a flash, a flash in the very first or last frame for a cut.
    """
    small = _small(check_frames(frames))
    plain, beyond = brightness_changes(small), changes_beyond_motion(small)
    level = small.max(-1).astype(np.int16)
    return [k + 1 for k in range(len(plain)) if beyond[k] >= LEAST and _times(beyond, k) >= TIMES and _times(plain, k) >= PLAIN
            and not _flash(level, k + 1, plain[k])]


def brightness_changes(frames: np.ndarray) -> np.ndarray:
    """Mean absolute change of brightness (the value of HSV, 0..255) from each frame to the next, float64 (f - 1,), by PySceneDetect."""
    from scenedetect import FrameTimecode, StatsManager
    from scenedetect.detectors import ContentDetector

    detector = ContentDetector(luma_only=True)
    detector.stats_manager = StatsManager()
    for k, frame in enumerate(frames):
        detector.process_frame(FrameTimecode(k, 1.0), np.ascontiguousarray(frame[..., ::-1]))
    key = [ContentDetector.FRAME_SCORE_KEY]
    return np.array([detector.stats_manager.get_metrics(FrameTimecode(k, 1.0), key)[0] for k in range(1, len(frames))])


def changes_beyond_motion(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference, in grey levels, between each frame and the one before moved onto it by DIS flow; float64 (f - 1,)."""
    import cv2

    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    here = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in frames.shape[2:0:-1])), -1)
    moved = (cv2.remap(before, here + dis.calc(after_grey, before_grey, None), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
             for before, before_grey, after_grey in zip(frames, grey, grey[1:]))
    return np.array([np.abs(guess.astype(np.int16) - after).mean() for guess, after in zip(moved, frames[1:])])


def _small(frames):
    """Frames of `SIDE` x `SIDE`."""
    import cv2

    shrinking = min(frames.shape[1:3]) >= SIDE
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.stack([cv2.resize(np.ascontiguousarray(frame), (SIDE, SIDE), interpolation=how) for frame in frames])


def _times(changes, k) -> float:
    """How many times the mean of the changes around it a change is; 0 where there are none around it."""
    around = np.concatenate([changes[max(0, k - AROUND):k], changes[k + 1:k + 1 + AROUND]])
    return changes[k] / max(around.mean(), 0.5) if len(around) else 0.0


def _flash(level, cut, change) -> bool:
    """Whether a frame shortly after looks like one shortly before, although the change at `cut` lies between them."""
    pairs = [(i, j) for i in range(max(0, cut - FLASH), cut) for j in range(cut, min(len(level), cut + FLASH)) if 1 < j - i <= FLASH + 1]
    return any(np.abs(level[i] - level[j]).mean() < change / 2 for i, j in pairs)


def cuts_said(frames: np.ndarray, name: str) -> str:
    """A line for whoever is about to read motion off these frames, "" where there is no cut."""
    cuts = find_cuts(frames)
    if not cuts:
        return ""
    where = f"a cut at frame {cuts[0]}" if len(cuts) == 1 else f"{len(cuts)} cuts, the first at frame {cuts[0]}"
    return f"'{name}' has {where}: what changes across a cut is no motion. Give one shot."
