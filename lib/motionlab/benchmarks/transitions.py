"""Benchmarks of transitions between two pictures: MorphBench, TC-Bench-I2V, TransitBench (method card vtg, 6).

MorphBench and TransitBench are read from a user's folder with pairs.csv: first, last (pictures beside it), text_first, text_last, split,
and name where videos are called otherwise than 000.mp4, 001.mp4, ... in the order of the rows, as `motionlab sample` writes them.
TC-Bench's own JSON is read as it is; its videos are called 00012-00003.mp4, prompt and draw.
"""
from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from motionlab.benchmarks.base import Benchmark, Column, Item, Part
from motionlab.core.errors import MotionLabError
from motionlab.core.files import parse_json
from motionlab.data import pairs as data
from motionlab.metrics.transitions.completion import completed, read_answers, tc_score
from motionlab.metrics.transitions.plane import jump
from motionlab.metrics.transitions.published import completion_by_embedding, draws_of, fid_of_frames, path_length, smoothness
from motionlab.models.pretrained.encoders import encoder_stamp, open_clip
from motionlab.models.pretrained.perceptual import open_inception, open_lpips
from motionlab.teachers.folders import check_encoder
from motionlab.video import RealClip, read_video

PAIRS, PROMPTS = "pairs.csv", "i2v_prompts.json"
COLUMNS = (*data.COLUMNS, "split")
WITHOUT = "No {} were given ({})."


@dataclass(frozen=True)
class Settings:
    """What a user may set.

    alexnet, lpips: files of LPIPS's trunk and linear weights (`models.pretrained.perceptual`); inception: FID's, as TorchScript; clip: a
    folder of CLIP as transformers writes it; "": their columns stay empty. answers: of TC-Bench, the judge's file of answers.
    threshold: cosine from which on a frame counts as an end, in VTG's wording of TCR; its own is not known.
    """

    alexnet: str = ""
    lpips: str = ""
    inception: str = ""
    clip: str = ""
    answers: str = ""
    threshold: float = 0.9
    device: str = "cpu"

    def __post_init__(self):
        if not 0 < self.threshold <= 1:
            raise MotionLabError(f"threshold is {self.threshold}.", fix="Give a cosine above 0, at most 1, for example 0.9.")
        if bool(self.alexnet) != bool(self.lpips):
            raise MotionLabError("Of LPIPS one of its two files is given.", fix="Give both: -p alexnet=FILE -p lpips=FILE.")


@dataclass(frozen=True)
class Ends:
    """The pictures of one pair, where they are known."""

    first: Path | None = None
    last: Path | None = None

    def pictures(self, size: tuple[int, int]) -> np.ndarray | None:
        """(2, h, w, 3) uint8 at a video's size, cropped and resized as sampling does; None where they are not known."""
        if self.first is None or self.last is None:
            return None
        return np.concatenate([read_video(path, size=size, max_frames=1).frames for path in (self.first, self.last)])


class Pairs(Benchmark):
    """Pairs of a user's folder; subclasses say whose benchmark it is."""

    Settings: ClassVar[type] = Settings
    tiers: ClassVar[tuple[str, ...]] = ()
    notes = (
        "PPL is M times the sum of LPIPS over the M gaps of a clip: it depends on the number of frames, which `gaps` tells.",
        "FID is of two in-between frames drawn from each clip against all ends, mean of ten draws. Sets are far smaller than its 2048 "
        "directions: values are biased upwards and compare at equal numbers of pairs only. A hard cut is best by construction.",
        "1 - G does not ask how much moves: consistency, the mean LPIPS of neighbours, stands beside it. A frozen clip has none.",
    )

    def __init__(self, data: Path, settings: Settings):
        self.given = settings
        self.pairs = read_pairs(Path(data) / PAIRS, self.tiers)

    def items(self) -> list[Item]:
        """One per row, by its name."""
        return [Item(name, name, row["split"], {"first": row["text_first"], "last": row["text_last"]}, _stamp(ends), ends)
                for name, row, ends in self.pairs]

    def parts(self) -> tuple[Part, ...]:
        """Ends, steps, embeddings."""
        return KeptEnds(), Steps(self.given), Embeddings(self.given)

    def after(self, scoring) -> list[str]:
        """The sets' FID, in lines."""
        return fid_lines(scoring, self.given)


