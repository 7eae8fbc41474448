"""Claims as data, verdicts as computed: see `claims`, `verdict`, `book` (the notebook's side), `verify` and `report`.

Names are imported on first use, so that `import motionlab.ledger` stays cheap.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "open_book": "book",
    "publish": "book",
    "Book": "book",
    "read_result": "book",
    "load_claims": "claims",
    "load_all": "claims",
    "find_claim": "claims",
    "load_measured": "claims",
    "papers": "claims",
    "judge": "verdict",
    "VERDICTS": "verdict",
    "render_readme_table": "report",
    "update_readme": "report",
    "render_report": "report",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"motionlab.ledger.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'motionlab.ledger' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
