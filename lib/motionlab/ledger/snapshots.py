"""What the evidence of one moment says (a commit, or the files as they lie here), as far as its history is judged by it.

Everything is read by the name that git gives a file's contents, once, however many commits share them.
"""
from __future__ import annotations

import csv
import functools
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.repository import Repository
from motionlab.core.yamls import parse_yaml
from motionlab.ledger.criteria import READING, canonical_sha
from motionlab.ledger.manifest import evidence

FOLDER = "reproductions"
CLAIM = re.compile(r"'?([^\s'#-][^\s']*)'?:")
FIELD = re.compile(r"[- ] (\w+):(?: '?([^']*)'?)?")
RAW = re.compile(r"    '?(.+?)'?: '?([0-9a-f]{64})'?")


@dataclass(frozen=True)
class Moment:
    """A commit, or the files as they lie here (`name` says which), by {path below reproductions/: name of its contents}.

    commit: its full name, None for the files here.
    """

    name: str
    tree: dict[str, str]
    commit: str | None = None

    @property
    def papers(self) -> set[str]:
        return {path.split("/")[0] for path in self.tree if path.count("/")}


@dataclass(frozen=True)
class Seen:
    """Of a record of measured.yaml, what its history is judged by. commit: the code that measured; raw: (file, sha256) of each."""

    checksum: str
    claim_sha: str
    date: str
    commit: str
    notebook: str
    raw: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Asked:
    """Of a claims.yaml: its version, each claim's sha, and which are final."""

    version: int
    sha: dict[str, str]
    final: frozenset[str]


class Snapshots:
    """Reads what moments hold, from git or from the files here."""

    def __init__(self, repository: Repository):
        self.repository, self._own = repository, {}

    def here(self, root: Path) -> Moment:
        """The files as they lie here."""
        tree = {}
        for path in evidence(root):
            data = (root / FOLDER / path).read_bytes()
            tree[path] = self.repository.own_name(data)
            if path.endswith((".yaml", ".csv")):
                self._own[tree[path]] = data
        manifest = root / FOLDER / "MANIFEST"
        return Moment("not committed yet", tree | ({"MANIFEST": ""} if manifest.is_file() else {}))

    @functools.cache
    def data(self, blob: str) -> bytes:
        """A file's contents."""
        return self._own[blob] if blob in self._own else self.repository.blob(blob)

    def records(self, moment: Moment, paper: str) -> dict[str, list[Seen]]:
        """{claim: records} of a paper's measured.yaml, oldest first; empty where there is none."""
        blob = moment.tree.get(f"{paper}/measured.yaml")
        return self._records(blob) if blob else {}

    def asked(self, moment: Moment, paper: str) -> Asked:
        """What a paper's claims.yaml asks; nothing where there is none, or none that can be read."""
        blob = moment.tree.get(f"{paper}/claims.yaml")
        return self._asked(blob) if blob else Asked(0, {}, frozenset())

    def sha256(self, blob: str) -> str:
        """The digest by which records name a raw file."""
        return hashlib.sha256(self.data(blob)).hexdigest()

    def rows(self, blob: str) -> dict[tuple, list[dict]]:
        """Rows of a raw CSV by item, arm and seed, without empty cells."""
        found: dict[tuple, list[dict]] = {}
        for row in csv.DictReader(io.StringIO(self.data(blob).decode("utf-8", "replace"))):
            key = tuple(row.get(name) for name in ("item", "arm", "seed"))
            found.setdefault(key, []).append({name: cell for name, cell in row.items() if cell})
        return found

    @functools.cache
    def _records(self, blob: str) -> dict[str, list[Seen]]:
        return read_records(self.data(blob).decode("utf-8", "replace"))

    @functools.cache
    def _asked(self, blob: str) -> Asked:
        try:
            return read_asked(self.data(blob).decode("utf-8", "replace"))
        except MotionLabError:
            return Asked(0, {}, frozenset())


def read_records(text: str) -> dict[str, list[Seen]]:
    """Records of a measured.yaml line by line, as publishing writes it: parsing YAML of every commit would take minutes.

    A file that is written otherwise gives other records; `verify` compares the newest with what YAML says.
    """
    found: dict[str, list[dict]] = {}
    claim, inside = None, ""
    for line in text.split("\n"):
        if head := CLAIM.fullmatch(line):
            claim = found.setdefault(head[1], [])
        elif claim is not None and (field := FIELD.fullmatch(line)):
            if line[0] == "-":
                claim.append({"raw": []})
            inside = field[1]
            if claim:
                claim[-1].setdefault(inside, field[2] or "")
        elif claim and inside == "raw" and (entry := RAW.fullmatch(line)):
            claim[-1]["raw"].append((entry[1], entry[2]))
    return {name: [_seen(record) for record in records] for name, records in found.items()}


def seen(record: dict) -> Seen:
    """The same of a record as YAML has it."""
    return _seen(record | {"raw": list(record["raw"].items())})


def _seen(record: dict) -> Seen:
    texts = (str(record.get(name) or "") for name in ("checksum", "claim_sha", "date", "commit", "notebook"))
    return Seen(*("" if text == "null" else text for text in texts), tuple(record["raw"]))


def read_asked(text: str) -> Asked:
    """What a claims.yaml of any time asks.

    Raises:
        MotionLabError: it is no such file.
    """
    data = parse_yaml(text, "claims.yaml")
    claims = data.get("claims") if isinstance(data, dict) else None
    if not isinstance(claims, dict) or not isinstance(data.get("version"), int):
        raise MotionLabError("claims.yaml holds no claims.")
    found = {str(key): values for key, values in claims.items() if isinstance(values, dict)}
    sha = {key: canonical_sha({"id": key, **{name: value for name, value in values.items() if name not in READING}})
           for key, values in found.items()}
    return Asked(data["version"], sha, frozenset(key for key, values in found.items() if values.get("status") == "final"))
