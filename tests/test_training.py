from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import training_script as script
from motionlab import training
from motionlab.core.errors import MotionLabError
from motionlab.training.checkpoints import TENSOR_FILES
from motionlab.training import DataCursor, SampleNoise, TrainConfig, checkpoints, export_ema, lr_factor, read_log, train

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled",
       "PYTHONPATH": str(Path(training.__file__).parents[2])}


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def go(out_dir, model=None, loss_fn=script.flow_loss, until=None, resume=True, on_sample=None, **changes):
    model = script.Net() if model is None else model
    return train(model, loss_fn, script.Points(), script.config(out_dir, **changes), resume, on_sample, until)


def assert_same_state(first: Path, second: Path):
    for name in TENSOR_FILES:
        a, b = load_file(first / name), load_file(second / name)
        assert a.keys() == b.keys() and len(a) > 0
        assert all(torch.equal(a[k], b[k]) for k in a), name


def curve(out_dir):
    return [(row["step"], row["loss"]) for row in read_log(out_dir)]


def fail_at(step, how):
    calls = []

    def loss_fn(model, x1, noise):
        calls.append(1)
        loss, parts = script.flow_loss(model, x1, noise)
        return how(loss, parts) if len(calls) == step else (loss, parts)

    return loss_fn


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon", "schedule": "cosine"}, {"bf16": True}])
def test_twenty_steps_equal_ten_and_resume_and_ten(tmp_path, changes):
    whole = go(tmp_path / "whole", **changes)
    assert go(tmp_path / "parts", until=10, **changes).status == "paused"
    parts = go(tmp_path / "parts", **changes)
    assert (whole.step, parts.step, parts.status) == (20, 20, "finished")
    assert_same_state(whole.checkpoint, parts.checkpoint)
    assert curve(tmp_path / "whole") == curve(tmp_path / "parts")


def faster(scale):
    model = script.Net()
    model.out.weight.lr_scale = torch.full_like(model.out.weight, 1.0)
    model.out.weight.lr_scale[0] = scale
    return model


def test_an_entry_with_lr_scale_moves_that_many_times_as_far_and_resumes_exactly(tmp_path):
    start = script.Net().out.weight[0]
    moved = [faster_one(go(tmp_path / str(scale), faster(scale), until=1)) - start for scale in (1.0, 3.0, 0.0)]
    torch.testing.assert_close(moved[1], 3 * moved[0], rtol=1e-3, atol=1e-8)
    assert bool((moved[0] != 0).all()) and not moved[2].any()
    whole = go(tmp_path / "whole", faster(3.0))
    go(tmp_path / "parts", faster(3.0), until=10)
    assert_same_state(whole.checkpoint, go(tmp_path / "parts", faster(3.0)).checkpoint)


def faster_one(result):
    return load_file(result.checkpoint / "model.safetensors")["out.weight"][0]


def test_muon_has_the_block_matrices_and_its_state_is_stored(tmp_path):
    stored = load_file(go(tmp_path, optimizer="muon", steps=2).checkpoint / "optimizer.safetensors")
    assert {k for k in stored if k.startswith("muon")} == {f"muon|momentum_buffer|blocks.{i}.weight" for i in (0, 1)}
    assert "adamw|exp_avg|into.weight" in stored


def two_processes(out_dir, *words):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1",
               "--master_port", str(port), script.__file__, str(out_dir), "20", *words]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((checkpoints(out_dir)[-1] / "state.json").read_text())["processes"] == 2


def assert_same_curve(one, two):
    one, two = curve(one), curve(two)
    assert [s for s, _ in one] == [s for s, _ in two] == list(range(1, 21))
    assert max(abs(a - b) for (_, a), (_, b) in zip(one, two)) < 1e-5


def test_two_processes_give_the_loss_curve_of_one(tmp_path):
    go(tmp_path / "one")
    two_processes(tmp_path / "two")
    assert_same_curve(tmp_path / "one", tmp_path / "two")


