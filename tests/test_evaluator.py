"""The learned evaluator: exact limb truth, exact decoding of heatmaps, every length, learning, resuming, files."""
import json

import numpy as np
import pytest
import torch

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError
from motionlab.models.small.codec import Codec, CodecConfig, save_codec
from motionlab.models.evaluator import (CLASSES, LIMBS, SLOTS, Evaluator, EvaluatorConfig, evaluator_loss, labels_of,
                                        limb_groups, load_evaluator, save_evaluator, soft_argmax, true_limbs)
from motionlab.data.bank import BankConfig, bank_seeds, training_scene
from motionlab.video import as_video
from motionlab.pretrain.evaluator import (EvaluatorRecipe, draw_frames,
                                          evaluator_training_loss, open_evaluator_data, train_evaluator)
from motionlab.training import SampleNoise, TrainConfig
from motionlab.world import random_scene, render
from motionlab.world.captions import describe
from motionlab.world.puppets import SPECIES

SMALL = EvaluatorConfig(fine=16, width=32, embedding=16, fine_blocks=1, frame_blocks=1, time_blocks=1)


@pytest.fixture(scope="module")
def clips():
    return [render(random_scene(seed), size=32, frames=5) for seed in range(8)]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a small random codec and a bank of four clips, laid out as `open_bank` would."""
    root, config = tmp_path_factory.mktemp("work"), BankConfig(split="examples", clips=4, frames=5)
    torch.manual_seed(0)
    save_codec(Codec(CodecConfig(channels=6, width=16, encoder_blocks=1, decoder_blocks=1)), root / "codec.safetensors")
    made = [render(training_scene(seed), frames=5) for seed in bank_seeds(config)]
    folder = root / "bank_examples_0_4_5_48_False"
    folder.mkdir()
    np.save(folder / "frames.npy", np.stack([c.frames for c in made]))
    np.save(folder / "subject.npy", np.stack([c.object_mask(None) for c in made]).astype(np.uint8))
    (folder / "bank.json").write_text(json.dumps({"captions": [c.caption for c in made], "seeds": bank_seeds(config)}))
    return root, config


# ---------------------------------------------------------------------------------------------- truth and decoding
def test_soft_argmax_of_heatmaps_made_by_hand():
    """Cells are 2 pixels wide, so the centre of cell (row i, column j) is at pixel (2 j + 0.5, 2 i + 0.5)."""
    heat = torch.full((3, 24, 24), -60.0)
    heat[0, 5, 17] = 60.0
    heat[1, 3, 4] = heat[1, 3, 8] = 60.0
    heat[2] = 7.0
    wanted = torch.tensor([[34.5, 10.5], [12.5, 6.5], [23.5, 23.5]])
    assert torch.allclose(soft_argmax(heat), wanted, atol=1e-4)
    heat[1, 3, 8] += np.log(3)                                     # three quarters of the weight on column 8
    assert torch.allclose(soft_argmax(heat)[1], torch.tensor([14.5, 6.5]), atol=1e-4)


def test_true_limbs_are_centroids_of_the_masks(clips):
    for clip in clips:
        positions, visible = true_limbs(clip)
        masks = clip.limb_masks()
        for k, (name, groups) in enumerate(limb_groups(clip.scene.actors[0].species).items()):
            for t in (0, 4):
                rows, cols = np.nonzero(np.any([masks[g][t] for g in groups], axis=0))
                assert visible[t, k] == (len(rows) > 0)
                assert not len(rows) or np.allclose(positions[t, k], [cols.mean(), rows.mean()], atol=1e-4), name
        assert not visible[:, len(LIMBS[clip.scene.actors[0].species]):].any()


def test_a_hidden_limb_is_not_visible():
    scene = random_scene(0, species_name="dog", motion="walk", camera=False)
    _, visible = true_limbs(render(scene.with_actor(0, hide=("head", "snout", "eye")), frames=5))
    assert not visible[:, LIMBS["dog"].index("head")].any() and visible[:, LIMBS["dog"].index("torso")].all()


def test_limbs_of_too_few_pixels_do_not_count_as_visible():
    clip = render(random_scene(7, species_name="person", camera=False), frames=5)
    counts = {least: true_limbs(clip, least=least)[1].sum() for least in (1, 20, 10000)}
    assert counts[1] > counts[20] > counts[10000] == 0


def test_limbs_cover_every_group_once_and_copies_are_joined():
    for name, anatomy in SPECIES.items():
        groups = [g for joined in limb_groups(name).values() for g in joined]
        assert sorted(groups) == sorted({p.group for p in anatomy.parts})
    assert "spoke1+spoke2+spoke3+spoke4" in LIMBS["wheel"] and len(LIMBS["snake"]) == 8
    with pytest.raises(MotionLabError, match="Did you mean 'dog'"):
        limb_groups("dogg")


def test_what_is_read_comes_back_in_the_words_of_the_world():
    """A network whose heads are set to each scene's truth says exactly the words of its classes."""
    model, frames = Evaluator(SMALL), np.zeros((1, 5, 16, 16, 3), np.uint8)
    for said in (describe(random_scene(seed)) for seed in range(40)):
        for name, index in labels_of(said).items():
            model.heads[name].weight.data.zero_()
            model.heads[name].bias.data = torch.eye(len(CLASSES[name]))[index]
        read = model.read(frames)
        assert {name: read[name] for name in CLASSES} == {name: [CLASSES[name][index]] for name, index in labels_of(said).items()}


