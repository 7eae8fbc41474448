"""Local Gram Flow: the method card's golden tests T1 to T5, its invariances, the exact transport of the world, and bad input."""
import math

import numpy as np
import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.correlation import OUTSIDE, exact_transport, inside, offsets, packed, unit, unpacked
from motionlab.papers.sam2videox.gram_flow import cross_terms, feature_loss, fuse, fuse_maps, lgf_kl, lgf_l2, local_gram_flow, transport_kl
from motionlab.world import random_scene, render

GRID = (30, 45)


def vectors(*shape, seed=0, dtype=torch.float32):
    return unit(torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def rolled(c=256):
    """Two frames, the second rolled by one row and two columns."""
    first = vectors(1, *GRID, c)
    return torch.stack([first, first.roll((1, 2), (1, 2))], 1)


def by_loops(f, r):
    """S[F] by its definition."""
    b, t, h, w, _ = f.shape
    out = torch.full((b, t - 1, h, w, (2 * r + 1) ** 2), OUTSIDE, dtype=f.dtype)
    for i in range(b):
        for s in range(t - 1):
            for y in range(h):
                for x in range(w):
                    for k, (dy, dx) in enumerate(offsets(r)):
                        if 0 <= y + dy < h and 0 <= x + dx < w:
                            out[i, s, y, x, k] = torch.nn.functional.normalize(f[i, s, y, x], dim=0) @ torch.nn.functional.normalize(
                                f[i, s + 1, y + dy, x + dx], dim=0)
    return out


@pytest.mark.parametrize("r, h, w", [(1, 4, 5), (2, 3, 6), (0, 3, 3), (3, 7, 4)])
def test_the_band_is_the_definition_and_so_is_its_gradient(r, h, w):
    f = torch.randn(2, 3, h, w, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    g = f.detach().clone().requires_grad_()
    ours, truth = local_gram_flow(f, r), by_loops(g, r)
    assert torch.allclose(ours, truth, atol=1e-6)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    valid = truth > OUTSIDE / 2
    (ours * weight * valid).sum().backward()
    (truth * weight * valid).sum().backward()
    assert torch.allclose(f.grad, g.grad, atol=1e-5)


def test_t1_a_roll_is_found_again():
    s = local_gram_flow(rolled())
    p = (s / 0.1).softmax(-1)[0, 0, 5:25, 5:40]
    assert (p.argmax(-1) == offsets().index((1, 2))).all() and p.max(-1).values.min() > 0.99


def test_t2_t3_t4_the_scale_of_the_divergence():
    moving, still = local_gram_flow(rolled()), local_gram_flow(torch.ones(1, 2, *GRID, 8))
    p = (still / 0.1).softmax(-1)[0, 0]
    assert float(lgf_kl(moving, moving)) == pytest.approx(0, abs=1e-6)
    assert p[10, 10].max() == pytest.approx(1 / 49) and p[0, 0].max() == pytest.approx(1 / 16) and int((p[0, 0] > 0).sum()) == 16
    there, back = float(lgf_kl(moving, still)), float(lgf_kl(still, moving))
    assert 3.3 < there < 3.7 < math.log(49) and 5.2 < back < 5.8


def test_t5_raw_fusion_is_its_terms():
    f, b = (vectors(1, 3, 5, 6, 16, seed=k) for k in (3, 4))
    terms, a = cross_terms(f, b, 0.3, 1), 0.3
    mixed = a * f + (1 - a) * b
    raw = local_gram_flow(mixed, 1, normalise=False)
    valid = raw > OUTSIDE / 2
    assert torch.allclose(sum(terms.values())[valid], raw[valid], atol=1e-6) and (terms["cross"][~valid] == 0).all()


def test_the_core_is_float32_under_autocast_and_on_oblong_grids():
    f = vectors(1, 3, *GRID, 64, seed=20).requires_grad_()
    plain = local_gram_flow(f)
    with torch.autocast("cpu", torch.bfloat16):
        inside_autocast = local_gram_flow(f)
    assert torch.equal(plain, inside_autocast) and plain.dtype == torch.float32 and plain.shape == (1, 2, *GRID, 49)
    plain.clamp(min=-2).sum().backward()
    assert torch.isfinite(f.grad).all()


def test_maps_are_kept_without_what_lies_outside_and_come_back():
    s = local_gram_flow(vectors(2, 3, 6, 7, 8, seed=21), 2)
    kept = packed(s, 2)
    assert kept.shape == (2, 2, (6 * 5 - 6) * (7 * 5 - 6)) and torch.equal(unpacked(kept, (6, 7), 2), s)      # 2 (1 + 2) rows, columns cut off
    with pytest.raises(MotionLabError, match="do not fit a grid of .7, 6. and a window of 3"):
        unpacked(kept, (7, 6), 1)


def test_what_it_does_not_see():
    """A rotation of feature space and its length."""
    f = torch.randn(1, 3, *GRID, 16, generator=torch.Generator().manual_seed(5))
    turn, _ = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(6)))
    assert torch.allclose(local_gram_flow(f), local_gram_flow(7 * f @ turn), atol=1e-5)


