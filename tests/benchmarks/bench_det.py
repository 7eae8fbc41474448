"""DeT on the small video DiT: what a training step costs beside LoRA's, and the temporal kernel beside the same as convolutions.

    python tests/benchmarks/bench_det.py [--repeats 15] [--threads 2] [--batch 1]

Variants are timed in turn within one run; the table gives medians and ratios. Bars: a step with the kernel and the tracking loss at
most 1.10 x one of LoRA (k and v, rank d / 16: as many weights); the kernel, forward and backward, at most 1.00 x what is released
(tokens turned to positions x channels x frames, two convolutions, and back). Beside them, without a bar: the step without tracks, and
with the full-width kernel (claim C17).
"""
from __future__ import annotations

import argparse

from bench_training import interleaved, table, update

SENTENCE = "a red dog runs to the left over the meadow"
METHODS = {"lora": ("lora", {}), "det": ("det", {}), "det, no tracks": ("det", {"weight": 0.0}), "det, full width": ("det", {"module": "full_width"})}


def steps(batch: int):
    """A training step of each method, as `training.train` makes it."""
    import torch

    from motionlab.core.precision import autocast
    from motionlab.methods import open_method
    from motionlab.models.small.backbone import Backbone, BackboneConfig
    from motionlab.models.small.codec import Codec
    from motionlab.models.small.pipe import SmallPipe
    from motionlab.training import SampleNoise, TrainConfig
    from motionlab.training.ema import Ema
    from motionlab.training.optim import make_optimizers

    config, count, ready = TrainConfig(bf16=True), [0], {}
    data = {"x1": torch.randn(batch, 5, 24, 12, 12), "tracks": torch.cat([torch.randint(0, 12, (batch, 5, 100, 2)), torch.ones(batch, 5, 100, 1)], -1)}
    for name, (kind, settings) in METHODS.items():
        pipe, method = SmallPipe(Backbone(BackboneConfig(max_frames=5, heads=3, rotary=True)), Codec()).train(), open_method(kind, **settings)
        method.attach(pipe)
        pipe.times = lambda noise: torch.full((batch,), 0.7)                        # behind the gate: the tracking loss always acts
        ready[name] = (pipe, method.loss(pipe), make_optimizers(pipe, config), Ema(pipe, 0.99), pipe.text([SENTENCE] * batch))

    def step(name):
        pipe, loss_fn, optimizers, ema, text = ready[name]
        count[0] += 1
        with autocast("cpu"):
            loss, _ = loss_fn(pipe, data | {"text": text}, SampleNoise(0, count[0], range(batch)))
        update(pipe, optimizers, ema, loss)

    return {name: lambda name=name: step(name) for name in METHODS}


def kernels(batch: int, grid: tuple[int, int, int], width: int, m: int):
    """Forward and backward of one block's branch, ours and as released, on the same weights."""
    import torch
    import torch.nn.functional as F
    from einops import rearrange

    from motionlab.papers.det import TemporalKernel

    kernel, (f, h, w) = TemporalKernel(width, m), grid
    with torch.no_grad():
        kernel.up.normal_()
    x = torch.randn(batch, f * h * w, width, requires_grad=True)

    def ours():
        return kernel(x.unflatten(1, grid)).flatten(1, 3)

    def released():
        u = rearrange(x, "b (f h w) c -> (b h w) c f", f=f, h=h, w=w)
        r = F.conv1d(F.gelu(F.conv1d(u, kernel.down, padding=1)), kernel.up, padding=1)
        return rearrange(r, "(b h w) c f -> b (f h w) c", b=batch, h=h, w=w)

    with torch.no_grad():
        torch.testing.assert_close(ours(), released(), rtol=1e-3, atol=1e-2)

    def both_ways(way):
        x.grad = None
        kernel.zero_grad(set_to_none=True)
        way().square().mean().backward()

    return {"rearrange + Conv1d": lambda: both_ways(released), "temporal kernel": lambda: both_ways(ours)}


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table(f"training step, 5 latent frames, batch {options.batch}", interleaved(steps(options.batch), options.repeats), "lora")
    for grid, width in (((5, 12, 12), 192), ((13, 15, 23), 512)):
        times = interleaved(kernels(options.batch, grid, width, width // 24), options.repeats)
        table(f"one branch, forward and backward, {grid[0]} x {grid[1]} x {grid[2]} tokens of {width}", times, "rearrange + Conv1d")


if __name__ == "__main__":
    main()
