"""IoU, DIoU and rasterising: worked numbers, a reference by counting cells, and properties."""

from __future__ import annotations

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.geometry import diou, iou, paired_diou, paired_iou, rasterize, touched_pixels


@st.composite
def boxes(draw, scale=1000):
    x0, y0 = draw(st.integers(0, scale - 1)), draw(st.integers(0, scale - 1))
    return [x0, y0, draw(st.integers(x0 + 1, scale)), draw(st.integers(y0 + 1, scale))]


box_lists = st.lists(boxes(), max_size=6)
grids = st.tuples(st.integers(1, 40), st.integers(1, 40))


def test_iou_of_worked_examples():
    a = [[0, 0, 100, 100]]
    b = [[0, 0, 100, 100], [50, 0, 150, 100], [100, 0, 200, 100], [25, 25, 75, 75], [500, 500, 600, 600]]
    assert iou(a, b).tolist() == [[1.0, 1 / 3, 0.0, 0.25, 0.0]]


def test_diou_of_worked_examples():
    # Side by side: no overlap, centres 100 apart, enclosing box 200 × 100.
    assert diou([[0, 0, 100, 100]], [[100, 0, 200, 100]])[0, 0] == pytest.approx(
        -(100**2) / (200**2 + 100**2)
    )
    # Opposite corners: centres 990·√2 apart, enclosing diagonal 1000·√2.
    assert diou([[0, 0, 10, 10]], [[990, 990, 1000, 1000]])[0, 0] == pytest.approx(-(0.99**2))
    # Concentric: the same as IoU.
    assert diou([[0, 0, 100, 100]], [[25, 25, 75, 75]])[0, 0] == 0.25


@given(boxes(scale=12), boxes(scale=12))
def test_iou_counts_unit_cells(a, b):
    cells = [{(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in (a, b)]
    assert iou([a], [b])[0, 0] == pytest.approx(len(cells[0] & cells[1]) / len(cells[0] | cells[1]))


@given(box_lists, box_lists)
def test_symmetry_bounds_and_order(a, b):
    overlap, distance = iou(a, b), diou(a, b)
    assert overlap.shape == distance.shape == (len(a), len(b))
    assert (overlap == iou(b, a).T).all()
    assert (distance == diou(b, a).T).all()
    assert ((overlap >= 0) & (overlap <= 1)).all()
    assert ((distance > -1) & (distance <= overlap)).all()


@given(box_lists)
def test_a_box_with_itself_is_one_and_pairs_are_the_diagonal(a):
    assert (np.diag(iou(a, a)) == 1).all()
    assert (np.diag(diou(a, a)) == 1).all()
    assert (paired_iou(a, a[::-1]) == np.diag(iou(a, a[::-1]))).all()
    assert (paired_diou(a, a[::-1]) == np.diag(diou(a, a[::-1]))).all()


def test_unsigned_boxes_do_not_wrap():
    far, near = np.array([[600, 600, 700, 700]], np.uint16), np.array([[0, 0, 100, 100]], np.uint16)
    assert paired_iou(far, near) == iou(far, near)[0] == 0


def test_floats_are_accepted_and_boxes_without_area_are_zero():
    assert iou([[0.0, 0.0, 0.5, 1.0]], [[0.0, 0.0, 1.0, 1.0]])[0, 0] == 0.5
    assert iou([[5, 5, 5, 5]], [[5, 5, 5, 5]])[0, 0] == 0
    assert diou([[5, 5, 5, 5]], [[5, 5, 5, 5]])[0, 0] == 0


@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 2, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        iou(np.ones(shape), np.ones((1, 4)))
    with pytest.raises(ValueError, match="broadcast"):
        paired_iou(np.ones((2, 4)), np.ones((3, 4)))


def test_rasterise_of_worked_examples():
    # 4 columns of 250: [0, 250) is one cell, [249, 251) touches two, [300, 310) lies inside the second.
    rows = rasterize([[0, 0, 250, 1000], [249, 0, 251, 1000], [300, 0, 310, 1000]], grid=(1, 4))
    assert rows[:, 0].astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]
    thin = rasterize([[300, 0, 310, 1000], [249, 0, 251, 1000]], grid=(1, 4), mode="truncate")
    assert thin[:, 0].astype(int).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]


@given(boxes(), grids)
def test_touch_is_every_cell_with_a_common_area(box, grid):
    height, width = grid
    expected = [
        [
            Fraction(column * 1000, width) < box[2]
            and Fraction((column + 1) * 1000, width) > box[0]
            and Fraction(row * 1000, height) < box[3]
            and Fraction((row + 1) * 1000, height) > box[1]
            for column in range(width)
        ]
        for row in range(height)
    ]
    assert rasterize([box], grid)[0].tolist() == expected


@given(boxes(), st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
def test_touched_pixels_are_bounded_by_the_box_rounded_outwards(box, size):
    ends = [(Fraction(value * side, 1000)) for value, side in zip(box, (*size, *size), strict=True)]
    expected = [*map(math.floor, ends[:2]), *map(math.ceil, ends[2:])]
    assert touched_pixels([box], size).tolist() == [expected]
    assert touched_pixels([], size).shape == (0, 4)


@given(box_lists, grids)
def test_touch_holds_truncate_and_no_box_vanishes(some, grid):
    touch, truncate = rasterize(some, grid), rasterize(some, grid, mode="truncate")
    assert touch.shape == truncate.shape == (len(some), *grid)
    assert not (truncate & ~touch).any()
    assert touch.any((1, 2)).all()


@given(grids)
def test_the_whole_image_covers_every_cell(grid):
    for mode in ("touch", "truncate"):
        assert rasterize([[0, 0, 1000, 1000]], grid, mode=mode).all()


def test_no_box_gives_an_empty_stack():
    assert rasterize([], (3, 5)).shape == (0, 3, 5)
    assert rasterize(np.zeros((0, 4)), (3, 5)).shape == (0, 3, 5)
    assert iou([], [[0, 0, 1, 1]]).shape == (0, 1)


def test_rasterise_refuses_what_it_cannot_mean():
    with pytest.raises(ValueError, match="integers"):
        rasterize([[0.0, 0.0, 1.0, 1.0]], (2, 2))
    with pytest.raises(ValueError, match="at least one"):
        rasterize([[0, 0, 1, 1]], (0, 2))
    with pytest.raises(ValueError, match="touch"):
        rasterize([[0, 0, 1, 1]], (2, 2), mode="round")


def test_a_training_batch_is_rasterised_whole_not_box_by_box():
    def calls(boxes):
        made = []
        sys.setprofile(lambda frame, event, what: made.append(event))
        try:
            rasterize(boxes, (32, 32))
        finally:
            sys.setprofile(None)
        return len(made)

    rng = np.random.default_rng(0)
    corner = rng.integers(0, 900, (768 * 5, 2))
    batch = np.concatenate([corner, corner + rng.integers(1, 100, corner.shape)], axis=1)
    calls(batch)  # what is done once a process
    assert calls(batch) == calls(batch[:2])
