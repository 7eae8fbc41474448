"""Scenes that are hard on a tracker of masks, and a bank of rendered clips with the exact label of every pixel.

Kinds: "plain", one actor as all trainings see it; "pillar", one that travels behind a pillar; "pair", two of one species and colour,
side by side or crossing each other's way.
"""
from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import explained, holds_array, new_array, read_json, write_atomic
from motionlab.core.locks import turn
from motionlab.core.processes import pool
from motionlab.data.bank import CHUNK, BankConfig, bank_seeds, training_scene
from motionlab.world import random_scene, render
from motionlab.world.motions import MOTIONS
from motionlab.world.puppets import SPECIES
from motionlab.world.scenes import Occluder, Scene

KINDS = ("plain", "pillar", "pair")
SHARES = (0.5, 0.25, 0.25)
TRAVELS = 0.3            # frame heights per second: slower ones never come out from behind a pillar
LIMBS = 16               # labels per actor


def tracked_scene(seed: int, kind: str | None = None) -> Scene:
    """The scene of a seed, of a kind or (None) of one drawn with `SHARES`.

    Raises:
        MotionLabError: an unknown kind.
    """
    rng = np.random.default_rng([seed, 20263])
    drawn = str(rng.choice(KINDS, p=SHARES))
    kind = drawn if kind is None else one_of(kind, KINDS, "kind of tracked scene")
    return {"plain": lambda *_: training_scene(seed), "pillar": _behind, "pair": _two}[kind](seed, rng)


def _behind(seed, rng):
    pairs = [(name, motion) for name, one in SPECIES.items() for motion in one.motions if MOTIONS[motion].speed >= TRAVELS]
    subject = str(rng.choice(sorted({name for name, _ in pairs})))
    scene = random_scene(seed, species_name=subject, motion=str(rng.choice([m for name, m in pairs if name == subject])))
    pillar = Occluder(x=float(scene.actors[0].x + rng.uniform(-0.08, 0.08)), width=float(rng.uniform(0.20, 0.30)))
    return dataclasses.replace(scene, occluders=(pillar,))


def _two(seed, rng):
    scene = random_scene(seed, actors=2, species_name=str(rng.choice(list(SPECIES))))
    scene = scene.with_actor(1, colour=scene.actors[0].colour)
    if rng.random() < 0.5:
        return scene
    sides = ("right", "left") if rng.random() < 0.5 else ("left", "right")       # both about the middle, against each other
    for k, side in enumerate(sides):
        scene = scene.with_actor(k, heading=side, x=float(0.5 + rng.uniform(-0.05, 0.05)))
    return scene


def labels_of_pixels(clip) -> np.ndarray:
    """(f, h, w) uint8: 0 where no actor is seen, else 1 + limb + `LIMBS` x actor, limbs in the order of `Clip.limb_masks`."""
    table, limbs = np.zeros(len(clip.layers), np.uint8), {}
    for index, layer in enumerate(clip.layers):
        if layer.object >= 0:
            number = limbs.setdefault((layer.object, layer.limb), sum(owner == layer.object for owner, _ in limbs))
            table[index] = 1 + number + LIMBS * layer.object
    return table[clip.ids]


class TrackedBank:
    """frames (n, f, h, w, 3) and labels (n, f, h, w), uint8, memory-mapped."""

    def __init__(self, folder: Path):
        self.frames, self.labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("frames", "labels"))

    def __len__(self) -> int:
        return len(self.frames)


def open_tracked(config: BankConfig, root: Path, n_workers: int = 2) -> TrackedBank:
    """The bank of these settings below `root`, rendered now if it is not there; prints how far it got.

    Raises:
        MotionLabError: full disk; a split with too few seeds.
    """
    folder = Path(root) / ("tracked_" + "_".join(str(value) for value in dataclasses.astuple(config)[:-1]))
    with turn(folder.with_name(f".lock-{folder.name}"), f"bank {folder.name}"):
        if not _whole(folder, config):
            _render(config, folder, n_workers)
    return TrackedBank(folder)


def _whole(folder, config) -> bool:
    shape = (config.clips, config.frames, config.size, config.size)
    listing = read_json(folder / "whole.json")
    return bool(listing) and holds_array(folder / "frames.npy", (*shape, 3)) and holds_array(folder / "labels.npy", shape)


def _render(config, folder, n_workers):
    seeds, shape = bank_seeds(config), (config.clips, config.frames, config.size, config.size)
    parts = [seeds[i:i + CHUNK] for i in range(0, len(seeds), CHUNK)]
    with explained(folder), pool(n_workers) as crew:
        (folder / "whole.json").unlink(missing_ok=True)
        frames, labels = new_array(folder / "frames.npy", np.uint8, (*shape, 3)), new_array(folder / "labels.npy", np.uint8, shape)
        draw = partial(_render_part, size=config.size, count=config.frames)
        for k, (pictures, owners) in enumerate(crew.map(draw, parts) if len(parts) > 1 else map(draw, parts)):
            frames[k * CHUNK:k * CHUNK + len(pictures)], labels[k * CHUNK:k * CHUNK + len(pictures)] = pictures, owners
            print(f"rendering {config.split} with labels: {min(len(seeds), (k + 1) * CHUNK)}/{len(seeds)} clips", flush=True)
        frames.flush(), labels.flush()
        write_atomic(folder / "whole.json", json.dumps({"seeds": seeds}))                         # last: marks it whole


def _render_part(seeds, size, count):
    clips = [render(tracked_scene(seed), size, count) for seed in seeds]
    return np.stack([clip.frames for clip in clips]), np.stack([labels_of_pixels(clip) for clip in clips])
