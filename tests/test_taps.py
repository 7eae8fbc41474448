"""Taps on tiny random models of every supported class: invisible, equal to the materialised map, and nothing left."""
import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode, _len_torch_function_stack
from torch.utils.checkpoint import checkpoint

from motionlab import taps
from motionlab.core.errors import MotionLabError
from motionlab.models.small.backbone import Backbone, BackboneConfig
from reductions import DisplacementMass, RadiusMass
from small import guided

B, HEADS = 2, 2
GRID = (3, 4, 2)                                        # frames, height, width in tokens
N, TEXT = 24, 5
ALL = {"frames": taps.FrameMass(), "offsets": taps.OffsetMass(), "shift": DisplacementMass(),
       "radius": RadiusMass(), "entropy": taps.Entropy(), "query": taps.QueryMap(1, 2, 1)}


# --- tiny models: (model, a function that calls it, names of its blocks, position of video in the sequence)

def build(cls, **sizes):
    torch.manual_seed(0)
    model = cls(**sizes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():        # zero-initialised gates would hide the attention
            parameter.copy_(0.3 * torch.randn_like(parameter) + ("norm" in name and parameter.dim() == 1))
    return model.eval()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def cogvideox():
    from diffusers import CogVideoXTransformer3DModel
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    model = build(CogVideoXTransformer3DModel, num_attention_heads=HEADS, attention_head_dim=16, num_layers=3,
                  in_channels=4, out_channels=4, time_embed_dim=8, text_embed_dim=8, max_text_seq_length=TEXT,
                  sample_width=4, sample_height=8, sample_frames=9, patch_size=2,
                  use_rotary_positional_embeddings=True)
    rope = get_3d_rotary_pos_embed(16, ((0, 0), GRID[1:]), GRID[1:], GRID[0])
    x, words = noise(B, 3, 4, 8, 4), noise(B, TEXT, 8)
    return (model, lambda m: m(x, words, torch.tensor([900.0, 100.0]), image_rotary_emb=rope).sample,
            [f"transformer_blocks.{i}" for i in range(3)], slice(TEXT, TEXT + N))


def wan():
    from diffusers import WanTransformer3DModel
    model = build(WanTransformer3DModel, num_attention_heads=HEADS, attention_head_dim=12, num_layers=2, in_channels=4,
                  out_channels=4, text_dim=8, freq_dim=8, ffn_dim=16)
    x, words = noise(B, 4, 3, 8, 4), noise(B, TEXT, 8)
    return (model, lambda m: m(x, torch.tensor([900, 100]), words).sample, ["blocks.0", "blocks.1"], slice(0, N))


def hunyuan():
    from diffusers import HunyuanVideoTransformer3DModel
    model = build(HunyuanVideoTransformer3DModel, in_channels=4, out_channels=4, num_attention_heads=HEADS,
                  attention_head_dim=12, num_layers=2, num_single_layers=2, num_refiner_layers=1, text_embed_dim=8,
                  pooled_projection_dim=8, rope_axes_dim=(4, 4, 4), guidance_embeds=False)
    x, words, pooled = noise(B, 4, 3, 8, 4), noise(B, TEXT, 8), noise(B, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])                 # padded text takes no mass
    return (model, lambda m: m(x, torch.tensor([900, 100]), words, mask, pooled).sample,
            [f"{stack}.{i}" for stack in ("transformer_blocks", "single_transformer_blocks") for i in range(2)],
            slice(0, N))


def ltx():
    from diffusers import LTXVideoTransformer3DModel
    model = build(LTXVideoTransformer3DModel, in_channels=4, out_channels=4, num_attention_heads=HEADS,
                  attention_head_dim=12, cross_attention_dim=24, num_layers=2, caption_channels=8)
    x, words, mask = noise(B, N, 4), noise(B, TEXT, 8), torch.ones(B, TEXT)
    return (model, lambda m: m(x, words, torch.tensor([900, 100]), mask, *GRID).sample,
            ["transformer_blocks.0", "transformer_blocks.1"], slice(0, N))


