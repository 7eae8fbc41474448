"""Speed of the renderer: clips per second and truths per second at three sizes, on one core.

    python tests/benchmarks/bench_world.py [--repeats 20]

A truth is forward flow, visibility of the flow, limb masks and 100 tracks of one clip. Sizes are timed in turn within
one run; the table gives medians over repeats and their ratio to the smallest size. Bar: 20 clips/s at 48 pixels.
"""
from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
SIZES = (48, 96, (240, 360))


def truth(clip):
    clip.flow, clip.flow_visible, clip.limb_masks(), clip.tracks(clip.foreground_points(100))


def seconds(action, *arguments):
    start = time.perf_counter()
    result = action(*arguments)
    return time.perf_counter() - start, result


def main():
    from motionlab.world import random_scene, render

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    render(random_scene(0))
    times = {size: ([], []) for size in SIZES}
    for seed in range(repeats):
        for size in SIZES:
            spent, clip = seconds(render, random_scene(seed), size, 17)
            times[size][0].append(spent)
            times[size][1].append(seconds(truth, clip)[0])
    base = statistics.median(times[SIZES[0]][0])
    print(f"{'size':>12} {'clips/s':>9} {'truths/s':>9} {'time / smallest':>16}   (17 frames, medians of {repeats})")
    for size, (drawing, telling) in times.items():
        d, t = statistics.median(drawing), statistics.median(telling)
        print(f"{str(size):>12} {1 / d:9.1f} {1 / t:9.1f} {statistics.median(x / base for x in drawing):16.1f}")


if __name__ == "__main__":
    main()
