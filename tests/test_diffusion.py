"""Time convention, grids, samplers and the border to other conventions."""
import pytest
import torch

from motionlab import diffusion as D
from motionlab.core.errors import MotionLabError
from small import gaussian


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_path_and_its_inverses():
    x0, x1 = gaussian((3, 2, 4), seeded(0)), gaussian((3, 2, 4), seeded(1))
    t = torch.tensor([0.0, 0.3, 1.0])
    x, u = D.interpolate(x0, x1, t), D.velocity(x0, x1)
    assert torch.equal(x[0], x0[0]) and torch.equal(x[2], x1[2])
    torch.testing.assert_close(D.data_estimate(x, u, t), x1)
    torch.testing.assert_close(D.noise_estimate(x, u, t), x0)
    with pytest.raises(MotionLabError, match="differ in shape"):
        D.interpolate(x0, x1[:, :1], t)
    with pytest.raises(MotionLabError, match="2 times were given for a batch of 3"):
        D.interpolate(x0, x1, t[:2])


def test_time_grid_leans_to_noise():
    torch.testing.assert_close(D.time_grid(2), torch.tensor([0, 1 / 3, 1], dtype=torch.float64))
    torch.testing.assert_close(D.time_grid(4, shift=1), torch.linspace(0, 1, 5, dtype=torch.float64))
    assert (D.time_grid(20).diff().diff() > 0).all()
    for bad in (0, -1, 2.5):
        with pytest.raises(MotionLabError, match="one step or more"):
            D.time_grid(bad)
    with pytest.raises(MotionLabError, match="must be positive"):
        D.time_grid(4, shift=0)


@pytest.mark.parametrize("n, golden", [(1000, (.020, .040, .050, .096, .214, .404, .666)), (250, (.080, .160, .200, .264, .376, .536, .744))])
def test_linear_quadratic_grid_golden(n, golden):
    grid = D.linear_quadratic_grid(100, n)
    assert [round(float(grid[k]), 3) for k in (20, 40, 50, 60, 70, 80, 90)] == list(golden)
    assert grid[0] == 0 and grid[-1] == 1 and len(grid) == 101


def test_linear_quadratic_grid_edges():
    torch.testing.assert_close(D.linear_quadratic_grid(10, 10), torch.linspace(0, 1, 11, dtype=torch.float64))
    assert all((D.linear_quadratic_grid(s, 250).diff() > 0).all() for s in (1, 2, 7))
    with pytest.raises(MotionLabError, match="cannot follow only 50"):
        D.linear_quadratic_grid(100, 50)


def test_guidance():
    a, b = torch.randn(2, 3, generator=seeded()), torch.randn(2, 3, generator=seeded(1))
    assert torch.equal(D.cfg(a, b, 0), a)
    torch.testing.assert_close(D.cfg(a, a, 5.0), a)
    torch.testing.assert_close(D.cfg(a, b, 2.0), 3 * a - 2 * b)


@pytest.mark.parametrize("sampler, order", [(D.euler, 1), (D.heun, 2)])
def test_order_of_convergence(sampler, order):
    x = torch.ones(1, 1, dtype=torch.float64)       # dx/dt = x cos(3t) + t: no closed trick, fine Heun as reference
    def model(x, t): return x * torch.cos(3 * t)[:, None] + t[:, None]
    exact = D.heun(model, x, D.time_grid(4000, 1))
    errors = [float((sampler(model, x, D.time_grid(n, 1)) - exact).abs()) for n in (20, 40, 80)]
    rates = [torch.log2(torch.tensor(a / b)).item() for a, b in zip(errors, errors[1:])]
    assert all(abs(rate - order) < 0.15 for rate in rates), rates


@pytest.mark.parametrize("sampler", [D.euler, D.heun])
@pytest.mark.parametrize("grid", [D.time_grid(1), D.time_grid(7), D.linear_quadratic_grid(6, 250)])
def test_a_straight_path_is_exact(sampler, grid):
    x0, x1 = gaussian((2, 3), seeded()).double(), gaussian((2, 3), seeded(1)).double()
    torch.testing.assert_close(sampler(lambda x, t: x1 - x0, x0, grid), x1)


