"""Local Gram Flow, forward and backward, against the plain way: the window unfolded.

    python tests/benchmarks/bench_gram_flow.py [--repeats 5] [--threads 2]

30 x 45 places, 256 channels, 12 pairs of frames (a clip of CogVideoX). Both sides are timed in turn within one run, peak memory is how far
the resident memory of a child process rises above what it holds with the features in place. Bars: time <= 0.5, memory <= 0.1.
"""
from __future__ import annotations

import argparse
import subprocess
import sys

from bench_training import interleaved, table

SHAPE, RADIUS = (1, 13, 30, 45, 256), 3


def inputs(shape=SHAPE):
    import torch
    import torch.nn.functional as F

    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)), dim=-1).requires_grad_()


def bands(f):
    from motionlab.papers.sam2videox.gram_flow import OUTSIDE, local_gram_flow

    s = local_gram_flow(f, RADIUS, normalise=False)
    return s.masked_fill(s <= OUTSIDE / 2, 0.0)


def unfolded(f):
    """(b, t - 1, h, w, 49), zero outside the frame."""
    import torch.nn.functional as F

    b, t, h, w, c = f.shape
    there = F.pad(f[:, 1:].flatten(0, 1).movedim(-1, 1), (RADIUS,) * 4).unfold(2, h, 1).unfold(3, w, 1)      # bt c 7 7 h w
    return (f[:, :-1].flatten(0, 1).movedim(-1, 1)[:, :, None, None] * there).sum(1).flatten(1, 2).movedim(1, -1).unflatten(0, (b, t - 1))


WAYS = {"bands": bands, "unfolded": unfolded}


def both_ways(way, f):
    f.grad = None
    WAYS[way](f).square().sum().backward()
    return f.grad


def print_peak(way: str) -> None:
    import psutil
    import resource

    both_ways(way, inputs((1, 2, 8, 8, 16)))
    f = inputs()
    before = psutil.Process().memory_info().rss
    both_ways(way, f)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) - before)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return print_peak(options.peak)
    peaks = {way: int(subprocess.run([sys.executable, __file__, "--peak", way], check=True, capture_output=True, text=True).stdout.split()[-1])
             for way in WAYS}
    import torch

    torch.set_num_threads(options.threads)
    f, g = inputs(), inputs()
    far = (both_ways("bands", f) - both_ways("unfolded", g)).abs().max()
    times = interleaved({"unfolded": lambda: both_ways("unfolded", f), "bands": lambda: both_ways("bands", g)}, options.repeats)
    table(f"forward and backward, {SHAPE[2]} x {SHAPE[3]} x {SHAPE[4]}, {SHAPE[1] - 1} pairs; gradients agree to {far:.1e}", times, "unfolded")
    print(f"peak memory {peaks['bands'] / 2 ** 20:.0f} MiB against {peaks['unfolded'] / 2 ** 20:.0f}: {peaks['bands'] / peaks['unfolded']:.3f} times")


if __name__ == "__main__":
    main()
