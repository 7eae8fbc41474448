"""`motionlab score`."""
from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

from motionlab.cli import common


def add_commands(commands) -> None:
    """Add it to the parser."""
    parser = common.add(commands, "score", score, "score a folder of generated videos against a benchmark; a second call goes on")
    parser.add_argument("folder", metavar="FOLDER", help="<prompt>/*.mp4 or <prompt>.mp4, with '_' for ' '")
    parser.add_argument("--benchmark", required=True, metavar="NAME", help="mtbench, morphbench, tcbench or transitbench")
    parser.add_argument("--data", required=True, metavar="DIR", help="the benchmark's own folder")
    parser.add_argument("--out", metavar="DIR", help="folder to write to (default runs/score/BENCHMARK/FOLDER's name)")
    common.add_parameters(parser, "a setting of the benchmark, such as the folder of an encoder; an unknown one lists them")


def score(options: argparse.Namespace) -> int:
    """`motionlab score`."""
    from motionlab.benchmarks import benchmark_class, scoring

    kind = benchmark_class(options.benchmark)
    folder = Path(options.folder).expanduser().absolute()
    out = Path(options.out).expanduser() if options.out else common.root() / "runs" / "score" / options.benchmark / folder.name
    todo = scoring.prepare(kind(Path(options.data).expanduser(), _settings(kind.Settings, options)), folder, out)
    common.stop_politely()
    print(f"{len(todo.jobs)} videos of {len(todo.matched.videos)} of {len(todo.items)} prompts, {len(todo.waiting())} to be scored",
          flush=True)
    try:
        rows = scoring.run(todo, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print(f"\ninterrupted; what is scored is kept in {out}. This goes on from there:\n  {_command(options)}", file=sys.stderr)
        return common.INTERRUPTED
    print("\n".join(["", *scoring.told(todo, rows), *todo.benchmark.after(todo), f"report: {out / 'index.html'}"]))
    return common.FAILED if todo.failed else 0


def _settings(kind: type, options: argparse.Namespace):
    from motionlab.core.config import from_values
    from motionlab.core.yamls import parse_yaml

    text = {field.name for field in dataclasses.fields(kind) if field.type == "str"}
    values = {name: value if name in text else parse_yaml(value, f"'-p {name}={value}'")
              for name, value in common.given(options.parameters).items()}
    return from_values(kind, values, f"settings of {options.benchmark}")


def _command(options: argparse.Namespace) -> str:
    words = ["motionlab", "score", options.folder, "--benchmark", options.benchmark, "--data", options.data]
    words += ["--out", options.out] if options.out else []
    return shlex.join(words + [word for pair in options.parameters for word in ("-p", pair)])
