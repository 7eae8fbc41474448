"""The console script `motionlab`: list, run, sweep, report, verify, doctor, size, world, pretrain, train, sample, version.

Exit codes: 0 done; 1 a notebook failed or a check found something; 2 the call was mistaken, and nothing was run;
130 interrupted. `MOTIONLAB_DEBUG=1` shows the traceback behind an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from motionlab.core.errors import MotionLabError, nearest, one_of

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become two lines on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(argv)
        return options.command(options)
    except MotionLabError as error:
        return _tell(error, MISTAKE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `motionlab list | head`
        sys.stdout = open(os.devnull, "w")
        return 0
    except Exception as error:  # a defect of ours: still a sentence, and how to see the rest
        if os.environ.get("MOTIONLAB_DEBUG") == "1":
            raise
        return _tell(
            MotionLabError(
                f"{type(error).__name__}: {error}", fix="This is a defect of motionlab; MOTIONLAB_DEBUG=1 shows where."
            ),
            FAILED,
        )


def _tell(error: MotionLabError, code: int) -> int:
    if os.environ.get("MOTIONLAB_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are errors like all others."""

    def _check_value(self, action, value):
        if isinstance(action, argparse._SubParsersAction):
            one_of(value, action.choices, "command")  # names the nearest one
        super()._check_value(action, value)

    def error(self, message: str):
        raise MotionLabError(f"{message[0].upper()}{message[1:]}.", fix=f"See: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="motionlab",
        description="Re-run, measure and judge what papers claim about motion in video diffusion.",
        epilog="MOTIONLAB_ROOT points at another checkout, MOTIONLAB_WEIGHTS at a folder of weights.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    parser.set_defaults(command=lambda options: parser.print_help() or MISTAKE)
    _add_list(commands)
    _add_run(commands)
    _add_sweep(commands)
    _add_plain(commands)
    _add_world(commands)
    _add_pretrain(commands)
    _add_joint(commands)
    _add_size(commands)
    return parser


def _add(commands, name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(command=command)
    return parser


def _add_list(commands) -> None:
    _add(commands, "list", _list, "notebooks, their claims, and what each tier costs")


def _add_run(commands) -> None:
    parser = _add(commands, "run", _run, "run notebooks headless, skipping those that are up to date")
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="a stem, the start of one such as 09, or all")
    parser.add_argument("--tier", default="laptop", help="smoke, laptop (default), full or paper")
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="KEY=VALUE", help="override a parameter"
    )
    parser.add_argument("--paper", help="of the named notebooks, only those of this paper")
    parser.add_argument("--force", action="store_true", help="run even when nothing has changed")
    parser.add_argument("--publish", action="store_true", help="copy the results into reproductions/ as evidence")


def _add_sweep(commands) -> None:
    parser = _add(commands, "sweep", _sweep, "measure an ablations.yaml row by row, skipping finished rows")
    parser.add_argument("file", metavar="FILE", help="an ablations.yaml, or the name of its paper")
    parser.add_argument("--tier", default="full", help="full (default) or smoke")
    parser.add_argument("--arm", nargs="+", action="extend", default=[], metavar="NAME", help="only these arms")
    parser.add_argument("--seed", nargs="+", action="extend", type=int, default=[], metavar="N", help="only these seeds")
    parser.add_argument("--jobs", type=int, default=1, help="rows measured at the same time (default 1)")
    parser.add_argument("--dry-run", action="store_true", help="tell what is finished and what the rest costs")
    parser.add_argument("--redo", action="store_true", help="measure again rows whose settings or code have changed")
    parser.add_argument("--publish", action="store_true", help="write all finished rows to reproductions/PAPER/raw/")
    parser.add_argument("--out", metavar="DIR", help="where rows are kept (default runs/sweep)")


def _add_plain(commands) -> None:
    _add(commands, "report", _report, "render the README's table and reproductions/report/index.html")
    _add(commands, "verify", _verify, "recompute every verdict and table from the committed raw data")
    doctor = _add(commands, "doctor", _doctor, "versions, devices, speed, weights, and what will not run and why")
    doctor.add_argument("--json", action="store_true", help="machine-readable")
    _add(commands, "version", _print_version, "print the version")


