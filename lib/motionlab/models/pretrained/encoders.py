"""CLIP and DINO from folders of this machine: how well frames fit a text, and one vector per frame.

Nothing is downloaded, and no code of a file runs (transformers reads `.bin` files as tensors only).
"""
from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.core.files import parse_json
from motionlab.teachers.weights import to_device

BATCH = 32                                                         # frames that go through a network at once
POOLER = {"pooler.dense.weight", "pooler.dense.bias"}
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
FETCH = "Fetch the folder again, whole: config.json, weights, preprocessor_config.json, and for CLIP the tokenizer's files."


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


class Dinov2(nn.Module):
    """DINOv2 (Oquab et al. 2023, arXiv 2304.07193): patch features. width: of one."""

    def __init__(self, model):
        super().__init__()
        self.model, self.width, self.patch = model.requires_grad_(False), model.config.hidden_size, model.config.patch_size
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def fitted(self, frames: torch.Tensor, patches: int) -> torch.Tensor:
        """Frames (n, 3, h, w) resized so that they have so many patches, in their own proportions.

        Raises:
            MotionLabError: no grid of these proportions has so many.
        """
        h, w = frames.shape[-2:]
        rows = round((patches * h / w) ** 0.5)
        if rows < 1 or patches % rows:
            raise MotionLabError(f"Frames of {h}x{w} have no grid of {patches} patches.",
                                 fix="Align another layer, or clips of other proportions.")
        size = (self.patch * rows, self.patch * (patches // rows))
        return nn.functional.interpolate(frames, size, mode="bicubic", antialias=True)

    @torch.no_grad()
    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Patch features (n, patches, d) after the final norm, float32, of frames (n, 3, h, w) in [-1, 1] (REPA's x_norm_patchtokens)."""
        inputs = ((frames.float() + 1) / 2 - self.mean) / self.std
        return torch.cat([self.model(part).last_hidden_state[:, 1:].float() for part in inputs.split(BATCH)])


def open_dinov2(folder: str | Path, device: str = "cpu") -> Dinov2:
    """DINOv2 from a folder that transformers wrote, such as a download of dinov2-base; errors as `open_clip`."""
    from transformers import AutoImageProcessor, Dinov2Model

    model, _, missing = _opened(folder, "dinov2", Dinov2Model, AutoImageProcessor)
    _refuse(missing, folder)
    return to_device(Dinov2(model), device)


def open_clip(folder: str | Path, device: str = "cpu") -> Clip:
    """CLIP from a folder that transformers wrote, such as a download of clip-vit-base-patch32.

    Raises:
        MotionLabError: no such folder, another kind of model, files that are missing or damaged; an unknown device.
    """
    from transformers import CLIPModel, CLIPProcessor

    model, processor, missing = _opened(folder, "clip", CLIPModel, CLIPProcessor)
    _refuse(missing, folder)
    return Clip(to_device(model, device), processor, device)


def open_dino(folder: str | Path, device: str = "cpu") -> Dino:
    """A DINO ViT from a folder that transformers wrote, such as a download of dino-vitb16; errors as `open_clip`."""
    from transformers import AutoImageProcessor, ViTModel

    model, processor, missing = _opened(folder, "vit", ViTModel, AutoImageProcessor)
    _refuse(missing - POOLER, folder)
    return Dino(to_device(model, device), processor, device, trained_pooler=not missing & POOLER)


def check_encoder(folder: str | Path, kind: str) -> Path:
    """The folder, if it holds a model of this kind by its config; nothing is loaded.

    Args:
        kind: transformers' `model_type`, "clip", "vit" or "dinov2".

    Raises:
        MotionLabError: no such folder, no readable config, another kind, no settings for the pictures.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise MotionLabError(f"There is no folder '{folder}' with a {kind} model.",
                             fix="Give the folder that holds its config.json and weights; the kit downloads none.")
    try:
        found = parse_json((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise MotionLabError(f"'{folder}' holds no readable config.json ({type(error).__name__}).", fix=FETCH) from None
    if found != kind:
        raise MotionLabError(f"'{folder}' holds a model of type '{found}', where '{kind}' is wanted.",
                             fix="CLIP is of type clip (clip-vit-base-patch32), DINO of type vit (dino-vitb16), DINOv2 of type dinov2.")
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise MotionLabError(f"'{folder}' lacks preprocessor_config.json, which says how pictures are prepared.", fix=FETCH)
    return folder


def encoder_stamp(folder: str | Path) -> str:
    """Names a folder's model by the names and sizes of its files, and by their first bytes."""
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(folder).expanduser().glob("*") if path.is_file()):
        digest.update(json.dumps([path.name, path.stat().st_size]).encode())
        with open(path, "rb") as file:
            digest.update(file.read(2 ** 16))
    return digest.hexdigest()[:12]


def _opened(folder, kind, model_class, processor_class):
    from safetensors import SafetensorError

    folder = check_encoder(folder, kind)
    try:
        with _quiet():
            model, info = model_class.from_pretrained(str(folder), local_files_only=True, output_loading_info=True, dtype=torch.float32)
            processor = processor_class.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, ImportError, pickle.UnpicklingError, SafetensorError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MotionLabError(f"'{folder}' does not load as {model_class.__name__} ({why}).", fix=FETCH) from None
    return model.eval(), processor, set(info["missing_keys"])


def _refuse(missing, folder):
    if missing:
        raise MotionLabError(f"'{folder}' lacks the weights of {len(missing)} tensors, the first is '{min(missing)}'.", fix=FETCH)


def _batches(frames: np.ndarray) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(frames), BATCH):
        yield list(frames[start:start + BATCH])


@contextmanager
def _quiet():
    """Without transformers' bars and its advice to train what is missing: missing weights are an error here, or meant."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
