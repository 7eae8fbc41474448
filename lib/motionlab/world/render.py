"""Painter's renderer: every layer is a signed distance shape under one affine map per frame, so its motion is exact.

Sky, hills and ground are layers too (with parallax under a panning camera). A pixel belongs to the topmost layer that
contains its centre; its flow is that layer's map from this frame to the next. Nothing is estimated.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.world.clip import Clip
from motionlab.world.faults import faulty_pose
from motionlab.world.geometry import Box, Ridge, affine, apply, inverse, length_scale
from motionlab.world.motions import GROUND
from motionlab.world.palette import PLACES, shade
from motionlab.world.puppets import species
from motionlab.world.scenes import Actor, Scene

MIN_SIZE = 32
MAX_PIXELS = 64_000_000  # over all frames; rendering and its truth take some 40 bytes for each
PARALLAX = {"sky": 0.15, "hills": 0.45, "ground": 1.0}


@dataclass(frozen=True)
class Layer:
    """One painted shape.

    Attributes:
        object: index of the actor, -1 for background, -2 for an occluder. limb: group of parts that share a shade.
        transform: local coordinates -> pixels, (f, 3, 3).
        paint: RGB (3,) in [0, 1], or a function of local (x, y) -> (..., 3).
    """

    name: str
    object: int
    limb: str
    shape: object | None
    transform: np.ndarray
    paint: np.ndarray | Callable

    def distance(self, points: np.ndarray, frame: int) -> np.ndarray:
        """Signed distance in pixels of pixel coordinates (..., 2) in one frame; negative inside."""
        if self.shape is None:
            return np.full(points.shape[:-1], -np.inf)
        local = apply(inverse(self.transform[frame]), points)
        return self.shape.distance(local[..., 0], local[..., 1]) * length_scale(self.transform[frame])


def render(scene: Scene, size: int | tuple[int, int] = 48, frames: int = 17, fps: float = 16.0) -> Clip:
    """Render a scene to a `Clip` of video and exact truth.

    Args:
        size: height and width in pixels, or one number for a square; at least 32.
        frames: number of frames, >= 1. fps: frames per second of scene time.

    Raises:
        MotionLabError: size below the minimum, no frames, fps not positive, more than `MAX_PIXELS` in all.
    """
    h, w = (size, size) if np.isscalar(size) else size
    _check(h, w, frames, fps)
    times = np.arange(frames) / fps
    layers = build_layers(scene, times, int(h), int(w))
    video, ids = _paint(layers, frames, int(h), int(w))
    return Clip(scene=scene, frames=video, ids=ids, layers=tuple(layers), fps=float(fps))


def _check(h, w, frames, fps):
    if int(h) < MIN_SIZE or int(w) < MIN_SIZE:
        raise MotionLabError(f"Size {h}x{w} is below the minimum of {MIN_SIZE} pixels: limbs would vanish.",
                             fix=f"Ask for at least {MIN_SIZE}.")
    if frames < 1 or fps <= 0:
        raise MotionLabError("A clip needs at least one frame and a positive frame rate, "
                             f"not frames={frames}, fps={fps}.")
    if frames * int(h) * int(w) > MAX_PIXELS:
        raise MotionLabError(f"{frames} frames of {h}x{w} are {frames * int(h) * int(w):,} pixels.",
                             fix=f"Clips are rendered up to {MAX_PIXELS:,} pixels over all frames.")


# ---------------------------------------------------------------------------------------------- layers
def build_layers(scene: Scene, times: np.ndarray, h: int, w: int) -> list[Layer]:
    """All layers of a scene, back to front, for frames at `times` (f,) seconds."""
    view = {name: _view(scene, times, h, w, k) for name, k in PARALLAX.items()}
    layers = _background(scene, view)
    for index, actor in enumerate(scene.actors):
        layers += _actor_layers(actor, index, times, scene.duration, view["ground"])
    for number, pillar in enumerate(scene.occluders):
        layers += _pillar(pillar, number, view["ground"])
    return layers


def _view(scene, times, h, w, parallax):
    """Scene coordinates -> pixels under pan, zoom and parallax; pixel centres at integers."""
    centre = np.array([0.5 * w / h, 0.5])
    offset = np.outer(times - scene.duration / 2, scene.camera.pan) * parallax
    zoom = np.exp(scene.camera.zoom * (times - scene.duration / 2))
    return affine(h * centre[0] - 0.5, h * centre[1] - 0.5, 0.0, h * zoom, h * zoom) @ affine(
        -centre[0] - offset[:, 0], -centre[1] - offset[:, 1])


def _actor_layers(actor: Actor, index: int, times, duration, view) -> list[Layer]:
    anatomy = species(actor.species)
    transforms = place_parts(actor, times, duration)
    return [Layer(p.name, index, p.group, p.shape, view @ transforms[p.name], shade(actor.colour, p.slot))
            for p in anatomy.parts if p.name not in actor.hide and p.group not in actor.hide]


def place_parts(actor: Actor, times: np.ndarray, duration: float) -> dict[str, np.ndarray]:
    """Forward kinematics: part name -> map from its own frame to scene coordinates, (f, 3, 3)."""
    posed, anatomy = faulty_pose(actor, times, duration), species(actor.species)
    relative = _chain(anatomy, posed.joints, len(times))
    direction = 1.0 if actor.heading == "right" else -1.0
    y = posed.y - _lowest_foot(anatomy, relative) * actor.size + GROUND if posed.grounded else posed.y
    root = (affine(actor.x + direction * posed.x, y) @ affine(sx=direction)
            @ affine(sx=posed.sx, sy=posed.sy) @ affine(angle=posed.angle, sx=actor.size, sy=actor.size))
    return {name: root @ transform for name, transform in relative.items()}


def _chain(anatomy, joints, f):
    """Part name -> map from its frame to the root frame, resolved parent first."""
    done = {"": np.broadcast_to(np.eye(3), (f, 3, 3))}
    parts = {p.name: p for p in anatomy.parts}

    def resolve(name):
        if name not in done:
            p = parts[name]
            angle = np.broadcast_to(p.angle + np.asarray(joints.get(name, 0.0)), (f,))
            done[name] = resolve(p.parent) @ affine(p.at[0], p.at[1], angle)
        return done[name]

    for name in parts:
        resolve(name)
    done.pop("")
    return done


def _lowest_foot(anatomy, relative):
    """Lowest point of any foot below the root, (f,)."""
    lows = []
    for name in anatomy.feet:
        shape = anatomy.part(name).shape
        for end, radius in (((0.0, 0.0), shape.r0), (shape.end, shape.r1)):
            lows.append(apply(relative[name], np.array(end))[..., 1] + radius)
    return np.max(lows, axis=0)


# ---------------------------------------------------------------------------------------------- background
def _background(scene: Scene, view) -> list[Layer]:
    place, x0 = PLACES[scene.place], scene.scroll
    clutter = _clutter(scene)
    sky = Layer("sky", -1, "sky", None, view["sky"], clutter(_sky_paint(place, x0)))
    hills = Layer("hills", -1, "hills", Ridge(0.66, ((0.055, 0.90, 7 * x0), (0.020, 0.34, 3 * x0))), view["hills"],
                  clutter(lambda x, y: np.broadcast_to(np.array(place.hills), x.shape + (3,))))
    ground = Layer("ground", -1, "ground", Ridge(0.80, ((0.006, 0.70, 5 * x0),)), view["ground"],
                   clutter(_ground_paint(place, x0)))
    return [sky, hills, ground]


def _mix(a, b, s):
    return a + (np.asarray(b) - a) * s[..., None]


def _disc(x, y, cx, cy, rx, ry, soft=0.02):
    """1 inside an ellipse, 0 outside, with a soft edge of width `soft`."""
    return np.clip(0.5 + (1 - np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)) * min(rx, ry) / soft, 0, 1)


def _sky_paint(place, x0):
    top, low = (np.array(c) for c in place.sky)
    light = np.minimum(low + 0.10, 1.0)

    def paint(x, y):
        rgb = _mix(np.broadcast_to(top, x.shape + (3,)), low, np.clip(y / 0.65, 0, 1))
        tile = np.mod(x + x0, 1.3)
        for cx, cy, r in ((0.25, 0.16, 0.10), (0.36, 0.18, 0.07), (0.92, 0.30, 0.085), (1.02, 0.28, 0.06)):
            rgb = _mix(rgb, light, _disc(tile, y, cx, cy, r, 0.55 * r))
        return rgb
    return paint


def _ground_paint(place, x0):
    one, two = (np.array(c) for c in place.ground)

    def paint(x, y):
        stripe = np.clip(0.5 + 4.0 * np.sin(2 * np.pi * (x + x0 + 0.35 * (y - 0.8)) / 0.36), 0, 1)
        return _mix(np.broadcast_to(one, x.shape + (3,)), two, stripe)
    return paint


def background(place: str, scroll: float, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """A place without subjects or clutter: picture (h, w, 3) in [0, 1] and band of each pixel (h, w), 0 sky, 1 hills, 2 ground."""
    return _still_background(Scene(place=place, scroll=scroll), h, w)


def with_clutter(scene: Scene, picture: np.ndarray) -> np.ndarray:
    """What a scene's clutter makes of another background (h, w, 3) in [0, 1]; the discs lie where that scene shows them at its start."""
    clutter = _clutter(scene)
    return _still_background(replace(scene, clutter=0.0), *picture.shape[:2], paint=lambda: clutter(lambda *_: picture))[0]


