"""How much faster is `mf_paper` than a loop over pairs with a geometry library?

    python tests/benchmarks/bench_metrics.py [--repeats 20] [--tracks 500] [--frames 49]

Both sides are timed in turn within one run, and the figure is the median over repeats of the ratio, so that a
machine's mood cancels. The loop (shapely's Frechet distance and the cosine, pair by pair) is timed on a sample of
pairs and scaled to all of them; its line strings and unit displacements are prepared outside the clock. Target: 50
times.
"""
from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import shapely
import torch

from motionlab.metrics.motion import mf_paper

SIZE = (480, 720)


def tracks(frames: int, count: int, seed: int) -> np.ndarray:
    """Smooth tracks with a common path and swings of their own, (f, n, 2) pixels."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, frames)[:, None, None]
    path = rng.uniform(-200, 200, 2) * t + rng.uniform((100, 100), (620, 380), (1, count, 2))
    swing = rng.uniform(5, 40, (1, count, 2)) * np.sin(rng.uniform(3, 12) * t + rng.uniform(0, 6, (1, count, 2)))
    return path + swing + rng.normal(0, 0.3, (frames, count, 2))


def prepared(clip: np.ndarray) -> tuple[list, list]:
    scaled = clip / (SIZE[1], SIZE[0])
    steps = np.diff(scaled, axis=0)
    units = steps / np.linalg.norm(steps, axis=-1, keepdims=True)
    count = clip.shape[1]
    return [shapely.LineString(scaled[:, n]) for n in range(count)], [units[:, n] for n in range(count)]


def loop(gen, src, pairs) -> list[float]:
    """The score of each pair, one by one."""
    (lines, units), (source_lines, source_units) = gen, src
    return [0.5 * np.exp(-shapely.frechet_distance(lines[n], source_lines[m]))
            + 0.5 * (units[n] * source_units[m]).sum() / len(units[n]) for n, m in pairs]


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def agree(gen: np.ndarray, src: np.ndarray) -> float:
    """Largest difference between loop and `mf_paper` on a few tracks, all pairs."""
    gen, src = gen[:, :5], src[:, :7]
    pairs = [(n, m) for n in range(5) for m in range(7)]
    best = np.array(loop(prepared(gen), prepared(src), pairs)).reshape(5, 7).max(1).mean()
    return abs(mf_paper(gen, src, SIZE, match="best") - best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--tracks", type=int, default=500)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--sample", type=int, default=400, help="pairs of the loop that are timed per repeat")
    args = parser.parse_args()
    gen, src = tracks(args.frames, args.tracks, 0), tracks(args.frames, args.tracks, 1)
    print(f"mf_paper(match='best') on {args.tracks} x {args.tracks} tracks x {args.frames} frames, "
          f"{args.repeats} repeats, torch {torch.__version__} with {torch.get_num_threads()} threads, "
          f"GEOS {shapely.geos_version_string}")
    print(f"both agree to {agree(gen, src):.1e}")

    lines = prepared(gen), prepared(src)
    kinds = {"float64": (gen, src), "float32": (gen.astype(np.float32), src.astype(np.float32))}
    rng = np.random.default_rng(0)
    scale = args.tracks ** 2 / args.sample
    times: dict[str, list[float]] = {"loop": [], **{kind: [] for kind in kinds}}
    for repeat in range(-1, args.repeats):  # the first round warms up and is not counted
        pairs = rng.integers(args.tracks, size=(args.sample, 2))
        took = {"loop": scale * seconds(lambda: loop(*lines, pairs))}
        took |= {kind: seconds(lambda: mf_paper(*clips, SIZE, match="best")) for kind, clips in kinds.items()}
        if repeat >= 0:
            for kind, value in took.items():
                times[kind].append(value)

    print(f"loop over pairs  {statistics.median(times['loop']):8.2f} s (scaled from {args.sample} pairs)")
    for kind in kinds:
        ratios = sorted(a / b for a, b in zip(times["loop"], times[kind]))
        print(f"mf_paper {kind} {statistics.median(times[kind]):8.2f} s   {statistics.median(ratios):6.0f} times "
              f"faster (median of ratios; {ratios[0]:.0f} to {ratios[-1]:.0f})")


if __name__ == "__main__":
    main()
