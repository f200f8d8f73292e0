"""Uncertainty from resampling images: bootstrap intervals and a paired permutation test, without a loop.

Images are the independent units (defects of one image are not), so whole rows of counts are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Drawn = tuple[range, NDArray[np.int32]]
"""Some of the resamples, and the images drawn for each, (len, D)."""

CONFIDENCE: Final = 0.95
_CHUNK = 1_000_000  # weights held at a time: 8 MB
_ONE_THREAD = 1 << 18  # multiplications below which BLAS begins no threads


def bootstrap_sums(
    table: NDArray[np.float64],
    resamples: int,
    seed: int,
    drawn: Iterable[Drawn] | None = None,
    out: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Column sums of tables of as many images drawn with replacement: (D, K) -> (resamples, K).

    drawn: those to sum, by default all of `draws`. out: zeros that take the sums.
    """
    images = len(table)
    sums = np.zeros((resamples, table.shape[1])) if out is None else out
    summed = table.any(0)
    multiply = _Product(table[:, summed], min(resamples, _step(images)))
    for part, chosen in draws(resamples, images, np.random.default_rng(seed)) if drawn is None else drawn:
        for row, indices in enumerate(chosen):
            # One at a time, as their counts fit into a core's own cache.
            multiply.weights[row, :images] = np.bincount(indices.astype(np.intp), minlength=images)
        sums[part.start : part.stop, summed] = multiply(len(part))
    return sums


def draws(resamples: int, images: int, rng: np.random.Generator) -> Iterator[Drawn]:
    """Some resamples at a time, and the images drawn for them."""
    for part in chunks(resamples, images):
        yield part, draw(rng, part, images)


def draw(rng: np.random.Generator, part: range, images: int) -> NDArray[np.int32]:
    """The images of some resamples, (len(part), images)."""
    return rng.integers(0, images, (len(part), images), np.int32)


def chunks(resamples: int, images: int) -> list[range]:
    """Which resamples are drawn together."""
    step = _step(images)
    return [range(start, min(start + step, resamples)) for start in range(0, resamples, step)]


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
    for part in chunks(permutations, images):
        signs = rng.integers(0, 2, (len(part), images), np.int8) * 2.0 - 1.0
        shift[part.start : part.stop] = signs @ half
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


def _step(columns: int) -> int:
    return max(1, _CHUNK // max(columns, 1))
