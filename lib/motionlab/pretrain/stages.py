"""The stages of `make pretrain`, in order, from `reproductions/testbed/pretrain.yaml`."""
from __future__ import annotations

import importlib
import re
from pathlib import Path

from motionlab.core import config as configs
from motionlab.core import digests
from motionlab.core.digests import copy_recorded
from motionlab.core.errors import MotionLabError, located, one_of
from motionlab.core.files import shown, whole_weights
from motionlab.core.locks import held
from motionlab.core.paths import repo_root
from motionlab.core.yamls import read_yaml
from motionlab.ledger.manifest import enter

HOME = Path("reproductions") / "testbed"


def checkpoint(name: str, work: Path | None = None, root: Path | None = None) -> Path:
    """The checkpoint of a stage: the one made below `work` where there is one, else the shipped one.

    Raises:
        MotionLabError: it is not as it was recorded when it was written.
    """
    made = Path(work or "") / "checkpoints" / f"{name}.safetensors"
    found = made if work and made.is_file() else shipping_place(name, root)
    return digests.checked(found) if found.is_file() else found


def shipping_place(name: str, root: Path | None = None) -> Path:
    """Where the checkpoint of a stage is shipped."""
    return Path(root or repo_root()) / HOME / "checkpoints" / f"{name}.safetensors"


def run_stage(name: str, work: Path, root: Path | None = None, until: int | None = None) -> Path | None:
    """Run one stage to its end, or up to step `until`; what was trained before below `work` is gone on with.

    Returns:
        The checkpoint that the stage leaves in `work`/checkpoints; None when it paused or leaves none (a gate).

    Raises:
        MotionLabError: unknown stage or setting, and whatever training raises.
    """
    settings = read_settings(root)
    one_of(name, settings, "stage")
    out = Path(work) / "checkpoints" / f"{name}.safetensors"
    with held(Path(work) / f".lock-{name}", f"Stage {name} below {shown(work)}"):
        if out.is_file() and _sound(name, out):
            print(f"stage {name}: finished before ({out})", flush=True)
            return out
        print(f"stage {name}", flush=True)
        made = _function(name, settings[name])(settings[name], Path(work), out, until)
        if made is not None and Path(made).is_file():
            digests.record(Path(made))
        return made


def _sound(name: str, out: Path) -> bool:
    """Whether a checkpoint is the one that was written; one that is not is put away, and made again from the stage's training."""
    problem = digests.problem_of(out)
    if problem is None:
        return True
    print(f"stage {name}: {shown(out)} is damaged ({problem}); made again", flush=True)
    digests.forget(out)
    out.unlink()
    return False


def read_settings(root: Path | None = None) -> dict:
    """`pretrain.yaml`: stage -> settings, in the order in which they run.

    Raises:
        MotionLabError: no such file, a stage that the code does not know, a field of another kind.
    """
    path = Path(root or repo_root()) / HOME / "pretrain.yaml"
    content = read_yaml(path) or {}
    with located(shown(path)):
        settings = configs.converted(dict[str, dict], content, "stages", "file")
        for name, values in settings.items():
            if not re.fullmatch(r"[\w-]+", str(name)):
                raise MotionLabError(f"'{name}' is no name of a stage.", fix="Use letters, digits, _ and -.")
            if "function" not in values:
                one_of(name, STAGES, "stage")
            for field, kind in (("function", str), ("about", str), ("stages", list[dict])):
                configs.converted(kind, values[field], field, f"stage {name}") if field in values else None
            for part in values.get("stages", ()):
                if not isinstance(part.get("name"), str) or not re.fullmatch(r"[\w-]+", part["name"]):
                    raise MotionLabError(f"A part of stage {name} has no name.", fix="Write - name: frames, with letters, digits, _ and -.")
            if "function" not in values and STAGES[name] in (_base, _gate, _sam2, _unet, _unet_gate) and not values.get("stages"):
                raise MotionLabError(f"Stage {name} lacks its stages.", fix="Write stages: [{name: frames, ...}], as in the shipped file.")
    return settings


