"""A working folder where there is no checkout: laid out from what the wheels carry, whole or not at all.

    motionlab/kit/       in the wheel `motionlab`: notebooks/, reproductions/ and what goes with them; SHA256 lists them
    motionlab_weights/   in the wheel `motionlab-weights`: the trained models, at their paths in the repository

`setup.py` puts both there from the repository's own files. Models are known by their digests in reproductions/MANIFEST, so
weights of another version are refused.
"""
from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import motionlab
from motionlab.core.digests import LINE, digest_of
from motionlab.core.errors import MotionLabError
from motionlab.core.files import explained, replacing, replacing_folder, require_room, shown
from motionlab.core.paths import find_root, is_root

KIT, LIST, MARK = "kit", "SHA256", ".motionlab.json"
WHOLE = ".motionlab-whole"  # all of it, about to be moved into a folder that was there
MANIFEST = "reproductions/MANIFEST"
WEIGHTS = ("motionlab_weights", "motionlab-weights")  # the package, and the distribution that holds it
Listed = dict[str, tuple[str, int]]


@dataclass(frozen=True)
class LaidOut:
    """folder: where. files: how many were written. missing: trained models for which no wheel is installed."""

    folder: Path
    files: int
    missing: tuple[str, ...] = ()


def lay_out(folder: str | Path, kit: Path | None = None, weights: Path | None = None) -> LaidOut:
    """Make a working folder, or bring the trained models into one that was made before they were installed.

    Args:
        folder: does not exist yet, or is empty. kit, weights: where the wheels' files lie; found where not given.

    Raises:
        MotionLabError: the folder holds something, the installation carries nothing (a checkout) or damaged files, weights of
            another version, a full disk.
    """
    folder, kit, weights = Path(folder).absolute(), kit or _kit(), weights or _weights()
    listed, models = _listed(kit / LIST), _listed(kit / MANIFEST, "reproductions/", ".safetensors")
    if (folder / WHOLE).is_dir():  # a call was killed at its last step
        _move_in(folder)
        return LaidOut(folder, len(listed), tuple(name for name in models if not (folder / name).is_file()))
    if was_laid_out(folder):
        return _complete(folder, models, weights)
    _clear_drafts(folder)
    _refuse_full(folder)
    sources = {name: (kit / name, known) for name, known in listed.items()}
    sources |= {name: (weights / name, known) for name, known in models.items()} if weights else {}
    missing = () if weights else tuple(models)
    require_room(folder, sum(size for _, (_, size) in sources.values()))
    with _new_folder(folder) as draft:
        for name, (source, known) in sources.items():
            _copy(source, draft / name, known)
        mark = {"motionlab": motionlab.__version__, "made by": "motionlab init"}
        (draft / MARK).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
    return LaidOut(folder, len(sources), missing)


def settle(folder: str | Path = "motionlab") -> Path:
    """Go to the root: the one found from here, else `folder`, which is laid out first. What a notebook on Colab begins with."""
    root = find_root()
    if root is None:
        root = Path(folder).absolute()
        if not is_root(root):
            print(text_of(lay_out(root)))
        os.chdir(root)
    return root


def text_of(made: LaidOut) -> str:
    """What was laid out and what is missing, in a line or two."""
    lines = [f"{made.files} files are laid out in {made.folder} (motionlab {motionlab.__version__})"] if made.files else []
    if made.missing:
        lines.append(f"without {len(made.missing)} trained models, which most notebooks need: `pip install {WEIGHTS[1]}`, then say the "
                     "same again")
    return "\n".join(lines)


def was_laid_out(root: Path) -> bool:
    """Whether a root is a folder made by `lay_out`, in which there is no history."""
    return (root / MARK).is_file() and is_root(root)


# ------------------------------------------------------------------------------------------------- what the wheels carry


