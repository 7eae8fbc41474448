"""Writing files so that a reader never sees half of one, and a full disk is told in a sentence.

Every write goes to a temporary file in the target's own folder and is then moved over the old one in a single step, so
that a kill at any moment leaves either the old file or the new one.
"""
from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


def shown(path: str | Path, root: Path | None = None) -> str:
    """`path` as people read it: relative to the root (or to here) where that is shorter, with forward slashes."""
    path = Path(path)
    for base in (root, Path.cwd()):
        if base is not None and path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.as_posix()


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn a full disk, a read-only place or a file in the way into a sentence that names `path`.

    Raises:
        MotionLabError: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise MotionLabError(
                f"The disk is full: {shown(path)} was not written.",
                fix="Free some space and run again; what was finished before is kept.",
            ) from error
        if error.errno in READ_ONLY or isinstance(error, PermissionError):
            raise MotionLabError(
                f"{shown(path)} cannot be written: the place is read-only, or the file is open elsewhere.",
                fix="Choose another output folder (out_dir), or make this one writable.",
            ) from error
        raise MotionLabError(
            f"{shown(path)} cannot be written: {error.strerror or error}.",
            fix="Check that the path is a folder you own and that nothing stands in its way.",
        ) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its ending; on success it takes `path`'s place, on failure it goes.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    path = Path(path)
    draft = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def write_atomic(path: str | Path, data: str | bytes) -> Path:
    """Write text (UTF-8, newlines as they are) or bytes to `path` in one step; return the path.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    with replacing(path) as draft:
        with open(draft, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
    return Path(path)


def write_json(path: str | Path, data: Any) -> Path:
    """Write plain data as indented JSON in one step; return the path.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    return write_atomic(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> dict | None:
    """A JSON mapping, or None for a file that is missing, broken or half there."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def ensure_writable(folder: str | Path) -> Path:
    """Make `folder` and prove that a file can be written there, before hours are spent on what it should hold.

    Raises:
        MotionLabError: full disk, read-only folder, a file in the way.
    """
    probe = Path(folder) / ".writable"
    write_atomic(probe, b"1")
    with explained(probe):
        probe.unlink(missing_ok=True)
    return Path(folder)


@contextmanager
def explained_tensors(path: str | Path) -> Iterator[None]:
    """`explained` for safetensors, which reports the system's errors in an error of its own."""
    from safetensors import SafetensorError

    with explained(path):
        try:
            yield
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            raise OSError(int(code[1]) if code else 0, str(error)) from None


def save_weights(path: str | Path, tensors: dict, metadata: dict[str, str]) -> Path:
    """Write tensors and text metadata as one safetensors file, whole or not at all.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    from safetensors.torch import save_file

    with replacing(path) as draft, explained_tensors(path):
        save_file(tensors, str(draft), metadata=metadata)
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
    return Path(path)
