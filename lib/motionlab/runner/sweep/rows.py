"""Rows of a sweep: one arm at one seed each, where its files are, and in which state."""
from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import read_json
from motionlab.core.protocol import RULED, protocol_version, read_protocol
from motionlab.runner import fingerprint as prints
from motionlab.runner.sweep.ablations import Sweep, waiting

TIERS = ("smoke", "full")
TO_DO = ("new", "begun", "damaged")
REDONE = ("stale", "other code")
MARKER = "sweep.json"


@dataclass(frozen=True)
class Row:
    """One arm at one seed, and where its files are."""

    arm: str
    seed: int
    tier: str
    folder: Path  # <out>/<paper>/<tier>
    settings: dict[str, Any]
    code: str

    name = property(lambda row: f"{row.arm}-{row.seed}")
    work = property(lambda row: row.folder / row.name)
    log = property(lambda row: row.folder / "logs" / f"{row.name}.log")
    csv = property(lambda row: row.folder / "rows" / f"{row.name}.csv")
    record = property(lambda row: row.folder / "rows" / f"{row.name}.json")
    lock = property(lambda row: row.folder / f".lock-{row.name}")

    def state(self) -> tuple[str, list[str]]:
        """`finished`, `other code`, `stale`, `damaged`, `begun` or `new`, and the settings that changed."""
        from motionlab.ledger.verdict import file_sha

        record, begun = read_json(self.record), read_json(self.work / MARKER)
        written = record if record and self.csv.is_file() else begun
        changed = prints.changes(written.get("settings"), self.settings) if written else []
        if changed:
            return "stale", changed
        if written is begun:
            return ("begun" if begun else "new"), []
        if file_sha(self.csv) != record.get("sha256"):
            return "damaged", []
        return ("finished" if record.get("code") == self.code else "other code"), []

    @property
    def measured(self) -> bool:
        """Whether there are numbers that count."""
        return self.state()[0] in ("finished", "other code")


def plan(sweep: Sweep, tier: str, arms: Sequence[str] = (), seeds: Sequence[int] = (), out: str | Path | None = None) -> list[Row]:
    """The rows of a sweep, seed by seed; of the named arms and seeds where any are named.

    Args:
        arms: names; that of an arm with a grid means all its points.

    Raises:
        MotionLabError: an unknown tier, arm or seed (naming the nearest), or no row left.
    """
    one_of(tier, TIERS, "tier")
    chosen = _chosen_arms(sweep, arms)
    having = sorted({seed for name in chosen for seed in sweep.seeds[name]})
    for seed in seeds:
        one_of(str(seed), map(str, having), "seed")
    folder = Path(out or sweep.root / "runs" / "sweep").resolve() / sweep.paper / tier
    return [Row(name, seed, tier, folder, _settings(sweep, name, seed, tier), sweep.code)
            for seed in having for name in chosen if seed in sweep.seeds[name] and (not seeds or seed in seeds)]


def refuse_unchosen(sweep: Sweep, rows: list[Row]) -> None:
    """Stop before an arm is measured whose rates nobody chose.

    Raises:
        MotionLabError: naming the arm and the field.
    """
    for name in dict.fromkeys(row.arm for row in rows):
        if waiting(sweep.arms[name]):
            raise MotionLabError(f"Nothing was chosen yet for {waiting(sweep.arms[name])[0]} of arm '{name}'.",
                                 fix=f"motionlab sweep {sweep.paper} --choose   # measures its grid on dev, and applies the rule")


def _chosen_arms(sweep: Sweep, named: Sequence[str]) -> list[str]:
    families = dict.fromkeys(name.split("@")[0] for name in sweep.arms)
    for name in named:
        one_of(name, dict.fromkeys([*sweep.arms, *families]), "arm")
    return [name for name in sweep.arms if not named or name in named or name.split("@")[0] in named]


def _settings(sweep: Sweep, arm: str, seed: int, tier: str) -> dict[str, Any]:
    """Everything that decides a row's numbers, flat; a file counts with its contents."""
    values = {f"arm {key}": value for key, value in sweep.arms[arm].items()}
    values |= {f"common {key}": value for key, value in sweep.common.items()}
    parts = {"row": sweep.function, "tier": tier, "seed": seed, **values}
    if sweep.protocol >= RULED:             # rows of before do not say, and stay what they are
        parts |= {"protocol": sweep.protocol, "rates": sweep.rates.get(arm, {})}
        parts |= {"unequal": sweep.unequal[arm]} if arm in sweep.unequal else {}
    parts |= _of_protocol(values, sweep.root)
    parts |= {f"data {name}": sha for name, sha in sweep.data.items()}
    for key, value in values.items():
        if isinstance(value, str) and value.strip(". ") and "\n" not in value:
            with contextlib.suppress(OSError):  # a text that is no possible path, such as a long prompt
                if Path(sweep.root, value).is_file():
                    parts[f"file of {key}"] = prints.sha_file(Path(sweep.root, value))
    return json.loads(json.dumps(parts, default=str))


def _of_protocol(values: dict[str, Any], root: Path) -> dict[str, Any]:
    """What the protocol in force decides of a row: its version (the noise), the budget of trainings, and what each set that a value
    names consists of. Rows of versions before `RULED` do not say, and stay what they are."""
    if (protocol_version(root) or 0) < RULED:
        return {}
    protocol = read_protocol(root)
    sets = {**protocol.get("prompts", {}), **protocol.get("ends", {}), **protocol.get("transfer", {}).get("sets", {})}
    budget = {name: value for name, value in protocol.get("budget", {}).items() if name.startswith("fine_tune")}
    named = {f"set {name}": sets[name] for name in _texts(values) if name in sets}
    return {"protocol in force": protocol["version"], "budget": budget, **named}


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def refuse_stale(rows: list[Row]) -> None:
    """Stop before rows of different settings are mixed.

    Raises:
        MotionLabError: naming the stale rows.
    """
    stale = {row.name: changed for row in rows for state, changed in [row.state()] if state == "stale"}
    if stale:
        listed = "; ".join(f"{name} ({', '.join(changed)})" for name, changed in stale.items())
        raise MotionLabError(f"Settings changed since these rows were measured: {listed}.",
                             fix="Measure them again with --redo, set the old values again, or choose another --out.")
