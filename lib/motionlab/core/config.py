"""Flat configs: frozen dataclasses read from plain values or YAML; a misspelt field names the nearest."""
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from motionlab.core.errors import MotionLabError, nearest

Config = TypeVar("Config")


def from_values(kind: type[Config], values: dict[str, Any], what: str) -> Config:
    """Build the dataclass `kind`; numbers that YAML reads as text ('1e-3') or as the other kind of number are converted.

    Args:
        what: how a message calls it, such as "training config".

    Raises:
        MotionLabError: not a mapping, a field that does not exist (the nearest is named), a value of another type.
    """
    if not isinstance(values, dict):
        raise MotionLabError(f"The {what} is a {type(values).__name__}, not a mapping.", fix="Write lines such as 'field: value'.")
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for name in values:
        if name not in defaults:
            raise MotionLabError(f"The {what} has no field '{name}'.{nearest(name, defaults)}",
                                 fix=f"The fields are: {', '.join(defaults)}.")
    return kind(**{name: _as_type(name, value, type(defaults[name]), what) for name, value in values.items()})


def from_yaml(kind: type[Config], source: str | Path, what: str) -> Config:
    """Build `kind` from a YAML file (a Path) or YAML text (a str).

    Raises:
        MotionLabError: no such file, not YAML, and as `from_values`.
    """
    import yaml

    try:
        return from_values(kind, yaml.safe_load(source.read_text(encoding="utf-8") if isinstance(source, Path) else source) or {}, what)
    except FileNotFoundError:
        raise MotionLabError(f"No {what} at {source}.", fix=f"{kind.__name__}'s to_yaml writes one to start from.") from None
    except (OSError, yaml.YAMLError) as error:
        raise MotionLabError(f"Cannot read the {what}: {error}", fix="Give a YAML mapping such as 'field: value'.") from None


def to_yaml(config) -> str:
    """YAML text that `from_yaml` reads back to an equal config."""
    import yaml

    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def _as_type(name, value, kind, what):
    if type(value) is kind:
        return value
    try:
        if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            return float(value)
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
    except ValueError:
        pass
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, kind.__name__)
    raise MotionLabError(f"Field {name} of the {what} must be {wanted}, not {value!r}.", fix=f"Set {name} to another value.")