def backbone():
    model = build(Backbone, config=BackboneConfig(d=32, layers=2, heads=HEADS, channels=3, height=4, width=2, d_text=16,
                                                  max_frames=3, d_time=16, text_length=12))
    x, tokens = noise(B, 3, 3, 4, 2), model.grammar.encode(["a red dog runs to the left over the meadow"] * B)
    return (model, lambda m: m(x, torch.tensor([0.1, 0.9]), tokens), ["transformer_blocks.0", "transformer_blocks.1"],
            slice(12, 12 + N))


MODELS = {f.__name__: f for f in (cogvideox, wan, hunyuan, ltx, backbone)}


@pytest.fixture(scope="module", params=MODELS)
def tiny(request):
    return MODELS[request.param]()


def traces(model):
    """Hooks of every kind on all modules, and function modes."""
    return sum(len(value) for module in model.modules() for name, value in vars(module).items()
               if "hooks" in name and isinstance(value, dict)) + _len_torch_function_stack()


@torch.no_grad()
def maps(model, run, name):
    """The materialised softmax of one block, (b, heads, keys, keys): its own q and k, by another route than the tap."""
    block = model.get_submodule(name if not isinstance(model, Backbone) else f"transformer.{name}")
    inside, found = [], []

    class Catch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if func is F.scaled_dot_product_attention and inside:
                q, k = kwargs.get("query", args[0] if args else None), kwargs.get("key", args[1] if args else None)
                logits = torch.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[-1] ** 0.5
                mask = kwargs.get("attn_mask")
                logits = logits if mask is None else logits.masked_fill(~mask, float("-inf"))
                e = (logits - logits.amax(-1, keepdim=True)).exp()
                found.append(e / e.sum(-1, keepdim=True))
            return func(*args, **kwargs)

    module = getattr(block, "attn1", None) or block.attn
    handles = [module.register_forward_pre_hook(lambda *_: inside.append(1)),
               module.register_forward_hook(lambda *_: inside.clear())]
    with Catch():
        run(model)
    for handle in handles:
        handle.remove()
    (full,) = found
    return full


def by_loops(p):
    """All reductions of p (b, heads, n, n) as plain loops over pairs of tokens."""
    f, h, w = GRID
    place = [(t, y, x) for t in range(f) for y in range(h) for x in range(w)]
    frames, offsets = p.new_zeros(*p.shape[:2], f, f), p.new_zeros(*p.shape[:2], 2 * f - 1)
    shift = p.new_zeros(*p.shape[:2], 2 * f - 1, 2 * h - 1, 2 * w - 1)
    radius = p.new_zeros(*p.shape[:2], 2, max(h, w))
    for i, (t, y, x) in enumerate(place):
        for j, (s, v, u) in enumerate(place):
            mass = p[:, :, i, j]
            frames[:, :, t, s] += mass / (h * w)
            offsets[:, :, s - t + f - 1] += mass / N
            shift[:, :, s - t + f - 1, v - y + h - 1, u - x + w - 1] += mass / N
            radius[:, :, int(s != t), max(abs(v - y), abs(u - x))] += mass / N
    return {"frames": frames, "offsets": offsets, "shift": shift, "radius": radius,
            "query": p[:, :, place.index((1, 2, 1))].unflatten(-1, GRID)}


# --- reduced maps are the materialised ones

def test_reductions_equal_the_materialised_map(tiny):
    model, run, names, video = tiny
    with torch.no_grad(), taps.attention(model, ALL, chunk=7) as seen:
        run(model)
    assert list(seen) == names
    for name in (names[0], names[-1]):
        full = maps(model, run, name)
        rows = full[:, :, video]
        (got,) = seen[name]
        for key, want in by_loops(rows[..., video]).items():
            torch.testing.assert_close(got[key], want, msg=lambda m: f"{name} {key}: {m}")
        torch.testing.assert_close(got["entropy"], -(rows * rows.clamp_min(1e-30).log()).sum(-1).mean(-1))
        torch.testing.assert_close(got["text"], 1 - rows[..., video].sum(-1).mean(-1), atol=2e-6, rtol=0)


