"""Where clips come from: a range of the world's seeds, a folder of videos with captions, or one video."""
from __future__ import annotations

import csv
import io
import warnings
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from motionlab.core.errors import MotionLabError, nearest
from motionlab.data.bank import BankConfig, bank_seeds, training_scene
from motionlab.data.sidecars import digest
from motionlab.models.checkpoint import fingerprint
from motionlab.video import RealClip, cuts_said, read_video
from motionlab.world import Clip, render
from motionlab.world.captions import describe, sentence


@lru_cache(maxsize=4)          # several sidecars are drawn of a clip one after the other
def _rendered(seed: int, size, frames: int, fps: float) -> Clip:
    return render(training_scene(seed), size, frames, fps)


@dataclass(frozen=True)
class World:
    """Clips of a range of world seeds, rendered when they are asked for; `exact`: they carry their own truth.

    fps: frames per second; 9 frames at 8 are every other one of 17 at 16."""

    config: BankConfig
    fps: float = 16.0
    exact = True

    @property
    def name(self) -> str:
        """Readable, for folders and messages."""
        c = self.config
        said = ("_balanced" if c.balanced else "") + ("" if self.fps == 16 else f"_{self.fps:g}fps")
        return f"{c.split}_{c.offset}_{c.clips}x{c.frames}x{c.size}{said}"

    @cached_property
    def seeds(self) -> list[int]:
        """World seeds; no seed whose scene the protocol keeps from this split."""
        return bank_seeds(self.config)

    @cached_property
    def captions(self) -> list[str]:
        """One per clip."""
        return [sentence(describe(training_scene(seed))) for seed in self.seeds]

    def __len__(self) -> int:
        return self.config.clips

    def clip(self, i: int) -> Clip:
        """Clip i with its exact truth."""
        return _rendered(self.seeds[i], self.config.size, self.config.frames, self.fps)

    def larger(self, i: int, size: int) -> Clip:
        """The scene of clip i rendered `size` pixels high and wide; 0: clip i itself."""
        return _rendered(self.seeds[i], size or self.config.size, self.config.frames, self.fps)

    def hash(self) -> str:
        """Names these very clips."""
        config = {k: v for k, v in asdict(self.config).items() if k != "flow" and (k != "balanced" or v)}
        return digest({"config": config, "seeds": self.seeds} | ({} if self.fps == 16 else {"fps": self.fps}))


@dataclass(frozen=True)
class Listed:
    """Clips that are there already, with their exact truth."""

    clips: list
    name = "listed"
    exact = True

    def clip(self, i: int):
        """Clip i."""
        return self.clips[i]

    def larger(self, i: int, size: int) -> Clip:
        """Clip i rendered again, `size` pixels high and wide; 0: itself."""
        clip = self.clips[i]
        return render(clip.scene, size, len(clip.frames), clip.fps) if size and size != clip.size[0] else clip

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True)
class Folder:
    """Videos of a folder with a caption each, cut to one size and length.

    Captions: a file captions.csv with the columns file and caption, or clip.txt beside clip.mp4. leave_out: the last so many videos
    by name are left out; where it is negative, only those are in.
    """

    folder: Path
    frames: int
    size: tuple[int, int]
    fps: float = 0.0
    leave_out: int = 0
    exact = False

    @property
    def name(self) -> str:
        part = f"_without_{self.leave_out}" if self.leave_out > 0 else f"_last_{-self.leave_out}" if self.leave_out else ""
        return f"{Path(self.folder).name}_{self.frames}x{self.size[0]}x{self.size[1]}{part}"

    @cached_property
    def _found(self) -> list[tuple[Path, str]]:
        return part_of(find_clips(self.folder), self.leave_out, self.folder)

    @property
    def files(self) -> list[str]:
        """The videos' names."""
        return [path.name for path, _ in self._found]

    @cached_property
    def captions(self) -> list[str]:
        """One per video."""
        return [caption for _, caption in self._found]

    def __len__(self) -> int:
        return len(self._found)

    def clip(self, i: int) -> RealClip:
        """Video i, cropped, resized, at `fps` frames per second.

        Raises:
            MotionLabError: unreadable, too short, or of fewer frames per second than are asked for: some would repeat.
        """
        return _read(self._found[i][0], self)

    def hash(self) -> str:
        """Names these very files, by their contents."""
        return digest({"videos": [fingerprint(path) for path, _ in self._found], "captions": self.captions,
                       "frames": self.frames, "size": self.size, "fps": self.fps})


