"""Which video was made for which item? By the prompt in the name of its folder, or in its own.

    FOLDER/<prompt>/*.mp4      several videos are several draws (seeds)
    FOLDER/<prompt>.mp4        also <prompt>-0.mp4, <prompt>_seed1.mp4
    FOLDER/<group>/...         either of the two below the group's name, which tells equal prompts of two groups apart

Names are forgiven what releases and file systems do to them: '_' for ' ', blanks at either end, case, the final dot, a lost last
letter (a release is known to cut the last character of every prompt, whether it is a dot or not). Anything that could mean two things is
an error that names both; nothing is guessed.
"""
from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from motionlab.benchmarks.base import Item
from motionlab.core.errors import MotionLabError, nearest

SUFFIX = ".mp4"
DEPTH = 4                                        # of folders below the one that is scored
DRAW = re.compile(r"[\s\-.]+(?:seed|sample)?[\s\-]*\d+$")      # the number of a draw after a prompt
LISTED = 3


@dataclass(frozen=True)
class Matched:
    """videos: of each item, by its index; missing: items without any; extra: videos that no item asked for."""

    videos: dict[int, list[Path]]
    missing: list[int]
    extra: list[Path]


def match(folder: Path, items: list[Item]) -> Matched:
    """The videos below `folder` of each item.

    Raises:
        MotionLabError: no such folder, no video in it, none that any item asked for, or names that fit two items.
    """
    found = videos_below(folder)
    names = _Names(items)
    by_item: dict[int, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    extra = []
    for video in found:
        item, place = names.item_of(video, folder)
        if item is None:
            extra.append(video)
        else:
            by_item[item][place].append(video)
    for item, places in by_item.items():
        _refuse_two_places(items[item], places, folder)
    if not by_item:
        raise _nothing(folder, found, items)
    videos = {item: sorted(sum(places.values(), []), key=_natural) for item, places in sorted(by_item.items())}
    return Matched(videos, [index for index in range(len(items)) if index not in videos], extra)


def videos_below(folder: Path) -> list[Path]:
    """The videos in a folder and at most four levels of folders below it, hidden ones left out.

    Raises:
        MotionLabError: no such folder, or no video in it.
    """
    if not folder.is_dir():
        beside = nearest(folder.name, [path.name for path in folder.parent.iterdir() if path.is_dir()]) if folder.parent.is_dir() else ""
        raise MotionLabError(f"There is no folder '{folder}'.{beside}", fix="Give the folder that holds the generated videos.")
    paths = [path for depth in range(DEPTH + 1) for path in folder.glob("*/" * depth + "*") if path.suffix.lower() == SUFFIX]
    found = [path for path in paths if path.is_file() and not any(name.startswith(".") for name in path.relative_to(folder).parts)]
    if not found:
        raise MotionLabError(f"'{folder}' holds no videos (*{SUFFIX}).", fix=f"Put them there as <prompt>/*{SUFFIX} or <prompt>{SUFFIX}.")
    return sorted(found)


def plain(text: str) -> str:
    """A prompt or a name as they are compared: one blank between words, none at the ends, no final dot, lower case."""
    text = re.sub(r"[\s_/\\]+", " ", unicodedata.normalize("NFC", text)).strip()
    return text.removesuffix(".").strip().casefold()


class _Names:
    """What the names of files and folders may mean."""

    def __init__(self, items: list[Item]):
        self.items = items
        self.whole, self.cut = defaultdict(list), defaultdict(list)
        self.groups = {plain(item.group) for item in items}
        for index, item in enumerate(items):
            self.whole[plain(item.prompt)].append(index)
            self.cut[plain(item.prompt)[:-1].strip()].append(index)

    def item_of(self, video: Path, folder: Path) -> tuple[int | None, str]:
        """The item that a video was made for (None: no one asked for it), and the place its name stands in."""
        above = [plain(name) for name in video.relative_to(folder).parts[:-1]]
        own = self._meant(video.stem, draws=True)
        outer = self._meant(video.parent.name, draws=False) if above else []
        if own and outer and not set(own) & set(outer):
            raise self._two(video, [own[0], outer[0]], "its folder's name fits one prompt, its own another")
        meant, place = (outer, f"{video.parent}/") if outer else (own, str(video.parent / self._base(video.stem)))
        above = above[:-1] if outer else above
        if not meant:
            return None, ""
        if len(meant) > 1:
            within = [index for index in meant if plain(self.items[index].group) in above]
            if len(within) != 1:
                raise self._two(video, within or meant, "both go by this name")
            meant = within
        elif (said := self.groups & set(above)) and plain(self.items[meant[0]].group) not in said:
            return None, ""                    # another group's folder: its own prompt of this name is not in the benchmark
        return meant[0], place

    def _meant(self, name: str, draws: bool) -> list[int]:
        """Items whose prompt the name is: whole or, if none, with its last letter lost; without the number of a draw."""
        texts = [plain(name)]
        if draws and (short := DRAW.sub("", texts[0])) not in ("", texts[0]):
            texts.append(plain(short))
        return next((list(table[text]) for table in (self.whole, self.cut) for text in texts if table.get(text)), [])

    def _base(self, stem: str) -> str:
        """The name that the draws of one prompt share."""
        text = plain(stem)
        return text if text in self.whole or text in self.cut else plain(DRAW.sub("", text))

    def _two(self, video: Path, indices: list[int], why: str) -> MotionLabError:
        first, second = (self.items[index] for index in indices[:2])
        return MotionLabError(f"'{video}' could be of '{first.prompt.strip()}' ({first.group}) or of '{second.prompt.strip()}' "
                              f"({second.group}): {why}.",
                              fix=f"Put the videos of each clip into a folder of its name, such as {first.group}/, or rename one.")


def _refuse_two_places(item: Item, places: dict[str, list[Path]], folder: Path) -> None:
    if len(places) > 1:
        first, second = (group[0].relative_to(folder) for group in list(places.values())[:2])
        raise MotionLabError(f"'{item.prompt.strip()}' ({item.group}) has videos under two names: '{first}' and '{second}'.",
                             fix="Several videos of one prompt belong into one folder, or share one name: move or remove one of the two.")


def _nothing(folder: Path, found: list[Path], items: list[Item]) -> MotionLabError:
    names = [str(path.relative_to(folder)) for path in found]
    shown = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
    wanted = plain(items[0].prompt).replace(" ", "_")
    return MotionLabError(f"None of the {len(found)} videos in '{folder}' belongs to a prompt of the benchmark: {shown}.",
                          fix=f"Name folders or files by the prompt, for example {wanted}/0.mp4 or {wanted}.mp4.")


def _natural(path: Path) -> list:
    """So that 10 comes after 9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name)]
