"""Uncertainty from resampling images: bootstrap intervals and a paired permutation test, without a loop.

Images are the independent units (defects of one image are not), so whole rows of counts are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
_CHUNK = 1_000_000  # weights held at a time: 8 MB
_ONE_THREAD = 1 << 18  # multiplications below which BLAS begins no threads


def bootstrap_sums(
    table: NDArray[np.float64], resamples: int, seed: int, rows: range | None = None
) -> NDArray[np.float64]:
    """Column sums of tables of as many images drawn with replacement: (D, K) -> (resamples, K).

    rows: which of the resamples are wanted, by default all of them.
    """
    images = len(table)
    rows = range(resamples) if rows is None else rows
    rng = np.random.default_rng(seed)
    sums = np.zeros((len(rows), table.shape[1]))
    summed = table.any(0)
    multiply = _Product(table[:, summed], min(len(rows), _step(images)))
    for start, stop in _chunks(rows.stop, images):
        drawn = rng.integers(0, images, (stop - start, images), np.int32)  # drawn even where it is not wanted
        first = max(start, rows.start)
        for at, indices in enumerate(drawn[first - start :]):
            # One at a time, as their counts fit into a core's own cache.
            multiply.weights[at, :images] = np.bincount(indices.astype(np.intp), minlength=images)
        if first < stop:
            sums[first - rows.start : stop - rows.start, summed] = multiply(stop - first)
    return sums


class _Product:
    """weights @ table in pieces so small that BLAS computes each on one thread.

    Its threads wait for one another in a loop, for seconds where other work is on the cores.
    """

    def __init__(self, table: NDArray[np.float64], rows: int) -> None:
        images, columns = table.shape
        self._width = max(1, min(images, _ONE_THREAD // max(1, rows * columns)))
        pieces = -(-images // self._width)
        padded = np.zeros((pieces * self._width, columns))
        padded[:images] = table
        self._table = padded.reshape(pieces, self._width, columns)
        self.weights = np.zeros((rows, pieces * self._width))

    def __call__(self, rows: int) -> NDArray[np.float64]:
        """Of the first rows of `weights`: (rows, columns)."""
        pieces = self.weights[:rows].reshape(rows, -1, self._width).transpose(1, 0, 2)
        return np.matmul(pieces, self._table).sum(0)


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
