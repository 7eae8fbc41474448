"""A git repository read as data: its commits, and what each held below one folder. Needs the git program, and few calls of it.

Objects are asked of one `git cat-file --batch` that stays open; trees and files are read once each, however many commits
share them. Nothing here writes, fetches or runs a hook, and replaced objects (`git replace`) are read as they were committed.
"""
from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from motionlab.core.errors import MotionLabError

GIT = ("git", "--no-replace-objects", "-c", "core.quotepath=false", "-c", "core.fsmonitor=false", "-c", "log.showSignature=false")
SIGNATURES = {"G": "good", "U": "good, of unknown trust", "B": "bad", "N": "none"}
WAIT_S = 60


class NoRepository(MotionLabError):
    """There is no history to read here: no git program, no checkout of its own, no commit."""


@dataclass(frozen=True)
class Commit:
    """One commit. id, parents: full names, the parents being the last ones before it that touched the folder. date: when it was
    committed, by its author's clock (ISO 8601). signature: git's one letter, "N" for none. tree: {path below the folder: blob}."""

    id: str
    parents: tuple[str, ...]
    date: str
    signature: str = "N"
    tree: dict[str, str] = field(default_factory=dict, compare=False)


class Repository:
    """The history of the checkout at `root`, as far as it concerns `folder` (relative, with forward slashes).

    Raises:
        NoRepository: no git program, `root` is not the top of a checkout, nothing was committed yet.
    """

    def __init__(self, root: Path, folder: str):
        self.root, self.folder = Path(root), folder
        prefix, *rest = self.ask("rev-parse", "--show-prefix", "--is-shallow-repository", "HEAD").split("\n")
        if prefix:
            raise NoRepository("the checkout that git knows here is another one, above this folder")
        self.shallow, self.head = rest[0] == "true", rest[1]
        self._objects: subprocess.Popen | None = None

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        if self._objects:
            self._objects.stdin.close(), self._objects.stdout.close()
            self._objects.wait()

    def ask(self, *words: str) -> str:
        """What a git command prints, without the last newline.

        Raises:
            NoRepository: there is no git, or it refuses; with its own sentence.
        """
        try:
            done = subprocess.run([*GIT, *words], cwd=self.root, env=_environment(), capture_output=True, timeout=WAIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoRepository(f"git cannot be run here ({getattr(error, 'strerror', None) or 'no answer'})") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            raise NoRepository(f"git refuses: {said[0].removeprefix('fatal: ')}")
        return done.stdout.decode("utf-8", "replace").removesuffix("\n")

    def name_of(self, revision: str) -> str:
        """The full name of a commit.

        Raises:
            MotionLabError: there is no such commit, or not in this clone.
        """
        try:
            return self.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except NoRepository:
            raise MotionLabError(f"Git knows no commit '{revision}' in {self.root}.",
                                 fix="Fetch it first (git fetch --unshallow where the clone is shallow), or name another.") from None

    def heads(self) -> list[str]:
        """The commits that what lies here follows: the last one, and in the middle of a merge the other side's."""
        try:
            return [self.head, self.ask("rev-parse", "--verify", "--quiet", "MERGE_HEAD")]
        except NoRepository:
            return [self.head]

    def commits(self, since: str | None = None) -> list[Commit]:
        """The commits up to HEAD that touch the folder, parents first; of those that `since` does not reach."""
        span = [f"{since}..HEAD"] if since else ["HEAD"]
        words = ("--full-history", "--parents", "--topo-order", "--reverse", "--format=%H|%P|%cI|%G?")
        text = self.ask("log", *words, *span, "--", self.folder)
        found = [line.split("|") for line in text.split("\n") if line]
        return [Commit(name, tuple(parents.split()), date, signature, self.tree(name)) for name, parents, date, signature in found]

    @functools.cache
    def tree(self, commit: str) -> dict[str, str]:
        """{path below the folder: blob} of a commit; empty where it has no such folder."""
        root = self._object(f"{commit}:{self.folder}")
        return dict(self._files(root, "")) if root and root[0] == "tree" else {}

    @functools.cache
    def blob(self, name: str) -> bytes:
        """A file's contents.

        Raises:
            NoRepository: this clone does not hold it.
        """
        found = self._object(name)
        if found is None:
            raise NoRepository(f"this clone does not hold the object {name[:12]}")
        return found[1]

    def own_name(self, data: bytes) -> str:
        """The name that git would give a blob of these contents."""
        kind = hashlib.sha1 if len(self.head) == 40 else hashlib.sha256
        return kind(b"blob %d\0" % len(data) + data).hexdigest()

    def _files(self, tree: tuple[str, bytes], above: str):
        for name, blob, is_folder in self._entries(tree[1]):
            if is_folder:
                yield from self._files(self._folder(blob), f"{above}{name}/")
            else:
                yield f"{above}{name}", blob

    @functools.cache
    def _folder(self, name: str) -> tuple[str, bytes]:
        found = self._object(name)
        if found is None:
            raise NoRepository(f"this clone does not hold the object {name[:12]}")
        return found

    @functools.cache
    def _entries(self, data: bytes) -> list[tuple[str, str, bool]]:
        """A tree object: entries of "mode name", a zero, and the object's name in bytes."""
        found, at, length = [], 0, len(self.head) // 2
        while at < len(data):
            end = data.index(b"\0", at)
            mode, _, name = data[at:end].partition(b" ")
            at = end + 1 + length
            found.append((name.decode("utf-8", "surrogateescape"), data[end + 1:at].hex(), mode == b"40000"))
        return found

    def _object(self, name: str) -> tuple[str, bytes] | None:
        """(kind, contents) of an object, by any name; None where there is none."""
        if self._objects is None:
            self._objects = subprocess.Popen([*GIT, "cat-file", "--batch"], cwd=self.root, env=_environment(), stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            self._objects.stdin.write(name.encode() + b"\n")
            self._objects.stdin.flush()
            head = self._objects.stdout.readline().split()
            if len(head) != 3 or not head[2].isdigit():
                return None
            data = self._objects.stdout.read(int(head[2]))
            self._objects.stdout.read(1)
        except OSError as error:
            raise NoRepository("git stopped answering") from error
        return head[1].decode(), data


def _environment() -> dict[str, str]:
    """Messages in English, no question asked, nothing fetched for a partial clone."""
    return os.environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"}
