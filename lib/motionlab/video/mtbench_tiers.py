"""How hard a clip's motion is: its tier in MTBench, by the folder it came in, or of our own making by clusters of its tracks.

The benchmark's own labels come as folders (MTBench_hard, ...). They do not follow from the published recipe: on the shipped
tracks of two example cases it gives other numbers of clusters than the authors list (method card det, section 5.4). So a tier
computed here is a stand-in, and whoever shows one says so.
"""
from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError

TIERS = ("easy", "medium", "hard")
MOST_CLUSTERS = 12          # the published histogram ends there; it begins at 2
STARTS = 10                 # of k-means; the script's single start swings widely from seed to seed
NAMED = re.compile(rf"(?:.*[_\-. ])?({'|'.join(TIERS)})", re.IGNORECASE)


def tier_of_folder(case: Path, top: Path) -> str | None:
    """The tier that a folder's name ends in (MTBench_hard, easy), from the case up to `top`, the nearest first; None: no folder says."""
    case, top = case.resolve(), top.resolve()
    for folder in (case, *case.parents):
        if named := NAMED.fullmatch(folder.name):
            return named[1].lower()
        if folder == top:
            break
    return None


def own_tier(xy: np.ndarray) -> str:
    """The tier of tracks (f, n, 2) by their number of clusters: 1 to 3 easy, 4 to 6 medium, 7 and more hard (the paper's bounds)."""
    clusters = motion_clusters(xy)
    return TIERS[0] if clusters <= 3 else TIERS[1] if clusters <= 6 else TIERS[2]


def motion_clusters(xy: np.ndarray, seed: int = 42) -> int:
    """Number of k-means clusters of the tracks' displacements, of 2 to 12 the one with the largest silhouette; 1 where all move alike.

    As the authors' script: pixels, every track's displacements as one vector, Euclidean. Other than there, the best of ten
    starts counts.

    Args:
        xy: (f, n, 2), pixels.

    Raises:
        MotionLabError: fewer than two frames, or positions that are not finite.
    """
    from scipy.spatial.distance import cdist

    xy = np.asarray(xy, dtype=np.float64)
    if xy.ndim != 3 or xy.shape[-1] != 2 or len(xy) < 2 or not np.isfinite(xy).all():
        raise MotionLabError(f"Clusters need finite tracks (f, n, 2) of two frames or more; got shape {xy.shape}.",
                             fix="Track the clip again.")
    vectors = np.diff(xy, axis=0).transpose(1, 0, 2).reshape(xy.shape[1], -1)
    different = len(np.unique(vectors, axis=0))
    apart, rng = cdist(vectors, vectors), np.random.default_rng(seed)
    scores = {k: _silhouette(apart, labels) for k in range(2, min(MOST_CLUSTERS, different - 1) + 1)
              if (labels := _k_means(vectors, k, rng)) is not None}
    return max(scores, key=scores.get, default=1)


def _k_means(vectors, k, rng):
    """Labels (n,) of the tightest of several starts; None where each start ends with an empty cluster."""
    from scipy.cluster.vq import ClusterError, kmeans2

    best, best_spread = None, np.inf
    for _ in range(STARTS):
        try:
            with warnings.catch_warnings(action="ignore"):
                centres, labels = kmeans2(vectors, k, minit="++", missing="raise", seed=rng)
        except ClusterError:
            continue
        spread = float(((vectors - centres[labels]) ** 2).sum())
        if spread < best_spread and len(np.unique(labels)) == k:
            best, best_spread = labels, spread
    return best


def _silhouette(apart, labels):
    """Mean over points of (b - a) / max(a, b): a to the others of its own cluster, b to the nearest other one; alone: 0."""
    member = labels[:, None] == np.arange(labels.max() + 1)
    count, total = member.sum(0), apart @ member
    own, others = count[labels], total / count
    a = total[member] / np.maximum(own - 1, 1)
    b = np.where(member, np.inf, others).min(1)
    return float(np.where(own > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-12), 0.0).mean())
