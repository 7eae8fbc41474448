"""The one protocol's splits: which world seeds serve which purpose (`reproductions/protocol.yaml`)."""
from __future__ import annotations

from pathlib import Path

from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.yamls import read_yaml
from motionlab.core.paths import repo_root

# Since this version claims about papers name controls, rates are chosen by a rule, budgets are equal, and streams of noise are apart.
RULED = 7


def read_protocol(root: Path | None = None) -> dict:
    """`reproductions/protocol.yaml` as plain values."""
    return read_yaml(protocol_file(root))


def protocol_file(root: Path | None = None) -> Path:
    """Where it lies."""
    return Path(root or repo_root()) / "reproductions" / "protocol.yaml"


def protocol_version(root: Path | None = None) -> int | None:
    """The version of the protocol that is in force; None in a checkout without one."""
    path = protocol_file(root)
    values = read_yaml(path) if path.is_file() else None
    return values.get("version") if isinstance(values, dict) else None


def split_seeds(split: str, n: int | None, root: Path | None = None) -> range:
    """The first `n` world seeds of a split, or all of them (None).

    Raises:
        MotionLabError: unknown split (the nearest is named), more seeds than it holds.
    """
    splits = read_protocol(root)["splits"]
    found = splits[one_of(split, splits, "split")]
    size = found["last"] - found["first"] + 1
    n = size if n is None else n
    if not 1 <= n <= size:
        raise MotionLabError(f"Split '{split}' holds {size} seeds, not {n}.", fix="Ask for at least 1 and at most that many.")
    return range(found["first"], found["first"] + n)


def held_out(said: dict, protocol: dict | None = None) -> bool:
    """Whether a scene's attributes (`Clip.attributes`) show a combination that only the test split may show."""
    combinations = (protocol or read_protocol())["held_out"]["combinations"]
    return any(all(actor.get(name) == value for name, value in combination.items())
               for combination in combinations for actor in said["actors"])


def judged_seeds(tier: str, n: int) -> range:
    """Seeds that a notebook measures on: split `test`, but `examples` at tier smoke, which must not look at test clips."""
    return split_seeds("examples" if tier == "smoke" else "test", n)
