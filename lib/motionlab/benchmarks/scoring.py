"""Videos scored one by one; each part of each video is a file as soon as it is there, so that any stop loses one video at most.

    OUT/parts/<key>.json     the scores of one part of one video. The key is a digest of settings, code, item and video: another
                             tracker, other weights or a video made anew give another key, and what is kept is never mixed.
    OUT/scores.csv           a row per video, and one for every item that has none: its status says so
    OUT/summary.csv          per tier and over all
    OUT/index.html           both, for people
"""
from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motionlab.benchmarks import page, summary
from motionlab.benchmarks.base import Benchmark, Item, Part
from motionlab.benchmarks.matching import Matched, match, videos_below
from motionlab.core.errors import MotionLabError
from motionlab.core.files import ensure_writable, read_json, shown, write_json
from motionlab.core.locks import held
from motionlab.runner import fingerprint as prints
from motionlab.runner.progress import duration
from motionlab.video import probe_video, read_video

SCORED, MISSING, FAILED, WAITING = "scored", "missing", "failed", "not scored yet"
LISTED = 5


@dataclass(frozen=True)
class Job:
    """One video of one item; draw counts the videos of an item."""

    index: int
    item: Item
    video: Path
    draw: int


@dataclass
class Scoring:
    """All that is known of a folder: what was matched, what is scored, what could not be."""

    benchmark: Benchmark
    folder: Path
    out: Path
    items: list[Item]
    parts: tuple[Part, ...]
    matched: Matched
    failed: dict[Path, str] = field(default_factory=dict)

    @functools.cached_property
    def jobs(self) -> list[Job]:
        """Every video, item by item."""
        return [Job(index, self.items[index], video, draw)
                for index, videos in self.matched.videos.items() for draw, video in enumerate(videos)]

    @functools.cached_property
    def present(self) -> list[Part]:
        """The parts that have scores."""
        return [part for part in self.parts if not part.absent]

    @functools.cached_property
    def common(self) -> dict[str, dict[str, Any]]:
        """Of each part what its scores depend on beside item and video."""
        code = _code_of(type(self.benchmark).__module__)
        return {part.name: {"part": part.name, "settings": part.settings(), "code": code} for part in self.present}

    def kept(self, job: Job, part: Part) -> Path:
        """Where the scores of a part of a video are, or will be."""
        stat = job.video.stat()
        key = self.common[part.name] | {"group": job.item.group, "prompt": job.item.prompt, "stamp": job.item.stamp,
                                        "video": [job.video.relative_to(self.folder).as_posix(), stat.st_size, stat.st_mtime_ns]}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.out / "parts" / f"{digest[:32]}.json"

    def read(self, job: Job, part: Part) -> dict | None:
        """What is kept of a part of a video; None where it is still to be scored."""
        return read_json(self.kept(job, part))

    def waiting(self) -> list[Job]:
        """The videos that are not whole yet."""
        return [job for job in self.jobs if any(self.read(job, part) is None for part in self.present)]

    def rows(self) -> list[dict[str, Any]]:
        """The table: a row per video, and one per item that has none, in the benchmark's order."""
        videos = {job.index: [] for job in self.jobs}
        for job in self.jobs:
            videos[job.index].append(job)
        return [row for index, item in enumerate(self.items) for row in
                ([self._row(job) for job in videos[index]] if index in videos else [_about(item) | {"status": MISSING}])]

    def _row(self, job):
        row = _about(job.item) | {"video": job.video.relative_to(self.folder).as_posix(), "draw": job.draw}
        found = [self.read(job, part) for part in self.present]
        done = all(values is not None for values in found)
        status = FAILED if job.video in self.failed else SCORED if done else WAITING
        row |= {"status": status, "reason": self.failed.get(job.video, "")}
        return row | {name: value for values in found if values and status == SCORED for name, value in values.items()}


def prepare(benchmark: Benchmark, folder: Path, out: Path) -> Scoring:
    """Match videos and items, and check all that can be checked before anything long starts.

    Raises:
        MotionLabError: no videos, none that fits, ambiguous names, videos that cannot be read, data or weights that are amiss.
    """
    videos_below(folder)
    items = benchmark.items()
    scoring = Scoring(benchmark, folder, out, items, benchmark.parts(), match(folder, items))
    todo = scoring.waiting()
    for part in scoring.present:
        part.check(list({job.index: job.item for job in todo}.values()))
    _refuse_unreadable([job.video for job in todo])
    ensure_writable(out)
    return scoring


