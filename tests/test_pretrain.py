"""Every stage of `make pretrain` at toy size: it runs, resumes, skips what is finished, publishes; gates leave no checkpoint."""
import csv
import json

import pytest
import torch
import yaml

from motionlab.core.errors import MotionLabError
from motionlab.models.small.backbone import load_backbone
from motionlab.models.small.codec import load_codec
from motionlab.models.small.unet import load_unet
from motionlab.pretrain import stages
from motionlab.data.bank import BankConfig, bank_seeds
from motionlab.pretrain.cards import seconds, write_curve

BANK = {"split": "pretraining", "clips": 8, "frames": 5}
TRAIN = {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "log_every": 2, "warmup": 1}
MODEL = {"channels": 4, "d": 32, "layers": 1, "heads": 2, "max_frames": 2, "d_text": 16, "d_time": 16}
TOY = {
    "codec": {"bank": BANK | {"flow": True}, "model": {"channels": 4, "width": 16, "encoder_blocks": 1, "decoder_blocks": 1}, "training": TRAIN},
    "image_encoder": {"bank": BANK | {"split": "teacher"}, "model": {"d": 32, "layers": 1, "heads": 2}, "training": TRAIN},
    "evaluator_0": {"bank": BANK | {"split": "teacher"}, "training": TRAIN,
                    "model": {"fine": 16, "width": 16, "embedding": 8, "fine_blocks": 1, "frame_blocks": 1, "time_blocks": 1}},
    "gate_overfit": {"bank": BANK, "held_out": BANK | {"split": "dev"}, "model": MODEL,
                     "stages": [{"name": "gate_overfit", "only": {"clips": 4}, "recipe": {"length": 2}, "training": TRAIN}]},
    "base": {"bank": BANK, "held_out": BANK | {"split": "dev"}, "model": MODEL, "stages": [
        {"name": "frames", "recipe": {"length": 1}, "training": TRAIN},
        {"name": "two", "recipe": {"length": 2, "shorter": 0.5}, "training": TRAIN | {"sample_every": 4}}]},
    "trunk": {"held_out": BANK | {"split": "dev"}, "model": MODEL, "stages": [                      # a bank per part, none in common
        {"name": "frames", "bank": BANK | {"frames": 1, "offset": 100}, "recipe": {"length": 1}, "training": TRAIN},
        {"name": "two", "ship": True, "bank": BANK | {"offset": 200}, "recipe": {"length": 2}, "training": TRAIN},
        {"name": "more", "bank": BANK | {"offset": 300}, "recipe": {"length": 2}, "training": TRAIN}]},
    "unet": {"held_out": BANK | {"split": "dev", "clips": 2}, "model": {"channels": 4, "widths": [32, 32], "heads": [2, 2], "max_frames": 5, "d_text": 16}, "stages": [
        {"name": "frames", "bank": BANK | {"frames": 1}, "recipe": {"length": 1}, "training": TRAIN},
        {"name": "clips", "bank": BANK, "recipe": {"length": 5, "first_last": 0.5}, "training": TRAIN | {"sample_every": 4}}]},
}
BRANCH = {"start": "trunk", "held_out": BANK | {"split": "dev"}, "model": MODEL,
          "stages": [{"name": "decay", "bank": BANK | {"offset": 400}, "recipe": {"length": 2}, "training": TRAIN | {"lr": 1e-9, "muon_lr": 1e-9, "seed": 9}}]}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / stages.HOME).mkdir(parents=True)
    (root / stages.HOME / "pretrain.yaml").write_text(yaml.safe_dump(TOY, sort_keys=False))
    return root


@pytest.fixture(scope="module")
def made(home):
    return {name: stages.run_stage(name, home / "work", home) for name in TOY}


def test_every_stage_leaves_its_checkpoint_and_a_gate_none(home, made):
    assert {name for name, path in made.items() if path} == {"codec", "image_encoder", "evaluator_0", "base", "trunk", "unet"}
    assert all(path == home / "work" / "checkpoints" / f"{name}.safetensors" for name, path in made.items() if path)


def test_the_base_knows_its_codec_and_goes_through_all_lengths(home, made):
    codec = load_codec(made["codec"])
    assert load_backbone(made["base"], codec).codec_fingerprint == codec.fingerprint != ""
    for part in ("frames", "two"):
        assert (home / "work" / "base" / part / "ema.safetensors").is_file()
    samples = home / "work" / "base" / "two" / "samples"
    assert {p.suffix for p in samples.iterdir()} >= {".png", ".safetensors"}
    held_out = [json.loads(line) for line in (home / "work" / "base" / "two" / "log.jsonl").read_text().splitlines() if "held_out" in line]
    assert len([k for k in held_out[-1] if "held_out" in k]) == 11


def test_the_unet_knows_its_codec_and_is_looked_at_with_both_ends_too(home, made):
    codec, folder = load_codec(made["codec"]), home / "work" / "unet" / "clips"
    unet = load_unet(made["unet"], codec)
    assert unet.codec_fingerprint == codec.fingerprint and unet.mean.abs().max() > 0
    assert torch.equal(unet.mean, load_unet(home / "work" / "unet" / "frames" / "ema.safetensors").mean)        # standardised once
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines() if "both_held_out" in line]
    assert len(logged) == 1 and {p.name for p in (folder / "samples").glob("*.png")} == {"text_000004.png", "both_000004.png"}


