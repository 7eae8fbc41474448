"""The protocol's prompts: the same for every arm of every paper, balanced over VideoJAM-bench's four motion categories."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.protocol import held_out, read_protocol, split_seeds
from motionlab.world import Clip, random_scene, render
from motionlab.world.captions import describe, sentence
from motionlab.world.motions import KINDS

MEDIAN_AREA = 0.17          # of the frame that a subject fills, over 400 scenes of the world


@dataclass(frozen=True)
class Prompt:
    """One prompt with the scene that it was taken from, so that a true clip stands beside every generated one.

    Attributes:
        id: such as "test/017"; unit of every paired comparison. noise: seed of its starting noise (plus 1000 x run seed).
        text: the sentence. asked: its parsed form. kind: motion category. seed: of the scene.
    """

    id: str
    seed: int
    kind: str
    text: str
    asked: dict

    @property
    def noise(self) -> int:
        return self.seed

    @property
    def size(self) -> str:
        """"small" where the true clip's subject fills less of the frame than the world's median (17 %), else "large"."""
        return "small" if self.clip(frames=1).object_mask(None).mean() < MEDIAN_AREA else "large"

    def clip(self, size: int = 48, frames: int = 17) -> Clip:
        """The true clip of this prompt's scene."""
        return render(_scene(self.seed, self.kind), size, frames)


def load_prompts(name: str, n: int | None = None) -> list[Prompt]:
    """The first `n` prompts (None: all) of a set of `reproductions/protocol.yaml`: test, dev, held_out, ...

    Raises:
        MotionLabError: unknown set (the nearest is named), more prompts than it has.
    """
    sets = read_protocol()["prompts"]
    chosen = sets[one_of(name, sets, "set of prompts")]
    n = chosen["n"] if n is None else n
    if not 1 <= n <= chosen["n"]:
        raise MotionLabError(f"Set '{name}' has {chosen['n']} prompts, not {n}.", fix="Ask for at least 1 and at most that many.")
    return _draw(name, chosen, n)


def _draw(name, chosen, n):
    protocol, split, out = read_protocol(), chosen["split"], []
    for seed in split_seeds(split, None)[chosen["offset"]:]:
        kind = None if chosen.get("any_kind") else chosen.get("kind", KINDS[len(out) % len(KINDS)])
        asked = describe(_scene(seed, kind))
        if _fits(asked, chosen.get("only"), protocol) and (split in protocol["held_out"]["shown_only_in"] or not held_out(asked, protocol)):
            out.append(Prompt(f"{name}/{len(out):03d}", seed, kind, sentence(asked), asked))
        if len(out) == n:
            return out
    raise MotionLabError(f"Split '{split}' ends before {n} prompts are found.", fix="Ask for fewer.")


def _fits(asked, only, protocol):
    """A set may ask for one of several things: some `motions`, held-out pairs; and then for some `species`, no `camera`."""
    if only is None:
        return True
    actor = asked["actors"][0]
    if actor["species"] not in only.get("species", [actor["species"]]) or (asked["camera"] and not only.get("camera", True)):
        return False
    return actor["motion"] in only.get("motions", ()) or (only.get("held_out", False) and held_out(asked, protocol))


def _scene(seed, kind):
    return random_scene(seed, kind=kind)


# ---------------------------------------------------------------------------------------------- a user's own files
CATEGORIES = {"videojam": KINDS, "moviegen": ("human activity", "animals", "nature and scenery", "physics", "unusual activity", "scenes")}


def read_prompts(path: str | Path, benchmark: str = "videojam") -> list[tuple[str, str | None]]:
    """(text, category) of a prompt file of yours: VideoJAM-bench and Movie Gen's prompts are not ours to ship.

    Args:
        path: .csv or .tsv with a column `prompt` and optionally `category`; .json (a list of texts or of such mappings);
            .txt, one prompt per line. Categories may be written with capitals, "rotational" or "basic motion".
        benchmark: whose categories are known, "videojam" or "moviegen".

    Raises:
        MotionLabError: no such file, no prompts, an unknown category (line and nearest named), an unknown format.
    """
    known, path = CATEGORIES[one_of(benchmark, CATEGORIES, "benchmark")], Path(path)
    try:
        rows = _rows(path)
    except (FileNotFoundError, IsADirectoryError):
        raise MotionLabError(f"No prompt file at '{path}'.",
                             fix="Give a .csv with the columns prompt and category, a .json list or a .txt.") from None
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise MotionLabError(f"{path} cannot be read as prompts ({error}).",
                             fix="Give a .csv with the columns prompt and category, a .json list or a .txt.") from None
    out = [(text.strip(), _category(name, known, f"{path.name}, prompt {k}")) for k, (text, name) in enumerate(rows, 1) if text.strip()]
    if not out:
        raise MotionLabError(f"{path} holds no prompts.", fix="One prompt per line or row.")
    return out


def _rows(path):
    import csv
    import json

    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".txt":
        return [(line, None) for line in text.splitlines()]
    if path.suffix == ".json":
        return [(row, None) if isinstance(row, str) else (row["prompt"], row.get("category")) for row in json.loads(text)]
    if path.suffix in (".csv", ".tsv"):
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ","))
        return [(row["prompt"], row.get("category")) for row in rows]
    raise ValueError(f"unknown ending '{path.suffix}'")


def _category(name, known, where):
    if not name:
        return None
    plain = name.strip().lower().removesuffix(" motion").replace("rotational", "rotation").replace("_", " ")
    try:
        return one_of(plain, known, "category")
    except MotionLabError as error:
        raise MotionLabError(f"{where}: {error.what}", fix=error.fix) from None
