"""The matching against trying every assignment in plain Python, and the greedy one against its definition."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sdg.geometry import diou, iou, paired_diou, paired_iou
from sdg.matching import match, match_blocks


def best_sum(scores):
    """Greatest sum over all one-to-one assignments of min(n, m) pairs, one by one."""
    n, m = scores.shape
    if n > m:
        return best_sum(scores.T)
    return max((sum(scores[i, j] for i, j in enumerate(p)) for p in permutations(range(m), n)), default=0)


tables = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[2]).uniform(-1, 1, t[:2])
)


@given(tables)
def test_the_sum_is_the_greatest_of_all_assignments(scores):
    rows, columns = match(scores)
    assert len(rows) == min(scores.shape)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
    assert scores[rows, columns].sum() == pytest.approx(best_sum(scores))


@given(tables, st.integers(0, 2**32 - 1))
def test_pairs_stay_within_a_type_and_each_type_is_full(scores, seed):
    rng = np.random.default_rng(seed)
    truth, predicted = (rng.choice(["artifact", "misalignment"], n) for n in scores.shape)
    rows, columns = match(scores, truth, predicted)
    assert (truth[rows] == predicted[columns]).all()
    expected = 0.0
    for kind in ("artifact", "misalignment"):
        block = scores[np.ix_(truth == kind, predicted == kind)]
        assert (truth[rows] == kind).sum() == min(block.shape)
        expected += best_sum(block)
    assert scores[rows, columns].sum() == pytest.approx(expected)


def test_negative_pairs_are_kept():
    scores = diou([[0, 0, 10, 10], [500, 500, 600, 600]], [[990, 990, 1000, 1000]])
    assert scores.max() < 0
    rows, columns = match(scores)
    assert (rows.tolist(), columns.tolist()) == ([1], [0])


def test_the_best_sum_is_not_the_best_first_pair():
    scores = np.array([[0.9, 0.8], [0.7, 0.0]])
    assert [x.tolist() for x in match(scores)] == [[0, 1], [1, 0]]
    assert [x.tolist() for x in match(scores, greedy_threshold=0.1)] == [[0], [0]]


def test_ties_go_to_the_first_assignment():
    for shape in [(1, 3), (2, 3), (3, 3), (3, 5), (5, 3), (4, 1), (9, 9)]:
        rows, columns = match(np.zeros(shape))
        assert rows.tolist() == columns.tolist() == list(range(min(shape)))
    big = np.zeros((12, 15))
    assert all((a == b).all() for a, b in zip(match(big), match(big), strict=True))


@pytest.mark.parametrize("shape", [(4, 5), (9, 7), (10, 10), (10, 14), (14, 11), (12, 30)])
def test_large_blocks_reach_the_sum_of_scipy(shape):
    for seed in range(5):
        scores = np.random.default_rng(seed).uniform(-1, 1, shape)
        rows, columns = match(scores)
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(shape)
        expected = scores[linear_sum_assignment(scores, maximize=True)].sum()
        assert scores[rows, columns].sum() == pytest.approx(expected)


@given(tables, st.floats(0.05, 0.95))
def test_greedy_takes_the_best_free_pair_each_time(scores, threshold):
    left = {(i, j): s for (i, j), s in np.ndenumerate(scores) if s >= threshold}
    expected = []
    while left:
        row, column = max(left, key=lambda pair: left[pair])
        expected.append((row, column))
        left = {(i, j): s for (i, j), s in left.items() if i != row and j != column}
    rows, columns = match(scores, greedy_threshold=threshold)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == sorted(expected)


@pytest.mark.parametrize(("kernel", "pairwise"), [(paired_iou, iou), (paired_diou, diou)])
@pytest.mark.parametrize("threshold", [None, 0.1])
def test_blocks_match_as_images_do_one_by_one(kernel, pairwise, threshold):
    rng = np.random.default_rng(5)
    sides = []
    for count in (400, 500):
        corner = rng.integers(0, 700, (count, 2))
        box = np.concatenate([corner, corner + rng.integers(50, 300, corner.shape)], axis=1)
        sides += [box, rng.integers(0, 150, count)]
    truth, predicted = match_blocks(*sides, kernel, threshold)
    pairs = set(zip(truth.tolist(), predicted.tolist(), strict=True))
    expected = set()
    for block in range(150):
        a, b = np.flatnonzero(sides[1] == block), np.flatnonzero(sides[3] == block)
        scores = pairwise(sides[0][a], sides[2][b])
        rows, columns = match(scores, greedy_threshold=threshold)
        expected |= set(zip(a[rows].tolist(), b[columns].tolist(), strict=True))
    assert pairs == expected
    assert (np.diff(truth) > 0).all()


def test_nothing_matches_nothing():
    empty = np.zeros((0, 4), int), np.zeros(0, int)
    assert [len(x) for x in match_blocks(*empty, *empty, paired_iou)] == [0, 0]
    assert [len(x) for x in match(np.zeros((0, 3)))] == [0, 0]
    assert [len(x) for x in match(np.zeros((2, 1)), ["artifact"] * 2, ["misalignment"])] == [0, 0]


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="finite"):
        match([[np.nan]])
    with pytest.raises(ValueError, match="shape"):
        match([1.0])
    with pytest.raises(ValueError, match="both sides"):
        match([[1.0]], ["artifact"])
    with pytest.raises(ValueError, match="as many types"):
        match([[1.0]], ["artifact"], ["artifact"] * 2)
