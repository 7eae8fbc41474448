"""The one protocol's splits: which world seeds serve which purpose (`reproductions/protocol.yaml`)."""
from __future__ import annotations

from pathlib import Path

from motionlab.errors import MotionLabError, one_of
from motionlab.ledger.claims import read_yaml
from motionlab.ledger.paths import repo_root


def split_seeds(split: str, n: int, root: Path | None = None) -> range:
    """The first `n` world seeds of a split.

    Raises:
        MotionLabError: unknown split (the nearest is named), more seeds than it holds.
    """
    splits = read_yaml(Path(root or repo_root()) / "reproductions" / "protocol.yaml")["splits"]
    found = splits[one_of(split, splits, "split")]
    size = found["last"] - found["first"] + 1
    if not 1 <= n <= size:
        raise MotionLabError(f"Split '{split}' holds {size} seeds, not {n}.", fix="Ask for at least 1 and at most that many.")
    return range(found["first"], found["first"] + n)


def judged_seeds(tier: str, n: int) -> range:
    """Seeds that a notebook measures on: split `test`, but `examples` at tier smoke, which must not look at test clips."""
    return split_seeds("examples" if tier == "smoke" else "test", n)
