"""What all detectors look at: one reading of a clip, shared."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.metrics.palette import CUTOFF, LimbReading, background_colours, limb_table, read_limbs
from motionlab.world.captions import parse_caption
from motionlab.world.palette import shade

MIN_FRAMES = 6         # fewer readable frames give no gait, no course and no heading
SUBJECT = 0.25         # a frame shows the subject when its area is this share of the median
_PILLAR_COLOURS = 3    # the last rows of `background_colours`
_CAMERA_PRIOR = (1e2, 1e4)     # grey levels squared: keeps a ground without texture still
_LONG = ("snake",)     # as long as the frame is wide, so always at an edge


@dataclass(frozen=True)
class Evidence:
    """What all detectors look at; lengths in pixels.

    Attributes:
        reading: limbs of the subject asked for. actor: {species, colour, motion, heading}.
        shades: (f, h, w) int, index of the subject's shade that a pixel is nearest to, -1 off the subject.
        pillar: (f, w) bool, columns of the pillar; all False if none is asked for.
        shift, zoom: (f,) horizontal shift of the ground and log scale of the picture since the first frame.
        change: (f-1,) rms pixels that the subject's edges move from frame to frame, the camera's motion removed; NaN
            where no subject is seen.
    """

    reading: LimbReading
    actor: dict
    shades: np.ndarray
    pillar: np.ndarray
    shift: np.ndarray
    zoom: np.ndarray
    change: np.ndarray
    fps: float

    @property
    def unit(self) -> float:
        """Pixels of this picture per pixel at 48 px height."""
        return self.reading.size[0] / 48

    @property
    def mask(self) -> np.ndarray:
        """(f, h, w) bool: pixels of the subject."""
        return self.shades >= 0

    @cached_property
    def solid(self) -> np.ndarray:
        """`shades` at least two pixels wide: on blurred clips an edge between two shades looks like a third."""
        import cv2

        kernel, out = np.ones((2, 2), np.uint8), np.full_like(self.shades, -1)
        for t, k in np.ndindex(len(out), len(shades_of(self.reading.species))):
            out[t][cv2.morphologyEx((self.shades[t] == k).astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0] = k
        return out

    def at(self, limb: str) -> np.ndarray:
        """Centre of a limb, (f, 2); NaN where absent."""
        return self.reading.centres[:, self.reading.names.index(limb)]

    @cached_property
    def visible(self) -> np.ndarray:
        """(f,) bool: the subject is there, with at least a quarter of its usual area."""
        area = self.reading.area.sum(1)
        return area > SUBJECT * np.median(area[area > 0]) if (area > 0).any() else np.zeros(len(area), bool)

    @cached_property
    def clear(self) -> np.ndarray:
        """(f,) bool: no part of the subject is at the left or right edge; never where a pillar may hide some of it."""
        if self.actor["motion"] == "pass_behind":
            return np.zeros(len(self.shades), bool)
        at_edge = self.mask[:, :, [0, -1]].any((1, 2))
        return ~at_edge | (self.actor["species"] in _LONG)

    @property
    def whole(self) -> np.ndarray:
        """(f,) bool: visible and clear."""
        return self.visible & self.clear

    @cached_property
    def middle(self) -> np.ndarray:
        """Area-weighted centre of the subject, (f, 2); NaN where nothing is seen."""
        area = self.reading.area[..., None]
        with np.errstate(invalid="ignore"):
            return (np.nan_to_num(self.reading.centres) * area).sum(1) / area.sum(1)


def observe(frames: np.ndarray, asked: dict | str, fps: float = 16.0) -> Evidence:
    """Read a clip once for all detectors; arguments and errors as `detect_failures`."""
    parsed = parse_caption(asked) if isinstance(asked, str) else asked
    if len(parsed["actors"]) != 1:
        raise MotionLabError(f"The caption asks for {len(parsed['actors'])} subjects; failures are read of one.",
                             fix="Use single-actor scenes: random_scene(seed).")
    actor = parsed["actors"][0]
    reading = read_limbs(frames, actor["species"], actor["colour"], parsed["place"])
    shades = _nearest_shade(frames, reading)
    pillar = _pillar_columns(frames, reading) if actor["motion"] == "pass_behind" else np.zeros(shades.shape[::2], bool)
    camera, change = _motion(frames, shades >= 0, pillar)
    return Evidence(reading, actor, shades, pillar, *np.cumsum(camera, axis=0).T, change, fps)


def _nearest_shade(frames, reading):
    mine = _distances(frames, [255.0 * shade(reading.colour, s) for s in shades_of(reading.species)])
    least = mine.min(0)
    off = (least > CUTOFF) | (least > _distances(frames, background_colours(reading.place)).min(0))
    return np.where(off, -1, mine.argmin(0))


@lru_cache(maxsize=None)
def shades_of(species: str) -> tuple[str, ...]:
    """Names of the shades that a species shows, in drawing order; `Evidence.shades` counts by them."""
    return tuple(dict.fromkeys(s for limb in limb_table(species) for s in limb.slots))


def _distances(frames, colours):
    """RGB distance of each pixel to each of `colours` (n, 3): (n, f, h, w)."""
    rgb, known = frames.reshape(-1, 3).astype(np.float32), np.asarray(colours, np.float32)
    squared = (known ** 2).sum(1)[:, None] - 2 * known @ rgb.T + (rgb ** 2).sum(1)
    return np.sqrt(np.maximum(squared, 0)).reshape(-1, *frames.shape[:-1])


def _pillar_columns(frames, reading):
    """Columns in which most of the picture above every subject shows the pillar's colours, (f, w) bool."""
    h = reading.size[0]
    known = background_colours(reading.place)
    sky = frames[:, int(0.1 * h):int(0.3 * h)]
    stone, rest = (_distances(sky, k).min(0) for k in (known[-_PILLAR_COLOURS:], known[:-_PILLAR_COLOURS]))
    return ((stone < CUTOFF) & (stone < rest)).mean(1) > 0.5


