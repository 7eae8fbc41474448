"""Latents of a bank's clips, on disk: a base model's training reads nothing else."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from motionlab.files import explained, write_atomic
from motionlab.models.codec import load_codec
from motionlab.models.text import Grammar
from motionlab.pretrain.bank import BankConfig, open_bank
from motionlab.video import as_video


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


def open_latents(bank: BankConfig, codec_path: Path, work: Path, grammar: Grammar, batch: int = 16) -> Latents:
    """Latents of these clips by this codec, encoded now if they are not there.

    Raises:
        MotionLabError: no codec, full disk.
    """
    codec = load_codec(codec_path)
    clips = open_bank(bank, work)
    folder = clips.folder / f"latents_{codec.fingerprint}"
    if not (folder / "captions.json").is_file():
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _encode(codec, clips, folder / "latents.npy", batch)
        write_atomic(folder / "captions.json", json.dumps(clips.captions))       # last: marks it whole
    return Latents(folder, grammar, codec.fingerprint)


@torch.no_grad()
def _encode(codec, clips, path, batch):
    out = None
    for first in range(0, len(clips), batch):
        z = codec.encode(as_video(clips.frames[first:first + batch])).numpy().astype(np.float16)
        if out is None:
            out = np.lib.format.open_memmap(path, "w+", np.float16, (len(clips), *z.shape[1:]))
        out[first:first + len(z)] = z
        if first // batch % 64 == 63:
            print(f"encoding: {first + len(z)}/{len(clips)} clips", flush=True)
    out.flush()
