"""Figures and videos of notebook runs, by the claims that they name."""
from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from motionlab.ledger.standings import Chapter

PNG_HEAD = struct.Struct(">8s8xII")
LEGIBLE = 99          # pixels per inch at which the smallest text of a figure, 8 points, is 11 pixels high


@dataclass(frozen=True)
class Picture:
    """A figure or a video of a run, with its size in pixels and the width at which its text can be read (0: any)."""

    path: Path
    alt: str
    caption: str
    claims: tuple[str, ...]
    width: int
    height: int
    legible: int = 0
    poster: Path | None = None

    @property
    def moves(self) -> bool:
        return self.path.suffix == ".mp4"


@dataclass(frozen=True)
class Run:
    """A notebook run with what it drew. own: the reader's, not the published one. executed: its notebook, where it is there."""

    name: str
    result: dict
    own: bool
    executed: Path | None
    pictures: tuple[Picture, ...] = field(default=())

    def of(self, claim: str) -> list[Picture]:
        """Its pictures for one claim."""
        return [one for one in self.pictures if claim in one.claims]

    @property
    def others(self) -> list[Picture]:
        """Its pictures that name no claim."""
        return [one for one in self.pictures if not one.claims]


def runs_of(one: Chapter) -> dict[str, Run]:
    """{notebook: run} of a chapter, published ones in place of the reader's, with what is still there of their pictures."""
    runs = {name: (*run, True) for name, run in one.your_runs.items()} | {name: (*run, False) for name, run in one.runs.items()}
    return {name: run_of(name, *runs[name]) for name in sorted(runs)}


def run_of(name: str, result: dict, folder: Path, own: bool) -> Run:
    """A run with those of its pictures that are still there."""
    executed = folder.parent / ("executed.ipynb" if own else f"executed/{name}.ipynb")
    entries = result.get("figures", []) + result.get("videos", [])
    pictures = tuple(picture(entry, folder) for entry in entries if (folder / entry["file"]).is_file())
    return Run(name, result, own, executed if executed.is_file() else None, pictures)


def picture(entry: dict, folder: Path) -> Picture:
    """An entry of a result as a picture; one without a caption is called by its file's name."""
    path, poster = folder / entry["file"], entry.get("poster") and folder / entry["poster"]
    caption = entry.get("caption") or ""
    alt = entry.get("alt") or caption or path.stem.replace("_", " ")
    width, height = entry.get("size") or png_size(path) or (640, 400)
    drawn = path.suffix == ".png"
    return Picture(path, alt, caption, tuple(entry.get("claims", ())), int(width or 640), int(height or 400),
                   round(width * LEGIBLE / resolution(path)) if drawn and width else 0, poster if poster and poster.is_file() else None)


def png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG, from its head; None of anything else."""
    with open(path, "rb") as file:
        head = file.read(PNG_HEAD.size)
    if len(head) < PNG_HEAD.size or not head.startswith(b"\x89PNG"):
        return None
    return PNG_HEAD.unpack(head)[1:]


def resolution(path: Path) -> float:
    """Pixels per inch at which a PNG was drawn, as its pHYs chunk says; 144 where it does not, as figures are saved."""
    with open(path, "rb") as file:
        head = file.read(4096)
    at = head.find(b"pHYs")
    if at < 0 or len(head) < at + 13:
        return 144.0
    per_metre = struct.unpack(">I", head[at + 4:at + 8])[0]
    return per_metre * 0.0254 if 36 < per_metre * 0.0254 < 1200 else 144.0
