"""The folder layout of MTBench, DeT's benchmark of motion transfer."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionlab.core.errors import MotionLabError
from motionlab.video.clip import RealClip
from motionlab.video.decoding import opened, picture_track, reason_of
from motionlab.video.mtbench_tiers import tier_of_folder
from motionlab.video.reading import existing_file, read_video


@dataclass(frozen=True)
class MTBenchClip:
    """One case of MTBench (DeT, arXiv 2503.17350; layout: method card det, section 5.2).

    Attributes:
        name: the video's file name without suffix.
        folder: the case's folder.
        caption: what the clip shows.
        eval_prompts: the prompts to transfer its motion to, stray blanks removed.
        video_path: the clip.
        mask_paths: one picture per frame of the *original* clip, in order: often more than the video has frames.
        xy: float32 (f, n, 2), (x, y) in pixels of `size`; may lie outside the frame.
        visible: bool (f, n). The release queried its tracker at frame 1, so frame 1, not 0, is where all are visible.
        size: (height, width) of the video, in which `xy` and the masks are given.
        tier: "easy", "medium" or "hard", where a folder's name says so (MTBench_hard/...); else None.
    """

    name: str
    folder: Path
    caption: str
    eval_prompts: tuple[str, ...]
    video_path: Path
    mask_paths: tuple[Path, ...]
    xy: np.ndarray
    visible: np.ndarray
    size: tuple[int, int]
    tier: str | None = None

    def video(self, **options) -> RealClip:
        """The clip; `options` as for `read_video`."""
        return read_video(self.video_path, **options)

    def mask(self, index: int = 0) -> np.ndarray:
        """Foreground of one mask picture, bool (h, w): any grey other than 0 counts, as in the release (`det.md` 5.2).

        Only mask 0 is sure to match a video frame (frame 0).

        Raises:
            MotionLabError: no such mask, unreadable, empty, or of another size than the video.
        """
        if not 0 <= index < len(self.mask_paths):
            raise MotionLabError(f"Clip '{self.name}' has {len(self.mask_paths)} masks, there is no mask {index}.")
        file = self.mask_paths[index]
        mask = _read_gray(file) > 0
        if mask.shape != self.size:
            raise MotionLabError(f"Mask '{file}' is {mask.shape}, but the video is {self.size} (height, width).",
                                 fix="Export the masks at the size of the video.")
        if not mask.any():
            raise MotionLabError(f"Mask '{file}' is empty: it marks no foreground.")
        return mask

    def masks_of_video(self, frames: int) -> np.ndarray:
        """Foreground for each of the first `frames` video frames, bool (frames, h, w).

        The release takes every floor(count / frames)-th original frame from the first on; of the hypotheses tried on
        its example cases this one puts most visible tracks inside the masks. Empty masks are allowed here.

        Raises:
            MotionLabError: fewer masks than frames (the video was then interpolated), or a mask of another size.
        """
        if not 1 <= frames <= len(self.mask_paths):
            raise MotionLabError(f"Clip '{self.name}' has {len(self.mask_paths)} masks for {frames} frames.",
                                 fix="Use mask(0) for the first frame.")
        stride = len(self.mask_paths) // frames
        masks = [_read_gray(self.mask_paths[stride * i]) > 0 for i in range(frames)]
        wrong = [mask.shape for mask in masks if mask.shape != self.size]
        if wrong:
            raise MotionLabError(f"A mask of clip '{self.name}' is {wrong[0]}, "
                                 f"but the video is {self.size} (height, width).")
        return np.stack(masks)


def read_mtbench(folder: str | os.PathLike) -> list[MTBenchClip]:
    """Read a case folder, a folder of case folders, or one of tiers (MTBench_hard, ...) that hold them; sorted by folder name.

    A case folder holds prompts.txt, eval_prompts.txt, videos.txt, masks.txt and trajectories.txt: one line per clip
    (eval_prompts.txt: as many per clip), paths relative to the folder. Videos and masks are read later, when asked for.

    Raises:
        MotionLabError: a file is missing, lists disagree in length, or tracks are not (f, n, 3) finite numbers.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise MotionLabError(f"There is no folder '{folder}'.", fix="Give the folder that holds the MTBench cases.")
    if (folder / "videos.txt").is_file():
        return _read_case(folder, folder)
    cases = sorted({file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/videos.txt")})
    if not cases:
        raise MotionLabError(f"'{folder}' is no MTBench folder: neither it nor a folder inside it holds videos.txt.",
                             fix="A case holds videos.txt, masks.txt, trajectories.txt, prompts.txt, eval_prompts.txt.")
    return [clip for case in cases for clip in _read_case(case, folder)]


def _read_case(folder: Path, top: Path) -> list[MTBenchClip]:
    lists = {name: _lines(folder, name) for name in ("videos", "masks", "trajectories", "prompts", "eval_prompts")}
    count = len(lists["videos"])
    for name in ("masks", "trajectories", "prompts"):
        if len(lists[name]) != count:
            raise MotionLabError(f"'{folder}': videos.txt lists {count} clips, "
                                 f"but {name}.txt has {len(lists[name])} lines.")
    if not count or len(lists["eval_prompts"]) % count:
        raise MotionLabError(f"'{folder}': {len(lists['eval_prompts'])} lines in eval_prompts.txt cannot be shared "
                             f"among {count} clips.", fix="Give each clip the same number of lines.")
    each = len(lists["eval_prompts"]) // count
    tier = tier_of_folder(folder, top)
    return [_case(folder, tier, *(lists[name][i] for name in ("videos", "masks", "trajectories", "prompts")),
                  lists["eval_prompts"][i * each:(i + 1) * each]) for i in range(count)]


def _lines(folder: Path, name: str) -> list[str]:
    file = folder / f"{name}.txt"
    if not file.is_file():
        raise MotionLabError(f"'{folder}' lacks {file.name}.", fix="See read_mtbench for the files of a case.")
    text = file.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _case(folder: Path, tier: str | None, video: str, masks: str, trajectories: str, caption: str, prompts: list[str]) -> MTBenchClip:
    file = existing_file(folder / video)
    size = _picture_size(file)
    mask_paths = tuple(sorted((folder / masks).glob("*.png")))
    if not mask_paths:
        raise MotionLabError(f"'{folder / masks}' holds no mask pictures (*.png).", fix="Check masks.txt.")
    tracks = _read_trajectories(folder / trajectories)
    xy = (tracks[..., :2] * np.array([size[1], size[0]])).astype(np.float32)
    return MTBenchClip(file.stem, folder, caption, tuple(prompts), file, mask_paths, xy, tracks[..., 2] > 0.5, size, tier)


def _picture_size(file: Path) -> tuple[int, int]:
    with opened(file) as container:
        stream = picture_track(container, file)
        return stream.height, stream.width


def _read_trajectories(file: Path) -> np.ndarray:
    """Tracks (f, n, 3): x / width, y / height, visible."""
    import torch

    if not file.is_file():
        raise MotionLabError(f"There is no track file '{file}'.", fix="Check trajectories.txt.")
    try:
        tracks = torch.load(file, map_location="cpu", weights_only=True)  # tensors only: no code of the file runs
    except Exception as error:  # noqa: BLE001 - torch raises many kinds here
        raise MotionLabError(f"'{file}' cannot be read as a saved tensor ({type(error).__name__}).",
                             fix="Save plain tensors with torch.save; other objects are refused for safety.") from None
    if not isinstance(tracks, torch.Tensor) or tracks.ndim != 3 or tracks.shape[-1] != 3 or 0 in tracks.shape:
        got = tuple(tracks.shape) if isinstance(tracks, torch.Tensor) else type(tracks).__name__
        raise MotionLabError(f"Tracks in '{file}' must be (f, n, 3) = x/width, y/height, visible; got {got}.")
    tracks = tracks.double().numpy()
    if not np.isfinite(tracks).all():
        raise MotionLabError(f"Tracks in '{file}' contain NaN or infinite values.", fix="Track the clip again.")
    if np.abs(tracks[..., :2]).max() > 50:
        raise MotionLabError(f"Tracks in '{file}' reach {np.abs(tracks[..., :2]).max():.0f}: these look like pixels.",
                             fix="Divide x by the width and y by the height.")
    return tracks


def _read_gray(file: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError) as error:
        raise MotionLabError(f"Mask '{file}' cannot be read ({reason_of(error)}).",
                             fix="Export it again as png.") from None