def test_two_processes_that_share_the_weights_give_the_curve_and_checkpoint_of_one(tmp_path):
    one = go(tmp_path / "one", script.partly_frozen())
    two_processes(tmp_path / "two", "0", "sharded")     # in two parts
    assert_same_curve(tmp_path / "one", tmp_path / "two")
    for name in TENSOR_FILES:
        a, b = load_file(one.checkpoint / name), load_file(checkpoints(tmp_path / "two")[-1] / name)
        assert a.keys() == b.keys()
        assert all(torch.allclose(a[k].float(), b[k].float(), rtol=1e-3, atol=1e-6) for k in a), name
    assert go(tmp_path / "two", script.partly_frozen(), steps=21).step == 21


def test_the_fsdp_example_has_fields_and_values_that_accelerate_knows():
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from diffusers.models import transformers

    file = Path(__file__).parents[1] / "docs" / "accelerate_fsdp.yaml"
    config = load_config_from_file(str(file))           # refuses fields that it does not know
    assert (config.distributed_type, config.num_processes, config.mixed_precision) == (DistributedType.FSDP, 2, "no")
    options, fsdp = launch_command_parser().parse_args(["script.py"]), config.fsdp_config
    assert all(hasattr(options, name) for name in fsdp)
    classes = fsdp["fsdp_transformer_layer_cls_to_wrap"].split(",")
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=fsdp["fsdp_version"], auto_wrap_policy=fsdp["fsdp_auto_wrap_policy"], transformer_cls_names_to_wrap=classes,
        reshard_after_forward=fsdp["fsdp_reshard_after_forward"], state_dict_type=fsdp["fsdp_state_dict_type"],
        cpu_ram_efficient_loading=fsdp["fsdp_cpu_ram_efficient_loading"])
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward and not plugin.cpu_ram_efficient_loading
    source = "".join(path.read_text(encoding="utf-8") for path in Path(transformers.__file__).parent.glob("*.py"))
    named = re.findall(r"\b\w+Block\b", file.read_text(encoding="utf-8"))
    assert set(classes) < set(named) and all(f"class {name}(" in source for name in named)


def test_kill_in_the_middle_loses_only_the_steps_since_the_checkpoint(tmp_path):
    command = [sys.executable, "-u", script.__file__, str(tmp_path / "killed"), "20", "0.05"]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("step 12/"):
                process.kill()
                break
    assert checkpoints(tmp_path / "killed")[-1].name == "step_00000010"
    assert_same_state(go(tmp_path / "whole").checkpoint, go(tmp_path / "killed").checkpoint)
    assert curve(tmp_path / "whole") == curve(tmp_path / "killed")


@pytest.mark.parametrize("place", ["save_file", "rename"])
def test_death_while_a_checkpoint_is_written_keeps_the_one_before(tmp_path, monkeypatch, place):
    go(tmp_path, until=5)

    def die(*a, **k):
        raise SystemExit("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file" if place == "save_file" else "os.rename", die)
        with pytest.raises(SystemExit):
            go(tmp_path)
    assert [p.name for p in checkpoints(tmp_path)] == ["step_00000005"]
    assert go(tmp_path).step == 20
    assert not list((tmp_path / "checkpoints").glob("unfinished_*"))


def test_a_full_disk_is_told_in_a_sentence_and_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    from safetensors import SafetensorError
    import safetensors.torch

    before = go(tmp_path, until=5).checkpoint

    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", full)
        with pytest.raises(MotionLabError, match="The disk is full"):
            go(tmp_path)
    assert checkpoints(tmp_path) == [before] and not list((tmp_path / "checkpoints").glob("unfinished*"))
    assert go(tmp_path).status == "finished"


@pytest.mark.parametrize("name", [*TENSOR_FILES, "state.json"])
def test_truncated_checkpoint_falls_back_with_a_note(tmp_path, name):
    whole = go(tmp_path / "whole")
    paused = go(tmp_path / "cut", until=10)
    file = paused.checkpoint / name
    file.write_bytes(file.read_bytes()[:-7])
    result = go(tmp_path / "cut")
    assert name in result.notes[0] and "going on from step_00000005" in result.notes[0]
    assert_same_state(whole.checkpoint, result.checkpoint)


