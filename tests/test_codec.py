"""The codec's geometry: causal, every length, exact shapes, files that say what they are."""
import pytest
import torch

from motionlab.core.config import from_values
from motionlab.core.errors import MotionLabError
from motionlab.models.small.codec import Codec, CodecConfig, codec_loss, load_codec, save_codec

SMALL = CodecConfig(channels=6, width=16, encoder_blocks=1, decoder_blocks=2)


def awake(config=SMALL, seed=0):
    """A codec whose zero-initialised time convolutions are drawn too, so that causality is really tested."""
    torch.manual_seed(seed)
    codec = Codec(config)
    for parameter in codec.parameters():
        parameter.data.normal_(0, 0.2)
    return codec.eval()


@pytest.mark.parametrize("frames", [1, 5, 9, 17, 25])
def test_every_length_comes_back(frames):
    codec, video = awake(), torch.randn(2, frames, 3, 16, 24)
    latents = codec.encode(video)
    assert latents.shape == (2, 1 + (frames - 1) // 4, 6, 4, 6) and codec.decode(latents).shape == video.shape


@pytest.mark.parametrize("frame", range(9))
def test_a_later_frame_never_changes_an_earlier_latent(frame):
    codec, video = awake(), torch.randn(1, 9, 3, 16, 16)
    other = video.clone()
    other[:, frame:] += 1.0
    before = 0 if frame == 0 else 1 + (frame - 1) // 4            # latents that end before `frame`
    a, b = codec.encode(video), codec.encode(other)
    assert torch.equal(a[:, :before], b[:, :before]) and not torch.equal(a[:, before:], b[:, before:])


def test_the_decoder_is_causal_and_a_picture_is_a_clip():
    codec, video = awake(), torch.randn(1, 9, 3, 16, 16)
    latents = codec.encode(video)
    assert torch.allclose(codec.encode(video[:, :1]), latents[:, :1], atol=1e-6)
    assert torch.allclose(codec.decode(latents[:, :2]), codec.decode(latents)[:, :5], atol=1e-5)


def test_standardised_latents_round_trip_unchanged():
    codec, video = awake(), torch.randn(4, 5, 3, 16, 16)
    before = codec.decode(codec.encode(video))
    codec.standardise(video)
    latents = codec.encode(video)
    assert torch.allclose(latents.mean(dim=(0, 1, 3, 4)), torch.zeros(6), atol=1e-4)
    assert torch.allclose(latents.std(dim=(0, 1, 3, 4)), torch.ones(6), atol=1e-2)
    assert torch.allclose(codec.decode(latents), before, atol=1e-4)


def test_it_learns_one_clip():
    torch.manual_seed(0)
    codec, video = Codec(SMALL), torch.rand(2, 5, 3, 16, 16).repeat_interleave(4, -1).repeat_interleave(4, -2)[..., :16, :16] * 2 - 1
    optimizer, weight = torch.optim.AdamW(codec.parameters(), 5e-3), torch.ones(2, 5, 1, 16, 16)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        scale, noise = 0.12 * torch.rand(2, generator=generator), torch.randn(2, 2, 6, 4, 4, generator=generator)
        loss = codec_loss(codec, video, weight, scale, noise).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_files_round_trip_and_foreign_ones_are_named(tmp_path):
    codec = awake()
    path = save_codec(codec, tmp_path / "codec.safetensors", dtype=torch.float32, steps=3)
    again, video = load_codec(path), torch.randn(1, 5, 3, 16, 16)
    assert torch.equal(again.encode(video), codec.encode(video)) and again.config == SMALL
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:200])
    with pytest.raises(MotionLabError, match="may be truncated"):
        load_codec(tmp_path / "cut.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(MotionLabError, match="no motionlab model, not motionlab.codec"):
        load_codec(tmp_path / "other.safetensors")
    with pytest.raises(MotionLabError, match="No codec at"):
        load_codec(tmp_path / "none.safetensors")


def test_bad_input_says_what_would_fit():
    codec = awake()
    with pytest.raises(MotionLabError, match="Use 5 or 9 frames"):
        codec.encode(torch.zeros(1, 7, 3, 16, 16))
    with pytest.raises(MotionLabError, match="do not divide"):
        codec.encode(torch.zeros(1, 5, 3, 18, 16))
    with pytest.raises(MotionLabError, match="b, f, 3, h, w"):
        codec.encode(torch.zeros(1, 3, 5, 16, 16))
    with pytest.raises(MotionLabError, match="decodes latents"):
        codec.decode(torch.zeros(1, 2, 5, 4, 4))
    with pytest.raises(MotionLabError, match="Did you mean 'width'"):
        from_values(CodecConfig, {"widht": 3}, "codec config")
