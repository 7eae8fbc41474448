"""A tiny run for tests that need processes of their own: `python training_script.py OUT_DIR STEPS [SLOW] [sharded]`."""
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


class Adapted(torch.nn.Module):
    """A wide frozen base with a buffer, and a small adapter that is trained, with a counter of the samples it saw.

    The base's batch norm is frozen too, and yet its statistics move: the model is in training mode.
    """

    def __init__(self, seed=2, width=256):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.base = torch.nn.Sequential(torch.nn.Linear(7, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, width),
                                        torch.nn.Linear(width, 6))
        self.base.register_buffer("shift", torch.ones(width))
        self.adapter = torch.nn.Linear(7, 6)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
        self.base.requires_grad_(False)

    def forward(self, x, t):
        self.seen += len(x) if self.training else 0
        h = torch.cat([x, t[:, None]], 1)
        return self.base[2:](torch.tanh(self.base[:2](h)) + self.base.shift) + self.adapter(h)


def flow_loss(model, x1, noise):
    t, x0 = torch.sigmoid(noise.randn()), noise.randn(6)
    x_t = t[:, None] * x1 + (1 - t[:, None]) * x0
    per_sample = (model(x_t, t) - (x1 - x0)).square().mean(1)
    return per_sample.mean(), {"t": t, "per_sample": per_sample}


def config(out_dir, **changes):
    values = dict(steps=20, batch_size=8, warmup=3, checkpoint_every=5, log_every=1, out_dir=str(out_dir), cpu=True)
    return TrainConfig(**(values | changes))


def pretend_sharded():
    """Have accelerate believe that it was launched with FSDP2, which it offers on GPUs only; torch shards on CPUs too."""
    from accelerate import Accelerator
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = Accelerator(cpu=True, mixed_precision="no").state
    state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["Linear"])


def partly_frozen():
    """A net whose first layer is frozen and whose last one learns twice as fast as the rest."""
    net = Net()
    net.into.requires_grad_(False)
    net.out.weight.lr_scale = torch.full_like(net.out.weight, 2.0)
    return net


def main(out_dir, steps, slow=0.0, sharded=False):
    def loss_fn(model, x1, noise):
        time.sleep(slow)
        return flow_loss(model, x1, noise)

    if not sharded:
        return train(Net(), loss_fn, Points(), config(out_dir, steps=steps))
    pretend_sharded()
    for until in (steps // 2, steps):
        train(partly_frozen(), loss_fn, Points(), config(out_dir, steps=steps), until=until)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float((sys.argv[3:] or [0])[0]), "sharded" in sys.argv)