def test_rows_sum_to_one_and_text_is_apart(tiny):
    model, run, names, video = tiny
    with torch.no_grad(), taps.attention(model, ALL) as seen, \
            taps.attention(model, ALL, renormalise=True) as video_only:
        run(model)
    for name in (names[0], names[-1]):
        (got,), (over,) = seen[name], video_only[name]
        for key in ("offsets", "radius", "shift"):
            torch.testing.assert_close(got[key].flatten(2).sum(-1) + got["text"], torch.ones(B, HEADS))
            torch.testing.assert_close(over[key].flatten(2).sum(-1), torch.ones(B, HEADS))
        torch.testing.assert_close(over["frames"].sum(-1), torch.ones(B, HEADS, GRID[0]))
        assert torch.equal(over["text"], got["text"])
        # Cross-attention is no part of the map, text in the sequence is
        assert bool((got["text"] > 0).all()) == (maps(model, run, name).shape[-1] > N)
        rows = maps(model, run, name)[:, :, video, video]
        rows = rows / rows.sum(-1, keepdim=True)
        torch.testing.assert_close(over["entropy"], -(rows * rows.log()).sum(-1).mean(-1))
    (call,) = seen.calls
    assert call.grid == GRID and call.video == video and call.index == 0 and call.rows == (0, 1)
    assert call.tokens == maps(model, run, names[0]).shape[-1] == N + call.text.stop - call.text.start


def test_known_answers():
    """Keys that single out one token each, or none."""
    f, h, w = grid = (3, 2, 3)
    n = f * h * w
    eye = 200 * torch.eye(n)[None, None]
    one = {"frames": taps.FrameMass(), "offsets": taps.OffsetMass(), "shift": DisplacementMass(),
           "radius": RadiusMass(), "entropy": taps.Entropy(), "query": taps.QueryMap(2, 0, 1)}
    itself = taps.reduce_attention(eye, eye, grid, one)
    assert torch.equal(itself["frames"][0, 0], torch.eye(3)) and itself["offsets"][0, 0].tolist() == [0, 0, 1, 0, 0]
    assert itself["shift"][0, 0, f - 1, h - 1, w - 1] == 1 and itself["radius"][0, 0].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert itself["entropy"] == 0 and itself["query"][0, 0, 2, 0, 1] == 1
    right = taps.reduce_attention(eye, eye.roll(1, 2), grid, one)           # key j is what query j - 1 looks for
    assert right["shift"][0, 0, f - 1, h - 1, w] == pytest.approx(n / w * (w - 1) / n)     # all but the last column
    assert right["query"][0, 0, 2, 0, 2] == 1
    even = taps.reduce_attention(0 * eye, eye, grid, {"o": taps.OffsetMass(), "e": taps.OffsetMass(existing=True),
                                                      "h": taps.Entropy()})
    torch.testing.assert_close(even["o"][0, 0], torch.tensor([1, 2, 3, 2, 1]) / 9)
    torch.testing.assert_close(even["e"][0, 0], torch.full((5,), 1 / 3))
    assert even["h"].item() == pytest.approx(torch.tensor(float(n)).log().item(), rel=1e-6)


@pytest.mark.parametrize("extra", [
    {"scale": 0.1}, {"is_causal": True}, {"enable_gqa": True}, {"attn_mask": torch.rand(6, 6) > 0.3},
    {"attn_mask": torch.randn(2, 4, 6, 6)}, {"attn_mask": torch.randn(2, 1, 1, 6)}], ids=str)
