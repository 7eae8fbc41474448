"""An arm of an experiment, typed: where its clips come from, how it was trained, how it samples, what is measured.

    - {name: full, method: videojam, train: {lr: 1.0e-3, new_lr: 20}, sample: {w2: 1.0}, seeds: [0, 1, 2]}

`train` holds fields of `Budget` and of the method, `sample` those of the method's `Sampling`, `measure` those of `Measured`.
A field may also stand beside `name`, where only one of the three knows it (a grid puts it there).
"""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError, nearest, one_of
from motionlab.methods import method_class
from motionlab.methods.base import Method, Sampling

SOURCES = ("render", "reconstruction", "redraw", "generated")
GROUPS = ("train", "sample", "measure")


@dataclass(frozen=True)
class Budget:
    """Of a training: lr of AdamW and Muon; clip_steps: clips seen in total, clips: of how many (0: the protocol's); decay: of the
    clip_steps those at the end in which the rate falls (0: all); layers: train on as a deeper model, which begins as the same
    function (0: as it is)."""

    lr: float = 1e-3
    clip_steps: int = 0
    clips: int = 0
    decay: int = 0
    layers: int = 0


@dataclass(frozen=True)
class Measured:
    """What is measured on which prompts. of: "clips", sampled ones; "loss", of the prompts' true clips; "shuffle", the loss on shuffled
    frames; "targets" or "features", where what its block is taught, or has learned, says that each place goes, and "state", what its
    teacher knows of limbs and their turning (`experiments.matches`).

    prompts: set of the protocol; n: how many of it, 0 for all; length: latent frames, of training clips too. against_truth: a column
    psnr_true, how near each clip is to its prompt's true one. best_of: samples per prompt, of which the second learned reader's
    best by structure is kept. probe: {method: ..., its settings}, whose head is fitted afterwards to an arm that has none; teacher: the
    same, whose errors are looked for in the features.
    """

    of: str = "clips"
    prompts: str = "test"
    n: int = 0
    length: int = 5
    against_truth: bool = False
    best_of: int = 1
    probe: dict = field(default_factory=dict)
    teacher: dict = field(default_factory=dict)

    def __post_init__(self):
        one_of(self.of, ("clips", "loss", "shuffle", "targets", "features", "state"), "what is measured")
        if self.best_of < 1:
            raise MotionLabError(f"best_of is {self.best_of}.", fix="Give 1 or more samples per prompt.")


@dataclass(frozen=True)
class Arm:
    """source: "render" (the true clips), "reconstruction" (through the codec), "redraw" (other clips of the same sentences through the
    codec, one for each seed) or "generated". weights: the checkpoint that it
    starts from, a name or a path below the repository. budget: of its training, None for an arm that is not trained. budget and
    measure: `Budget` and `Measured`, or an experiment's own."""

    name: str
    source: str
    weights: str
    method: Method
    budget: Any
    sampling: Sampling
    measure: Any


def read_arm(values: Mapping[str, Any], common: Mapping[str, Any] | None = None, budget: type = Budget, measure: type = Measured,
             sources: Sequence[str] = SOURCES) -> Arm:
    """The arm of an entry of `ablations.yaml`.

    Args:
        common: fields that all arms of the file share; the arm's own come before them.
        budget, measure, sources: what an experiment has in the place of `Budget`, `Measured` and `SOURCES`.

    Raises:
        MotionLabError: an unknown source, method or field (the nearest is named), a value of another type.
    """
    values = {name: value for name, value in values.items() if name not in ("seeds", "grid")}
    source = one_of(values.get("source", "generated"), sources, "source of an arm")
    kind = method_class(values.get("method", "plain"))
    own = {"budget": budget, "method": kind, "sampling": kind.Sampling, "measure": measure}
    groups = {"train": ("budget", "method"), "sample": ("sampling",), "measure": ("measure",)}
    given: dict[str, dict] = {part: {} for part in own}
    for field, value in (common or {}).items():
        if field != "weights":
            given[_part(field, own, own)][field] = value
    for name, value in values.items():
        if name in GROUPS:
            for field, inner in _mapping(name, value).items():
                given[_part(field, {part: own[part] for part in groups[name]}, own)][field] = inner
        elif name not in ("name", "source", "method", "weights"):
            given[_part(name, own, own)][name] = value
    parts = {part: from_values(own[part], given[part], f"{part} of arm '{values.get('name')}'") for part in own}
    if "train" in values and not kind.trains:
        raise MotionLabError(f"Arm '{values.get('name')}' trains method {kind.name}, which acts while sampling only.",
                             fix="Leave out `train`; its settings stand under `sample`.")
    weights = values.get("weights") or (common or {}).get("weights", "base")
    return Arm(str(values.get("name", "")), source, str(weights), parts["method"], parts["budget"] if "train" in values else None,
               parts["sampling"], parts["measure"])


def check_arm(arm: Mapping[str, Any], common: Mapping[str, Any]) -> None:
    """`check` of an ablations.yaml: errors as `read_arm`."""
    read_arm(arm, common)


def _part(field, allowed, own):
    """Which part of an arm has this field."""
    names = {part: [f.name for f in dataclasses.fields(kind) if f.init] for part, kind in own.items()}
    for part in allowed:
        if field in names[part]:
            return part
    known = [name for part in allowed for name in names[part]]
    raise MotionLabError(f"An arm has no field '{field}' here.{nearest(field, known)}", fix=f"The fields are: {', '.join(known)}.")


def _mapping(name, value):
    if not isinstance(value, Mapping):
        raise MotionLabError(f"'{name}' of an arm is {value!r}.", fix=f"Write {name}: {{field: value}}.")
    return value
