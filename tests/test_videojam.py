"""VideoJAM beside its method card: exact start, both halves of the loss, dropouts, every guidance rule."""
import numpy as np
import pytest
import torch

from motionlab.diffusion import cfg, euler, time_grid
from motionlab.core.errors import MotionLabError
from motionlab.flow_rgb import rgb_to_flow
from motionlab.models.small.backbone import Backbone, BackboneConfig
from motionlab.models.small.codec import Codec, CodecConfig
from motionlab.models.small.pipe import SmallPipe
from motionlab.papers.videojam import (Guidance, JointRecipe, drop, extra_parameters, inner_guidance, joint_loss, joint_training_loss,
                                       joint_velocity, motion_latent, split, widen)
from motionlab.training import SampleNoise
from motionlab.video import as_frames
from motionlab.world import random_scene, render

TINY = BackboneConfig(d=48, layers=2, heads=3, channels=4, height=6, width=6, max_frames=3, d_text=16, d_time=16)
SENTENCE = "a red dog runs to the left over the meadow"


def awake(seed=0):
    """A generator whose zero-initialised parts are drawn too."""
    codec = Codec(CodecConfig(channels=4, width=16, encoder_blocks=1, decoder_blocks=1))
    model = SmallPipe(Backbone(TINY, seed), codec, frames=9, size=(24, 24))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return model.eval()


def inputs(b=2, f=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    x, d = torch.randn(b, f, 4, 6, 6, generator=g), torch.randn(b, f, 4, 6, 6, generator=g)
    return x, d, torch.rand(b, generator=g), {"tokens": Backbone(TINY).grammar.encode([SENTENCE] * b)}


def joint(new="zero", trained=False, seed=0):
    """`trained`: the new weights are drawn, so that the motion path matters."""
    model = awake(seed)
    widen(model.denoiser, 4, new)
    if trained:
        with torch.no_grad():
            for p in (model.denoiser.patch_embed.proj.weight, model.denoiser.proj_out.weight):
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(7)))
    return model


# ---------------------------------------------------------------------------------------------- motion latent
def test_the_motion_latent_is_the_encoded_flow_picture():
    clip = render(random_scene(12, species_name="dog", camera=False), frames=5)
    kept = motion_latent(lambda video: video, clip.flow, 0.15)
    assert kept.shape == (5, 3, 48, 48) and torch.equal(kept[3], kept[4])            # the last flow is repeated
    back = rgb_to_flow(np.moveaxis(as_frames(kept), -1, -3)[:4] / 255, 0.15)
    assert np.abs(back - clip.flow).max() < 0.1


def test_a_static_clip_has_a_uniform_motion_picture():
    still = motion_latent(lambda video: video, np.zeros((4, 2, 48, 48)))
    assert (still == 1).all()


@pytest.mark.parametrize("flow", [np.zeros((0, 2, 8, 8)), np.zeros((4, 3, 8, 8)), np.zeros((2, 8, 8))])
def test_flow_of_another_shape_is_refused(flow):
    with pytest.raises(MotionLabError, match="a clip of one frame has none"):
        motion_latent(lambda video: video, flow)


def test_flow_with_nan_is_refused():
    with pytest.raises(MotionLabError, match="not finite"):
        motion_latent(lambda video: video, np.full((4, 2, 8, 8), np.nan))


# ---------------------------------------------------------------------------------------------- widening
@pytest.mark.parametrize("new", ["zero", "copy"])
def test_before_training_appearance_is_the_base_to_the_bit_whatever_d_is(new):
    x, d, t, text = inputs()
    base, model = awake(), joint(new)
    for scale in (0.0, 1.0, 1e3):
        u_x, u_d = joint_velocity(model, x, scale * d, t, text)
        assert torch.equal(u_x, base(x, t, text))
        assert torch.equal(u_d, u_x if new == "copy" else torch.zeros_like(u_x))