def test_kernel_arguments(extra):
    """Against the kernel itself: values that are one-hot make it return its own map."""
    if extra.get("attn_mask", torch.zeros(1)).dtype == torch.bool:
        extra = {"attn_mask": extra["attn_mask"] | torch.eye(6, dtype=torch.bool)}
    q, k = noise(2, 4, 6, 8), noise(2, 2 if "enable_gqa" in extra else 4, 6, 8) * 2
    values = torch.eye(6).expand(2, k.shape[1], 6, 6)
    want = F.scaled_dot_product_attention(q, k, values, **extra)
    queries = {str(i): taps.QueryMap(i, 0, 0) for i in range(4)}            # tokens 1 to 4 are video
    got = taps.reduce_attention(q, k, (4, 1, 1), queries, video=slice(1, 5), chunk=3, **extra)
    torch.testing.assert_close(torch.stack([got[str(i)].flatten(2) for i in range(4)], 2), want[:, :, 1:5, 1:5])
    torch.testing.assert_close(got["text"], (want[:, :, 1:5, 0] + want[:, :, 1:5, 5]).mean(-1))


def test_renormalised_where_text_takes_nearly_all():
    q = torch.ones(1, 1, 3, 1)
    k = torch.tensor([0.0, 1.0, 40.0])[None, None, :, None]                 # the last token is text
    reduce = {"o": taps.OffsetMass(), "q": taps.QueryMap(0, 0, 0)}
    got = taps.reduce_attention(q, k, (2, 1, 1), reduce, renormalise=True)
    torch.testing.assert_close(got["q"].flatten(), torch.tensor([0.0, 1.0]).softmax(0))
    assert got["text"] == 1


# --- features

def test_features_are_the_blocks_outputs_without_text(tiny):
    model, run, names, video = tiny
    root = model.transformer if isinstance(model, Backbone) else model
    outputs, handles = {}, []
    for name in names:
        handles.append(root.get_submodule(name).register_forward_hook(
            lambda _m, _a, out, name=name: outputs.update({name: out if torch.is_tensor(out) else out[0]})))
    with torch.no_grad(), taps.features(model) as seen, taps.features(model, -1, at="attention") as after_attention:
        run(model)
    for handle in handles:
        handle.remove()
    assert list(seen) == names and list(after_attention) == names[-1:]
    for name in names:
        (got,) = seen[name]
        assert got.shape == (B, *GRID, outputs[name].shape[-1])
        assert torch.equal(got.flatten(1, 3), outputs[name]) and got.data_ptr() != outputs[name].data_ptr()
    assert after_attention[names[-1]][0].shape == seen[names[-1]][0].shape
    assert not torch.equal(after_attention[names[-1]][0], seen[names[-1]][0])


def test_feature_order_is_frames_height_width():
    """One changed latent pixel changes one token of Wan's embedding, and with attention silenced no other."""
    model, _, names, _ = wan()
    for block in model.blocks:
        for attention in (block.attn1, block.attn2):
            torch.nn.init.zeros_(attention.to_out[0].weight)
    x, words = noise(1, 4, 3, 8, 4), noise(1, TEXT, 8)
    touched = x.clone()
    touched[0, :, 2, 7, 1] += 1                         # patches of 2x2: token (2, 3, 0)
    with torch.no_grad(), taps.features(model, 1) as seen:
        for latent in (x, touched):
            model(latent, torch.tensor([500]), words)
    changed = (seen[names[1]][0] != seen[names[1]][1]).any(-1)[0]
    assert changed.nonzero().tolist() == [[2, 3, 0]]


def test_rows_calls_and_keep(tiny):
    model, run, names, _ = tiny
    with torch.no_grad(), taps.features(model, 0) as whole, \
            taps.features(model, 0, rows="second_half", when=lambda call: call.index == 1) as half, \
            taps.features(model, 0, keep=lambda x: x.mean((2, 3))) as means, \
            taps.attention(model, ALL, 0) as maps_of_all, taps.attention(model, ALL, 0, rows=[-1]) as maps_of_last:
        run(model), run(model), run(model)
    every = whole[names[0]]
    assert len(every) == 3 and [call.index for call in whole.calls] == [0, 1, 2]
    assert torch.equal(torch.stack(half[names[0]]), every[1][None, 1:]) and half.calls[0].rows == (1,)
    assert torch.equal(means[names[0]][2], every[2].mean((2, 3)))
    for key, value in maps_of_last[names[0]][0].items():
        torch.testing.assert_close(value, maps_of_all[names[0]][0][key][1:])
    assert whole.calls[0].timestep.numel() == B


