"""Latents of a bank's clips, on disk: a base model's training reads nothing else."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import explained, write_atomic
from motionlab.flow_rgb import WORLD_SIGMA, flow_video, rgb_to_flow
from motionlab.models.small.codec import Codec, load_codec
from motionlab.models.small.text import Grammar
from motionlab.data.bank import Bank, BankConfig, bank_seeds, open_bank, rendered, workers
from motionlab.teachers.flow import flow
from motionlab.video import as_video

TEACHERS = ("exact", "dis", "other", "still")
SHARD = 1024


class Latents:
    """x1 (n, f', c, h, w) float16, memory-mapped, and captions as tokens (n, words); `codec`: fingerprint of the encoder."""

    def __init__(self, folder: Path, grammar: Grammar, codec: str = ""):
        self.codec = codec
        self.x1 = np.load(folder / "latents.npy", mmap_mode="r")
        self.captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
        self.tokens = grammar.encode(self.captions)

    def __len__(self) -> int:
        return len(self.x1)

    def batch(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """x1 (b, f', c, h, w) float32 and tokens (b, words)."""
        return {"x1": torch.from_numpy(np.stack([self.x1[i] for i in indices.tolist()])).float(), "tokens": self.tokens[indices]}

    def where(self, keep) -> Latents:
        """Only the clips whose caption `keep` accepts."""
        chosen = [i for i, text in enumerate(self.captions) if keep(text)]
        out = object.__new__(Latents)
        out.x1, out.captions, out.tokens, out.codec = self.x1[chosen], [self.captions[i] for i in chosen], self.tokens[chosen], self.codec
        return out


class FreshLatents:
    """Latents of clips that are each seen once: x1 and `stills`, the frames 0, 4, 8, ... encoded as pictures of their own.

    In shards on disk, 14 kB a latent frame; pictures are not kept. `batch` gives x1 and stills (b, f', c, h, w) and tokens.
    """

    def __init__(self, shards: list[Path], grammar: Grammar, codec: str = ""):
        self.codec, self.captions = codec, []
        self.x1, self.stills = ([np.load(shard / f"{name}.npy", mmap_mode="r") for shard in shards] for name in ("x1", "stills"))
        for shard in shards:
            self.captions += json.loads((shard / "captions.json").read_text(encoding="utf-8"))
        self.tokens = grammar.encode(self.captions)

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        def gathered(arrays):
            return torch.from_numpy(np.stack([arrays[i // SHARD][i % SHARD] for i in indices.tolist()])).float()

        return {"x1": gathered(self.x1), "stills": gathered(self.stills), "tokens": self.tokens[indices]}


def open_fresh_latents(bank: BankConfig, codec_path: Path, work: Path, grammar: Grammar, batch: int = 16) -> FreshLatents:
    """Latents of as many clips as `bank` says, rendered and encoded shard by shard; shards that are there are kept.

    Raises:
        MotionLabError: no codec, full disk, a split with too few seeds.
    """
    codec, seeds = load_codec(codec_path), bank_seeds(bank)
    home = work / ("fresh_" + "_".join(str(v) for v in (bank.split, bank.offset, bank.frames, bank.size, codec.fingerprint)))
    parts = [seeds[k:k + SHARD] for k in range(0, len(seeds), SHARD)]
    shards = [home / f"{k:04d}_{len(part)}" for k, part in enumerate(parts)]
    missing = [k for k, shard in enumerate(shards) if not shard.is_dir()]
    if missing:
        with workers() as pool:
            for k in missing:
                with explained(home):
                    _make_shard(shards[k], rendered(pool, parts[k], bank), codec, batch)
                print(f"rendered and encoded {bank.split}: {sum(len(p) for p in parts[:k + 1])}/{len(seeds)} clips", flush=True)
    return FreshLatents(shards, grammar, codec.fingerprint)


@torch.no_grad()
def _make_shard(folder, made, codec, batch):
    """One folder of arrays, under its name only when it is whole."""
    draft, x1, stills, captions = folder.with_name(f".{folder.name}"), [], [], []
    for part in made:
        captions += part["captions"]
        for frames in np.array_split(part["frames"], -(-len(part["frames"]) // batch)):
            x1.append(codec.encode(as_video(frames)))
            stills.append(encode_stills(codec, frames))
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name, value in (("x1", x1), ("stills", stills)):
        np.save(draft / f"{name}.npy", torch.cat(value).numpy().astype(np.float16))
    write_atomic(draft / "captions.json", json.dumps(captions))
    draft.rename(folder)


@torch.no_grad()
def encode_stills(codec: Codec, frames: np.ndarray) -> torch.Tensor:
    """The last frame of every latent, each encoded as a picture of its own: what a user can give.

    uint8 (b, f, h, w, 3) -> (b, f', c, h', w').
    """
    pictures = frames[:, ::codec.config.group]
    flat = codec.encode(as_video(pictures.reshape(-1, 1, *pictures.shape[2:])))
    return flat.reshape(*pictures.shape[:2], *flat.shape[2:])


class JointLatents(Latents):
    """Latents with the motion latents d1 of the same clips beside them; `batch` also gives d1 (b, f', c, h, w)."""

    def __init__(self, folder: Path, grammar: Grammar, codec: str, motion: str):
        super().__init__(folder, grammar, codec)
        self.d1 = np.load(folder / f"{motion}.npy", mmap_mode="r")

    def batch(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().batch(indices) | {"d1": torch.from_numpy(np.stack([self.d1[i] for i in indices.tolist()])).float()}


def open_latents(bank: BankConfig, codec_path: Path, work: Path, grammar: Grammar, batch: int = 16) -> Latents:
    """Latents of these clips by this codec, encoded now if they are not there.

    Raises:
        MotionLabError: no codec, full disk.
    """
    codec = load_codec(codec_path)
    clips = open_bank(bank, work)
    return Latents(_latent_folder(codec, clips, batch), grammar, codec.fingerprint)


def open_joint_latents(bank: BankConfig, codec_path: Path, work: Path, grammar: Grammar, teacher: str = "exact", noise: float = 0.0,
                       batch: int = 16) -> JointLatents:
    """Latents of clips and of their motion, drawn as flow pictures (VideoJAM, Eq. 5) from this teacher's flow.

    Args:
        bank: with `flow`. teacher, noise: as `motion_pictures`.

    Raises:
        MotionLabError: a bank without flow, an unknown teacher, no codec, full disk.
    """
    codec, clips = load_codec(codec_path), open_bank(bank, work)
    folder = _latent_folder(codec, clips, batch)
    name = f"motion_{teacher}" + (f"_{noise:g}" if noise else "")
    if not (folder / f"{name}.npy").is_file():
        pictures = motion_pictures(clips, teacher, noise)
        with explained(folder):
            _encode(codec, pictures, len(clips), folder / f"{name}.draft.npy", batch)
            (folder / f"{name}.draft.npy").replace(folder / f"{name}.npy")
    return JointLatents(folder, grammar, codec.fingerprint, name)


def motion_pictures(clips: Bank, teacher: str, noise: float = 0.0) -> Callable[[int], np.ndarray]:
    """Clip number -> flow pictures (f, h, w, 3) uint8 by a teacher.

    Args:
        teacher: "exact"; "dis" (from the frames); "other" (the exact flow of another clip: right statistics, wrong content);
            "still" (no motion anywhere).
        noise: deviation of white noise added to both components of the flow, pixels per frame.

    Raises:
        MotionLabError: a bank without flow, an unknown teacher.
    """
    one_of(teacher, TEACHERS, "motion teacher")
    if clips.flow_pictures is None:
        raise MotionLabError(f"The bank {clips.folder.name} has no flow pictures.", fix="Open it with flow: true.")
    n = len(clips)

    def picture(i: int) -> np.ndarray:
        if teacher == "still":
            return np.full_like(clips.flow_pictures[i], 255)
        if teacher == "dis":
            return flow_video(_noisy(flow(clips.frames[i], "dis"), noise, i), WORLD_SIGMA)
        exact = clips.flow_pictures[(i + n // 2) % n if teacher == "other" else i]
        if not noise:
            return exact
        read = rgb_to_flow(np.moveaxis(exact[:-1].astype(np.float64) / 255, -1, -3), WORLD_SIGMA)
        return flow_video(_noisy(read, noise, i), WORLD_SIGMA)

    return picture


def _noisy(field, size, seed):
    return field + size * np.random.default_rng([7, seed]).normal(size=field.shape) if size else field


def _latent_folder(codec, clips, batch):
    folder = clips.folder / f"latents_{codec.fingerprint}"
    if not (folder / "captions.json").is_file():
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _encode(codec, clips.frames.__getitem__, len(clips), folder / "latents.npy", batch)
        write_atomic(folder / "captions.json", json.dumps(clips.captions))       # last: marks it whole
    return folder


@torch.no_grad()
def _encode(codec, picture_of, n, path, batch):
    out = None
    for first in range(0, n, batch):
        frames = np.stack([picture_of(i) for i in range(first, min(n, first + batch))])
        z = codec.encode(as_video(frames)).numpy().astype(np.float16)
        if out is None:
            out = np.lib.format.open_memmap(path, "w+", np.float16, (n, *z.shape[1:]))
        out[first:first + len(z)] = z
        if first // batch % 64 == 63:
            print(f"encoding {path.stem}: {first + len(z)}/{n} clips", flush=True)
    out.flush()