def test_it_adds_what_the_card_counts_and_zero_rows_still_learn():
    x, d, t, text = inputs()
    base, model = awake(), joint("copy")
    count = [sum(p.numel() for p in m.parameters()) for m in (base, model)]
    assert count[1] - count[0] == extra_parameters(48, 4)
    u_x, _ = joint_velocity(model, x, d, t, text)
    u_x.square().mean().backward()
    grad = model.denoiser.patch_embed.proj.weight.grad[:, -4:]
    assert float(grad.abs().sum()) > 0


@pytest.mark.parametrize("build", ["wan", "cogvideox"])
def test_only_the_new_rows_and_columns_learn_faster(build):
    plain, fast = (widen(globals()[build](), 4, "zero", new_lr) for new_lr in (1.0, 10.0))
    assert not any(hasattr(p, "lr_scale") for p in plain.parameters())
    scaled = {name: p.lr_scale for name, p in fast.named_parameters() if hasattr(p, "lr_scale")}
    assert len(scaled) == 3 and all(set(scale.unique().tolist()) == {1.0, 10.0} for scale in scaled.values())
    old = dict(globals()[build]().named_parameters())
    for name, scale in scaled.items():
        assert int((scale == 1).sum()) == old[name].numel()
        start = fast.get_parameter(name)
        assert not start[scale == 10].any() and start[scale == 1].any()


@pytest.mark.parametrize("new_lr", [0.0, -1.0, float("nan")])
def test_new_rows_that_would_not_learn_are_refused(new_lr):
    with pytest.raises(MotionLabError, match="new_lr"):
        widen(wan(), 4, new_lr=new_lr)


def wan():
    from diffusers import WanTransformer3DModel
    return WanTransformer3DModel(patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
                                 freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32)


def cogvideox():
    from diffusers import CogVideoXTransformer3DModel
    return CogVideoXTransformer3DModel(num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=16, text_embed_dim=16,
                                       num_layers=2, sample_width=8, sample_height=8, sample_frames=9, patch_size=2, max_text_seq_length=6)


def cogvideox_15():
    from diffusers import CogVideoXTransformer3DModel
    return CogVideoXTransformer3DModel(num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=16, text_embed_dim=16,
                                       num_layers=2, sample_width=8, sample_height=8, sample_frames=13, patch_size=2, patch_size_t=2,
                                       patch_bias=False, max_text_seq_length=6, use_rotary_positional_embeddings=True)


def hunyuan():
    from diffusers import HunyuanVideoTransformer3DModel
    return HunyuanVideoTransformer3DModel(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
                                          num_refiner_layers=1, text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6))


def ltx():
    from diffusers import LTXVideoTransformer3DModel
    return LTXVideoTransformer3DModel(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32, num_layers=2,
                                      caption_channels=16)


def call(model, x):
    g = torch.Generator().manual_seed(5)
    text, t = torch.randn(len(x), 6, 16, generator=g), torch.full((len(x),), 500.0)
    name = type(model).__name__
    if name.startswith("LTX"):
        b, c, f, h, w = x.shape
        tokens = x.permute(0, 2, 3, 4, 1).reshape(b, f * h * w, c)
        out = model(tokens, text, t, encoder_attention_mask=torch.ones(b, 6), num_frames=f, height=h, width=w, return_dict=False)[0]
        return out.reshape(b, f, h, w, -1).permute(0, 4, 1, 2, 3)
    if name.startswith("CogVideoX"):
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        f = x.shape[2] // (model.config.patch_size_t or 1)
        turn = get_3d_rotary_pos_embed(16, ((0, 0), (4, 4)), (4, 4), f) if model.config.use_rotary_positional_embeddings else None
        return model(x.transpose(1, 2), text, t, image_rotary_emb=turn, return_dict=False)[0].transpose(1, 2)
    if name.startswith("Hunyuan"):
        pooled, mask = torch.randn(len(x), 8, generator=g), torch.ones(len(x), 6)
        return model(x, t, text, mask, pooled, guidance=torch.full((len(x),), 6000.0), return_dict=False)[0]
    return model(x, t, text, return_dict=False)[0]


