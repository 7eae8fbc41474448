"""VTG on networks: shared q and k, both branches in lockstep, training, LoRAs of many pictures at once (card 5.4 and 8.6)."""
import pytest
import torch
from torch import nn

from motionlab.core.errors import MotionLabError
from motionlab.core.noise import SampleNoise
from motionlab.methods import open_method
from motionlab.models.exchange import Exchange, exchange_sites, temporal_attentions
from motionlab.models.residuals import Residual, residuals
from motionlab.models.row_lora import RowLora, spatial_projections
from motionlab.papers import vtg
from motionlab.papers.vtg import branches, ends, sampling, training
from small import small_model, small_unet

SAID = ["a red dog runs to the left over the meadow", "a blue fish swims to the right under the sea"]


@pytest.fixture
def unet():
    return small_unet(frames=3, stir=0.05).requires_grad_(False)


@pytest.fixture
def dit():
    return small_model(layers=2, length=3, stir=0.1).requires_grad_(False)


def stirred(pipe, size=0.3):
    """Residuals that are no longer zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for m in pipe.modules():
            if isinstance(m, Residual):
                for p in m.parameters():
                    p.copy_(size * torch.randn(p.shape, generator=generator))


def scene(pipe, n=2):
    """x, t, text and known of n pairs, and what the backward branch is shown."""
    x, t = torch.randn(n, *pipe.shape, generator=torch.Generator().manual_seed(3)), torch.linspace(0.3, 0.7, n)
    pictures = torch.rand(2, n, 3, 48, 48, generator=torch.Generator().manual_seed(4)) * 2 - 1
    return x, t, pipe.text(SAID[:n]), pipe.known(first=pictures[0], last=pictures[1]), pipe.known(first=pictures[1], last=pictures[0])


def both(pipe, option, weights=None, exchange=None, w=0.0, **more):
    x, t, text, known, turned = scene(pipe)
    model = branches.Branches(pipe, text, known, turned, w, vtg.fusion_weights(pipe.shape[0]) if weights is None else weights, exchange, option, **more)
    return model(x, t)


# --- shared q and k

def by_maps(q, k, v):
    """Attention by an explicit map turned by 180 degrees, of q and k (b, heads, f, d) that are not reversed."""
    return vtg.rotated(torch.softmax(q.double() @ k.double().mT / q.shape[-1] ** 0.5, -1)) @ v.double()


def test_t2_a_network_that_borrows_q_and_k_computes_with_the_rotated_map(unet):
    sites, exchange = temporal_attentions(unet.denoiser), Exchange(unet.denoiser)
    assert len(sites) == 7 and all(name.endswith("temporal_transformer_blocks.0.attn1") for name in sites)
    site = next(iter(sites.values()))
    x, t, text, known, turned = scene(unet)
    seen = {}
    handles = [site.to_v.register_forward_hook(lambda m, a, out: seen.update(v=out)), site.to_out[0].register_forward_pre_hook(lambda m, a: seen.update(out=a[0]))]
    with torch.no_grad(), exchange.recording():
        unet(x, t, text, known)
    with torch.no_grad(), exchange.replaying():
        unet(vtg.reverse(x), t, text, turned)
    [h.remove() for h in handles]
    q, k = next(iter(exchange.kept.values()))
    heads = lambda z: z.unflatten(-1, (q.shape[1], -1)).transpose(1, 2)
    ours = by_maps(q, k, heads(seen["v"])).transpose(1, 2).flatten(2)
    assert torch.allclose(ours.float(), seen["out"], atol=1e-5)


def test_lockstep_equals_separate_passes(unet):
    add = open_method("vtg")
    add.attach(unet)
    stirred(unet)
    x, t, text, known, turned = scene(unet)
    with torch.no_grad(), unet.exchange.recording():
        forward = unet(x, t, text, known)
    with torch.no_grad(), unet.exchange.replaying(), residuals(unet.denoiser, "all"):
        backward = unet(vtg.reverse(x), t, text, turned)
    apart = vtg.fuse(forward, backward, vtg.fusion_weights(3))
    unet.autocast = lambda: torch.autocast("cpu", enabled=False)
    together = both(unet, "E", exchange=unet.exchange)
    assert torch.allclose(apart, together, atol=1e-5)
    assert not torch.allclose(together, both(unet, "E"), atol=1e-3)                    # with q and k of its own it is another branch
    assert unet.exchange.state == "off" and all(m.state == "off" for m in unet.modules() if isinstance(m, Residual))
    with torch.no_grad():
        assert torch.equal(unet(x, t, text, known), forward)                           # the forward branch is as it was


def test_t3_the_fused_model_at_its_ends(unet):
    open_method("vtg").attach(unet)
    stirred(unet)
    unet.autocast = lambda: torch.autocast("cpu", enabled=False)
    x, t, text, known, turned = scene(unet)
    plain = unet.velocity(x, t, text, known)
    assert torch.allclose(both(unet, "E", vtg.fusion_weights(3, 0.0), unet.exchange), plain, atol=1e-5)
    assert not torch.allclose(both(unet, "E", vtg.fusion_weights(3, 1.0), unet.exchange), plain, atol=1e-2)
    with pytest.raises(MotionLabError, match="no halves"), unet.exchange.lockstep():
        unet.velocity(x[:1], t[:1], unet.text(SAID[:1]), {})


def silenced(unet):
    """Without what knows the order of frames: temporal convolutions and frame-index embeddings (T5)."""
    with torch.no_grad():
        for name, module in unet.net.unet.named_modules():
            if name.endswith("temporal_res_block"):
                module.conv2.weight.zero_(), module.conv2.bias.zero_()
            if name.endswith("time_pos_embed"):
                module.linear_2.weight.zero_(), module.linear_2.bias.zero_()
    return unet


def test_t5_without_any_order_of_frames_a_mirrored_backward_branch_is_the_forward_one(unet):
    exchange = Exchange(silenced(unet).denoiser)
    unet.autocast = lambda: torch.autocast("cpu", enabled=False)
    x, t, _, known, _ = scene(unet)
    states = unet.states(unet.text(SAID))
    text = {"states": vtg.text_of_frames(states, states.flip(0), vtg.frame_weights(3))}
    u = unet.velocity(x, t, text, known)
    for shared in (True, False):                                                      # on such a network it is no matter whose q and k
        halves = exchange.lockstep() if shared else residuals(unet.denoiser, "off")
        with halves:
            both_halves = unet.velocity(torch.cat([x, vtg.reverse(x)]), torch.cat([t, t]),
                                        {"states": torch.cat([text["states"], text["states"].flip(1)])}, {k: torch.cat([v, v]) for k, v in known.items()})
        assert torch.allclose(both_halves[:2], u, atol=1e-5) and torch.allclose(both_halves[2:], vtg.reverse(u), atol=1e-4)
    with exchange.lockstep():                                                         # and the first frame's text does not leak to all
        leak = unet.velocity(torch.cat([x, vtg.reverse(x)]), torch.cat([t, t]), {"states": text["states"].repeat(2, 1, 1, 1)},
                             {k: torch.cat([v, v]) for k, v in known.items()})
    assert not torch.allclose(leak[2:], vtg.reverse(u), atol=1e-3)


# --- a video transformer, card 8

def test_d1_and_d5_option_e_is_the_map_with_frames_reversed_text_in_place(dit):
    exchange, seen = Exchange(dit.denoiser), {}
    site = exchange_sites(dit.denoiser)["transformer_blocks.0.attn1"]
    x, t, text, known, turned = scene(dit)
    handles = [site.to_v.register_forward_hook(lambda m, a, out: seen.update(v=out)), site.to_out[0].register_forward_pre_hook(lambda m, a: seen.update(out=a[0]))]
    with torch.no_grad(), exchange.recording():
        dit(x, t, text, known)
    with torch.no_grad(), exchange.replaying():
        dit(vtg.reverse(x), t, text, turned)
    [h.remove() for h in handles]
    q, k = exchange.kept["transformer_blocks.0.attn1"]
    words, n = 32, 3 * 144
    order = torch.cat([torch.arange(words), words + torch.arange(n).view(3, 144).flip(0).flatten()])
    p = torch.eye(words + n, dtype=torch.float64)[order]
    assert torch.equal(p[:words, :words], torch.eye(words, dtype=torch.float64)) and torch.equal(p @ p, torch.eye(words + n, dtype=torch.float64))
    a = torch.softmax(q.double() @ k.double().mT / q.shape[-1] ** 0.5, -1)
    heads = lambda z: z.unflatten(-1, (q.shape[1], -1)).transpose(1, 2)
    explicit = (p @ a @ p.mT) @ heads(seen["v"]).double()
    assert torch.allclose(explicit.transpose(1, 2).flatten(2).float(), seen["out"], atol=1e-5)


def test_d2_option_r_reproduces_the_forward_branch_and_p_does_not(dit):
    dit.autocast = lambda: torch.autocast("cpu", enabled=False)
    x, t, text, known, turned = scene(dit)
    forward = dit.velocity(x, t, text, known)
    last = vtg.fusion_weights(3, 1.0)
    assert torch.allclose(both(dit, "R", last), forward, atol=1e-5) and not torch.allclose(both(dit, "P", last), forward, atol=1e-3)


@pytest.mark.parametrize("option", ["E", "R", "P"])
def test_d3_on_a_single_frame_all_options_are_the_base(option):
    pipe = small_model(layers=2, length=1, stir=0.1).requires_grad_(False)
    pipe.autocast, exchange = (lambda: torch.autocast("cpu", enabled=False)), Exchange(pipe.denoiser)
    x, t, text = torch.randn(2, *pipe.shape), torch.tensor([0.2, 0.8]), pipe.text(SAID)
    model = branches.Branches(pipe, text, {}, {}, 0.0, torch.full((1,), 0.5), exchange, option)
    assert torch.allclose(model(x, t), pipe.velocity(x, t, text), atol=1e-5)


def test_d4_with_nothing_trained_option_r_is_the_base_fused_or_not_and_e_is_where_attention_knows_no_order(dit):
    dit.autocast = lambda: torch.autocast("cpu", enabled=False)
    x, t, text, known, _ = scene(dit)
    assert torch.allclose(both(dit, "R", w=1.5), dit.guided(SAID, 1.5, known)(x, t), atol=1e-4)
    rotary = rotary_dit()
    x, t, text, known, turned = scene(rotary)
    fused = branches.Branches(rotary, text, known, turned, 0.0, vtg.fusion_weights(3), Exchange(rotary.denoiser), "E")
    assert torch.allclose(fused(x, t), rotary.velocity(x, t, text, known), atol=1e-5)
    own = branches.Branches(rotary, text, known, turned, 0.0, vtg.fusion_weights(3), None, "P")
    assert not torch.allclose(own(x, t), rotary.velocity(x, t, text, known), atol=1e-4)


def rotary_dit():
    """A DiT whose only positions are rotary: the case of card 8.1's consequence."""
    from motionlab.models.small.backbone import Backbone, BackboneConfig
    from motionlab.models.small.codec import Codec, CodecConfig
    from motionlab.models.small.pipe import SmallPipe

    backbone = Backbone(BackboneConfig(channels=4, d=32, layers=2, heads=2, max_frames=3, d_text=16, d_time=16, rotary=True))
    with torch.no_grad():
        for p in backbone.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    pipe = SmallPipe(backbone, Codec(CodecConfig(channels=4, width=16, encoder_blocks=1, decoder_blocks=1)).eval(), "rotary", 9).eval().requires_grad_(False)
    pipe.autocast = lambda: torch.autocast("cpu", enabled=False)
    return pipe


