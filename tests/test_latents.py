"""Latents of clips and of their motion: made once, the teacher's flow inside, and every wrong request named."""
import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.flow_rgb import WORLD_SIGMA, flow_video, rgb_to_flow, saturation_speed
from motionlab.models.small.codec import Codec, CodecConfig, load_codec, save_codec
from motionlab.models.small.text import Grammar
from motionlab.data.bank import BankConfig, open_bank
from motionlab.data.latents import motion_pictures, open_joint_latents, open_latents
from motionlab.video import as_video
from motionlab.world import render
from motionlab.data.bank import training_scene

BANK = BankConfig(clips=6, frames=5, flow=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    codec = Codec(CodecConfig(channels=4, width=16, encoder_blocks=1, decoder_blocks=1))
    return work, save_codec(codec, work / "codec.safetensors")


def test_batches_hold_the_codecs_latents_of_video_and_motion(place):
    work, path = place
    data, clips, codec = open_joint_latents(BANK, path, work, Grammar()), open_bank(BANK, work), load_codec(path)
    batch = data.batch(torch.tensor([4, 1]))
    assert batch["x1"].shape == batch["d1"].shape == (2, 2, 4, 12, 12)
    with torch.no_grad():
        assert torch.allclose(batch["x1"][0], codec.encode(as_video(clips.frames[4:5]))[0], atol=2e-2)
        assert torch.allclose(batch["d1"][1], codec.encode(as_video(clips.flow_pictures[1:2]))[0], atol=2e-2)
    assert data.codec == codec.fingerprint and Grammar().decode(batch["tokens"])[0] == clips.captions[4]


def test_they_are_made_once_and_plain_latents_share_them(place, monkeypatch):
    work, path = place
    open_joint_latents(BANK, path, work, Grammar())
    monkeypatch.setattr("motionlab.data.latents._encode", None)         # a second encoding would fail
    again = open_latents(BANK, path, work, Grammar())
    assert len(open_joint_latents(BANK, path, work, Grammar())) == len(again) == 6


def test_teachers_draw_what_they_say(place):
    clips = open_bank(BANK, place[0])
    truth = render(training_scene(clips.seeds[2]), 48, 5).flow
    exact = motion_pictures(clips, "exact")(2)
    assert np.array_equal(exact, flow_video(truth, WORLD_SIGMA))
    assert np.array_equal(motion_pictures(clips, "other")(2), clips.flow_pictures[5])
    assert (motion_pictures(clips, "still")(2) == 255).all()
    errors = []
    for size in (0.25, 1.0):
        read = rgb_to_flow(np.moveaxis(motion_pictures(clips, "exact", size)(2)[:-1] / 255.0, -1, -3), WORLD_SIGMA)
        errors.append(np.abs(read - rgb_to_flow(np.moveaxis(exact[:-1] / 255.0, -1, -3), WORLD_SIGMA)).mean())
    assert errors[0] == pytest.approx(0.25 * np.sqrt(2 / np.pi), rel=0.15) and errors[1] > 3 * errors[0]
    assert not np.array_equal(motion_pictures(clips, "dis")(2), exact)


def test_bad_requests_are_named(place):
    work, path = place
    with pytest.raises(MotionLabError, match="Did you mean 'exact'"):
        open_joint_latents(BANK, path, work, Grammar(), teacher="exakt")
    with pytest.raises(MotionLabError, match="no flow pictures"):
        open_joint_latents(BankConfig(clips=6, frames=5), path, work, Grammar())
    with pytest.raises(MotionLabError, match="No codec at"):
        open_latents(BANK, work / "none.safetensors", work, Grammar())


def test_the_worlds_sigma_uses_at_least_half_of_the_wheel():
    """The 95th percentile of m on the subjects is 0.5 or more, and hardly any saturate."""
    clips = [render(training_scene(4_000_000 + seed), frames=9, size=48) for seed in range(24)]
    speeds = np.concatenate([np.hypot(*np.moveaxis(clip.flow, 1, 0))[clip.object_mask()[:-1]] for clip in clips])
    m = speeds / saturation_speed((48, 48), WORLD_SIGMA)
    assert 0.5 <= np.quantile(m, 0.95) <= 1 and np.mean(m >= 1) < 0.05
    assert np.quantile(speeds / saturation_speed((48, 48)), 0.95) < 0.5                   # which is why it is not the paper's


FRESH = BankConfig(clips=5, frames=9)


def test_fresh_clips_come_with_their_frames_encoded_alone(place, monkeypatch):
    from motionlab.data import latents

    monkeypatch.setattr(latents, "SHARD", 3)
    work, path = place
    data, codec = latents.open_fresh_latents(FRESH, path, work, Grammar()), load_codec(path)
    batch = data.batch(torch.tensor([4, 1, 2]))
    assert len(data) == 5 and batch["x1"].shape == batch["stills"].shape == (3, 3, 4, 12, 12)
    frames = render(training_scene(latents.bank_seeds(FRESH)[4]), 48, 9).frames
    with torch.no_grad():
        alone = codec.encode(as_video(frames[None, 8:9]))[0, 0]
    assert torch.allclose(batch["stills"][0, 2], alone, atol=2e-2) and torch.allclose(batch["stills"][:, 0], batch["x1"][:, 0], atol=2e-2)
    assert not torch.allclose(batch["stills"][0, 2], batch["x1"][0, 2], atol=2e-2)
    monkeypatch.setattr(latents, "_make_shard", None)          # what is there is not made again
    assert latents.open_fresh_latents(FRESH, path, work, Grammar()).captions == data.captions


def test_a_shard_that_was_cut_short_is_made_again(place, monkeypatch):
    from motionlab.data import latents

    work, path = place
    bank, save = BankConfig(clips=3, frames=5, offset=7), np.save

    def killed(target, value):
        raise KeyboardInterrupt

    monkeypatch.setattr(latents.np, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        latents.open_fresh_latents(bank, path, work, Grammar())
    monkeypatch.setattr(latents.np, "save", save)
    assert len(latents.open_fresh_latents(bank, path, work, Grammar())) == 3
