"""Reading YAML as data: nothing is built from it, no key stands twice, a date stays the text that it is, and none is a bomb.

All YAML comes through here, whoever wrote it. Its size, its depth and what its aliases stand for are bounded before
anything is built.
"""
from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError
from motionlab.core.files import shown

MAX_BYTES = 16 * 1024**2
MAX_DEPTH = 60
MAX_NODES = 1_000_000  # with every alias counted as what it stands for
KEPT = 1_000_000  # characters: of longer texts what they say is not kept in memory
MEND = "Mend that line; text with a colon or a leading special character needs quotes."


def read_yaml(path: str | Path) -> Any:
    """Parse one YAML file.

    Raises:
        MotionLabError: no such file, not UTF-8, and as `parse_yaml`.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MotionLabError(f"{shown(path)} has {path.stat().st_size:,} bytes.", fix=f"YAML is read up to {MAX_BYTES:,} bytes.")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MotionLabError(f"{shown(path)} is not UTF-8 text.", fix="Save it as UTF-8.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MotionLabError(f"{shown(path)} cannot be read: {reason}.", fix="Give a text file in YAML.") from error
    return parse_yaml(text, shown(path))


def parse_yaml(text: str, what: str, fix: str = MEND) -> Any:
    """Parse YAML text; `what` names it in messages.

    Raises:
        MotionLabError: not YAML, a key that stands twice, a value of no plain kind, or more than the bounds above.
    """
    if len(text) > KEPT:
        return _parsed(text, what, fix)
    return pickle.loads(_kept(text, what, fix))  # plain data again, the caller's own


@functools.lru_cache(maxsize=64)
def _kept(text: str, what: str, fix: str) -> bytes:
    """One command reads the same few files many times, and parsing is slow."""
    return pickle.dumps(_parsed(text, what, fix))


def _parsed(text: str, what: str, fix: str) -> Any:
    import yaml

    try:
        _check_bounds(text, what)
        return yaml.load(text, Loader=_strict_loader())  # a SafeLoader: builds no objects
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise MotionLabError(f"{what}{place} is not valid YAML: {getattr(error, 'problem', None) or error}.", fix=fix) from error
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:  # `!!int x` and its like
        raise MotionLabError(f"{what} is not valid YAML: a value cannot be read ({error}).", fix=fix) from error


def _check_bounds(text: str, what: str) -> None:
    """Follow the parser's events, which builds nothing and needs no stack."""
    import yaml

    sizes: dict[str, int] = {}  # of what anchors stand for
    open_nodes: list[list] = [[0, None]]
    for event in yaml.parse(text, Loader=_base_loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([1, event.anchor])
        elif isinstance(event, yaml.CollectionEndEvent):
            size, anchor = open_nodes.pop()
            open_nodes[-1][0] += size
            sizes |= {anchor: size} if anchor else {}
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for _, anchor in open_nodes):
                raise MotionLabError(f"{what}: '*{event.anchor}' stands for something that it is a part of.", fix="Take the alias out.")
            open_nodes[-1][0] += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            open_nodes[-1][0] += 1
        if len(open_nodes) - 1 > MAX_DEPTH:
            raise MotionLabError(f"{what} is nested more than {MAX_DEPTH} deep.", fix=f"Nest it at most {MAX_DEPTH} deep.")
        if open_nodes[-1][0] > MAX_NODES:
            raise MotionLabError(f"{what} stands for more than {MAX_NODES:,} values.", fix="Use fewer aliases, or split the file.")


def _base_loader():
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def _strict_loader():
    """A safe YAML loader that raises on duplicate keys and leaves dates as text (made on first use: yaml is imported late)."""
    import yaml

    base = _base_loader()

    class Strict(base):
        yaml_implicit_resolvers = {first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
                                   for first, found in base.yaml_implicit_resolvers.items()}

        def construct_mapping(self, node, deep=False):
            seen = set()
            for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if not isinstance(key_node, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping", key_node.start_mark)
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key_node.value}' stands twice", key_node.start_mark)
                seen.add(key_node.value)
            return super().construct_mapping(node, deep)

    return Strict