def test_guided_sampling_of_the_backbone_records_each_noise_level():
    model, _, names, _ = backbone()
    tokens = model.grammar.encode(["a red dog runs to the left over the meadow"])
    u = guided(model, tokens, w=2.0)
    x = noise(1, 3, 3, 4, 2)
    times = torch.tensor([0.0, 0.25, 0.75])
    with torch.no_grad():
        plain = [u(x, t) for t in times]
        with taps.features(model, 0, rows="first_half") as seen, taps.features(model, 0) as both:
            assert all(torch.equal(u(x, t), want) for t, want in zip(times, plain))
        with taps.features(model, 0) as conditional:
            guided(model, tokens, w=0)(x, times[2])
    assert [1 - call.timestep[0].item() / 1000 for call in seen.calls] == times.tolist()
    assert seen.calls[0].batch == 2 and torch.equal(seen[names[0]][1], both[names[0]][1][:1])
    torch.testing.assert_close(seen[names[0]][2], conditional[names[0]][0], atol=1e-4, rtol=1e-4)


def test_attached_features_carry_gradients():
    model, run, names, _ = cogvideox()

    def gradients(checkpointing=None):
        model.zero_grad()
        model.train()
        model.disable_gradient_checkpointing()
        if checkpointing:
            model.enable_gradient_checkpointing(checkpointing)
        with taps.features(model, 1, rows=[1], keep=lambda x: x.square().mean((2, 3)), detach=False) as seen:
            run(model)
        seen[names[1]][0].mean().backward()
        return [block.attn1.to_q.weight.grad for block in model.transformer_blocks]

    plain = gradients()
    assert plain[0].abs().sum() > 0 and plain[1].abs().sum() > 0 and plain[2] is None
    for reentrant in (False, True):
        checkpointed = gradients(lambda block, *args: checkpoint(block, *args, use_reentrant=reentrant))
        assert torch.equal(plain[0], checkpointed[0]) and torch.equal(plain[1], checkpointed[1])
    model.requires_grad_(False)
    with pytest.raises(MotionLabError, match="no gradient reaches them"):
        gradients()
    assert traces(model) == 0


# --- invisible

@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
def test_outputs_and_gradients_are_the_same_bits(tiny, bf16, checkpointed):
    model, run, names, _ = tiny
    model = copy.deepcopy(model).train()
    if checkpointed:
        (model.transformer if isinstance(model, Backbone) else model).enable_gradient_checkpointing()

    def step(*contexts):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            with contexts[0] if contexts else nullcontext() as one, contexts[1] if contexts else nullcontext() as two:
                out = run(model)
                out.float().square().mean().backward()
        return out.detach(), [p.grad for p in model.parameters()], one, two

    before = traces(model)
    out, grads, _, _ = step()
    again, grads_again, maps_seen, features_seen = step(taps.attention(model, ALL), taps.features(model))
    assert torch.equal(out, again)
    assert all(torch.equal(a, b) if a is not None else b is None for a, b in zip(grads, grads_again))
    assert traces(model) == before
    # once, although checkpointing ran every block twice; reduced after the forward pass was over as well
    assert all(len(entries) == 1 for seen in (maps_seen, features_seen) for entries in seen.values())
    assert all(entry[0].grad_fn is None for entry in features_seen.values())


class Float(torch.nn.Module):
    """What a norm in float32 does to q and k under autocast, on accelerators for example."""

    def forward(self, x):
        return 2 * x.float()