@pytest.mark.parametrize("build", [wan, cogvideox, cogvideox_15, hunyuan, ltx])
def test_real_classes_start_bit_equal_and_both_halves_keep_their_places(build):
    torch.manual_seed(0)
    model = build().eval()
    x, d = torch.randn(2, 1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(1))[:, :]
    before = call(model, x)
    widen(model, 4, "copy")
    after = call(model, torch.cat([x, 9 * d], 1))
    assert torch.equal(after[:, :4], before) and torch.equal(after[:, 4:], before)        # copied columns: channel by channel
    assert model.config["in_channels"] == 8


def test_a_backbone_without_the_projections_is_refused():
    class Foreign(torch.nn.Module):
        config = {"in_channels": 4}

    with pytest.raises(MotionLabError, match="none of the projections"):
        widen(Foreign(), 4)


# ---------------------------------------------------------------------------------------------- loss
def test_a_dropped_motion_half_costs_nothing_and_trains_nothing():
    x1, d1, _, _ = inputs()
    x0, d0, _, _ = inputs(seed=2)
    u_x, u_d = torch.zeros_like(x1, requires_grad=True), torch.zeros_like(x1, requires_grad=True)
    appearance, motion = joint_loss(u_x, u_d, x0, x1, d0, d1, torch.tensor([True, False]))
    assert torch.allclose(appearance, (x1 - x0).square().flatten(1).mean(1))              # halves are not averaged together
    assert motion[1] == 0 and torch.allclose(motion[0], (d1 - d0)[0].square().mean())
    (appearance + motion).sum().backward()
    assert u_d.grad[1].abs().sum() == 0 and u_d.grad[0].abs().sum() > 0 and u_x.grad[1].abs().sum() > 0


def test_dropouts_have_their_frequencies_and_are_independent():
    g = torch.Generator().manual_seed(0)
    text, motion = drop(40000, g, 0.3), drop(40000, g, 0.2)
    rates = [float(x.float().mean()) for x in (text, motion, text & motion, ~text & ~motion)]
    assert rates == pytest.approx([0.7, 0.8, 0.56, 0.06], abs=0.01)
    state = g.get_state()
    assert drop(5, g, 0).all() and torch.equal(g.get_state(), state)                      # unused: draws nothing
    with pytest.raises(MotionLabError, match="no probability"):
        drop(5, g, 1.2)


def test_training_feeds_zero_motion_where_it_is_dropped():
    seen, pipe = {}, awake()

    def model(x_t, t, text, known, extra):
        seen.update(d=extra, tokens=text["tokens"])
        return torch.zeros(*x_t.shape[:2], 8, *x_t.shape[3:])

    x1, d1, _, text = inputs(b=16)
    null = pipe.text([""])["tokens"]
    loss, parts = joint_training_loss(JointRecipe(0.5, 0.5), pipe)(model, {"x1": x1, "d1": d1, "text": text}, SampleNoise(0, 0, range(16)))
    empty = seen["d"].flatten(1).abs().sum(1) == 0
    silent = (seen["tokens"] == null).all(1)
    assert 2 <= int(empty.sum()) <= 14 and 2 <= int(silent.sum()) <= 14 and not torch.equal(empty, silent)
    assert loss > parts["per_sample"].mean() and parts["t"].shape == (16,)


# ---------------------------------------------------------------------------------------------- guidance
def test_coefficients_sum_to_one_for_every_rule():
    for rule in ("inner", "ip2p", "composable", "no_motion"):
        for w1, w2 in ((5, 3), (0, 3), (5, 0), (0, 0), (2.5, 0.5)):
            terms = Guidance(w1, w2, rule=rule).passes(0.3)
            assert sum(terms.values()) == pytest.approx(1) and 0 not in terms.values()


