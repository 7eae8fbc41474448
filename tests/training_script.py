"""A tiny run for tests that need processes of their own: `python training_script.py OUT_DIR STEPS [SLOW]`."""
from __future__ import annotations

import sys
import time

import torch

from motionlab.training import TrainConfig, train


class Points:
    """24 points of 6 numbers."""

    def __init__(self):
        self.x = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        return self.x[indices]


class Net(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.into = torch.nn.Linear(7, width)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2))
        self.out = torch.nn.Linear(width, 6)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.3)

    def forward(self, x, t):
        h = self.into(torch.cat([x, t[:, None]], 1))
        for block in self.blocks:
            h = h + torch.tanh(block(h))
        return self.out(h)


def flow_loss(model, x1, noise):
    t, x0 = torch.sigmoid(noise.randn()), noise.randn(6)
    x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
    per_sample = (model(x_t, t) - (x1 - x0)).square().mean(1)
    return per_sample.mean(), {"t": t, "per_sample": per_sample}


def config(out_dir, **changes):
    values = dict(steps=20, batch_size=8, warmup=3, checkpoint_every=5, log_every=1, out_dir=str(out_dir), cpu=True)
    return TrainConfig(**(values | changes))


if __name__ == "__main__":
    slow = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0

    def loss_fn(model, x1, noise):
        time.sleep(slow)
        return flow_loss(model, x1, noise)

    train(Net(), loss_fn, Points(), config(sys.argv[1], steps=int(sys.argv[2])))