def test_autocast_maps_are_of_what_the_kernel_computes():
    """Autocast rounds q and k to bf16 below the function mode; the tap has to round them too."""
    model, run, names, video = cogvideox()
    model.transformer_blocks[0].attn1.norm_q = model.transformer_blocks[0].attn1.norm_k = Float()
    kernel = []

    class Catch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            if func is F.scaled_dot_product_attention:
                kernel.append((*args[:2], out.dtype))
            return out

    with Catch(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16), taps.attention(model, ALL, 0) as seen:
        run(model)
    q, k, computed_in = kernel[0]
    assert q.dtype == torch.float32 and computed_in == torch.bfloat16
    rounded = taps.reduce_attention(q.bfloat16(), k.bfloat16(), GRID, ALL, video=video)
    exact = taps.reduce_attention(q, k, GRID, ALL, video=video)
    assert all(torch.equal(seen[names[0]][0][key], rounded[key]) for key in ALL)
    assert not torch.equal(seen[names[0]][0]["query"], exact["query"])


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_around_the_model_records_once(reentrant):
    model, run, names, _ = wan()
    model.train()
    x = noise(1).requires_grad_()
    with taps.features(model) as seen, taps.attention(model) as maps_seen:
        checkpoint(lambda x: run(model) * x, x, use_reentrant=reentrant).sum().backward()
    assert all(len(entries) == 1 for s in (seen, maps_seen) for entries in s.values()) and len(seen.calls) == 1


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["attn1", "ff", "after"])
def test_nothing_left_after_an_exception(place, error):
    model, run, names, _ = cogvideox()
    before = traces(model)

    def fail(*_):
        raise error

    handle = None
    with pytest.raises(error), torch.no_grad(), taps.attention(model) as seen, taps.features(model) as also:
        run(model)
        if place != "after":
            module = getattr(model.transformer_blocks[1], place)
            handle = (module.to_out[0] if place == "attn1" else module).register_forward_hook(fail)
            run(model)
        fail()
    if handle:
        handle.remove()
    assert traces(model) == before
    assert len(seen.calls) == len(also.calls) == 1 and all(len(v) == 1 for v in [*seen.values(), *also.values()])


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_an_exception_inside_can_be_survived(error):
    model, run, names, _ = cogvideox()

    def fail(*_):
        raise error

    with torch.no_grad(), taps.attention(model, ALL) as seen:
        handle = model.transformer_blocks[1].attn1.to_out[0].register_forward_hook(fail)
        with pytest.raises(error):
            run(model)
        handle.remove()
        assert error is KeyboardInterrupt or _len_torch_function_stack() == 0   # hooks run after an Exception only
        run(model)
    assert traces(model) == 0 and len(seen.calls) == 1 and seen.calls[0].index == 1


def test_nested_taps_see_the_same(tiny):
    model, run, names, _ = tiny
    before = traces(model)
    with torch.no_grad():
        with taps.attention(model, ALL) as alone:
            run(model)
        with taps.attention(model, ALL) as outer:
            with taps.attention(model, ALL, 0) as inner, taps.features(model):
                assert traces(model) > before
                run(model)
            assert traces(model) > before               # the outer one lives on
            run(model)
    assert traces(model) == before and len(outer.calls) == 2 and len(inner.calls) == 1
    for recording in (outer, inner):
        assert all(torch.equal(value, alone[names[0]][0][key]) for key, value in recording[names[0]][0].items())


# --- errors

@pytest.mark.parametrize("block, says", [
    ("transformer_block.1", "Did you mean 'transformer_blocks.1'"), (3, "nearest is 2, 'transformer_blocks.2'"),
    (-4, "nearest is -3, 'transformer_blocks.0'"), ([], "No blocks were named")])
def test_unknown_block(block, says):
    model = cogvideox()[0]
    for tap in (taps.features, lambda m, b: taps.attention(m, blocks=b)):
        with pytest.raises(MotionLabError, match=says), tap(model, block):
            pass
    assert traces(model) == 0


