"""What is settled before a method with a head is trained: the head alone, the weight by its share of the gradient, all of it resumable."""
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from motionlab.core.errors import MotionLabError
from motionlab.core.noise import SampleNoise
from motionlab.data.sources import Listed
from motionlab.data.store import held_data
from motionlab.experiments import heads
from motionlab.experiments.arms import read_arm
from motionlab.experiments.finetune import tuned_once
from motionlab.experiments.heads import measured_weight, settled
from motionlab.methods import open_method
from motionlab.training import TrainConfig
from motionlab.world import random_scene, render
from small import small_model

SAID = ["a red dog runs to the left over the meadow", "a blue fish swims to the right under the sea"]
METHOD = open_method("sam2videox", teacher="exact", head_steps=3)


@pytest.fixture(scope="module")
def clips():
    return [render(random_scene(seed, motion=motion, camera=False), 48, 9) for seed, motion in ((3, "slide"), (5, "run"))]


def fresh():
    torch.manual_seed(0)
    return small_model(layers=4, length=3, stir=0.1)


def config(folder, **changes):
    usual = {"steps": 4, "batch_size": 2, "warmup": 1, "checkpoint_every": 2, "log_every": 0, "lr": 3e-3, "out_dir": str(folder / "training")}
    return TrainConfig(**usual | changes)


def data_of(clips):
    return lambda pipe: held_data(Listed(clips), SAID, pipe, METHOD.wants())


def test_the_weight_gives_the_own_gradient_its_share(clips, tmp_path):
    pipe = fresh()
    METHOD.attach(pipe)
    data, one = data_of(clips)(pipe), config(tmp_path, steps=3)
    found = measured_weight(METHOD, pipe, data, one)
    plain, own = [], []
    for k in range(3):
        parts = METHOD.parts(pipe, data.batch(torch.arange(2)), SampleNoise(0, k, range(2)))
        for losses, norms in ((parts.plain, plain), (parts.own, own)):
            norms.append(torch.autograd.grad(losses.mean(), parts.hidden, retain_graph=True)[0].norm().item())
    size, mine = (np.sqrt(np.mean(np.square(norms))) for norms in (plain, own))
    assert found["weight"] * mine / size == pytest.approx(0.2, rel=1e-4) and found["literal"] == pytest.approx(0.5 * mine / size, rel=1e-4)
    half = measured_weight(dataclasses.replace(METHOD, share=0.1), pipe, data, one)
    assert half["weight"] == pytest.approx(found["weight"] / 2) and found["batches"] == 3
    assert all(p.grad is None for p in pipe.parameters())


def test_a_head_is_fitted_alone_first_and_everything_goes_on_where_it_was_killed(clips, tmp_path, monkeypatch):
    whole = tuned_once(METHOD, fresh, data_of(clips), config(tmp_path / "whole"), tmp_path / "whole")
    said = json.loads((tmp_path / "whole" / "settled.json").read_text())
    assert said["settings"]["weight"] == said["weight"] > 0 and said["settings"]["tau"] == 0.1 and {"plain", "own", "literal"} <= set(said)
    head = load_file(tmp_path / "whole" / "head" / "checkpoints" / "step_00000003" / "model.safetensors")
    assert all(".heads." in name for name in head)
    stored = load_file(tmp_path / "whole" / "trained.safetensors")
    assert stored and not any("heads" in name for name in stored)

    def dies(*args, **settings):
        raise KeyboardInterrupt

    for at in ("measured_weight", None):                                    # after the head, and after the first steps of the training
        with monkeypatch.context() as patch:
            if at:
                patch.setattr(heads, at, dies)
            else:
                import motionlab.experiments.finetune as finetune
                kept = finetune.train
                patch.setattr(finetune, "train", lambda *a, **k: (kept(*a, until=2, **k), dies()))
            with pytest.raises(KeyboardInterrupt):
                tuned_once(METHOD, fresh, data_of(clips), config(tmp_path / "cut"), tmp_path / "cut")
    again = tuned_once(METHOD, fresh, data_of(clips), config(tmp_path / "cut"), tmp_path / "cut")
    assert (tmp_path / "cut" / "settled.json").read_text() == (tmp_path / "whole" / "settled.json").read_text()
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))