def test_a_machine_without_the_earlier_parts_begins_after_the_last_shipped_one(home, made, tmp_path, capsys):
    stages.publish(["trunk"], home / "work", home)
    assert (home / stages.HOME / "checkpoints" / "trunk_two.safetensors").is_file()
    assert not (home / stages.HOME / "checkpoints" / "trunk_frames.safetensors").is_file()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "codec.safetensors").write_bytes(made["codec"].read_bytes())
    assert stages.adopt("trunk", tmp_path, home) == ["two"] and stages.adopt("trunk", tmp_path, home) == []
    again = stages.run_stage("trunk", tmp_path, home)
    said = capsys.readouterr().out
    assert "stage trunk, more" in said and "stage trunk, two" not in said and "stage trunk, frames" not in said
    codec = load_codec(made["codec"])
    a, b = (load_backbone(path, codec).state_dict() for path in (again, made["trunk"]))
    assert all(a[name].equal(b[name]) for name in a)


def test_a_branch_begins_where_the_stage_that_it_names_ended(home, made, tmp_path):
    import shutil

    (tmp_path / stages.HOME).mkdir(parents=True)
    (tmp_path / stages.HOME / "pretrain.yaml").write_text(yaml.safe_dump(TOY | {"base": BRANCH}, sort_keys=False))
    shutil.copytree(home / "work" / "checkpoints", tmp_path / "work" / "checkpoints", ignore=shutil.ignore_patterns("base*"))
    branch, codec = stages.run_stage("base", tmp_path / "work", tmp_path), load_codec(made["codec"])
    a, b = (load_backbone(path, codec).state_dict() for path in (branch, made["trunk"]))
    assert all((a[name].float() - b[name].float()).abs().max() < 1e-2 for name in a)               # another seed's own start is far away


def test_a_finished_stage_is_not_run_again(home, made, capsys):
    before = made["codec"].stat().st_mtime_ns
    assert stages.run_stage("codec", home / "work", home) == made["codec"] and made["codec"].stat().st_mtime_ns == before
    assert "finished before" in capsys.readouterr().out


def test_a_paused_stage_goes_on_and_ends_as_one_that_was_not(home, made, tmp_path):
    assert stages.run_stage("codec", tmp_path, home, until=2) is None
    again = stages.run_stage("codec", tmp_path, home)
    a, b = (load_codec(p).state_dict() for p in (again, made["codec"]))
    assert all(a[name].equal(b[name]) for name in a)


def test_a_damaged_checkpoint_is_made_again_not_accepted_nor_shipped(home, made, tmp_path, capsys):
    good, work = load_codec(made["codec"]).state_dict(), home / "work"
    made["codec"].write_bytes(made["codec"].read_bytes()[:1000])
    with pytest.raises(MotionLabError, match="not the file that was written: it has 1000 bytes"):
        stages.publish(["codec"], work, home)
    with pytest.raises(MotionLabError, match="not the file that was written"):
        stages.checkpoint("codec", work, home)
    assert stages.run_stage("codec", work, home) == made["codec"] and "made again" in capsys.readouterr().out
    again = load_codec(stages.checkpoint("codec", work, home)).state_dict()
    assert all(again[name].equal(good[name]) for name in good)


def test_half_a_checkpoint_that_nothing_is_known_of_is_not_shipped(home, made, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "codec.safetensors").write_bytes(made["codec"].read_bytes()[:1000])
    with pytest.raises(MotionLabError, match="no whole safetensors file"):
        stages.publish(["codec"], tmp_path, home)


def test_a_later_stage_is_checked_before_the_first_begins(home, monkeypatch, capsys):
    from motionlab import cli

    broken = TOY | {"base": TOY["base"] | {"stages": [*TOY["base"]["stages"], {"name": "three", "training": TRAIN | {"lr": -1}}]}}
    path = home / stages.HOME / "pretrain.yaml"
    path.write_text(yaml.safe_dump(broken, sort_keys=False))
    monkeypatch.setattr(cli.common, "root", lambda: home)
    try:
        assert cli.main(["pretrain", "codec", "base", "--work", "never"]) == 2
    finally:
        path.write_text(yaml.safe_dump(TOY, sort_keys=False))
    assert "TrainConfig.lr must be more than 0" in capsys.readouterr().err and not (home / "never").exists()


