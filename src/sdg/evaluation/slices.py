"""The metrics within a part of the data: by generator, importance tier, box size or subtype.

By generator, everything is counted over that generator's images. The other three divide the *true defects*:
a prediction that matches nothing belongs to no tier, size or subtype of the truth, so only what is counted
over true defects is defined there (BoxRe, DescCos, ImpAcc); precision and image-level metrics are None.
The matching is always that of the whole evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sdg.defects import BOX_SCALE, TIER_FLOORS, Tier
from sdg.evaluation.columns import TYPES, Columns
from sdg.evaluation.metrics import METRICS, Count, Metrics, by_type, metrics
from sdg.evaluation.result import Evaluation, Intervals
from sdg.evaluation.scoring import matched_table
from sdg.evaluation.sdg_eval import intervals

SliceBy = Literal["generator", "tier", "size", "subtype"]
SLICES: Final = get_args(SliceBy)

SIZES: Final = {"small": (0.0, 0.01), "medium": (0.01, 0.1), "large": (0.1, np.inf)}
"""Box sizes: share of the image's area, from (inclusive) and to (exclusive)."""

OF_TRUE_DEFECTS: Final = ("BoxRe@0.1", "BoxRe@0.5", "DescCos@0.1", "ImpAcc@0.1")
_UNDEFINED: Final = [at for at, name in enumerate(METRICS) if name not in OF_TRUE_DEFECTS]


@dataclass(frozen=True, slots=True)
class Slice:
    """Metrics of one part: its name, its images, its true defects by type, intervals with a bootstrap."""

    by: SliceBy
    value: str
    images: int
    defects: dict[str, int]
    metrics: Metrics
    intervals: Intervals | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "by"}


def slices(
    evaluation: Evaluation, by: SliceBy, generators: Sequence[str | None] | None = None
) -> tuple[Slice, ...]:
    """An evaluation in parts; parts without a true defect (or an image) are left out.

    generators: the generator of each image as given to `evaluate`, needed for by="generator". What has no
    generator, importance or subtype is in no part. Intervals are made as the evaluation's own were.
    """
    if by == "generator":
        if generators is None or len(generators) != len(evaluation.details.evaluated):
            raise ValueError("Slices by generator need the generator of every image.")
        return _by_generator(evaluation, generators)
    truth = evaluation.details.truth
    if by == "tier":
        parts = _tiers(truth)
    elif by == "size":
        parts = _sizes(truth)
    elif by == "subtype":
        parts = _subtypes(truth)
    else:
        raise ValueError(f"Slices are by {', '.join(SLICES)}, not by {by!r}.")
    return tuple(_of_defects(evaluation, by, name, wanted) for name, wanted in parts if wanted.any())


def _tiers(truth: Columns) -> list[tuple[str, NDArray[np.bool_]]]:
    parts, above = [], np.inf
    for tier in Tier:
        floor = TIER_FLOORS[tier]
        parts.append((str(tier), (truth.importance >= floor) & (truth.importance < above)))
        above = floor
    return parts


def _sizes(truth: Columns) -> list[tuple[str, NDArray[np.bool_]]]:
    side = truth.boxes[:, 2:] - truth.boxes[:, :2]
    share = side.prod(1) / BOX_SCALE**2
    return [(name, (share >= low) & (share < high)) for name, (low, high) in SIZES.items()]


def _subtypes(truth: Columns) -> list[tuple[str, NDArray[np.bool_]]]:
    known = np.array([defect.subtype or "" for defect in truth.defects], object)
    return [(name, known == name) for name in sorted(set(known.tolist()) - {""})]


def _by_generator(evaluation: Evaluation, generators: Sequence[str | None]) -> tuple[Slice, ...]:
    details = evaluation.details
    name_of = np.array([name or "" for name in generators], object)
    parts = []
    for name in sorted(set(name_of[details.evaluated].tolist()) - {""}):
        table = details.table[details.evaluated & (name_of == name)]
        parts.append(_slice(evaluation, "generator", name, table, len(table), ()))
    return tuple(parts)


def _of_defects(evaluation: Evaluation, by: SliceBy, name: str, wanted: NDArray[np.bool_]) -> Slice:
    details = evaluation.details
    table = matched_table(details.truth, details.pairs, len(details.evaluated), wanted)
    images = len(np.unique(details.truth.image[wanted]))
    return _slice(evaluation, by, name, table[details.evaluated], images, _UNDEFINED)


def _slice(
    evaluation: Evaluation,
    by: SliceBy,
    name: str,
    table: NDArray[np.float64],
    images: int,
    undefined: Sequence[int],
) -> Slice:
    sums = table.sum(0)
    values = metrics(sums)
    values[:, undefined] = np.nan
    resamples, seed = evaluation.settings["bootstrap"], evaluation.settings["seed"]
    bounds = None
    if resamples:
        bounds = intervals(table, resamples, seed)
        for of_kind in bounds.values():
            of_kind.update(dict.fromkeys(METRICS[at] for at in undefined))
    defects = {str(kind): int(sums[at, Count.TRUTH]) for at, kind in enumerate(TYPES)}
    return Slice(by, name, images, defects, by_type(values), bounds)
