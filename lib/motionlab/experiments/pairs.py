"""Clips between pictures of yours: `motionlab sample METHOD --first A.png --last B.png`, or `--pairs pairs.csv`.

A pairs.csv (`data.pairs`): first, last (pictures beside it), text_first, text_last. Clips are called 000.mp4, 001.mp4, ... in the order of
its rows.
"""
from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import ensure_writable
from motionlab.core.locks import held
from motionlab.data.pairs import COLUMNS, both_texts, read_pairs
from motionlab.experiments.tuning import check_same
from motionlab.methods import method_class, open_method
from motionlab.methods.base import Sampling
from motionlab.methods.files import load_method, read_about
from motionlab.models.checkpoint import fingerprint
from motionlab.models.open import open_pipe, pipe_class
from motionlab.models.pipe import Pipe
from motionlab.models.shipped import shipped
from motionlab.video import as_video, read_video, write_mp4


@dataclass(frozen=True)
class PairConfig:
    """first, last: pictures, with text_first and text_last; or pairs, a file of several. weights: what `motionlab train` made, "" for the
    generator as it is. frames, height, width: of the clips, 0 for the weights' or the generator's own. seed: of the starting noise.
    own: which of the kit's generators, where no backbone is given."""

    backbone: str = ""
    weights: str = ""
    pairs: str = ""
    first: str = ""
    last: str = ""
    text_first: str = ""
    text_last: str = ""
    out_dir: str = "runs/between"
    frames: int = 0
    height: int = 0
    width: int = 0
    seed: int = 0
    own: str = "unet"
    bf16: bool = True
    cpu: bool = False


@dataclass(frozen=True)
class GivenPair:
    """Two pictures and their captions."""

    first: Path
    last: Path
    text_first: str = ""
    text_last: str = ""


def given_pairs(config: PairConfig) -> list[GivenPair]:
    """The pairs that are asked for, all looked at.

    Raises:
        MotionLabError: no pair, or both ways of giving one; no such file; a picture that is missing, unreadable or of another size or
            shape than its other end; one text of two.
    """
    if bool(config.pairs) == bool(config.first or config.last):
        raise MotionLabError("No pictures were given." if not config.pairs else "Both a file of pairs and pictures were given.",
                             fix="Give --first and --last, or --pairs FILE.")
    home = Path(config.pairs).parent if config.pairs else Path()
    rows = read_pairs(Path(config.pairs)) if config.pairs else [("the pair", {name: getattr(config, name) for name in COLUMNS})]
    return [_looked_at(where, row, home) for where, row in rows]


def _looked_at(where, row, home):
    for name in ("first", "last"):
        if not row[name]:
            raise MotionLabError(f"{where}: no {name} picture is given.", fix="A transition needs both.")
    both_texts(where, row)
    sizes = [read_video(home / row[name], max_frames=1).source_size for name in ("first", "last")]
    if sizes[0] != sizes[1]:
        raise MotionLabError(f"{where}: the two ends are {sizes[0][0]}x{sizes[0][1]} and {sizes[1][0]}x{sizes[1][1]} pixels.",
                             fix="Give two pictures of one size.")
    return GivenPair(home / row["first"], home / row["last"], row["text_first"], row["text_last"])


@torch.no_grad()
def sample_pairs(name: str, config: PairConfig, options: Sampling | None = None) -> list[Path]:
    """An mp4 per pair, by a method; those that are there already are kept.

    Raises:
        MotionLabError: as `given_pairs`, `read_about`, `load_method`, `open_pipe`; a method that takes no two ends, another run's out_dir.
    """
    kind, pairs = method_class(name), given_pairs(config)
    if not {"ends", "option"} <= {field.name for field in dataclasses.fields(kind.Sampling)}:
        raise MotionLabError(f"Method {name} makes no clip between two pictures.", fix="Use vtg, or between.")
    about = read_about(config.weights) if config.weights else None
    if config.backbone:
        pipe_class(config.backbone)
    else:
        shipped(config.own)
    out = ensure_writable(config.out_dir)
    with held(out / ".lock-sampling", f"sampling to '{out}'"):
        return _sampled(kind, config, options or kind.Sampling(), pairs, about, out)


def _sampled(kind, config, options, pairs, about, out):
    pipe = generator(config, about, out)
    method = open_method(kind.name) if about is None else from_values(kind, json.loads(about["settings"]), f"settings in {config.weights}")
    method.attach(pipe) if about is None else load_method(method, pipe, config.weights)
    fits = fitted(options, pipe, out)
    check_same(out / "sampling.yaml", _settings(config, options, pairs))         # now that clips can be made: a mistake leaves no trace
    paths = [out / f"{k:03d}.mp4" for k in range(len(pairs))]
    for k, (path, pair) in enumerate(zip(paths, pairs)):
        if not path.is_file():
            first, last = (as_video(read_video(file, size=pipe.size, max_frames=1).frames) for file in (pair.first, pair.last))
            latents = method.sample(pipe, [pair.text_first], [config.seed], fits, first=first, last=last, prompts_last=[pair.text_last])
            write_mp4(path, pipe.decode(latents)[0], pipe.fps)
        print(f"clip {k + 1}/{len(pairs)}: {path}", flush=True)
    return paths


def _settings(config, options, pairs):
    """What decides the clips: pictures and weights count with their contents, so that none of an edited file passes for the new one."""
    contents = [[fingerprint(pair.first), fingerprint(pair.last), pair.text_first, pair.text_last] for pair in pairs]
    return dataclasses.asdict(config) | {"options": dataclasses.asdict(options), "contents": contents,
                                         "digest": fingerprint(config.weights) if config.weights else ""}


def generator(config: PairConfig, about: dict[str, str] | None, out: Path) -> Pipe:
    """The generator at the size asked for: of the weights, of the options, or its own.

    Raises:
        MotionLabError: as `open_pipe`; clips of fewer than three latent frames.
    """
    device = "cuda" if torch.cuda.is_available() and not config.cpu else "cpu"
    known = json.loads(about["size"]) if about and "size" in about else (None, None, None)
    size = [given or kept for given, kept in zip((config.frames, config.height, config.width), known)]
    dtype = torch.bfloat16 if config.bf16 and device != "cpu" else torch.float32
    pipe = open_pipe(config.backbone, *size, weights=config.own, device=device, cache=out / "text", dtype=dtype)
    if pipe.shape[0] < 3:
        raise MotionLabError(f"A clip of {pipe.frames} frames has nothing between its ends.", fix="Ask for more: -p frames=17.")
    return pipe


def fitted(options: Sampling, pipe: Pipe, out: Path) -> Sampling:
    """Options that this generator can do: its own end to each branch where it takes one frame, the ends' files beside the clips.

    Raises:
        MotionLabError: a generator that takes no known frame.
    """
    if not {"first", "first_last"} & set(pipe.modes):
        raise MotionLabError(f"'{pipe.name}' ({pipe.kind}) takes no known frame.", fix="Use an image-to-video generator.")
    ends = options.ends if "first_last" in pipe.modes else "one"
    if ends == "one" and "first" not in pipe.modes:
        one_of("first", pipe.modes, f"conditioning mode of {pipe.kind}")
    return dataclasses.replace(options, ends=ends, kept=options.kept or str(out / "ends"))
