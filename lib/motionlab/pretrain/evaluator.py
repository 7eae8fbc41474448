"""Stage `evaluator`: the learned reader, on clips as rendered, as the codec gives them back, and from noisy latents.

An evaluator that only saw clean renders would judge a generator by the codec's blur. Each clip of the bank is therefore
seen three ways; the decoded ones are made once and lie beside the bank.
"""
from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from motionlab.core.files import explained, holds_array, new_array, replacing, write_atomic
from motionlab.core.locks import turn
from motionlab.core.processes import pool
from motionlab.models.small.codec import load_codec
from motionlab.models.evaluator import (CLASSES, STILL, Evaluator, EvaluatorConfig, evaluator_loss, labels_of,
                                        save_evaluator, true_limbs)
from motionlab.data.bank import CHUNK, Bank, BankConfig, open_bank, training_scene
from motionlab.video import as_frames, as_video
from motionlab.training import TrainConfig, train
from motionlab.world import parse_caption, render

VIEWS = ("original", "reconstructed", "noisy")


@dataclass(frozen=True)
class EvaluatorRecipe:
    """noise: largest deviation of the latent noise of noisy views, in the latents' own. shorter: share of the batches
    that are cut to a shorter length 1 + 4k. frozen, shuffled: shares of the clips that are shown without motion."""

    noise: float = 0.3
    shorter: float = 0.3
    frozen: float = 0.06
    shuffled: float = 0.06


