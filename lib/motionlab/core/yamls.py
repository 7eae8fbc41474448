"""Reading YAML as data: nothing is built from it, no key stands twice, a date stays the text that it is."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError
from motionlab.core.files import shown


def read_yaml(path: Path) -> Any:
    """Parse one YAML file, refusing what YAML lets pass: duplicate keys.

    Raises:
        MotionLabError: not YAML, not UTF-8, or a key that stands twice.
    """
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_strict_loader())  # a SafeLoader: builds no objects
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise MotionLabError(f"{shown(path)}{place} is not valid YAML: {getattr(error, 'problem', None) or error}.",
                             fix="Mend that line; text with a colon or a leading special character needs quotes.") from error
    except UnicodeDecodeError as error:
        raise MotionLabError(f"{shown(path)} is not UTF-8 text.", fix="Save it as UTF-8.") from error
    except OSError as error:
        raise MotionLabError(f"{shown(path)} cannot be read: {error.strerror}.") from error


def _strict_loader():
    """A safe YAML loader that raises on duplicate keys and leaves dates as text (made on first use: yaml is imported late)."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Strict(base):
        yaml_implicit_resolvers = {first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
                                   for first, found in base.yaml_implicit_resolvers.items()}

        def construct_mapping(self, node, deep=False):
            seen = set()
            for key_node, _ in node.value:
                if key_node.value in seen and isinstance(key_node.value, str):
                    raise yaml.constructor.ConstructorError(None, None, f"'{key_node.value}' stands twice", key_node.start_mark)
                seen.add(str(key_node.value))
            return super().construct_mapping(node, deep)

    return Strict
