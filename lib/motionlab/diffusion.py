"""One time convention, guidance, time grids and samplers; other conventions are converted at the border.

`x0` is noise, `x1` is data, t in [0, 1]: x_t = t x1 + (1 - t) x0, and networks predict the velocity v = x1 - x0.
Careful when reading papers: many write x0 for the clean clip, and run time the other way round.
A model, for everything here, is a callable `model(x, t) -> u` with x (b, ...) and t (b,).
Random numbers come from a passed `torch.Generator` and are drawn on the CPU, so that every device sees the same ones.
"""
from __future__ import annotations

from collections.abc import Callable

import torch

from motionlab.core.errors import MotionLabError, nearest

Model = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
EDITS = ("x", "u")


# --- the path from noise to data

def interpolate(x0: torch.Tensor, x1: torch.Tensor, t) -> torch.Tensor:
    """x_t = t x1 + (1 - t) x0. x0, x1 (b, ...), t (b,) or a number.

    Raises:
        MotionLabError: noise and data differ in shape, or t has another batch size.
    """
    if x0.shape != x1.shape:
        raise MotionLabError(f"Noise {tuple(x0.shape)} and data {tuple(x1.shape)} differ in shape.",
                             fix="Draw the noise in the shape of the data.")
    t = _like(t, x1)
    return t * x1 + (1 - t) * x0


