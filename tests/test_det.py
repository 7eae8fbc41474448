"""DeT beside its method card (section 9): the branch, the tracking loss, alignment of tracks, points on thin parts."""
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from motionlab.core.errors import MotionLabError
from motionlab.data.tracks import neighbours
from motionlab.diffusion import VPredictionWrapper, cogvideox_alphas, data_estimate, interpolate, v_from_velocity, velocity
from motionlab.papers.det import (GATE, MODULES, Conv3dKernel, FullWidthKernel, LocalAttention, TemporalKernel, align_tracks, at_tokens,
                                  at_tracks, distance_weighted_points, kept_blocks, kernel_parameters, late_enough, make_module,
                                  tracking_loss, v_weight)

OBLONG = (5, 2, 3)                       # T, H, W


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(module, seed=3):
    """In double precision, all weights drawn: what is zero at first acts too."""
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.5 * drawn(*p.shape, seed=seed))
    return module


def each(name, width=16, m=3, k=3):
    return make_module(name, width, m, k, grid=OBLONG[1:], generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------------------------- the branch
@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_the_kernel_is_the_cards_formula_in_loops(k):
    width, m, (length, h, w) = 4, 2, OBLONG
    kernel, x, p = awake(TemporalKernel(width, m, k)), drawn(2, *OBLONG, width), k // 2
    with torch.no_grad():
        ours = kernel(x)
    expected = torch.zeros_like(x)
    for b, row, column in itertools.product(range(2), range(h), range(w)):
        u = x[b, :, row, column]                                                       # T C
        g = torch.zeros(length, m, dtype=torch.float64)
        for t, i in itertools.product(range(length), range(m)):
            d = sum(kernel.down[i, c, j + p] * u[t + j, c] for j in range(-p, p + 1) if 0 <= t + j < length for c in range(width))
            g[t, i] = F.gelu(torch.as_tensor(d))
        for t, c in itertools.product(range(length), range(width)):
            expected[b, t, row, column, c] = sum(kernel.up[c, i, j + p] * g[t + j, i] for j in range(-p, p + 1) if 0 <= t + j < length
                                                 for i in range(m))
    torch.testing.assert_close(ours, expected.detach(), atol=1e-6, rtol=1e-6)
    assert expected.abs().max() > 0.1


def test_the_kernel_is_two_convolutions_over_time():
    kernel, x = awake(TemporalKernel(6, 4, 3)), drawn(2, *OBLONG, 6)
    u = x.permute(0, 2, 3, 4, 1).flatten(0, 2)                                          # (b h w) c t
    r = F.conv1d(F.gelu(F.conv1d(u, kernel.down, padding=1)), kernel.up, padding=1)
    torch.testing.assert_close(kernel(x), r.unflatten(0, (2, *OBLONG[1:])).permute(0, 4, 1, 2, 3))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_begins_at_zero_and_learns(name):
    module, x = each(name), drawn(1, *OBLONG, 16).float()
    assert not module(x).any()
    module(x).sum().backward()
    assert any(p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("name, reach", [("kernel", 2), ("conv3d", 2), ("local_attention", 1), ("mlp", 0), ("unshared", 2), ("full_width", 1)])
def test_an_impulse_reaches_as_far_as_the_taps(name, reach):
    module, x = awake(each(name)), drawn(1, 9, *OBLONG[1:], 16)
    other = x.clone()
    other[:, 4, 1, 1] += 1
    with torch.no_grad():
        changed = (module(other) - module(x)).abs().amax(-1)[0] > 1e-12                  # T H W
    frames = changed.flatten(1).any(1).nonzero().flatten().tolist()
    assert frames == list(range(4 - reach, 5 + reach))
    assert changed.any(0).sum() == (6 if name == "conv3d" else 1)                       # the others never leave their place


@pytest.mark.parametrize("name", MODULES)
def test_what_is_shared_commutes_with_any_order_of_positions(name):
    module, x = awake(each(name)), drawn(2, *OBLONG, 16)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    shuffle = lambda a: a.flatten(2, 3)[:, :, order].unflatten(2, OBLONG[1:])
    with torch.no_grad():
        same = torch.allclose(module(shuffle(x)), shuffle(module(x)))
    assert same == (name not in ("conv3d", "unshared"))


def test_sizes_are_those_of_the_card():
    with torch.device("meta"):
        count = lambda module: sum(p.numel() for p in module.parameters())
        assert count(TemporalKernel(3072, 128, 3)) == kernel_parameters(3072, 128) == 2_359_296
        assert count(make_module("kernel", 3072)) == 2_359_296 and count(make_module("kernel", 1920, 128)) == 1_474_560
        assert count(make_module("kernel", 192)) == count(make_module("local_attention", 192)) == 9216
        assert count(make_module("conv3d", 192)) == 9 * 9216 and count(make_module("full_width", 192)) == 3 * 192 ** 2
        assert count(make_module("mlp", 192)) == 9216 // 3 and count(make_module("unshared", 192, grid=(12, 12))) == 144 * 9216


def test_down_is_drawn_as_released_or_by_its_inputs():
    first, again, other = (TemporalKernel(64, 32, 3, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.down, again.down) and not torch.equal(first.down, other.down) and not first.up.any()
    assert first.down.std().item() == pytest.approx(1, abs=0.03)
    assert TemporalKernel(64, 32, 3, "fan_in").down.std().item() == pytest.approx(192 ** -0.5, rel=0.03)


def test_local_attention_is_softmax_over_the_frames_that_exist():
    module, x = awake(LocalAttention(8, 3, 2)), drawn(1, 4, 1, 1, 8)
    q, key, value = (x[0, :, 0, 0] @ module.reading.T).chunk(3, -1)
    rows = []
    for t in range(4):
        near = [s for s in (t - 1, t, t + 1) if 0 <= s < 4]
        share = torch.softmax(torch.stack([q[t] @ key[s] for s in near]) / 2 ** 0.5, 0)
        rows.append(module.writing @ sum(a * value[s] for a, s in zip(share, near)))
    torch.testing.assert_close(module(x)[0, :, 0, 0], torch.stack(rows))


def test_conv3d_and_full_width_are_torchs_own():
    x, cube, wide = drawn(2, *OBLONG, 6), awake(Conv3dKernel(6, 4, 3)), awake(FullWidthKernel(6, 3))
    u = x.permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(cube(x), F.conv3d(F.gelu(F.conv3d(u, cube.down, padding=1)), cube.up, padding=1).permute(0, 2, 3, 4, 1))
    torch.testing.assert_close(wide(x), F.conv3d(u, wide.weight[..., None, None], padding=(1, 0, 0)).permute(0, 2, 3, 4, 1))


@pytest.mark.parametrize("call, message", [
    (lambda: TemporalKernel(8, 2, 4), "no middle one.*\n.*such as 5"), (lambda: TemporalKernel(8, -1), "middle width is -1"),
    (lambda: make_module("kernal", 8), "Did you mean 'kernel'"), (lambda: make_module("unshared", 8), "need the size"),
    (lambda: TemporalKernel(8, 2, 3, "norml"), "Did you mean 'normal'"),
    (lambda: each("unshared")(torch.zeros(1, 5, 3, 2, 16)), r"grid of \(2, 3\), and the call's is \(3, 2\)")])
def test_modules_that_cannot_be_are_named(call, message):
    with pytest.raises(MotionLabError, match=message):
        call()


def test_kept_blocks_are_a_share_a_number_or_a_list():
    everything = list(range(42))
    assert kept_blocks(0.35, everything, 42) == list(range(15)) and kept_blocks(1.0, everything, 42) == everything
    assert kept_blocks(0.35, list(range(20)), 60) == list(range(20)) and kept_blocks(0.35, list(range(8)), 8) == [0, 1, 2]
    assert kept_blocks(1, everything, 42) == [0] and kept_blocks(0, everything, 42) == [] and kept_blocks(0.0, everything, 42) == []
    assert kept_blocks((-1, 3, -2, 3), list(range(8)), 8) == [3, 6, 7]
    for kept, says in ((1.5, "share of 1.5"), (9, "first 9 blocks are kept, and 8"), ((0, 12), "Block 12 has no branch; the nearest .* is 7"), (-1, "first -1")):
        with pytest.raises(MotionLabError, match=says):
            kept_blocks(kept, list(range(8)), 8)


# ---------------------------------------------------------------------------------------------- tracks on cells
def test_of_49_frames_the_last_of_each_latent_is_picked():
    xy = torch.arange(49.0)[:, None, None].expand(49, 1, 2)                             # x = y = frame number
    cells, _ = align_tracks(xy, torch.ones(49, 1), (100, 100), (13, 100, 100))
    assert cells[:, 0, 0].tolist() == list(range(0, 49, 4))
    assert align_tracks(xy[:17], torch.ones(17, 1), (100, 100), (3, 100, 100), 8)[0][:, 0, 0].tolist() == [0, 8, 16]        # LTX
    assert align_tracks(xy[:9], torch.ones(9, 1), (100, 100), (4, 100, 100))[0][:, 0, 0].tolist() == [0, 0, 4, 8]           # CogVideoX 1.5


def test_a_square_that_moves_lands_in_its_latent_cell():
    """8 pixels a frame on an oblong clip of 480 x 720 with latents of 60 x 90: one column a frame."""
    frames, size = 49, (480, 720)
    x = 4.0 + 8 * torch.arange(frames)
    xy = torch.stack([x, torch.full((frames,), 203.0)], -1)[:, None]
    cells, visible = align_tracks(xy, torch.arange(frames)[:, None] < 20, size, (13, 60, 90))
    assert cells[:, 0, 0].tolist() == list(range(0, 49, 4)) and (cells[:, 0, 1] == 25).all()
    assert visible[:, 0].tolist() == [t < 20 for t in range(0, 49, 4)]


def test_places_are_truncated_and_clamped_to_the_border():
    xy = torch.tensor([[[-0.5, 7.9], [8.0, -40.0], [719.9, 479.9], [900.0, 500.0]]])
    cells, _ = align_tracks(xy, torch.ones(1, 4), (480, 720), (1, 60, 90))
    assert cells[0].tolist() == [[0, 0], [1, 0], [89, 59], [89, 59]]


def test_tokens_are_patches_of_cells_and_the_last_latent_of_a_patch_in_time():
    tracks = torch.tensor([[5, 3, 1], [6, 3, 0], [7, 2, 1], [8, 1, 1]]).float()[None, :, None]
    assert at_tokens(tracks, (4, 4, 10), (4, 2, 5))[0, :, 0].tolist() == [[2, 1, 1], [3, 1, 0], [3, 1, 1], [4, 0, 1]]
    assert at_tokens(tracks, (4, 4, 10), (2, 2, 5))[0, :, 0].tolist() == [[3, 1, 0], [4, 0, 1]]


# ---------------------------------------------------------------------------------------------- the tracking loss
def moving(b=2, f=4, c=3, h=5, w=7, n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    cells = torch.stack([torch.randint(0, w, (b, f, n), generator=g), torch.randint(0, h, (b, f, n), generator=g)], -1)
    return torch.randn(b, f, c, h, w, generator=g), cells, torch.rand(b, f, n, generator=g) < 0.6


def test_values_are_read_at_column_and_row():
    values, cells, _ = moving()
    z = at_tracks(values, cells)
    for b, f, n in itertools.product(range(2), range(4), range(6)):
        column, row = cells[b, f, n]
        assert torch.equal(z[b, f, n], values[b, f, :, row, column])


def test_the_loss_is_zero_where_the_clip_is_constant_along_its_tracks():
    values, cells, visible = moving()
    steady = torch.zeros_like(values)
    colour = torch.randn(2, 6, 3)
    cells[:, :, :, 1] = 0                                           # a row for all points, a column each: no two meet
    cells[:, :, :, 0] = (torch.arange(6) + torch.arange(4)[:, None]) % 7
    for f in range(4):
        for n in range(6):
            steady[:, f, :, 0, cells[0, f, n, 0]] = colour[:, n]
    assert (tracking_loss(at_tracks(steady, cells), visible) == 0).all()
    assert (tracking_loss(at_tracks(values, cells), visible) > 0.1).all()


def test_the_loss_is_the_formula_on_two_points():
    z = torch.tensor([[[[1.0], [5.0]], [[3.0], [5.0]], [[6.0], [9.0]]]])                 # 1 clip, 3 frames, 2 points, 1 channel
    visible = torch.tensor([[[1, 1], [1, 0], [1, 1]]])
    both, later = 4 + 9, 4 + 9 + 16                                                     # squares of the pairs that count
    assert tracking_loss(z, visible).item() == both / 4 and tracking_loss(z, visible, mean="visible").item() == both / 2
    assert tracking_loss(z, visible, "release").item() == later / 4
    assert tracking_loss(z, visible, "release", "visible").item() == pytest.approx(later / 3)
    assert (tracking_loss(z, 0 * visible, mean="visible") == 0).all()                   # nothing seen: 0, and no division by it


def test_values_where_a_point_is_hidden_do_not_matter():
    values, cells, visible = moving()
    z = at_tracks(values, cells)
    spoilt = torch.where(visible[..., None], z, torch.nan)
    for mean in ("all", "visible"):
        assert torch.equal(tracking_loss(z, visible, mean=mean), tracking_loss(spoilt, visible, mean=mean))
    assert tracking_loss(spoilt, visible, "release").isnan().any()                      # as released it compares with what hid the point


def test_the_gate_is_timestep_400_of_cogvideox_5b():
    schedule = VPredictionWrapper(None, cogvideox_alphas(1.0))
    t = schedule.time(torch.tensor([0.0, 399.0, 400.0, 401.0, 999.0]))
    assert late_enough(t).tolist() == [True, True, True, False, False] and float(t[2]) == pytest.approx(GATE, abs=5e-4)


def test_released_and_v_losses_are_one():
    """|x1_hat - x1|^2 / (1 - abar) is |v_hat - v|^2 of a variance-preserving network, and ours times `v_weight` (card 9.5)."""
    x0, x1, t = drawn(2, 3, 4, 2, 2), drawn(2, 3, 4, 2, 2, seed=1), torch.tensor([0.2, 0.7], dtype=torch.float64)
    x_t, u = interpolate(x0, x1, t), drawn(2, 3, 4, 2, 2, seed=2)
    mean = lambda a: a.square().flatten(1).mean(1)
    noise_part = (1 - t).square() / (t.square() + (1 - t).square())                     # 1 - abar at equal log-SNR
    released = mean(data_estimate(x_t, u, t) - x1) / noise_part
    v = mean(v_from_velocity(u, x_t, t) - v_from_velocity(velocity(x0, x1), x_t, t))
    torch.testing.assert_close(released, v, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean(u - velocity(x0, x1)) * v_weight(t), v, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("call, message", [
    (lambda z, v: tracking_loss(z, v, "mim"), "Did you mean 'min'"), (lambda z, v: tracking_loss(z, v, mean="al"), "Did you mean 'all'"),
    (lambda z, v: tracking_loss(z, v[:, :2]), "were given"), (lambda z, v: tracking_loss(z[:, :1], v[:, :1]), "two latent frames or more")])
def test_losses_of_nothing_are_refused(call, message):
    with pytest.raises(MotionLabError, match=message):
        call(torch.zeros(1, 3, 2, 4), torch.ones(1, 3, 2))


# ---------------------------------------------------------------------------------------------- points
def limbs():
    """A body of 60 x 60 pixels with four arms of 2 x 40: the arms are 8 % of the area."""
    mask, arms = np.zeros((200, 200), np.uint8), np.zeros((200, 200), bool)
    mask[70:130, 70:130] = 255
    for row in (75, 120):
        arms[row:row + 2, 30:70] = arms[row:row + 2, 130:170] = True
    mask[arms] = 7                                                   # any value but 0 is subject
    return mask, arms


def test_thin_limbs_get_more_points_than_their_share_of_area():
    mask, arms = limbs()
    points = np.concatenate([distance_weighted_points(mask, 100, seed=s) for s in range(20)]).astype(int)
    assert (mask[points[:, 1], points[:, 0]] > 0).all()
    share, area = arms[points[:, 1], points[:, 0]].mean(), arms.sum() / (mask > 0).sum()
    assert 0.07 < area < 0.09 and share > 2 * area
    uniform = np.concatenate([distance_weighted_points(mask, 100, 0.5, seed=s) for s in range(20)]).astype(int)      # no neighbours: no weights
    assert abs(arms[uniform[:, 1], uniform[:, 0]].mean() - area) < 0.02


def test_points_are_drawn_without_repetition_by_their_seed():
    mask, _ = limbs()
    points = distance_weighted_points(mask, 100, seed=1)
    assert points.shape == (100, 2) and len(np.unique(points, axis=0)) == 100
    assert np.array_equal(points, distance_weighted_points(mask, 100, seed=1)) and not np.array_equal(points, distance_weighted_points(mask, 100, seed=2))
    assert len(distance_weighted_points(np.ones((3, 3)), 20)) == 20                     # fewer pixels than points: some twice


def test_neighbours_are_counted_inside_the_radius():
    """In the interior of a mask 69 pixels lie nearer than 5 (card 5.3); at a corner a quarter of them; a pixel alone has itself."""
    counts = neighbours(np.concatenate([np.argwhere(np.ones((20, 20))), [[40, 40]]]), 5.0)
    assert counts[10 * 20 + 10] == 69 and counts[0] == 22 and counts[-1] == 1


@pytest.mark.parametrize("given, message", [
    ((np.zeros((8, 8)), 4), "mask is empty"), ((np.ones((8, 8, 3)), 4), "mask of shape"), ((np.ones((8, 8)), 0), "0 points"),
    ((np.ones((8, 8)), 4, 0.0), "radius 0.0")])
def test_masks_without_points_are_refused(given, message):
    with pytest.raises(MotionLabError, match=message):
        distance_weighted_points(*given)
