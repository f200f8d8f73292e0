"""Matching truth and predictions, and the table of counts that every metric is computed from (SDG §3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from sdg.evaluation.columns import TYPES, Columns
from sdg.evaluation.metrics import THRESHOLDS, Count
from sdg.geometry import paired_iou
from sdg.matching import Indices, match_blocks

if TYPE_CHECKING:
    from sdg.embeddings import Embedder

Matching = Literal["hungarian", "greedy"]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Matched pairs at the two thresholds, and how well those of M_{0.1} agree.

    at: threshold -> (indices into the truth, indices into the predictions), each (K,), sorted by truth.
    cosine, importance: (K of 0.1,), NaN where either side lacks a reason or an importance.
    """

    at: dict[float, tuple[Indices, Indices]]
    cosine: NDArray[np.float64]
    importance: NDArray[np.float64]


def pair(truth: Columns, predicted: Columns, matching: Matching, embedder: Embedder | None) -> Pairs:
    """Match every image's defects by IoU within their type.

    "hungarian": once, for the greatest sum of IoU, then thresholded (the paper). "greedy": the best pair
    first, at each threshold anew (the authors' code).
    """
    if matching not in ("hungarian", "greedy"):
        raise ValueError(f"The matching is 'hungarian' or 'greedy', not {matching!r}.")
    sides = truth.boxes, truth.block, predicted.boxes, predicted.block
    if matching == "greedy":
        at = {threshold: match_blocks(*sides, paired_iou, threshold) for threshold in THRESHOLDS}
    else:
        rows, columns = match_blocks(*sides, paired_iou)
        iou = paired_iou(truth.boxes[rows], predicted.boxes[columns])
        at = {threshold: (rows[iou >= threshold], columns[iou >= threshold]) for threshold in THRESHOLDS}
    rows, columns = at[0.1]
    importance = 1 - np.abs(truth.importance[rows] - predicted.importance[columns]) / 100
    return Pairs(at, _cosines(truth, predicted, rows, columns, embedder), importance)


def _cosines(
    truth: Columns, predicted: Columns, rows: Indices, columns: Indices, embedder: Embedder | None
) -> NDArray[np.float64]:
    cosine = np.full(len(rows), np.nan)
    if embedder is None:
        return cosine
    said = [
        (at, a, b)
        for at, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))
        if (a := truth.reason(row)) and (b := predicted.reason(column))
    ]
    if said:
        where = [at for at, _, _ in said]
        cosine[where] = embedder.similarity([a for _, a, _ in said], [b for _, _, b in said])
    return cosine


def count_table(truth: Columns, predicted: Columns, pairs: Pairs, images: int) -> NDArray[np.float64]:
    """Counts of every image and type: (images, len(TYPES), len(Count))."""
    table = matched_table(truth, pairs, images, np.ones(len(truth.kind), bool))
    has_truth = table[..., Count.TRUTH] > 0
    table[..., Count.PREDICTED] = _per_block(predicted.block, images)
    has_predicted = table[..., Count.PREDICTED] > 0
    table[..., Count.DEFECTIVE_BOTH] = has_truth & has_predicted
    table[..., Count.DEFECTIVE_TRUTH] = has_truth
    table[..., Count.DEFECTIVE_PREDICTED] = has_predicted
    table[..., Count.CLEAN_TRUTH] = ~has_truth
    table[..., Count.CLEAN_BOTH] = ~has_truth & ~has_predicted
    return table


def matched_table(
    truth: Columns, pairs: Pairs, images: int, wanted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The columns of the table that belong to true defects, over the `wanted` (N,) of them; the others 0."""
    table = np.zeros((images, len(TYPES), len(Count)))
    block = truth.block
    table[..., Count.TRUTH] = _per_block(block[wanted], images)
    for column, threshold in ((Count.MATCHED_01, 0.1), (Count.MATCHED_05, 0.5)):
        rows = pairs.at[threshold][0]
        table[..., column] = _per_block(block[rows[wanted[rows]]], images)
    rows = pairs.at[0.1][0]
    for total, number, values in (
        (Count.COSINE_SUM, Count.COSINE_PAIRS, pairs.cosine),
        (Count.IMPORTANCE_SUM, Count.IMPORTANCE_PAIRS, pairs.importance),
    ):
        known = wanted[rows] & ~np.isnan(values)
        table[..., total] = _per_block(block[rows[known]], images, values[known])
        table[..., number] = _per_block(block[rows[known]], images)
    return table


def _per_block(block: Indices, images: int, weights: NDArray | None = None) -> NDArray[np.float64]:
    """Number (or sum of weights) of entries of each image and type: (images, len(TYPES))."""
    return np.bincount(block, weights, images * len(TYPES)).reshape(images, len(TYPES)).astype(np.float64)
