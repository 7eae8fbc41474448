"""The small generator as a `Pipe`: the same clips as ever, known frames as a user has them, a sentence for each mistake."""
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.models.open import open_pipe
from motionlab.models.pipe import chosen, joined, moved
from motionlab.core.noise import prompt_noise
from motionlab.core.precision import autocast
from motionlab.diffusion import cfg, euler, time_grid
from small import guided, small_model

SAID = ["a red dog runs to the left over the meadow", "a blue fish swims to the right under the sea"]


@pytest.fixture(scope="module")
def pipe():
    return small_model(layers=2, length=3, stir=0.1)


def test_sampling_is_the_generators_to_the_bit(pipe):
    ours, u = pipe.sample(SAID, [3, 4], steps=3, w=2.0), guided(pipe.backbone, pipe.backbone.grammar.encode(SAID), 2.0)
    with torch.no_grad(), autocast("cpu"):
        assert torch.equal(ours, euler(lambda x, t: u(x, t).float(), prompt_noise([3, 4], pipe.shape), time_grid(3)))
    assert not torch.equal(ours, pipe.sample(SAID, [3, 4], steps=3, w=0.0))
    alone = pipe.sample(SAID[1:], [4], steps=3, w=2.0)
    torch.testing.assert_close(alone[0], ours[1], atol=1e-4, rtol=1e-3)         # no clip depends on its neighbours


@torch.no_grad()
def test_guidance_in_one_batch_equals_two_passes(pipe):
    x, t = pipe.noise([5, 6]), torch.tensor([0.3, 0.6])
    for known in (None, pipe.known(first=torch.zeros(2, 3, 48, 48))):
        with_text, without = (pipe.velocity(x, t, pipe.text(said), known) for said in (SAID, ["", ""]))
        torch.testing.assert_close(pipe.guided(SAID, 3.0, known)(x, t), cfg(with_text, without, 3.0), atol=1e-4, rtol=1e-3)
        assert torch.equal(pipe.guided(SAID, 0, known)(x, t), with_text)


def test_known_frames_are_pictures_encoded_alone(pipe):
    pictures = torch.rand(2, 3, 48, 48) * 2 - 1
    known = pipe.known(first=pictures, last=-pictures)
    assert known["cond_mask"].tolist() == [[True, False, True]] * 2
    with torch.no_grad():
        assert torch.allclose(known["cond"][:, 2], pipe.codec.encode(-pictures[:, None])[:, 0], atol=1e-5)
    assert pipe.known() == {} and not known["cond"][:, 1].any()
    free, held = (pipe.sample(SAID, [0, 1], mode=mode, first=pictures, last=pictures, steps=2) for mode in ("text", "first_last"))
    assert not torch.equal(free, held)


def test_the_callback_sees_every_step_and_may_edit(pipe):
    seen = []
    pipe.sample(SAID, [0, 1], steps=3, batch=1, callback=lambda step: seen.append(step["step"]))
    assert seen == [0, 1, 2] * 2
    still = pipe.sample(SAID[:1], [0], steps=3, callback=lambda step: {"u": torch.zeros_like(step["u"])})
    assert torch.equal(still, pipe.noise([0]))


def test_clips_come_and_go_at_its_size(pipe):
    assert pipe.shape == (3, 4, 12, 12) and pipe.cell == 4 and pipe.frames == 9
    frames = pipe.decode(pipe.sample(SAID, [0, 1], steps=1))
    assert frames.shape == (2, 9, 48, 48, 3) and frames.dtype.name == "uint8"
    assert not any("codec" in name for name, _ in pipe.named_parameters())         # the autoencoder is not trained with it


def test_inputs_are_joined_chosen_and_moved_row_by_row(pipe):
    text, null = pipe.text(SAID), pipe.text([""])
    assert joined(text, null)["tokens"].shape[0] == 3
    mixed = chosen(torch.tensor([True, False]), text, null)
    assert torch.equal(mixed["tokens"][0], text["tokens"][0]) and torch.equal(mixed["tokens"][1], null["tokens"][0])
    assert moved({}, "cpu") == {} and moved(text, "cpu")["tokens"] is text["tokens"]


@pytest.mark.parametrize("call, says", [
    (lambda p: p.sample(SAID, [0]), "2 prompts and 1 noise seeds"), (lambda p: p.sample(["a red dgo runs"], [0]), "Did you mean 'dog'"),
    (lambda p: p.sample(SAID, [0, 1], mode="firts"), "Did you mean 'first'"), (lambda p: p.sample(SAID, [0, 1], mode="first"), "needs the first frame"),
    (lambda p: p.sample(SAID, [0, 1], solver="heum"), "Did you mean 'heun'"), (lambda p: open_pipe(height=64), "does 48 x 48"),
    (lambda p: open_pipe("nowhere"), "There is no folder"), (lambda p: open_pipe(frames=16), "lengths are 1")])
def test_mistakes_are_told_before_anything_runs(pipe, call, says):
    with pytest.raises(MotionLabError, match=says):
        call(pipe)
