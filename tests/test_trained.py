"""Checkpoints hold what is trained: an adapter's run over a frozen base is small, resumes exactly, and knows its base again."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import training_script as script
from motionlab.core.errors import MotionLabError
from motionlab.training import load_trained, train, trained_names
from motionlab.training.checkpoints import TENSOR_FILES

STATISTICS = [f"base.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]
TRAINED = {"seen", "adapter.weight", "adapter.bias", *STATISTICS}


def go(out_dir, model=None, until=None, **changes):
    return train(script.Adapted() if model is None else model, script.flow_loss, script.Points(),
                 script.config(out_dir, **changes), until=until)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_frozen_base_is_in_no_checkpoint(tmp_path):
    whole = sum(p.numel() * p.element_size() for p in script.Adapted().parameters())
    checkpoint = go(tmp_path).checkpoint
    assert size(tmp_path) < whole / 5                   # two generations of three files, mostly headers and state.json
    stored = {name: load_file(checkpoint / name) for name in TENSOR_FILES}
    assert stored["model.safetensors"].keys() == stored["ema.safetensors"].keys() == TRAINED
    assert {name.split("|")[2] for name in stored["optimizer.safetensors"]} == {"adapter.weight", "adapter.bias"}
    assert stored["model.safetensors"]["seen"] == 20 * 8


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}], ids=str)
def test_a_run_over_a_frozen_base_resumes_exactly(tmp_path, changes):
    def model():
        made = script.Adapted()
        made.adapters = torch.nn.ModuleList([torch.nn.Linear(6, 6)])        # a matrix in a numbered module, for Muon
        made.register_forward_hook(lambda module, _, out: out + module.adapters[0](out))
        with torch.no_grad():
            made.adapters[0].weight.fill_(0.1), made.adapters[0].bias.fill_(0.1)
        return made

    whole, last = model(), model()
    one = go(tmp_path / "whole", whole, **changes)
    assert go(tmp_path / "parts", model(), until=10, **changes).status == "paused"
    two = go(tmp_path / "parts", last, **changes)
    for name in TENSOR_FILES:
        a, b = load_file(one.checkpoint / name), load_file(two.checkpoint / name)
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
    assert all(torch.equal(value, last.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("change, says", [
    (lambda model: None, None),
    (lambda model: model.base[2].weight.data.mul_(1.001), "the values of its frozen tensors are not those of yours"),
    (lambda model: model.base.shift.zero_(), "the values of its frozen tensors"),
    (lambda model: model.base.append(torch.nn.Linear(2, 2).requires_grad_(False)), "the names or shapes of its frozen tensors"),
    (lambda model: model.base.requires_grad_(True), r"another model: 'base.0.bias' is absent there and \(256,\) in yours"),
    (lambda model: model.adapter.requires_grad_(False) and model.base[3].requires_grad_(True),
     r"another model: 'adapter.bias' is \(6,\) there and not trained in yours"),
], ids=["same", "values", "buffer", "names", "unfrozen", "frozen"])
def test_resuming_over_another_base_is_refused(tmp_path, change, says):
    go(tmp_path, until=5)
    model = script.Adapted()
    change(model)
    if says is None:
        assert go(tmp_path, model).step == 20
        return
    with pytest.raises(MotionLabError, match=says):
        go(tmp_path, model)


def test_averaged_weights_of_the_trained_part_go_over_any_copy_of_the_base(tmp_path):
    result = go(tmp_path)
    average, model = result.ema_state(), script.Adapted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert average.keys() == TRAINED and load_trained(model, average) is model
    for name, value in model.state_dict().items():
        assert torch.equal(value, average[name] if name in TRAINED else before[name]), name
    for state, says in ((average | {"more": torch.ones(1)}, r"'more' is \(1,\) there and absent in yours"),
                        ({"seen": average["seen"]}, r"'adapter.bias' is absent there and \(6,\) in yours"),
                        (average | {"adapter.bias": torch.ones(7)}, r"'adapter.bias' is \(7,\) there and \(6,\)")):
        with pytest.raises(MotionLabError, match=f"not the trained part of this Adapted: {says}"):
            load_trained(model, state)


def test_where_nothing_is_frozen_all_is_trained(tmp_path):
    model = script.Net()
    result = train(model, script.flow_loss, script.Points(), script.config(tmp_path, steps=2))
    assert trained_names(model) == list(model.state_dict())
    assert json.loads((result.checkpoint / "state.json").read_text())["frozen"] is None
    model.load_state_dict(result.ema_state())


def test_buffers_go_with_their_module():
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", torch.ones(1))
            self.register_buffer("derived", torch.ones(1), persistent=False)

    model = torch.nn.ModuleDict({
        "frozen": torch.nn.Sequential(torch.nn.Linear(1, 1), Table(), torch.nn.BatchNorm1d(1)).requires_grad_(False),
        "trained": torch.nn.Sequential(torch.nn.Linear(1, 1), Table()), "loose": Table()})
    assert trained_names(model) == ["frozen.2.running_mean", "frozen.2.running_var", "frozen.2.num_batches_tracked",
                                    "trained.0.weight", "trained.0.bias", "trained.1.kept", "loose.kept"]


@pytest.mark.parametrize("moved", ["base.shift", "base.3.weight"])
def test_a_frozen_tensor_that_the_loss_changes_is_told_at_the_first_step(tmp_path, moved):
    model = script.Adapted()
    model.adapter.register_forward_hook(lambda *_: [model.state_dict()[moved].mul_(0.9)].clear())
    with pytest.raises(MotionLabError, match=f"'{moved}' is not trained and changed during the training"):
        go(tmp_path, model)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_checkpoint_of_an_adapter_is_verified_like_any_other(tmp_path):
    checkpoint = go(tmp_path, until=5).checkpoint
    save_file({"adapter.weight": torch.zeros(6, 7)}, checkpoint / "model.safetensors")
    with pytest.raises(MotionLabError, match=r"model\.safetensors is truncated or changed"):
        go(tmp_path)
