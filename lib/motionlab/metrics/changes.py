"""Known changes applied to tracks: a motion metric has to order them rightly before it may judge anything.

Every change is a pure function of tracks (f, n, 2) in pixels, keeps their shape, and draws all its chance from the
given `numpy.random.Generator`, so a seed fixes it; changes without chance draw nothing. Times are resampled linearly.
Changes in time (`time_reversal`, `frame_shuffle`) do not return a changed visibility: the share of frames in which a
track is seen, the only thing the motion metrics use, is the same.
"""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.metrics.motion.checks import frame_size

SHIFT = 0.2  # share of the frame's width and height
LIMB_SHARE = 0.25  # share of the tracks that a limb holds where no part labels are given
JITTER_PIXELS_AT_48 = 1.0


def apply_change(name: str, tracks, rng, size, visibility=None, other=None, parts=None) -> np.ndarray:
    """Apply the change called `name`; `other` is used by 'another_clip' only, `parts` by 'dropped_limb' only.

    Raises:
        MotionLabError: unknown change, wrong shapes, NaN tracks, or 'another_clip' without another clip's tracks.
    """
    change = CHANGES[one_of(name, CHANGES, "change")]
    extra = {"another_clip": {"other": other}, "dropped_limb": {"parts": parts}}.get(name, {})
    return change(tracks, rng, size, visibility, **extra)


def time_reversal(tracks, rng, size, visibility=None) -> np.ndarray:
    """The clip played backwards."""
    return _tracks(tracks)[::-1].copy()


def frame_shuffle(tracks, rng, size, visibility=None) -> np.ndarray:
    """The frames in random order, never the true one (clips of one frame stay as they are)."""
    tracks = _tracks(tracks)
    order, truth = np.arange(len(tracks)), np.arange(len(tracks))
    while len(tracks) > 1 and (order == truth).all():
        order = rng.permutation(len(tracks))
    return tracks[order]


def spatial_shift(tracks, rng, size, visibility=None) -> np.ndarray:
    """All tracks moved together by 20 % of the frame in x and in y, each with a random sign: motion is untouched."""
    h, w = frame_size(size)
    return _tracks(tracks) + SHIFT * np.array([w, h]) * rng.choice([-1.0, 1.0], size=2)


def mirror(tracks, rng, size, visibility=None) -> np.ndarray:
    """Left and right exchanged about the frame's centre: x -> (w - 1) - x."""
    tracks = _tracks(tracks).copy()
    tracks[..., 0] = (frame_size(size)[1] - 1) - tracks[..., 0]
    return tracks


def speed_half(tracks, rng, size, visibility=None) -> np.ndarray:
    """The first half of the clip at half speed; same length."""
    tracks = _tracks(tracks)
    return _at_times(tracks, np.arange(len(tracks)) / 2)


def speed_double(tracks, rng, size, visibility=None) -> np.ndarray:
    """The clip at double speed; same length.

    The clip runs out half-way. Holding the last frame would make half the steps still and looping would make a jump,
    both of which metrics punish for reasons other than speed. So motion goes on by point reflection about its last
    position, p(end + s) = 2 p(end) - p(end - s): every step stays twice as fast and velocity has no jump. Points may
    leave the frame.
    """
    tracks = _tracks(tracks)
    going_on = 2 * tracks[-1] - tracks[-2::-1]
    return _at_times(np.concatenate([tracks, going_on]), 2 * np.arange(len(tracks)))


def amplitude_half(tracks, rng, size, visibility=None) -> np.ndarray:
    """Every track's motion about its own mean position (over frames where it is seen) halved."""
    return _scaled(tracks, visibility, 0.5)


def amplitude_more(tracks, rng, size, visibility=None) -> np.ndarray:
    """Every track's motion about its own mean position (over frames where it is seen) made half as large again."""
    return _scaled(tracks, visibility, 1.5)


def dropped_limb(tracks, rng, size, visibility=None, parts=None) -> np.ndarray:
    """One limb stops moving of its own: its tracks keep their first place relative to the object's mean motion.

    Args:
        parts: label of each track's part, (n,), any type. A random part other than the largest is dropped. Without
            labels, a quarter of the tracks that lie together in the first frame is dropped (the nearest to a random
            track).
    """
    tracks = _tracks(tracks)
    limb = _limb(tracks, rng, parts)
    seen = _seen(tracks, visibility)
    centre = (tracks * seen[..., None]).sum(1) / np.maximum(seen.sum(1), 1)[:, None]
    # A frame in which no track is seen falls back to all of them.
    centre = np.where(seen.any(1)[:, None], centre, tracks.mean(1))
    changed = tracks.copy()
    changed[:, limb] = tracks[0, limb] + (centre - centre[0])[:, None]
    return changed


