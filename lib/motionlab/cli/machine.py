"""`motionlab init`, `motionlab doctor`, `motionlab version` and `motionlab world`."""
from __future__ import annotations

import argparse
import json
from importlib.util import find_spec

from motionlab import __version__
from motionlab.cli import common


def add_commands(commands) -> None:
    """Add them to the parser."""
    parser = common.add(commands, "init", init, "lay out a working folder: notebooks, evidence, trained models; no checkout needed")
    parser.add_argument("folder", metavar="FOLDER", help="a folder that does not exist yet, or is empty")
    doctor = common.add(commands, "doctor", examine, "versions, devices, speed, weights, and what will not run and why")
    doctor.add_argument("--json", action="store_true", help="machine-readable")
    common.add(commands, "version", version, "print the version")
    parser = common.add(commands, "world", world, "write a clip of the world and its exact truth as mp4, png and npz")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="makes the scene (default 0)")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default 256)")
    parser.add_argument("--frames", type=int, help="number of frames (default: the scene's)")
    parser.add_argument("--scene", metavar="YAML", help="a scene file of your own instead of a seed")


def init(options: argparse.Namespace) -> int:
    """`motionlab init`."""
    from motionlab.core.layout import lay_out, text_of

    made = lay_out(options.folder)
    print(text_of(made))
    if made.files:
        lab = "" if find_spec("papermill") else "pip install 'motionlab[lab]' && "
        print(f"next: cd {options.folder} && {lab}motionlab run 00 --tier smoke\nthen: README.md there has the first steps")
    return 0


def examine(options: argparse.Namespace) -> int:
    """`motionlab doctor`."""
    from motionlab import doctor

    found = doctor.examine(common.root())
    print(json.dumps(found, indent=1) if options.json else doctor.render(found))
    return 0 if found["sound"] else common.FAILED


def version(options: argparse.Namespace) -> int:
    """`motionlab version`."""
    print(f"motionlab {__version__}")
    return 0


def world(options: argparse.Namespace) -> int:
    """`motionlab world`."""
    from motionlab.figures import export

    extra = {} if options.frames is None else {"frames": options.frames}
    written = export.write_world(seed=options.seed, size=options.size, out=options.out, scene=options.scene, **extra)
    for path in written.values():
        print(path)
    return 0
