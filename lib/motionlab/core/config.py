"""Typed settings from plain values or YAML: frozen dataclasses, nested ones too; a misspelt field names the nearest."""
from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from motionlab.core.errors import MotionLabError, nearest

Config = TypeVar("Config")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a list", tuple: "a list", dict: "a mapping",
         types.NoneType: "nothing"}
hints = functools.cache(typing.get_type_hints)  # evaluates annotations, which takes a while


def from_values(kind: type[Config], values: Mapping[str, Any], what: str) -> Config:
    """Build the dataclass `kind` as its annotations say: numbers, text, true/false, Literal, `X | None`, Any, mappings,
    lists, tuples and dataclasses of these. A value of a dataclass's own type is taken as it is.

    Numbers that YAML reads as text ('1e-3') or as the other kind of number are converted.

    Args:
        what: how a message calls it, such as "training config".

    Raises:
        MotionLabError: not a mapping, a field that does not exist (the nearest is named) or is missing, a value of another type.
    """
    if not isinstance(values, Mapping):
        raise MotionLabError(f"The {what} is a {type(values).__name__}, not a mapping.", fix="Write lines such as 'field: value'.")
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in values:
        if name not in known:
            raise MotionLabError(f"The {what} has no field '{name}'.{nearest(name, known)}", fix=f"The fields are: {', '.join(known)}.")
    for name, field in known.items():
        if values.get(name) is None and field.default is field.default_factory is dataclasses.MISSING:
            raise MotionLabError(f"The {what} lacks '{name}'.", fix=f"Write {name}: {said(hints(kind)[name])}.")
    return kind(**{name: converted(hints(kind)[name], value, name, what) for name, value in values.items()})


def to_yaml(config) -> str:
    """YAML text that reads back to an equal config."""
    import yaml

    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def converted(kind: Any, value: Any, name: str, what: str) -> Any:
    """`value` as the annotation `kind` wants it; `name` and `what` say in a message which value it is.

    Raises:
        MotionLabError: it is of another type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _one_of_several(inner, value, name, what)
    if origin is Literal:
        if value not in list(inner):
            raise MotionLabError(f"Field {name} of the {what} is {value!r}.{nearest(value, inner)}",
                                 fix=f"Choose one of: {', '.join(map(str, inner))}.")
        return value
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_values(kind, value, f"{name} of the {what}")
    if (origin or kind) in (list, tuple, dict):
        return _container(origin or kind, inner, value, name, what)
    return _plain(kind, value, name, what)


def _one_of_several(kinds: tuple, value: Any, name: str, what: str) -> Any:
    """Of a union: None, or the first kind that the value fits."""
    if value is None and types.NoneType in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not types.NoneType]
    exact = [kind for kind in kinds if isinstance(kind, type) and type(value) is kind]      # 3 stays whole where 3.0 is allowed too
    for kind in exact or kinds[:-1]:
        try:
            return converted(kind, value, name, what)
        except MotionLabError:
            continue
    return converted(kinds[-1], value, name, what)


def _container(kind: type, inner: tuple, value: Any, name: str, what: str) -> Any:
    if not isinstance(value, Mapping if kind is dict else (list, tuple)):
        raise _wrong(kind, value, name, what)
    if kind is dict:
        return {key: converted(inner[1] if inner else Any, item, f"{name}.{key}", what) for key, item in value.items()}
    fixed = kind is tuple and inner and inner[-1] is not Ellipsis
    if fixed and len(value) != len(inner):
        raise MotionLabError(f"Field {name} of the {what} must hold {len(inner)} values, not {len(value)}.",
                             fix=f"Write {name}: [..., ...].")
    kinds = inner if fixed else (inner or (Any,))[:1] * len(value)
    return kind(converted(one, item, f"{name}[{index}]", what) for index, (one, item) in enumerate(zip(kinds, value)))


def _plain(kind: type, value: Any, name: str, what: str) -> Any:
    try:
        if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            value = float(value)
        if kind is float and isinstance(value, float) and not math.isfinite(value):
            raise MotionLabError(f"Field {name} of the {what} must be a finite number, not {value}.", fix=f"Set {name} to another value.")
        if type(value) is kind:
            return value
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise _wrong(kind, value, name, what)


def said(kind: Any) -> str:
    """An annotation in words: "a whole number", "a list", "a number or nothing"."""
    inner = [one for one in typing.get_args(kind) if one is not types.NoneType]
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(map(said, inner)))
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, inner))
    if dataclasses.is_dataclass(kind):
        return "a mapping"
    return WORDS.get(typing.get_origin(kind) or kind, getattr(kind, "__name__", str(kind)))


def _wrong(kind: Any, value: Any, name: str, what: str) -> MotionLabError:
    fix = f"Set {name} to another value."
    if kind is str:
        fix = f'Write it in quotes: {name}: "{value}".'
    elif kind in (list, tuple):
        fix = f"Write {name}: [first, second]."
    return MotionLabError(f"Field {name} of the {what} must be {said(kind)}, not {value!r}.", fix=fix)
