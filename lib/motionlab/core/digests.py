"""Known contents: SHA-256 and size of files that must not change unnoticed, listed beside the folder that holds them.

    checkpoints/base.safetensors          checkpoints.sha256:   <sha256>  <bytes>  base.safetensors

The list lies beside the folder, since what lies in it may itself be counted by contents (the `data` of a sweep).
"""
from __future__ import annotations

import hashlib
import re
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.files import copy_file, shown, write_atomic
from motionlab.core.locks import turn

LINE = re.compile(r"([0-9a-f]{64})  (\d+)  (.+)")


def digest_of(path: str | Path) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def list_of(folder: Path) -> Path:
    """Where the digests of a folder's files are listed."""
    return folder.with_name(f"{folder.name}.sha256")


def known_digests(path: Path) -> list[tuple[str, int]]:
    """Digests that `path` may have: none where it was never recorded, two while it is being replaced."""
    listed = list_of(path.parent)
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    found = [match for match in map(LINE.fullmatch, lines) if match]
    return [(match[1], int(match[2])) for match in found if match[3] == path.name]


def problem_of(path: Path) -> str | None:
    """What is wrong with a recorded file, in words; None when it is as recorded, or was never recorded."""
    if not path.is_file():
        return "it is missing"
    known = known_digests(path)
    if not known:
        return None
    if path.stat().st_size not in (size for _, size in known):
        return f"it has {path.stat().st_size} bytes in place of {known[-1][1]}"
    return None if digest_of(path) in known else "its contents changed since it was written"


def checked(path: str | Path, fix: str = "Restore it with git, or make it again.") -> Path:
    """`path`, when it is as recorded.

    Raises:
        MotionLabError: it is missing, cut short or changed.
    """
    problem = problem_of(Path(path))
    if problem:
        raise MotionLabError(f"{shown(path)} is not the file that was written: {problem}.", fix=fix)
    return Path(path)


def record(*paths: Path) -> None:
    """Take down the digests that these files have now."""
    for path in paths:
        _note(path, [digest_of(path)])


def forget(path: Path) -> None:
    """Take a file out of the list: it is about to be made anew."""
    if known_digests(path):
        _note(path, [])


def copy_recorded(source: Path, target: Path) -> Path:
    """Copy a file and record its digest; a kill at any moment leaves the old file or the new one, and either is known.

    Raises:
        MotionLabError: the source is missing or not as recorded; full disk, read-only folder.
    """
    new = digest_of(checked(source))
    _note(target, [*known_digests(target), new])
    copy_file(source, target)
    if digest_of(target) != new:
        raise MotionLabError(f"{shown(target)} is not what was copied: the source changed meanwhile, or the disk is failing.",
                             fix="Run again.")
    _note(target, [new])
    return target


def _note(path: Path, digests: list[tuple[str, int]]) -> None:
    listed = list_of(path.parent)
    with turn(listed.with_name(f".lock-{listed.name}"), shown(listed)):  # two that finish at once must not undo each other's line
        _rewrite(listed, path, digests)


def _rewrite(listed: Path, path: Path, digests: list[tuple[str, int]]) -> None:
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    lines = [line for line in lines if (match := LINE.fullmatch(line)) and match[3] != path.name]
    lines += [f"{sha}  {size}  {path.name}" for sha, size in dict.fromkeys(digests)]
    write_atomic(listed, "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.split("  ", 2)[2])))
