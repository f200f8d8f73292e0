"""Which predicted defect answers which true one: one optimal matching for evaluation and reward alike.

Boxes are matched within a block (the defects of one type on one image). All blocks of a data set are solved
together: blocks of one shape share an array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdg.defects import Defect
from sdg.geometry import iou

PairScore = Callable[[NDArray, NDArray], NDArray[np.float64]]
Indices = NDArray[np.intp]

_MOST_SUBSETS = 10  # boxes on the smaller side up to which going through all subsets of them is quick
_CHUNK = 1_000_000  # sums held at a time while matching; bounds the memory


def match(
    scores: ArrayLike,
    truth_types: ArrayLike | None = None,
    predicted_types: ArrayLike | None = None,
    *,
    greedy_threshold: float | None = None,
) -> tuple[Indices, Indices]:
    """Optimal pairs of one image: those of equal type whose scores have the greatest sum (Hungarian).

    scores: (N, M), any sign. Each type gives exactly min(N_t, M_t) pairs, whatever the scores; without types,
    min(N, M). Returns the rows (ascending) and their columns, each (K,). Equal sums are decided the same way
    every time; where all scores are equal the first row takes the first column, and so on.
    greedy_threshold: pair greedily instead, as in the authors' code: the best pair first, none below it; of
    equal scores the lower row, then the lower column, goes first.
    """
    table = _table(scores)
    rows, columns = [], []
    for of_row, of_column in _types(table, truth_types, predicted_types):
        _, row, column = _pairs(table[np.ix_(of_row, of_column)][None], greedy_threshold)
        rows.append(of_row[row])
        columns.append(of_column[column])
    return _sorted_pairs(rows, columns)


def same_defects(
    ones: Sequence[Defect],
    others: Sequence[Defect],
    least: float,
    score: Callable[[ArrayLike, ArrayLike], NDArray[np.float64]] = iou,
) -> list[tuple[int, int]]:
    """Places of the defects that are the same: optimal pairs of one type by `score`, of IoU `least` up."""
    if not ones or not others:
        return []
    boxes = [defect.box for defect in ones], [defect.box for defect in others]
    rows, columns = match(score(*boxes), *([defect.type.value for defect in side] for side in (ones, others)))
    overlap = iou(*boxes)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if overlap[i, j] >= least]


def match_blocks(
    truth_boxes: NDArray,
    truth_block: NDArray,
    predicted_boxes: NDArray,
    predicted_block: NDArray,
    score: PairScore,
    greedy_threshold: float | None = None,
) -> tuple[Indices, Indices]:
    """Matched pairs of a whole data set: `match` within every block.

    truth_boxes (N, 4) and predicted_boxes (M, 4) are xyxy; truth_block (N,) and predicted_block (M,) are
    integers ≥ 0 naming the block of each box, in any order. score takes two arrays of shape (…, 4) and gives
    the scores over their broadcast leading axes (`paired_iou`, `paired_diou`).
    Returns indices into truth and predictions, each (K,), sorted by truth.
    """
    truth_order, truth_start, truth_count = _grouped(truth_block, predicted_block)
    predicted_order, predicted_start, predicted_count = _grouped(predicted_block, truth_block)
    both = np.flatnonzero((truth_count > 0) & (predicted_count > 0))
    shape_key = truth_count[both] * (predicted_count.max(initial=0) + 1) + predicted_count[both]
    by_shape = both[np.argsort(shape_key, kind="stable")]
    cuts = np.flatnonzero(np.diff(np.sort(shape_key))) + 1
    truth_index, predicted_index = [], []
    for blocks in np.split(by_shape, cuts) if len(by_shape) else []:
        n, m = int(truth_count[blocks[0]]), int(predicted_count[blocks[0]])
        step = max(1, _CHUNK // (max(n, m) << min(n, m, _MOST_SUBSETS)))
        for at in range(0, len(blocks), step):
            chunk = blocks[at : at + step]
            truth = truth_order[truth_start[chunk][:, None] + np.arange(n)]  # (B, n)
            predicted = predicted_order[predicted_start[chunk][:, None] + np.arange(m)]  # (B, m)
            scores = score(truth_boxes[truth][:, :, None], predicted_boxes[predicted][:, None])  # (B, n, m)
            block, row, column = _pairs(scores, greedy_threshold)
            truth_index.append(truth[block, row])
            predicted_index.append(predicted[block, column])
    return _sorted_pairs(truth_index, predicted_index)


def _pairs(scores: NDArray[np.float64], threshold: float | None) -> tuple[Indices, Indices, Indices]:
    """Block, row and column of every pair in scores (B, n, m): greedy given a threshold, else optimal."""
    if threshold is not None:
        return _take_greedily(scores, threshold)
    rows, columns = _assign(scores)
    return np.repeat(np.arange(len(scores)), rows.shape[1]), rows.ravel(), columns.ravel()


def _assign(scores: NDArray[np.float64]) -> tuple[Indices, Indices]:
    """Best assignment of each of B blocks: (B, n, m) -> rows and columns, each (B, min(n, m))."""
    count, n, m = scores.shape
    if n < m:
        columns, rows = _assign(scores.transpose(0, 2, 1))
        return rows, columns
    columns = np.broadcast_to(np.arange(m), (count, m))
    if m == 1:
        return scores[:, :, 0].argmax(1)[:, None], columns
    if m <= _MOST_SUBSETS:
        return _assign_by_subsets(scores), columns
    # Loading scipy.optimize takes longer than evaluating a data set without such large blocks.
    from scipy.optimize import linear_sum_assignment

    solved = [linear_sum_assignment(block.T, maximize=True)[1] for block in scores]
    return np.array(solved, np.intp).reshape(count, m), columns


def _assign_by_subsets(scores: NDArray[np.float64]) -> Indices:
    """Row of each column in the best assignments, (B, n, m) with n ≥ m -> (B, m), for all blocks at once.

    Row by row, for every subset of columns: the best sum in which the rows so far fill just that subset.
    """
    count, n, m = scores.shape
    by_pair = np.ascontiguousarray(scores.transpose(1, 2, 0))
    best = np.full((1 << m, count), -np.inf)
    best[0] = 0
    choice = np.full((n, 1 << m, count), -1, np.int8)  # column the row took to reach the subset, −1 for none
    for row in range(n):
        previous = best.copy()
        for column in reversed(range(m)):  # with ">" below, equal sums pair what stands first
            halves = -1, 2, 1 << column, count  # subsets without and with the column, side by side
            total = previous.reshape(halves)[:, 0] + by_pair[row, column]
            ends = best.reshape(halves)[:, 1]
            np.copyto(choice[row].reshape(halves)[:, 1], column, where=total > ends)
            np.maximum(ends, total, out=ends)
    rows = np.zeros((count, m), np.intp)
    each, subset = np.arange(count), np.full(count, (1 << m) - 1)
    for row in reversed(range(n)):
        column = choice[row, subset, each].astype(np.intp)
        took = column >= 0
        rows[each[took], column[took]] = row
        subset[took] ^= 1 << column[took]
    return rows


def _take_greedily(scores: NDArray[np.float64], threshold: float) -> tuple[Indices, Indices, Indices]:
    """Pairs of each of B blocks (B, n, m), the best free one first, none below the threshold."""
    count, n, m = scores.shape
    free = np.where(scores >= threshold, scores, -np.inf)
    each = np.arange(count)
    taken = []
    for _ in range(min(n, m)):
        best = free.reshape(count, -1).argmax(1)
        row, column = np.divmod(best, m)
        valid = np.isfinite(free[each, row, column])
        taken.append((each[valid], row[valid], column[valid]))
        free[each, row, :] = -np.inf
        free[each, :, column] = -np.inf
    block, rows, columns = (np.concatenate(part) for part in zip(*taken, strict=True))
    return block, rows, columns


def _grouped(block: NDArray, other: NDArray) -> tuple[Indices, Indices, Indices]:
    """Order that sorts boxes by block, and each block's start and count in it; blocks number as in both."""
    length = int(max(block.max(initial=-1), other.max(initial=-1))) + 1
    count = np.bincount(block, minlength=length)
    return np.argsort(block, kind="stable"), np.cumsum(count) - count, count


