"""One pair at a time, while you watch: the live part of the notebooks on transitions. A pair of the world, or two pictures of yours."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from motionlab.core.errors import MotionLabError
from motionlab.data.transitions import Ends, load_ends
from motionlab.experiments.arms import Arm
from motionlab.experiments.transitions import clips_of, generator, read_transition_arm
from motionlab.models.pipe import Pipe
from motionlab.video import as_video, read_video

SIZE = 48


@dataclass(frozen=True)
class YourPair:
    """Two pictures of yours, uint8 (h, w, 3), with a text each ("" is none: the kit's own generator reads the world's grammar only), in
    the place of a `data.transitions.Ends`; nobody knows what lies between."""

    first: np.ndarray
    last: np.ndarray
    text_first: str = ""
    text_last: str = ""
    noise: int = 0
    task: str = "yours"
    id: str = "yours"

    def pictures(self, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
        """The two."""
        return self.first, self.last

    def truth(self, size: int = SIZE, frames: int = 9) -> None:
        """There is none."""


def shown_pairs(tier: str, tasks: Sequence[str], n: int = 1, first: str = "", last: str = "", texts: Sequence[str] = ("", ""),
                size: tuple[int, int] = (SIZE, SIZE)) -> list[Ends | YourPair]:
    """The first n pairs of each task, of the sets that judge nothing; or the pair of two pictures of yours, cropped and resized.

    Raises:
        MotionLabError: one picture of two, pictures that cannot be read.
    """
    if bool(first) != bool(last):
        raise MotionLabError("One picture of two is given.", fix="Give first and last.")
    if first:
        pictures = [read_video(path, size=size, max_frames=1).frames[0] for path in (first, last)]
        return [YourPair(*pictures, *texts)]
    return [pair for task in tasks for pair in load_ends(f"{task}_examples" if tier == "smoke" else f"{task}_dev", n)]


def arm(method: str = "between", weights: str = "unet", train: Mapping | None = None, **sample) -> Arm:
    """An arm as an ablations.yaml says it; errors as `read_transition_arm`."""
    values = {"name": method, "method": method, "sample": sample} | ({"train": dict(train)} if train else {})
    return read_transition_arm(values, {"weights": weights, "w": 2.0, "steps": 20})


def clips(one: Arm, pairs: Sequence[Ends | YourPair], home: Path, pipe: Pipe | None = None, swapped: bool = False) -> np.ndarray:
    """Clips uint8 (n, 9, h, w, 3) of pairs by an arm; a trained one is trained now, or found below `home`."""
    return clips_of(one, generator(one, 0, home) if pipe is None else pipe, pairs, 0, home, swapped)


def norm_rows(starts: Mapping[str, torch.Tensor]) -> list[dict]:
    """Rows {item, arm, seed, frame, deviation} of starts (n, f, c, h, w) by name: 1 is the noise that a generator was trained on."""
    return [{"item": f"pair {i}", "arm": name, "seed": 0, "frame": f, "deviation": float(frame.std())}
            for name, start in starts.items() for i, clip in enumerate(start) for f, frame in enumerate(clip)]


def order_rows(one: Arm, pairs: Sequence[Ends], home: Path, reader, pipe: Pipe | None = None) -> list[dict]:
    """Rows {item, arm, seed, order_gap, pose, pose_swapped, order_cost} of pairs of `between`, sampled in both orders of their ends."""
    from motionlab.metrics.transitions import limb_distance, order_gap
    from motionlab.metrics.transitions.pose import true_pose

    pipe = generator(one, 0, home) if pipe is None else pipe
    both, species = [clips(one, pairs, home, pipe, swapped) for swapped in (False, True)], [p.first.actors[0].species for p in pairs]
    read = [reader.read(made, species=species)["positions"].astype(float) for made in both]
    rows = []
    for i, pair in enumerate(pairs):
        truth, shown = true_pose(pair.clips()[0])
        mine, other = (positions[i][:, :truth.shape[1]] for positions in read)
        errors = [limb_distance(one, truth, shown) for one in (mine, other[::-1])]
        rows.append({"item": pair.id, "arm": one.name, "seed": 0, "order_gap": order_gap(mine, other, shown), "pose": errors[0],
                     "pose_swapped": errors[1], "order_cost": errors[1] - errors[0]})
    return rows


def high_share(frames: np.ndarray, above: float = 0.25) -> np.ndarray:
    """Of each frame uint8 (f, h, w, 3), the share (f,) of its grey values' power at more than `above` cycles per pixel, mean left out."""
    grey = frames.astype(float).mean(-1)
    power = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2
    fy, fx = np.fft.fftfreq(grey.shape[1])[:, None], np.fft.fftfreq(grey.shape[2])[None]
    return power[:, np.hypot(fy, fx) > above].sum(-1) / np.maximum(power.sum((1, 2)), 1e-12)


def spectrum_rows(made: Mapping[str, np.ndarray], pairs: Sequence[Ends]) -> list[dict]:
    """Rows {item, arm, seed, frame, high} of clips (n, f, h, w, 3) by arm: `high_share` of each frame as a share of the ends' mean."""
    rows = []
    for name, some in made.items():
        for clip, pair in zip(some, pairs):
            reference = high_share(np.stack(pair.pictures())).mean()
            rows += [{"item": pair.id, "arm": name, "seed": 0, "frame": f, "high": float(value / reference)}
                     for f, value in enumerate(high_share(clip))]
    return rows


def forward_maps(pipe: Pipe, pair: Ends | YourPair, t: float = 0.5) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """{temporal self-attention: (q, k)} (places, heads, f, d) of the forward branch, at noise level t between the pair's own ends."""
    first, last = (as_video(picture[None])[:1] for picture in pair.pictures())
    known, x = pipe.known(first=first, last=last), pipe.noise([pair.noise])
    with torch.no_grad(), pipe.exchange.recording():
        pipe.velocity(x, torch.tensor([t], device=pipe.device), pipe.text([pair.text_first]), known)
    return {name: (q.float(), k.float()) for name, (q, k) in pipe.exchange.kept.items()}