def velocity(x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
    """v = x1 - x0, the target of training; the same at every t."""
    return x1 - x0


def data_estimate(x: torch.Tensor, u: torch.Tensor, t) -> torch.Tensor:
    """The clean clip that a velocity u at (x, t) points at: x1_hat = x + (1 - t) u."""
    return x + (1 - _like(t, x)) * u


def noise_estimate(x: torch.Tensor, u: torch.Tensor, t) -> torch.Tensor:
    """The noise that a velocity u at (x, t) comes from: x0_hat = x - t u."""
    return x - _like(t, x) * u


def gaussian(shape, generator: torch.Generator, device="cpu", dtype=torch.float32) -> torch.Tensor:
    """Standard normal noise, drawn on the CPU in float32 and then moved."""
    return torch.randn(tuple(shape), generator=_on_cpu(generator)).to(device, dtype)


def sample_t(n: int, generator: torch.Generator, mean: float = -0.3, std: float = 1.0) -> torch.Tensor:
    """Logit-normal times of training, t = sigmoid(mean + std z), (n,) float32 on the CPU; std=0 draws nothing.

    A negative mean puts more training on the noisy side, where motion is decided. Source: Esser et al. 2024, eq. 19.
    """
    z = std * torch.randn(n, generator=_on_cpu(generator)) if std else torch.zeros(n)
    return torch.sigmoid(mean + z)


# --- where the sampler steps

def time_grid(steps: int, shift: float = 2.0) -> torch.Tensor:
    """Times 0 = t_0 < ... < t_steps = 1, (steps + 1,) float64, shifted to the noisy side: t / (t + shift (1 - t)).

    shift=1 is the uniform grid; shift=2 spends half of the steps below t = 1/3.

    Raises:
        MotionLabError: steps < 1 or shift <= 0.
    """
    _at_least_one(steps)
    if not shift > 0:
        raise MotionLabError(f"The grid's shift is {shift}; it must be positive.",
                             fix="Use 1 for a uniform grid, 2 for the kit's usual one.")
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return t / (t + shift * (1 - t))


def linear_quadratic_grid(steps: int, n: int) -> torch.Tensor:
    """Movie Gen's grid (VideoJAM card, section 4.3), (steps + 1,) float64.

    The first steps // 2 steps are those of a uniform grid of n; a quadratic of matching slope then ends at t = 1.

    Raises:
        MotionLabError: steps < 1, or n < steps (the quadratic would have to slow down).
    """
    _at_least_one(steps)
    if n < steps:
        raise MotionLabError(f"A linear-quadratic grid of {steps} steps cannot follow only {n} linear steps.",
                             fix=f"Choose n >= {steps}, for example 250 or 1000.")
    half = steps // 2
    k = torch.arange(steps + 1, dtype=torch.float64)
    bend = (1 - steps / n) / (steps - half) ** 2
    grid = k / n + bend * (k - half).clamp(min=0) ** 2
    grid[-1] = 1.0
    return grid


# --- guidance

def cfg(u_text: torch.Tensor, u_null: torch.Tensor, w: float | torch.Tensor) -> torch.Tensor:
    """Classifier-free guidance (1 + w) u_text - w u_null. w=0 is the conditional model, exactly; a tensor w broadcasts.

    The coefficients sum to one, so that what both agree on stays. Careful: diffusers' `guidance_scale` is 1 + w.
    """
    return u_text if not torch.is_tensor(w) and w == 0 else (1 + w) * u_text - w * u_null


# --- samplers

def euler(model: Model, x: torch.Tensor, grid: torch.Tensor, callback=None) -> torch.Tensor:
    """Integrate dx/dt = model(x, t) along the grid by Euler's method (order 1, one evaluation a step).

    Args:
        x: the state at grid[0], (b, ...): noise when grid[0] = 0.
        grid: increasing times (steps + 1,).
        callback: called in every step before it moves, with a dict: step (int), t (float), x (b, ...), u (the velocity
            there) and x1_hat = x + (1 - t) u. It returns None, or a dict of edits: "x" and/or "u" to go on with.

    Returns:
        The state at grid[-1].

    Raises:
        MotionLabError: a grid that does not increase, or an edit of another name or shape.
    """
    for step, (t, following) in enumerate(_steps(grid)):
        x, u = evaluate(model, x, step, t, callback)
        x = x + (following - t) * u
    return x


def heun(model: Model, x: torch.Tensor, grid: torch.Tensor, callback=None) -> torch.Tensor:
    """As `euler`, by Heun's method (order 2, two evaluations a step); the callback sees and edits the first."""
    for step, (t, following) in enumerate(_steps(grid)):
        x, u = evaluate(model, x, step, t, callback)
        ahead = x + (following - t) * u
        x = x + (following - t) / 2 * (u + model(ahead, _batch(following, x)))
    return x


SAMPLERS = {"euler": euler, "heun": heun}


def inverted(model: Model, x1: torch.Tensor, grid: torch.Tensor) -> list[tuple[float, torch.Tensor]]:
    """[(t, x_t)] from noise to x1 (b, ...): Euler's method along the grid backwards, each step with the velocity where it begins.

    Raises:
        MotionLabError: a grid that does not increase.
    """
    path = [(float(grid[-1]), x1)]
    for t, after in reversed(list(_steps(grid))):
        x = path[0][1]
        path.insert(0, (t, x - (after - t) * model(x, _batch(after, x))))
    return path


def evaluate(model: Model, x: torch.Tensor, step: int, t: float, callback=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The state and the velocity to go on with at one step, after the callback of `euler` has seen and edited them."""
    u = model(x, _batch(t, x))
    if callback is None:
        return x, u
    edits = callback({"step": step, "t": t, "x": x, "u": u, "x1_hat": data_estimate(x, u, t)})
    return _edited({"x": x, "u": u}, edits)


def _edited(state, edits):
    if edits is not None and not isinstance(edits, dict):
        raise MotionLabError(f"The step callback returned a {type(edits).__name__}.",
                             fix='Return None, or a dict such as {"u": ...}.')
    for name, value in (edits or {}).items():
        if name not in EDITS:
            raise MotionLabError(f"The step callback edits '{name}'.{nearest(name, EDITS)}",
                                 fix='Only "x" and "u" can be edited.')
        if value.shape != state[name].shape:
            raise MotionLabError(f"The step callback changed {name} from {tuple(state[name].shape)} "
                                 f"to {tuple(value.shape)}.",
                                 fix="Keep its shape.")
        state[name] = value
    return state["x"], state["u"]


def _steps(grid):
    times = [float(t) for t in grid]
    if len(times) < 2 or any(not b > a for a, b in zip(times, times[1:])):
        raise MotionLabError("A sampler's grid must be two or more increasing times.",
                             fix="Use time_grid(steps); noise is t = 0 and data t = 1.")
    return zip(times, times[1:])


# --- other conventions, converted at the border

def velocity_from_v(v: torch.Tensor, x: torch.Tensor, t) -> torch.Tensor:
    """Our velocity from a variance-preserving v prediction v = alpha noise - sigma data (Salimans & Ho 2022).

    x (b, ...) is *our* x_t; the variance-preserving state is s x_t with alpha = s t, sigma = s (1 - t), where
    s = 1 / sqrt(t^2 + (1 - t)^2): the same log-SNR, another scale.
    """
    alpha, sigma, s = _variance_preserving(t, x)
    data = alpha * s * x - sigma * v
    noise = sigma * s * x + alpha * v
    return data - noise


def v_from_velocity(u: torch.Tensor, x: torch.Tensor, t) -> torch.Tensor:
    """Inverse of `velocity_from_v`."""
    alpha, sigma, _ = _variance_preserving(t, x)
    return alpha * noise_estimate(x, u, t) - sigma * data_estimate(x, u, t)


def cogvideox_alphas(snr_shift: float = 3.0, steps: int = 1000) -> torch.Tensor:
    """CogVideoX's cumulative alphas (steps,) float64: scaled-linear betas 0.00085 to 0.012, SNR shift, zero end SNR.

    snr_shift is 3 for CogVideoX-2b and 1 for 5b (their scheduler configs; Lin et al. 2024 for the zero end SNR).
    """
    betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, steps, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    alphas = alphas / (snr_shift + (1 - snr_shift) * alphas)
    root = alphas.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


class VPredictionWrapper:
    """A v-prediction network over discrete timesteps (CogVideoX) as a model in our convention.

    Args:
        net: `net(x, timestep) -> v` in the variance-preserving convention; timestep (b,) float, 0 is nearly clean.
        alphas_cumprod: the table of its scheduler, decreasing; CogVideoX-2b's by default.

    Our t is mapped to the timestep of equal log-SNR, fractional between two entries: t = alpha / (alpha + sigma) is a
    monotone function of log-SNR that stays finite where the SNR is 0. Past the cleanest entry the timestep stays 0.
    """

    def __init__(self, net: Model, alphas_cumprod: torch.Tensor | None = None):
        table = cogvideox_alphas() if alphas_cumprod is None else alphas_cumprod.double().cpu()
        alpha, sigma = table.sqrt(), (1 - table).sqrt()
        self.net, self.times = net, alpha / (alpha + sigma)
        if not bool((self.times.diff() < 0).all()):
            raise MotionLabError("The scheduler's alphas_cumprod do not decrease.",
                                 fix="Pass the table with timestep 0 (clean) first.")

    def timestep(self, t: torch.Tensor) -> torch.Tensor:
        """The (fractional) timestep of equal log-SNR; t (b,) -> (b,) float64 on t's device."""
        table = self.times.flip(0).contiguous().to(t.device)
        wanted = t.double().clamp(table[0], table[-1]).contiguous()
        above = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        return len(table) - 1 - (above - 1 + (wanted - low) / (high - low))

    def time(self, timestep: torch.Tensor) -> torch.Tensor:
        """Inverse of `timestep`: our t (b,) float64 of a (fractional) timestep."""
        table = self.times.to(timestep.device)
        at = timestep.double().clamp(0, len(table) - 1)
        low = at.floor().long().clamp(max=len(table) - 2)
        return torch.lerp(table[low], table[low + 1], at - low)

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = torch.as_tensor(t).cpu().double().expand(len(x))
        _, _, s = _variance_preserving(t, x)
        v = self.net(s * x, self.timestep(t).float().to(x.device))
        return velocity_from_v(v, x, t)


class SigmaWrapper:
    """A flow network that runs from data to noise (Wan) as a model in our convention.

    Args:
        net: `net(x, timestep) -> noise - data` with timestep = scale * sigma and sigma = 1 - t, so x needs no change.
        scale: timesteps per unit of sigma (Wan: 1000).
    """

    def __init__(self, net: Model, scale: float = 1000.0):
        self.net, self.scale = net, scale

    def timestep(self, t: torch.Tensor) -> torch.Tensor:
        """scale * (1 - t)."""
        return self.scale * (1 - t)

    def time(self, timestep: torch.Tensor) -> torch.Tensor:
        """Inverse of `timestep`."""
        return 1 - timestep / self.scale

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        return -self.net(x, self.timestep(t))


def log_snr(t: torch.Tensor) -> torch.Tensor:
    """log(t^2 / (1 - t)^2): by this, and not by number, thresholds of other conventions are compared."""
    return 2 * (torch.log(t) - torch.log1p(-t))


def _variance_preserving(t, x):
    """alpha, sigma and the scale s of time t, each broadcasting over x; worked out in float64, whatever x's type."""
    t = torch.as_tensor(t).cpu().double()       # on the CPU: not every accelerator has float64
    s = (t ** 2 + (1 - t) ** 2).rsqrt()
    return tuple(_like(a, x) for a in (s * t, s * (1 - t), s))


# --- small helpers

def _like(t, x):
    """t as a tensor of x's type that broadcasts over x (b, ...)."""
    t = torch.as_tensor(t)
    if t.dim() == 1 and len(t) not in (1, len(x)):
        raise MotionLabError(f"{len(t)} times were given for a batch of {len(x)}.",
                             fix="Give one time per clip, or one number.")
    return (t.reshape(-1, *[1] * (x.dim() - 1)) if t.dim() == 1 else t).to(x.dtype).to(x.device)


def _batch(t, x):
    return torch.full((len(x),), t, dtype=torch.promote_types(torch.float32, x.dtype), device=x.device)


def _on_cpu(generator):
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise MotionLabError("Random numbers need a torch.Generator on the CPU, so that every device draws the same.",
                             fix="Pass torch.Generator().manual_seed(seed).")
    return generator


def _at_least_one(steps):
    if not isinstance(steps, int) or steps < 1:
        raise MotionLabError(f"A sampler needs one step or more, not {steps!r}.",
                             fix="The kit's standard is 20 Euler steps.")