class MorphBench(Pairs):
    """66 pairs of different objects, 24 of one object in two states (DiffMorpher)."""

    name, title, tiers = "morphbench", "MorphBench: morphing between two pictures", ("metamorphosis", "animation")


class TransitBench(Pairs):
    """200 pairs of two concepts or two scenes (VTG)."""

    name, title, tiers = "transitbench", "TransitBench: transitions between concepts and scenes", ("concept-blending", "scene-transition")


class TCBench(Benchmark):
    """120 prompts with real clips; a closed vision-language model answers assertions about frames."""

    name, title, Settings = "tcbench", "TC-Bench-I2V: completion of a transition", Settings
    tiers: ClassVar[tuple[str, ...]] = ("attribute binding", "object binding", "background shifts")
    notes = (
        "TCR is the percentage of clips of which every assertion holds, those about other objects left out. TC-Score is 2/3 of the share "
        "that holds, object consistency left out, and 1/3 of a ramp over the similarity of neighbouring frames (0 at 0.90, 1 at 0.98), "
        "here the cosine of CLIP's embeddings; without CLIP it is the plain share of all assertions, as in the release.",
    )

    def __init__(self, data: Path, settings: Settings):
        self.given, self.prompts = settings, read_prompts(Path(data) / PROMPTS)
        self.answers = read_answers(settings.answers) if settings.answers else {}

    def items(self) -> list[Item]:
        """One per prompt, by its number."""
        found = []
        for number, prompt in self.prompts.items():
            mine = {clip: said for clip, said in self.answers.items() if clip.split("-")[0] == number}
            found.append(Item(number, number, prompt["type"], {"says": prompt["prompt"]}, mine, Ends()))
        return found

    def parts(self) -> tuple[Part, ...]:
        """Assertions, steps."""
        return Completion(self.given, self.answers), Steps(self.given)

    def after(self, scoring) -> list[str]:
        """Which answered clips have no video."""
        names = {job.video.stem for job in scoring.jobs}
        lost = sorted(set(self.answers) - names)
        return [f"{len(lost)} clips with answers have no video: {', '.join(lost[:5])}"] if lost else []


# ---------------------------------------------------------------------------------------------- the data
def read_pairs(path: Path, tiers: tuple[str, ...]) -> list[tuple[str, dict[str, str], Ends]]:
    """(name, row, ends) of every row of a pairs.csv. A picture that is missing leaves its columns empty: the rest is scored.

    Raises:
        MotionLabError: no such file, a column that is missing, no rows, an unknown split, one text of two, a name twice.
    """
    out = [_pair(path, number, where, row, tiers) for number, (where, row) in enumerate(data.read_pairs(path, COLUMNS))]
    names = [name for name, *_ in out]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise MotionLabError(f"'{path}' has two pairs of the name '{twice}'.", fix="Give each row a name of its own.")
    return out


def _pair(path, number, where, row, tiers):
    if row["split"] not in tiers:
        raise MotionLabError(f"{where}: the split is '{row['split']}'.", fix=f"Write {' or '.join(tiers)}.")
    found = [path.parent / row[side] if row[side] else None for side in ("first", "last")]
    return row.get("name") or f"{number:03d}", row, Ends(*(one if one is not None and one.is_file() else None for one in found))


