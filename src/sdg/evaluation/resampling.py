"""Uncertainty from resampling images: bootstrap intervals and a paired permutation test, without a loop.

Images are the independent units (defects of one image are not), so whole rows of counts are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
_CHUNK = 500_000  # weights held at a time: 4 MB, which stay in the cache


def bootstrap_sums(table: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Column sums of tables of as many images drawn with replacement: (D, K) -> (resamples, K)."""
    images = len(table)
    rng = np.random.default_rng(seed)
    sums = np.zeros((resamples, table.shape[1]))
    weights = np.empty((min(resamples, _step(images)), images))
    for start, stop in _chunks(resamples, images):
        drawn = rng.integers(0, images, (stop - start, images), np.int32)
        for row, indices in enumerate(drawn):  # one at a time, as their counts fit into a core's own cache
            weights[row] = np.bincount(indices, minlength=images)
        sums[start:stop] = weights[: stop - start] @ table
    return sums


def swapped_sums(
    first: NDArray[np.float64], second: NDArray[np.float64], permutations: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column sums of two paired tables, each image's rows exchanged at random: each (permutations, K)."""
    images = len(first)
    rng = np.random.default_rng(seed)
    middle, half = (first + second).sum(0) / 2, (first - second) / 2
    shift = np.zeros((permutations, first.shape[1]))
    for start, stop in _chunks(permutations, images):
        signs = rng.integers(0, 2, (stop - start, images), np.int8) * 2.0 - 1.0
        shift[start:stop] = signs @ half
    return middle + shift, middle - shift


def interval(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile interval along the first axis; resamples in which a value is undefined do not count."""
    low, high = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    undefined = np.isnan(samples)
    defined = ~undefined.all(0)
    bounds = np.full((2, *samples.shape[1:]), np.nan)
    if not undefined.any():
        bounds[:] = np.quantile(samples, (low, high), axis=0)
    elif defined.any():
        bounds[:, defined] = np.nanquantile(samples[:, defined], (low, high), axis=0)
    return bounds[0], bounds[1]


def _chunks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    step = _step(columns)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _step(columns: int) -> int:
    return max(1, _CHUNK // max(columns, 1))
