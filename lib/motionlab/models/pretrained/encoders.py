"""CLIP and DINO from folders of this machine: how well frames fit a text, and one vector per frame.

Nothing is downloaded, and no code of a file runs (transformers reads `.bin` files as tensors only).
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from motionlab.teachers.folders import demand_whole, opened
from motionlab.teachers.weights import to_device

BATCH = 32                                                         # frames that go through a network at once
POOLER = {"pooler.dense.weight", "pooler.dense.bias"}


class Clip:
    """CLIP (Radford et al. 2021, arXiv 2103.00020): frames against a text."""

    def __init__(self, model, processor, device: str):
        self.model, self.processor, self.device = model, processor, device

    @torch.inference_mode()
    def logits(self, frames: np.ndarray, text: str) -> np.ndarray:
        """Image-text logits (f,) of uint8 frames (f, h, w, 3): the cosine times the model's scale, 100 in the published weights.

        A text beyond the model's 77 tokens is cut.
        """
        found, longest = [], self.model.config.text_config.max_position_embeddings
        for part in _batches(frames):
            inputs = self.processor(text=[text], images=part, return_tensors="pt", truncation=True, max_length=longest).to(self.device)
            found.append(self.model(**inputs).logits_per_image[:, 0].float().cpu())
        return torch.cat(found).numpy()

    @torch.inference_mode()
    def images(self, frames: np.ndarray) -> np.ndarray:
        """Image embeddings (f, d), in the space that texts share, of uint8 frames (f, h, w, 3); not of unit length."""
        found = []
        for part in _batches(frames):
            pixels = self.processor(images=part, return_tensors="pt").to(self.device)["pixel_values"]
            found.append(self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output).float().cpu())
        return torch.cat(found).numpy()


class Dino:
    """A ViT trained by DINO (Caron et al. 2021, arXiv 2104.14294). trained_pooler: whether its file holds a pooler.

    The public DINO checkpoints hold none: transformers then makes one of random weights, and its output differs from run to run.
    """

    def __init__(self, model, processor, device: str, trained_pooler: bool):
        self.model, self.processor, self.device, self.trained_pooler = model, processor, device, trained_pooler

    @torch.inference_mode()
    def cls(self, frames: np.ndarray) -> torch.Tensor:
        """The CLS token (f, d) after the last layer and the final norm, float32 on the CPU, of uint8 frames (f, h, w, 3)."""
        found = []
        for part in _batches(frames):
            inputs = self.processor(images=part, return_tensors="pt").to(self.device)
            found.append(self.model(**inputs).last_hidden_state[:, 0].float().cpu())
        return torch.cat(found)

    @torch.inference_mode()
    def pooled(self, cls: torch.Tensor, seed: int) -> torch.Tensor:
        """What the pooler makes of CLS tokens (f, d): tanh of a linear layer.

        Args:
            seed: of an untrained pooler's weights, drawn as transformers draws them: normal, biases 0. A trained one draws none.
        """
        dense, config = self.model.pooler.dense, self.model.config
        weight, bias = dense.weight.float().cpu(), dense.bias.float().cpu()
        if not self.trained_pooler:
            weight = torch.empty(weight.shape).normal_(0, config.initializer_range, generator=torch.Generator().manual_seed(seed))
            bias = torch.zeros(bias.shape)
        return torch.tanh(nn.functional.linear(cls, weight, bias))


def open_clip(folder: str | Path, device: str = "cpu") -> Clip:
    """CLIP from a folder that transformers wrote, such as a download of clip-vit-base-patch32.

    Raises:
        MotionLabError: no such folder, another kind of model, files that are missing or damaged; an unknown device.
    """
    from transformers import CLIPModel, CLIPProcessor

    model, processor, missing = opened(folder, "clip", CLIPModel, CLIPProcessor)
    demand_whole(missing, folder)
    return Clip(to_device(model, device), processor, device)


def open_dino(folder: str | Path, device: str = "cpu") -> Dino:
    """A DINO ViT from a folder that transformers wrote, such as a download of dino-vitb16; errors as `open_clip`."""
    from transformers import AutoImageProcessor, ViTModel

    model, processor, missing = opened(folder, "vit", ViTModel, AutoImageProcessor)
    demand_whole(missing - POOLER, folder)
    return Dino(to_device(model, device), processor, device, trained_pooler=not missing & POOLER)


def encoder_stamp(folder: str | Path) -> str:
    """Names a folder's model by the names and sizes of its files, and by their first bytes."""
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(folder).expanduser().glob("*") if path.is_file()):
        digest.update(json.dumps([path.name, path.stat().st_size]).encode())
        with open(path, "rb") as file:
            digest.update(file.read(2 ** 16))
    return digest.hexdigest()[:12]


def _batches(frames: np.ndarray) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(frames), BATCH):
        yield list(frames[start:start + BATCH])
