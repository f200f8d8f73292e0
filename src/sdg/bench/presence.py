"""Image-level detection: does a picture have a defect of a type? Precision, recall and F1 (SDG Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdg.evaluation.resampling import bootstrap_sums, interval

RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True)
class Presence:
    """Precision, recall and F1 with their 95 % intervals; None where undefined."""

    precision: float | None
    recall: float | None
    f1: float | None
    intervals: dict[str, tuple[float, float] | None]
    pictures: int
    present: int
    found: int


def presence(truth: Sequence[bool], found: Sequence[bool], seed: int = 0) -> Presence:
    """How well `found` (N,) says which of N pictures have a defect; intervals from drawing pictures anew.

    Raises ValueError for sequences of different lengths, or without pictures.
    """
    there, said = np.asarray(truth, bool), np.asarray(found, bool)
    if there.shape != said.shape or there.ndim != 1 or not len(there):
        raise ValueError(
            f"Presence compares as many pictures on both sides, not {there.shape} and {said.shape}."
        )
    counts = np.stack([there & said, said, there], axis=1).astype(float)  # (N, 3): right, found, present
    low, high = interval(_rates(bootstrap_sums(counts, RESAMPLES, seed)))
    bounds = {
        name: None if np.isnan(low[i]) else (float(low[i]), float(high[i]))
        for i, name in enumerate(("precision", "recall", "f1"))
    }
    precision, recall, f1 = (
        None if np.isnan(value) else float(value) for value in _rates(counts.sum(0)[None])[0]
    )
    return Presence(precision, recall, f1, bounds, len(there), int(there.sum()), int(said.sum()))


def _rates(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, 3) sums of right, found and present -> (R, 3) precision, recall and F1, NaN where undefined."""
    right, found, present = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([right / found, right / present, 2 * right / (found + present)], axis=1)
