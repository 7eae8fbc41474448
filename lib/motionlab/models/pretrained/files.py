"""The files of a diffusers snapshot: which pipeline it is, and its parts, complete or an error that names what is missing.

A *snapshot* is the folder that diffusers' `save_pretrained` writes. Nothing is ever downloaded, nothing unpickled, and
only classes of diffusers and transformers are made.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import parse_json

AGAIN = "Fetch the file again and compare its size with the original's."
DTYPES = ("torch.bfloat16", "torch.float32")
NETWORKS = ("transformer", "unet")


def snapshot_class(folder: str | Path, known: Iterable[str]) -> str:
    """The class of a snapshot's pipeline, one of `known`, by its files; loads nothing.

    Raises:
        MotionLabError: no such folder, not a supported pipeline (the nearest is named), no network.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MotionLabError(f"There is no folder '{folder}'.",
                             fix="Give the folder of a diffusers snapshot on this machine; the kit downloads none.")
    if not (folder / "model_index.json").is_file():
        raise MotionLabError(f"'{folder}' holds no model_index.json, so it is no snapshot of a diffusers pipeline.",
                             fix="Give the folder that `save_pretrained` wrote, or that a snapshot download filled.")
    index = read_json(folder / "model_index.json")
    name = one_of(index.get("_class_name"), known, f"pipeline in {folder / 'model_index.json'}:")
    if index.get("boundary_ratio") is not None or index.get("expand_timesteps"):
        raise MotionLabError(f"'{folder}' is Wan 2.2, which this kit does not run.", fix="Use Wan 2.1.")
    if not any((folder / network).is_dir() for network in NETWORKS):
        found = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise MotionLabError(f"'{folder}' has {', '.join(found) or 'no components'}, but no transformer and no unet.",
                             fix="Fetch the snapshot's folder transformer/ (or unet/) too.")
    return name


def has(folder: Path, name: str) -> bool:
    """Whether a snapshot has the part; an index may list parts that it leaves out, [null, null]."""
    return (folder / name).is_dir()


def component(folder: Path, name: str, dtype: torch.dtype) -> nn.Module:
    """A network of the snapshot, of the class that its index names, complete, in eval mode.

    Raises:
        MotionLabError: files that are missing, truncated or of another class.
    """
    kind, library = _class_of(folder, name)
    _check_files(folder / name)
    word = "dtype" if library.__name__ == "transformers" else "torch_dtype"
    try:
        model, info = kind.from_pretrained(str(folder / name), local_files_only=True, use_safetensors=True, output_loading_info=True,
                                           **{word: dtype})
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise MotionLabError(f"'{folder / name}' does not load as {kind.__name__} ({error}).", fix=AGAIN) from None
    missing = sorted(info["missing_keys"])
    if hasattr(model, "shared"):
        missing = _tie(model, missing)
    if missing:
        raise MotionLabError(f"'{folder / name}' lacks the weights of {len(missing)} tensors, the first is '{missing[0]}'.", fix=AGAIN)
    return model.eval()


def skeleton(folder: Path, name: str) -> nn.Module:
    """The same network as its config says, on the current device, with whatever weights that makes: of a meta device, none."""
    kind, _ = _class_of(folder, name)
    try:
        return kind.from_config(kind.load_config(str(folder / name), local_files_only=True))
    except (OSError, ValueError, TypeError) as error:
        raise MotionLabError(f"'{folder / name}' is no config of {kind.__name__} ({error}).", fix="Fetch the file again.") from None


def settings_part(folder: Path, name: str, kind: str = ""):
    """A part without weights, such as the scheduler or a CLIP image processor; kind: another class to fill with the same settings.

    Raises:
        MotionLabError: it is missing, or no settings of this class.
    """
    if not has(folder, name):
        raise MotionLabError(f"'{folder}' has no {name}.", fix=f"Fetch the snapshot's folder {name}/ too (it is one small file).")
    found, library = _class_of(folder, name)
    try:
        return (getattr(library, kind) if kind else found).from_pretrained(str(folder / name), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise MotionLabError(f"'{folder / name}' cannot be read ({error}).", fix="Fetch the folder again.") from None


def tokenizer(folder: Path):
    """A tokenizer of the snapshot.

    Raises:
        MotionLabError: damaged files, or words that need the package sentencepiece where it is not installed.
    """
    from transformers import AutoTokenizer
    from transformers.utils import is_sentencepiece_available

    if (folder / "spiece.model").is_file() and not (folder / "tokenizer.json").is_file() and not is_sentencepiece_available():
        raise MotionLabError(f"'{folder}' holds its words as spiece.model only, which the package sentencepiece reads.",
                             fix="pip install sentencepiece")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise MotionLabError(f"The tokenizer in '{folder}' cannot be read ({error}).", fix="Fetch the folder again.") from None


def component_fingerprint(folder: Path) -> str:
    """Names a component's weights by its config, and by size, start and end of its files; "" when it is not there."""
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with open(path, "rb") as file:
            digest.update(file.read(2 ** 16))
            file.seek(max(0, path.stat().st_size - 2 ** 16))
            digest.update(file.read())
    return digest.hexdigest()[:12]


def read_json(path: Path) -> dict:
    """The mapping in a JSON file.

    Raises:
        MotionLabError: no such file, no JSON, no mapping.
    """
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise MotionLabError(f"'{path}' cannot be read ({error}).", fix="Fetch the file again.") from None


# ---------------------------------------------------------------------------------------------- what is behind them
def _class_of(folder, name):
    """(class, library) of a part, as model_index.json says; only the two libraries are looked into."""
    import diffusers
    import transformers

    entry = read_json(folder / "model_index.json").get(name) or [None, None]
    library = {"diffusers": diffusers, "transformers": transformers}.get(entry[0])
    kind = getattr(library, str(entry[1]), None) if library else None
    if kind is None or not hasattr(kind, "from_pretrained"):
        raise MotionLabError(f"model_index.json in '{folder}' names {entry[0]}.{entry[1]} as its {name}, which is not there.",
                             fix="Fetch the file again, or install a version of diffusers that has the class.")
    return kind, library


def _tie(encoder, missing):
    """T5's words are stored once and used as two; some versions of transformers 5 leave the second at zero."""
    here, there = "shared.weight", "encoder.embed_tokens.weight"
    if here in missing and there not in missing:
        encoder.shared.weight = encoder.encoder.embed_tokens.weight
    elif here not in missing:
        encoder.encoder.embed_tokens.weight = encoder.shared.weight
    else:
        return missing
    return [name for name in missing if name not in (here, there)]


def _check_files(folder):
    """Every weight file that a component needs is here and whole; only headers are read."""
    from safetensors import SafetensorError, safe_open

    if not (folder / "config.json").is_file():
        raise MotionLabError(f"'{folder}' holds no config.json.", fix="Fetch the whole folder again.")
    indices = [read_json(path).get("weight_map", {}) for path in folder.glob("*.safetensors.index.json")]
    gone = sorted({name for index in indices for name in index.values() if not (folder / name).is_file()})
    if gone:
        raise MotionLabError(f"'{folder}' lacks {', '.join(gone)}.", fix="Fetch the missing files.")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MotionLabError(f"'{folder}' holds no safetensors weights.", fix="Fetch them; .bin files are pickled, and the kit reads none.")
    for path in files:
        try:
            with safe_open(str(path), "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise MotionLabError(f"'{path}' is truncated or no safetensors file ({error}).", fix=AGAIN) from None
