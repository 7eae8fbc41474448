"""q and k of one half for the other on every kind of network: lockstep is separate passes, hooks leave nothing, frames alone turn."""
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.models.exchange import Exchange, exchange_sites, temporal_attentions
from motionlab.models.open import open_pipe
from motionlab.models.pipe import joined
from motionlab.models.residuals import Residual, add_residuals, residuals
from snapshots import CLIP, SIZES, SNAPSHOTS



@pytest.mark.parametrize("name", ["svd", "i2vgenxl", "wan", "hunyuanvideo"])
def test_lockstep_is_separate_passes_on_snapshots_too(name, tmp_path):
    pipe = open_pipe(str(SNAPSHOTS[name](tmp_path / "s")), *SIZES.get(name, CLIP)).requires_grad_(False)
    sites, exchange = exchange_sites(pipe.denoiser), Exchange(pipe.denoiser)
    generator = torch.Generator().manual_seed(0)
    text, known = ({k: torch.randn(v.shape, generator=generator) if v.is_floating_point() else v for k, v in part.items()} for part in pipe.example(1))
    x, t = torch.randn(1, *pipe.shape, generator=generator), torch.tensor([0.4])
    with torch.no_grad():
        alone, own = pipe(x, t, text, known), pipe(x.flip(1), t, text, known)
        with exchange.recording():
            assert torch.equal(pipe(x, t, text, known), alone)
        with exchange.replaying():
            borrowed = pipe(x.flip(1), t, text, known)
        with exchange.lockstep():
            both = pipe(torch.cat([x, x.flip(1)]), t.expand(2), joined(text, text), joined(known, known) if known else known)
        assert torch.equal(pipe(x, t, text, known), alone)                                    # nothing stays on
    assert torch.allclose(both[:1], alone, atol=1e-4) and torch.allclose(both[1:], borrowed, atol=1e-4) and set(exchange.kept) == set(sites)
    assert not torch.equal(borrowed, own)
    if name in ("svd", "i2vgenxl"):                          # over frames alone, never the attention that reads text
        assert temporal_attentions(pipe.denoiser) == sites and not any(m.is_cross_attention for m in sites.values())


def test_only_frames_turn_and_text_stays():
    exchange = Exchange.__new__(Exchange)
    exchange.reversed_time, exchange._grid = True, (3, 2, 2)
    for place in ("first", "last", "none"):
        exchange._layout = type("Layout", (), {"text": place})
        words = 0 if place == "none" else 5
        x = torch.arange(12 + words).view(1, 1, -1, 1)
        turned = exchange.mirrored(x).flatten().tolist()
        first = words if place == "first" else 0
        video = [first + 4 * f + s for f in (2, 1, 0) for s in range(4)]
        assert turned == list(range(first)) + video + list(range(first + 12, 12 + words))
    exchange.reversed_time = False
    assert exchange.mirrored(x) is x


def test_replaying_nothing_and_residuals_twice_are_refused():
    from small import small_unet

    pipe = small_unet(frames=3)
    exchange = Exchange(pipe.denoiser)
    with pytest.raises(MotionLabError, match="Nothing was kept"), exchange.replaying():
        pipe.velocity(torch.randn(1, *pipe.shape), torch.tensor([0.5]), pipe.text([""]))
    assert exchange.state == "off"
    names = [name + ".to_v" for name in exchange.sites]
    made = add_residuals(pipe.denoiser, names, rank=2)
    assert len(made) == len(names) and all(isinstance(m, Residual) for m in made)
    with pytest.raises(MotionLabError, match="takes no residual"):
        add_residuals(pipe.denoiser, names[:1])
    with residuals(pipe.denoiser, "all"):
        assert {m.state for m in made} == {"all"}
    assert {m.state for m in made} == {"off"}


def test_gradient_checkpointing_runs_layers_again_with_the_same_q_k_and_residuals():
    from motionlab.core.noise import SampleNoise
    from motionlab.methods import open_method
    from small import small_unet

    found = {}
    for checkpointed in (False, True):
        pipe, method = small_unet(frames=3, stir=0.05), open_method("vtg")
        method.attach(pipe)
        pipe.train()
        if checkpointed:
            pipe.denoiser.enable_gradient_checkpointing()
        batch = {"x1": torch.randn(2, *pipe.shape, generator=torch.Generator().manual_seed(0)), "text": pipe.text(["", ""])}
        method.loss(pipe)(pipe, batch, SampleNoise(0, 0, range(2)))[0].backward()
        found[checkpointed] = {name: p.grad for name, p in pipe.named_parameters() if p.requires_grad}
    assert all(torch.allclose(found[True][name], grad, atol=1e-6) for name, grad in found[False].items())
    assert any(grad.abs().max() > 0 for grad in found[False].values())
