"""What a notebook runs with: its own defaults, then the values of a tier, then what the user asked for with `-p`.

Everything is checked before a kernel starts, because papermill only warns about a parameter that the notebook does not
know and then runs with the defaults. The file of a tier, `reproductions/<paper>/params/<tier>.yaml`, maps a notebook's
stem to values, with the measured cost beside them:

    09_motion_metrics_audit:
      n_clips: 200
      _cost: {minutes: 3.5, ram_gb: 1.2, vram_gb: 0}
"""
from __future__ import annotations

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionlab.core.config import converted, from_values, said
from motionlab.core.errors import MotionLabError, located, nearest, one_of
from motionlab.core.yamls import parse_yaml, read_yaml
from motionlab.ledger.criteria import TIERS
from motionlab.ledger.notebooks import RUNNER_OWNED, Notebook
from motionlab.runner.limits import check_limits


@dataclass(frozen=True)
class Cost:
    """What a run takes, as measured; 0: not known."""

    minutes: float = 0.0
    ram_gb: float = 0.0
    vram_gb: float = 0.0

    def __str__(self) -> str:
        if not self.minutes:
            return "cost not measured yet"
        minutes = self.minutes
        long = f"{minutes * 60:.0f} s" if minutes < 1.5 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
        memory = [f"{size:g} GB {name}" for size, name in ((self.ram_gb, "RAM"), (self.vram_gb, "VRAM")) if size]
        return ", ".join([f"about {long}", *memory])


def tier_file(paper: str, tier: str, root: Path) -> Path:
    """Where the values of `tier` for the notebooks of `paper` are kept."""
    return Path(root, "reproductions", paper, "params", f"{tier}.yaml")


def tier_values(notebook: Notebook, tier: str, root: Path) -> tuple[dict[str, Any], Cost] | None:
    """`(values, cost)` of `tier` for this notebook; None where it has no such tier. `laptop` is what the defaults are.

    Raises:
        MotionLabError: unknown tier, or a tier file that is not a mapping of stems to mappings.
    """
    path = tier_file(notebook.paper, one_of(tier, TIERS, "tier"), root)
    content = read_yaml(path) if path.is_file() else None
    with located(str(path)):
        entries = converted(dict, content or {}, "stems", "file")
        if entries.get(notebook.stem) is None:
            return ({}, Cost()) if tier == "laptop" else None
        entry = converted(dict, entries[notebook.stem], notebook.stem, "file")
        cost = from_values(Cost, entry.get("_cost") or {}, f"_cost of '{notebook.stem}'")
    return {name: value for name, value in entry.items() if name != "_cost"}, cost


def resolve(notebook: Notebook, tier: str, given: dict[str, Any], root: Path) -> dict[str, Any]:
    """The values to inject: those of the tier, overridden by `given` (text from the command line, or typed values).

    Raises:
        MotionLabError: the notebook has no such tier, does not know a parameter, or a value has the wrong type; the
            message names the nearest match; and as `check_limits`.
    """
    found = tier_values(notebook, tier, root)
    if found is None:
        having = [name for name in TIERS if tier_values(notebook, name, root) is not None]
        raise MotionLabError(f"{notebook.stem} has no tier '{tier}'.", fix=f"It runs at: {', '.join(having)}.")
    values = {name: check_value(notebook, name, value, str(tier_file(notebook.paper, tier, root))) for name, value in found[0].items()}
    values |= {name: check_value(notebook, name, value, "-p") for name, value in given.items()}
    check_limits(notebook, values, root)
    return values


def check_value(notebook: Notebook, name: str, value: Any, source: str) -> Any:
    """`value` in the type of the parameter's default; text is parsed, an int serves as a float.

    Raises:
        MotionLabError: unknown parameter, one that the runner sets itself, or a value of another type.
    """
    if name in RUNNER_OWNED:
        raise MotionLabError(f"Parameter '{name}' is set by the runner.",
                             fix="Use --tier to choose the tier; results go to runs/<tier>/.")
    if name not in notebook.parameters:
        free = [known for known in notebook.parameters if known not in RUNNER_OWNED]
        raise MotionLabError(f"Unknown parameter '{name}' for {notebook.stem} (from {source}).{nearest(name, free)}",
                             fix=f"It takes: {', '.join(free) or 'none'}.")
    kind, default = notebook.parameters[name].kind, notebook.parameters[name].default
    try:
        return converted(kind, parsed(value, kind) if isinstance(value, str) else value, name, "notebook")
    except MotionLabError:
        raise MotionLabError(f"Parameter '{name}' of {notebook.stem} wants {said(kind)}, got '{value}' (from {source}).",
                             fix=f"Its default is {default!r}.") from None


def parsed(text: str, kind: Any) -> Any:
    """What text from a command line says, for a parameter of this kind."""
    if kind is str:
        return text
    if type(None) in typing.get_args(kind) and text in ("", "None"):
        return None
    if (typing.get_origin(kind) or kind) is list and not text.strip().startswith("["):
        text = f"[{text}]"  # `-p species=biped,bird` without the shell's trouble with brackets
    try:
        value = parse_yaml(text, "the value")
    except MotionLabError:
        return text
    return bool(value) if kind is bool and value in (0, 1) else value