def test_no_readable_checkpoint_says_which_file_and_what_to_do(tmp_path):
    file = go(tmp_path, until=5).checkpoint / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(MotionLabError, match=r"model\.safetensors is truncated(.|\n)*delete that folder"):
        go(tmp_path)


def test_checkpoint_of_another_model_or_run_is_refused(tmp_path):
    go(tmp_path, until=5)
    with pytest.raises(MotionLabError, match=r"another model: 'blocks\.0\.bias' is \(8,\) there and \(12,\) in yours"):
        go(tmp_path, model=script.Net(width=12))
    with pytest.raises(MotionLabError, match="batch_size was 8 and is now 4"):
        go(tmp_path, batch_size=4)
    with pytest.raises(MotionLabError, match="already has a checkpoint, step_00000005"):
        go(tmp_path, resume=False)


def test_nan_loss_stops_says_where_and_keeps_the_last_checkpoint(tmp_path):
    def nan(loss, parts):
        parts = {"t": torch.full((8,), 0.25), "per_sample": parts["per_sample"].clone()}
        parts["per_sample"][3] = float("nan")
        return parts["per_sample"].mean(), parts

    with pytest.raises(MotionLabError, match=r"loss is not finite at step 8 \(t = 0\.250\).*step_00000005 is the last"):
        go(tmp_path, loss_fn=fail_at(8, nan))
    assert checkpoints(tmp_path)[-1].name == "step_00000005"
    assert go(tmp_path).step == 20


def test_ctrl_c_writes_a_checkpoint_and_raises(tmp_path):
    def interrupt(loss, parts):
        signal.raise_signal(signal.SIGINT)
        return loss, parts

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "stopped", loss_fn=fail_at(7, interrupt))
    assert checkpoints(tmp_path / "stopped")[-1].name == "step_00000007"
    assert_same_state(go(tmp_path / "whole").checkpoint, go(tmp_path / "stopped").checkpoint)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_keeps_two_checkpoints_and_logs_losses_per_bin(tmp_path):
    go(tmp_path, log_every=10)
    assert [p.name for p in checkpoints(tmp_path)] == ["step_00000015", "step_00000020"]
    row = read_log(tmp_path)[-1]
    assert len(row["loss_per_t_bin"]) == 10 and sum(row["n_per_t_bin"]) == 40
    mean = sum(a * n for a, n in zip(row["loss_per_t_bin"], row["n_per_t_bin"]) if n) / 40
    assert mean == pytest.approx(row["loss"], rel=1e-6)
    assert {"lr", "grad_norm", "seconds", "seconds_left"} <= row.keys()


def test_samples_see_the_average_and_change_nothing(tmp_path):
    seen = {}

    def on_sample(model, step):
        seen[step] = {k: v.clone() for k, v in model.state_dict().items()}
        torch.randn(5)
        return {"quality": 1.0}

    plain, sampled = go(tmp_path / "plain"), go(tmp_path / "sampled", on_sample=on_sample, sample_every=10)
    assert_same_state(plain.checkpoint, sampled.checkpoint)
    assert list(seen) == [10, 20]
    assert all(torch.equal(seen[20][k], v) for k, v in sampled.ema_state().items())


def test_ema_follows_its_equation(tmp_path):
    mean = {k: v.clone() for k, v in script.Net().state_dict().items()}
    model = script.Net()
    for step in range(3):
        result = go(tmp_path, model=model, until=step + 1)
        decay = min(0.995, (1 + step) / (10 + step))
        mean = {k: decay * mean[k] + (1 - decay) * v for k, v in model.state_dict().items()}
    for k, v in result.ema_state().items():
        torch.testing.assert_close(v, mean[k])