def run(scoring: Scoring, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Score what is not scored yet and write the tables, also where it is interrupted; returns the rows.

    Raises:
        MotionLabError: another process works in the same folder; weights that do not load; no room on the disk.
    """
    with held(scoring.out / ".lock", shown(scoring.out)):
        todo = scoring.waiting()
        for part in scoring.present if todo else ():
            part.open()
        try:
            _score_all(scoring, todo, say)
        finally:
            rows = write(scoring)
    return rows


def write(scoring: Scoring) -> list[dict[str, Any]]:
    """The tables and the page of what is scored so far; returns the rows."""
    rows = scoring.rows()
    columns = [column for part in scoring.parts for column in part.columns]
    page.write(scoring, rows, columns, summary.table(rows, columns, scoring.benchmark.tiers))
    return rows


def told(scoring: Scoring, rows: list[dict[str, Any]]) -> list[str]:
    """What a person should know of the outcome, in lines."""
    count = {status: sum(row["status"] == status for row in rows) for status in (SCORED, MISSING, FAILED, WAITING)}
    lines = [f"{count[SCORED]} videos of {len(scoring.matched.videos)} of {len(scoring.items)} prompts scored"]
    missing = [f"{row['group']}: {row['prompt']}" for row in rows if row["status"] == MISSING]
    lines += _list(missing, "prompts have no video (all are in scores.csv, as missing)")
    extra = [str(video.relative_to(scoring.folder)) for video in scoring.matched.extra]
    lines += _list(extra, "videos belong to no prompt and were left out")
    lines += _list([f"{row['video']}: {row['reason']}" for row in rows if row["status"] == FAILED], "videos could not be scored")
    lines += [f"{', '.join(column.name for column in part.columns)}: empty. {part.absent}" for part in scoring.parts if part.absent]
    return lines


# ---------------------------------------------------------------------------------------------- behind
def _score_all(scoring, todo, say):
    if not todo:
        say("everything is scored already")
    began = time.monotonic()
    for done, job in enumerate(todo, 1):
        try:
            said = _score(scoring, job)
        except MotionLabError as error:
            scoring.failed[job.video] = said = error.what
        left = (time.monotonic() - began) / done * (len(todo) - done)
        say(f"  {done}/{len(todo)}  {job.video.relative_to(scoring.folder)}  {said}" + (f"  about {duration(left)} left" if left else ""))


def _score(scoring, job):
    """Score a video's parts that are not there yet; returns its scores in words. Each part is kept when it is done."""
    clip, said = None, []
    for part in scoring.present:
        values = scoring.read(job, part)
        if values is None:
            clip = clip or read_video(job.video)
            values = {name: _finite(value) for name, value in part.score(job.item, clip).items()}
            write_json(scoring.kept(job, part), values)
        said += [f"{column.name} {values[column.name]:.1f}" for column in part.columns if isinstance(values.get(column.name), float)]
    return ", ".join(said)


def _about(item):
    return {"group": item.group, "tier": item.tier, **item.facts, "prompt": item.prompt.strip()}


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _list(lines, what):
    if not lines:
        return []
    more = [f"    and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return [f"{len(lines)} {what}:", *(f"    {line}" for line in lines[:LISTED]), *more]


def _refuse_unreadable(videos):
    problems = []
    for video in videos:
        try:
            probe_video(video)
        except MotionLabError as error:
            problems.append(error.what)
    if problems:
        more = f" {len(problems) - 1} more cannot be read either." if len(problems) > 1 else ""
        raise MotionLabError(problems[0] + more, fix="Make it again, or move it away: its prompt is then listed as missing.")


def _code_of(module: str) -> str:
    """A digest of all modules that a benchmark's module stands on."""
    files = prints.imported_modules([f"import {module}"])
    return hashlib.sha256("".join(prints.sha_file(path) for path in files.values()).encode()).hexdigest()[:16]
