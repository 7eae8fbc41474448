"""Does the code that an ablations.yaml names take what it would be given? Asked before anything is measured."""
from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

from motionlab.core.errors import MotionLabError, located, one_of
from motionlab.core.files import shown
from motionlab.core.processes import pool
from motionlab.runner.sweep.ablations import GIVEN, Sweep, importable, waiting


def check_apart(sweep: Sweep) -> None:
    """`check_code` in a process of its own, because what it imports (torch) would stay in this one for hours."""
    with pool(1) as one:
        one.submit(check_code, sweep).result()


def check_code(sweep: Sweep) -> None:
    """Import the row function, see that it takes `common`, and let the file's `check` look at every arm.

    Raises:
        MotionLabError: no such function, an argument that it does not take (the nearest is named), what `check` raises.
    """
    with located(shown(sweep.path, sweep.root)):
        _check_arguments(function(sweep.function, sweep.path.parent), sweep)
        check = function(sweep.check, sweep.path.parent) if sweep.check else None
        for name, arm in sweep.arms.items() if check else ():
            if waiting(arm):
                continue                    # its rates come later, by --choose
            with located(f"arm '{name}'"):
                check(dict(arm), dict(sweep.common))


def function(reference: str, beside: Path) -> Callable:
    """The function `package.module:name`; modules in the folder `beside` can be found.

    Raises:
        MotionLabError: the module cannot be imported, or has no such function (the nearest is named).
    """
    module, _, name = reference.partition(":")
    with importable(beside):
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            raise MotionLabError(f"{module} cannot be imported: {error}.",
                                 fix="See `motionlab doctor` for what is missing here.") from error
    known = [key for key, value in vars(found).items() if callable(value)]
    return getattr(found, one_of(name, known, f"function of {module}:"))


def _check_arguments(row: Callable, sweep: Sweep) -> None:
    signature = inspect.signature(row)
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    taken = [*signature.parameters][len(GIVEN):] if inspect.Parameter.VAR_POSITIONAL not in kinds else signature.parameters
    for name in sweep.common if inspect.Parameter.VAR_KEYWORD not in kinds else ():
        one_of(name, taken, f"field of common (an argument of {sweep.function}):")
    try:
        signature.bind(*GIVEN, **sweep.common)
    except TypeError as error:
        raise MotionLabError(f"{sweep.function} cannot be called: {error}.",
                             fix=f"It is called with {', '.join(GIVEN)} and common.") from None
