"""What the fault campaign disturbs (`faults.py`): eight activities, each of which can be asked to go on."""
from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from motionlab.core.errors import MotionLabError

HERE = Path(__file__).parent


def digest(*paths: Path) -> str:
    """Names and contents of files, and of all files in folders."""
    found = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not file.name.startswith(".lock") and file.suffix not in (".md",):
                found.update(str(file.relative_to(path.parent)).encode() + file.read_bytes())
    return found.hexdigest()


def weights(path: Path) -> str:
    """The tensors of a safetensors file: its metadata may stand in any order."""
    from safetensors.torch import load_file

    found = hashlib.sha256()
    for name, value in sorted(load_file(path).items()):
        found.update(name.encode() + value.double().numpy().tobytes())
    return found.hexdigest()


# ----------------------------------------------------------------------------------------------------------- activities


@dataclass(frozen=True)
class Activity:
    """prepare(root) lays out what is needed, once; run(root) does it, or goes on with it; result(root) names what it made."""

    prepare: Callable[[Path], None]
    run: Callable[[Path], None]
    result: Callable[[Path], str]
    torn: tuple[str, ...] = ()              # patterns of files that may be torn after the end, and must be made again


def preload() -> None:
    """What forked processes would import each on its own; not at the top, where every spawned one would run it too."""
    import accelerate  # noqa: F401
    import jinja2  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import torch

    import small  # noqa: F401
    import training_script  # noqa: F401
    from motionlab import cli, ledger  # noqa: F401
    from motionlab.data import store  # noqa: F401
    from motionlab.ledger import book, publishing, report  # noqa: F401
    from motionlab.pretrain import cards, image_encoder  # noqa: F401
    from motionlab.runner.sweep import running  # noqa: F401
    from motionlab.training import loop  # noqa: F401

    torch.set_num_threads(1)


def _checkout(root):
    from ledger_example import make_root

    make_root(root)
    shutil.copy(HERE.parent / "reproductions/protocol.yaml", root / "reproductions/protocol.yaml")
    os.environ["MOTIONLAB_ROOT"] = str(root)
    os.chdir(root)


def _training(root):
    import training_script as script

    script.train(script.Net(64), script.flow_loss, script.Points(), script.config(root / "out", steps=20, checkpoint_every=2, log_every=2))


def _sweep_prepare(root):
    _checkout(root)
    (root / "reproductions/example").mkdir()
    (root / "reproductions/example/ablations.yaml").write_text(
        "paper: example\nrow: sweep_example:run_row\ncommon: {units: 4, sleep_s: 0.1}\narms:\n  - {name: base, seeds: [0, 1]}\n")


def _sweep(root):
    from motionlab import cli

    if cli.main(["sweep", "example", "--tier", "smoke", "--jobs", "2"]):
        raise MotionLabError("the sweep told of a failure")


def _publish_prepare(root):
    from ledger_example import run_notebook

    _checkout(root)
    run = run_notebook(root, with_pictures=True)
    (run / "raw" / "large.csv").write_text("item,arm,seed\n" + "x,y,0\n" * 400_000)
    _list_raw(run, "large.csv")


def _list_raw(run, name):
    from motionlab.core.files import read_json, write_json
    from motionlab.ledger.verdict import file_sha

    result = read_json(run / "result.json")
    result["raw"].append({"file": name, "sha256": file_sha(run / "raw" / name), "rows": 1})
    write_json(run / "result.json", result)


def _publish(root):
    from motionlab import ledger

    ledger.publish(root / "runs/laptop/09_audit", root)


def _report(root):
    from motionlab.ledger.report import render_report
    from motionlab.ledger.results import update_readme

    for _ in range(10):
        render_report(root)
        update_readme(root)


def _bank(root):
    from motionlab.data.bank import BankConfig, open_bank

    open_bank(BankConfig("examples", clips=130, frames=1, size=32), root / "banks", 2)


def _sidecar(root):
    import torch

    from motionlab.data import store
    from motionlab.data.bank import BankConfig
    from motionlab.data.sidecars import Sidecar
    from motionlab.data.sources import World
    from small import small_model

    torch.manual_seed(0)
    store.SHARD = 4
    store.open_data(World(BankConfig("examples", clips=16, frames=5)), small_model(length=2), (Sidecar("stills"),), root / "data", lambda text: None)