# ---------------------------------------------------------------------------------------------- the network
@pytest.mark.parametrize("frames", [1, 5, 9, 13, 17])
def test_every_length(frames):
    torch.manual_seed(0)
    model, clips = Evaluator(SMALL), np.random.default_rng(0).integers(0, 255, (3, frames, 48, 48, 3), dtype=np.uint8)
    reading = model.read(clips, batch=2)
    assert reading["positions"].shape == (3, frames, SLOTS, 2) and reading["visible"].shape == (3, frames, SLOTS)
    assert model.features(as_video(clips)).shape == (3, 32)
    assert (reading["motion"] == [None] * 3) == (frames == 1) and reading["species"][0] in CLASSES["species"]
    assert reading["probabilities"]["camera"].sum(1) == pytest.approx(1, abs=1e-5)
    n = len(reading["limbs"][0])
    assert np.isfinite(reading["positions"][0, :, :n]).all() and np.isnan(reading["positions"][0, :, n:]).all()


def test_still_attributes_and_limbs_do_not_depend_on_other_frames():
    torch.manual_seed(0)
    model, video = Evaluator(SMALL).eval(), torch.rand(1, 5, 3, 48, 48)
    species = torch.tensor([1])
    with torch.no_grad():
        together = model(video, species)
        alone = [model(video[:, t:t + 1], species) for t in range(5)]
        turned = model(video.flip(1), species)
    for name in ("positions", "visible"):
        assert torch.allclose(together[name], torch.cat([a[name] for a in alone], 1), atol=1e-4)
    assert torch.allclose(together["colour"], turned["colour"], atol=1e-5)
    assert not torch.allclose(together["motion"], turned["motion"], atol=1e-5)


def test_limbs_of_the_species_that_is_asked_for():
    model, clips = Evaluator(SMALL), np.zeros((2, 5, 48, 48, 3), np.uint8)
    reading = model.read(clips, species=["dog", "ball"])
    assert reading["limbs"] == [LIMBS["dog"], LIMBS["ball"]]
    assert np.isnan(reading["positions"][1, :, 3:]).all() and np.isfinite(reading["positions"][0]).all()
    with pytest.raises(MotionLabError, match="Did you mean 'ball'"):
        model.read(clips, species=["dog", "bal"])
    with pytest.raises(MotionLabError, match="2 clips need 2 species"):
        model.read(clips, species="dog")


def test_it_learns_eight_clips(clips):
    torch.manual_seed(0)
    model, video = Evaluator(SMALL), as_video(np.stack([c.frames for c in clips]))
    said = [labels_of(c.attributes) for c in clips]
    positions, visible = (torch.from_numpy(np.stack(x)) for x in zip(*map(true_limbs, clips)))
    labels = {n: torch.tensor([row[n] for row in said]) for n in CLASSES} | {"positions": positions, "visible": visible}
    optimizer, losses = torch.optim.AdamW(model.parameters(), 4e-3), []
    for _ in range(25):
        loss = evaluator_loss(model, video, labels)
        optimizer.zero_grad(), loss.mean().backward(), optimizer.step()
        losses.append(loss.mean().item())
    assert loss.shape == (8,) and losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        assert evaluator_loss(model, video, labels | {"motion": torch.full((8,), -1)}).mean() < loss.mean()


# ---------------------------------------------------------------------------------------------- training
def test_draws_of_frames_are_what_they_say():
    recipe, cuts, lengths = EvaluatorRecipe(frozen=0.3, shuffled=0.3), [], []
    for step in range(40):
        order, cut = draw_frames(recipe, SampleNoise(0, step, range(6)), 17)
        cuts += cut if order.shape[1] > 1 else []
        lengths.append(order.shape[1])
        for row, name in zip(order.tolist(), cut):
            steps = set(np.diff(row).tolist())
            whole = sorted(row) == list(range(min(row), max(row) + 1))
            assert {"": steps <= {1}, "frozen": steps == {0}, "shuffled": whole}[name]
    assert set(lengths) == {1, 5, 9, 13, 17} and lengths.count(17) > 20
    for name, share in (("frozen", 0.3), ("shuffled", 0.3), ("", 0.4)):
        assert abs(cuts.count(name) / len(cuts) - share) < 0.1


