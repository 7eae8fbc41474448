"""Benchmarks for folders of generated videos: `motionlab score FOLDER --benchmark NAME`.

A benchmark is one module here: a `Benchmark` that reads the published data into `Item`s (what videos are made for) and
names its `Part`s (columns that are computed together). What is common stands beside it and knows no benchmark:

    matching   which video was made for which item
    scoring    video by video, kept as soon as it is scored
    summary    per tier, plain and weighted means, intervals over clips
    page       the tables and the HTML page
"""
from __future__ import annotations

from importlib import import_module

from motionlab.benchmarks.base import Benchmark
from motionlab.core.errors import one_of

# name: module:class. A new benchmark is its module and a line here.
BENCHMARKS = {
    "mtbench": "motionlab.benchmarks.mtbench:MTBench",
    "morphbench": "motionlab.benchmarks.transitions:MorphBench",
    "tcbench": "motionlab.benchmarks.transitions:TCBench",
    "transitbench": "motionlab.benchmarks.transitions:TransitBench",
}


def benchmark_class(name: str) -> type[Benchmark]:
    """A benchmark by its name.

    Raises:
        MotionLabError: an unknown name; the nearest is named.
    """
    module, _, kind = BENCHMARKS[one_of(name, BENCHMARKS, "benchmark")].partition(":")
    return getattr(import_module(module), kind)
