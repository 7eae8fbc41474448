"""Where a snapshot's convention meets the kit's: times, noisy states and what networks predict, each way.

The kit has x_t = t x1 + (1 - t) x0 and the velocity u = x1 - x0 (`motionlab.diffusion`). A border converts

    timestep, time     our t <-> the number that the network is told
    state              our x_t -> what the network reads
    sample, unsampled  our x_t <-> the state that the snapshot's scheduler keeps (`size` is that of its starting noise)
    velocity, native   the network's prediction <-> our u

| border | networks | state at equal log-SNR |
|---|---|---|
| Flow | Wan, LTX, HunyuanVideo | x_t itself, sigma = 1 - t |
| Diffusion | CogVideoX, I2VGen-XL | s x_t, of variance one |
| Karras | Stable Video Diffusion | its scheduler's is x_t / t = data + sigma noise, its network's s x_t |
"""
from __future__ import annotations

import torch

from motionlab.core.errors import MotionLabError, one_of
from motionlab.diffusion import SigmaWrapper, VPredictionWrapper, v_from_velocity, velocity_from_v

LATEST = 1 - 1e-6           # of our t, where a noise level's logarithm is asked for


class Flow(SigmaWrapper):
    """A flow from data to noise over sigma = 1 - t; timesteps are 1000 sigma."""

    def __init__(self, scale: float = 1000.0):
        super().__init__(None, scale)

    def state(self, x, t):
        return x

    sample = unsampled = state

    def velocity(self, out, x, t):
        return -out

    def native(self, u, x, t):
        return -u


class Diffusion(VPredictionWrapper):
    """Variance preserving over a table of alphas; networks predict v or the noise ("epsilon").

    Raises:
        MotionLabError: another prediction, a table that does not decrease.
    """

    def __init__(self, alphas_cumprod: torch.Tensor, predicts: str, where: str = "scheduler"):
        super().__init__(None, alphas_cumprod)
        self.predicts = one_of(predicts, ("v_prediction", "epsilon"), f"prediction type in {where}:")

    def state(self, x, t):
        return x * _scale(t, x)

    sample = state

    def unsampled(self, z, t):
        return z / _scale(t, z)

    def velocity(self, out, x, t):
        if self.predicts == "v_prediction":
            return velocity_from_v(out, x, t)
        return (x - out) / _like(t, x).clamp(min=1e-4)                      # out is x0; x1 = (x - (1 - t) x0) / t

    def native(self, u, x, t):
        return v_from_velocity(u, x, t) if self.predicts == "v_prediction" else x - _like(t, x) * u


class Karras:
    """Noise added to data, z = data + sigma noise (Karras et al. 2022), t = 1 / (1 + sigma); v prediction, timestep log(sigma) / 4.

    highest: the largest sigma that the scheduler knows; at our t = 0 the network is told this one.
    """

    def __init__(self, highest: float = 700.0):
        self.highest = highest

    def sigma(self, t):
        """Noise per data at our t."""
        t = torch.as_tensor(t).double().clamp(max=LATEST)
        return ((1 - t) / t.clamp(min=1e-12)).clamp(max=self.highest)

    def timestep(self, t):
        return 0.25 * self.sigma(t).log()

    def time(self, timestep):
        return 1 / (1 + (4 * torch.as_tensor(timestep).double()).exp())

    def state(self, x, t):
        return x * _scale(t, x)

    def sample(self, x, t):
        return x / _like(t, x)

    def unsampled(self, z, t):
        return z * _like(t, z)

    def velocity(self, out, x, t):
        return velocity_from_v(out, x, t)

    def native(self, u, x, t):
        return v_from_velocity(u, x, t)


def diffusion_border(scheduler, where: str) -> Diffusion:
    """The border of a scheduler with a table of noise levels.

    Raises:
        MotionLabError: a scheduler that predicts something else.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        raise MotionLabError(f"{type(scheduler).__name__} in '{where}' has no noise levels.", fix="Fetch the snapshot's own scheduler/.")
    return Diffusion(scheduler.alphas_cumprod, scheduler.config.prediction_type, where)


def flow_border(scheduler, where: str) -> Flow:
    """The border of a scheduler of flows.

    Raises:
        MotionLabError: a scheduler that predicts something else.
    """
    one_of(scheduler.config.get("prediction_type", "flow_prediction"), ("flow_prediction",), f"prediction type in {where}:")
    return Flow(float(scheduler.config.num_train_timesteps))


def _scale(t, x):
    """s = 1 / sqrt(t^2 + (1 - t)^2), broadcasting over x."""
    t = torch.as_tensor(t).cpu().double()                    # on the CPU: not every accelerator has float64
    return _like((t ** 2 + (1 - t) ** 2).rsqrt(), x)


def _like(t, x):
    return torch.as_tensor(t).to(x.device, x.dtype).reshape(-1, *[1] * (x.dim() - 1))
