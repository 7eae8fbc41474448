"""The small U-Net: frames one by one, a text for each, known ends, files; and the heading that a sentence need not say."""
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.core.noise import SampleNoise
from motionlab.data.bank import BankConfig
from motionlab.data.sources import World
from motionlab.models.frame_text import per_frame
from motionlab.models.small.text import DROPPED, Grammar
from motionlab.models.small.unet import UNetConfig, load_unet, save_unet
from small import small_unet

SAID = ["a red dog runs to the left over the meadow", "a blue fish swims to the right under the sea"]


@pytest.fixture(scope="module")
def pipe():
    return small_unet(frames=5, stir=0.05)


def test_every_frame_is_encoded_alone(pipe):
    pipe.net.mean.fill_(0.2), pipe.net.std.fill_(2.0)
    video = torch.rand(2, 5, 3, 48, 48) * 2 - 1
    z = pipe.encode_video(video)
    assert z.shape == (2, *pipe.shape) == (2, 5, 4, 12, 12)
    with torch.no_grad():
        alone = pipe.codec.encode(video[1, 3][None, None])[0, 0]
    assert torch.allclose(z[1, 3] * 2.0 + 0.2, alone, atol=1e-5)
    changed = video.clone()
    changed[:, 0] = 0
    assert torch.equal(pipe.encode_video(changed)[:, 1:], z[:, 1:])
    with torch.no_grad():
        assert torch.allclose(pipe.decode_video(z)[0, 2], pipe.codec.decode(alone.new_zeros(1, 1, 4, 12, 12) + z[0, 2] * 2 + 0.2)[0, 0], atol=2e-2)
    pipe.net.mean.fill_(0.0), pipe.net.std.fill_(1.0)


@torch.no_grad()
def test_one_text_for_all_frames_is_the_classes_own_way(pipe):
    x, t, states = torch.randn(2, *pipe.shape), torch.tensor([0.2, 0.7]), pipe.states(pipe.text(SAID))
    ours = pipe.net(x, t, states)
    inputs = torch.cat([x, torch.zeros(2, 5, 10, 12, 12)], 2)
    assert pipe.net.frame_text.states is None
    theirs = pipe.net.unet(inputs, 1000 * (1 - t), states, torch.zeros(2, 1)).sample
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_each_frame_reads_its_own_text_and_no_other_frames(pipe):
    """The class would hand the first frame's text to the temporal cross-attention of all frames."""
    x, t, states = torch.randn(1, *pipe.shape), torch.tensor([0.5]), pipe.states(pipe.text(SAID))
    stack = per_frame(states[:1], 5).clone()
    blocks = [m for n, m in pipe.net.unet.named_modules() if n.endswith("attn2") and "temporal" in n]
    seen = {}

    def outputs(own):
        handles = [m.register_forward_hook(lambda m, a, k, out, i=i: seen.setdefault(i, []).append(out), with_kwargs=True)
                   for i, m in enumerate(blocks[:1])]
        pipe.net(x, t, own)
        [h.remove() for h in handles]

    outputs(stack)
    stack[:, 0] = states[1]                                    # only the first frame's text changes
    outputs(stack)
    before, after = (out.reshape(1, -1, 5, out.shape[-1]) for out in seen[0])
    assert not torch.allclose(before[:, :, 0], after[:, :, 0])
    changed = (before - after).abs().amax((0, 1, 3))
    assert changed[0] > 20 * changed[3:].max()                 # what is left comes by the layers before, not by the text itself
    with pytest.raises(MotionLabError, match="one text per frame"):
        pipe.net(x, t, stack[:, :3])


@torch.no_grad()
def test_known_ends_are_seen_and_what_is_not_marked_is_not(pipe):
    x, t, text, pictures = torch.randn(2, *pipe.shape), torch.tensor([0.5, 0.5]), pipe.text(SAID), torch.rand(2, 3, 48, 48) * 2 - 1
    known = pipe.known(first=pictures, last=-pictures)
    assert known["cond"].shape == (2, 2, 4, 12, 12) and known["cond_mask"].tolist() == [[True, True]] * 2 and pipe.known() == {}
    plain, first, both = (pipe(x, t, text, one) for one in ({}, pipe.known(first=pictures), known))
    assert not torch.equal(plain, first) and not torch.equal(first, both)
    hidden = known | {"cond_mask": torch.tensor([[True, False]] * 2)}
    hidden["cond"] = hidden["cond"].clone()
    hidden["cond"][:, 1] = float("nan")
    assert torch.equal(pipe(x, t, text, hidden), first)
    assert not torch.equal(*(pipe.sample(SAID, [0, 1], mode=m, first=pictures, last=pictures, steps=2) for m in ("text", "first_last")))


def test_training_draws_the_modes_and_leaves_headings_out(pipe):
    noise = SampleNoise(0, 0, range(400))
    x1 = torch.randn(400, 5, 4, 12, 12)
    known = pipe.draw_known({"x1": x1}, noise, 0.25, 0.5)
    first, last = known["cond_mask"].float().mean(0).tolist()
    assert abs(first - 0.75) < 0.07 and abs(last - 0.5) < 0.07 and torch.equal(known["cond"], x1[:, [0, -1]])
    assert pipe.draw_known({"x1": x1[:, :1]}, noise, 0.25, 0.5) is None and pipe.draw_known({"x1": x1}, noise) is None
    dropped = pipe.drop_text(pipe.text(SAID[:1] * 400), noise, 0.0, 0.0)["tokens"]
    assert abs((dropped == DROPPED).any(1).float().mean() - pipe.heading_dropout) < 0.07


def test_a_sentence_need_not_say_the_heading():
    grammar = Grammar()
    silent = grammar.encode("a red dog runs over the meadow")
    assert torch.equal(silent, grammar.without_heading(grammar.encode(SAID[0]))) and (silent == DROPPED).sum() == 3
    one = grammar.encode("a red ball rolls and a blue fish swims to the right over the meadow")
    assert grammar.decode(one) == ["a red ball rolls <dropped> <dropped> <dropped> and a blue fish swims to the right over the meadow"]


def test_clips_at_half_the_rate_are_every_other_frame():
    slow, fast = World(BankConfig("examples", clips=2, frames=9), 8.0), World(BankConfig("examples", clips=2, frames=17))
    assert (slow.clip(1).frames == fast.clip(1).frames[::2]).all() and slow.hash() != fast.hash() and slow.name != fast.name


def test_a_file_brings_back_weights_statistics_and_codec(pipe, tmp_path):
    pipe.net.codec_fingerprint = "abcd"
    save_unet(pipe.net, tmp_path / "u.safetensors")
    again = load_unet(tmp_path / "u.safetensors")
    assert again.codec_fingerprint == "abcd" and all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), pipe.net.state_dict().values()))
    with pytest.raises(MotionLabError, match="cannot be built"):
        UNetConfig(widths=(64, 100))
    with pytest.raises(MotionLabError, match="does 1 to 9"):
        small_unet(frames=10)


def test_the_shipped_size_fits_its_file():
    from motionlab.models.small.unet import UNet

    assert 2 * sum(p.numel() for p in UNet().parameters()) < 12e6