def test_refusals():
    model, run, names, _ = ltx()
    with pytest.raises(MotionLabError, match="Linear holds 0 transformers"), taps.features(torch.nn.Linear(1, 1)):
        pass
    with pytest.raises(MotionLabError, match="because the transformer was not called"), taps.features(model, 0):
        pass
    with pytest.raises(MotionLabError, match="batch of 2"), taps.features(model, 0, rows=[2]):
        run(model)
    with pytest.raises(MotionLabError, match="Did you mean 'first_half'"), taps.features(model, 0, rows="first half"):
        run(model)
    with pytest.raises(MotionLabError, match="no query token"), taps.attention(model, {"q": taps.QueryMap(3, 0, 0)}):
        run(model)
    with pytest.raises(MotionLabError, match="num_frames, height and width"), taps.features(model, 0):
        model(noise(B, N, 4), noise(B, TEXT, 8), torch.tensor([1, 1]), torch.ones(B, TEXT), video_coords=noise(B, 3, N))
    for reduce in ({"text": taps.Entropy()}, {}, taps.Entropy(), {"a": "entropy"}):
        with pytest.raises(MotionLabError, match="reduc"), taps.attention(model, reduce):
            pass
    with torch.no_grad(), taps.features(model, 1) as seen:
        run(model)
    with pytest.raises(MotionLabError, match="'transformer_blocks.0' was not tapped. Did you mean"):
        seen["transformer_blocks.0"]
    assert traces(model) == 0


def test_another_kernel_is_refused():
    """A processor that goes round the function, as flash-attn and others do."""
    model, run, names, _ = wan()

    class Other:
        def __call__(self, attn, hidden_states, *_):
            return hidden_states

    model.blocks[1].attn1.processor = Other()
    with torch.no_grad(), pytest.raises(MotionLabError, match="'blocks.1' ran without a call of scaled_dot_product"):
        with taps.attention(model):
            run(model)
    assert traces(model) == 0
    with torch.no_grad(), taps.attention(model, blocks=0), taps.features(model, 1):
        run(model)                                      # what does not concern the tapped block does no harm


class OptimizedModule(torch.nn.Module):
    """The name and shape of what torch.compile returns, without the seconds that importing the compiler takes."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module


def test_compiled_models_are_refused():
    model, run, names, _ = cogvideox()
    for tapped in (OptimizedModule(model), torch.nn.Sequential(OptimizedModule(model))):
        with pytest.raises(MotionLabError, match="compiled"), taps.features(tapped, 0):
            pass
    model.transformer_blocks[1]._compiled_call_impl = model.transformer_blocks[1]._call_impl        # block.compile()
    with pytest.raises(MotionLabError, match="compiled"), taps.attention(model, blocks=1):
        pass
    with torch.no_grad(), taps.features(model, 0) as seen:
        run(model)
    assert len(seen[names[0]]) == 1


# --- a pretrained folder, and memory

def test_a_saved_snapshot_can_be_tapped(tiny, tmp_path):
    model, run, names, _ = tiny
    if isinstance(model, Backbone):
        pytest.skip("its file format is tested with the backbone")
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad(), taps.attention(model, ALL) as here, taps.attention(loaded, ALL) as there, \
            taps.features(loaded) as seen:
        assert torch.equal(run(model), run(loaded))
    assert all(torch.equal(here[name][0][key], there[name][0][key]) for name in names for key in ALL)
    assert list(seen) == names and traces(loaded) == 0


def test_largest_tensor_is_a_block_of_rows():
    from torch.utils._python_dispatch import TorchDispatchMode
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple) else (out,)) if torch.is_tensor(t))
            return out

    grid, n = (4, 8, 8), 256
    q, k = noise(1, 2, n, 8), noise(1, 2, n, 8)
    with Sizes():
        taps.reduce_attention(q, k, grid, {"f": taps.FrameMass(), "r": RadiusMass(), "e": taps.Entropy()}, chunk=8)
    assert max(sizes) == 2 * 8 * n                      # the full map would have 2 * n * n