def _still_background(scene, h, w, paint=None):
    """As it is at time 0; `paint` makes another paint for each layer in turn."""
    layers = _background(scene, {name: _view(scene, np.zeros(1), h, w, k) for name, k in PARALLAX.items()})
    layers = layers if paint is None else [replace(layer, paint=paint()) for layer in layers]
    canvas, bands = np.zeros((1, h, w, 3), dtype=np.float32), np.zeros((1, h, w), dtype=np.int16)
    for index, layer in enumerate(layers):
        _paint_layer(canvas, bands, layer, index, [0])
    return canvas[0], bands[0]


def _clutter(scene):
    """Wraps paint functions with `60 clutter` random discs each, other ones every time, drawn from the scene's texture seed."""
    if scene.clutter <= 0:
        return lambda paint: paint
    rng = np.random.default_rng(scene.texture_seed)

    def wrap(paint):
        n = int(60 * scene.clutter)
        spots = np.column_stack([rng.uniform(-0.6, 1.9, n), rng.uniform(-0.1, 1.1, n), rng.uniform(0.02, 0.07, n)])
        colours = rng.uniform(0.1, 0.95, (n, 3))

        def busy(x, y):
            rgb = paint(x, y)
            for (cx, cy, r), colour in zip(spots, colours):
                rgb = _mix(rgb, colour, 0.55 * scene.clutter * _disc(x, y, cx, cy, r, r))
            return rgb
        return busy
    return wrap


