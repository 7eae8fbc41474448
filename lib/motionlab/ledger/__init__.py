"""Claims as data, verdicts as computed: see `claims`, `verdict`, `book` (the notebook's side), `publishing`, `verify`, `results`, `report`.

Names are imported on first use, so that `import motionlab.ledger` stays cheap.
"""
from __future__ import annotations

import importlib

_NAMES = {
    "book": ("Book", "open_book"),
    "claims": ("load_all", "load_claims", "load_measured"),
    "criteria": ("VERDICTS", "papers"),
    "publishing": ("publish", "read_result"),
    "report": ("render_report",),
    "results": ("render_readme_table", "update_readme"),
    "verdict": ("judge",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"motionlab.ledger.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'motionlab.ledger' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