def _table(scores: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(scores, np.float64)
    if table.ndim != 2:
        raise ValueError(f"Scores are an array of shape (N, M), not {table.shape}.")
    if not np.isfinite(table).all():
        raise ValueError("Scores are finite numbers.")
    return table


def _types(
    table: NDArray, truth_types: ArrayLike | None, predicted_types: ArrayLike | None
) -> list[tuple[Indices, Indices]]:
    """Rows and columns of each type present on both sides."""
    if (truth_types is None) != (predicted_types is None):
        raise ValueError("Give the types of both sides, or of neither.")
    truth = np.zeros(table.shape[0]) if truth_types is None else np.asarray(truth_types)
    predicted = np.zeros(table.shape[1]) if predicted_types is None else np.asarray(predicted_types)
    if (len(truth), len(predicted)) != table.shape:
        raise ValueError(f"{table.shape} scores need as many types, not {len(truth)} and {len(predicted)}.")
    if not len(truth) or not len(predicted):
        return []
    types = [kind for kind in dict.fromkeys(truth.tolist()) if kind in set(predicted.tolist())]
    return [(np.flatnonzero(truth == kind), np.flatnonzero(predicted == kind)) for kind in types]


def _sorted_pairs(rows: list[Indices], columns: list[Indices]) -> tuple[Indices, Indices]:
    if not rows:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    row, column = np.concatenate(rows), np.concatenate(columns)
    order = np.argsort(row, kind="stable")
    return row[order], column[order]
