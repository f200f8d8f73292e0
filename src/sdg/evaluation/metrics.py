"""The metrics of SDG-Eval as functions of sums over images (SDG §3.2, App. C).

Every metric is a ratio of sums, so one row of counts an image is all that metrics, bootstrap, slices and
comparisons need; and the sums of the shards of a data set add up to those of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from sdg.defects import Status
from sdg.errors import quoted
from sdg.evaluation.columns import TYPES

THRESHOLDS: Final = (0.1, 0.5)
"""τ, the least IoU of a matched pair."""

PAPER_METRICS: Final = ("DetTypeF1", "ClnAcc", "BoxF1@0.1", "BoxF1@0.5", "DescCos@0.1", "ImpAcc@0.1")
"""The columns of the paper's Table 2, in its order."""

METRICS: Final = (*PAPER_METRICS, "BoxPr@0.1", "BoxRe@0.1", "BoxPr@0.5", "BoxRe@0.5")


class Count(IntEnum):
    """Columns of the table of counts, for one type on one image."""

    DEFECTIVE_BOTH = 0  # 1 where truth and prediction both have a defect of the type
    DEFECTIVE_TRUTH = 1
    DEFECTIVE_PREDICTED = 2
    CLEAN_TRUTH = 3
    CLEAN_BOTH = 4
    TRUTH = 5  # |G_t|
    PREDICTED = 6  # |P_t|
    MATCHED_01 = 7  # |M_{0.1,t}|
    MATCHED_05 = 8  # |M_{0.5,t}|
    COSINE_SUM = 9  # over pairs of M_{0.1,t} where both have a reason
    COSINE_PAIRS = 10
    IMPORTANCE_SUM = 11  # of 1 − |Δs|/100 over pairs of M_{0.1,t} where both have an importance
    IMPORTANCE_PAIRS = 12


# Metric -> (factor, numerator, columns that add up to the denominator).
_RATIOS: Final[dict[str, tuple[int, Count, tuple[Count, ...]]]] = {
    "DetTypeF1": (2, Count.DEFECTIVE_BOTH, (Count.DEFECTIVE_TRUTH, Count.DEFECTIVE_PREDICTED)),
    "ClnAcc": (1, Count.CLEAN_BOTH, (Count.CLEAN_TRUTH,)),
    "BoxF1@0.1": (2, Count.MATCHED_01, (Count.TRUTH, Count.PREDICTED)),
    "BoxF1@0.5": (2, Count.MATCHED_05, (Count.TRUTH, Count.PREDICTED)),
    "DescCos@0.1": (1, Count.COSINE_SUM, (Count.COSINE_PAIRS,)),
    "ImpAcc@0.1": (1, Count.IMPORTANCE_SUM, (Count.IMPORTANCE_PAIRS,)),
    "BoxPr@0.1": (1, Count.MATCHED_01, (Count.PREDICTED,)),
    "BoxRe@0.1": (1, Count.MATCHED_01, (Count.TRUTH,)),
    "BoxPr@0.5": (1, Count.MATCHED_05, (Count.PREDICTED,)),
    "BoxRe@0.5": (1, Count.MATCHED_05, (Count.TRUTH,)),
}


def metrics(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metrics of summed counts: (…, len(Count)) -> (…, len(METRICS)); NaN where the denominator is 0."""
    values = np.full((*sums.shape[:-1], len(METRICS)), np.nan)
    for at, name in enumerate(METRICS):
        factor, numerator, parts = _RATIOS[name]
        denominator = sums[..., list(parts)].sum(-1)
        np.divide(factor * sums[..., numerator], denominator, out=values[..., at], where=denominator > 0)
    return values


Metrics = dict[str, dict[str, float | None]]
"""Type -> metric -> value, None where it is undefined."""

_IMAGES: Final = ("images", "evaluated", *map(str, Status), "unknown_truth")
_SETTINGS: Final = ("matching", "embedder")


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Sums over images: `sum(counts_of_shards).metrics()` are the metrics of all of them.

    sums: (len(TYPES), len(Count)). images: how many there are, were evaluated, have each status. settings:
    the matching and the embedder; sums of different ones do not add up. Intervals need the images themselves.
    """

    sums: NDArray[np.float64]
    images: Mapping[str, int]
    settings: Mapping[str, str | None]

    def __add__(self, other: Counts) -> Counts:
        """Both together; raises ValueError where they were counted with other settings."""
        if dict(self.settings) != dict(other.settings):
            raise ValueError(
                f"Counts made with {dict(self.settings)} and {dict(other.settings)} do not add up."
            )
        images = {name: self.images[name] + other.images[name] for name in _IMAGES}
        return Counts(self.sums + other.sums, images, self.settings)

    def __radd__(self, other: object) -> Counts:
        """For `sum`, which begins with 0."""
        if other == 0:
            return self
        return NotImplemented

    def metrics(self) -> Metrics:
        """The metrics of SDG-Eval (SDG §3.2), None where undefined."""
        return by_type(metrics(self.sums))

    def to_dict(self) -> dict[str, Any]:
        """JSON values, which `from_dict` reads."""
        sums = {
            str(kind): {count.name.lower(): float(row[count]) for count in Count}
            for kind, row in zip(TYPES, self.sums, strict=True)
        }
        return {"sums": sums, "images": dict(self.images), "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; raises ValueError for anything else."""
        try:
            sums = np.array(
                [[float(value["sums"][str(kind)][count.name.lower()]) for count in Count] for kind in TYPES]
            )
            images = {name: int(value["images"][name]) for name in _IMAGES}
            settings = {name: value["settings"][name] for name in _SETTINGS}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"These are no counts of SDG-Eval: {quoted(str(error))}.") from None
        if not (np.isfinite(sums).all() and (sums >= 0).all() and min(images.values()) >= 0):
            raise ValueError("Counts of SDG-Eval are not negative.")
        return cls(sums, images, settings)


def by_type(values: NDArray[np.float64]) -> Metrics:
    """(len(TYPES), len(METRICS)) -> type -> metric -> value, NaN becoming None."""
    return {
        str(kind): {
            name: None if np.isnan(value) else float(value) for name, value in zip(METRICS, row, strict=True)
        }
        for kind, row in zip(TYPES, values, strict=True)
    }
