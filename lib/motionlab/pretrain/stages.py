"""The stages of `make pretrain`, in order, from `reproductions/testbed/pretrain.yaml`."""
from __future__ import annotations

from pathlib import Path

from motionlab import config as configs
from motionlab.errors import MotionLabError, one_of
from motionlab.ledger.claims import read_yaml
from motionlab.ledger.paths import repo_root

HOME = Path("reproductions") / "testbed"


def checkpoint(name: str, root: Path | None = None) -> Path:
    """Where the shipped checkpoint of a stage lies."""
    return Path(root or repo_root()) / HOME / "checkpoints" / f"{name}.safetensors"


def run_stage(name: str, work: Path, root: Path | None = None, until: int | None = None, **changes) -> Path | None:
    """Run one stage to its end, or up to step `until`; what was trained before below `work` is gone on with.

    Returns:
        The checkpoint that the stage leaves, None when it paused.

    Raises:
        MotionLabError: unknown stage or setting, and whatever training raises.
    """
    root = Path(root or repo_root())
    path = root / HOME / "pretrain.yaml"
    settings = read_yaml(path)
    one_of(name, STAGES, "stage")
    if name not in settings:
        raise MotionLabError(f"{path} has no stage '{name}'.", fix=f"It has: {', '.join(settings)}.")
    print(f"stage {name}", flush=True)
    return STAGES[name](settings[name], Path(work), checkpoint(name, root), until)


def _codec(settings, work, out, until):
    from motionlab.models.codec import CodecConfig
    from motionlab.pretrain.bank import BankConfig
    from motionlab.pretrain.codec import CodecRecipe, train_codec
    from motionlab.training import TrainConfig

    kinds = {"bank": BankConfig, "model": CodecConfig, "recipe": CodecRecipe, "training": TrainConfig}
    return train_codec(**_read(settings, kinds, "codec"), work=work, out=out, until=until)


def _read(settings, kinds, stage):
    for part in settings:
        one_of(part, kinds, f"part of stage {stage}")
    return {part: configs.from_values(kind, settings.get(part, {}), f"{part} of stage {stage}") for part, kind in kinds.items()}


STAGES = {"codec": _codec}