def test_reversed_pairs_and_swapped_directions():
    f, b = (vectors(1, 3, 6, 7, 8, seed=k) for k in (7, 8))
    back = local_gram_flow(f, 2, reverse=True)
    assert torch.equal(back, local_gram_flow(f.flip(1), 2).flip(1))
    ahead = fuse(f, b, "lgf_logit", 0.5, 2)
    swapped = fuse(b.flip(1), f.flip(1), "lgf_logit", 0.5, 2)                # a clip played backwards: the passes change places
    assert torch.equal(swapped.flip(1), 0.5 * local_gram_flow(f, 2, reverse=True) + 0.5 * local_gram_flow(b, 2, reverse=True))
    assert not torch.allclose(ahead, swapped.flip(1))
    assert torch.equal(fuse(f, b, "bwd_only", radius=2, reverse_backward=True), local_gram_flow(b, 2, reverse=True))


def test_the_ways_to_fuse():
    f, b = (vectors(2, 3, 6, 7, 8, seed=k) for k in (9, 10))
    one, other = local_gram_flow(f, 2), local_gram_flow(b, 2)
    assert torch.equal(fuse(f, b, "fwd_only", radius=2), one) and torch.equal(fuse(f, b, "bwd_only", radius=2), other)
    logit = fuse(f, b, "lgf_logit", 0.25, 2)
    p, q = (one / 0.1).softmax(-1), (other / 0.1).softmax(-1)
    geometric = p ** 0.25 * q ** 0.75
    assert torch.allclose((logit / 0.1).softmax(-1), geometric / geometric.sum(-1, keepdim=True), atol=1e-5)      # card 3.1
    assert torch.allclose((fuse(f, b, "lgf_prob", 0.25, 2) / 0.1).softmax(-1), 0.25 * p + 0.75 * q, atol=1e-5)
    assert torch.allclose(fuse(f, b, "feature", radius=2), local_gram_flow(f + b, 2), atol=1e-6)
    assert all(torch.equal(fuse_maps(one, other, how, 0.25), fuse(f, b, how, 0.25, 2)) for how in ("lgf_logit", "lgf_prob", "fwd_only", "bwd_only"))
    lost = fuse(f, b, "lgf_logit", torch.tensor([1.0, 0.5]), 2)              # the first clip's backward pass lost its object
    assert torch.equal(lost[0], one[0]) and not torch.allclose(lost[1], one[1])


def test_losses_by_their_formulas_and_places_that_count():
    s, target = (local_gram_flow(vectors(2, 2, 4, 5, 8, seed=k), 1) for k in (11, 12))
    valid = inside(4, 5, 1)
    expected = ((target - s).square() * valid).sum(-1) / valid.sum(-1)
    assert torch.allclose(lgf_l2(target, s), expected.flatten(1).mean(1))
    where = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    where[0, 0, 2, 2] = True
    assert torch.allclose(lgf_l2(target, s, where), torch.stack([expected[0, 0, 2, 2], torch.tensor(0.0)]))
    p, q = ((a / 0.2).softmax(-1)[0, 0, 2, 2] for a in (target, s))
    assert float(lgf_kl(target, s, 0.2, where)[0]) == pytest.approx(float((p * (p / q).log()).nansum()), rel=1e-4)
    assert float(transport_kl((target / 0.2).softmax(-1), s, where, 0.2)[0]) == pytest.approx(float(lgf_kl(target, s, 0.2, where)[0]), rel=1e-4)
    a, b = vectors(1, 1, 2, 2, 4, seed=13), vectors(1, 1, 2, 2, 4, seed=14)
    assert float(feature_loss(a, 3 * a)) == pytest.approx(0, abs=1e-6) and float(feature_loss(a, -a)) == pytest.approx(2)
    assert float(feature_loss(a, b, "feat_l2")) == pytest.approx(float((a - b).square().mean()))


