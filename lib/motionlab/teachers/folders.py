"""Networks in folders that transformers wrote, such as downloads of clip-vit-base-patch32 or dinov2-base: nothing is downloaded, and no
code of a file runs (transformers reads `.bin` files as tensors only)."""
from __future__ import annotations

import pickle
from contextlib import contextmanager
from pathlib import Path

import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.files import parse_json

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
FETCH = "Fetch the folder again, whole: config.json, weights, preprocessor_config.json, and for CLIP the tokenizer's files."


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


def opened(folder: str | Path, kind: str, model_class, processor_class) -> tuple:
    """(model in eval mode, its processor, names of tensors that the files lack); errors as `check_encoder`, and files that do not load."""
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


def demand_whole(missing: set[str], folder: str | Path) -> None:
    """Raises MotionLabError where tensors are missing."""
    if missing:
        raise MotionLabError(f"'{folder}' lacks the weights of {len(missing)} tensors, the first is '{min(missing)}'.", fix=FETCH)


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