def check_stage(name: str, root: Path | None = None) -> None:
    """Banks and training settings of all parts of a stage, looked at before the first stage takes its hours.

    Raises:
        MotionLabError: unknown stage, a value out of range, a package that the stage needs and that is not installed.
    """
    from motionlab.data.bank import BankConfig
    from motionlab.training import TrainConfig

    settings = read_settings(root)
    stage = settings[one_of(name, settings, "stage")]
    for part in (stage, *stage.get("stages", ())):
        for field, kind in (("bank", BankConfig), ("held_out", BankConfig), ("training", TrainConfig)):
            if field in part:
                configs.from_values(kind, part[field], f"{field} of stage {part.get('name', name)}")
    if STAGES.get(name) is _sam2 and "function" not in stage:
        from motionlab.teachers.sam2_build import import_sam2

        import_sam2()


def shipping(root: Path | None = None) -> list[str]:
    """The stages that leave a checkpoint, in order: all but the gates, which ask whether the next stage is worth its hours.

    Raises:
        MotionLabError: as `read_settings`.
    """
    return [name for name in read_settings(root) if STAGES.get(name) not in (_gate, _unet_gate)]


def _function(name, settings):
    """A stage of this floor, or the one above it that its settings name (`function: module:name`)."""
    if "function" not in settings:
        return STAGES[name]
    module, _, function = settings["function"].partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError):
        raise MotionLabError(f"Stage '{name}' names the function '{settings['function']}', which is not there.",
                             fix="Write function: module:name, as in pretrain.yaml.") from None


def publish(names, work: Path, root: Path | None = None) -> list[Path]:
    """Copy finished checkpoints from `work` to where they are shipped, each with its model card and training curves."""
    from motionlab.pretrain.cards import write_card, write_curve

    out, home, settings = [], Path(root or repo_root()) / HOME, read_settings(root)
    for name in names:
        for part in settings[name].get("stages", ()):
            average, target = Path(work) / name / part["name"] / "ema.safetensors", _part_of(shipping_place(name, root), part)
            if part.get("ship") and average.is_file():
                whole_weights(digests.checked(average))
                out.append(copy_recorded(average, target))
                about = f"{settings[name].get('about', '')} The end of its part `{part['name']}`."
                out.append(write_card(target, logs_of(name, Path(work), root), target.with_suffix(".md"), about))
        made, logs = Path(work) / "checkpoints" / f"{name}.safetensors", logs_of(name, Path(work), root)
        if made.is_file():
            target = shipping_place(name, root)
            whole_weights(digests.checked(made))
            out.append(copy_recorded(made, target))
            out.append(write_card(target, logs, target.with_suffix(".md"), settings[name].get("about", "")))
        for stage, log in logs.items():
            out.append(write_curve(log, home / "curves" / f"{name if stage == name else f'{name}_{stage}'}.csv"))
    enter(Path(root or repo_root()), [*out, digests.list_of(home / "checkpoints")])
    return out


def logs_of(name: str, work: Path, root: Path | None = None) -> dict[str, Path]:
    """Training logs of a stage that exist below `work`: name of the part -> log.jsonl."""
    parts = read_settings(root)[name].get("stages")
    found = {p["name"]: work / name / p["name"] / "log.jsonl" for p in parts} if parts else {name: work / name / "log.jsonl"}
    return {part: log for part, log in found.items() if log.is_file()}


def _codec(settings, work, out, until):
    from motionlab.models.small.codec import CodecConfig
    from motionlab.data.bank import BankConfig
    from motionlab.pretrain.codec import CodecRecipe, train_codec
    from motionlab.training import TrainConfig

    kinds = {"bank": BankConfig, "model": CodecConfig, "recipe": CodecRecipe, "training": TrainConfig}
    return train_codec(**_read(settings, kinds, "codec"), work=work, out=out, until=until)


def _base(settings, work, out, until):
    return _parts(settings, work, out, until, _base_stage)