# --- training

def batch_of(pipe, n=4):
    stills = {"stills": torch.randn(n, *pipe.shape)} if pipe.kind == "motionlab" else {}
    return {"x1": torch.randn(n, *pipe.shape), "text": pipe.text(SAID * 2), "pictures": torch.rand(n, pipe.frames, 3, 48, 48) * 2 - 1} | stills


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_t6_t9_one_step_moves_both_residuals_and_nothing_else(kind, request):
    pipe, method = request.getfixturevalue(kind), open_method("vtg")
    before = {name: p.clone() for name, p in pipe.named_parameters()}
    method.attach(pipe)
    mine = {name: p for name, p in pipe.named_parameters() if p.requires_grad}
    assert mine and all(".residual." in name and (".to_v." in name or ".to_out.0." in name) for name in mine)
    assert {"delta" in name for name in mine} == {kind == "unet"}
    optimizer = torch.optim.SGD(mine.values(), 1.0)
    for _ in range(1 if kind == "unet" else 2):                                       # B of a product moves first, then A
        loss, parts = method.loss(pipe)(pipe, batch_of(pipe), SampleNoise(0, 0, range(4)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(not name.endswith("lora_A") and p.abs().max() > 0 or name.endswith("lora_A") for name, p in mine.items())
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in pipe.named_parameters() if name not in mine)
    assert parts["per_sample"].shape == (4,) and torch.allclose(loss, parts["per_sample"].mean())


def test_the_forward_branch_is_seen_with_its_own_end_and_the_backward_one_with_the_other(unet):
    method, seen = open_method("vtg", both=0.0), []
    method.attach(unet)
    second = method.second(unet)
    real, batch = type(unet).forward, batch_of(unet)
    known = unet.draw_known(batch, SampleNoise(0, 0, range(4)), 0.0, 1.0)

    def spy(self, x_t, t, text, known=None, extra=None):
        seen.append((x_t, known))
        return real(self, x_t, t, text, known, extra)

    type(unet).forward = spy
    try:
        x_t = torch.randn(4, *unet.shape)
        second(unet, x_t, torch.full((4,), 0.5), batch["text"], known, torch.tensor([True, False, True, False]))
    finally:
        type(unet).forward = real
    (x_f, k_f), (x_b, k_b) = seen
    assert torch.equal(x_f, x_t) and torch.equal(x_b, x_t.flip(1))
    assert k_f["cond_mask"].tolist() == k_b["cond_mask"].tolist() == [[True, True], [True, False]] * 2
    assert torch.equal(k_f["cond"], batch["x1"][:, [0, -1]]) and torch.equal(k_b["cond"], batch["x1"][:, [-1, 0]])


def test_alignment_reads_the_mirrored_frame_and_its_encoder_never_learns(unet):
    class Encoder(nn.Module):
        width = 6

        def features(self, frames):
            return torch.sin(300 * frames.mean((1, 2, 3))[:, None, None] + torch.arange(6.0)).expand(-1, 144, 6)   # frames lie far apart

    torch.manual_seed(0)                    # of the projector's first weights
    method = open_method("vtg", rar=0.5)
    object.__setattr__(method, "_encoder", Encoder)
    method.attach(unet)
    recipe, second, batch = method.recipe, method.second(unet), batch_of(unet)
    *_, seen = training.second_velocity(recipe, second, unet, batch, SampleNoise(0, 0, range(4)))
    assert seen[0].shape == (4, 3, 144, 32) and seen[0].requires_grad
    projected = unet.projector(seen[0])
    target = Encoder().features(batch["pictures"].flatten(0, 1)).unflatten(0, (4, 3))
    ours = training.alignment(second, unet.projector, Encoder(), seen[0], batch["pictures"])
    assert torch.allclose(ours, vtg.rar_loss(projected, target.flip(1))) and not torch.allclose(ours, vtg.rar_loss(projected, target))
    assert not torch.allclose(ours, training.alignment(second, unet.projector, Encoder(), seen[0], batch["pictures"], other=True))
    main, other = training.gradients_at_layer(recipe, second, unet.projector, Encoder(), batch, SampleNoise(0, 0, range(4)))
    assert main.shape == other.shape and vtg.weight_of_share(main, other) > 0
    loss, parts = method.loss(unet)(unet, batch, SampleNoise(0, 0, range(4)))
    loss.backward()
    assert all(p.grad is not None for p in unet.projector.parameters()) and not torch.allclose(loss, parts["per_sample"].mean())


def test_every_temporal_weight_can_be_trained_beside_a_frozen_forward_branch(unet):
    method = open_method("vtg", trained="temporal")
    method.attach(unet)
    mine = [name for name, p in unet.named_parameters() if p.requires_grad]
    assert mine and all("temporal_" in name for name in mine) and len(mine) > 40
    batch, noise = batch_of(unet), SampleNoise(0, 0, range(4))
    found = [method.loss(unet)(unet, batch, SampleNoise(0, 0, range(4)))[0].item() for _ in range(2)]
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if p.requires_grad and "temporal_res_block.conv2" in name:
                p.add_(0.3)
    data = {"x1": batch["x1"]}
    x0, t = torch.randn(4, *unet.shape), torch.full((4,), 0.5)
    x_t = 0.5 * (x0 + batch["x1"])
    moved = method.losses(unet, x_t, t, batch["text"], data, {"x1": x0})
    assert found[0] == found[1] and set(moved) == {"loss", "one", "forward"}
    fresh = small_unet(frames=3, stir=0.05).requires_grad_(False)
    method.attach(fresh)
    still = method.losses(fresh, x_t, t, batch["text"], data, {"x1": x0})
    assert torch.allclose(moved["forward"], still["forward"], atol=1e-4) and not torch.allclose(moved["loss"], still["loss"], atol=1e-3)


def test_controls_are_what_their_names_say(unet):
    """Own maps: no exchange; two forward branches: nothing reversed; unrotated: q and k as they are."""
    batch = batch_of(unet)
    losses = {}
    for name, settings in {"bmp": {}, "own_maps": {"shared": False}, "two_forward": {"reversed_time": False}, "unrotated": {"rotated": False}}.items():
        pipe, method = small_unet(frames=3, stir=0.05), open_method("vtg", **settings)
        method.attach(pipe)
        losses[name] = method.loss(pipe)(pipe, batch, SampleNoise(0, 0, range(4)))[0].item()
        assert pipe.exchange.reversed_time == (name not in ("two_forward", "unrotated"))
    assert len({round(value, 5) for value in losses.values()}) == 4
    plain = small_unet(frames=3, stir=0.05)                                           # dW = 0 and its own q and k handed on: the base itself
    method = open_method("vtg", reversed_time=False)
    method.attach(plain)
    x, t, text, known, _ = scene(plain)
    plain.autocast = lambda: torch.autocast("cpu", enabled=False)
    fused = branches.Branches(plain, text, known, known, 0.0, vtg.fusion_weights(3), plain.exchange, "E", reversed_time=False)
    assert torch.allclose(fused(x, t), plain.velocity(x, t, text, known), atol=1e-5)


# --- LoRAs of the ends

def fitted(pipe, z, text, n_steps=3):
    pipe.autocast = lambda: torch.autocast("cpu", enabled=False)
    rows = RowLora(pipe.denoiser, spatial_projections(pipe.denoiser))
    return rows, ends.fit_loras(pipe, rows, z, text, rank=2, steps=n_steps, lr=1e-2)


def test_many_loras_at_once_are_those_one_by_one(unet):
    """In float64: AdamW's first steps are signs, which turn rounding of a gradient near zero into a whole step."""
    z, said = torch.randn(3, 4, 12, 12, dtype=torch.float64), [*SAID, "a green ball rolls to the left over the meadow"]
    _, together = fitted(unet.double(), z, unet.text(said))
    for i in range(3):
        _, alone = fitted(small_unet(frames=3, stir=0.05).requires_grad_(False).double(), z[i:i + 1], unet.text(said[i:i + 1]))
        for name, pair in together.items():
            assert all(torch.allclose(many[i], one[0], atol=1e-5) for many, one in zip(pair, alone[name])), name
    assert max(float(b.abs().max()) for _, b in together.values()) > 1e-3 and not any(p.grad is not None for p in unet.parameters())


def test_t8_the_mixture_at_its_ends_is_each_ends_own_and_better_there(unet):
    z = torch.randn(2, 4, 12, 12)
    text = unet.text(SAID)
    rows, factors = fitted(unet, z, text, n_steps=8)
    base, own = (ends.picture_losses(unet, rows, f, z, text, draws=6) for f in (None, factors))
    assert (own < base).all()
    first, last = ({name: tuple(f[i:i + 1] for f in pair) for name, pair in factors.items()} for i in range(2))
    unet.autocast = lambda: torch.autocast("cpu", enabled=False)
    x, t = torch.randn(1, *unet.shape), torch.tensor([0.5])
    one = {name: value[:1] for name, value in text.items()}

    def u(*how):
        with rows.use(*how):
            return unet.velocity(x, t, one)

    for share, only in ((0.0, first), (1.0, last)):
        for mix in ("product", "factor"):
            assert torch.allclose(u(first, last, torch.full((1, 3), share), mix), u(only), atol=1e-5)
    assert not torch.allclose(u(first, last, torch.full((1, 3), 0.5), "product"), u(first, last, torch.full((1, 3), 0.5), "factor"), atol=1e-4)
    with pytest.raises(MotionLabError, match="factors of 2 clips"), rows.use(factors):
        unet.velocity(x, t, one)


def test_rows_mix_as_the_equation_says():
    layer = nn.Sequential(nn.Linear(8, 6))
    rows = RowLora(layer, ["0"])
    x, lam = torch.randn(2, 5, 3, 8), vtg.frame_weights(5)
    first, last = ({"0": (torch.randn(2, 2, 8), torch.randn(2, 6, 2))} for _ in range(2))
    for mix in vtg.MIXES:
        with torch.no_grad(), rows.use(first, last, lam.float().expand(2, -1), mix):
            added = layer(x.flatten(0, 1)).unflatten(0, (2, 5)) - nn.functional.linear(x, layer[0].weight, layer[0].bias)
        assert torch.allclose(added, vtg.low_rank_mix(x, *first["0"], *last["0"], lam, mix), atol=1e-4)


def test_dinov2_by_path_has_the_layers_own_grid_and_is_asked_for_before_anything_long(unet, tmp_path):
    from encoders import dinov2_folder
    from motionlab.teachers.dinov2 import open_dinov2

    folder = dinov2_folder(tmp_path / "dinov2")
    encoder, frames = open_dinov2(folder), torch.rand(2, 3, 48, 96) * 2 - 1
    fitted = encoder.fitted(frames, 72)
    assert fitted.shape == (2, 3, 6 * 14, 12 * 14) and encoder.features(fitted).shape == (2, 72, 16)
    states = encoder.model((fitted + 1) / 2 / encoder.std - encoder.mean / encoder.std).last_hidden_state[:, 1:]
    assert torch.allclose(encoder.features(fitted), states, atol=1e-5) and not any(p.requires_grad for p in encoder.parameters())
    with pytest.raises(MotionLabError, match="no grid of 7 patches"):
        encoder.fitted(frames, 7)
    method = open_method("vtg", rar=0.5, encoder=str(folder))
    method.attach(unet)
    batch = batch_of(unet)
    method.loss(unet)(unet, batch, SampleNoise(0, 0, range(4)))[0].backward()
    assert unet.projector.layers[-1].out_features == 16
    with pytest.raises(MotionLabError, match="There is no folder 'nowhere' with a dinov2 model"):
        open_method("vtg", rar=0.5, encoder="nowhere").attach(small_unet(frames=3))
