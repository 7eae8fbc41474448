"""Features over time as numbers: how fast they change at a place, how far apart two kinds of tokens lie, what stays along tracks.

Features are (f', h', w', d) of one clip, over latent frames. Definitions: DeT's method card, C4 and C5 (Fisher's ratio, frequencies),
section 7 (cosine along tracks); each is said in the docstring, since the paper shows pictures and one curve.
"""
from __future__ import annotations

import numpy as np

from motionlab.analyses.features import CELL, query_points, token_cells
from motionlab.analyses.inputs import GROUP
from motionlab.core.errors import MotionLabError

HIGH = 0.25             # cycles per latent frame from which a frequency counts as high: the upper half of the band
FEWEST = 5              # latent frames below which every frequency but 0 is high


# ---------------------------------------------------------------------------------------------- frequencies
def spectrum(x: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Energy (f' // 2 + 1,) of features at each frequency k / f' over latent frames, summed over chosen places and all channels.

    Args:
        x: (f', h', w', d). tokens: (h', w') bool, the places.

    Raises:
        MotionLabError: fewer than `FEWEST` latent frames.
    """
    f = len(x)
    if f < FEWEST:
        raise MotionLabError(f"{f} latent frames have no low frequency beside the mean.", fix=f"Give clips of {FEWEST} or more.")
    energy = (np.abs(np.fft.rfft(np.asarray(x, np.float64)[:, tokens], axis=0)) ** 2).sum((1, 2))
    twice = np.full(len(energy), 2.0)                          # each stands for its negative too
    twice[0] = 1.0
    if f % 2 == 0:
        twice[-1] = 1.0
    return twice * energy


def high_share(x: np.ndarray, tokens: np.ndarray) -> float:
    """Share of the energy of change over time that lies at high frequencies; NaN without tokens, or where nothing changes.

    The mean over time is left out: what a place holds at all times is no change, and would hide the rest by its size.
    """
    energy = spectrum(x, tokens)
    return _share(energy[np.arange(len(energy)) / len(x) >= HIGH].sum(), energy[1:].sum(), energy.sum())


def moving_share(x: np.ndarray, tokens: np.ndarray) -> float:
    """Share of all energy that changes over time, at any frequency; NaN without tokens."""
    energy = spectrum(x, tokens)
    return _share(energy[1:].sum(), energy.sum(), energy.sum())


def _share(part, whole, scale):
    return float(part / whole) if whole > 1e-12 * max(scale, 1e-300) else float("nan")


def lasting(labels: np.ndarray, value: int) -> np.ndarray:
    """Places (h', w') whose token has this label in every latent frame, of labels (f', h', w'); of a moving subject (1) in at least half
    of them, since few places show it throughout."""
    share = (labels == value).mean(0)
    return share == 1 if value == 0 else share >= 0.5


# ---------------------------------------------------------------------------------------------- two kinds of tokens
def fisher_ratio(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fisher's ratio (f',) of two kinds of tokens in each frame: (m1 - m0)' (S1 + S0)^-1 (m1 - m0), along the best direction.

    Args:
        values: (f', h', w', k), such as three principal components in a common basis. labels: (f', h', w'): 1, 0, others left out.

    Returns:
        NaN for frames with k or fewer tokens of either kind.
    """
    if values.shape[:3] != labels.shape:
        raise MotionLabError(f"Values {values.shape} and labels {labels.shape} do not belong together.", fix="One label per token.")
    return np.array([_fisher(frame[mark == 1], frame[mark == 0]) for frame, mark in zip(np.asarray(values, np.float64), labels)])


def _fisher(one, other):
    k = one.shape[-1]
    if min(len(one), len(other)) <= k:
        return np.nan
    within = np.cov(one.T, bias=True) + np.cov(other.T, bias=True)
    within = np.atleast_2d(within) + 1e-9 * max(np.trace(np.atleast_2d(within)) / k, 1e-300) * np.eye(k)
    apart = one.mean(0) - other.mean(0)
    return float(apart @ np.linalg.solve(within, apart))


# ---------------------------------------------------------------------------------------------- along tracks
def track_cosines(x: np.ndarray, clip, points: int = 100, seed: int = 0, cell: int = CELL, group: int = GROUP) -> dict[str, float]:
    """{"foreground", "background"}: mean cosine of features from one latent frame to the next along exact tracks.

    s = sum V cos(F[f, p_f], F[f + 1, p_{f+1}]) / sum V over tracks and adjacent latent frames, V the smaller of both visibilities
    (card 7). The background's points are drawn at random off the subject: a control, for what rises there too is no tracking.

    Args:
        x: (f', h', w', d). clip: with truth. points: tracks of either kind, from its first frame.
    """
    times = np.arange(0, len(clip.frames), group)
    out = {}
    for name, query in query_points(clip, points, seed).items():
        tracks, visible = clip.tracks(query)
        out[name] = _cosine(x, token_cells(tracks[times], cell, *x.shape[1:3]), visible[times])
    return out


def _cosine(x, cells, visible):
    found = np.asarray(x, np.float64)[np.arange(len(cells))[:, None], cells[..., 1], cells[..., 0]]            # (f', n, d)
    unit = found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)
    pairs = visible[1:] & visible[:-1]
    return float((unit[1:] * unit[:-1]).sum(-1)[pairs].mean()) if pairs.any() else float("nan")
