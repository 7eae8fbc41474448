"""The console script `motionlab`: init, list, run, sweep, report, verify, doctor, size, world, pretrain, train, sample, score,
version.

Exit codes: 0 done; 1 a notebook failed or a check found something; 2 the call was mistaken, and nothing was run;
130 interrupted. `MOTIONLAB_DEBUG=1` shows the traceback behind an error.
"""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from motionlab import __version__
from motionlab.cli import evidence, machine, models, notebooks, scores, sweeps
from motionlab.cli.common import FAILED, INTERRUPTED, MISTAKE, tell
from motionlab.core.errors import MotionLabError, one_of
from motionlab.core.files import FULL, READ_ONLY


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become two lines on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(argv)
        code = options.command(options)
        sys.stdout.flush()
        return code
    except MotionLabError as error:
        return tell(error, MISTAKE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `motionlab list | head`
        sys.stdout = open(os.devnull, "w")
        return 0
    except OSError as error:  # `motionlab list > /dev/full`; files of ours tell their own trouble in sentences
        if error.errno not in (*FULL, *READ_ONLY):
            return _defect(error)
        sys.stdout = open(os.devnull, "w")
        told = MotionLabError(f"The output cannot be written: {error.strerror}.", fix="Free some space, or send it elsewhere.")
        return tell(told, FAILED)
    except Exception as error:
        return _defect(error)


def _defect(error: Exception) -> int:
    """A defect of ours: still a sentence, and how to see the rest."""
    if os.environ.get("MOTIONLAB_DEBUG") == "1":
        raise error
    fix = "This is a defect of motionlab; MOTIONLAB_DEBUG=1 shows where."
    return tell(MotionLabError(f"{type(error).__name__}: {error}", fix=fix), FAILED)


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are errors like all others."""

    def _check_value(self, action, value):
        if isinstance(action, argparse._SubParsersAction):
            one_of(value, action.choices, "command")  # names the nearest one
        super()._check_value(action, value)

    def error(self, message: str):
        raise MotionLabError(f"{message[0].upper()}{message[1:]}.", fix=f"See: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="motionlab", description="Re-run, measure and judge what papers claim about motion in video diffusion.",
                     epilog="MOTIONLAB_ROOT points at another checkout or working folder, MOTIONLAB_WEIGHTS at a folder of weights.")
    parser.add_argument("--version", action="version", version=f"motionlab {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    parser.set_defaults(command=lambda options: parser.print_help() or MISTAKE)
    for group in (notebooks, sweeps, evidence, machine, models, scores):
        group.add_commands(commands)
    return parser