def test_a_weight_that_is_given_stays_and_plain_has_nothing_to_settle(clips, tmp_path):
    pipe, given = fresh(), dataclasses.replace(METHOD, weight=0.5, tau=0.2, head_steps=0)
    given.attach(pipe)
    assert settled(given, pipe, data_of(clips)(pipe), config(tmp_path), tmp_path) == given and not (tmp_path / "head").exists()
    assert json.loads((tmp_path / "settled.json").read_text()) == {"settings": {"weight": 0.5, "tau": 0.2}}
    for method in (open_method("plain"), dataclasses.replace(METHOD, weight=0.0)):
        assert settled(method, None, None, config(tmp_path), tmp_path / "none") is method
    assert not (tmp_path / "none").exists()


def test_targets_that_say_nothing_give_no_weight(clips, tmp_path):
    pipe = fresh()
    METHOD.attach(pipe)
    data = data_of(clips)(pipe)
    data.arrays["target"] = [np.full_like(data.arrays["target"][0], np.nan)]
    with pytest.raises(MotionLabError, match="gradients of norm 0"):
        measured_weight(METHOD, pipe, data, config(tmp_path, steps=1))


def test_choices_are_made_on_dev_clips_with_the_truth_beside_them(clips, tmp_path):
    pipe, method, asked = fresh(), open_method("sam2videox", teacher="image", head_steps=1, weight=0.3, out=32), []
    method.attach(pipe)

    def dev(sidecars):
        asked.extend(one.key for one in sidecars)
        return held_data(Listed(clips), SAID, pipe, sidecars)

    found = settled(method, pipe, held_data(Listed(clips), SAID, pipe, method.wants()), config(tmp_path), tmp_path, dev)
    assert asked == ["target", "transport"] and found.tau in (0.02, 0.05, 0.1, 0.2) and found.weight == 0.3
    assert settled(method, pipe, held_data(Listed(clips), SAID, pipe, method.wants()), config(tmp_path), tmp_path, dev) == found


def test_the_drafted_arms_and_presets_read():
    home = Path(__file__).resolve().parents[1] / "reproductions" / "sam2videox"
    drafted = yaml.safe_load((home / "pilots" / "ablations.yaml").read_text(encoding="utf-8"))
    # rates are chosen later: a number stands for them here
    arms = [yaml.safe_load(yaml.safe_dump(arm).replace("chosen@plain", "0.001").replace("chosen@lora_plain", "0.001").replace("chosen", "0.001"))
            for arm in drafted["arms"]]
    read = {arm["name"]: read_arm({k: v for k, v in arm.items() if k != "unequal"}, drafted["common"]) for arm in arms}
    assert len(read) == len(drafted["arms"]) and all(arm.budget.lr == 1e-3 for arm in read.values() if arm.budget)
    said = {name: dataclasses.asdict(arm.method) for name, arm in read.items()}
    usual = said["full"]
    assert {name: {k: v for k, v in said[name].items() if v != usual[k]} for name in ("fwd_only", "lgf_l2", "full_subject", "literal")} == {
        "fwd_only": {"fusion": "fwd_only"}, "lgf_l2": {"loss_of": "lgf_l2"}, "full_subject": {"where": "subject"}, "literal": {"weight": 0.5, "tau": 0.1}}
    table = yaml.safe_load((home / "pilots" / "teachers.yaml").read_text(encoding="utf-8"))
    for arm in table["arms"]:
        (field, values), = arm["grid"].items()
        assert all(getattr(read_arm({k: v for k, v in arm.items() if k != "grid"} | {field: value}, table["common"]).method, field) == value for value in values)
    from motionlab.experiments.tuning import TuneConfig
    from motionlab.methods.sam2videox import SAM2VideoX

    for name in ("f", "l"):
        values = yaml.safe_load((home / "presets" / f"cogvideox-5b-i2v-{name}.yaml").read_text(encoding="utf-8"))
        own, config_ = ({f.name for f in dataclasses.fields(kind)} for kind in (SAM2VideoX, TuneConfig))
        assert set(values) <= own | config_
        assert open_method("sam2videox", **{k: v for k, v in values.items() if k in own}).projector == {"f": "spatial", "l": "temporal"}[name]
