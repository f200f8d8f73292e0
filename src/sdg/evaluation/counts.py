"""The sums behind SDG-Eval: those of the shards of a data set add up to those of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from sdg.defects import Status
from sdg.errors import quoted
from sdg.evaluation.columns import TYPES
from sdg.evaluation.metrics import METRICS, Count, metrics

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