@dataclass(frozen=True)
class Single:
    """One video with its caption, cut to one size and length, and what is known of it.

    crop: its middle is cut out to keep the aspect; False stretches it. tracks_file, mask_file: see `data.tracks.load_tracks` and
    `load_mask`. cotracker: weights of CoTracker3, "" for none.
    """

    video: Path
    caption: str
    frames: int
    size: tuple[int, int]
    fps: float = 0.0
    crop: bool = True
    tracks_file: str = ""
    mask_file: str = ""
    cotracker: str = ""
    exact = False

    @property
    def name(self) -> str:
        return f"{Path(self.video).stem}_{self.frames}x{self.size[0]}x{self.size[1]}"

    @property
    def captions(self) -> list[str]:
        """Of the one video."""
        return [self.caption]

    @property
    def files(self) -> list[str]:
        """The video's name."""
        return [Path(self.video).name]

    def __len__(self) -> int:
        return 1

    @cached_property
    def _clip(self) -> RealClip:
        return _read(Path(self.video), self, self.crop)

    def clip(self, i: int = 0) -> RealClip:
        """The video; errors as `Folder.clip`."""
        return self._clip

    def hash(self) -> str:
        """Names these very files, by their contents."""
        files = [fingerprint(path) if path else "" for path in (self.video, self.tracks_file, self.mask_file, self.cotracker)]
        same = {name: getattr(self, name) for name in ("caption", "frames", "size", "fps", "crop")}
        return digest({"files": files} | same)


@dataclass(frozen=True)
class Some:
    """Some clips of another source, by their numbers."""

    source: object
    rows: tuple[int, ...]

    @property
    def exact(self) -> bool:
        """As of the source."""
        return self.source.exact

    @property
    def crop(self) -> bool:
        """As of the source."""
        return getattr(self.source, "crop", True)

    @property
    def name(self) -> str:
        return f"{self.source.name}_{len(self.rows)}of{len(self.source)}"

    @property
    def captions(self) -> list[str]:
        """Of these clips."""
        return [self.source.captions[i] for i in self.rows]

    @property
    def files(self) -> list[str]:
        """Their files' names."""
        return [self.source.files[i] for i in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def clip(self, i: int):
        """The i-th of these clips; errors as of the source."""
        return self.source.clip(self.rows[i])

    def larger(self, i: int, size: int):
        """As of the source."""
        return self.source.larger(self.rows[i], size)

    def hash(self) -> str:
        """Names these very clips."""
        return digest({"source": self.source.hash(), "rows": self.rows})


def _read(video, wanted, crop=True):
    """A video as a source wants it: its frames, size and fps."""
    clip = read_video(video, size=wanted.size, crop="center" if crop else None, fps=wanted.fps or None, max_frames=wanted.frames)
    if wanted.fps and clip.source_fps < 0.99 * wanted.fps:
        raise MotionLabError(f"'{video.name}' has {clip.source_fps:g} frames per second: at {wanted.fps:g} some would repeat, "
                             "and a repeated frame has no flow.",
                             fix=f"Take it out, or train with -p fps={clip.source_fps:g}.")
    if len(clip.frames) < wanted.frames:
        at = f", at {wanted.fps:g} per second" if wanted.fps else ""
        raise MotionLabError(f"'{video.name}' has {len(clip.frames)} of the {wanted.frames} frames that are needed{at}.",
                             fix="Take it out, or train on shorter clips with -p frames=N.")
    if said := cuts_said(clip.frames, video.name):
        warnings.warn(said, stacklevel=2)             # once for each video, however many sidecars are drawn of it
    return clip


def part_of(clips: list, leave_out: int, folder: str | Path) -> list:
    """The clips that `Folder` has with this `leave_out`.

    Raises:
        MotionLabError: none would be left.
    """
    if abs(leave_out) >= len(clips):
        raise MotionLabError(f"Of the {len(clips)} videos in '{folder}' {abs(leave_out)} are to be held out.",
                             fix="Hold out fewer, so that some are left to train on.")
    return clips[len(clips) + leave_out:] if leave_out < 0 else clips[:len(clips) - leave_out]


def find_clips(folder: str | Path) -> list[tuple[Path, str]]:
    """(video, caption) of all *.mp4 in a folder, by name.

    Captions are the rows of captions.csv in it (columns file and caption), or NAME.txt beside NAME.mp4.

    Raises:
        MotionLabError: no such folder, no videos, a video without caption, a caption without video.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MotionLabError(f"There is no folder '{folder}'.", fix="Give the folder that holds the videos.")
    videos, rows = sorted(folder.glob("*.mp4")), _read_captions(folder / "captions.csv")
    if not videos:
        raise MotionLabError(f"'{folder}' holds no *.mp4.", fix="Put the videos into it; ffmpeg rewrites other kinds of files.")
    names = [video.name for video in videos]
    for name in rows:
        if name not in names:
            raise MotionLabError(f"captions.csv names '{name}', which is not in '{folder}'.{nearest(name, names)}",
                                 fix="Correct the name, or take the row out.")
    clips = [(video, (rows.get(video.name) or _sidecar(video)).strip()) for video in videos]
    bare = [video.name for video, caption in clips if not caption]
    if bare:
        raise MotionLabError(f"{len(bare)} of {len(clips)} videos in '{folder}' have no caption, first '{bare[0]}'.",
                             fix=f"Add a row to captions.csv (file, caption), or {Path(bare[0]).stem}.txt beside it.")
    return clips


def _read_captions(path):
    if not path.is_file():
        return {}
    try:
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))  # a line break in quotes stays in its field
        return {row["file"]: " ".join((row["caption"] or "").split()) for row in rows}
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        raise MotionLabError(f"'{path}' cannot be read as captions ({error}).",
                             fix="Its columns are file and caption.") from None


def _sidecar(video):
    text = video.with_suffix(".txt")
    return text.read_text(encoding="utf-8") if text.is_file() else ""