class EvaluatorData:
    """Three views of every clip of a bank, with its labels; item i is view i % 3 of clip i // 3."""

    def __init__(self, bank: Bank, truth: dict[str, np.ndarray], decoded: dict[str, np.ndarray]):
        self.views = [bank.frames, decoded["reconstructed"], decoded["noisy"]]
        self.truth, self.levels = truth, decoded["levels"]
        said = [labels_of(parse_caption(text)) for text in bank.captions]
        self.labels = {name: torch.tensor([row[name] for row in said]) for name in CLASSES}

    def __len__(self) -> int:
        return len(VIEWS) * len(self.views[0])

    def batch(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """video (b, f, 3, h, w), labels as `evaluator_loss` takes them, level (b,): 0, 0.1, more for noisy views."""
        clips, views = indices // len(VIEWS), indices % len(VIEWS)
        frames = np.stack([self.views[v][i] for i, v in zip(clips.tolist(), views.tolist())])
        positions, visible = (torch.from_numpy(self.truth[name][clips.numpy()]) for name in ("positions", "visible"))
        level = torch.from_numpy(np.array(self.levels))[clips]
        level = torch.where(views == 0, 0.0, torch.where(views == 1, 0.1, 0.2 + 0.79 * level))
        return {name: values[clips] for name, values in self.labels.items()} | {
            "video": as_video(frames), "positions": positions, "visible": visible, "level": level.float()}


# ---------------------------------------------------------------------------------------------- what lies beside a bank
def open_evaluator_data(bank: BankConfig, codec_path: Path, work: Path, noise: float = 0.3,
                        workers: int = 2) -> EvaluatorData:
    """Clips, limb truth and decoded views of these settings, made now where they are not there.

    Raises:
        MotionLabError: no codec, full disk.
    """
    codec = load_codec(codec_path)
    clips = open_bank(bank, work, workers)
    key = hashlib.sha256(Path(codec_path).read_bytes()).hexdigest()[:8]
    truth = _made(clips.folder / "limbs", ("positions", "visible"), partial(_write_truth, clips, bank, workers))
    decode = partial(_write_decoded, clips, codec, noise)
    decoded = _made(clips.folder / f"decoded_{key}_{noise}", (*VIEWS[1:], "levels"), decode)
    return EvaluatorData(clips, truth, decoded)


def _made(folder, names, write):
    """Memory-mapped arrays {name: array} of a folder, after `write(folder)` where the folder is not whole."""
    with turn(folder.with_name(f".lock-{folder.name}"), f"{folder.parent.name}/{folder.name}"):
        if not ((folder / "whole").is_file() and all(holds_array(folder / f"{name}.npy") for name in names)):
            with explained(folder):
                (folder / "whole").unlink(missing_ok=True)
                write(folder)
            write_atomic(folder / "whole", "")
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


def _write_truth(clips, bank, workers, folder):
    parts, rows = [clips.seeds[i:i + CHUNK] for i in range(0, len(clips), CHUNK)], []
    one = partial(_truth_part, size=bank.size, frames=bank.frames)
    with pool(workers) as crew:
        for part in crew.map(one, parts) if len(parts) > 1 else map(one, parts):      # a pool starts no process unasked
            rows += part
            if len(rows) % (8 * CHUNK) == 0:
                print(f"limb positions: {len(rows)}/{len(clips)} clips", flush=True)
    for name, values in zip(("positions", "visible"), zip(*rows)):
        with replacing(folder / f"{name}.npy") as draft:
            np.save(draft, np.stack(values))


def _truth_part(seeds, size, frames):
    return [true_limbs(render(training_scene(seed), size, frames)) for seed in seeds]


@torch.no_grad()
def _write_decoded(clips, codec, noise, folder, batch=16):
    draws = [torch.Generator().manual_seed(seed) for seed in clips.seeds]
    levels = torch.stack([torch.rand((), generator=g) for g in draws])
    with replacing(folder / "levels.npy") as draft:
        np.save(draft, levels.numpy())
    paths, shape = {name: folder / f"{name}.npy" for name in VIEWS[1:]}, clips.frames.shape
    out = {name: new_array(path, np.uint8, shape) for name, path in paths.items()}
    for first in range(0, len(clips), batch):
        rows = slice(first, first + batch)
        z = codec.encode(as_video(clips.frames[rows]))
        scale = noise * levels[rows].view(-1, 1, 1, 1, 1)
        shaken = z + scale * torch.stack([torch.randn(z.shape[1:], generator=g) for g in draws[rows]])
        out["reconstructed"][rows], out["noisy"][rows] = as_frames(codec.decode(z)), as_frames(codec.decode(shaken))
        if first // batch % 32 == 31:
            print(f"decoded views: {first + len(z)}/{len(clips)} clips", flush=True)
    for array in out.values():
        array.flush()


# ---------------------------------------------------------------------------------------------- training
def evaluator_training_loss(recipe: EvaluatorRecipe):
    """`loss_fn` of `training.train`; the log's t: 0 original view, 0.1 reconstructed, from 0.2 on by latent noise."""

    def loss_fn(model, batch, noise):
        order, cut = draw_frames(recipe, noise, batch["video"].shape[1])
        labels = _asked({name: batch[name] for name in CLASSES}, cut, order.shape[1])
        rows = torch.arange(len(order))[:, None]
        shown = {name: batch[name][rows, order] for name in ("video", "positions", "visible")}
        per_sample = evaluator_loss(model, shown.pop("video"), labels | shown)
        return per_sample.mean(), {"t": batch["level"], "per_sample": per_sample}

    return loss_fn


def draw_frames(recipe: EvaluatorRecipe, noise, frames: int) -> tuple[torch.Tensor, list[str]]:
    """Which frames each clip shows, (b, f), one length for the batch; and "", "frozen" or "shuffled" per clip."""
    head, length = noise[0], frames
    if recipe.shorter and frames > 1 and float(torch.rand(1, generator=head)) < recipe.shorter:
        length = 1 + 4 * int(torch.randint(0, (frames - 1) // 4, (1,), generator=head))
    orders, cuts = [], []
    for g in noise:
        start = int(torch.randint(0, frames - length + 1, (1,), generator=g))
        order, u, cut = torch.arange(start, start + length), float(torch.rand(1, generator=g)), ""
        if length > 1 and u < recipe.frozen:
            order, cut = order[torch.randint(0, length, (1,), generator=g)].expand(length), "frozen"
        elif length > 1 and u < recipe.frozen + recipe.shuffled:
            order, cut = order[torch.randperm(length, generator=g)], "shuffled"
        orders.append(order), cuts.append(cut)
    return torch.stack(orders), cuts


def _asked(labels, cuts, length):
    """Labels with -1 where the shown frames do not tell: motion of one frame, heading and camera without a motion."""
    labels = {name: values.clone() for name, values in labels.items()}
    moving = [name for name in CLASSES if name not in STILL]
    for i, cut in enumerate(cuts):
        if length == 1 or cut:
            for name in moving:
                labels[name][i] = -1
        if cut:
            labels["motion"][i] = CLASSES["motion"].index(cut)
    return labels


def train_evaluator(bank: BankConfig, model: EvaluatorConfig, recipe: EvaluatorRecipe, training: TrainConfig,
                    work: Path, out: Path, codec: Path, until: int | None = None) -> Path | None:
    """Train (or go on training) an evaluator; writes `out` (bf16 EMA weights) when it is finished.

    `training.out_dir` is set to `work`/<name of out>; bank and decoded views lie below `work`. codec: its checkpoint.
    Evaluators that are to check each other need other seeds and other clips: `training.seed` and `bank.offset`.
    """
    data = open_evaluator_data(bank, codec, work, recipe.noise)
    torch.manual_seed(training.seed)
    evaluator = Evaluator(model)
    training = dataclasses.replace(training, out_dir=str(Path(work) / Path(out).stem))
    result = train(evaluator, evaluator_training_loss(recipe), data, training, until=until)
    if result.status != "finished":
        return None
    evaluator.load_state_dict(result.ema_state())
    said = f"{bank.clips} clips of split {bank.split} from {bank.offset}, three views each"
    return save_evaluator(evaluator.eval(), out, steps=result.step, seed=training.seed, data=said)
