"""Can the instruments see it? What the codec costs them, and how they answer known damage done before the codec."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from motionlab.experiments.measure import FPS, learned_structure
from motionlab.flow_rgb import WORLD_SIGMA, flow_video
from motionlab.metrics.failures import detect_failures
from motionlab.metrics.palette import read_limbs
from motionlab.metrics.reconstruction import VISIBLE, flow_picture_error, palette_part_error, psnr
from motionlab.metrics.structure import DAMAGES, damage, structure_error
from motionlab.models.small.codec import Codec
from motionlab.models.evaluator import CLASSES, Evaluator, labels_of, true_limbs
from motionlab.video import as_frames, as_video


@torch.no_grad()
def through(codec: Codec, frames: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Frames uint8 (f, h, w, 3) through the codec; with `noise` x the latents' own deviation added in between."""
    z = codec.encode(as_video(frames)[None])
    z = z + noise * torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
    return as_frames(codec.decode(z))[0]


def codec_rows(clips: dict, codec: Codec, evaluators: dict[str, Evaluator], noises=(0.1, 0.2, 0.3)) -> Iterator[dict]:
    """Rows {item, arm, seed, ...} of clips {item: Clip}; arms: original, reconstruction, noise_0.1 and so on.

    Columns: psnr, psnr_subject (dB); part_error_palette, part_error_<evaluator> (pixels, medians over visible limbs);
    look_ok_<evaluator>, move_ok_<evaluator> (1 or 0); flow_relative (end-point error of the flow picture / speed).
    """
    for item, clip in clips.items():
        arms = {"original": clip.frames, "reconstruction": through(codec, clip.frames)}
        arms |= {f"noise_{size}": through(codec, clip.frames, size, seed=k + 1) for k, size in enumerate(noises)}
        picture = flow_video(clip.flow, WORLD_SIGMA)
        for arm, frames in arms.items():
            row = {"item": item, "arm": arm, "seed": 0}
            row |= {"psnr": psnr(frames, clip), "psnr_subject": psnr(frames, clip, subject=True)}
            row |= {"part_error_palette": palette_part_error(frames, clip)} | _by_evaluators(frames, clip, evaluators)
            seen = picture if arm == "original" else through(codec, picture, float(arm[6:]) if arm.startswith("noise") else 0.0)
            yield row | {"flow_relative": flow_picture_error(seen, clip)["relative"]}


def _by_evaluators(frames, clip, evaluators):
    out, species = {}, clip.scene.actors[0].species
    truth, visible = true_limbs(clip, least=VISIBLE * (clip.size[0] / 48) ** 2)
    asked = {name: CLASSES[name][index] for name, index in labels_of(clip.attributes).items()}
    for name, evaluator in evaluators.items():
        read = evaluator.read(frames[None], species=[species])
        gap = np.linalg.norm(read["positions"][0] - truth, axis=-1)[visible]
        out[f"part_error_{name}"] = float(np.median(gap)) if gap.size else float("nan")
        out[f"look_ok_{name}"] = float(all(read[k][0] == asked[k] for k in ("species", "colour", "place")))
        out[f"move_ok_{name}"] = float(all(read[k][0] == asked[k] for k in ("motion", "heading")))
    return out


def dose_rows(clips: dict, codec: Codec, evaluators: dict[str, Evaluator], damages: dict | None = None, seed: int = 0) -> Iterator[dict]:
    """Known damage, then the codec, then every instrument: rows {item, arm "<damage>_<dose>", seed, ...} of clips {item: Clip}.

    Columns: the structure error's terms, with the undamaged reconstruction as reference (part_error);
    articulation_<evaluator>, from a learned reader's limbs; failure_<detector>; part_error_<evaluator>, look_ok_<evaluator>,
    move_ok_<evaluator> against the undamaged truth.
    """
    for number, (item, clip) in enumerate(clips.items()):
        rng, actor = np.random.default_rng([seed, number]), clip.scene.actors[0]
        reference = read_limbs(through(codec, clip.frames), actor.species, actor.colour, clip.scene.place)
        for name, doses in (damages or DAMAGES).items():
            for dose in doses:
                frames = through(codec, damage(clip, name, dose, rng))
                reading = read_limbs(frames, actor.species, actor.colour, clip.scene.place)
                row = {"item": item, "arm": f"{name}_{dose}", "seed": 0}
                row |= structure_error(reading, reference) | _by_evaluators(frames, clip, evaluators)
                row |= {f"articulation_{name}": learned_structure(frames[None], [actor.species], e)[0] for name, e in evaluators.items()}
                yield row | {f"failure_{k}": v for k, v in detect_failures(frames, clip.attributes, FPS).items()}
