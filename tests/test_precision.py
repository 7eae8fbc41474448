"""What makes a step faster and must not change it: attention by plain products, Muon by stacks, autocast only where it pays."""
import pytest
import torch
import torch.nn.functional as F

from motionlab.core import precision
from motionlab.models.small.attention import PlainAttention
from motionlab.training.muon import Muon


def leaves(b=3, heads=2, n=37, d=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, heads, n, d, generator=generator).bfloat16().requires_grad_() for _ in range(3)]


def run(mode, parts):
    with mode:
        out = F.scaled_dot_product_attention(*parts)
    out.float().square().sum().backward()
    return [out.detach().float(), *(p.grad.float() for p in parts)]


def test_plain_attention_is_the_kernels_to_the_precision_of_bf16():
    import contextlib

    ours, theirs = run(PlainAttention(), leaves()), run(contextlib.nullcontext(), leaves())
    for a, b in zip(ours, theirs):
        assert (a - b).abs().max() <= 1e-2 * b.abs().max() and not torch.equal(a, torch.zeros_like(a))


@pytest.mark.parametrize("change", [{"is_causal": True}, {"scale": 0.3}, {"attn_mask": torch.ones(37, 37, dtype=torch.bool)}])
def test_what_it_does_not_know_goes_to_the_kernel(change):
    parts = leaves()
    with torch.no_grad():
        expected = F.scaled_dot_product_attention(*parts, **change)
        with PlainAttention():
            assert torch.equal(F.scaled_dot_product_attention(*parts, **change), expected)


def test_float32_goes_to_the_kernel_and_autocast_to_the_plain_route(monkeypatch):
    q, k, v = (p.detach().float() for p in leaves())
    exact = F.scaled_dot_product_attention(q, k, v)
    with PlainAttention():
        assert torch.equal(F.scaled_dot_product_attention(q, k, v), exact)
        with torch.autocast("cpu", torch.bfloat16):
            out = F.scaled_dot_product_attention(q, k, v)
    assert out.dtype == torch.bfloat16 and (out.float() - exact).abs().max() < 2e-2


def test_gelu_from_a_table_is_the_kernels_at_every_number():
    every = torch.arange(2 ** 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    every = every[every.isfinite()]
    ours, theirs = every.clone().requires_grad_(), every.clone().requires_grad_()
    with PlainAttention():
        out = F.gelu(ours, approximate="tanh")
    assert type(out.grad_fn).__name__ == "_GeluBackward" and type(F.gelu(theirs, approximate="tanh").grad_fn).__name__ == "GeluBackward0"
    for a, b in ((out, F.gelu(theirs, approximate="tanh")),
                 *zip(torch.autograd.grad(3 * out.sum(), ours), torch.autograd.grad(3 * F.gelu(theirs, approximate="tanh").sum(), theirs))):
        assert torch.allclose(a.float(), b.float(), rtol=2 ** -7, atol=1e-30, equal_nan=True)


def test_a_thread_too_many_changes_no_bit_of_attention(monkeypatch):
    q, k, v = (p.detach() for p in leaves(b=5, heads=3))
    with PlainAttention():
        alone = F.scaled_dot_product_attention(q, k, v)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)     # slices of two samples, and one left over
        assert torch.equal(F.scaled_dot_product_attention(q, k, v), alone)


def joint(processor, grad, dtype=torch.bfloat16):
    """What an attention of CogVideoX makes of 37 video and 3 text tokens with a processor, and the gradients."""
    from diffusers.models.attention_processor import Attention
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    torch.manual_seed(0)
    attn = Attention(query_dim=32, dim_head=16, heads=2, qk_norm="layer_norm", eps=1e-6, bias=True, out_bias=True,
                     processor=processor).to(dtype)
    video, words = (torch.randn(2, n, 32).to(dtype).requires_grad_(grad) for n in (36, 3))
    turn = get_3d_rotary_pos_embed(16, ((0, 0), (3, 4)), (3, 4), 3)
    with torch.set_grad_enabled(grad), PlainAttention():
        out = attn(video, encoder_hidden_states=words, image_rotary_emb=turn)
    if not grad:
        return out
    sum(x.float().square().sum() for x in out).backward()
    return [video.grad, words.grad, *(p.grad for p in attn.parameters())]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_rotation_is_diffusers_own_to_the_bit_and_its_gradient_to_the_precision(dtype):
    from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0

    from motionlab.models.small.attention import JointAttention

    for a, b in zip(joint(JointAttention(), False, dtype), joint(CogVideoXAttnProcessor2_0(), False, dtype)):
        assert torch.equal(a, b) if dtype == torch.bfloat16 else torch.allclose(a, b, atol=1e-6)
    for a, b in zip(joint(JointAttention(), True, dtype), joint(CogVideoXAttnProcessor2_0(), True, dtype), strict=True):
        scale = b.float().abs().max()
        assert (a - b).float().abs().max() <= (4e-2 if dtype == torch.bfloat16 else 1e-5) * scale + 1e-6


def test_a_mask_is_refused_and_not_passed_over():
    from motionlab.core.errors import MotionLabError
    from motionlab.models.small.attention import JointAttention

    with pytest.raises(MotionLabError, match="takes no mask"):
        JointAttention()(None, torch.zeros(1, 2, 8), torch.zeros(1, 1, 8), attention_mask=torch.ones(1, 3))


def test_without_gradient_attention_gives_the_same_bits_and_keeps_no_maps():
    parts = leaves()
    with PlainAttention():
        kept = F.scaled_dot_product_attention(*parts)
        with torch.no_grad():
            assert torch.equal(F.scaled_dot_product_attention(*parts), kept)
    assert any(x is not None and x.shape[-2:] == (37, 37) for x in kept.grad_fn.saved_tensors)


@pytest.mark.parametrize("rule", ["match_rms_adamw", "original"])
def test_muon_moves_as_torchs(rule):
    def moved(kind):
        generator = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((8, 8), (24, 8), (8, 24), (8, 8))]
        start, optimizer = [p.detach().clone() for p in params], kind(params, lr=1e-2, weight_decay=0.1, adjust_lr_fn=rule)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        return [(p.detach() - s) for p, s in zip(params, start)], optimizer.state_dict()["state"]

    (ours, state), (theirs, known) = moved(Muon), moved(torch.optim.Muon)
    assert all((a - b).norm() < 0.03 * b.norm() for a, b in zip(ours, theirs))
    assert all(torch.equal(state[k]["momentum_buffer"], known[k]["momentum_buffer"]) for k in known)


def test_bf16_only_where_the_processor_has_it(monkeypatch):
    monkeypatch.delenv("MOTIONLAB_BF16", raising=False)
    for found, fast in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_bf16": False, "avx2": True}, False), ({}, False)):
        precision.fast_bf16.cache_clear()
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        with precision.autocast("cpu"):
            assert torch.is_autocast_enabled("cpu") == fast
        with precision.autocast("cpu", False):
            assert not torch.is_autocast_enabled("cpu")
    precision.fast_bf16.cache_clear()
    assert precision.fast_bf16("cuda")


def test_a_user_may_decide_on_bf16(monkeypatch):
    for said, fast in (("1", True), ("0", False)):
        precision.fast_bf16.cache_clear()
        monkeypatch.setenv("MOTIONLAB_BF16", said)
        assert precision.fast_bf16("cpu") == precision.fast_bf16("cuda") == fast
    precision.fast_bf16.cache_clear()
