"""The image encoder: shapes, masking, layers, learning, resuming, files."""
import json

import numpy as np
import pytest
import torch

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError
from motionlab.models.image_encoder import (ImageEncoder, ImageEncoderConfig, load_image_encoder, patchify, positions,
                                            save_image_encoder)
from motionlab.data.bank import Bank, BankConfig
from motionlab.video import as_video
from motionlab.pretrain.image_encoder import (FrameData, ImageEncoderRecipe, MaskedAutoencoder, masked_loss,
                                              train_image_encoder)
from motionlab.training import SampleNoise, TrainConfig
from motionlab.world import random_scene, render

SMALL = ImageEncoderConfig(d=32, layers=2, heads=2)
LIGHT = ImageEncoderRecipe(decoder_d=16, decoder_layers=1, decoder_heads=2)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a bank of four clips, laid out as `open_bank` would."""
    root = tmp_path_factory.mktemp("work")
    folder, made = root / "bank_examples_0_4_5_48_False", [render(random_scene(seed), frames=5) for seed in range(4)]
    folder.mkdir()
    np.save(folder / "frames.npy", np.stack([c.frames for c in made]))
    np.save(folder / "subject.npy", np.stack([c.object_mask(None) for c in made]).astype(np.uint8))
    (folder / "bank.json").write_text(json.dumps({"captions": [c.caption for c in made], "seeds": [0, 1, 2, 3]}))
    return root


def test_features_of_any_frame_size_row_by_row():
    model = ImageEncoder(SMALL).eval()
    assert model.features(torch.rand(2, 3, 48, 48)).shape == (2, 144, 32)
    assert model.features(torch.rand(1, 3, 16, 24)).shape == (1, 24, 32)
    assert model.pooled(torch.rand(2, 3, 16, 16)).shape == (2, 32)
    frame = torch.zeros(1, 3, 16, 24)
    frame[0, 1, 5, 20] = 1.0                                            # row 1, column 5 of the 4 x 6 patches
    assert patchify(frame, 4)[0].abs().sum(1).nonzero().tolist() == [[1 * 6 + 5]]


def test_positions_are_all_different_and_do_not_depend_on_the_grid():
    a, b = positions(12, 12, 32).view(12, 12, 32), positions(6, 9, 32).view(6, 9, 32)
    assert torch.equal(a[:6, :9], b)
    assert torch.pdist(a.flatten(0, 1)).min() > 0.05
    assert not torch.allclose(a[2, 7], a[7, 2])


def test_layers_count_from_one():
    model, frames = ImageEncoder(SMALL).eval(), torch.rand(1, 3, 16, 16)
    x = model.blocks[0](model.tokens(frames))
    assert torch.allclose(model.features(frames, layer=1), torch.nn.functional.layer_norm(x, (32,)), atol=1e-6)
    assert not torch.allclose(model.features(frames, layer=2), model.features(frames, layer=1))
    assert torch.allclose(model.pooled(frames), model.features(frames).mean(1))
    for layer in (0, 3):
        with pytest.raises(MotionLabError, match="with 2"):
            model.features(frames, layer=layer)
    assert all(torch.equal(one, model.features(frames, layer)) for layer, one in enumerate(model.every_layer(frames), 1))


def test_gradients_reach_the_frames_through_forward():
    frames = torch.rand(1, 3, 16, 16, requires_grad=True)
    ImageEncoder(SMALL)(frames).square().sum().backward()
    assert frames.grad.abs().sum() > 0


def test_hidden_patches_are_never_seen():
    torch.manual_seed(0)
    model, frames = MaskedAutoencoder(SMALL, LIGHT).eval(), torch.rand(1, 3, 16, 16)
    keep = torch.tensor([[3, 8, 14, 5]])
    other = frames.clone()
    hidden = torch.ones(16, dtype=torch.bool).index_fill(0, keep[0], False).view(4, 4)
    hidden = hidden.repeat_interleave(4, 0).repeat_interleave(4, 1)
    other[0, :, hidden] += 1.0
    assert torch.equal(model(frames, keep), model(other, keep)) and model(frames, keep).shape == (1, 16, 48)
    other[0, :, ~hidden] += 1.0
    assert not torch.equal(model(frames, keep), model(other, keep))


def test_the_loss_counts_hidden_patches_only_and_subjects_more():
    """A painter of zeros pays for hidden patches their mean square; with weight 3, a subject patch three times."""
    class Zeros(torch.nn.Module):
        def forward(self, frames, keep):
            self.keep = keep
            return torch.zeros(len(frames), 16, 48)

    frames, subject = torch.ones(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    frames[:, :, :8], subject[:, :, :8] = 3.0, 1.0                     # eight patches of 9, eight of 1
    model = Zeros()
    loss_fn = masked_loss(ImageEncoderRecipe(subject_weight=3.0), 4)
    loss, parts = loss_fn(model, {"frames": frames, "subject": subject}, SampleNoise(0, 0, range(2)))
    assert model.keep.shape == (2, 4)
    for i in range(2):
        upper = 8 - int((model.keep[i] < 8).sum())
        assert parts["per_sample"][i].item() == pytest.approx((3 * 9 * upper + 12 - upper) / (3 * upper + 12 - upper))
        assert parts["t"][i].item() == pytest.approx(min(upper / 8, 0.999))
    assert loss.item() == pytest.approx(parts["per_sample"].mean().item())


def test_frames_of_a_bank_one_by_one(work):
    bank = Bank(work / "bank_examples_0_4_5_48_False")
    batch = FrameData(bank).batch(torch.tensor([7, 19]))
    assert len(FrameData(bank)) == 20
    assert torch.equal(batch["frames"], as_video(bank.frames[[1, 3], [2, 4]][:, None])[:, 0])
    assert (batch["subject"][1, 0].numpy() == bank.subject[3, 4]).all()


def test_it_learns_a_few_frames(work):
    torch.manual_seed(0)
    model, data = MaskedAutoencoder(SMALL, LIGHT), FrameData(Bank(work / "bank_examples_0_4_5_48_False"))
    optimizer, losses, loss_fn = torch.optim.AdamW(model.parameters(), 4e-3), [], masked_loss(LIGHT, 4)
    for step in range(40):
        loss, _ = loss_fn(model, data.batch(torch.arange(0, 20, 2)), SampleNoise(0, step, range(10)))
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_a_stage_stops_resumes_and_leaves_the_encoder_alone(work, tmp_path):
    settings = dict(bank=BankConfig(split="examples", clips=4, frames=5), model=SMALL, recipe=LIGHT, work=work,
                    training=TrainConfig(steps=4, batch_size=4, warmup=1, cpu=True),
                    out=tmp_path / "image_encoder.safetensors")
    assert train_image_encoder(**settings, until=2) is None
    model = load_image_encoder(train_image_encoder(**settings))
    assert model.config == SMALL and set(model.state_dict()) == set(ImageEncoder(SMALL).state_dict())


def test_files_round_trip_and_foreign_ones_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    model, frames = ImageEncoder(SMALL).eval(), torch.rand(1, 3, 16, 16)
    path = save_image_encoder(model, tmp_path / "i.safetensors", dtype=torch.float32, steps=3)
    assert torch.equal(load_image_encoder(path).features(frames), model.features(frames))
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:300])
    with pytest.raises(MotionLabError, match="may be truncated"):
        load_image_encoder(tmp_path / "cut.safetensors")
    save_file({"a": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(MotionLabError, match="no motionlab model, not motionlab.image_encoder"):
        load_image_encoder(tmp_path / "other.safetensors")
    with pytest.raises(MotionLabError, match="No image encoder at"):
        load_image_encoder(tmp_path / "none.safetensors")
    some = {name: value for name, value in load_file(path).items() if name != "norm.weight"}
    meta = {"kind": "motionlab.image_encoder", "config": '{"d": 32, "layers": 2, "heads": 2}'}
    save_file(some, str(tmp_path / "some.safetensors"), metadata=meta)
    with pytest.raises(MotionLabError, match="first that differs is 'norm.weight'"):
        load_image_encoder(tmp_path / "some.safetensors")


def test_the_default_is_small_enough_to_ship():
    assert sum(p.numel() for p in ImageEncoder().parameters()) <= 1_300_000


def test_bad_input_says_what_would_fit():
    model = ImageEncoder(SMALL)
    with pytest.raises(MotionLabError, match="b, 3, h, w"):
        model(torch.zeros(1, 5, 3, 16, 16))
    with pytest.raises(MotionLabError, match="18x16 pixels do not divide into 4x4"):
        model(torch.zeros(1, 3, 18, 16))
    with pytest.raises(MotionLabError, match="cannot be built"):
        ImageEncoderConfig(d=30)
    with pytest.raises(MotionLabError, match="Did you mean 'layers'"):
        from_values(ImageEncoderConfig, {"layer": 3}, "image encoder config")
