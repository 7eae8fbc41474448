"""Order and permanence of the evidence, from git: was a criterion committed before its measurement, and did anything go since?

Each commit is compared with the ones before it, from the first one on or since a given revision, and the files as they lie here
with the last commit. Where history is not at hand, or begins with evidence that nothing came before, it is said what was not checked.

What was found once stays found: history cannot be mended. A commit with a good reason is named in reproductions/exceptions.yaml
({"1a2b3c4d": "why"}); that it broke a rule is then told, with that reason, and is no problem. Exceptions that came after the
revision that is given do not count: a reviewer is to see them.
"""
from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.layout import was_laid_out
from motionlab.core.repository import SIGNATURES, Commit, NoRepository, Repository
from motionlab.core.yamls import parse_yaml
from motionlab.ledger.snapshots import FOLDER, Moment, Seen, Snapshots

EXCEPTIONS = "exceptions.yaml"
EXCUSE = f"or give the reason in {FOLDER}/{EXCEPTIONS}"
FOLLOWS = (("raw", ".json", ".csv"), ("executed", ".ipynb", ".json"), ("checkpoints", ".safetensors", ".md"))  # changes only with


@dataclass
class Examined:
    """problems: one sentence each. notes: what was looked at, what was not, and what was excused."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def examine(root: Path, since: str | None = None) -> Examined:
    """Look at the history of the checkout at `root`, up to the files as they lie here.

    Args:
        since: a revision; only what came after it is looked at.

    Raises:
        MotionLabError: `since` is given, and there is no such commit or no history; exceptions that are none.
    """
    try:
        with Repository(root, FOLDER) as repository:
            return _examine(repository, root, repository.name_of(since) if since else None)
    except NoRepository as error:
        if since:
            raise MotionLabError(f"--ref {since} cannot be looked at: {error}.",
                                 fix="Run in a git checkout, with git on the PATH.") from error
        why = "`motionlab init`, which made this folder, brings none" if was_laid_out(root) else error
        return Examined(notes=[f"history was not checked: {why}"])


def _examine(repository: Repository, root: Path, start: str | None) -> Examined:
    commits, reader = repository.commits(), Snapshots(repository)
    asked = {one.id for one in (repository.commits(start) if start else commits)}
    here, last = reader.here(root), [_at(repository, name) for name in repository.heads()]
    begun = [one for one in commits if not one.parents]
    judge = Judge(reader, exempt=set() if len(begun) > 1 and not repository.shallow else {one.id for one in begun})  # a second one hides
    found = Examined(notes=_notes(repository, reader, asked, commits, begun, start))
    excuses = _excuses(reader, _at(repository, start) if start else here)
    for one in commits:
        before = one.parents or ((start,) if start and one.id in asked else ())
        now = _at(repository, one.id, one.date)
        forged = ["its signature is bad: it was signed by somebody else, or changed since"] if one.signature == "B" else []
        _settle(found, now, forged + judge(now, [_at(repository, name) for name in before]), excuses, one.id in asked)
    _settle(found, here, judge(here, last), excuses, True)
    return found


def _settle(found: Examined, now: Moment, problems: list[str], excuses: dict[str, str], asked: bool) -> None:
    reason = next((why for name, why in excuses.items() if now.commit and now.commit.startswith(name)), None)
    if not (problems and asked):
        return
    if reason:
        found.notes.append(f"excused: {now.name} ({reason}), {len(problems)} of this kind: {problems[0]}")
    else:
        found.problems += [f"{now.name}: {problem}{f', {EXCUSE}' if now.commit else ''}." for problem in problems]


def _at(repository: Repository, commit: str, date: str = "") -> Moment:
    return Moment(f"commit {commit[:8]}{f' of {date[:10]}' if date else ''}", repository.tree(commit), commit)


def _notes(repository: Repository, reader: Snapshots, asked: set[str], commits: list[Commit], begun: list[Commit],
           start: str | None) -> list[str]:
    notes = [f"history: {len(asked)} commit{'s' * (len(asked) != 1)} {f'since {start[:8]} ' if start else ''}looked at"]
    if repository.shallow:
        notes.append("history: this clone is shallow, so what came before its oldest commit was not checked (git fetch --unshallow)")
    elif len(begun) == 1 and (records := new_records(reader, first := _at(repository, begun[0].id), [], *first.papers)):
        notes.append(f"history begins with {first.name}, which holds {len(records)} records: whether their criteria came before them "
                     "was not checked")
    signed = Counter(SIGNATURES.get(one.signature, "not checkable here") for one in commits if one.id in asked and one.signature != "N")
    return notes + ([f"signatures: {', '.join(f'{n} {kind}' for kind, n in signed.items())}"] if signed else [])


def _excuses(reader: Snapshots, moment: Moment) -> dict[str, str]:
    """{beginning of a commit's name: reason}.

    Raises:
        MotionLabError: another kind of file.
    """
    blob = moment.tree.get(EXCEPTIONS)
    text = reader.data(blob).decode("utf-8", "replace") if blob else ""
    data = parse_yaml(text, f"{FOLDER}/{EXCEPTIONS}") or {}
    good = isinstance(data, dict) and all(isinstance(part, str) and len(part) >= 8 for pair in data.items() for part in pair)
    if not good:
        raise MotionLabError(f"{FOLDER}/{EXCEPTIONS} is not a mapping of commits to reasons.",
                             fix='Write lines like "1a2b3c4d": why this was right, with quotes and at least 8 letters each.')
    return data


# ---------------------------------------------------------------------------------------------------------------- rules


class Judge:
    """Looks at one moment after the other, parents first, and remembers what an earlier one broke: to put that back breaks nothing.

    Args:
        exempt: commits that nothing came before, and whose records' order is therefore not known.
    """

    def __init__(self, reader: Snapshots, exempt: set[str]):
        self.reader, self.exempt = reader, exempt
        self.seen: set[tuple[str, str | None]] = set()      # (path, contents) of sound moments
        self.broken: set[tuple[str, str | None]] = set()
        self.known: set[str] = set()                        # checksums of all records so far

    def __call__(self, now: Moment, before: list[Moment]) -> list[str]:
        """What this moment does that none may."""
        found = {sentence: path for old in before for path, sentence in permanence(self.reader, now, old)
                 if not self._mends(path, now, old)}
        if before or now.commit not in self.exempt:
            found |= {sentence: path for path, sentence in order(self.reader, now, before, self.known)}
        broken = {(path, now.tree.get(path)) for path in found.values()}
        self.broken |= broken
        self.seen |= set(now.tree.items()) - self.broken
        self.known |= {one.checksum for one, _ in new_records(self.reader, now, [], *now.papers)}
        return list(found)

    def _mends(self, path: str, now: Moment, old: Moment) -> bool:
        return (path, old.tree.get(path)) in self.broken and (path, now.tree.get(path)) in self.seen


Found = Iterator[tuple[str, str]]  # (path below reproductions/, sentence)


def permanence(reader: Snapshots, now: Moment, old: Moment) -> Found:
    """What was there must be there still, and change only as publishing changes it."""
    if "MANIFEST" in old.tree and "MANIFEST" not in now.tree:
        yield "MANIFEST", f"{FOLDER}/MANIFEST went; bring it back from {_named(old)}"
    changed = sorted(path for path in old.tree if old.tree[path] != now.tree.get(path))
    for paper in sorted({path.split("/")[0] for path in changed if "/" in path}):
        mine = [path for path in changed if path.startswith(f"{paper}/")]
        yield from record_losses(reader, now, old, paper) if f"{paper}/measured.yaml" in mine else ()
        yield from claim_changes(reader, now, old, paper) if f"{paper}/claims.yaml" in mine else ()
        yield from raw_changes(reader, now, old, paper, mine)
        yield from run_changes(reader, now, old, paper, mine)
        yield from lone_changes(now, old, paper, mine)


def record_losses(reader: Snapshots, now: Moment, old: Moment, paper: str) -> Found:
    """A record that went, or the order of records that changed."""
    path, kept = f"{paper}/measured.yaml", reader.records(now, paper)
    for claim, records in reader.records(old, paper).items():
        there = [one.checksum for one in kept.get(claim, [])]
        for one in (one for one in records if one.checksum not in there):
            yield path, f"the record of {claim} of {one.date[:10]} went out of {FOLDER}/{path}; bring it back from {_named(old)}"
        known = [one.checksum for one in records if one.checksum in there]
        if [one for one in there if one in set(known)] != known:
            yield path, f"the records of {claim} in {FOLDER}/{path} changed places; restore the file from {_named(old)}"


def claim_changes(reader: Snapshots, now: Moment, old: Moment, paper: str) -> Found:
    """A judged claim that went, or that asks something else under the same version."""
    path, was, asks = f"{paper}/claims.yaml", reader.asked(old, paper), reader.asked(now, paper)
    for claim in reader.records(old, paper):
        if claim in was.sha and claim not in asks.sha:
            yield path, f"{claim}, which was judged, went out of {FOLDER}/{path}; bring it back from {_named(old)}"
        elif claim in was.sha and was.sha[claim] != asks.sha[claim] and asks.version <= was.version:
            yield path, (f"{claim} changed in {FOLDER}/{path} after it was judged, and `version` is still {asks.version}; raise it, and "
                         "give the reason in `history`")


def raw_changes(reader: Snapshots, now: Moment, old: Moment, paper: str, changed: list[str]) -> Found:
    """Raw rows that changed without a new record that names them."""
    named = {name for records in reader.records(old, paper).values() for one in records for name, _ in one.raw}
    new = {pair for one, _ in new_records(reader, now, [old], paper) for pair in one.raw}
    for path in changed:
        name = path.removeprefix(f"{paper}/raw/")
        if name == path or not name.endswith(".csv"):
            continue
        if path not in now.tree:
            yield path, f"{FOLDER}/{path} was taken away; bring it back from {_named(old)}"
        elif name in named and (name, reader.sha256(now.tree[path])) not in new:
            yield path, (f"{FOLDER}/{path} changed without a new record that names it; restore it from {_named(old)}, or publish its "
                         "notebook's run in the same commit")
        elif name not in named and not keeps_rows(reader, old.tree[path], now.tree[path]):
            yield path, f"{FOLDER}/{path} lost or changed rows; rows are added, and those of {_named(old)} stay"


def run_changes(reader: Snapshots, now: Moment, old: Moment, paper: str, changed: list[str]) -> Found:
    """The result of a run that judged claims, changed without a new record: every run gives new ones."""
    judged = {one.notebook for one, _ in new_records(reader, old, [], paper)}
    again = {one.notebook for one, _ in new_records(reader, now, [old], paper)}
    for path in changed:
        stem = path.removeprefix(f"{paper}/executed/").removesuffix(".json")
        if path == f"{paper}/executed/{stem}.json" and stem in judged - again:
            yield path, f"{FOLDER}/{path} changed without a new record of that notebook; restore it from {_named(old)}, or publish its run"


def lone_changes(now: Moment, old: Moment, paper: str, changed: list[str]) -> Found:
    """Files that tell of another, and changed or went without it."""
    for folder, ending, partner in FOLLOWS:
        for path in (path for path in changed if path.startswith(f"{paper}/{folder}/") and path.endswith(ending)):
            other = path.removesuffix(ending) + partner
            if other in old.tree and old.tree[other] == now.tree.get(other):
                yield path, (f"{FOLDER}/{path} changed without {other.split('/')[-1]}; restore it from {_named(old)}, or publish both "
                             "again")


def keeps_rows(reader: Snapshots, old: str, new: str) -> bool:
    """Whether every row of a raw file is in a later one, which may have more rows and columns."""
    later = reader.rows(new)
    return all(any(row.items() <= one.items() for one in later.get(key, [])) for key, rows in reader.rows(old).items() for row in rows)


def order(reader: Snapshots, now: Moment, before: list[Moment], known: set[str]) -> Found:
    """A record must find its criterion committed: in a commit before its own, and in the one whose code measured it.

    Args:
        known: checksums of records that were there earlier, and are at most put back.
    """
    for paper in sorted(now.papers):
        path = f"{paper}/measured.yaml"
        if any(now.tree.get(path) == old.tree.get(path) for old in before):
            continue  # nothing that one of them did not hold
        for record, claim in new_records(reader, now, before, paper):
            if record.checksum in known:
                continue
            if not any(holds_criterion(reader, old, paper, claim, record) for old in before):
                yield path, (f"{claim} was measured before its criterion was committed (no commit before has it as final); commit "
                             f"{FOLDER}/{paper}/claims.yaml first, then measure")
            elif (code := _moment(reader, record.commit)) and not holds_criterion(reader, code, paper, claim, record):
                yield path, (f"{claim} was measured at {record.commit[:8]}, where its criterion was not committed yet; commit it, then "
                             "measure it again")


def holds_criterion(reader: Snapshots, moment: Moment, paper: str, claim: str, record: Seen) -> bool:
    """Whether a moment's claims.yaml asks, as final, just what a record answers."""
    asks = reader.asked(moment, paper)
    return claim in asks.final and asks.sha[claim] == record.claim_sha


def new_records(reader: Snapshots, now: Moment, before: list[Moment], *papers: str) -> list[tuple[Seen, str]]:
    """(record, claim) of those that none of the moments before holds."""
    known = {one.checksum for old in before for paper in papers for records in reader.records(old, paper).values() for one in records}
    found = [(one, claim) for paper in papers for claim, records in reader.records(now, paper).items() for one in records]
    return [(one, claim) for one, claim in found if one.checksum not in known]


def _named(moment: Moment) -> str:
    return moment.commit[:8] if moment.commit else "the last commit"


@functools.lru_cache(maxsize=256)
def _moment(reader: Snapshots, commit: str) -> Moment | None:
    """The moment of a commit that this clone holds; None of another."""
    tree = reader.repository.tree(commit) if commit else {}
    return Moment(f"commit {commit[:8]}", tree, commit) if tree else None
