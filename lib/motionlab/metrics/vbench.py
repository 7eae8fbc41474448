"""VBench's two sums over its six `custom_input` dimensions, in VBench's aggregation; "VBench-style" wherever a network differs.

VideoJAM's tables give Appearance and Motion without saying how; its method card recovered both from the published rows:

    n_q = (q - min_q) / (max_q - min_q)
    Appearance = 100 mean(aesthetic, imaging, n_subject, n_background)
    Motion     = 100 (n_smoothness + 0.5 dynamic) / 1.5

Dimensions that need a downloaded network (aesthetic, imaging) have no counterpart here: import VBench's own JSON
(`read_vbench`), or leave them out, and the sum says so. Subject and background consistency take any image encoder.
"""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError, one_of

RANGES = {"aesthetic_quality": (0.0, 1.0), "imaging_quality": (0.0, 1.0), "subject_consistency": (0.1462, 1.0),
          "background_consistency": (0.2615, 1.0), "motion_smoothness": (0.706, 0.9975), "dynamic_degree": (0.0, 1.0)}
APPEARANCE = ("aesthetic_quality", "imaging_quality", "subject_consistency", "background_consistency")
WEIGHT_OF_DYNAMIC = 0.5


def normalised(dimension: str, value: float) -> float:
    """VBench's min-max step of one dimension; values in [0, 1].

    Raises:
        MotionLabError: an unknown dimension (the nearest is named).
    """
    low, high = RANGES[one_of(dimension, RANGES, "VBench dimension")]
    return (value - low) / (high - low)


def appearance(scores: dict[str, float], partial: bool = False) -> float:
    """Appearance of a model from its dimensions' means (each in [0, 1]), 0 to 100.

    Args:
        partial: allow missing dimensions; the mean is then over those that are there and compares with nothing else.

    Raises:
        MotionLabError: a missing dimension, an unknown one.
    """
    return 100 * float(np.mean([normalised(name, scores[name]) for name in _present(scores, APPEARANCE, partial)]))


def motion(scores: dict[str, float]) -> float:
    """Motion of a model from smoothness and the share of dynamic clips, 0 to 100."""
    _present(scores, ("motion_smoothness", "dynamic_degree"), False)
    return 100 * (normalised("motion_smoothness", scores["motion_smoothness"])
                  + WEIGHT_OF_DYNAMIC * scores["dynamic_degree"]) / (1 + WEIGHT_OF_DYNAMIC)


def motion_scores(scores: dict[str, float]) -> dict[str, float]:
    """Three readings of a "Motion Score" that is named and not defined (card sam2videox, 6.1), on raw scores, 0 to 100: m1, smoothness and
    dynamic degree; m2, both consistencies and smoothness; m3, all four. Means of dimensions, so means of clips add up.

    A model that freezes wins on m2: never show it without the dynamic degree.
    """
    readings = {"m1": ("motion_smoothness", "dynamic_degree"), "m2": ("subject_consistency", "background_consistency", "motion_smoothness")}
    readings["m3"] = (*readings["m2"], "dynamic_degree")
    return {name: 100 * float(np.mean([scores[one] for one in names])) for name, names in readings.items()}


def _present(scores, wanted, partial):
    for name in scores:
        one_of(name, RANGES, "VBench dimension")
    found = [name for name in wanted if name in scores]
    if len(found) < len(wanted) and not (partial and found):
        missing = [name for name in wanted if name not in scores]
        raise MotionLabError(f"The score lacks {', '.join(missing)}.",
                             fix="Measure it, import VBench's JSON, or set partial=True where it is offered.")
    return found


def consistency(features: np.ndarray) -> float:
    """VBench's consistency of one clip from image features (f, d): mean over frames 1.. of the mean of the cosine to the first
    frame and to the frame before, negative cosines counted as 0. Subject (DINO) and background (CLIP) differ in features only.

    Raises:
        MotionLabError: fewer than two frames, features that are not finite.
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise MotionLabError(f"Consistency needs finite features (f, d) of two frames or more; got shape {x.shape}.",
                             fix="Encode each frame of the clip.")
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    to_first, to_last = (x[1:] @ x[0]).clip(0), (x[1:] * x[:-1]).sum(1).clip(0)
    return float(((to_first + to_last) / 2).mean())


def world_style(frames: np.ndarray, encoder, subject: np.ndarray, smoothness: float, dynamic: float) -> dict[str, float]:
    """VBench-style numbers of one clip of the world: two consistencies, and both sums, linear in them, so that means of clips add up.

    Args:
        frames: uint8 (f, h, w, 3). encoder: an `ImageEncoder`, in the place of DINO and CLIP.
        subject: (f, h, w) bool. Patches of the subject serve subject consistency, those without it background consistency
            (VBench itself feeds whole frames to both of its networks).
        smoothness, dynamic: as `metrics.motion` measures them.

    Returns:
        subject_consistency, background_consistency (NaN where fewer than two frames show it), vbench_appearance (of these two
        dimensions only: aesthetic and imaging quality need networks), vbench_motion, and the readings m1, m2, m3 of `motion_scores`.
    """
    from motionlab.video import as_video

    features = encoder.features(as_video(frames)).numpy()
    f, h, w = subject.shape
    p = encoder.config.patch
    share = subject.reshape(f, h // p, p, w // p, p).mean((2, 4)).reshape(f, -1)
    where = {"subject": share >= 0.5, "background": share <= 0.1}
    out = {f"{name}_consistency": _consistency_of(features, there) for name, there in where.items()}
    moving = {"motion_smoothness": smoothness, "dynamic_degree": dynamic}
    sums = {"vbench_appearance": appearance(out, partial=True), "vbench_motion": motion(moving)}
    return out | sums | motion_scores(out | moving)


def _consistency_of(features, there):
    """Of features (f, n, d) pooled over the patches that are `there` (f, n), in the frames that have some."""
    pooled = [x[keep].mean(0) for x, keep in zip(features, there) if keep.any()]
    return consistency(np.stack(pooled)) if len(pooled) > 1 else float("nan")


def read_vbench(path: str | Path) -> dict[str, float]:
    """Means by dimension of a result file of the real VBench (`*_eval_results.json`: {dimension: [mean, per clip]}).

    Raises:
        MotionLabError: no such file, not such a file, an unknown dimension.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        return {one_of(name, RANGES, "VBench dimension"): float(value[0]) for name, value in data.items()}
    except FileNotFoundError:
        raise MotionLabError(f"No VBench results at {path}.",
                             fix="Run `vbench evaluate --mode custom_input`; it writes *_eval_results.json.") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise MotionLabError(f"{path} is no result file of VBench ({error}).",
                             fix="Give its *_eval_results.json: {dimension: [mean, [...]]}.") from None


def read_vbench_folder(folder: str | Path) -> dict[str, dict[str, float]]:
    """{name: scores} of every NAME.json in a folder, each as `read_vbench`.

    Raises:
        MotionLabError: no such folder, no result file in it, as `read_vbench`.
    """
    found = {path.stem: read_vbench(path) for path in sorted(Path(folder).glob("*.json"))}
    if not found:
        raise MotionLabError(f"No VBench results in the folder '{folder}'.",
                             fix="Put a model's *_eval_results.json there as NAME.json, one for each model.")
    return found

