"""A bank of rendered clips on disk: frames, subjects, flow pictures and captions of a range of world seeds.

Rendering is cheap but not free, and a training sees every clip several times. A bank is a folder of memory-mapped
arrays that any number of readers share; it is a function of its settings alone and can be deleted at any time.
"""
from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.core.files import explained, holds_array, new_array, read_json, write_atomic
from motionlab.core.locks import turn
from motionlab.core.processes import pool
from motionlab.flow_rgb import WORLD_SIGMA, flow_video
from motionlab.core.protocol import held_out, read_protocol, split_seeds
from motionlab.world import random_scene, render
from motionlab.world.motions import KINDS, MOTIONS

CHUNK = 64


@dataclass(frozen=True)
class BankConfig:
    """Which clips. split: of the protocol; offset: seeds of it to leave out; clips, frames, size: how many, how long,
    how large; flow: with a flow picture of every clip (4 bytes become 7 a pixel); balanced: the kinds of motion take turns (drawn as
    they come, a species' motions share what it has: one clip in fifty is a flip).

    Raises:
        MotionLabError: a value out of range, frames that are not 1 + 4k (the nearest is named).
    """

    split: str = "pretraining"
    offset: int = 0
    clips: int = 1000
    frames: int = 17
    size: int = 48
    flow: bool = False
    balanced: bool = False

    def __post_init__(self):
        for name, least, most in (("clips", 1, 10 ** 7), ("offset", 0, 10 ** 8), ("frames", 1, 1025), ("size", 32, 1024)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise MotionLabError(f"A bank's {name} is {value}.", fix=f"Give {least} to {most}, such as {min(most, max(least, value))}.")
        if self.frames % 4 != 1:
            raise MotionLabError(f"A bank's clips have {self.frames} frames, where autoencoders take 1 + 4k.",
                                 fix=f"Give {max(1, round((self.frames - 1) / 4) * 4 + 1)}.")


class Bank:
    """Arrays of a bank: frames (n, f, h, w, 3) uint8, subject (n, f, h, w) uint8 0/1, flow_pictures or None; captions."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.frames, self.subject = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("frames", "subject"))
        self.flow_pictures = np.load(folder / "flow_pictures.npy", mmap_mode="r") if (folder / "flow_pictures.npy").is_file() else None
        listing = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
        self.captions, self.seeds = listing["captions"], listing["seeds"]

    def __len__(self) -> int:
        return len(self.frames)


def training_scene(seed: int):
    """The scene of a seed as all trainings see it: one actor, everything else drawn from the world's own ranges."""
    return random_scene(seed)


def open_bank(config: BankConfig, root: Path, n_workers: int = 2) -> Bank:
    """The bank of these settings below `root`, rendered now if it is not there; prints how far it got.

    Raises:
        MotionLabError: full disk; a split with too few seeds.
    """
    values = {name: value for name, value in dataclasses.asdict(config).items() if name != "balanced" or value}
    folder = Path(root) / ("bank_" + "_".join(str(v) for v in values.values()))
    if not _whole(folder, config):
        with turn(folder.with_name(f".lock-{folder.name}"), f"bank {folder.name}"):
            if not _whole(folder, config):
                _render_all(config, folder, n_workers)
    return Bank(folder)


def _shapes(config) -> dict[str, tuple[int, ...]]:
    n, f, s = config.clips, config.frames, config.size
    return {"frames": (n, f, s, s, 3), "subject": (n, f, s, s)} | ({"flow_pictures": (n, f, s, s, 3)} if config.flow else {})


def _whole(folder, config) -> bool:
    """Whether the folder was finished, and all of it is still there at its full size."""
    listing = read_json(folder / "bank.json")
    if listing is None or len(listing.get("captions", ())) != config.clips or len(listing.get("seeds", ())) != config.clips:
        return False
    return all(holds_array(folder / f"{name}.npy", shape) for name, shape in _shapes(config).items())


def bank_seeds(config: BankConfig) -> list[int]:
    """World seeds of the bank; no seed whose scene the protocol keeps from this split."""
    wanted = config.offset + config.clips
    if wanted > len(split_seeds(config.split, None)):           # told at once, and not after a look at every seed
        raise MotionLabError(f"Split '{config.split}' has {len(split_seeds(config.split, None))} seeds, fewer than {wanted}.",
                             fix="Ask for fewer clips, or a smaller offset.")
    shown = _shown(config.split)
    out = _in_turn(shown, wanted) if config.balanced else [seed for seed, _ in itertools.islice(shown, wanted)]
    if len(out) < wanted:
        raise MotionLabError(f"Split '{config.split}' has only {len(out)} usable seeds.", fix="Ask for fewer clips.")
    return out[config.offset:]


def _shown(split):
    """(seed, what is said of its scene) of every seed of a split that may be shown."""
    protocol = read_protocol()
    shows_all = split in protocol["held_out"]["shown_only_in"]
    for seed in split_seeds(split, None):
        said = _said(seed)
        if shows_all or not held_out(said, protocol):
            yield seed, said


def _in_turn(shown, wanted):
    """Seeds whose scenes' kinds of motion take turns, each kind's in their order; fewer than wanted where a kind runs out."""
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for seed, said in shown:
        found[MOTIONS[said["actors"][0]["motion"]].kind].append(seed)
        if min(map(len, found.values())) * len(KINDS) >= wanted:
            break
    turns = min(map(len, found.values()))
    return [found[kind][k] for k in range(turns) for kind in KINDS][:wanted]


def _said(seed):
    from motionlab.world.captions import describe

    return describe(training_scene(seed))


def workers(n: int = 2):
    """A pool of processes that render."""
    return pool(n)


def rendered(crew, seeds: list[int], config: BankConfig) -> Iterator[dict]:
    """{"frames", "subject", "captions", "flow_pictures"} of these scenes, `CHUNK` at a time, in order."""
    parts = [seeds[i:i + CHUNK] for i in range(0, len(seeds), CHUNK)]
    return crew.map(_render_part, parts, [config] * len(parts))


def _render_all(config, folder, n_workers):
    seeds = bank_seeds(config)
    n = len(seeds)
    with explained(folder):
        (folder / "bank.json").unlink(missing_ok=True)
        arrays = {name: new_array(folder / f"{name}.npy", np.uint8, shape) for name, shape in _shapes(config).items()}
        captions = []
        with workers(n_workers) as crew:
            for k, part in enumerate(rendered(crew, seeds, config)):
                for name, array in arrays.items():
                    array[k * CHUNK:k * CHUNK + len(part["frames"])] = part[name]
                captions += part["captions"]
                if k % 8 == 7 or len(captions) == n:
                    print(f"rendering {config.split}: {len(captions)}/{n} clips", flush=True)
        for array in arrays.values():
            array.flush()
    write_atomic(folder / "bank.json", json.dumps({"captions": captions, "seeds": seeds}))       # last: marks it whole


def _render_part(seeds, config):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    clips = [render(training_scene(seed), config.size, config.frames) for seed in seeds]
    out = {"frames": np.stack([c.frames for c in clips]), "captions": [c.caption for c in clips],
           "subject": np.stack([c.object_mask(None) for c in clips]).astype(np.uint8)}
    if config.flow:
        out["flow_pictures"] = np.stack([flow_video(c.flow, WORLD_SIGMA) for c in clips])
    return out
