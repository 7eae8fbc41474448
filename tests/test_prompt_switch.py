"""Switching prompts by depth: both ends are exact, every depth differs, nothing stays behind."""
import pytest
import torch

from motionlab.analyses.prompt_switch import switched, text_blocks, text_replaced
from motionlab.errors import MotionLabError
from motionlab.models.backbone import Backbone, BackboneConfig, guided

TINY = BackboneConfig(d=48, layers=3, heads=3, channels=4, height=6, width=6, max_frames=2, d_text=16, d_time=16)


@pytest.fixture(scope="module")
def scene():
    model = Backbone(TINY)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=g))
    a, b = (model.grammar.encode([s] * 2) for s in ("a red dog walks to the left over the meadow", "a blue fish swims to the right under the sea"))
    return model.eval(), torch.randn(2, 2, 4, 6, 6, generator=g), torch.tensor(0.4), a, b


@torch.no_grad()
def test_the_ends_are_the_two_prompts(scene):
    model, x, t, a, b = scene
    assert torch.allclose(switched(model, a, b, 3)(x, t), guided(model, a)(x, t), atol=1e-6)
    assert torch.allclose(switched(model, a, b, 0)(x, t), guided(model, b)(x, t), atol=1e-5)


@torch.no_grad()
def test_every_depth_gives_something_else(scene):
    model, x, t, a, b = scene
    outs = [switched(model, a, b, k)(x, t) for k in range(4)]
    assert all(not torch.allclose(p, q, atol=1e-5) for i, p in enumerate(outs) for q in outs[:i])


@torch.no_grad()
def test_equal_prompts_change_nothing_at_any_depth(scene):
    model, x, t, a, _ = scene
    plain = guided(model, a)(x, t)
    assert all(torch.allclose(switched(model, a, a, k)(x, t), plain, atol=1e-6) for k in range(4))


def test_no_hook_stays_behind_even_after_an_error(scene):
    model, x, t, a, b = scene
    with pytest.raises(RuntimeError):
        with text_replaced(text_blocks(model.transformer), 1, 2):
            raise RuntimeError
    assert all(not block._forward_pre_hooks for block in model.transformer.transformer_blocks)


def test_bad_depths_and_prompts_are_refused(scene):
    model, _, _, a, b = scene
    with pytest.raises(MotionLabError, match="Use 0 to 3"):
        switched(model, a, b, 4)
    with pytest.raises(MotionLabError, match="as many of one"):
        switched(model, a, b[:1], 1)
    with pytest.raises(MotionLabError, match="no list of blocks"):
        text_blocks(torch.nn.Linear(2, 2))
