"""Transitions as a sweep: clips between two given frames by one arm, set by set, and what they score.

    - {name: plain, method: between, measure: {swap: true}, seeds: [0, 1, 2]}
    - {name: bmp, method: vtg, train: {lr: chosen, clip_steps: 1600}, seeds: [0]}
    - {name: bmp_table, method: vtg, train: {lr: chosen@bmp, clip_steps: 1600}, measure: {of: prediction, sets: [prediction]}}

A row goes set by set and keeps the clips of each: killed, it goes on at its set. Arms that differ in sampling or measuring only share
their training, and what was made of their pictures' ends. What needs no sampling is in `experiments.transition_tables`.
"""
from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.noise import prompt_seeds
from motionlab.core.protocol import read_protocol
from motionlab.data.bank import BankConfig
from motionlab.data.store import open_data
from motionlab.data.transitions import FPS, FRAMES, TASKS, Ends, HalfDissolved, load_ends
from motionlab.experiments.arms import Arm, read_arm
from motionlab.experiments.finetune import bank_home, trainings, tuned_once
from motionlab.experiments.rows import keep_sheet, kept, load_evaluators, sampling_device
from motionlab.experiments.transition_tables import TABLES
from motionlab.metrics.still_changes import still_change
from motionlab.metrics.transitions import transition_rows
from motionlab.models.checkpoint import fingerprint
from motionlab.models.image_encoder import load_image_encoder
from motionlab.models.open import open_own
from motionlab.models.pipe import Pipe
from motionlab.models.shipped import shipped
from motionlab.training import TrainConfig
from motionlab.video import as_video

SOURCES = ("truth", "blurred", "reconstruction", "shuffled", "generated")
BLUR = 0.7               # pixels, of source "blurred"
LAST = ("picture", "true", "still")
SETS = TASKS


@dataclass(frozen=True)
class Tuning:
    """Of a training between two ends: lr of AdamW, falling to zero; clip_steps: clips seen in total, each once, half of them dissolves."""

    lr: float = 1e-3
    clip_steps: int = 1600

    def __post_init__(self):
        batch = read_protocol()["budget"]["fine_tune_batch"]
        if self.clip_steps < batch or self.clip_steps % batch:
            raise MotionLabError(f"{self.clip_steps} clip-steps are no whole number of batches of {batch}.",
                                 fix=f"For example {max(1, self.clip_steps // batch) * batch}.")


@dataclass(frozen=True)
class Asked:
    """What is measured, on which pairs.

    of: "clips", sampled ones; "prediction", both branches' velocities without sampling; "alignment", of features with an image encoder's;
    "ends", what a LoRA of each end does for its own picture. sets: of the protocol's `ends`; n: how many pairs of each, 0 for all.
    swap: sample each pair of `between` a second time with its ends swapped. last: how a generator whose latents hold several frames is
    told the last one: as a "picture" encoded alone, by the "true" clip's last latent, or by that of a "still" clip of it.
    """

    of: str = "clips"
    sets: tuple[str, ...] = SETS
    n: int = 0
    swap: bool = False
    last: str = "picture"

    def __post_init__(self):
        one_of(self.of, ("clips", *TABLES), "what is measured")
        one_of(self.last, LAST, "form of the last frame:")
        if not self.sets:
            raise MotionLabError("An arm measures on no set.", fix="Name one or more: sets: [between].")


def check_arm(arm: dict, common: dict) -> None:
    """`check` of an ablations.yaml: errors as `read_arm`, and an unknown set."""
    one = read_transition_arm(arm, common)
    for name in one.measure.sets:
        one_of(name, read_protocol()["ends"], "set of transitions")


def read_transition_arm(arm: dict, common: dict) -> Arm:
    """An arm of this experiment: source "truth" (the true clips as they are), "blurred" (these, blurred by 0.7 px), "reconstruction"
    (through the codec), "shuffled" (these with their frames in random order) or "generated"."""
    return read_arm(arm, common, Tuning, Asked, SOURCES)


def run_row(arm: dict, seed: int, out_dir: Path, tier: str, **common) -> list[dict]:
    """A row per pair: what the clips between its ends score (`metrics.transitions.transition_rows`; on `between` flicker_excess too, over
    the true clip's through the codec), or what `transition_tables` says of it.

    Args:
        arm: an entry of `ablations.yaml`, see `read_transition_arm`. common: fields that all arms of the file share.

    Raises:
        MotionLabError: an unknown field, value or set, a missing checkpoint; a source of true clips on a set that has none.
    """
    one, home = read_transition_arm(arm, common), trainings(out_dir)
    one = smaller(one) if tier == "smoke" else one
    sets = {name: load_ends(name, _count(name, one.measure.n)) for name in one.measure.sets}
    if one.source != "generated" and any(pairs[0].truth(48, 3) is None for pairs in sets.values()):
        raise MotionLabError(f"Arm '{one.name}' shows true clips, which {', '.join(sets)} do not all have.",
                             fix="Measure it on sets of between and change.")
    pipe = generator(one, seed, home)
    if one.measure.of != "clips":
        return TABLES[one.measure.of](one, pipe, [pair for pairs in sets.values() for pair in pairs], seed, partial(tuning_data, one, pipe),
                                      tuning_config(one.budget or Tuning(), seed, out_dir / "fitted"))
    return [row for name, pairs in sets.items() for row in _scored(one, pipe, name, pairs, seed, out_dir, home)]


