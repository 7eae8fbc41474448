"""Switching prompts by depth: both ends are exact, every depth differs, nothing stays behind."""
import numpy as np
import pytest
import torch

from motionlab.analyses.prompt_switch import switch_pairs, switch_rows, switched, switched_clips, text_blocks, text_replaced
from motionlab.core.errors import MotionLabError
from motionlab.models.small.backbone import Backbone, BackboneConfig
from motionlab.models.small.codec import Codec, CodecConfig
from motionlab.models.small.pipe import SmallPipe
from motionlab.world.captions import sentence
from small import guided

TINY = BackboneConfig(d=48, layers=3, heads=3, channels=4, height=6, width=6, max_frames=2, d_text=16, d_time=16)


@pytest.fixture(scope="module")
def scene():
    model = SmallPipe(Backbone(TINY), Codec(CodecConfig(channels=4, width=16, encoder_blocks=1, decoder_blocks=1)), frames=5)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=g))
    a, b = (model.text([s] * 2) for s in ("a red dog walks to the left over the meadow", "a blue fish swims to the right under the sea"))
    return model.eval(), torch.randn(2, 2, 4, 6, 6, generator=g), torch.tensor(0.4), a, b


@torch.no_grad()
def test_the_ends_are_the_two_prompts(scene):
    model, x, t, a, b = scene
    assert torch.allclose(switched(model, a, b, 3)(x, t), guided(model.backbone, a["tokens"])(x, t), atol=1e-6)
    assert torch.allclose(switched(model, a, b, 0)(x, t), guided(model.backbone, b["tokens"])(x, t), atol=1e-5)


@torch.no_grad()
def test_every_depth_gives_something_else(scene):
    model, x, t, a, b = scene
    outs = [switched(model, a, b, k)(x, t) for k in range(4)]
    assert all(not torch.allclose(p, q, atol=1e-5) for i, p in enumerate(outs) for q in outs[:i])


@torch.no_grad()
def test_equal_prompts_change_nothing_at_any_depth(scene):
    model, x, t, a, _ = scene
    plain = model.guided(a)(x, t)
    assert all(torch.allclose(switched(model, a, a, k)(x, t), plain, atol=1e-6) for k in range(4))


def test_no_hook_stays_behind_even_after_an_error(scene):
    model, x, t, a, b = scene
    with pytest.raises(RuntimeError):
        with text_replaced(text_blocks(model.denoiser), 1, 2):
            raise RuntimeError
    assert all(not block._forward_pre_hooks for block in model.denoiser.transformer_blocks)


def test_bad_depths_and_prompts_are_refused(scene):
    model, _, _, a, b = scene
    with pytest.raises(MotionLabError, match="Use 0 to 3"):
        switched(model, a, b, 4)
    with pytest.raises(MotionLabError, match="as many of one"):
        switched(model, a, model.text(["a red dog walks to the left over the meadow"]), 1)
    with pytest.raises(MotionLabError, match="no list of blocks"):
        text_blocks(torch.nn.Linear(2, 2))


# ---------------------------------------------------------------------------------------------- pairs and rows
def test_pairs_differ_in_everything_but_the_species_and_are_sentences_of_the_grammar():
    from motionlab.world import parse_caption
    from motionlab.world.captions import sentence

    for _, first, then in switch_pairs(range(12)):
        a, b = first["actors"][0], then["actors"][0]
        assert a["species"] == b["species"] and a["colour"] != b["colour"] and first["place"] != then["place"]
        assert a["motion"] != b["motion"] and parse_caption(sentence(then)) == then


def test_rows_say_whom_each_attribute_follows_and_the_ends_are_plain_prompts():
    from small import small_evaluator, small_model

    model, pairs = small_model(layers=2, length=2, stir=0.3), switch_pairs((1, 2, 3))
    rows = list(switch_rows(model, small_evaluator(), pairs, (0, 2), steps=2, batch=2))
    assert len(rows) == 6 and {"first_colour", "then_motion"} <= set(rows[0])
    assert all(not (r["first_colour"] and r["then_colour"]) for r in rows)
    said = [[sentence(p) for p in column] for column in list(zip(*pairs))[1:]]
    ends = {depth: switched_clips(model, *said, [1, 2, 3], depth, steps=2) for depth in (0, 2)}
    swapped = switched_clips(model, *said[::-1], [1, 2, 3], 2, steps=2)
    apart = [np.abs(ends[0].astype(int) - other).mean() for other in (swapped, ends[2])]
    assert 5 * apart[0] < apart[1]
