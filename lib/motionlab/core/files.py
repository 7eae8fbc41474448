"""The one way to write a file: a reader never sees half of one, and a full disk is told in a sentence.

Every write goes to a draft in the target's own folder, is handed to the disk (fsync), and is then moved over the old one in
a single step, so that a kill or a power cut at any moment leaves either the old file or the new one. Large arrays that are
written in place get their room first (`new_array`): a full disk is then an error here, and no SIGBUS at some later row.
"""
from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError

MAX_JSON_DEPTH = 100
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

    Drafts that a killed process of this machine left for the same file are cleared away.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    path = Path(path)
    draft = path.with_name(f".{path.stem}.{_MACHINE}-{os.getpid()}.tmp{path.suffix}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_drafts(path)
        try:
            yield draft
            sync(draft)
            os.replace(draft, path)
            sync(path.parent)
        finally:
            draft.unlink(missing_ok=True)


_MACHINE = re.sub(r"[^\w]", "", platform.node())[:24]


def _clear_drafts(path: Path) -> None:
    with suppress(OSError):
        for old in path.parent.glob(f".{_escaped(path.stem)}.{_MACHINE}-*.tmp{_escaped(path.suffix)}"):
            owner = old.name.rpartition(f"{_MACHINE}-")[2].split(".")[0]
            if owner.isdigit() and not _alive(int(owner)):
                old.unlink(missing_ok=True)


def _escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


@contextmanager
def replacing_folder(path: str | Path, draft: Path) -> Iterator[Path]:
    """Yield the new, empty folder `draft` beside `path`; once all its files are on the disk it takes that name.

    There must be no `path` yet. On failure the draft goes: a full disk needs the room.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    path = Path(path)
    shutil.rmtree(draft, ignore_errors=True)
    with explained_tensors(path):
        try:
            draft.mkdir(parents=True)
            yield draft
            for file in draft.rglob("*"):
                sync(file)
            os.rename(draft, path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync(path.parent)


def sync(path: Path) -> None:
    """Have the disk keep a file, or a folder's names where the system can do that (Windows cannot).

    Raises:
        OSError: the disk could not keep a file (full, broken).
    """
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except (PermissionError, IsADirectoryError):
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EROFS) and not path.is_dir():
            raise
    finally:
        os.close(handle)


def write_atomic(path: str | Path, data: str | bytes) -> Path:
    """Write text (UTF-8, newlines as they are) or bytes to `path` in one step; return the path.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    with replacing(path) as draft:
        with open(draft, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
    return Path(path)


def copy_file(source: str | Path, target: str | Path) -> Path:
    """Copy a file so that the target is whole at any moment; return the target.

    Raises:
        MotionLabError: there is no source; full disk, read-only folder.
    """
    if not Path(source).is_file():
        raise MotionLabError(f"There is no file {shown(source)} to copy.", fix="Make it first.")
    with replacing(target) as draft:
        shutil.copyfile(source, draft)
    return Path(target)


def new_array(path: str | Path, dtype, shape: tuple[int, ...]):
    """A memory-mapped .npy of zeros whose room on the disk is taken before anything is written into it.

    Its owner marks it as whole by another file, written last (`flush` it first).

    Raises:
        MotionLabError: the disk has not the room; a read-only folder.
    """
    import numpy as np

    path, dtype = Path(path), np.dtype(dtype)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(map(int, shape))}
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            try:
                reserve(file, file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
            except OSError:
                path.unlink(missing_ok=True)
                raise
        return np.load(path, mmap_mode="r+")


def holds_array(path: Path, shape: tuple[int, ...] | None = None) -> bool:
    """Whether `path` is a whole .npy file, of this shape where one is given."""
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return shape is None or found.shape == tuple(shape)


def reserve(file, size: int) -> None:
    """Make an open file `size` bytes long, with that room taken.

    Raises:
        OSError: there is not that much room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    file.seek(0, os.SEEK_END)
    while (left := size - file.tell()) > 0:
        file.write(bytes(min(left, 1 << 20)))
    file.flush()


def write_json(path: str | Path, data: Any) -> Path:
    """Write plain data as indented JSON in one step; return the path.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    return write_atomic(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def parse_json(text: str) -> Any:
    """JSON text as plain data, at most `MAX_JSON_DEPTH` deep.

    Raises:
        ValueError: no JSON, or nested deeper.
    """
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    level = [data]
    for _ in range(MAX_JSON_DEPTH):
        level = [item for one in level if isinstance(one, (dict, list)) for item in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return data
    raise ValueError(f"nested more than {MAX_JSON_DEPTH} deep")


def read_json(path: str | Path) -> dict | None:
    """A JSON mapping, or None for a file that is missing, broken, half there or absurdly deep."""
    try:
        data = parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def require_room(folder: str | Path, size: int) -> None:
    """Demand `size` free bytes where `folder` is, or will be, before hours are spent on what it should hold.

    Raises:
        MotionLabError: there are fewer.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise MotionLabError(f"{shown(folder)} needs {_room(size)}, and {_room(free)} are free there.",
                             fix="Free some space, or choose a folder on another disk.")


def _room(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 10e6 else f"{size / 1e3:,.0f} kB"


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


def whole_weights(path: str | Path) -> Path:
    """`path`, when its header and its length agree: no part of it is missing.

    Raises:
        MotionLabError: it is missing, cut short, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np"):
            return Path(path)
    except (SafetensorError, OSError) as error:
        raise MotionLabError(f"{shown(path)} is no whole safetensors file ({error}).", fix="Make it again, or fetch it again.") from None


def save_weights(path: str | Path, tensors: dict, metadata: dict[str, str]) -> Path:
    """Write tensors and text metadata as one safetensors file, whole or not at all.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    from safetensors.torch import save_file

    with replacing(path) as draft, explained_tensors(path):
        save_file(tensors, str(draft), metadata=metadata)
    return Path(path)
