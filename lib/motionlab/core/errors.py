"""The one exception family of the kit: what was wrong, where, and what to do about it."""
from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class MotionLabError(Exception):
    """A mistake that the user can mend.

    Args:
        what: one sentence: what was wrong, and where.
        fix: what to do about it.
    """

    def __init__(self, what: str, fix: str | None = None):
        self.what, self.fix = what, fix
        super().__init__(what if fix is None else f"{what}\n  -> {fix}")

    def __reduce__(self):
        return type(self), (self.what, self.fix)  # whole, also out of another process


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
    """Put a place, such as a file's name, in front of the sentence of any error in here."""
    try:
        yield
    except MotionLabError as error:
        raise MotionLabError(f"{place}: {error.what}", fix=error.fix) from error


def nearest(name: str, options: Iterable[str]) -> str:
    """`" Did you mean 'laptop'?"` for a near miss, else the empty string; meant to end an error's sentence."""
    close = difflib.get_close_matches(str(name), [str(option) for option in options], n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def one_of(name: str, options: Iterable[str], kind: str) -> str:
    """Return `name` when it is among `options`; else raise, naming the nearest one.

    Raises:
        MotionLabError: `name` is not an option.
    """
    options = [str(option) for option in options]
    if name in options:
        return name
    raise MotionLabError(f"Unknown {kind} '{name}'.{nearest(name, options)}", fix=f"Choose one of: {', '.join(options)}.")
