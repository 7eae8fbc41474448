"""VTG's equations: the golden tests of its card (T1 to T9 where they are about equations), and what each option must do."""
import math

import pytest
import torch

from motionlab.core.errors import MotionLabError
from motionlab.diffusion import noise_estimate, time_grid
from motionlab.papers import vtg


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_t1_a_rotated_map_is_the_map_of_reversed_frames():
    q, k, v = (torch.randn(2, 5, 8, generator=seeded(i), dtype=torch.float64) for i in range(3))
    a = torch.softmax(q @ k.mT / 8 ** 0.5, -1)
    turned, j = vtg.rotated(a), lambda x: vtg.reverse(x, 1)
    assert torch.allclose(turned @ v, j(a @ j(v)), atol=1e-14) and torch.allclose(turned.sum(-1), torch.ones(2, 5, dtype=torch.float64))
    shared = torch.softmax(j(q) @ j(k).mT / 8 ** 0.5, -1)                     # T2: shared q and k, frames reversed
    assert torch.allclose(shared, turned, atol=1e-14)


def test_t3_fusion_at_its_ends_and_j_twice():
    forward, backward = (torch.randn(2, 5, 3, 2, 2, generator=seeded(i)) for i in range(2))
    assert torch.equal(vtg.reverse(vtg.reverse(forward)), forward)
    assert torch.equal(vtg.fuse(forward, backward, vtg.fusion_weights(5, 0.0)), forward)
    assert torch.equal(vtg.fuse(forward, backward, vtg.fusion_weights(5, 1.0)), vtg.reverse(backward))
    by_frame = vtg.fuse(forward, backward, vtg.fusion_weights(5, how="by_frame"))
    assert torch.equal(by_frame[:, 0], forward[:, 0]) and torch.equal(by_frame[:, -1], backward[:, 0])
    assert torch.allclose(by_frame[:, 2], (forward[:, 2] + backward[:, 2]) / 2)
    with pytest.raises(MotionLabError, match="lam_BMP is 2"):
        vtg.fusion_weights(5, 2)


def test_t4_fusing_velocities_then_converting_is_converting_then_fusing():
    x, forward, backward = (torch.randn(2, 5, 3, 2, 2, generator=seeded(i), dtype=torch.float64) for i in range(3))
    weights, t = vtg.fusion_weights(5), 0.3
    late = noise_estimate(x, vtg.fuse(forward, backward, weights), t)
    early = vtg.fuse(noise_estimate(x, forward, t), noise_estimate(vtg.reverse(x), backward, t), weights)
    assert torch.allclose(late, early, atol=1e-14)


def test_the_backward_loss_is_that_of_the_reversed_clip_and_of_the_noise_it_forgets_the_noisiest_times():
    v, t = torch.randn(2, 5, 3, 2, 2, generator=seeded()), torch.tensor([0.5, 0.1])
    assert vtg.bmp_loss(vtg.reverse(v), v).abs().max() == 0 and vtg.bmp_loss(v, v).min() > 0.5
    u = torch.randn(v.shape, generator=seeded(1))
    assert torch.allclose(vtg.bmp_loss(u, v, t), vtg.bmp_loss(u, v) * torch.tensor([0.25, 0.01]))
    x = torch.randn(v.shape, generator=seeded(2))                           # the literal form: error of the noise that u stands for
    error = noise_estimate(x, u, t) - noise_estimate(x, vtg.reverse(v), t)
    assert torch.allclose(error.square().flatten(1).mean(1), vtg.bmp_loss(u, v, t), rtol=1e-4)


def test_t7_slerp_keeps_ends_and_norms_where_lerp_does_not():
    a, b = (torch.randn(3, 24, 40, 40, generator=seeded(i)) for i in range(2))
    assert torch.allclose(vtg.slerp(a, b, 0.0), a) and torch.allclose(vtg.slerp(a, b, 1.0), b)
    middle = vtg.frame_slerp(a, b, vtg.frame_weights(9))
    assert middle.shape == (3, 9, 24, 40, 40) and (middle.std((2, 3, 4)) - 1).abs().max() < 0.01
    straight = vtg.frame_lerp(a, b, vtg.frame_weights(9))[:, 4].std((1, 2, 3))
    assert (straight - 0.71).abs().max() < 0.02
    alike = vtg.slerp(a, a, torch.tensor([0.0, 0.3, 1.0]))
    assert torch.allclose(alike, a, atol=1e-6) and torch.isfinite(vtg.slerp(a, -a, 0.5)).all()
    angle = lambda x, y: (torch.nn.functional.cosine_similarity(x.flatten(1).double(), y.flatten(1).double())).acos()
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)                    # of one length: an arc of a circle
    assert torch.allclose(angle(vtg.slerp(a, b, 0.25), a), angle(a, b) / 4, atol=1e-5)


