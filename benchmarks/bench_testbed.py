"""How fast the testbed draws: samples a second on one core, and data-set pictures a second with PNG encoding.

    python benchmarks/bench_testbed.py [--count 1000] [--workers 2]

CPU time is what one core would take if it had nothing else to do; wall-clock time is what passed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from sdg.testbed.datasets.injected import generate
from sdg.testbed.injection import sample
from sdg.testbed.world.scene import Level

SAMPLE_BUDGET = 400  # samples a second and core
DATASET_BUDGET = 300  # pictures a second on two cores


def rate(name: str, count: int, work: Callable[[], object]) -> float:
    """Print and return pictures a second of CPU time, children's included."""
    before, start = os.times(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    print(f"{name:40} {count / cpu:7.0f} /s of CPU time {count / wall:7.0f} /s of wall-clock time")
    return count / cpu


def draw_samples(rng: np.random.Generator, level: Level, count: int) -> None:
    for _ in range(count):
        sample(rng, level)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    levels: tuple[Level, ...] = ("core", "rich")
    draw_samples(rng, "core", 20)
    for level in levels:
        work: Callable[[], object] = partial(draw_samples, rng, level, options.count)
        found = rate(f"samples, {level}, 128 px", options.count, work)
        if level == "core":
            print(f"  budget {SAMPLE_BUDGET}/s: {'met' if found >= SAMPLE_BUDGET else 'MISSED'}")
    with tempfile.TemporaryDirectory() as folder:
        for workers in sorted({1, options.workers}):
            out = Path(folder) / str(workers)
            work = partial(generate, out, options.count, workers=workers)
            found = rate(f"data set, workers: {workers}", options.count, work)
        verdict = "met" if 2 * found >= DATASET_BUDGET else "MISSED"
        print(f"  budget {DATASET_BUDGET}/s on two cores: {verdict}")


if __name__ == "__main__":
    main()