@pytest.mark.parametrize("sampler", [D.euler, D.heun])
def test_step_callback_sees_and_edits(sampler):
    seen = []
    x = torch.zeros(2, 3)
    sampler(lambda x, t: torch.ones_like(x), x, D.time_grid(4, 1), seen.append)
    assert [s["step"] for s in seen] == [0, 1, 2, 3] and [s["t"] for s in seen] == [0, .25, .5, .75]
    assert all(torch.allclose(s["x1_hat"], torch.ones(2, 3)) for s in seen) and set(seen[0]) == {"step", "t", "x", "u", "x1_hat"}
    held = sampler(lambda x, t: torch.zeros_like(x), x, D.time_grid(4, 1), lambda s: {"x": s["x"] + 1})
    assert torch.equal(held, torch.full((2, 3), 4.0))
    pushed = D.euler(lambda x, t: torch.zeros_like(x), x, D.time_grid(4, 1), lambda s: {"u": s["u"] + 2})
    assert torch.allclose(pushed, torch.full((2, 3), 2.0))


@pytest.mark.parametrize("edit, says", [({"xx": 1}, "Did you mean 'x'|edits 'xx'"), ({"u": torch.zeros(1)}, "Keep its shape"), (3, "returned a int")])
def test_bad_edits(edit, says):
    with pytest.raises(MotionLabError, match=says):
        D.euler(lambda x, t: x, torch.zeros(2, 3), D.time_grid(2), lambda s: edit)


def test_bad_grid():
    with pytest.raises(MotionLabError, match="increasing"):
        D.heun(lambda x, t: x, torch.zeros(2, 3), torch.tensor([1.0, 0.0]))


# --- an analytic model: data N(mean, spread^2), so every conditional expectation is known

MEAN, SPREAD = 1.5, 0.4


def expectations(x, a, s):
    """E[data | x], E[noise | x] for x = a data + s noise."""
    total = a ** 2 * SPREAD ** 2 + s ** 2
    return MEAN + a * SPREAD ** 2 / total * (x - a * MEAN), s / total * (x - a * MEAN)


def analytic(x, t):
    data, noise = expectations(x, t[:, None], 1 - t[:, None])
    return data - noise


def test_v_prediction_of_an_analytic_gaussian():
    table = D.cogvideox_alphas()
    def net(x, timestep):          # what a perfect CogVideoX would say, read off at its own (fractional) timestep
        t = wrapper.time(timestep)[:, None]
        s = (t ** 2 + (1 - t) ** 2).rsqrt()
        data, noise = expectations(x, s * t, s * (1 - t))
        return s * t * noise - s * (1 - t) * data
    wrapper = D.VPredictionWrapper(net, table)
    t = torch.linspace(0, 0.95, 12, dtype=torch.float64)
    x = gaussian((12, 5), seeded()).double()
    torch.testing.assert_close(wrapper(x, t), analytic(x, t), atol=2e-3, rtol=1e-3)
    out = D.euler(wrapper, gaussian((400, 8), seeded(), dtype=torch.float64), D.time_grid(50))
    assert abs(out.mean() - MEAN) < 0.03 and abs(out.std() - SPREAD) < 0.03


def test_v_prediction_round_trip():
    wrapper = D.VPredictionWrapper(lambda x, k: x)
    k = torch.tensor([0.0, 1, 250.5, 998, 999])
    torch.testing.assert_close(wrapper.timestep(wrapper.time(k)), k.double(), atol=1e-6, rtol=0)
    assert wrapper.time(torch.tensor([999.0])) == 0 and wrapper.timestep(torch.tensor([1.0])) == 0
    alphas = D.cogvideox_alphas()[[100, 400, 900]]
    torch.testing.assert_close(D.log_snr(wrapper.time(torch.tensor([100, 400, 900]))), torch.log(alphas / (1 - alphas)))
    u, x, t = gaussian((4, 3), seeded()), gaussian((4, 3), seeded(1)), torch.tensor([0, 0.2, 0.7, 1.0])
    torch.testing.assert_close(D.velocity_from_v(D.v_from_velocity(u, x, t), x, t), u)
    with pytest.raises(MotionLabError, match="do not decrease"):
        D.VPredictionWrapper(lambda x, k: x, D.cogvideox_alphas().flip(0))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_cogvideox_table_is_that_of_diffusers(shift):
    from diffusers import CogVideoXDDIMScheduler
    theirs = CogVideoXDDIMScheduler(snr_shift_scale=shift, rescale_betas_zero_snr=True, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    torch.testing.assert_close(D.cogvideox_alphas(shift), theirs.alphas_cumprod.double(), atol=1e-6, rtol=1e-5)


def test_sigma_of_an_analytic_gaussian():
    def net(x, timestep):
        sigma = timestep[:, None] / 1000
        data, noise = expectations(x, 1 - sigma, sigma)
        return noise - data
    wrapper = D.SigmaWrapper(net)
    t = torch.linspace(0, 1, 6, dtype=torch.float64)
    x = gaussian((6, 5), seeded()).double()
    torch.testing.assert_close(wrapper(x, t), analytic(x, t))
    torch.testing.assert_close(wrapper.time(wrapper.timestep(t)), t)