def test_weights_over_frames_are_linear_and_text_is_interpolated_state_by_state():
    assert vtg.frame_weights(5).tolist() == [0, 0.25, 0.5, 0.75, 1] and vtg.frame_weights(3, 0.1, 0.9).tolist() == pytest.approx([0.1, 0.5, 0.9])
    c_1, c_n = (torch.randn(2, 7, 16, generator=seeded(i)) for i in range(2))
    c = vtg.text_of_frames(c_1, c_n, vtg.frame_weights(4))
    assert c.shape == (2, 4, 7, 16) and torch.allclose(c[:, 0], c_1) and torch.allclose(c[:, -1], c_n)
    assert torch.allclose(vtg.text_of_frames(c_1, c_1, vtg.frame_weights(4)), c_1[:, None].expand(-1, 4, -1, -1), atol=1e-6)
    with pytest.raises(MotionLabError, match="2 frames or more"):
        vtg.frame_weights(1)


def test_inversion_undoes_sampling_where_the_flow_is_straight():
    x1 = torch.randn(2, 1, 4, 3, 3, generator=seeded())
    x0 = torch.randn(x1.shape, generator=seeded(1))
    straight = lambda x, t: x1 - x0
    assert torch.allclose(vtg.invert(straight, x1, time_grid(8)), x0, atol=1e-5)
    assert torch.allclose(vtg.invert(straight, x1, time_grid(8), until=0.2), 0.2 * x1 + 0.8 * x0, atol=1e-5)
    bent = lambda x, t: x * math.log(4.0)                                   # dx/dt = a x: known answer, x(0) = x(1) / 4
    assert torch.allclose(vtg.invert(bent, x1, time_grid(400)), x1 / 4, rtol=2e-2)
    with pytest.raises(MotionLabError, match="end at 1"):
        vtg.invert(straight, x1, torch.tensor([0.0, 0.5]))


def test_the_start_mixes_what_it_is_told():
    z_1, z_n, own = torch.randn(2, 4, 3, 3, generator=seeded()), torch.randn(2, 4, 3, 3, generator=seeded(1)), torch.randn(2, 5, 4, 3, 3, generator=seeded(2))
    assert vtg.start_noise(z_1, z_n, own, "iid") is own
    whole = vtg.start_noise(z_1, z_n, own)
    assert torch.allclose(whole[:, 0], z_1) and torch.allclose(whole[:, -1], z_n)
    half = vtg.start_noise(z_1, z_n, own, g=0.5)
    assert torch.allclose(half, 0.5 ** 0.5 * (whole + own), atol=1e-6)
    with pytest.raises(MotionLabError, match="unknown start|start"):
        vtg.start_noise(z_1, z_n, own, "slurp")
    with pytest.raises(MotionLabError, match="g = 2"):
        vtg.start_noise(z_1, z_n, own, g=2)


def test_loras_mix_their_products_and_factors_add_cross_terms():
    x = torch.randn(2, 5, 6, 8, generator=seeded(), dtype=torch.float64)
    a_1, a_n = (torch.randn(2, 3, 8, generator=seeded(i), dtype=torch.float64) for i in (1, 2))
    b_1, b_n = (torch.randn(2, 7, 3, generator=seeded(i), dtype=torch.float64) for i in (3, 4))
    lam = vtg.frame_weights(5)
    weight = (1 - lam).view(1, 5, 1, 1) * (b_1 @ a_1)[:, None] + lam.view(1, 5, 1, 1) * (b_n @ a_n)[:, None]
    assert torch.allclose(vtg.low_rank_mix(x, a_1, b_1, a_n, b_n, lam), x @ weight.mT)
    factor = vtg.low_rank_mix(x, a_1, b_1, a_n, b_n, lam, "factor")
    ends = vtg.low_rank_mix(x, a_1, b_1, a_n, b_n, lam)
    assert torch.allclose(factor[:, [0, -1]], ends[:, [0, -1]]) and not torch.allclose(factor[:, 2], ends[:, 2], atol=0.1)
    assert torch.allclose(factor[:, 2], x[:, 2] @ ((b_1 + b_n) / 2 @ (a_1 + a_n) / 2).mT)


def test_alignment_is_minus_the_mean_cosine_and_reaches_the_projector_alone():
    h, target = torch.randn(2, 5, 9, 8, generator=seeded()), torch.randn(2, 5, 9, 6, generator=seeded(1))
    projector = vtg.Projector(8, 6)
    said = projector(h)
    assert torch.allclose(vtg.rar_loss(target * 3, target), torch.tensor(-1.0)) and torch.allclose(vtg.rar_loss(-target, target), torch.tensor(1.0))
    assert torch.allclose(vtg.rar_loss(said, target, "sum"), 5 * vtg.rar_loss(said, target), rtol=1e-5)
    target.requires_grad_()
    vtg.rar_loss(said, target).mean().backward()
    assert target.grad is None and all(p.grad is not None for p in projector.parameters())
    with pytest.raises(MotionLabError, match="were to be aligned"):
        vtg.rar_loss(said[:, :4], target)


def test_the_weight_of_a_share():
    assert vtg.weight_of_share(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), 0.2) == pytest.approx(0.5)
    with pytest.raises(MotionLabError, match="length 0"):
        vtg.weight_of_share(torch.ones(2), torch.zeros(2))
