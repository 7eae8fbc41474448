"""How much faster is `mf_paper` than a loop over pairs with a geometry library, and `mf_release`'s Dist term than its formula?

    python tests/benchmarks/bench_metrics.py [--repeats 20] [--tracks 500] [--frames 49]

Both sides are timed in turn within one run, and the figure is the median over repeats of the ratio, so that a
machine's mood cancels. The loop (shapely's Frechet distance and the cosine, pair by pair) is timed on a sample of
pairs and scaled to all of them; its line strings and unit displacements are prepared outside the clock. Target: 50
times.

The Dist term (mean distance over all pairs of times, on the release's 50 x 50 ids) is timed against its formula in plain
torch, both as all differences at once and by `torch.cdist` over all pairs of tracks, and against a loop of scipy's `cdist`
over pairs, which is what the release runs. Target: a ratio of at most 1 to the fastest of the three, values equal to 1e-9.
"""
from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import shapely
import torch
from scipy.spatial.distance import cdist

from motionlab.metrics.motion import mf_paper
from motionlab.metrics.motion.track_distance import mean_distances

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


# Mean distance over all pairs of times, (n, f, 2), (m, f', 2) -> (n, m), as one would write it down.
def all_differences(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(a[:, None, :, None] - b[None, :, None], dim=-1).mean(dim=(2, 3))


def all_cdist(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    n, m = len(a), len(b)
    return torch.cdist(a[:, None].expand(n, m, -1, -1), b[None].expand(n, m, -1, -1)).mean(dim=(2, 3))


def scipy_loop(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    first, second = a.numpy(), b.numpy()
    return torch.tensor([[cdist(one, other).mean() for other in second] for one in first])


def dist_term(repeats: int, frames: int, ids: int = 50) -> None:
    """Time `mean_distances` and the three formulas in turn; print ratios and the largest difference of values."""
    formulas = {"all differences": all_differences, "torch.cdist": all_cdist, "scipy, pair by pair": scipy_loop}
    for dtype in (torch.float64, torch.float32):
        gen, src = (torch.from_numpy(tracks(frames, ids, seed) / SIZE[::-1]).to(dtype) for seed in (0, 1))
        a, b = gen.transpose(0, 1).contiguous(), src.transpose(0, 1).contiguous()
        apart = max(float((mean_distances(gen, src) - formula(a, b)).abs().max()) for formula in formulas.values())
        ours, theirs = [], {name: [] for name in formulas}
        for _ in range(repeats + 1):
            ours.append(seconds(lambda: mean_distances(gen, src)))
            for name, formula in formulas.items():
                theirs[name].append(seconds(lambda: formula(a, b)))
        print(f"\nDist term, {ids} x {ids} tracks x {frames} frames, {str(dtype)[6:]}: {1e3 * statistics.median(ours[1:]):.1f} ms; "
              f"largest difference of values {apart:.1e}")
        for name, took in theirs.items():
            ratios = sorted(mine / other for mine, other in zip(ours[1:], took[1:]))
            print(f"  ours / {name:<20} {statistics.median(ratios):5.2f} (median of ratios; {ratios[0]:.2f} to {ratios[-1]:.2f})")


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
    dist_term(args.repeats, args.frames)


if __name__ == "__main__":
    main()