def smaller(arm: Arm) -> Arm:
    """An arm for tier smoke, which proves that code runs: one batch of training, two steps of sampling, four pairs that judge nothing."""
    batch = read_protocol()["budget"]["fine_tune_batch"]
    quick = {"steps": min(arm.sampling.steps or 2, 2)} | ({"lora_steps": 1} if hasattr(arm.sampling, "lora_steps") else {})
    sets = tuple(dict.fromkeys(f"{read_protocol()['ends'][name]['task']}_examples" for name in arm.measure.sets))
    return dataclasses.replace(arm, budget=arm.budget and dataclasses.replace(arm.budget, clip_steps=batch),
                               sampling=dataclasses.replace(arm.sampling, **quick),
                               measure=dataclasses.replace(arm.measure, sets=sets, n=4))


def _count(name, n):
    return min(n, read_protocol()["ends"][name]["n"]) if n else None


# ---------------------------------------------------------------------------------------------- generators
def generator(arm: Arm, seed: int, home: Path) -> Pipe:
    """The arm's generator with its method attached: trained now, gone on with, or found below `home`."""
    if arm.budget is None:
        pipe = open_own(arm.weights)
        arm.method.attach(pipe)
        return pipe.requires_grad_(False).to(sampling_device())
    folder = training_folder(arm, seed, home)
    config = tuning_config(arm.budget, seed, folder / "training")
    pipe = tuned_once(arm.method, lambda: open_own(arm.weights), partial(tuning_data, arm), config, folder, partial(_dev_data, arm))
    return pipe.to(sampling_device())


def training_folder(arm: Arm, seed: int, home: Path) -> Path:
    """Where the training of these fields from this checkpoint (by contents) lies, below `home`."""
    known = {"method": arm.method.name, "settings": dataclasses.asdict(arm.method), "budget": dataclasses.asdict(arm.budget), "seed": seed,
             "start": fingerprint(shipped(arm.weights)), "protocol": read_protocol()["budget"]}
    return home / f"{arm.method.name}-between-{hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]}"


def tuning_data(arm: Arm, pipe: Pipe, sidecars=None):
    """The fine-tuning split's clips, half of them dissolves, as many as the training sees."""
    sidecars = arm.method.wants() if sidecars is None else sidecars
    return _half_dissolved(arm, pipe, "fine_tuning", (arm.budget or Tuning()).clip_steps, sidecars)


def _dev_data(arm, pipe, sidecars):
    batch = read_protocol()["budget"]["fine_tune_batch"]
    return _half_dissolved(arm, pipe, "dev", min(64 * batch, arm.budget.clip_steps), sidecars)


def _half_dissolved(arm, pipe, split, clips, sidecars):
    config = BankConfig(split, clips=clips, frames=pipe.frames)
    return open_data(HalfDissolved(config, FPS * (pipe.frames - 1) / (FRAMES - 1)), pipe, sidecars, bank_home())


def tuning_config(tuning: Tuning, seed: int, out_dir: Path) -> TrainConfig:
    """AdamW (card vtg, 5.1) with the kit's batch, schedule and averaging."""
    protocol = read_protocol()["budget"]
    batch = protocol["fine_tune_batch"]
    return TrainConfig(steps=tuning.clip_steps // batch, batch_size=batch, lr=tuning.lr, warmup=20, schedule=protocol["fine_tune_schedule"],
                       ema=0.98, bf16=True, checkpoint_every=50, seed=seed, out_dir=str(out_dir))


# ---------------------------------------------------------------------------------------------- clips and rows
def _scored(arm, pipe, name, pairs, seed, out_dir, home):
    """Rows of one set; its clips are kept."""
    frames = kept(out_dir / f"{name}.npy", lambda: clips_of(arm, pipe, pairs, seed, home))
    swap = arm.measure.swap and arm.source == "generated" and pairs[0].task == "between"
    turned = kept(out_dir / f"{name}_swapped.npy", lambda: clips_of(arm, pipe, pairs, seed, home, swapped=True)) if swap else None
    keep_sheet(frames, out_dir / f"{name}.png")
    encoder = load_image_encoder(shipped("image_encoder"))
    rows = transition_rows(frames, pairs, ends_of(arm, pipe, pairs), load_evaluators(), encoder, arm.name, seed, turned)
    if pairs[0].task == "between":
        rows = [row | {"flicker_excess": row["flicker"] - floor} for row, floor in zip(rows, _flicker_floor(pipe, pairs))]
    print(f"set {name}: {len(pairs)} pairs", flush=True)
    return rows