def _parts(settings, work, out, until, one):
    """Part after part; each begins with the averaged weights of the one before, the first with those of the stage that `start` names.

    Parts before the last finished one are not asked for.
    """
    parts, start = settings["stages"], checkpoint(settings["start"], work) if "start" in settings else None
    averages = [work / out.stem / part["name"] / "ema.safetensors" for part in parts]
    begin = next((k + 1 for k in reversed(range(len(parts))) if not digests.problem_of(averages[k])), 0)
    for k in range(begin, len(parts)):
        digests.forget(averages[k])
        if one(settings, parts[k], work, out.stem, averages[k - 1] if k else start, until) is None:
            return None
        digests.record(averages[k])
    for part, average in zip(parts, averages):
        if part.get("ship") and average.is_file():
            copy_recorded(average, _part_of(out, part))
    whole_weights(averages[-1])
    return copy_recorded(averages[-1], out)


def _part_of(path, part):
    """The checkpoint of a part of a stage, beside the stage's own: trunk_three.safetensors."""
    return path.with_name(f"{path.stem}_{part['name']}.safetensors")


def adopt(name: str, work: Path, root: Path | None = None) -> list[str]:
    """Begin a stage after its last shipped part: for a machine that has not what was trained before. Parts that are there stay.

    Returns:
        The parts whose shipped weights were put below `work`.

    Raises:
        MotionLabError: unknown stage; shipped weights that are not as recorded.
    """
    settings, found = read_settings(root), []
    for part in settings[one_of(name, settings, "stage")].get("stages", ()):
        shipped, own = _part_of(shipping_place(name, root), part), Path(work) / name / part["name"] / "ema.safetensors"
        if shipped.is_file() and not own.is_file():
            own.parent.mkdir(parents=True, exist_ok=True)
            copy_recorded(digests.checked(shipped), own)
            found.append(part["name"])
    return found


def _base_stage(settings, stage, work, home, start, until):
    from motionlab.data.bank import BankConfig
    from motionlab.data.sidecars import Sidecar
    from motionlab.data.sources import World
    from motionlab.data.store import open_data
    from motionlab.methods.plain import Recipe
    from motionlab.models.small.backbone import BackboneConfig
    from motionlab.models.small.codec import load_codec
    from motionlab.pretrain.base import Watch, begin, train_base
    from motionlab.training import TrainConfig

    name, kinds = stage["name"], {"bank": BankConfig, "held_out": BankConfig, "model": BackboneConfig}
    print(f"stage {home}, {name}", flush=True)
    read = _read({k: (settings | stage)[k] for k in kinds if k in settings | stage}, kinds, f"{home}, {name}")
    own = {k: v for k, v in stage.items() if k not in ("name", "only", "bank", "ship")}
    part = _read(own, {"recipe": Recipe, "training": TrainConfig}, f"base, {name}")
    recipe, folder = part["recipe"], work / home / name
    pipe = begin(read["model"], load_codec(checkpoint("codec", work)), recipe.length, part["training"].seed, start)
    stills = (Sidecar("stills"),) if recipe.length > 1 and recipe.first + recipe.first_last else ()
    data, unseen = open_data(World(read["bank"]), pipe, stills, work), open_data(World(read["held_out"]), pipe, (), work)
    if "only" in stage:
        data, unseen = data.where(_shows(stage["only"])), unseen.where(_shows(stage["only"]))
    prompts = tuple(data.captions[i] for i in data.rows[:8]) if len(data) <= 8 else tuple(unseen.captions[i] for i in unseen.rows[:16])
    return train_base(pipe, data, recipe, part["training"], folder, Watch(prompts, unseen, folder / "samples"), until)


def _unet(settings, work, out, until):
    return _parts(settings, work, out, until, _unet_part)


def _unet_part(settings, part, work, home, start, until):
    from motionlab.data.bank import BankConfig
    from motionlab.data.sources import World
    from motionlab.data.store import open_data
    from motionlab.methods.plain import Recipe
    from motionlab.models.small.codec import load_codec
    from motionlab.models.small.framewise import FPS
    from motionlab.models.small.unet import UNetConfig
    from motionlab.pretrain.unet import Watch, begin_unet, train_unet
    from motionlab.training import TrainConfig

    print(f"stage {home}, {part['name']}", flush=True)
    kinds = {"bank": BankConfig, "held_out": BankConfig, "model": UNetConfig, "recipe": Recipe, "training": TrainConfig}
    read = _read({k: (settings | part)[k] for k in kinds if k in settings | part}, kinds, f"{home}, {part['name']}")
    source, folder, length = World(read["bank"], FPS), work / home / part["name"], read["recipe"].length or read["bank"].frames
    pipe = begin_unet(read["model"], load_codec(checkpoint("codec", work)), source, length, read["training"].seed, start)
    data, unseen = open_data(source, pipe, (), work), open_data(World(read["held_out"], FPS), pipe, (), work)
    return train_unet(pipe, data, read["recipe"], read["training"], folder, Watch(unseen, folder / "samples"), until)