def test_passes_are_those_of_the_card():
    assert Guidance(5, 3).passes(0.1) == {(True, True): 9, (False, True): -5, (True, False): -3}
    assert Guidance(5, 3).passes(0.9) == {(True, True): 6, (False, True): -5}             # outside the interval: no third pass
    assert Guidance(0, 3).passes(0.1) == {(True, True): 4, (True, False): -3}
    assert Guidance(5, 3, rule="no_motion").passes(0.1) == {(True, False): 6, (False, False): -5}
    assert Guidance(5, 3, rule="ip2p").passes(0.1) == {(False, False): -2, (False, True): -2, (True, True): 5}


def run(options, trained=True):
    x, d, _, text = inputs()
    model = joint(trained=trained)
    return model, x, d, text, inner_guidance(model, text, options)(torch.cat([x, d], 2), torch.tensor([0.3, 0.3]))


def parts(model, x, d, text):
    null, t = model.text(["", ""]), torch.tensor([0.3, 0.3])
    with torch.no_grad():
        return {(said, motion): torch.cat(joint_velocity(model, x, d if motion else 0 * d, t, text if said else null), 2)
                for said in (True, False) for motion in (True, False)}


def test_without_weights_it_is_the_conditional_prediction():
    model, x, d, text, u = run(Guidance(0, 0))
    assert torch.allclose(u, parts(model, x, d, text)[True, True], atol=1e-5)


def test_without_motion_weight_it_is_text_guidance():
    model, x, d, text, u = run(Guidance(4, 0))
    p = parts(model, x, d, text)
    assert torch.allclose(u, cfg(p[True, True], p[False, True], 4), atol=1e-4)


def test_the_full_rule_is_the_papers_equation_in_one_batch():
    model, x, d, text, u = run(Guidance(5, 3))
    p = parts(model, x, d, text)
    assert torch.allclose(u, 9 * p[True, True] - 5 * p[False, True] - 3 * p[True, False], atol=1e-4)


def test_passes_in_turn_give_what_one_batch_gives():
    x, d, _, text = inputs()
    model, sizes = joint(trained=True), []
    model.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    both = [inner_guidance(model, text, Guidance(5, 3, batched=batched))(torch.cat([x, d], 2), 0.3) for batched in (True, False)]
    assert sizes == [6, 2, 2, 2] and torch.allclose(*both, atol=1e-4)


def test_motion_halves_differ_only_in_the_motion_channels():
    model, x, d, text, literal = run(Guidance(5, 3))
    _, _, _, _, cfg_d = run(Guidance(5, 3, motion_half="cfg_d"))
    _, _, _, _, exact = run(Guidance(5, 3, motion_half="exact"))
    p = parts(model, x, d, text)
    assert torch.equal(split(literal)[0], split(cfg_d)[0]) and torch.equal(split(literal)[0], split(exact)[0])
    assert torch.allclose(split(cfg_d)[1], split(6 * p[True, True] - 5 * p[False, True])[1], atol=1e-4)
    assert torch.allclose(split(exact)[1], split(9 * p[True, True] - 5 * p[False, True])[1] - 3 * d / 0.3, atol=1e-4)


def test_it_samples_with_the_kits_samplers():
    x, d, _, text = inputs()
    z = euler(inner_guidance(joint(trained=True), text), torch.cat([x, d], 2), time_grid(4))
    assert z.shape == (2, 3, 8, 6, 6) and torch.isfinite(z).all()


@pytest.mark.parametrize("options, message", [
    ({"interval": (0.2, 1.4)}, "does not lie in"), ({"rule": "iner"}, "Did you mean 'inner'"), ({"motion_half": "literl"}, "Did you mean 'literal'")])
def test_bad_options_are_named(options, message):
    with pytest.raises(MotionLabError, match=message):
        Guidance(**options)


def test_motion_of_another_size_is_refused():
    x, d, t, text = inputs()
    with pytest.raises(MotionLabError, match="differ in shape"):
        joint_velocity(joint(), x, d[:, :2], t, text)