def _add_size(commands) -> None:
    parser = _add(commands, "size", _size, "what training a backbone costs in memory and time; needs no weights")
    parser.add_argument("paper", nargs="?", help="videojam: of its joint model, which has a second stream of latents")
    parser.add_argument("--backbone", default="small", help="small, wan-1.3b, cogvideox-2b or a diffusers folder")
    parser.add_argument("--frames", type=int, default=17, help="frames of a clip, 1 + 4k (default 17)")
    parser.add_argument("--height", type=int, help="pixels (default: the published size)")
    parser.add_argument("--width", type=int, help="pixels (default: the published size)")
    parser.add_argument("--batch", type=int, default=1, help="clips per step (default 1)")
    parser.add_argument("--tflops", type=float, help="sustained TFLOP/s (default: bf16 matrix products, measured here)")


def _add_world(commands) -> None:
    parser = _add(commands, "world", _world, "write a clip of the world and its exact truth as mp4, png and npz")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="makes the scene (default 0)")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default 256)")
    parser.add_argument("--frames", type=int, help="number of frames (default: the scene's)")
    parser.add_argument("--scene", metavar="YAML", help="a scene file of your own instead of a seed")


def _add_pretrain(commands) -> None:
    parser = _add(commands, "pretrain", _pretrain, "make the testbed's checkpoints again, stage by stage; a second call goes on")
    about = "names from reproductions/testbed/pretrain.yaml (default: all but the gates)"
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=about)
    parser.add_argument("--work", default="runs/pretrain", metavar="DIR", help="where banks, logs and checkpoints lie")
    parser.add_argument("--publish", action="store_true", help="copy finished checkpoints to where they are shipped")


def _add_joint(commands) -> None:
    for name, command, text, given in (
        ("train", _train, "fine-tune a local Wan or CogVideoX snapshot on videos; a second call goes on", ("videos", "DIR")),
        ("sample", _sample, "clips and their motion from what `train` made, as mp4", ("weights", "FILE")),
    ):
        parser = _add(commands, name, command, text)
        parser.add_argument("paper", help="videojam")
        parser.add_argument("--backbone", metavar="DIR", help="folder of a diffusers snapshot")
        parser.add_argument(f"--{given[0]}", metavar=given[1])
        if name == "sample":
            parser.add_argument("--prompts", metavar="FILE", help=".csv with columns prompt and category, .json or .txt")
        parser.add_argument("--out", dest="out_dir", metavar="DIR", help="folder to write to")
        parser.add_argument("--steps", type=int, help="of the training" if name == "train" else "of the sampler")
        parser.add_argument("--config", metavar="YAML", help="settings to start from; the other options come on top")
        parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="KEY=VALUE", help="any other setting")


def _root() -> Path:
    from motionlab.core.paths import repo_root

    return repo_root()


# Commands -----------------------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    from motionlab.runner import params

    root = _root()
    stems = list(params.notebook_paths(root))
    for stem in stems:
        notebook = params.read_notebook(stem, root)
        print(f"{stem}  ({notebook.paper})  {notebook.title}")
        print(f"    claims: {', '.join(notebook.claims) or 'none'}")
        for tier in params.TIERS:
            found = params.tier_values(notebook, tier, root)
            if found is not None:
                print(f"    {tier:<7} {params.cost_text(found[1])}")
    if not stems:
        print(f"No notebooks under {root / 'notebooks'}.")
    return 0


def _run(options: argparse.Namespace) -> int:
    from motionlab.runner import runs

    root = _root()
    given = _given(options.parameters)
    plans = _plans(options, given, root)
    if options.publish and options.tier == "smoke":
        raise MotionLabError(
            "A smoke run is never evidence, so it cannot be published.", fix="Use --tier laptop or full."
        )
    _stop_politely()
    failed = []
    for todo in plans:
        try:
            result = runs.run_plan(todo, publish=options.publish, force=options.force)
        except KeyboardInterrupt:
            return _interrupted(todo)
        except MotionLabError as error:
            _tell(error, FAILED)
            failed.append(todo.stem)
            continue
        _render(root, result.status == "finished" or result.published, result.published)
    if len(failed) and len(plans) > 1:
        print(f"{len(failed)} of {len(plans)} notebooks failed: {', '.join(failed)}", file=sys.stderr)
    return FAILED if failed else 0