def _pretrain_prepare(root):
    import yaml

    from motionlab.pretrain import stages

    _checkout(root)
    bank = {"split": "pretraining", "clips": 8, "frames": 5}
    training = {"steps": 12, "batch_size": 4, "checkpoint_every": 2, "log_every": 2, "warmup": 1}
    (root / stages.HOME).mkdir()
    (root / stages.HOME / "pretrain.yaml").write_text(yaml.safe_dump(
        {"image_encoder": {"bank": bank | {"split": "teacher"}, "model": {"d": 32, "layers": 1, "heads": 2}, "training": training}}))


def _pretrain(root):
    from motionlab.pretrain import stages

    stages.run_stage("image_encoder", root / "work", root)
    stages.publish(["image_encoder"], root / "work", root)


def _pretrained(root):
    from motionlab.core import digests
    from motionlab.pretrain import stages

    places = [root / "work/checkpoints/image_encoder.safetensors", stages.shipping_place("image_encoder", root)]
    assert [digests.problem_of(place) for place in places] == [None, None] and all(map(digests.known_digests, places))
    return " ".join(map(weights, places))


def _trained(root):
    """The newest checkpoint. The one before it is a spare: torn, it is stepped over when it is needed, and not made again."""
    from motionlab.training.checkpoints import checkpoints, problem_of

    found = checkpoints(root / "out")
    assert problem_of(found[-1]) is None
    return found[-1].name + "".join(weights(found[-1] / f"{name}.safetensors") for name in ("model", "ema", "optimizer"))


def _init_prepare(root):
    """What the two wheels hold, in small."""
    files = {f"notebooks/{i:02d}_x.ipynb": bytes(50_000) for i in range(8)} | {"reproductions/audit/claims.yaml": b"claims: {}"}
    model = "reproductions/testbed/checkpoints/base.safetensors"
    listed = {name: f"{hashlib.sha256(data).hexdigest()}  {len(data)}" for name, data in (files | {model: bytes(2_000_000)}).items()}
    files["reproductions/MANIFEST"] = f"{listed.pop(model)}  {model.partition('/')[2]}\n".encode()
    listed["reproductions/MANIFEST"] = f"{hashlib.sha256(files['reproductions/MANIFEST']).hexdigest()}  {len(files['reproductions/MANIFEST'])}"
    files["SHA256"] = "".join(f"{line}  {name}\n" for name, line in listed.items()).encode()
    for name, data in ({f"kit/{name}": data for name, data in files.items()} | {f"weights/{model}": bytes(2_000_000)}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def _init(root):
    from motionlab.core.layout import lay_out, was_laid_out

    try:
        lay_out(root / "lab", root / "kit", root / "weights")
    except MotionLabError:
        if not was_laid_out(root / "lab"):  # another one, or an earlier call, has done it
            raise


ACTIVITIES = {
    "training": Activity(lambda root: None, _training, _trained, ("out/checkpoints/step_*/*",)),
    "sweep": Activity(_sweep_prepare, _sweep, lambda root: digest(*sorted((root / "runs/sweep/example/smoke/rows").glob("*.csv"))), ("runs/sweep/example/smoke/rows/*",)),
    "publish": Activity(_publish_prepare, _publish, lambda root: digest(root / "reproductions")),
    "report": Activity(lambda root: (_publish_prepare(root), _publish(root)), _report, lambda root: digest(root / "reproductions/report", root / "README.md")),
    "bank": Activity(_checkout, _bank, lambda root: digest(root / "banks"), ("banks/bank_*/*",)),
    "sidecar": Activity(_checkout, _sidecar, lambda root: digest(root / "data"), ("data/*/*/*.npy",)),
    "init": Activity(_init_prepare, _init, lambda root: digest(root / "lab")),
    "pretrain": Activity(_pretrain_prepare, _pretrain, _pretrained, ("work/checkpoints/*.safetensors", "work/bank_*/frames.npy", "work/image_encoder/checkpoints/step_*/*")),
}