def test_shared_parameters_are_averaged_under_every_name(tmp_path):
    model = script.Net()
    model.blocks[1].weight = model.blocks[0].weight
    average = go(tmp_path, model=model, steps=5).ema_state()
    assert torch.equal(average["blocks.0.weight"], average["blocks.1.weight"])
    assert not torch.equal(average["blocks.0.weight"], model.blocks[0].weight)


def test_compiled_model_stores_plain_names(tmp_path, monkeypatch):
    plain = go(tmp_path / "plain", steps=3)
    compiled = go(tmp_path / "compiled", model=torch.compile(script.Net(), backend="eager"), steps=3)
    assert_same_state(plain.checkpoint, compiled.checkpoint)
    made, whole = [], torch.compile
    monkeypatch.setattr("torch.compile", lambda model: made.append(whole(model, backend="eager")) or made[-1])
    asked = go(tmp_path / "asked", compile=True, steps=3, sample_every=3, on_sample=lambda model, _: made.append(model))
    assert_same_state(plain.checkpoint, asked.checkpoint)
    assert made[1] is made[0]._orig_mod                 # samples come from the model itself, which can be tapped


def test_gradient_checkpointing_runs_the_blocks_again_and_gives_the_same_bits(tmp_path):
    from small import small_model
    from motionlab.methods import open_method

    class Clips:
        x = {"x1": torch.randn(6, 2, 4, 12, 12, generator=torch.Generator().manual_seed(3))}

        def __len__(self):
            return 6

        def batch(self, indices):
            return {"x1": self.x["x1"][indices], "text": model.text([""] * len(indices))}

    results, calls = {}, {}
    for wanted in (False, True):
        model, calls[wanted] = small_model(length=2, stir=0.02), []
        model.denoiser.transformer_blocks[0].register_forward_pre_hook(lambda *_: calls[wanted].append(1))
        config = script.config(tmp_path / str(wanted), steps=2, batch_size=2, gradient_checkpointing=wanted)
        results[wanted] = train(model, open_method("plain").loss(model), Clips(), config)
    assert (len(calls[False]), len(calls[True])) == (2, 4)
    assert_same_state(results[False].checkpoint, results[True].checkpoint)
    with pytest.raises(MotionLabError, match="gradient_checkpointing is set, but Net holds no model that can do it"):
        go(tmp_path / "net", gradient_checkpointing=True)


def test_export_is_bf16_with_the_config_and_names_a_foreign_folder(tmp_path):
    path = go(tmp_path, steps=2).export_ema(tmp_path / "out" / "base.safetensors", metadata={"model": {"width": 8}})
    with safe_open(path, "pt") as file:
        notes = file.metadata()
        assert file.get_tensor("into.weight").dtype == torch.bfloat16
    assert json.loads(notes["motionlab"])["training"]["batch_size"] == 8 and json.loads(notes["model"]) == {"width": 8}
    with pytest.raises(MotionLabError, match=r"state\.json is missing"):
        export_ema(tmp_path / "nowhere", tmp_path / "x.safetensors")


def test_config_yaml_both_ways_and_its_mistakes(tmp_path):
    file = tmp_path / "c.yaml"
    TrainConfig(lr=3e-4, optimizer="muon").to_yaml(file)
    assert TrainConfig.from_yaml(file) == TrainConfig(lr=3e-4, optimizer="muon")
    file.write_text("lr: 1e-3\n")
    assert TrainConfig.from_yaml(file).lr == 1e-3
    for text, sentence in {"batchsize: 4": "no field 'batchsize'. Did you mean 'batch_size'",
                           "steps: many": "must be a whole number", "optimizer: moun": "Did you mean 'muon'",
                           "ema: 1.5": r"ema must be in \[0, 1\)", "- 1": "field: value",
                           "lr: .inf": "lr of the training config must be a finite number, not inf", "muon_lr: .nan": "muon_lr of the training config must be",
                           "muon_lr: 1e999": "muon_lr of the training config must be", "weight_decay: .inf": "weight_decay of the training config must be"}.items():
        file.write_text(text)
        with pytest.raises(MotionLabError, match=sentence):
            TrainConfig.from_yaml(file)
    with pytest.raises(MotionLabError, match="No training config"):
        TrainConfig.from_yaml(tmp_path / "absent.yaml")