def _plans(options: argparse.Namespace, given: dict[str, str], root: Path) -> list:
    """Check every notebook before the first one starts. With several, each gets those of the -p that it knows."""
    from motionlab.runner import params, runs

    one_of(options.tier, params.TIERS, "tier")
    notebooks = _chosen(options, root)
    if "all" in options.notebooks and options.tier != "laptop":
        having = [notebook for notebook in notebooks if params.tier_values(notebook, options.tier, root) is not None]
        for notebook in [notebook for notebook in notebooks if notebook not in having]:
            print(f"{notebook.stem}  has no tier {options.tier}: left out")
        notebooks = having
    known = [name for notebook in notebooks for name in notebook.parameters]
    for name in given:
        if len(notebooks) > 1 and name not in known:
            raise MotionLabError(
                f"None of the notebooks has a parameter '{name}'.{nearest(name, known)}",
                fix=f"They take: {', '.join(dict.fromkeys(known))}.",
            )
    single = len(notebooks) == 1
    return [
        runs.plan(
            notebook.stem,
            options.tier,
            {name: value for name, value in given.items() if single or name in notebook.parameters},
            root,
        )
        for notebook in notebooks
    ]


def _chosen(options: argparse.Namespace, root: Path) -> list:
    from motionlab.runner import params

    stems = []
    for name in options.notebooks:
        stems += list(params.notebook_paths(root)) if name == "all" else [params.find_notebook(name, root)]
    notebooks = [params.read_notebook(stem, root) for stem in dict.fromkeys(stems)]
    if options.paper:
        one_of(options.paper, dict.fromkeys(notebook.paper for notebook in notebooks), "paper")
        notebooks = [notebook for notebook in notebooks if notebook.paper == options.paper]
    if not notebooks:
        raise MotionLabError(f"There are no notebooks under {root / 'notebooks'}.", fix="Check MOTIONLAB_ROOT.")
    return notebooks


def _given(pairs: list[str]) -> dict[str, str]:
    """`-p key=value` as a mapping; the path of an existing file is made absolute, because notebooks run in the root."""
    given = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip().isidentifier():
            raise MotionLabError(f"'-p {pair}' is not of the form key=value.", fix="For example: -p n_clips=8")
        place = Path(value).expanduser()
        looks_like_path = any(mark in value for mark in ("/", "\\", "."))
        given[name.strip()] = str(place.resolve()) if value and looks_like_path and place.exists() else value
    return given


def _stop_politely() -> None:
    """A polite kill (a time limit, a shutdown) does what Ctrl-C does: the kernel goes, what is finished stays."""
    import signal

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def _interrupted(todo) -> int:
    kept = (
        f"; the half-run notebook is in {todo.failed.relative_to(todo.root).as_posix()}/"
        if todo.failed.exists()
        else ""
    )
    print(
        f"\ninterrupted in {todo.stem}{kept}. What was finished is kept: the same command goes on from there.",
        file=sys.stderr,
    )
    return INTERRUPTED


def _sweep(options: argparse.Namespace) -> int:
    from motionlab.runner import sweep as sweeps

    sweep = sweeps.read_sweep(options.file, _root())
    rows = sweeps.plan(sweep, options.tier, options.arm, options.seed, options.out)
    everything = sweeps.plan(sweep, options.tier, out=options.out)
    todo = sweeps.announce(sweep, rows, options.redo, options.jobs)
    if options.dry_run:
        return 0
    if not options.redo:
        sweeps.refuse_stale(rows)
    if options.publish:
        sweeps.check_publishable(options.tier, everything, todo)
    _stop_politely()
    try:
        failed = sweeps.run_sweep(sweep, todo, options.jobs, options.redo)
    except KeyboardInterrupt:
        print(f"\ninterrupted. This goes on from there:\n  {_sweep_command(options)}", file=sys.stderr)
        return INTERRUPTED
    print(f"\n{sweeps.summary(rows)}")
    if options.publish:
        print(f"published: {sweeps.publish(sweep, everything)}")
    if failed:
        print(f"{len(failed)} of {len(todo)} rows failed: {', '.join(failed)}", file=sys.stderr)
    return FAILED if failed else 0


def _sweep_command(options: argparse.Namespace) -> str:
    import shlex

    words = ["motionlab", "sweep", options.file, "--tier", options.tier]
    words += ["--arm", *options.arm] if options.arm else []
    words += ["--seed", *options.seed] if options.seed else []
    words += ["--jobs", options.jobs] if options.jobs != 1 else []
    words += ["--out", options.out] if options.out else []
    words += [f"--{name}" for name in ("redo", "publish") if getattr(options, name)]
    return shlex.join(map(str, words))


