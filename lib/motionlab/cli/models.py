"""`motionlab size`, `pretrain`, `train` and `sample`."""
from __future__ import annotations

import argparse
from pathlib import Path

from motionlab.cli import common
from motionlab.core.errors import MotionLabError, one_of


ONE_VIDEO = (("video", "FILE", "one video in place of a folder"), ("caption", "TEXT", "what it shows"),
             ("tracks", "FILE", "tracks of its points (frames, points, x y visible), .npz or .csv, where the method wants tracks"),
             ("mask", "FILE", "or a picture that marks the subject in its first frame: points on it are tracked"))

PAIR = (("first", "PICTURE", "of a transition between two pictures, the first"), ("last", "PICTURE", "and the last"),
        ("text-first", "TEXT", "what the first shows"), ("text-last", "TEXT", "what the last shows"),
        ("pairs", "FILE", "or many, .csv with columns first, last, text_first, text_last"))


def add_commands(commands) -> None:
    """Add them to the parser."""
    _add_size(commands)
    _add_pretrain(commands)
    _add_methods(commands)


def _add_size(commands) -> None:
    parser = common.add(commands, "size", size, "what training a backbone costs in memory and time; needs no weights")
    parser.add_argument("method", nargs="?", help="of a training by this method: what it adds counts too")
    parser.add_argument("--backbone", default="small", help="small, wan-1.3b, cogvideox-2b or a diffusers folder")
    parser.add_argument("--frames", type=int, default=17, help="frames of a clip, 1 + 4k (default 17)")
    parser.add_argument("--height", type=int, help="pixels (default: the published size)")
    parser.add_argument("--width", type=int, help="pixels (default: the published size)")
    parser.add_argument("--batch", type=int, default=1, help="clips per step (default 1)")
    parser.add_argument("--tflops", type=float, help="sustained TFLOP/s (default: bf16 matrix products, measured here)")
    parser.add_argument("--steps", type=int, help="of a training: its hours")
    parser.add_argument("--config", metavar="YAML", help="settings of a training, as `train` reads them; the other options come on top")
    common.add_parameters(parser, "a setting of the method")


def _add_pretrain(commands) -> None:
    parser = common.add(commands, "pretrain", pretrain, "make the testbed's checkpoints again, stage by stage; a second call goes on")
    about = "names from reproductions/testbed/pretrain.yaml (default: all but the gates)"
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=about)
    parser.add_argument("--work", default="runs/pretrain", metavar="DIR", help="where banks, logs and checkpoints lie")
    parser.add_argument("--publish", action="store_true", help="copy finished checkpoints to where they are shipped")
    parser.add_argument("--adopt", action="store_true", help="begin after the last part of a stage whose weights are shipped")


def _add_methods(commands) -> None:
    for name, command, text, given in (
        ("train", train, "train a method on a generator and your videos, or one; a second call goes on", ("videos", "DIR")),
        ("sample", sample, "clips from what `train` made, as mp4", ("weights", "FILE")),
    ):
        parser = common.add(commands, name, command, text)
        parser.add_argument("method", help="its name; an unknown one lists them")
        parser.add_argument("--backbone", metavar="DIR", default="",
                            help="folder of a diffusers snapshot (default: the kit's own generator)")
        parser.add_argument(f"--{given[0]}", metavar=given[1])
        for option, kind, about in ONE_VIDEO if name == "train" else ():
            parser.add_argument(f"--{option}", metavar=kind, help=about)
        if name == "sample":
            parser.add_argument("--prompts", metavar="FILE",
                                help=".csv with columns prompt, category, first, last (pictures), .json or .txt")
            for option, kind, about in PAIR:
                parser.add_argument(f"--{option}", metavar=kind, help=about)
        parser.add_argument("--out", dest="out_dir", metavar="DIR", help="folder to write to")
        parser.add_argument("--steps", type=int, help="of the training" if name == "train" else "of the sampler")
        parser.add_argument("--config", metavar="YAML", help="settings to start from; the other options come on top")
        common.add_parameters(parser, "any other setting")


def size(options: argparse.Namespace) -> int:
    """`motionlab size`."""
    for name in ("batch", "tflops"):
        if getattr(options, name) is not None and not getattr(options, name) > 0:
            raise MotionLabError(f"--{name} must be more than 0, not {getattr(options, name)}.")
    import torch

    from motionlab import doctor
    from motionlab.models import size as sizes

    method = _sized_method(options) if options.method else None
    found = sizes.measure(options.backbone, options.frames, options.height, options.width, options.batch, method and _attaching(method))
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    tflops, said = options.tflops, "given"
    if tflops is None:
        tflops, said = doctor.speed(device, 1.0).get("bf16"), f"bf16 matrix products on {device}; a model reaches less"
    timed = sizes.time_on_cuda(found, device, attach=method and _attaching(method)) if device != "cpu" else None
    print(sizes.render(found, tflops, said, timed))
    if options.steps and tflops:
        hours = [options.steps * found.seconds(tflops, checkpointed) / 3600 for checkpointed in (False, True)]
        print(f"  {options.steps} steps: {hours[0]:.3g} h; {hours[1]:.3g} h with gradient checkpointing")
    for line in _kept_beside(method, found) if method else ():
        print(line)
    return 0


