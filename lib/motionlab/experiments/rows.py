"""The row function of every sweep: what one arm's clips score on the protocol's prompts."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from motionlab.core.files import replacing
from motionlab.core.noise import prompt_seeds
from motionlab.data.prompts import Prompt, load_prompts
from motionlab.data.sidecars import encoded
from motionlab.data.sources import Listed
from motionlab.experiments.arms import Arm, read_arm
from motionlab.experiments.finetune import trained, trainings
from motionlab.experiments.held_out import held_out_rows
from motionlab.experiments.matches import feature_rows, state_rows, target_rows
from motionlab.experiments.measure import learned_structure, measure
from motionlab.experiments.shuffled import shuffle_gap
from motionlab.metrics.reconstruction import psnr
from motionlab.models.evaluator import Evaluator, load_evaluator
from motionlab.models.image_encoder import load_image_encoder
from motionlab.models.pipe import Pipe
from motionlab.models.shipped import shipped
from motionlab.models.small.codec import Codec, load_codec
from motionlab.video import as_frames, as_video, contact_sheet
from motionlab.world import Clip

OTHERS = {"loss": held_out_rows, "targets": target_rows, "features": feature_rows, "state": state_rows}     # measured without sampling
RUN_OF_SAMPLE = 1000        # between the run seeds of a prompt's further samples: no run has so many seeds


def run_row(arm: dict, seed: int, out_dir: Path, tier: str, **common) -> list[dict]:
    """Clips of one arm and what they score; `out_dir` keeps frames.npy, so that a killed row does not sample again.

    Args:
        arm: an entry of `ablations.yaml`, see `experiments.arms.read_arm`. common: fields that all arms of the file share.

    Raises:
        MotionLabError: an unknown field or value, a missing checkpoint.
    """
    one, home = read_arm(arm, common), trainings(out_dir)
    if tier == "smoke":
        one = smaller(one)
    if one.measure.of == "shuffle":
        return shuffle_gap(one, seed, home, tier=tier)
    if one.measure.of in OTHERS:
        return OTHERS[one.measure.of](one, seed, home)
    prompts, made = load_prompts(one.measure.prompts, one.measure.n or None), {}
    frames = kept(out_dir / "frames.npy", lambda: _clips(one, seed, home, prompts, made))
    keep_sheet(frames, out_dir / "samples.png")
    rows = measure(frames, prompts, load_evaluators(), one.name, seed, load_image_encoder(shipped("image_encoder")))
    if one.measure.against_truth:
        rows = [row | {"psnr_true": psnr(clip, p.clip(frames=len(clip)))} for row, clip, p in zip(rows, frames, prompts)]
    return rows


def smaller(arm: Arm) -> Arm:
    """An arm for tier smoke, which proves that code runs: two prompts, two steps, sixteen clips seen.

    Prompts are those of `examples`: smoke must not look at what judges arms.
    """
    budget = arm.budget and dataclasses.replace(arm.budget, clip_steps=16)
    return dataclasses.replace(arm, budget=budget, sampling=dataclasses.replace(arm.sampling, steps=min(arm.sampling.steps or 2, 2)),
                               measure=dataclasses.replace(arm.measure, prompts="examples", n=min(arm.measure.n or 2, 2)))


def load_evaluators() -> dict:
    """The two shipped evaluators, first the one that verdicts use."""
    return {name: load_evaluator(shipped(f"evaluator_{name}")) for name in ("0", "1")}


def _clips(arm, seed, home, prompts, made):
    length = arm.measure.length
    if arm.source == "render":
        return np.stack([p.clip(frames=4 * length - 3).frames for p in prompts])
    if arm.source in ("reconstruction", "redraw"):
        clips = [p.redraw(seed, frames=4 * length - 3) if arm.source == "redraw" else p.clip(frames=4 * length - 3) for p in prompts]
        return reconstruct(load_codec(shipped("codec")), clips)
    pipe = trained(arm, seed, home).to(sampling_device())
    pipe.frames = 4 * length - 3
    several = np.stack([sampled(arm, pipe, prompts, seed + RUN_OF_SAMPLE * k) for k in range(arm.measure.best_of)])
    return several[0] if len(several) == 1 else best_of(several, prompts, load_evaluators()["1"])


def best_of(several: np.ndarray, prompts: list[Prompt], reader: Evaluator) -> np.ndarray:
    """Of clips (k, n, f, h, w, 3), k samples of n prompts, each prompt's least structure error by this reader: (n, f, h, w, 3)."""
    species = [p.asked["actors"][0]["species"] for p in prompts]
    errors = np.nan_to_num([learned_structure(frames, species, reader) for frames in several], nan=np.inf)          # nothing was read
    return several[errors.argmin(0), np.arange(len(prompts))]


def sampled(arm: Arm, pipe: Pipe, prompts: list[Prompt], seed: int) -> np.ndarray:
    """Clips uint8 (n, f, h, w, 3) of prompts by the arm's method; noise follows from prompt and seed."""
    first, last = known_frames(prompts, pipe, arm.sampling.mode or pipe.modes[0])
    seeds = prompt_seeds([p.noise for p in prompts], seed)
    truth = arm.method.truth(arm.sampling)
    given = encoded(Listed([p.clip(frames=pipe.frames) for p in prompts]), truth, pipe) if truth else None
    states = arm.method.sample(pipe, [p.text for p in prompts], seeds, arm.sampling, first=first, last=last, given=given)
    return pipe.decode(arm.method.video(states))


def known_frames(prompts: list[Prompt], pipe: Pipe, mode: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """First and last pictures (n, 3, h, w) of the prompts' true clips, as a mode needs them."""
    if mode == "text":
        return None, None
    video = torch.stack([as_video(p.clip(frames=pipe.frames).frames) for p in prompts])
    return video[:, 0], video[:, -1] if mode == "first_last" else None


def sampling_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def encode_true(codec: Codec, prompts: list[Prompt], length: int) -> torch.Tensor:
    """Latents (n, length, c, h, w) of the prompts' true clips."""
    return torch.cat([codec.encode(as_video(p.clip(frames=4 * length - 3).frames)[None]) for p in prompts])


@torch.no_grad()
def reconstruct(codec: Codec, clips: Sequence[Clip], batch: int = 16) -> np.ndarray:
    """Clips through the codec, uint8 (n, f, h, w, 3)."""
    z = torch.cat([codec.encode(as_video(clip.frames)[None]) for clip in clips])
    return np.concatenate([as_frames(codec.decode(part)) for part in z.split(batch)])


def kept(path: Path, make) -> np.ndarray:
    """The array of `path` that a row made before, or that it makes now."""
    if path.is_file():
        try:
            return np.load(path)
        except (ValueError, EOFError, OSError):
            path.unlink()                       # cut short by a kill
    frames = make()
    with replacing(path) as draft:
        np.save(draft, frames)
    return frames


def keep_sheet(frames: np.ndarray, path: Path, n: int = 32) -> None:
    """The first clips as one picture, so that a person can look at every row."""
    import imageio.v3 as iio

    if not path.is_file():
        with replacing(path) as draft:
            iio.imwrite(draft, contact_sheet(frames[:n]))
