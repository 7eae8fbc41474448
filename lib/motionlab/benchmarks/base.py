"""What a benchmark is: items that videos are made for, and parts that score a video."""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from motionlab.video import RealClip


@dataclass(frozen=True)
class Column:
    """One score.

    Attributes:
        name, title, says: in the files, on the page, and what it is in a sentence.
        draws: columns that hold the same score under other random draws; this one is their mean, and the summary tells the spread.
    """

    name: str
    title: str
    says: str
    draws: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """What videos are made for: one prompt of one clip (or of one pair of pictures).

    Attributes:
        group: the clip; scores of one clip belong together, and its name can tell equal prompts apart in a folder of videos.
        prompt: the text that names its videos.
        tier: which part of the benchmark it counts in.
        facts: text beside it in the table.
        stamp: changes with the data that its scores depend on.
        data: what the benchmark's own parts need.
    """

    group: str
    prompt: str
    tier: str
    facts: dict[str, str] = field(default_factory=dict)
    stamp: Any = None
    data: Any = None


class Part(ABC):
    """Scores that are computed together and kept together.

    Attributes:
        name: of what is kept. columns: its scores. facts: names of what else `score` returns, text or numbers.
        absent: why there are no scores ("" where there are): its columns stay empty, and the page says so.
    """

    name: ClassVar[str]
    columns: tuple[Column, ...] = ()
    facts: tuple[str, ...] = ()
    absent: str = ""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that decides the scores beside code, item and video, as plain values."""

    def check(self, items: list[Item]) -> None:
        """Raise a MotionLabError for what would go wrong later; before anything long starts."""

    def open(self) -> None:
        """Load what `score` needs; called once, and only when something is to be scored."""

    @abstractmethod
    def score(self, item: Item, clip: RealClip) -> dict[str, float | int | str | None]:
        """The columns and facts of one video. None or NaN: undefined for this video.

        Raises:
            MotionLabError: this video cannot be scored.
        """


class Benchmark(ABC):
    """A benchmark's data and settings.

    Attributes:
        name, title: as asked for, and on the page.
        Settings: frozen dataclass of what a user may set.
        tiers: in the order of the tables.
        notes: what a reader must know before comparing with published numbers.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Settings: ClassVar[type]
    tiers: ClassVar[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def __init__(self, data: Path, settings: Any):
        """Read the benchmark's data; errors of the data are raised here."""

    @abstractmethod
    def items(self) -> list[Item]:
        """All that videos may be made for, those of one group in a row."""

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """What scores a video, in the order of the columns."""

    def after(self, scoring: Any) -> list[str]:
        """What is to be said of the whole set once all videos are scored, in lines; scoring: `scoring.Scoring`."""
        return []