def test_a_damaged_bank_is_rendered_again(tmp_path):
    from motionlab.data.bank import open_bank

    config = BankConfig(clips=3, frames=1)
    bank = open_bank(config, tmp_path, 1)
    frames, file = bank.frames.copy(), bank.folder / "frames.npy"
    with open(file, "r+b") as cut:
        cut.truncate(file.stat().st_size // 2)
    assert (open_bank(config, tmp_path, 1).frames == frames).all()
    (bank.folder / "bank.json").write_text('{"captions": ["a"], "seeds"')
    assert (open_bank(config, tmp_path, 1).frames == frames).all()


def test_a_stage_that_another_process_runs_is_refused(home, made):
    from motionlab.core import locks

    with locks.only_one(home / "work" / ".lock-codec"), pytest.raises(locks.Busy, match="Stage codec below .* is in use by process"):
        stages.run_stage("codec", home / "work", home)


def test_publishing_ships_checkpoints_cards_and_curves(home, made):
    stages.publish(TOY, home / "work", home)
    shipped = home / stages.HOME / "checkpoints"
    assert {p.name for p in shipped.glob("*.safetensors")} == {"codec.safetensors", "image_encoder.safetensors", "evaluator_0.safetensors", "base.safetensors",
                                                               "trunk.safetensors", "trunk_two.safetensors", "unet.safetensors"}
    card = (shipped / "base.md").read_text()
    assert "| frames | 4 |" in card and "| two | 4 |" in card and "MB" in card
    with open(home / stages.HOME / "curves" / "base_two.csv") as file:
        rows = list(csv.DictReader(file))
    assert {p.stem for p in (home / stages.HOME / "curves").glob("*")} >= {"codec", "base_frames", "base_two", "trunk_two", "trunk_more"}
    assert [r["step"] for r in rows] == ["2", "4"] and float(rows[1]["held_out/mean"]) > 0 and "loss_9" in rows[0]


def test_curves_count_time_over_restarts(tmp_path):
    rows = [{"step": s, "loss": 1.0, "loss_per_t_bin": [None] * 10, "seconds": t} for s, t in ((1, 60), (2, 120), (3, 30), (4, 60))]
    assert seconds(rows) == 180
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 5, "lo')
    assert write_curve(log, tmp_path / "c.csv").read_text().splitlines()[-1].startswith("4,3.0,1.0")


def test_gates_are_run_by_name_only():
    every, shipping = list(stages.read_settings()), stages.shipping()
    assert [name for name in every if name not in shipping] == ["gate_overfit", "gate_four", "gate_unet"] and "base" in shipping


def test_banks_show_held_out_pairs_only_where_the_protocol_says_so():
    shown = {split: bank_seeds(BankConfig(split=split, clips=300)) for split in ("pretraining", "teacher")}
    assert [s - shown["teacher"][0] for s in shown["teacher"]] == list(range(300))
    assert shown["pretraining"][-1] - shown["pretraining"][0] > 299          # some seeds were passed over


def test_a_balanced_bank_has_the_kinds_of_motion_in_turn_and_never_a_held_out_pair():
    from motionlab.data.sources import World
    from motionlab.world import random_scene
    from motionlab.world.motions import KINDS, MOTIONS

    config = BankConfig(split="pretraining", clips=10, balanced=True)
    seeds = bank_seeds(config)
    kinds = [MOTIONS[random_scene(seed).actors[0].motion].kind for seed in seeds]
    assert kinds == [KINDS[k % len(KINDS)] for k in range(10)] and len(set(seeds)) == 10
    assert bank_seeds(BankConfig(split="pretraining", offset=4, clips=6, balanced=True)) == seeds[4:]
    assert set(seeds) <= set(bank_seeds(BankConfig(split="pretraining", clips=400)))
    plain = BankConfig(split="pretraining", clips=10)
    assert World(config).name == World(plain).name + "_balanced" and World(config).hash() != World(plain).hash()


@pytest.mark.parametrize("change, message", [
    ({"codex": {}}, "Did you mean 'codec'"), ({"codec": {"bnak": {}}}, "Did you mean 'bank'"),
    ({"codec": {"bank": {"clisp": 3}}}, "Did you mean 'clips'")])
def test_a_typo_in_the_settings_is_named(tmp_path, change, message):
    (tmp_path / stages.HOME).mkdir(parents=True)
    (tmp_path / stages.HOME / "pretrain.yaml").write_text(yaml.safe_dump(change))
    with pytest.raises(MotionLabError, match=message):
        stages.run_stage("codec", tmp_path / "work", tmp_path)


def test_known_frames_are_pictures_encoded_alone_where_there_are_some():
    import torch

    from motionlab.methods.plain import Recipe, flow_matching_loss
    from motionlab.training import SampleNoise
    from small import small_model

    given, pipe = [], small_model(length=3)

    def model(x_t, t, text, known):
        given.append(known)
        return x_t

    loss = flow_matching_loss(Recipe(length=3, first=0.5, first_last=0.5), pipe)
    batch = {"x1": torch.randn(2, 3, 4, 12, 12), "text": pipe.text(["a red dog runs to the left over the meadow"] * 2)}
    loss(model, batch, SampleNoise(0, 0, range(2)))
    loss(model, batch | {"stills": torch.zeros(2, 3, 4, 12, 12)}, SampleNoise(0, 0, range(2)))
    assert torch.equal(given[0]["cond"], batch["x1"]) and not given[1]["cond"].any() and given[1]["cond_mask"][:, 0].all()