def test_noise_belongs_to_the_sample_not_to_the_slice():
    whole, half = SampleNoise(0, 5, range(0, 8)), SampleNoise(0, 5, range(4, 8))
    assert torch.equal(whole.randn(3)[4:], half.randn(3)) and torch.equal(whole.rand()[4:], half.rand())
    assert not torch.equal(SampleNoise(0, 6, range(4, 8)).randn(3), SampleNoise(0, 5, range(4, 8)).randn(3))


def test_every_epoch_shows_every_item_once():
    cursor = DataCursor(5, seed=0)
    seen = torch.cat([cursor.indices(range(i, i + 3)) for i in range(0, 15, 3)]).view(3, 5)
    assert all(sorted(epoch.tolist()) == list(range(5)) for epoch in seen)
    assert not torch.equal(seen[0], seen[1])
    assert cursor.indices(range(0, 12)).tolist() == seen.flatten()[:12].tolist()


def test_schedule():
    config = TrainConfig(steps=110, warmup=10, schedule="cosine")
    assert [lr_factor(config, s) for s in (0, 9, 10, 60)] == pytest.approx([0.1, 1.0, 1.0, 0.5])
    assert lr_factor(config, 110) == pytest.approx(0.0)


def test_a_decay_over_the_last_steps_leaves_the_rate_alone_before():
    config = TrainConfig(steps=110, warmup=10, schedule="cosine", decay=50)
    assert [lr_factor(config, s) for s in (9, 10, 60, 85, 110)] == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.0])
    with pytest.raises(MotionLabError, match="decay"):
        TrainConfig(schedule="constant", decay=5)


def test_nothing_to_train_and_nowhere_to_train(tmp_path, monkeypatch):
    with pytest.raises(MotionLabError, match="until=0 leaves nothing to train"):
        go(tmp_path, until=0)
    with torch.device("meta"), pytest.raises(MotionLabError, match="'into.weight' lies on the device 'meta'"):
        go(tmp_path, model=torch.nn.ModuleDict({"into": torch.nn.Linear(7, 6)}))
    for device in ("cuda:99", "quda"):
        monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", device)
        with pytest.raises(MotionLabError, match=f"cannot start on {device}: (.|\n)*unset ACCELERATE_TORCH_DEVICE"):
            go(tmp_path, cpu=False)
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE")
    assert not (tmp_path / "checkpoints").exists() and go(tmp_path, until=1).step == 1


def test_loss_function_that_returns_something_else(tmp_path):
    with pytest.raises(MotionLabError, match="loss_fn must return"):
        go(tmp_path, loss_fn=lambda model, x, noise: model(x, x[:, 0]).mean())


def test_two_trainings_do_not_share_an_out_dir(tmp_path):
    from motionlab.core.locks import Busy, only_one

    with only_one(tmp_path / ".lock"), pytest.raises(Busy, match=f"is in use by process {os.getpid()} on "):
        train(script.Net(), script.flow_loss, script.Points(), script.config(tmp_path, steps=2))
    assert train(script.Net(), script.flow_loss, script.Points(), script.config(tmp_path, steps=2)).status == "finished"


def test_weights_that_are_not_finite_never_become_a_checkpoint(tmp_path):
    class Poisoned(script.Net):
        def poison(self):
            with torch.no_grad():
                self.out.bias[0] = float("inf")

    net, calls = Poisoned(), []

    def loss_fn(model, x1, noise):
        calls.append(script.flow_loss(model, x1, noise))
        if len(calls) == 8:                                    # behind the optimiser's back, as its own overflow would
            model.poison()
        return calls[-1]

    with pytest.raises(MotionLabError, match="are not finite after step 8"):
        train(net, loss_fn, script.Points(), script.config(tmp_path, steps=8, checkpoint_every=4))
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000004"]
