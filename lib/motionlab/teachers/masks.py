"""Masks of an object through a clip, with what the tracker remembers: (video, prompt) -> masks, object scores, memory features.

    tracker = load_tracker("sam2", checkpoint=shipped("sam2"))               # loaded once: "exact", "sam2" or "sam2_transformers"
    seen = tracker.track([video, ...], [Prompt(box=(12, 8, 60, 90)), ...])   # one `Tracked` a clip, from the prompt's end to the other
    both = both_ways([video, ...], [prompt, ...], tracker)                   # one `BothWays` a clip: forward, backward, alpha

A video is uint8 (f, h, w, 3), f >= 2, all of a call of one shape; "exact" takes clips of the world in their place. Whatever the
direction, results lie in the order of time:

    masks (f, h, w) bool; scores (f,) float32, logits, above 0: the object is in view; features (f, c, g, g) float32

Memory features are what the mask decoder reads of each frame: SAM2's image features (stride 16) after its attention to the memory of
frames before (method card sam2videox, 2.4, A1). The prompted frame has no memory: image features + `no_mem_embed`, under a box,
points and a mask alike (2.6). SAM 2.1: c = 256, g = 64; the small one that is shipped: its config's `d_model`, g = 12.
"exact" says what an ideal tracker would: features of two places are alike as far as they show the same piece of surface.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.teachers.flow import check_world_clip
from motionlab.teachers.prompts import Prompt, box_of, check_prompt, world_mask
from motionlab.video import check_frames

SCORE = 10.0                     # of an object in view: SAM2's own under a mask prompt
LEAST_AREA = 0.005               # of the frame: a smaller forward mask is no prompt for the way back (card 2.6)
CHANNELS, SURFACE = 128, 0.05    # of exact features; over how many frame heights of surface they stay alike


@dataclass(frozen=True)
class Tracked:
    """One pass over a clip: masks (f, h, w) bool, scores (f,) float32, features (f, c, g, g) float32, in the order of time."""

    masks: np.ndarray
    scores: np.ndarray
    features: np.ndarray

    def seen(self) -> np.ndarray:
        """(f,) bool: the object is in view, with a mask."""
        return (self.scores > 0) & self.masks.any((1, 2))


class Tracker(Protocol):
    """What all backends give."""

    def track(self, videos: Sequence, prompts: Sequence[Prompt]) -> list[Tracked]:
        """One pass a clip, forwards from a prompt in the first frame, backwards from one in the last.

        Raises:
            MotionLabError: clips of fewer than two frames or of several shapes, a prompt that `check_prompt` refuses.
        """


@dataclass(frozen=True)
class BothWays:
    """A clip tracked from both ends.

    Attributes:
        forward, backward: None for a direction that could not be prompted.
        alpha: (f - 1,) float32, the forward pass's share of each pair of frames: 0.5; 1 where the backward pass is invalid, 0 where
            the forward one is; of a pair that `skip_prompt_pairs` takes from one direction alone, 0 or 1.
        lost: "", "forward", "backward": no valid pass that way; "everywhere": the object is seen in no frame but the prompted one.
    """

    forward: Tracked | None
    backward: Tracked | None
    alpha: np.ndarray
    lost: str = ""

    def features(self) -> np.ndarray:
        """(2, f, c, g, g), forward and backward; a direction that is not there repeats the other (`alpha` does not count it)."""
        one, other = self.forward or self.backward, self.backward or self.forward
        return np.stack([one.features, other.features])


def load_tracker(teacher: str = "auto", **options) -> Tracker:
    """A tracker by the name of its backend, for whoever tracks many clips with it.

    Args:
        teacher: "exact", the world's own truth; "sam2", the package; "sam2_transformers", the same network and weights in
            transformers; "auto", "sam2" where it is installed, else "sam2_transformers".
        options: "exact": grid (12). The others: checkpoint, a small SAM2 of `make pretrain` (.safetensors), an official SAM 2.1 (.pt)
            or a folder of transformers; device ("cpu"); batch (16), clips at once; config and seed in place of a checkpoint: an untrained
            network.

    Raises:
        MotionLabError: unknown teacher or option; "sam2" is not installed; no checkpoint, or one that does not fit.
    """
    from motionlab.teachers.flow import call_teacher
    from motionlab.teachers.sam2 import load_sam2, load_transformers

    backends = {"exact": ExactTracker, "sam2": load_sam2, "sam2_transformers": load_transformers}
    backends["auto"] = load_sam2 if find_spec("sam2") else load_transformers
    return call_teacher(backends, teacher, options)


def masks(video, prompt: Prompt, teacher: str | Tracker = "auto", **options) -> Tracked:
    """One clip's masks, scores and memory features; teacher and options as `load_tracker`, or a tracker that it gave.

    Raises:
        MotionLabError: as `load_tracker` and `Tracker.track`; the object is seen in no frame but the prompted one.
    """
    tracker = load_tracker(teacher, **options) if isinstance(teacher, str) else teacher
    found, = tracker.track([video], [prompt])
    if _lost(found, prompt):
        raise MotionLabError("The object is lost in every frame after the prompt.",
                             fix="Show it more clearly (a box around all of it, or a mask), or choose another object or clip.")
    return found


def _lost(tracked, prompt) -> bool:
    return not np.delete(tracked.seen(), prompt.frame).any()


# ---------------------------------------------------------------------------------------------- both directions
def both_ways(videos: Sequence, prompts: Sequence[Prompt | None], tracker: Tracker, last: Sequence[Prompt | None] | None = None,
              detect: Callable[[np.ndarray], Prompt | None] | None = None, skip_prompt_pairs: bool = False) -> list[BothWays]:
    """Clips tracked forwards from their first frame and backwards from their last (card 2.6).

    The backward pass's prompt is `last`, where given. Else the box around the forward pass's mask in the last frame, where its score
    is above 0 and it covers more than 0.5 % of the frame, which keeps the object the same; else what `detect` finds in that frame;
    else there is no backward pass.

    Args:
        prompts: one a clip, in frame 0; None: no forward pass. last: the same in frame -1; None in it: no backward pass.
        detect: last frame uint8 (h, w, 3) -> a prompt, or None.
        skip_prompt_pairs: the pair next to a pass's prompt counts from the other pass alone, since the prompted frame's features
            have no memory in them.

    Raises:
        MotionLabError: as `Tracker.track`; a clip with no prompt at either end.
    """
    forward = _pass(tracker, videos, prompts)
    if last is None:
        last = [_returning(video, seen, detect) for video, seen in zip(videos, forward)]
    for i, pair in enumerate(zip(prompts, last)):
        if pair == (None, None):
            raise MotionLabError(f"Clip {i} has a prompt neither in its first nor in its last frame.", fix="Leave it out.")
    backward = _pass(tracker, videos, [prompt and replace(prompt, frame=-1) for prompt in last])
    return [_joined(*pair, skip_prompt_pairs) for pair in zip(forward, backward)]


def _pass(tracker, videos, prompts) -> list[Tracked | None]:
    asked = [i for i, prompt in enumerate(prompts) if prompt is not None]
    found = tracker.track([videos[i] for i in asked], [prompts[i] for i in asked]) if asked else []
    out: list[Tracked | None] = [None] * len(prompts)
    for i, one in zip(asked, found):
        out[i] = one
    return out


def _returning(video, seen, detect):
    if seen is not None and seen.scores[-1] > 0 and seen.masks[-1].mean() > LEAST_AREA and box_of(seen.masks[-1]):
        return Prompt(box=box_of(seen.masks[-1]), frame=-1)
    return detect(check_frames(getattr(video, "frames", video))[-1]) if detect else None


def _joined(forward, backward, skip) -> BothWays:
    alpha = np.full(len((forward or backward).scores) - 1, 0.5 if forward and backward else float(forward is not None), np.float32)
    if skip and forward and backward and len(alpha) > 1:
        alpha[0], alpha[-1] = 0, 1
    seen = [one and bool(np.delete(one.seen(), end).any()) for one, end in ((forward, 0), (backward, -1))]
    lost = "everywhere" if not any(seen) else "forward" if forward is None else "backward" if backward is None else ""
    return BothWays(forward, backward, alpha, lost)


# ---------------------------------------------------------------------------------------------- the world's truth
class ExactTracker:
    """What is true of a world clip; its features do not depend on direction or object.

    A feature is the mean over a cell's pixels of random Fourier features of the piece of surface that each shows (its layer, and
    where on it): two cells' product is the share of surface that they have in common, blurred over `SURFACE` frame heights.

    Args:
        grid: cells a side.
    """

    def __init__(self, grid: int = 12):
        if grid < 1:
            raise MotionLabError(f"The exact tracker's grid is {grid}.", fix="Give 1 or more cells a side.")
        self.grid = grid

    def track(self, videos: Sequence, prompts: Sequence[Prompt]) -> list[Tracked]:
        """As `Tracker.track`, of clips of the world whose sides are whole multiples of the grid."""
        return [self._one(clip, prompt) for clip, prompt in zip(videos, prompts, strict=True)]

    def _one(self, clip, prompt):
        check_world_clip(clip)
        prompt = check_prompt(prompt, len(clip.frames), *clip.size, "The exact tracker")
        found = world_mask(clip, prompt.object or _covered(clip, prompt))
        scores = np.where(found.any((1, 2)), SCORE, -SCORE).astype(np.float32)
        return Tracked(found, scores, surface_features(clip, self.grid))


def _covered(clip, prompt) -> str:
    """The actor of which a prompt covers most."""
    where = np.zeros(clip.size, bool)
    if prompt.kind == "box":
        x0, y0, x1, y1 = (int(round(x)) for x in prompt.box)
        where[y0:y1 + 1, x0:x1 + 1] = True
    elif prompt.kind == "points":
        x, y = np.round(prompt.points[prompt.labels == 1].T).astype(int)
        where[y.clip(0, clip.size[0] - 1), x.clip(0, clip.size[1] - 1)] = True
    else:
        where = prompt.mask
    owners = clip.layer_objects[clip.ids[prompt.frame]][where]
    if not (owners >= 0).any():
        raise MotionLabError("The prompt covers no actor of the clip.", fix="Show one: prompts.world_prompt(clip) does.")
    return str(np.bincount(owners[owners >= 0]).argmax())


def surface_features(clip, grid: int = 12) -> np.ndarray:
    """Features (f, `CHANNELS`, grid, grid) of which piece of surface each cell of a world clip shows; see `ExactTracker`.

    Raises:
        MotionLabError: a frame that is no whole number of cells.
    """
    from motionlab.world.geometry import apply, inverse

    f, h, w = clip.ids.shape
    if h % grid or w % grid:
        raise MotionLabError(f"Frames of {h}x{w} do not divide into {grid}x{grid} cells.", fix="Render at a multiple of the grid.")
    y, x = np.mgrid[:h, :w].astype(np.float64)
    pixels, out = np.stack([x, y], -1), np.zeros((f, h, w, CHANNELS), np.float32)
    for index, layer in enumerate(clip.layers):
        draws = np.random.default_rng([20262, index])                  # a layer's own waves: two layers are unlike
        waves, phases = draws.normal(size=(2, CHANNELS)) / SURFACE, draws.uniform(0, 2 * np.pi, CHANNELS)
        for t in range(f):
            mine = clip.ids[t] == index
            if mine.any():
                out[t][mine] = np.cos(apply(inverse(layer.transform[t]), pixels[mine]) @ waves + phases)
    cells = out.reshape(f, grid, h // grid, grid, w // grid, CHANNELS).mean((2, 4))
    return np.moveaxis(cells, -1, 1) * np.float32(np.sqrt(2 / CHANNELS))
