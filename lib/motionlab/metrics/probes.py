"""What a network's features know: linear probes for the limb that a patch shows and for the subject's colour.

A ridge regression onto one-hot classes, every class with the same total weight, on standardised features; solved in
closed form. Training and test patches come from different clips. The probe is linear, so what it reads must lie open in
the features; compare with an untrained network of the same shape and with raw pixels, which know something too.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from einops import rearrange

from motionlab.core.errors import MotionLabError
from motionlab.models.evaluator import LIMBS, limb_groups
from motionlab.world.palette import COLOURS

PARTS = ("background", *(f"{species}/{limb}" for species, limbs in LIMBS.items() for limb in limbs))
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Probe:
    """balanced_accuracy: mean over the classes in the test set of the share read right. per_class: {class: share}.
    chance: of guessing among the classes seen in training. n: rows of training and test. guess, truth: of the test rows."""

    balanced_accuracy: float
    per_class: dict[int, float]
    chance: float
    n: tuple[int, int]
    guess: np.ndarray = field(repr=False, compare=False, default=None)
    truth: np.ndarray = field(repr=False, compare=False, default=None)


def linear_probe(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray,
                 ridge: float = 1e-3) -> Probe:
    """Probe from features (n, d) to classes (n,) whole numbers, judged on other rows (m, d), (m,).

    Args:
        ridge: strength, relative to features of deviation 1.

    Raises:
        MotionLabError: shapes that do not fit, one class only, values that are not finite.
    """
    train_x, test_x = _checked(train_x, train_y), _checked(test_x, test_y)
    if train_x.shape[1] != test_x.shape[1]:
        raise MotionLabError(f"The probe was given features of width {train_x.shape[1]} and {test_x.shape[1]}.",
                             fix="Use one network for both.")
    classes, index = np.unique(train_y, return_inverse=True)
    if len(classes) < 2:
        raise MotionLabError("The probe's training rows hold one class only.", fix="Give more clips.")
    guess = classes[_solve(train_x, index, len(classes), ridge)(test_x)]
    right = {int(c): float((guess[test_y == c] == c).mean()) for c in np.unique(test_y)}
    return Probe(float(np.mean(list(right.values()))), right, 1 / len(classes), (len(train_x), len(test_x)), guess, np.asarray(test_y))


def _solve(x, index, n, ridge):
    """Classifier x (m, d) -> class index (m,): weighted ridge with an intercept that is not shrunk."""
    weight = (1 / np.bincount(index, minlength=n))[index] / n                 # every class weighs 1 / n
    mean = weight @ x
    scale = np.sqrt(weight @ (x - mean) ** 2) + 1e-8
    z, target = (x - mean) / scale, np.eye(n)[index] - 1 / n
    gram = (z * weight[:, None]).T @ z + ridge * np.eye(x.shape[1])
    solution = np.linalg.solve(gram, (z * weight[:, None]).T @ target)
    return lambda new: (((new - mean) / scale) @ solution).argmax(1)


def _checked(x, y):
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or np.shape(y) != (len(x),) or len(x) == 0:
        raise MotionLabError(f"The probe got features {x.shape} and classes {np.shape(y)}; wanted (n, d) and (n,).",
                             fix="One row per patch or frame.")
    if not np.isfinite(x).all():
        raise MotionLabError("The probe's features hold values that are not finite.",
                             fix="Look for NaN in the network.")
    return x


# ---------------------------------------------------------------------------------------------- truth
def patch_parts(clip, frames: Sequence[int], patch: int = 4, actor: int = 0) -> np.ndarray:
    """Class of each patch, an index into PARTS, (f, n): the limb that shows on most of its pixels, or the background.

    Raises:
        MotionLabError: frames that do not divide into patches.
    """
    h, w = clip.size
    if h % patch or w % patch:
        raise MotionLabError(f"Frames of {h}x{w} do not divide into {patch}x{patch} patches.",
                             fix="Use the network's own patch size.")
    species, masks = clip.scene.actors[actor].species, clip.limb_masks(actor)
    part = np.zeros((len(frames), h, w), int)
    for limb, groups in limb_groups(species).items():
        for group in groups:
            if group in masks:
                part[masks[group][list(frames)]] = PARTS.index(f"{species}/{limb}")
    cells = rearrange(part, "f (h p) (w q) -> f (h w) (p q)", p=patch, q=patch)
    present = np.unique(cells)
    return present[np.stack([(cells == p).sum(-1) for p in present], -1).argmax(-1)]


# ---------------------------------------------------------------------------------------------- networks side by side
def raw_pixels(patch: int = 4) -> Callable:
    """The baseline without a network: frames (b, 3, h, w) -> the pixels of each patch, (b, n, 3 patch^2)."""
    from motionlab.models.image_encoder import patchify

    return lambda frames: patchify(frames, patch)


def probe_features(networks: dict[str, Callable], clips: Sequence, frames: Sequence[int] = (0, 8, 16), patch: int = 4,
                   test_share: float = 0.3, ridges: Sequence[float] = RIDGES,
                   background: float = 0.1) -> dict[str, dict[str, Probe]]:
    """Probe several networks on the same frames: {name: {"part": Probe, "colour": Probe}}.

    Args:
        networks: name -> callable from frames (b, 3, h, w) in [-1, 1] to patch features (b, n, d), such as
            `encoder.features`, that of an untrained encoder, and `raw_pixels()`.
        clips: rendered clips, in random order; the last `test_share` of them is the test set.
        frames: of each clip. background: share of the background patches that are used for training (they are most).
        ridges: strengths; each network gets its best one on the last quarter of the training clips.

    The colour is probed from the mean over a frame's patches.

    Raises:
        MotionLabError: too few clips, and as `linear_probe`.
    """
    import torch

    last = len(clips) - round(len(clips) * test_share)
    inner = last - last // 4
    if not 0 < inner < last < len(clips):
        raise MotionLabError(f"{len(clips)} clips do not divide into training, choice and test.",
                             fix="Give at least ten.")
    video = torch.from_numpy(np.stack([c.video()[list(frames)] for c in clips]))
    parts = np.stack([patch_parts(c, frames, patch) for c in clips])                       # (clips, f, n)
    colour = np.array([[list(COLOURS).index(c.scene.actors[0].colour)] * len(frames) for c in clips])
    thinned = (parts > 0) | (np.random.default_rng(0).random(parts.shape) < background)
    out = {}
    for name, network in networks.items():
        x = torch.stack([network(v).float() for v in video]).detach().cpu().numpy()        # (clips, f, n, d)
        if x.shape[:3] != parts.shape:
            raise MotionLabError(f"'{name}' gives {x.shape[2]} features a frame, for {parts.shape[2]} patches.",
                                 fix="Use its patch size.")
        out[name] = {"part": _chosen(x, parts, thinned, inner, last, ridges),
                     "colour": _chosen(x.mean(2), colour, None, inner, last, ridges)}
    return out


def probe_rows(found: dict[str, dict[str, Probe]], items: Sequence[str]) -> list[dict]:
    """Results of `probe_features` per test clip: rows {item, arm (network), seed, part_accuracy, colour_ok}.

    part_accuracy: mean over the limbs (and the background) that the clip shows of the share of patches read right.
    colour_ok: share of its frames whose colour is read right.

    Args:
        items: names of the test clips, the last ones of those that `probe_features` was given.
    """
    rows = []
    for name, probes in found.items():
        part, colour = ((p.guess == p.truth).reshape(len(items), -1) for p in (probes["part"], probes["colour"]))
        limbs = probes["part"].truth.reshape(len(items), -1)
        for item, right, limb, right_colour in zip(items, part, limbs, colour):
            by_limb = [right[limb == c].mean() for c in np.unique(limb)]
            rows.append({"item": str(item), "arm": name, "seed": 0, "part_accuracy": float(np.mean(by_limb)),
                         "colour_ok": float(right_colour.mean())})
    return rows


def _chosen(x, y, used, inner, last, ridges):
    """Probe with the strength that serves best between training clips, then trained on all of them."""
    def rows(first, stop, keep):
        inside = np.ones(y[first:stop].shape, bool) if keep is None else keep[first:stop]
        return x[first:stop][inside], y[first:stop][inside]

    best = max(ridges, key=lambda r: linear_probe(*rows(0, inner, used), *rows(inner, last, used), r).balanced_accuracy)
    return linear_probe(*rows(0, last, used), *rows(last, len(y), None), best)
