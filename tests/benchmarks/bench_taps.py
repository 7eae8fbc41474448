"""What do the taps cost, against materialising the attention map and against the untapped model?

    python tests/benchmarks/bench_taps.py [--repeats 20] [--heads 4] [--frames 16]

1. Attention: softmax rows recomputed and reduced block by block, against the plain way, softmax(q k^T) whole and then
   the same reductions, on 16x16 tokens per frame and 32 text tokens. Peak memory is how far the resident memory of a
   child process rises above what it holds with q and k in place. Bars: memory <= 1/10, time <= 1.5 times.
2. Features of all blocks of the kit's backbone, against the untapped forward pass. Bar: 1.1 times. The attention tap of
   all blocks is printed beside it, without a bar.

Both sides are timed in turn within one run, and the figure is the median over repeats of the ratio.
"""
from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

SIDE, TEXT, D_HEAD = 16, 32, 64


def kernel_inputs(heads: int, frames: int):
    import torch
    n = TEXT + frames * SIDE * SIDE
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, heads, n, D_HEAD, generator=generator) for _ in range(2))


def tapped(q, k, frames: int) -> dict:
    from motionlab.taps import Entropy, OffsetMass, QueryMap, reduce_attention
    reduce = {"offsets": OffsetMass(), "entropy": Entropy(), "query": QueryMap(frames // 2, 5, 5)}
    return reduce_attention(q, k, (frames, SIDE, SIDE), reduce, video=slice(TEXT, q.shape[2]))


def materialised(q, k, frames: int) -> dict:
    import torch
    from motionlab.taps import by_offset
    full = ((q[:, :, TEXT:] * D_HEAD ** -0.5) @ k.transpose(-1, -2)).softmax(-1)
    grid = (frames, SIDE * SIDE)
    mass = full[..., TEXT:].unflatten(-1, grid).sum(-1).unflatten(2, grid).mean(3)
    query = (frames // 2 * SIDE + 5) * SIDE + 5
    return {"text": full[..., :TEXT].sum(-1).mean(-1), "offsets": by_offset(mass),
            "entropy": torch.special.entr(full).sum(-1).mean(-1),
            "query": full[:, :, query, TEXT:].unflatten(-1, (frames, SIDE, SIDE))}


WAYS = {"tapped": tapped, "materialised": materialised}


def print_peak(way: str, heads: int, frames: int) -> None:
    """In a child process: bytes by which the resident memory rose."""
    import psutil
    import resource
    q, k = kernel_inputs(heads, frames)
    WAYS[way](*kernel_inputs(1, 2), 2)                   # imports, thread pools and buffers of the matrix library
    before = psutil.Process().memory_info().rss
    WAYS[way](q, k, frames)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(peak - before)


def peak(way: str, heads: int, frames: int) -> int:
    # Before this process imports torch: on Linux a child starts with the peak of its parent.
    out = subprocess.run([sys.executable, __file__, "--peak", way, "--heads", str(heads), "--frames", str(frames)],
                         check=True, capture_output=True, text=True)
    return int(out.stdout.split()[-1])


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def timed(arms: dict, repeats: int) -> dict[str, list[float]]:
    """Seconds of each arm, taken in turn; the first round warms up and is not counted."""
    rounds = [{name: seconds(work) for name, work in arms.items()} for _ in range(repeats + 1)][1:]
    return {name: [r[name] for r in rounds] for name in arms}


def ratio(times: dict, arm: str, base: str) -> str:
    ratios = sorted(a / b for a, b in zip(times[arm], times[base]))
    return f"{statistics.median(ratios):.3f} times (median of ratios; {ratios[0]:.3f} to {ratios[-1]:.3f})"


def attention_against_materialising(repeats: int, heads: int, frames: int) -> None:
    peaks = {way: peak(way, heads, frames) for way in WAYS}
    import torch
    q, k = kernel_inputs(heads, frames)
    ours, plain = (work(q, k, frames) for work in WAYS.values())
    apart = max((ours[name] - plain[name]).abs().max().item() for name in plain)
    print(f"attention: {heads} heads, {frames * SIDE * SIDE} video + {TEXT} text tokens, torch {torch.__version__}, "
          f"{torch.get_num_threads()} threads; both agree to {apart:.1e}")
    print(f"  peak memory {peaks['tapped'] / 1e6:.0f} MB against {peaks['materialised'] / 1e6:.0f} MB: "
          f"{peaks['tapped'] / peaks['materialised']:.3f} times, bar 0.1")
    with torch.no_grad():
        times = timed({name: lambda work=work: work(q, k, frames) for name, work in WAYS.items()}, repeats)
    medians = [statistics.median(times[way]) for way in WAYS]
    print(f"  time {medians[0]:.2f} s against {medians[1]:.2f} s: {ratio(times, 'tapped', 'materialised')}, bar 1.5")


def taps_against_untapped(repeats: int) -> None:
    import torch
    from motionlab.models.small.backbone import Backbone
    from motionlab.taps import attention, features
    model = Backbone().eval()
    c = model.config
    x = torch.randn(2, 5, c.channels, c.height, c.width, generator=torch.Generator().manual_seed(0))
    t, tokens = torch.tensor([0.5, 0.5]), model.grammar.null(2)

    def run(tap=None):
        if tap is None:
            return model(x, t, tokens)
        with tap(model):
            return model(x, t, tokens)

    with torch.no_grad():
        arms = {"untapped": run, "features": lambda: run(features), "attention": lambda: run(attention)}
        times = timed(arms, repeats)
    print(f"backbone: {c.layers} blocks, d={c.d}, batch 2, {5 * c.height * c.width} tokens, "
          f"{statistics.median(times['untapped']):.2f} s untapped")
    print(f"  features of all blocks {ratio(times, 'features', 'untapped')}, bar 1.1")
    print(f"  attention of all blocks {ratio(times, 'attention', 'untapped')}, no bar")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--frames", type=int, default=16, help="of 256 tokens each")
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        return print_peak(args.peak, args.heads, args.frames)
    attention_against_materialising(args.repeats, args.heads, args.frames)
    taps_against_untapped(args.repeats)


if __name__ == "__main__":
    main()
