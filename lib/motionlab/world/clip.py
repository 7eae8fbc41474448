"""`Clip`: a rendered scene with its exact truth."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.world.geometry import apply, inverse


@dataclass(frozen=True)
class Clip:
    """A clip and everything that is true of it. The shapes used in the whole kit:

    - `frames` (f, h, w, 3) uint8 RGB; `video()` gives (f, c, h, w) float32 in [-1, 1] as the models take it.
    - flow (f-1, 2, h, w) float32, (dx, dy) pixels per frame; forward: from frame t to t+1, backward: from t+1 to t.
    - tracks (f, n, 2) float64 as (x, y) in pixels, with visibility (f, n) bool. A pixel's centre is at integer (x, y).
    - masks (f, h, w) bool. `ids` (f, h, w) int16: the topmost layer of each pixel, an index into `layers`.
    Models and metrics that take several clips add a leading batch axis b.
    """

    scene: object
    frames: np.ndarray
    ids: np.ndarray
    layers: tuple
    fps: float

    # ------------------------------------------------------------------ pictures
    def video(self) -> np.ndarray:
        """Frames as (f, c, h, w) float32 in [-1, 1]."""
        return np.moveaxis(self.frames, -1, 1).astype(np.float32) / 127.5 - 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.shape[1:3]

    @property
    def caption(self) -> str:
        """The sentence that describes the scene."""
        from motionlab.world.captions import caption

        return caption(self.scene)

    @property
    def attributes(self) -> dict:
        """The caption's parsed form (what a caption can say), see `captions.describe`."""
        from motionlab.world.captions import describe

        return describe(self.scene)

    # ------------------------------------------------------------------ flow
    @cached_property
    def flow(self) -> np.ndarray:
        """Forward flow (f-1, 2, h, w): frame t -> t+1, at every pixel of frame t."""
        return self.flow_between(range(len(self.ids)))

    @cached_property
    def flow_backward(self) -> np.ndarray:
        """Backward flow (f-1, 2, h, w): frame t+1 -> t, at every pixel of frame t+1."""
        return self.flow_between(range(len(self.ids))[::-1])[::-1]

    def flow_between(self, order: Sequence[int]) -> np.ndarray:
        """Exact flow (n-1, 2, h, w) from frame order[k] to frame order[k+1], at every pixel of the former, of n frame numbers."""
        h, w = self.ids.shape[1:]
        transforms = np.stack([layer.transform for layer in self.layers], axis=1)          # (f, layers, 3, 3)
        y, x = np.mgrid[:h, :w].astype(np.float64)
        out = np.empty((len(order) - 1, 2, h, w), dtype=np.float32)
        for t, (here, there) in enumerate(zip(order, order[1:])):
            m = (transforms[there] @ inverse(transforms[here]))[self.ids[here]]            # (h, w, 3, 3)
            out[t, 0] = m[..., 0, 0] * x + m[..., 0, 1] * y + m[..., 0, 2] - x
            out[t, 1] = m[..., 1, 0] * x + m[..., 1, 1] * y + m[..., 1, 2] - y
        return out

    @cached_property
    def flow_visible(self) -> np.ndarray:
        """(f-1, h, w) bool: the surface seen at this pixel of frame t is still seen, inside the frame, in t+1."""
        return self.visible_between(range(len(self.ids)))

    def visible_between(self, order: Sequence[int]) -> np.ndarray:
        """(n-1, h, w) bool: the surface seen at this pixel of frame order[k] is seen, inside the frame, in order[k+1] too."""
        grid = np.stack(np.meshgrid(*map(np.arange, self.ids.shape[:0:-1])), axis=-1).astype(np.float64)
        landing = grid + np.moveaxis(self.flow_between(order), 1, -1)
        return np.stack([(self.owner(to, there) == self.ids[here]) & self._inside(to)
                         for to, here, there in zip(landing, order, order[1:])])

    # ------------------------------------------------------------------ points
    def foreground_points(self, n: int, seed: int = 0, frame: int = 0) -> np.ndarray:
        """`n` query points (n, 2) on the subjects of one frame, drawn without repetition where there are enough pixels.

        Raises:
            MotionLabError: no subject is visible in that frame.
        """
        rows, cols = np.nonzero(self.object_mask(None)[frame])
        if len(rows) == 0:
            raise MotionLabError(f"No subject is visible in frame {frame}, so there are no points to follow.",
                                 fix="Choose another frame.")
        pick = np.random.default_rng(seed).choice(len(rows), size=n, replace=len(rows) < n)
        return np.stack([cols[pick], rows[pick]], axis=-1).astype(np.float64)

    def owner(self, points: np.ndarray, frame: int) -> np.ndarray:
        """Index of the topmost layer at pixel coordinates (..., 2) of one frame; also right outside the frame."""
        top = np.zeros(points.shape[:-1], dtype=np.int16)
        for index, layer in enumerate(self.layers):
            top[layer.distance(points, frame) < 0] = index
        return top

    def tracks(self, points: np.ndarray, query_frame: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Follow the surface points seen at `points` (n, 2) of `query_frame` through the clip, exactly.

        Returns:
            tracks (f, n, 2) in pixels and visibility (f, n).
        Raises:
            MotionLabError: points of another shape, NaN, outside the frame; query frame out of range.
        """
        points = self._checked(points, query_frame)
        owner, f = self.owner(points, query_frame), len(self.ids)
        out = np.empty((f, len(points), 2))
        for index in np.unique(owner):
            mine, layer = owner == index, self.layers[index]
            local = apply(inverse(layer.transform[query_frame]), points[mine])
            out[:, mine] = apply(layer.transform[:, None], local[None])
        out[query_frame] = points                                     # not merely up to rounding
        visible = np.stack([(self.owner(out[t], t) == owner) & self._inside(out[t]) for t in range(f)])
        return out, visible

    def _checked(self, points, query_frame):
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[-1] != 2:
            raise MotionLabError(f"Query points have shape {points.shape}; wanted (n, 2) as (x, y) in pixels.")
        if not 0 <= query_frame < len(self.ids):
            raise MotionLabError(f"Query frame {query_frame} is outside the clip of {len(self.ids)} frames.")
        bad = ~self._inside(points)
        if bad.any():
            h, w = self.size
            raise MotionLabError(f"{bad.sum()} of {len(points)} query points lie outside the {w}x{h} frame "
                                 f"(or are NaN), first: {points[bad][0]}.",
                                 fix="Give pixels: x in [0, width-1], y in [0, height-1].")
        return points

    def _inside(self, points):
        h, w = self.size
        with np.errstate(invalid="ignore"):
            return ((points[..., 0] >= -0.5) & (points[..., 0] <= w - 0.5)
                    & (points[..., 1] >= -0.5) & (points[..., 1] <= h - 0.5))

    # ------------------------------------------------------------------ masks, depth, pose
    @property
    def layer_objects(self) -> np.ndarray:
        """Actor index of each layer, -1 background, -2 occluder."""
        return np.array([layer.object for layer in self.layers])

    def object_mask(self, actor: int | None = 0) -> np.ndarray:
        """Visible pixels of one actor (None: of all), (f, h, w) bool."""
        owner = self.layer_objects[self.ids]
        return owner >= 0 if actor is None else owner == actor

    def limb_masks(self, actor: int = 0) -> dict[str, np.ndarray]:
        """Visible pixels of each limb of an actor: name -> (f, h, w) bool."""
        limbs = dict.fromkeys(layer.limb for layer in self.layers if layer.object == actor)
        return {limb: np.isin(self.ids, [i for i, layer in enumerate(self.layers)
                                         if layer.object == actor and layer.limb == limb]) for limb in limbs}

    @property
    def depth_order(self) -> list[str]:
        """Names of the layers from back to front, as "actor/part", "background/ground" or "occluder/shaft"."""
        prefix = {-1: "background", -2: "occluder"}
        return [f"{prefix.get(layer.object, layer.object)}/{layer.name}" for layer in self.layers]

    def pose(self, actor: int = 0) -> dict[str, np.ndarray]:
        """Of each part, joint and centre (f, 2) in pixels: name -> {"joint", "centre"}; hidden parts are absent."""
        out = {}
        for layer in self.layers:
            if layer.object == actor:
                centre = np.asarray(layer.shape.centre(), dtype=np.float64)
                out[layer.name] = {"joint": layer.transform[:, :2, 2], "centre": apply(layer.transform, centre)}
        return out
