"""What the commands share: exit codes, how an error is told, `-p key=value`."""
from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from motionlab.core.errors import MotionLabError
from motionlab.core.paths import repo_root

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130


def add(commands, name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    """A command's parser, with one sentence of help."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(command=command)
    return parser


def add_parameters(parser: argparse.ArgumentParser, text: str) -> None:
    """The option `-p KEY=VALUE`, which `given` reads."""
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="KEY=VALUE", help=text)


def tell(error: MotionLabError, code: int) -> int:
    """Print an error on stderr; return the exit code."""
    if os.environ.get("MOTIONLAB_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr)
    return code


def root() -> Path:
    """The checkout that commands work on."""
    return repo_root()


def given(pairs: list[str]) -> dict[str, str]:
    """`-p key=value` as a mapping; the path of an existing file is made absolute, because notebooks run in the root.

    Raises:
        MotionLabError: not of that form.
    """
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip().isidentifier():
            raise MotionLabError(f"'-p {pair}' is not of the form key=value.", fix="For example: -p n_clips=8")
        place = Path(value).expanduser()
        looks_like_path = any(mark in value for mark in ("/", "\\", "."))
        found[name.strip()] = str(place.resolve()) if value and looks_like_path and place.exists() else value
    return found


def stop_politely() -> None:
    """A polite kill (a time limit, a shutdown) does what Ctrl-C does: the kernel goes, what is finished stays."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