def read_prompts(path: Path) -> dict[str, dict[str, str]]:
    """{"00012": {"prompt", "type"}} of TC-Bench's i2v_prompts.json.

    Raises:
        MotionLabError: no such file, not such a file.
    """
    try:
        found = {f"{int(one['id']):05d}": {"prompt": str(one["prompt"]), "type": str(one["type"])}
                 for one in parse_json(path.read_text(encoding="utf-8"))}
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MotionLabError(f"There is no '{path}'.", fix="Give the folder of a checkout of TC-Bench, as it is.") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MotionLabError(f"'{path}' holds no prompts of TC-Bench ({error}).", fix="Give its own i2v_prompts.json.") from None
    unknown = next((one["type"] for one in found.values() if one["type"] not in TCBench.tiers), None)
    if unknown is not None or not found:
        raise MotionLabError(f"'{path}' has prompts of the type '{unknown}'." if found else f"'{path}' holds no prompts.",
                             fix=f"Its types are {', '.join(TCBench.tiers)}.")
    return found


def _stamp(ends):
    return [None if path is None else [path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in (ends.first, ends.last)]


# ---------------------------------------------------------------------------------------------- the parts
class KeptEnds(Part):
    """Are the given pictures kept?"""

    name = "ends"
    columns = (Column("psnr_first", "PSNR, frame 1", "of the first frame to the given picture, dB"),
               Column("psnr_last", "PSNR, frame N", "of the last frame to the given picture, dB"))

    def settings(self) -> dict:
        """None."""
        return {}

    def score(self, item: Item, clip: RealClip) -> dict:
        """Both columns; undefined where a picture is missing."""
        ends = item.data.pictures(clip.frames.shape[1:3])
        if ends is None:
            return dict.fromkeys(("psnr_first", "psnr_last"))
        errors = [((clip.frames[at].astype(float) - end) ** 2).mean() for at, end in zip((0, -1), ends)]
        return {name: float(10 * np.log10(255 ** 2 / max(error, 1e-2))) for name, error in zip(("psnr_first", "psnr_last"), errors)}


class Steps(Part):
    """Distances of neighbouring frames by LPIPS."""

    name = "steps"
    columns = (Column("ppl", "PPL", "perceptual path length: M times the sum of LPIPS over the M gaps; less is better"),
               Column("smooth", "1 - G", "1 - Gini of the gaps' distances: more is smoother"),
               Column("smooth_inverse", "1/G", "the same, inverted"),
               Column("consistency", "consistency", "mean LPIPS of neighbours"),
               Column("consistency_max", "largest gap", "largest LPIPS of neighbours"),
               Column("jump", "jump", "largest gap as a share of all: 1/M is even, 1 a cut"))
    facts = ("gaps",)

    def __init__(self, settings: Settings):
        self.given = settings
        self.absent = "" if settings.lpips else WITHOUT.format("files of LPIPS", "-p alexnet=FILE -p lpips=FILE")

    def settings(self) -> dict:
        """The files, by name and size."""
        return {name: [Path(path).name, Path(path).stat().st_size] if Path(path).is_file() else path
                for name, path in (("alexnet", self.given.alexnet), ("lpips", self.given.lpips))}

    def check(self, items: list[Item]) -> None:
        """Errors as `open_lpips`."""
        self.lpips = open_lpips(self.given.alexnet, self.given.lpips, self.given.device)

    def score(self, item: Item, clip: RealClip) -> dict:
        """Columns and the number of gaps."""
        if len(clip.frames) < 3:
            raise MotionLabError(f"'{clip.path}' has {len(clip.frames)} frames: nothing lies between its ends.", fix="Make it longer.")
        steps = self.lpips.steps(clip.frames)
        return {"ppl": path_length(steps), **smoothness(steps), "jump": jump(steps), "gaps": len(steps)}


class Embeddings(Part):
    """VTG's wording of TCR and TC-Score, by CLIP."""

    name = "embeddings"
    columns = (Column("tcr_clip", "TCR (CLIP)", "percentage of frames whose embedding is within the threshold of either end"),
               Column("tc_clip", "TC-Score (CLIP)", "mean cosine of neighbouring frames"))

    def __init__(self, settings: Settings):
        self.given = settings
        self.absent = "" if settings.clip else WITHOUT.format("weights of CLIP", "-p clip=DIR")

    def settings(self) -> dict:
        """The weights and the threshold."""
        return {"clip": encoder_stamp(check_encoder(self.given.clip, "clip")), "threshold": self.given.threshold}

    def open(self) -> None:
        """Load CLIP; errors as `open_clip`."""
        self.clip = open_clip(self.given.clip, self.given.device)

    def score(self, item: Item, clip: RealClip) -> dict:
        """Both columns; the first is undefined where a picture is missing."""
        ends, features = item.data.pictures(clip.frames.shape[1:3]), self.clip.images(clip.frames)
        found = completion_by_embedding(features, features[[0, -1]] if ends is None else self.clip.images(ends), self.given.threshold)
        return {"tcr_clip": None if ends is None else 100 * found["tcr_clip"], "tc_clip": found["tc_clip"]}


class Completion(Part):
    """TC-Bench's assertions, from a file of answers."""

    name = "completion"
    columns = (Column("tcr", "TCR", "percentage of clips of which every assertion holds, but those about other objects"),
               Column("tc_score", "TC-Score", "share of assertions and similarity of neighbours, 0 to 1"))
    facts = ("similarity",)

    def __init__(self, settings: Settings, answers: dict):
        self.given, self.answers = settings, answers
        self.absent = "" if settings.answers else WITHOUT.format("answers of a judge", "-p answers=FILE")

    def settings(self) -> dict:
        """The encoder of the similarity."""
        return {"clip": encoder_stamp(check_encoder(self.given.clip, "clip")) if self.given.clip else ""}

    def open(self) -> None:
        """Load CLIP where it is given."""
        self.clip = open_clip(self.given.clip, self.given.device) if self.given.clip else None

    def score(self, item: Item, clip: RealClip) -> dict:
        """Columns of one clip, found by its name.

        Raises:
            MotionLabError: a clip that no answer is about.
        """
        said = self.answers.get(Path(clip.path).stem)
        if said is None:
            raise MotionLabError(f"No answers are about '{Path(clip.path).stem}'.",
                                 fix="Name videos as the file of answers does: 00012-00003.mp4.")
        similarity = None
        if self.clip is not None:
            similarity = completion_by_embedding(*2 * [self.clip.images(clip.frames)])["tc_clip"]
        return {"tcr": 100.0 * completed(said), "tc_score": tc_score(said, similarity), "similarity": similarity}


# ---------------------------------------------------------------------------------------------- of a whole set
def fid_lines(scoring, given: Settings) -> list[str]:
    """FID of each split's clips against its ends, one draw of a pair's videos, in lines; how many pairs it is of."""
    if not given.inception:
        return [f"FID: not computed. {WITHOUT.format('weights of Inception', '-p inception=FILE')}"]
    network, groups = open_inception(given.inception, given.device), defaultdict(list)
    for job in scoring.jobs:
        if job.draw == 0 and job.video not in scoring.failed:
            groups[job.item.tier].append(job)
    lines = []
    for tier, jobs in groups.items():
        clips = [(read_video(job.video).frames, job.item.data) for job in jobs]
        both = [(clip, ends.pictures(clip.shape[1:3])) for clip, ends in clips]
        both = [(clip, ends) for clip, ends in both if ends is not None and len(clip) > 2]
        if len(both) < 2:
            lines.append(f"FID {tier}: fewer than two pairs with both pictures")
            continue
        reference = np.stack([network(ends) for _, ends in both])
        values = [fid_of_frames(np.stack([network(clip[numbers]) for (clip, _), numbers in zip(both, draw)]), reference)
                  for draw in _even(draws_of([len(clip) for clip, _ in both]))]
        lines.append(f"FID {tier}: {np.mean(values):.2f} ({len(both)} pairs, {2 * len(both)} ends)")
    return lines


def _even(draws):
    """Draws of as many frames from every clip."""
    least = min(len(numbers) for draw in draws for numbers in draw)
    return [[numbers[:least] for numbers in draw] for draw in draws]
