"""The metrics of SDG-Eval as functions of sums over images (SDG §3.2, App. C).

Every metric is a ratio of sums, so one row of counts an image is all that metrics, bootstrap, slices and
comparisons need.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