def clips_of(arm: Arm, pipe: Pipe, pairs: Sequence[Ends], seed: int, home: Path, swapped: bool = False) -> np.ndarray:
    """Clips uint8 (n, 9, h, w, 3) between the ends of pairs by an arm. swapped: from the last to the first, noise and all in that order."""
    if arm.source != "generated":
        true = np.stack([pair.truth(frames=pipe.frames) for pair in pairs])
        if arm.source == "truth":
            return every_frame(true, pipe)
        if arm.source == "blurred":
            return np.stack([still_change(clip, "blur", BLUR) for clip in every_frame(true, pipe)])
        made = every_frame(pipe.decode(pipe.encode_video(as_video(true))), pipe)
        order = np.random.default_rng(seed).permutation(made.shape[1]) if arm.source == "shuffled" else np.arange(made.shape[1])
        return made[:, order]
    first, last, texts, lasts = _given(pairs, pipe)
    if swapped:
        first, last, texts, lasts = last, first, lasts, texts
    seeds, options = prompt_seeds([pair.noise for pair in pairs], seed), _options(arm, home, swapped)
    if arm.measure.last != "picture":
        latents = _told(pipe, arm, pairs, seeds, options)
    else:
        how = {"prompts_last": lasts} if "prompts_last" in inspect.signature(arm.method.sample).parameters else {}
        latents = arm.method.sample(pipe, texts, seeds, options, first=first, last=last, given=_truths(arm, pipe, pairs, options), **how)
    return every_frame(pipe.decode(latents), pipe)


def every_frame(frames: np.ndarray, pipe: Pipe) -> np.ndarray:
    """Of clips (n, f, h, w, 3) of a generator the nine frames at 8 a second: all of them, or every other one."""
    return frames[:, ::(pipe.frames - 1) // (FRAMES - 1)]


def ends_of(arm: Arm, pipe: Pipe, pairs: Sequence[Ends]) -> np.ndarray:
    """The given pictures (n, 2, h, w, 3) as the arm's clips could show them at best: through the codec, or as they are for the truth."""
    pictures = np.stack([np.stack(pair.pictures()) for pair in pairs])
    if arm.source in ("truth", "blurred"):
        return pictures
    z = pipe.encode_video(as_video(pictures.reshape(-1, 1, *pictures.shape[2:])))
    return pipe.decode(z)[:, 0].reshape(pictures.shape)


def _given(pairs, pipe):
    """Pictures (n, 3, h, w) of both ends, captions of both."""
    first, last = (torch.stack(side) for side in zip(*[as_video(np.stack(pair.pictures())) for pair in pairs]))
    return first, last, [pair.text_first for pair in pairs], [pair.text_last for pair in pairs]


def _options(arm, home, swapped):
    """The arm's sampling settings; what is made of ends is kept below `home`, apart for every checkpoint."""
    options = arm.sampling
    if getattr(options, "kept", None) == "":
        options = dataclasses.replace(options, kept=str(home / f"ends-{fingerprint(shipped(arm.weights))}"))
    return dataclasses.replace(options, swapped=True) if swapped and hasattr(options, "swapped") else options


def _truths(arm, pipe, pairs, options):
    """Latents of the true clips, where sampling begins with them."""
    if getattr(options, "start", "") != "true":
        return None
    if any(pair.truth(48, 3) is None for pair in pairs):
        raise MotionLabError(f"Arm '{arm.name}' begins with the true clip, which {pairs[0].id} has not.",
                             fix="Measure it on sets: [between].")
    return {"x1": pipe.encode_video(as_video(np.stack([pair.truth(frames=pipe.frames) for pair in pairs])))}


def _told(pipe, arm, pairs, seeds, options):
    """Latents of clips whose generator is told the last frame by a whole clip's last latent: the true one's, or a still one's."""
    first, last, texts, _ = _given(pairs, pipe)
    clips = as_video(np.stack([pair.truth(frames=pipe.frames) for pair in pairs]))
    if arm.measure.last == "still":
        clips = last[:, None].expand(-1, pipe.frames, -1, -1, -1).contiguous()
    known = pipe.known(first=first, last=last)
    known["cond"][:, -1] = pipe.encode_video(clips)[:, -1]
    out = []
    for k in range(0, len(pairs), 16):
        part = slice(k, k + 16)
        given = {name: value[part] for name, value in known.items()}
        u = pipe.guided(texts[part], None if options.w < 0 else options.w, given)
        out.append(pipe.solve(u, pipe.noise(seeds[part]), steps=options.steps or None).cpu())
    return torch.cat(out)


def _flicker_floor(pipe, pairs):
    """Of each true clip through the codec: the flicker that no sampling is to blame for."""
    from motionlab.metrics.transitions import background_flicker
    from motionlab.metrics.transitions.rows import background_of

    made = every_frame(pipe.decode(pipe.encode_video(as_video(np.stack([pair.truth(frames=pipe.frames) for pair in pairs])))), pipe)
    return [background_flicker(clip, background_of(pair, clip.shape[1], len(clip))) for clip, pair in zip(made, pairs)]
