"""Permuted-frame losses: exact answers of hand-made models that see frames alone, or only their order."""
import pytest
import torch

from motionlab.analyses.shuffle import changed_latents, frame_order, latent_order, paired_losses, shuffle_rows
from motionlab.errors import MotionLabError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def video(b=3, f=9):
    return torch.randn(b, f, 3, 4, 4, generator=generator(1))


def same(x):
    return x


def test_orders_are_what_they_say():
    assert frame_order("original", 5, generator()).tolist() == [0, 1, 2, 3, 4]
    assert frame_order("reversed", 5, generator()).tolist() == [4, 3, 2, 1, 0]
    assert frame_order("swapped", 5, generator()).tolist() == [1, 0, 3, 2, 4]
    for seed in range(50):
        assert sorted(frame_order("shuffled", 4, generator(seed)).tolist()) == [0, 1, 2, 3]
        assert frame_order("shuffled", 2, generator(seed)).tolist() == [1, 0]              # never the original
        assert latent_order("latents_shuffled", 4, generator(seed))[0] == 0
    assert latent_order("latents_reversed", 4, generator()).tolist() == [0, 3, 2, 1]


def test_a_model_of_single_frames_does_not_see_the_order():
    """Without noise, u and velocity are functions of each frame alone, so their mean over frames has no order."""
    clips = changed_latents(video(), same, generator())
    x0 = torch.zeros_like(clips["original"])
    losses = paired_losses(lambda x, t: 0.3 * x, clips, torch.full((3,), 0.5), x0)
    for kind, loss in losses.items():
        assert torch.allclose(loss, losses["original"], rtol=1e-5), kind


def test_a_model_that_knows_the_order_loses_by_exactly_the_error():
    """u copies what the right frame would be: zero loss on the original, the distance of the frames on the others."""
    clips = changed_latents(video(), same, generator(), kinds=("original", "reversed"))
    x0, original = torch.randn(3, 9, 3, 4, 4, generator=generator(2)), video()
    losses = paired_losses(lambda x, t: original - x0, clips, torch.full((3,), 0.5), x0)
    assert torch.allclose(losses["original"], torch.zeros(3), atol=1e-10)
    assert torch.allclose(losses["reversed"], (original - original.flip(1)).square().flatten(1).mean(1), rtol=1e-5)


def test_frozen_clips_have_no_gap_at_all():
    still = video()[:, :1].expand(-1, 9, -1, -1, -1)
    clips = changed_latents(still, same, generator())
    weight = torch.linspace(0.1, 2, 9)[None, :, None, None, None]
    losses = paired_losses(lambda x, t: weight * x, clips, torch.rand(3), torch.randn(still.shape, generator=generator(3)))
    assert all(torch.equal(loss, losses["original"]) for loss in losses.values())


def test_rows_pair_every_version_with_its_original_and_cover_all_times():
    batch = {"items": ["a", "b", "c"], "tokens": torch.zeros(3, 4), "latents": changed_latents(video(), same, generator())}
    rows = list(shuffle_rows(lambda tokens: lambda x, t: 0 * x, iter([batch]), times=4))
    assert len(rows) == 3 * 4 * 6 and len({(r["item"], r["arm"]) for r in rows}) == len(rows)
    assert all(r["loss"] == r["loss_original"] for r in rows if r["arm"] == "original")
    assert {int(r["t"] * 4) for r in rows} == {0, 1, 2, 3}


@pytest.mark.parametrize("call, message", [
    (lambda: frame_order("shufled", 5, generator()), "Did you mean 'shuffled'"),
    (lambda: frame_order("shuffled", 1, generator()), "no order to change"),
    (lambda: latent_order("latents_shuffled", 2, generator()), "3 latent frames or more")])
def test_bad_requests_are_named(call, message):
    with pytest.raises(MotionLabError, match=message):
        call()


def test_batches_of_the_world_know_their_speed_and_what_the_codec_does_to_them():
    from motionlab.analyses.shuffle import world_batches
    from motionlab.models.codec import Codec, CodecConfig
    from motionlab.models.text import Grammar

    codec = Codec(CodecConfig(channels=4, width=16, encoder_blocks=1, decoder_blocks=1)).eval()
    batches = list(world_batches(range(5), codec, Grammar(), frames=9, batch=3))
    assert [len(b["items"]) for b in batches] == [3, 2] and batches[0]["tokens"].shape[0] == 3
    assert batches[0]["latents"]["shuffled"].shape == batches[0]["latents"]["latents_shuffled"].shape == (3, 3, 4, 12, 12)
    assert all(0 < a["speed"] < 10 and {"psnr_original", "psnr_shuffled"} <= set(a) for b in batches for a in b["about"])