def _unet_gate(settings, work, out, until):
    for part in settings["stages"]:
        _unet_part(settings, part, work, "unet", None, until)


def _sam2(settings, work, out, until):
    return _parts(settings, work, out, until, _sam2_stage)


def _sam2_stage(settings, stage, work, home, start, until):
    from motionlab.data.bank import BankConfig
    from motionlab.data.tracked import open_tracked
    from motionlab.pretrain.tracker import TrackedData, TrackerRecipe, Watch, begin, train_tracker
    from motionlab.teachers.sam2_build import Sam2Config
    from motionlab.training import TrainConfig

    print(f"stage {home}, {stage['name']}", flush=True)
    kinds = {"bank": BankConfig, "held_out": BankConfig, "model": Sam2Config, "recipe": TrackerRecipe, "training": TrainConfig}
    read = _read({name: (settings | stage)[name] for name in kinds if name in settings | stage}, kinds, f"{home}, {stage['name']}")
    bank, model, recipe = open_tracked(read["bank"], work), read["model"], read["recipe"]
    said = f"{len(bank)} clips of split {read['bank'].split} with pillars and pairs of one species and colour, {recipe.length} frames"
    return train_tracker(begin(model, read["training"].seed, start), model, TrackedData(bank, recipe.length), recipe, read["training"],
                         work / home / stage["name"], Watch(open_tracked(read["held_out"], work), model), until, said)


def _gate(settings, work, out, until):
    """A small training that must succeed before the large one is worth its hours; leaves its weights below `work` only."""
    for stage in settings["stages"]:
        _base_stage(settings, stage, work, "base", None, until)


def _shows(only):
    """Keeps captions whose one actor has one of the listed values of each attribute, and at most `clips` of them."""
    from motionlab.world.captions import parse_caption

    left = [only.get("clips", 10 ** 9)]

    def keep(text):
        actor = parse_caption(text)["actors"][0] | {"camera": parse_caption(text)["camera"]}
        good = all(actor[one_of(name, actor, "attribute of only")] in values for name, values in only.items() if name != "clips")
        left[0] -= good
        return good and left[0] >= 0

    return keep


def _image_encoder(settings, work, out, until):
    from motionlab.data.bank import BankConfig
    from motionlab.pretrain.image_encoder import ImageEncoderConfig, ImageEncoderRecipe, train_image_encoder
    from motionlab.training import TrainConfig

    kinds = {"bank": BankConfig, "model": ImageEncoderConfig, "recipe": ImageEncoderRecipe, "training": TrainConfig}
    return train_image_encoder(**_read(settings, kinds, out.stem), work=work, out=out, until=until)


def _evaluator(settings, work, out, until):
    from motionlab.data.bank import BankConfig
    from motionlab.pretrain.evaluator import EvaluatorConfig, EvaluatorRecipe, train_evaluator
    from motionlab.training import TrainConfig

    kinds = {"bank": BankConfig, "model": EvaluatorConfig, "recipe": EvaluatorRecipe, "training": TrainConfig}
    return train_evaluator(**_read(settings, kinds, out.stem), codec=checkpoint("codec", work), work=work, out=out, until=until)


def _read(settings, kinds, stage):
    for part in settings:
        one_of(part, {*kinds, "about"}, f"part of stage {stage}")
    return {part: configs.from_values(kind, settings.get(part, {}), f"{part} of stage {stage}") for part, kind in kinds.items()}


STAGES = {"codec": _codec, "image_encoder": _image_encoder, "sam2": _sam2, "evaluator_0": _evaluator, "evaluator_1": _evaluator,
          "gate_overfit": _gate, "gate_four": _gate, "base": _base, "trunk": _base, "gate_unet": _unet_gate, "unet": _unet}
