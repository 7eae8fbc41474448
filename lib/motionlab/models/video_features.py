"""Networks that a Frechet video distance is taken in: (frames) -> one vector per clip, by a name.

| name | what | file |
|---|---|---|
| evaluator | the kit's learned reader, its features of look and motion | the shipped one |
| i3d | I3D trained on Kinetics-400, its logits before the softmax, as StyleGAN-V's TorchScript file gives them | that file (.pt) |
| videomae | mean of a VideoMAE's last hidden states | a transformers folder |
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.models.shipped import shipped
from motionlab.video import as_video

NAMES = ("evaluator", "i3d", "videomae")
BATCH = 8
LEAST = 10               # frames that I3D's pooling needs
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)             # of the pictures that VideoMAE was trained on


def load_video_features(name: str = "evaluator", path: str | Path = "", device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """uint8 frames (n, f, h, w, 3) -> features (n, d) float64.

    Raises:
        MotionLabError: an unknown name, no such file, a file of something else; when called, clips too short for the network.
    """
    one_of(name, NAMES, "video features")
    if name != "evaluator" and not Path(path).exists():
        raise MotionLabError(f"There is no network of {name} at '{path}'.", fix="Give its file or folder; nothing is downloaded.")
    of_batch = {"evaluator": _evaluator, "i3d": _i3d, "videomae": _videomae}[name](path, device)

    @torch.inference_mode()
    def features(frames):
        parts = [of_batch(torch.from_numpy(frames[k:k + BATCH]).to(device)) for k in range(0, len(frames), BATCH)]
        return torch.cat(parts).double().cpu().numpy()

    return features


def _evaluator(path, device):
    from motionlab.models.evaluator import load_evaluator

    evaluator = load_evaluator(path or shipped("evaluator_0"), device)
    return lambda frames: evaluator.features(as_video(frames.cpu().numpy()).to(device))


def _i3d(path, device):
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise MotionLabError(f"'{path}' is no TorchScript file ({str(error).splitlines()[0]}).",
                             fix="Give i3d_torchscript.pt, as StyleGAN-V's FVD loads it.") from None

    def features(frames):
        if frames.shape[1] < LEAST:
            raise MotionLabError(f"I3D was given clips of {frames.shape[1]} frames.", fix=f"Give {LEAST} or more.")
        return network(frames.permute(0, 4, 1, 2, 3).float(), rescale=True, resize=True, return_features=True)

    return features


def _videomae(path, device):
    from transformers import VideoMAEModel

    try:
        network = VideoMAEModel.from_pretrained(str(path), local_files_only=True).to(device).eval()
    except (OSError, ValueError) as error:
        raise MotionLabError(f"'{path}' is no folder of VideoMAE ({str(error).splitlines()[0]}).",
                             fix="Give a transformers folder: config.json, model.safetensors.") from None
    config = network.config

    def features(frames):
        at = torch.linspace(0, frames.shape[1] - 1, config.num_frames).round().long()
        pictures = frames[:, at.to(frames.device)].permute(0, 1, 4, 2, 3).float() / 255
        b, size = len(pictures), (config.image_size,) * 2
        pictures = torch.nn.functional.interpolate(pictures.flatten(0, 1), size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (pictures.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        return network(((pictures - mean) / std).unflatten(0, (b, -1))).last_hidden_state.mean(1)

    return features