def _pillar(pillar, number, view):
    at = view @ affine(pillar.x, 0.5)
    stone, cap, moss = np.array([0.56, 0.55, 0.60]), np.array([0.46, 0.45, 0.52]), np.array([0.66, 0.65, 0.69])
    half = pillar.width / 2
    parts = (("shaft", Box(half, 0.48, (0, 0.0)), stone), ("light", Box(0.18 * half, 0.48, (-0.5 * half, 0.0)), moss),
             ("base", Box(half * 1.18, 0.045, (0, 0.445), 0.012), cap),
             ("head", Box(half * 1.18, 0.045, (0, -0.445), 0.012), cap))
    return [Layer(name, -2, f"pillar{number}", shape, at, paint) for name, shape, paint in parts]


# ---------------------------------------------------------------------------------------------- painting
def _paint(layers, f, h, w):
    """Composite back to front: video uint8 (f, h, w, 3) and the index of the topmost layer (f, h, w) int16."""
    canvas = np.zeros((f, h, w, 3), dtype=np.float32)
    ids = np.zeros((f, h, w), dtype=np.int16)
    for index, layer in enumerate(layers):
        if layer.object == -1 and np.ptp(layer.transform, axis=0).max() == 0:
            _paint_layer(canvas, ids, layer, index, [0])                # a still background is painted once
            canvas[1:], ids[1:] = canvas[:1], ids[:1]
        else:
            _paint_layer(canvas, ids, layer, index, range(f))
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8), ids


def _paint_layer(canvas, ids, layer, index, frames):
    h, w = ids.shape[1:]
    scale, inverted = length_scale(layer.transform), inverse(layer.transform)
    for t in frames:
        rows, cols = _bounds(layer, t, scale[t], h, w)
        if rows[0] >= rows[1] or cols[0] >= cols[1]:
            continue
        y, x = np.arange(*rows, dtype=np.float64)[:, None], np.arange(*cols, dtype=np.float64)[None, :]
        m = inverted[t]
        u, v = m[0, 0] * x + (m[0, 1] * y + m[0, 2]), m[1, 0] * x + (m[1, 1] * y + m[1, 2])
        distance = np.full(u.shape, -1.0) if layer.shape is None else layer.shape.distance(u, v) * scale[t]
        colour = layer.paint(u, v) if callable(layer.paint) else layer.paint
        alpha = np.clip(0.5 - distance, 0, 1)[..., None].astype(np.float32)
        window = canvas[t, rows[0]:rows[1], cols[0]:cols[1]]
        window += alpha * (np.asarray(colour, dtype=np.float32) - window)
        ids[t, rows[0]:rows[1], cols[0]:cols[1]][distance < 0] = index


def _bounds(layer, t, scale, h, w):
    """Pixel rows and columns that a layer can touch in frame t."""
    reach = np.inf if layer.shape is None else layer.shape.reach()
    if not np.isfinite(reach):
        return (0, h), (0, w)
    m = layer.transform[t]
    r = reach * max(np.hypot(m[0, 0], m[1, 0]), np.hypot(m[0, 1], m[1, 1])) + 1.0
    x, y = m[0, 2], m[1, 2]
    return ((max(0, int(np.floor(y - r))), min(h, int(np.ceil(y + r)) + 1)),
            (max(0, int(np.floor(x - r))), min(w, int(np.ceil(x + r)) + 1)))
