"""`reproductions/MANIFEST`: every file of evidence with its SHA-256 and size, one a line, so that none changes unnoticed.

    <sha256>  <bytes>  videojam/raw/sweep_full.csv

A command that publishes enters the files that it wrote, and no others: what somebody else changed meanwhile stays a
difference. `motionlab report` enters what people write (claims, settings, pilots); `motionlab verify --write` enters everything.
Each says which lines changed. Left out is what is rendered from the rest: each paper's README and RESULTS.md, and report/.
"""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from motionlab.core.digests import LINE, digest_of
from motionlab.core.files import write_atomic
from motionlab.core.locks import turn

HEAD = "# Written by motionlab; `motionlab verify` checks it. SHA-256, bytes and path of every file of evidence below reproductions/.\n"
SEAL = "run `motionlab verify --write` if it is meant"
PROSE = ("README.md", "RESULTS.md")  # of a paper: written about the evidence, or rendered from it
TEXTS = (".yaml", ".csv", ".json", ".md", ".ipynb", ".sha256")
MADE = ("measured.yaml", "chosen.yaml")
Listed = dict[str, tuple[str, int]]


def place(root: Path) -> Path:
    """Where the list lies."""
    return root / "reproductions" / "MANIFEST"


def is_evidence(path: str) -> bool:
    """Whether a file, by its path below reproductions/, belongs in the list."""
    parts = path.split("/")
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    prose = len(parts) <= 2 and parts[-1] in PROSE
    return not (hidden or prose or parts[0] == "report" or path == "MANIFEST")


def by_people(path: str) -> bool:
    """Whether people write such a file: claims, protocol, arms, parameters, pilots."""
    return path.endswith(".yaml") and path.split("/")[-1] not in MADE or "pilots" in path.split("/")[1:-1]


def evidence(root: Path) -> list[str]:
    """Paths below reproductions/ of all evidence that is there, in order."""
    home = root / "reproductions"
    found = (path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())
    return sorted(path for path in found if is_evidence(path))


# ---------------------------------------------------------------------------------------------------------------- text


def text_of(listed: Listed) -> str:
    """The file's text."""
    return HEAD + "".join(f"{sha}  {size}  {path}\n" for path, (sha, size) in sorted(listed.items()))


def parsed(text: str) -> Listed:
    """{path: (sha256, bytes)} of the lines that are such lines; `problems` names the others."""
    found = (LINE.fullmatch(line) for line in text.split("\n"))
    return {line[3]: (line[1], int(line[2])) for line in found if line}


def read(root: Path) -> str | None:
    """The list's text; None where there is none."""
    try:
        return place(root).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


# -------------------------------------------------------------------------------------------------------------- writing


def enter(root: Path, paths: Iterable[Path]) -> list[str]:
    """Enter these files as they are now (a missing one is taken out), and nothing else; say what changed, a line each.

    Raises:
        MotionLabError: full disk, read-only folder.
    """
    home = root / "reproductions"
    names = [path.resolve().relative_to(home.resolve()).as_posix() for path in paths]
    return _change(root, [name for name in names if is_evidence(name)])


def enter_written(root: Path) -> list[str]:
    """Enter what people write, as it is now; say what changed, a line each."""
    return _change(root, {name for name in {*evidence(root), *parsed(read(root) or "")} if by_people(name)})


def enter_all(root: Path) -> list[str]:
    """Make the whole list anew; say what changed, a line each."""
    return _change(root, {*evidence(root), *parsed(read(root) or "")})


def _change(root: Path, names: Iterable[str]) -> list[str]:
    with turn(root / "runs" / ".lock-manifest", "reproductions/MANIFEST"):  # two that publish at once would lose one's lines
        before = read(root)
        listed = parsed(before or "")
        old = dict(listed)
        for name in names:
            path = root / "reproductions" / name
            listed.pop(name, None)
            if path.is_file() and is_evidence(name):
                listed[name] = digest_of(path)
        if (text := text_of(listed)) != before:
            write_atomic(place(root), text)
    return [f"{'new' if name not in old else 'gone' if name not in listed else 'changed'}: {name}"
            for name in sorted({*old, *listed}) if old.get(name) != listed.get(name)]


# ------------------------------------------------------------------------------------------------------------- checking


def problems(root: Path) -> list[str]:
    """One sentence for each file that is missing, changed or not listed, and for a list that is not as it is written."""
    text = read(root)
    if text is None:
        return [f"reproductions/MANIFEST is missing; restore it with git, or {SEAL.replace(' if it is meant', '')} to begin one."]
    listed, there = parsed(text), set(evidence(root))
    found = [sentence for path in sorted(there | set(listed)) if (sentence := _problem(root, path, listed.get(path), path in there))]
    if not found and text != text_of(listed):
        found = [f"reproductions/MANIFEST is not as motionlab writes it; restore it with git, or {SEAL}."]
    return found


def _problem(root: Path, path: str, listed: tuple[str, int] | None, there: bool) -> str | None:
    name = f"reproductions/{path}"
    if listed is None:
        return f"{name} is not in MANIFEST; {'run `motionlab report`' if by_people(path) else SEAL}, else take it away."
    if not there:
        return f"{name} stands in MANIFEST and is missing; restore it with git, or {SEAL}."
    size = (root / "reproductions" / path).stat().st_size
    if size == listed[1] and digest_of(root / "reproductions" / path) == listed:
        return None
    how = f"has {size:,} bytes in place of {listed[1]:,}" if size != listed[1] else "has other contents of the same length"
    look = f"see `git diff -- {name}`; " if path.endswith(TEXTS) else ""
    seal = "run `motionlab report` if it is meant" if by_people(path) else SEAL
    return f"{name} is not the file in MANIFEST (it {how}); {look}restore it with git, or {seal}."
