"""How evenly a clip changes from frame to frame: distances of neighbours, their Gini coefficient, their mean (VTG, AID)."""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError, one_of


def adjacent_distances(items, distance: str | Callable = "rmse") -> np.ndarray:
    """Distance of each item to the next, (f-1,): VTG and AID use LPIPS on frames, which plugs in as a callable.

    Args:
        items: (f, ...) frames or per-frame features. Bytes are read as [0, 1].
        distance: 'rmse' (root mean square difference), 'cosine' (1 - cosine of the flattened items) or a function of
            two items that returns a number.

    Raises:
        MotionLabError: fewer than three items, values that are not finite, an unknown name.
    """
    tensor = torch.as_tensor(np.asarray(items) if not isinstance(items, torch.Tensor) else items)
    if tensor.ndim < 2 or len(tensor) < 3:
        raise MotionLabError(f"Items of shape {tuple(tensor.shape)} leave fewer than two distances to compare.",
                             fix="Give at least three frames or features: (f, ...).")
    if callable(distance):
        return np.array([float(distance(items[t], items[t + 1])) for t in range(len(tensor) - 1)])
    one_of(distance, ("rmse", "cosine"), "distance")
    flat = (tensor.double() / (255 if tensor.dtype == torch.uint8 else 1)).flatten(1)
    if not torch.isfinite(flat).all():
        raise MotionLabError("Items hold values that are not finite.", fix="Check the features or frames first.")
    if distance == "rmse":
        return (flat.diff(dim=0) ** 2).mean(dim=1).sqrt().cpu().numpy()
    return (1 - F.cosine_similarity(flat[:-1], flat[1:], dim=1)).cpu().numpy()


def gini(distances) -> float:
    """G = sum_ij |d_i - d_j| / (2 M^2 mean(d)), in [0, 1 - 1/M]; NaN where all distances are zero (0/0)."""
    d = np.asarray(distances, float)
    if d.ndim != 1 or len(d) < 2:
        raise MotionLabError(f"Distances have shape {d.shape}.", fix="Give at least two distances: (M,).")
    if not d.any():
        return math.nan
    return float(np.abs(d[:, None] - d[None]).sum() / (2 * len(d) ** 2 * d.mean()))


def gini_smoothness(items, distance: str | Callable = "rmse", form: str = "1-G") -> float:
    """VTG's smoothness: the Gini coefficient G of adjacent distances, turned so that larger is smoother.

    Blind to the amount of motion: a nearly frozen clip with even leftovers scores high, so show `consistency` beside
    it.

    Args:
        items, distance: see `adjacent_distances`.
        form: '1-G' (default: bounded, and what AID's code returns) or '1/G' (VTG's wording, "reciprocal"); the latter
            is infinite for perfectly even change.

    Returns:
        the score; NaN for an exactly frozen clip (0/0).
    """
    one_of(form, ("1-G", "1/G"), "form")
    g = gini(adjacent_distances(items, distance))
    if form == "1-G":
        return 1 - g
    return math.inf if g == 0 else 1 / g


def consistency(items, distance: str | Callable = "rmse") -> dict[str, float]:
    """AID's companion of smoothness: {'mean', 'max'} of adjacent distances; smaller is steadier, frozen 0."""
    d = adjacent_distances(items, distance)
    return {"mean": float(d.mean()), "max": float(d.max())}
