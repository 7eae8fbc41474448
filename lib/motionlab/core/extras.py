"""What only some people need is an extra (`pip install 'motionlab[lab]'`): asked for where it is used, and missed in a sentence."""
from __future__ import annotations

from importlib.util import find_spec

from motionlab.core.errors import MotionLabError


def demand_extra(extra: str, what: str, *modules: str) -> None:
    """Demand modules that an extra of pyproject.toml brings, without importing them.

    Args:
        extra: its name. what: who asks, as a sentence's subject ("Running notebooks").

    Raises:
        MotionLabError: one of them is not installed; the extra is named.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MotionLabError(f"{what} needs {module}, which is not installed.", fix=f"pip install 'motionlab[{extra}]'")