def _render(root: Path, changed: bool, published: bool) -> None:
    """The report grows after each notebook; a broken report never costs a result."""
    if not changed and (root / "reproductions" / "report" / "index.html").exists():
        return
    from motionlab.ledger import report

    try:
        report.render_report(root)
        if published:
            report.update_readme(root)
    except MotionLabError as error:
        print(f"  note: {error}")


def _report(options: argparse.Namespace) -> int:
    from motionlab.ledger import report

    root = _root()
    path = report.render_report(root)
    report.update_readme(root)
    print(f"report: {path or root / 'reproductions' / 'report' / 'index.html'}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from motionlab.ledger import verify

    try:
        problems = verify.verify(_root())
    except MotionLabError as error:
        return _tell(error, FAILED)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(
        f"verify: {len(problems)} problem{'s' if len(problems) != 1 else ''}"
        if problems
        else "verify: every verdict and table follows from the raw data"
    )
    return FAILED if problems else 0


def _doctor(options: argparse.Namespace) -> int:
    from motionlab import doctor

    found = doctor.examine(_root())
    if options.json:
        import json

        print(json.dumps(found, indent=1))
    else:
        print(doctor.render(found))
    return 0 if found["sound"] else FAILED


def _size(options: argparse.Namespace) -> int:
    for name in ("batch", "tflops"):
        if getattr(options, name) is not None and not getattr(options, name) > 0:
            raise MotionLabError(f"--{name} must be more than 0, not {getattr(options, name)}.")
    import torch

    from motionlab import doctor
    from motionlab.models import size as sizes

    widen = None
    if options.paper:
        from motionlab.papers.videojam import widen

        one_of(options.paper, ("videojam",), "paper with a model of its own size")
    size = sizes.measure(options.backbone, options.frames, options.height, options.width, options.batch, widen)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    tflops, said = options.tflops, "given"
    if tflops is None:
        tflops, said = doctor.speed(device, 1.0).get("bf16"), f"bf16 matrix products on {device}; a model reaches less"
    timed = sizes.time_on_cuda(size, device, widen=widen) if device != "cpu" else None
    print(sizes.render(size, tflops, said, timed))
    return 0


def _world(options: argparse.Namespace) -> int:
    from motionlab.figures import export

    extra = {} if options.frames is None else {"frames": options.frames}
    written = export.write_world(seed=options.seed, size=options.size, out=options.out, scene=options.scene, **extra)
    for path in written.values():
        print(path)
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    from motionlab.pretrain import stages

    root = _root()
    names = options.stages or stages.shipping(root)
    for name in names:
        one_of(name, stages.read_settings(root), "stage")
    for name in names:
        made = stages.run_stage(name, root / options.work, root)
        print(f"stage {name}: {made or 'done'}", flush=True)
    for path in stages.publish(names, root / options.work, root) if options.publish else ():
        print(f"published {path}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from motionlab.experiments.videojam.snapshot import JointConfig, train_joint

    train_joint(_settings(JointConfig, options, ("backbone", "videos", "out_dir")))
    return 0


def _sample(options: argparse.Namespace) -> int:
    from motionlab.experiments.videojam.snapshot import SampleConfig, sample_joint

    sample_joint(_settings(SampleConfig, options, ("backbone", "weights", "prompts", "out_dir")))
    return 0


def _settings(kind: type, options: argparse.Namespace, needed: tuple[str, ...]):
    """The config `kind`: from --config, then the named options, then -p."""
    import yaml

    from motionlab.core.config import from_values, from_yaml

    one_of(options.paper, ("videojam",), "paper that can be trained at full size")
    values = dict(vars(from_yaml(kind, Path(options.config), "config"))) if options.config else {}
    values |= {name: getattr(options, name) for name in (*needed, "steps") if getattr(options, name) is not None}
    values |= {name: yaml.safe_load(text) for name, text in _given(options.parameters).items()}
    for name in needed:
        if not values.get(name):
            raise MotionLabError(f"--{name.removesuffix('_dir')} is missing.", fix="Give the option, or put it into the file of --config.")
    return from_values(kind, values, "config")


def _version() -> str:
    from motionlab import __version__

    return f"motionlab {__version__}"


def _print_version(options: argparse.Namespace) -> int:
    print(_version())
    return 0


if __name__ == "__main__":
    sys.exit(main())