def _sized_method(options):
    """The method of --config and -p; what else the file says of a training fills in the options that were not given."""
    import dataclasses

    from motionlab.core.config import from_values
    from motionlab.core.yamls import read_yaml
    from motionlab.experiments.tuning import TuneConfig, demand_training

    kind, values = _method_kind(options.method), dict(read_yaml(options.config) or {}) if options.config else {}
    own, training = ({f.name for f in dataclasses.fields(one)} for one in (kind, TuneConfig))
    for name in values:
        one_of(name, sorted(own | training), "setting")
    for name, usual, field in (("frames", 17, "frames"), ("batch", 1, "batch_size"), ("height", None, "height"), ("width", None, "width"),
                               ("steps", None, "steps")):
        if getattr(options, name) == usual and values.get(field):
            setattr(options, name, values[field])
    method = from_values(kind, {name: value for name, value in values.items() if name in own} | _parsed(options.parameters),
                         f"settings of method {options.method}")
    demand_training(method)
    return method


def _kept_beside(method, found):
    """What a training by this method keeps of each clip beside its latents, as lines."""
    from motionlab.data.correlations import bytes_of
    from motionlab.models.size import gb

    f, h, w = found.latents
    side = round((f * h * w / found.tokens) ** 0.5)
    for one in method.wants():
        size = bytes_of(one.kind, one.settings, found.pixels[0], (h // side, w // side))
        if size:
            yield f"  on disk, per clip: {one.kind} of its teacher, {gb(size)}; 10 000 clips {gb(10_000 * size)}"


def _attaching(method):
    """What the method does to a network that nothing was attached to, for the count."""

    from motionlab.models.residuals import use_residuals

    def attach(network, channels):
        network.requires_grad_(method.tunes_base)
        method.attach_to(network, channels)
        use_residuals(network, "all")                # a training's backward pass goes through them

    return attach


def pretrain(options: argparse.Namespace) -> int:
    """`motionlab pretrain`."""
    from motionlab.pretrain import stages

    root = common.root()
    names = options.stages or stages.shipping(root)
    for name in names:
        stages.check_stage(name, root)
    for name in names if options.adopt else ():
        for part in stages.adopt(name, root / options.work, root):
            print(f"stage {name}: begins after {part}, as shipped", flush=True)
    for name in names:
        made = stages.run_stage(name, root / options.work, root)
        print(f"stage {name}: {made or 'done'}", flush=True)
    for path in stages.publish(names, root / options.work, root) if options.publish else ():
        print(f"published {path}")
    return 0


def train(options: argparse.Namespace) -> int:
    """`motionlab train`."""
    from motionlab.experiments.tuning import TuneConfig, tune

    may = tuple(name for name, *_ in ONE_VIDEO)
    method, config = _settings(TuneConfig, _method_kind(options.method), options, ("videos", "out_dir"), may)
    tune(method, config)
    return 0


def sample(options: argparse.Namespace) -> int:
    """`motionlab sample`."""
    if options.first or options.last or options.pairs:
        return _between(options)
    from motionlab.experiments.tuning import SampleConfig, sample as run

    sampling, config = _settings(SampleConfig, _method_kind(options.method).Sampling, options, ("weights", "prompts", "out_dir"))
    run(config, sampling)
    return 0


def _between(options):
    """Clips between two pictures."""
    from motionlab.experiments.pairs import PairConfig, sample_pairs

    may = ("weights", *(option.replace("-", "_") for option, *_ in PAIR))
    sampling, config = _settings(PairConfig, _method_kind(options.method).Sampling, options, ("out_dir",), may)
    sample_pairs(options.method, config, sampling)
    return 0


def _method_kind(name):
    from motionlab.methods import method_class

    return method_class(name)


def _parsed(parameters):
    """Values of -p, as YAML reads them."""
    from motionlab.core.yamls import parse_yaml

    return {name: parse_yaml(text, f"'-p {name}={text}'", fix=f'Text with special characters needs quotes: -p {name}="\'...\'".')
            for name, text in common.given(parameters).items()}


def _settings(kind: type, of_method: type, options: argparse.Namespace, needed: tuple[str, ...], may: tuple[str, ...] = ()):
    """The method's settings and the config `kind`: from --config, then the named options, then -p, each field where it belongs.

    Args:
        needed: names of options that must be there. may: of others; the first of these stands for the first that is needed.
    """
    import dataclasses

    from motionlab.core.config import converted, from_values
    from motionlab.core.yamls import read_yaml

    values = dict(converted(dict, read_yaml(options.config) or {}, "settings", f"file {options.config}")) if options.config else {}
    values |= {name: getattr(options, name) for name in (*needed, *may, "backbone", "steps") if getattr(options, name, None) is not None}
    values |= _parsed(options.parameters)
    for name in needed[1:] if len(needed) > 1 and may and values.get(may[0]) else needed:
        if not values.get(name):
            raise MotionLabError(f"--{name.removesuffix('_dir')} is missing.", fix="Give the option, or put it into the file of --config.")
    known, own = ({f.name for f in dataclasses.fields(one)} for one in (kind, of_method))
    for name in values:
        one_of(name, sorted(known | own), "setting")
    return (from_values(of_method, {k: v for k, v in values.items() if k in own}, "settings of the method"),
            from_values(kind, {k: v for k, v in values.items() if k in known}, "config"))