def _kit() -> Path:
    kit = Path(__file__).resolve().parents[1] / KIT
    if (kit / LIST).is_file():
        return kit
    checkout = find_root(Path(__file__))
    if checkout:
        raise MotionLabError("motionlab is installed from a checkout, which is a working folder itself.", fix=f"cd {checkout}")
    raise MotionLabError("This installation carries no notebooks and no evidence.",
                         fix="Install a wheel made by `make wheels`, or clone the repository.")


def _weights() -> Path | None:
    spec = importlib.util.find_spec(WEIGHTS[0])
    homes = list(spec.submodule_search_locations or ()) if spec else []
    return Path(homes[0]) if homes else None


def _listed(path: Path, prefix: str = "", ending: str = "") -> Listed:
    """{path: (sha256, bytes)} of the lines whose path ends so."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise MotionLabError(f"The installation is damaged: {path} cannot be read.", fix=_again()) from error
    found = {prefix + line[3]: (line[1], int(line[2])) for line in map(LINE.fullmatch, lines) if line and line[3].endswith(ending)}
    if stray := [name for name in found if ".." in name.split("/") or Path(name).is_absolute()]:
        raise MotionLabError(f"{path} names '{stray[0]}', which lies outside of the folder.", fix=_again())
    return found


def _again(name: str = "motionlab") -> str:
    return f"Install it again: pip install --force-reinstall --no-deps {name}=={motionlab.__version__}"


# ------------------------------------------------------------------------------------------------------------- the folder


def _refuse_full(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        kind = "link" if folder.is_symlink() else "file"
        raise MotionLabError(f"{shown(folder)} is a {kind}.", fix="Name a folder that does not exist yet.")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if held:
        raise MotionLabError(f"{shown(folder)} is not empty: it holds {', '.join(held[:3])}{' and more' if len(held) > 3 else ''}.",
                             fix="Name a folder that does not exist yet; nothing was written.")


@contextlib.contextmanager
def _new_folder(folder: Path):
    """Yield a draft of the folder, which takes its name at the end; where it is there already (and empty), its notebooks come last,
    and without them it is no root."""
    there = folder.is_dir()
    whole = folder / WHOLE if there else folder
    with replacing_folder(whole, whole.parent / f".{folder.name}-{os.getpid()}.tmp") as draft:
        yield draft
    if there:
        _move_in(folder)


def _move_in(folder: Path) -> None:
    whole = folder / WHOLE
    with explained(folder):
        for path in sorted(whole.iterdir(), key=lambda path: path.name == "notebooks"):
            os.rename(path, folder / path.name)
        whole.rmdir()


def _clear_drafts(folder: Path) -> None:
    """Take away what a killed process left."""
    import psutil

    for draft in [draft for home in (folder.parent, folder) for draft in home.glob(f".{glob.escape(folder.name)}-*.tmp")]:
        owner = draft.stem.rpartition("-")[2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(draft, ignore_errors=True)


def _copy(source: Path, target: Path, known: tuple[str, int]) -> None:
    """Copy one file and look at what arrived."""
    if not source.is_file():
        raise MotionLabError(f"The installation is damaged: {source} is missing.", fix=_again(_owner(source)))
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    if digest_of(target) != known:
        what = "is of another version, or damaged" if _owner(source) == WEIGHTS[1] else "is damaged"
        raise MotionLabError(f"{source} {what}: its SHA-256 is not the one listed.", fix=_again(_owner(source)))


def _owner(source: Path) -> str:
    return WEIGHTS[1] if source.suffix == ".safetensors" else "motionlab"


def _complete(folder: Path, models: Listed, weights: Path | None) -> LaidOut:
    """Bring what a laid-out folder has not got of the trained models."""
    missing = {name: known for name, known in models.items() if not (folder / name).is_file()}
    if missing and weights is None:
        return LaidOut(folder, 0, tuple(missing))
    if not missing:
        raise MotionLabError(f"{shown(folder)} is a working folder already, and whole.",
                             fix="Name a folder that does not exist yet; nothing was written.")
    for name, known in missing.items():
        with replacing(folder / name) as draft:
            _copy(weights / name, draft, known)
    return LaidOut(folder, len(missing))