def test_views_of_a_clip_lie_beside_the_bank(work):
    root, config = work
    data = open_evaluator_data(config, root / "codec.safetensors", root)
    assert len(data) == 12
    batch = data.batch(torch.tensor([3, 4, 5]))                     # the three views of clip 1
    clip = render(training_scene(bank_seeds(config)[1]), frames=5)
    assert torch.equal(batch["video"][0], torch.from_numpy(clip.video()))
    assert all(not torch.equal(batch["video"][i], batch["video"][j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert np.array_equal(batch["positions"][2].numpy(), true_limbs(clip)[0])
    assert {n: int(batch[n][0]) for n in CLASSES} == labels_of(clip.attributes)
    assert batch["level"][0] == 0 and 0 < batch["level"][1] < batch["level"][2] < 1
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*.npy")}
    open_evaluator_data(config, root / "codec.safetensors", root)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*.npy")} == before      # made once


def test_what_cannot_be_seen_is_not_asked(work, monkeypatch):
    root, config = work
    seen = {}
    batch = open_evaluator_data(config, root / "codec.safetensors", root).batch(torch.arange(6))

    def spy(model, video, labels):
        seen.update(labels, video=video)
        return video.mean((1, 2, 3, 4))

    monkeypatch.setattr("motionlab.pretrain.evaluator.evaluator_loss", spy)
    evaluator_training_loss(EvaluatorRecipe(shorter=0, frozen=1.0))(None, batch, SampleNoise(0, 0, range(6)))
    assert (seen["motion"] == CLASSES["motion"].index("frozen")).all()
    assert (seen["heading"] == -1).all() and (seen["camera"] == -1).all()
    assert torch.equal(seen["colour"], batch["colour"]) and torch.equal(seen["video"][:, 0], seen["video"][:, 3])
    evaluator_training_loss(EvaluatorRecipe(shorter=1.0))(None, batch, SampleNoise(0, 0, range(6)))
    assert seen["video"].shape[1] == 1 and (seen["motion"] == -1).all()
    assert torch.equal(seen["species"], batch["species"])


def test_a_stage_stops_resumes_and_leaves_a_file(work, tmp_path):
    root, config = work
    settings = dict(bank=config, model=SMALL, recipe=EvaluatorRecipe(), work=root, codec=root / "codec.safetensors",
                    training=TrainConfig(steps=4, batch_size=4, warmup=1, cpu=True),
                    out=tmp_path / "evaluator_0.safetensors")
    assert train_evaluator(**settings, until=2) is None
    assert (root / "evaluator_0" / "checkpoints" / "step_00000002").is_dir()
    model = load_evaluator(train_evaluator(**settings))
    assert model.config == SMALL


# ---------------------------------------------------------------------------------------------- files and bad input
def test_files_round_trip_and_foreign_ones_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    model, video = Evaluator(SMALL).eval(), torch.rand(1, 5, 3, 16, 16)
    path = save_evaluator(model, tmp_path / "e.safetensors", dtype=torch.float32, steps=3)
    again = load_evaluator(path)
    assert torch.equal(again.features(video), model.features(video)) and again.config == SMALL
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:900])
    with pytest.raises(MotionLabError, match="may be truncated"):
        load_evaluator(tmp_path / "cut.safetensors")
    codec = save_codec(Codec(CodecConfig(width=16, encoder_blocks=1, decoder_blocks=1)), tmp_path / "codec.safetensors")
    with pytest.raises(MotionLabError, match="motionlab.codec, not motionlab.evaluator"):
        load_evaluator(codec)
    with pytest.raises(MotionLabError, match="No evaluator at"):
        load_evaluator(tmp_path / "none.safetensors")
    meta = {"kind": "motionlab.evaluator", "classes": "{}", "config": "{}"}
    save_file(load_file(path), str(tmp_path / "old.safetensors"), metadata=meta)
    with pytest.raises(MotionLabError, match="trained for other species"):
        load_evaluator(tmp_path / "old.safetensors")


def test_the_default_is_small_enough_to_ship():
    assert sum(p.numel() for p in Evaluator().parameters()) <= 1_500_000


def test_bad_input_says_what_would_fit():
    model = Evaluator(SMALL)
    with pytest.raises(MotionLabError, match="b, f, 3, h, w"):
        model(torch.zeros(5, 3, 48, 48))
    with pytest.raises(MotionLabError, match="do not divide by 8"):
        model(torch.zeros(1, 5, 3, 44, 48))
    with pytest.raises(MotionLabError, match="uint8 frames"):
        model.read(np.zeros((1, 5, 48, 48, 3)))
    with pytest.raises(MotionLabError, match="uint8 frames"):
        model.read(np.zeros((5, 48, 48, 3), np.uint8))
    with pytest.raises(MotionLabError, match="Did you mean 'width'"):
        from_values(EvaluatorConfig, {"widht": 3}, "evaluator config")
