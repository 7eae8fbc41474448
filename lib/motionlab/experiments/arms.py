"""Row functions of the sweep: what one arm's clips score on the protocol's prompts."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from motionlab.errors import one_of
from motionlab.experiments.measure import measure
from motionlab.experiments.prompts import Prompt, load_prompts
from motionlab.files import explained
from motionlab.models.backbone import load_backbone
from motionlab.models.codec import Codec, load_codec
from motionlab.models.evaluator import load_evaluator
from motionlab.models.generate import generate
from motionlab.models.shipped import shipped
from motionlab.video import as_frames, as_video, contact_sheet

SOURCES = ("render", "reconstruction", "base")
NOISE_STRIDE = 1000000007     # the noise of a prompt under another run seed


def run_row(arm: dict, seed: int, out_dir: Path, tier: str, prompts: str = "test", n: int | None = None, length: int = 5, steps: int = 20,
            w: float = 2.0) -> list[dict]:
    """Clips of one arm and what they score; `out_dir` keeps frames.npy, so that a killed row does not sample again.

    Args:
        arm: source "render" (the true clips), "reconstruction" (through the codec) or "base"; for "base" also weights,
            a checkpoint's path below the repository, and optionally mode, w, steps, solver.
        prompts, n: set of the protocol and how many of it.

    Raises:
        MotionLabError: an arm without a known source, a missing checkpoint.
    """
    chosen = load_prompts(prompts, n)
    frames = _kept(out_dir / "frames.npy", lambda: _frames(arm, seed, chosen, length, {"steps": steps, "w": w}))
    _keep_sheet(frames, out_dir / "samples.png")
    return measure(frames, chosen, load_evaluators(), arm["name"], seed)


def load_evaluators() -> dict:
    """The two shipped evaluators, first the one that verdicts use."""
    return {name: load_evaluator(shipped(f"evaluator_{name}")) for name in ("0", "1")}


def _frames(arm, seed, prompts, length, usual):
    source = one_of(arm.get("source", ""), SOURCES, "source of an arm")
    if source == "render":
        return np.stack([p.clip(frames=4 * length - 3).frames for p in prompts])
    codec = load_codec(shipped("codec"))
    if source == "reconstruction":
        return reconstruct(codec, prompts, length)
    backbone = load_backbone(shipped(arm["weights"]), codec.config.channels)
    known = None if arm.get("mode", "text") == "text" else encode_true(codec, prompts, length)
    options = usual | {k: arm[k] for k in ("w", "steps", "solver", "mode", "shift") if k in arm}
    seeds = [p.noise + NOISE_STRIDE * seed for p in prompts]
    return as_frames(generate(backbone, codec, [p.text for p in prompts], seeds, length=length, known=known, **options))


@torch.no_grad()
def encode_true(codec: Codec, prompts: list[Prompt], length: int) -> torch.Tensor:
    """Latents (n, length, c, h, w) of the prompts' true clips."""
    return torch.cat([codec.encode(as_video(p.clip(frames=4 * length - 3).frames)[None]) for p in prompts])


@torch.no_grad()
def reconstruct(codec: Codec, prompts: list[Prompt], length: int, batch: int = 16) -> np.ndarray:
    """The prompts' true clips through the codec, uint8 (n, f, h, w, 3)."""
    return np.concatenate([as_frames(codec.decode(z)) for z in encode_true(codec, prompts, length).split(batch)])


def _kept(path, make):
    """An array that a row made before, or makes now."""
    if path.is_file():
        try:
            return np.load(path)
        except (ValueError, EOFError, OSError):
            path.unlink()                       # cut short by a kill
    frames = make()
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft.npy")
        np.save(draft, frames)
        draft.replace(path)
    return frames


def _keep_sheet(frames, path, n=32):
    import imageio.v3 as iio

    if not path.is_file():
        iio.imwrite(path, contact_sheet(frames[:n]))


__all__ = ["encode_true", "load_evaluators", "reconstruct", "run_row"]
