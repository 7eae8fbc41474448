"""Edit fidelity and temporal consistency of an edited clip, from what image encoders say of its frames.

As benchmarks of motion transfer compute them (DeT's `evaluation.py`; method card det, sections 6.3 and 6.4). The encoders
themselves are in `models.pretrained.encoders`.
"""
from __future__ import annotations

import numpy as np

from motionlab.core.errors import MotionLabError


def edit_fidelity(logits) -> float:
    """Mean over frames of CLIP's image-text logits (f,): 100 times the cosine of frame and target prompt."""
    return float(_finite(logits, 1, "(f,)").mean())


def temporal_consistency(features) -> float:
    """100 mean_t [cos(z_t, z_0) + cos(z_t, z_t-1)] / 2 of frame features z (f, d); frame 0 counts, as 1.

    `vbench.consistency` leaves frame 0 out and cuts negative cosines at 0.
    """
    z = _finite(features, 2, "(f, d)")
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    before = z[np.maximum(np.arange(len(z)) - 1, 0)]
    return float(50 * ((z @ z[0]) + (z * before).sum(1)).mean())


def _finite(values, axes, form):
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != axes or 0 in values.shape or not np.isfinite(values).all():
        raise MotionLabError(f"Frames must come as finite numbers {form}; got shape {values.shape}.", fix="Encode each frame of the clip.")
    return values