def jitter(tracks, rng, size, visibility=None) -> np.ndarray:
    """Independent Gaussian noise on every position: 1 pixel at 48 pixels of frame, growing with its shorter side."""
    tracks = _tracks(tracks)
    return tracks + rng.normal(0, JITTER_PIXELS_AT_48 * min(frame_size(size)) / 48, tracks.shape)


def frozen(tracks, rng, size, visibility=None) -> np.ndarray:
    """The first frame throughout."""
    tracks = _tracks(tracks)
    return np.repeat(tracks[:1], len(tracks), axis=0)


def another_clip(tracks, rng, size, visibility=None, other=None) -> np.ndarray:
    """The tracks of another clip, resampled to this clip's length; as many as here (drawn again where it has fewer).

    Args:
        other: (f', n', 2), in pixels of the same frame size.
    """
    tracks = _tracks(tracks)
    if other is None:
        raise MotionLabError("The change 'another_clip' got no other clip.",
                             fix="Pass other=<tracks (f, n, 2) of another clip>.")
    other = _tracks(other)
    chosen = rng.choice(other.shape[1], tracks.shape[1], replace=other.shape[1] < tracks.shape[1])
    return _at_times(other[:, chosen], np.linspace(0, len(other) - 1, len(tracks)))


def step_lengths(tracks, rng, size, visibility=None) -> np.ndarray:
    """Every step keeps its direction and gets another length: its own times an exponential number of mean 1, drawn for each track alone.

    What looks at directions only (mean cosines of displacements) cannot tell; the shape of every way is another. No picture shows
    it: points of one part come apart.
    """
    tracks = _tracks(tracks)
    steps = np.diff(tracks, axis=0)
    steps = steps * rng.exponential(1.0, steps.shape[:2])[..., None]
    return np.concatenate([tracks[:1], tracks[:1] + np.cumsum(steps, axis=0)])


CHANGES = {
    change.__name__: change
    for change in (time_reversal, frame_shuffle, spatial_shift, mirror, speed_half, speed_double, amplitude_half,
                   amplitude_more, dropped_limb, jitter, frozen, another_clip, step_lengths)     # new ones last: others draw as before
}


def _at_times(tracks: np.ndarray, times: np.ndarray) -> np.ndarray:
    before = np.clip(np.floor(times).astype(int), 0, len(tracks) - 1)
    after = np.minimum(before + 1, len(tracks) - 1)
    share = (times - before)[:, None, None]
    return (1 - share) * tracks[before] + share * tracks[after]


def _scaled(tracks, visibility, factor: float) -> np.ndarray:
    tracks = _tracks(tracks)
    seen = _seen(tracks, visibility)
    seen = np.where(seen.any(0), seen, True)[..., None]  # a track that is never seen: all its frames
    centre = (tracks * seen).sum(0) / seen.sum(0)
    return centre + factor * (tracks - centre)


def _limb(tracks: np.ndarray, rng, parts) -> np.ndarray:
    n = tracks.shape[1]
    if parts is None:
        start = tracks[0, rng.integers(n)]
        return np.argsort(((tracks[0] - start) ** 2).sum(-1), kind="stable")[: max(1, round(LIMB_SHARE * n))]
    parts = np.asarray(parts)
    if parts.shape != (n,):
        raise MotionLabError(f"Part labels have shape {parts.shape}, but there are {n} tracks.",
                             fix="Give one label per track.")
    labels, counts = np.unique(parts, return_counts=True)
    if len(labels) < 2:
        raise MotionLabError("All tracks carry the same part label, so no limb can be dropped.",
                             fix="Track at least two parts, or leave `parts` out.")
    limbs = np.delete(labels, counts.argmax())
    return np.flatnonzero(parts == limbs[rng.integers(len(limbs))])


def _seen(tracks: np.ndarray, visibility) -> np.ndarray:
    if visibility is None:
        return np.ones(tracks.shape[:2], bool)
    visibility = np.asarray(visibility, bool)
    if visibility.shape != tracks.shape[:2]:
        raise MotionLabError(f"Visibility has shape {visibility.shape}, tracks {tracks.shape}.",
                             fix="Visibility is (f, n) for tracks (f, n, 2).")
    return visibility


def _tracks(tracks) -> np.ndarray:
    tracks = np.asarray(tracks)
    if tracks.ndim != 3 or tracks.shape[-1] != 2 or 0 in tracks.shape:
        raise MotionLabError(f"Tracks have shape {tracks.shape}.",
                             fix="Tracks are (f, n, 2): frames, points, (x, y) in pixels.")
    tracks = tracks.astype(np.float64)
    if not np.isfinite(tracks).all():
        raise MotionLabError("Tracks hold NaN or infinite positions.",
                             fix="Keep finite tracks only before changing them.")
    return tracks