def _motion(frames, mask, pillar):
    """Steps of the camera (f, 2) and what moves on the subject besides (f-1,), by gradients.

    A camera step is d = (a + s (x - cx), s (y - cy)): least squares of I[t] - I[t+1] = grad I . d on the ground,
    without the subject, the pillar and their edges. What of the change around the subject d does not explain, over the
    rms gradient there, is a length.
    """
    import cv2

    f, h, w = mask.shape
    grey = np.stack([cv2.GaussianBlur(frame.mean(-1, dtype=np.float32), (0, 0), 1.0) for frame in frames])
    near, edge = (np.stack([cv2.dilate(m.astype(np.uint8), np.ones((k, k), np.uint8)) for m in solid]) > 0
                  for solid, k in ((mask, 3), (mask | pillar[:, None], 7)))
    y, x = np.mgrid[:h, :w].astype(np.float32)
    low, camera, change = y > 0.79 * h, np.zeros((f, 2)), np.full(f - 1, np.nan)
    for t in range(f - 1):
        gy, gx = np.gradient((grey[t] + grey[t + 1]) / 2)
        rows = np.stack([gx, gx * (x - (w - 1) / 2) + gy * (y - (h - 1) / 2)], -1)
        ground, subject, seen = low & ~edge[t] & ~edge[t + 1], near[t] | near[t + 1], grey[t] - grey[t + 1]
        a = rows[ground]
        camera[t + 1] = np.linalg.solve(a.T @ a + np.diag(_CAMERA_PRIOR), a.T @ seen[ground])
        if subject.any():
            left = seen - rows @ camera[t + 1]
            change[t] = np.sqrt((left[subject] ** 2).sum() / ((gx ** 2 + gy ** 2)[subject].sum() + 1e-6))
    return camera, change