def test_the_target_gets_no_gradient_and_outside_none():
    f, g = (vectors(1, 2, 4, 4, 8, seed=k).requires_grad_() for k in (15, 16))
    lgf_kl(local_gram_flow(f, 1), local_gram_flow(g, 1)).sum().backward()
    assert f.grad is None and torch.isfinite(g.grad).all() and g.grad.abs().sum() > 0


# ---------------------------------------------------------------------------------------------- exact transport
def test_whole_cells_are_carried_to_one_place():
    flow = np.zeros((1, 2, 12, 16))
    flow[:, 0], flow[:, 1] = 4.0, -4.0                                       # one cell to the right, one up
    p, known = exact_transport(flow, np.ones((1, 12, 16), bool), (3, 4), 1)
    assert known[0, 1:, :-1].all() and not known[0, 0].any() and not known[0, :, -1].any()
    assert (p[0, 1:, :-1].argmax(-1) == offsets(1).index((-1, 1))).all() and (p[0, 1:, :-1].max(-1) == 1).all() and p[0, 0].sum() == 0


def test_a_part_of_a_cell_is_its_share_and_hidden_pixels_do_not_count():
    flow = np.zeros((1, 2, 4, 8))
    flow[:, 0] = 1.0
    seen = np.ones((1, 4, 8), bool)
    p, _ = exact_transport(flow, seen, (1, 2), 1)
    assert p[0, 0, 0, offsets(1).index((0, 0))] == pytest.approx(0.75) and p[0, 0, 0, offsets(1).index((0, 1))] == pytest.approx(0.25)
    seen[0, :, 3] = False                                                    # the column that would cross is hidden in the next frame
    p, _ = exact_transport(flow, seen, (1, 2), 1)
    assert p[0, 0, 0, offsets(1).index((0, 0))] == 1


def test_the_transport_of_a_clip_is_where_its_subject_goes():
    clip = render(random_scene(3, motion="slide", camera=False, paths=False), 48, 17)
    order = range(0, 17, 4)
    seen = np.stack([clip.ids[t] == clip.ids[t] for t in order[:-1]])
    p, known = exact_transport(clip.flow_between(order), seen, (12, 12), 3)
    subject = clip.object_mask(0)[::4][:-1].reshape(4, 12, 4, 12, 4).mean((2, 4)) > 0.9
    mean = np.einsum("thwn,nk->thwk", p, np.array(offsets()))[subject & known].mean(0)
    assert abs(mean[1]) > 0.5 and abs(mean[0]) < 0.1                          # sideways, by 0.5 to 2 cells a latent frame


# ---------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("call, says", [
    (lambda: local_gram_flow(torch.zeros(1, 1, 4, 4, 8)), "two frames"),
    (lambda: local_gram_flow(torch.zeros(4, 4, 8)), r"\(b, t, h, w, C\)"),
    (lambda: local_gram_flow(torch.zeros(1, 2, 4, 4, 8), 3), "larger than the grid"),
    (lambda: fuse(torch.zeros(1, 2, 4, 4, 8), torch.zeros(1, 2, 5, 4, 8), radius=1), "Resample"),
    (lambda: fuse(torch.zeros(1, 2, 4, 4, 8), torch.zeros(1, 2, 4, 4, 8), "lgf_logits", radius=1), "lgf_logit"),
    (lambda: lgf_kl(torch.zeros(1, 1, 4, 4, 9), torch.zeros(1, 1, 4, 4, 9), 0.0), "tau is 0"),
    (lambda: lgf_kl(torch.zeros(1, 1, 4, 4, 9), torch.zeros(1, 1, 3, 4, 9)), "grids"),
    (lambda: exact_transport(np.zeros((1, 2, 10, 12)), np.ones((1, 10, 12), bool), (3, 4)), "do not fit")])
def test_bad_input(call, says):
    with pytest.raises(MotionLabError, match=says):
        call()
