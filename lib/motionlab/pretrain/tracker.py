"""Stage `sam2`: a small SAM2 of the package's classes, first on single frames, then on clips (Ravi et al., arXiv 2408.00714, 5 and C.2).

As SAM2 is trained: a few objects a clip, whole subjects and single limbs, prompted by a box, a point or a mask in the first frame; mask
loss 20 focal + dice on the best of the guesses, L1 between the IoU that is foretold and the IoU that is, cross-entropy of "in view".
Differs: no correction clicks, and losses compare guesses before they are hidden where the object is thought to be out of view.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.data.tracked import LIMBS, TrackedBank
from motionlab.metrics.mask_tracking import mean_iou
from motionlab.teachers.prompts import Prompt, box_of
from motionlab.teachers.sam2 import Sam2Tracker, as_inputs, point_inputs, track_steps
from motionlab.teachers.sam2_build import Sam2Config, build_sam2
from motionlab.teachers.sam2_files import read_checkpoint, write_small
from motionlab.training import TrainConfig, train

FOCAL, ALPHA, GAMMA = 20.0, 0.25, 2.0
LEAST = 0.002            # of the frame: a smaller object is not asked for
LOSS_SIZE = 96           # pixels a side at which masks are compared: twice the network's own


@dataclass(frozen=True)
class TrackerRecipe:
    """length: frames of a clip, 1 for single pictures; fewer where a batch's stride, drawn from `strides`, leaves fewer; forwards or
    backwards. objects: of each clip, whose pictures are encoded once for all of them; limbs: share of them that are a limb. boxes, masks:
    shares of batches that are prompted so, the rest by a point; box_noise: of a box's sides. soft: share of samples seen as if rendered
    at half their size.

    Raises:
        MotionLabError: a length below 1, shares that are none.
    """

    length: int = 8
    objects: int = 2
    limbs: float = 0.5
    boxes: float = 0.5
    masks: float = 0.15
    box_noise: float = 0.1
    soft: float = 0.5
    strides: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self):
        shares = (self.limbs, self.boxes, self.masks, self.boxes + self.masks, self.soft)
        if min(self.length, self.objects, *self.strides) < 1 or not self.strides or not all(0 <= share <= 1 for share in shares):
            raise MotionLabError(f"A tracker cannot be trained with {self}.",
                                 fix="Give length, objects and strides from 1 on, and shares of 0 to 1; boxes and masks sum to at most 1.")


class TrackedData:
    """Clips of a bank, or (length 1) its single frames: item i is then frame i % f of clip i // f."""

    def __init__(self, bank: TrackedBank, length: int):
        self.bank, self.per_clip = bank, bank.frames.shape[1] if length == 1 else 1
        if length > bank.frames.shape[1]:
            raise MotionLabError(f"Clips of {bank.frames.shape[1]} frames cannot show {length}.", fix="Give the bank more frames.")

    def __len__(self) -> int:
        return len(self.bank) * self.per_clip

    def batch(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """frames (b, f, h, w, 3) and labels (b, f, h, w), uint8."""
        where = [(i // self.per_clip, slice(None) if self.per_clip == 1 else slice(i % self.per_clip, i % self.per_clip + 1))
                 for i in indices.tolist()]
        return {name: torch.from_numpy(np.stack([getattr(self.bank, name)[i, t] for i, t in where])) for name in ("frames", "labels")}


class Segmenter(nn.Module):
    """The network under training: pictures and prompts in, what `track_steps` yields out."""

    def __init__(self, sam2: nn.Module):
        super().__init__()
        self.sam2 = sam2

    def forward(self, pictures, points, masks, objects) -> list[dict[str, torch.Tensor]]:
        # On CPUs the fused attention is the slower one for windows this small.
        with nullcontext() if pictures.is_cuda else torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return list(track_steps(self.sam2, pictures, points, masks, ahead=pictures.shape[1], objects=objects))


# ---------------------------------------------------------------------------------------------- what is asked
def draw_asked(recipe: TrackerRecipe, frames: torch.Tensor, labels: torch.Tensor, noise) -> tuple[torch.Tensor, torch.Tensor, str, list]:
    """Per clip a window of frames and some objects: frames (b, f, h, w, 3), target (objects, b, f, h, w) bool, the batch's kind of prompt,
    and the prompts, clips of the first object first: boxes, (points, labels), or first masks."""
    u, v = torch.rand(2, generator=noise[0]).tolist()
    kind, stride = _kind(recipe, u), recipe.strides[int(v * len(recipe.strides))] if recipe.length > 1 else 1
    length = min(recipe.length, (frames.shape[1] - 1) // stride + 1)
    shown, targets, prompts = [], [], []
    for clip, owners, g in zip(frames, labels, noise):
        order = _window(length, stride, len(clip), g)
        target = torch.stack([_object(recipe, owners[order], g) for _ in range(recipe.objects)])
        soft = float(torch.rand(1, generator=g)) < recipe.soft
        shown.append(_softened(clip[order]) if soft else clip[order])
        targets.append(target), prompts.append([_prompt(recipe, one[0].cpu().numpy(), kind, g) for one in target])
    return torch.stack(shown), torch.stack(targets, 1), kind, [one for same in zip(*prompts) for one in same]


def _kind(recipe, u):
    return "box" if u < recipe.boxes else "mask" if u < recipe.boxes + recipe.masks and recipe.length > 1 else "points"


def _window(length, stride, f, g):
    start = int(torch.randint(0, f - stride * (length - 1), (1,), generator=g))
    order = start + stride * torch.arange(length)
    return order.flip(0) if length > 1 and float(torch.rand(1, generator=g)) < 0.5 else order


def _softened(clip):
    """Frames uint8 (f, h, w, 3) made half as large and enlarged again."""
    half = F.avg_pool2d(clip.movedim(-1, 1).float(), 2)
    return F.interpolate(half, size=clip.shape[1:3], mode="bilinear", align_corners=False).round().to(torch.uint8).movedim(1, -1)


def _object(recipe, owners, g):
    """Where one drawn actor or limb is, (length, h, w) bool; large enough in the first frame, if any is."""
    counts = torch.bincount(owners[0].flatten().long(), minlength=2 * LIMBS + 1)
    limbs = [k for k in range(1, len(counts)) if counts[k] >= LEAST * owners[0].numel()]
    actors = sorted({(k - 1) // LIMBS for k in range(1, len(counts)) if counts[k]})
    wants_limb, u = float(torch.rand(1, generator=g)) < recipe.limbs, float(torch.rand(1, generator=g))
    if wants_limb and limbs:
        return owners == limbs[int(u * len(limbs))]
    if not actors:
        return owners == 0
    return (owners > 0) & ((owners - 1) // LIMBS == actors[int(u * len(actors))])


def _prompt(recipe, mask, kind, g):
    if kind == "mask":
        return mask
    box = box_of(mask)
    if kind == "box" and box is not None:
        x0, y0, x1, y1 = box
        shift = (2 * torch.rand(4, generator=g) - 1).numpy() * recipe.box_noise * np.array([x1 - x0, y1 - y0] * 2)
        return tuple(np.clip(np.array(box) + shift, 0, [mask.shape[1] - 1, mask.shape[0] - 1] * 2))
    rows, columns = np.nonzero(mask)
    k = int(float(torch.rand(1, generator=g)) * len(rows))
    point = (columns[k], rows[k])
    return (*point, *point) if kind == "box" else (np.array([point], np.float32), np.array([1]))


# ---------------------------------------------------------------------------------------------- the loss
def tracker_loss(recipe: TrackerRecipe, config: Sam2Config):
    """`loss_fn` of `training.train`; the log's t is the side of the objects in the first frame, as a share of the frame's."""

    def loss_fn(model, batch, noise):
        frames, target, kind, prompts = draw_asked(recipe, batch["frames"], batch["labels"], noise)
        size, device = config.image_size, frames.device
        points = masks = None
        if kind == "mask":
            given = torch.from_numpy(np.stack(prompts))[:, None].float().to(device)
            masks = (F.interpolate(given, size=(size, size), mode="bilinear", antialias=True) >= 0.5).float()
        else:
            points = point_inputs(prompts, torch.full((2,), size / frames.shape[-2]), device)
        steps = model(as_inputs(frames, size), points, masks, recipe.objects)
        counted = range(1 if kind == "mask" else 0, len(steps))       # a mask prompt is its own first answer
        small = (F.avg_pool2d(target.flatten(0, 1).float(), max(1, target.shape[-1] // LOSS_SIZE)) >= 0.5).float()
        per_object = torch.stack([frame_loss(steps[t], small[:, t]) for t in counted]).mean(0)
        per_sample = per_object.unflatten(0, target.shape[:2]).mean(0)
        side = target[:, :, 0].float().mean((0, 2, 3)).sqrt()
        return per_sample.mean(), {"t": side.clamp(max=0.999), "per_sample": per_sample}

    return loss_fn


def frame_loss(step: dict[str, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """SAM2's loss (b,) of one frame's guesses; target (b, h, w) 0 or 1. Where the object is out of view (all 0) only the score counts."""
    logits = F.interpolate(step["multimasks"].float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    wanted, p = target[:, None].expand_as(logits), logits.sigmoid()
    surprise = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    missed = p * (1 - wanted) + (1 - p) * wanted
    focal = ((ALPHA * wanted + (1 - ALPHA) * (1 - wanted)) * missed ** GAMMA * surprise).mean((2, 3))
    dice = 1 - (2 * (p * wanted).sum((2, 3)) + 1) / ((p + wanted).sum((2, 3)) + 1)
    with torch.no_grad():
        hard = logits > 0
        iou = (hard & (wanted > 0)).sum((2, 3)) / (hard | (wanted > 0)).sum((2, 3)).clamp(min=1)
    seen = (target.sum((1, 2)) > 0).float()
    masks = (FOCAL * focal + dice).min(1).values + (step["ious"].float() - iou).abs().mean(1)
    return seen * masks + F.binary_cross_entropy_with_logits(step["score"].float(), seen, reduction="none")


# ---------------------------------------------------------------------------------------------- the stage
def begin(model: Sam2Config, seed: int, start: Path | None = None) -> Segmenter:
    """The network that a part of the stage trains: from the averaged weights of the part before, or untrained."""
    sam2 = build_sam2(model, seed)
    if start is not None:
        sam2.load_state_dict(read_checkpoint(start)[1])
    return Segmenter(sam2)


def train_tracker(net: Segmenter, model: Sam2Config, data: TrackedData, recipe: TrackerRecipe, training: TrainConfig, folder: Path,
                  watch=None, until: int | None = None, said: str = "") -> Path | None:
    """One part, resumable.

    Returns:
        folder/ema.safetensors (bf16), or None when it paused at `until`.
    """
    training = dataclasses.replace(training, out_dir=str(folder))
    result = train(net, tracker_loss(recipe, model), data, training, on_sample=watch, until=until)
    if result.status != "finished":
        return None
    net.load_state_dict(result.ema_state())
    return write_small(Path(folder) / "ema.safetensors", net.sam2, model, steps=result.step, data=said)


@dataclass(frozen=True)
class Watch:
    """Mean IoU on clips that training never saw: whole subjects by a box, and their largest limb by a point."""

    bank: TrackedBank
    config: Sam2Config

    def __call__(self, net: Segmenter, step: int) -> dict[str, float]:
        device = next(net.parameters()).device
        tracker = Sam2Tracker(net.sam2, self.config, str(device))
        asked = {"whole": self._whole(), "limb": self._limbs()}
        return {f"iou_{name}": float(np.mean([mean_iou(seen.masks, truth) for seen, truth in _tracked(tracker, self.bank, rows)]))
                for name, rows in asked.items()}

    def _whole(self):
        for i, owners in enumerate(self.bank.labels):
            truth = (owners > 0) & ((owners - 1) // LIMBS == 0)
            if (box := box_of(truth[0])) is not None:
                yield i, truth, Prompt(box=box)

    def _limbs(self):
        for i, owners in enumerate(self.bank.labels):
            counts = np.bincount(owners[0].ravel(), minlength=LIMBS)[1:]
            if counts.any():
                truth = owners == 1 + int(counts.argmax())
                rows, columns = np.nonzero(truth[0])
                yield i, truth, Prompt(points=np.array([[columns[len(rows) // 2], rows[len(rows) // 2]]], np.float32))


def _tracked(tracker, bank, rows) -> Iterator:
    rows = list(rows)
    seen = tracker.track([bank.frames[i] for i, _, _ in rows], [prompt for _, _, prompt in rows])
    return zip(seen, (truth for _, truth, _ in rows))
