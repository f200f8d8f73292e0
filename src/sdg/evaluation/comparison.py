"""Two predictions of the same images compared: is the difference more than chance?

The interval resamples images, taking both predictions of an image together. The p-value is that of a paired
permutation test: were the two exchangeable, swapping them on any image would change nothing but chance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdg.evaluation.columns import TYPES, Columns
from sdg.evaluation.metrics import Count, Metrics, by_type, metrics
from sdg.evaluation.resampling import bootstrap_sums, interval, swapped_sums
from sdg.evaluation.result import Evaluation, Intervals, bounds_by_type, plot_metrics
from sdg.records import Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROUNDING = 1e-12  # sums taken in another order differ by this much; they count as equal


@dataclass(frozen=True, slots=True)
class Comparison:
    """First minus second, by type and metric; None where either is undefined.

    first, second: metrics of each over the images both were scored on. intervals: 95 % bounds of the
    difference. p_values: two-sided, at least 1/(resamples + 1). Both are None without resamples.
    """

    first: Metrics
    second: Metrics
    difference: Metrics
    intervals: Intervals | None
    p_values: Metrics | None
    images: int
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def plot(self, path: Path | None = None) -> Figure:
        """The differences with their intervals as a figure; see `Evaluation.plot`."""
        ends = [end for of in (self.intervals or {}).values() for pair in of.values() for end in pair or ()]
        ends += [value for of in self.difference.values() for value in of.values() if value is not None]
        most = 1.05 * max(map(abs, ends), default=1.0) or 1.0
        return plot_metrics(self.difference, self.intervals, "first minus second", (-most, most), path)


def compare(first: Evaluation, second: Evaluation, *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Compare two evaluations of the same images in the same order, against the same truth.

    An image that was left out of either is left out here. resamples: of the bootstrap and of the permutation
    test, 0 for neither. Raises ValueError where they are below 0, and where matching, embedder or the truth's
    boxes, types or importance differ.
    """
    if resamples < 0:
        raise ValueError(f"A comparison has 0 resamples or more, not {resamples}.")
    a, b, both = first.details, second.details, _shared(first, second)
    one, other = a.table[both], b.table[both]
    values, others = metrics(one.sum(0)), metrics(other.sum(0))
    difference = values - others
    undefined = np.isnan(difference)
    low = high = p_value = difference
    if len(one) and resamples:
        pair = np.concatenate([one, other], axis=1)  # (D, 2·types, counts): resampled together
        drawn = _metrics(bootstrap_sums(_flat(pair), resamples, seed), 2 * len(TYPES))
        low, high = interval(drawn[:, : len(TYPES)] - drawn[:, len(TYPES) :])
        p_value = _p_values(one, other, np.abs(difference), resamples, seed)
        p_value[undefined] = np.nan
    return Comparison(
        first=by_type(values),
        second=by_type(others),
        difference=by_type(difference),
        intervals=bounds_by_type(low, high, undefined) if resamples else None,
        p_values=by_type(p_value) if resamples else None,
        images=len(one),
        resamples=resamples,
        seed=seed,
    )


def _p_values(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    observed: NDArray[np.float64],
    permutations: int,
    seed: int,
) -> NDArray[np.float64]:
    """Share of permutations (the observed order among them) whose difference is as large."""
    first, second = swapped_sums(_flat(one), _flat(other), permutations, seed)
    by_chance = np.abs(_metrics(first, len(TYPES)) - _metrics(second, len(TYPES)))
    defined = ~np.isnan(by_chance)
    as_large = (by_chance >= observed - _ROUNDING) & defined
    return (1 + as_large.sum(0)) / (1 + defined.sum(0))


def _shared(first: Evaluation, second: Evaluation) -> NDArray[np.bool_]:
    """Images scored in both; raises ValueError where the two are not about the same thing."""
    a, b = first.details, second.details
    for name in ("matching", "embedder"):
        if first.settings[name] != second.settings[name]:
            raise ValueError(f"Only evaluations with the same {name} can be compared.")
    if len(a.evaluated) != len(b.evaluated):
        raise ValueError(
            f"Only evaluations of the same images can be compared, not of {len(a.evaluated)} "
            f"and {len(b.evaluated)}."
        )
    both = a.evaluated & b.evaluated
    if not np.array_equal(_truth(a.truth, both), _truth(b.truth, both), equal_nan=True):
        raise ValueError("Only evaluations against the same truth can be compared.")
    return both


def _truth(truth: Columns, both: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Image, type, box and importance of each true defect of these images, in an order of their own."""
    values = np.column_stack([truth.image, truth.kind, truth.boxes, truth.importance])[both[truth.image]]
    return values[np.lexsort(values.T)]


def _metrics(sums: NDArray[np.float64], kinds: int) -> NDArray[np.float64]:
    return metrics(sums.reshape(len(sums), kinds, len(Count)))


def _flat(table: NDArray[np.float64]) -> NDArray[np.float64]:
    return table.reshape(len(table), -1)
