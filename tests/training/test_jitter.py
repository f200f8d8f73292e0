"""Coordinate jitter: boxes move a little, each coordinate by itself, and stay boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.defects import Defect, Diagnosis
from sdg.response import parse_response, render_response
from sdg.training.dataset import jitter


@st.composite
def diagnoses(draw):
    """Boxes of all sizes, thin ones and ones at the border among them."""
    found = []
    for _ in range(draw(st.integers(0, 5))):
        near = st.integers(0, 1000) | st.sampled_from([0, 1, 2, 3, 997, 998, 999, 1000])
        xs, ys = (sorted(draw(st.lists(near, min_size=2, max_size=2, unique=True))) for _ in range(2))
        kind = draw(st.sampled_from(["artifact", "misalignment"]))
        box = (xs[0], ys[0], xs[1], ys[1])
        found.append(
            Defect(box, kind, draw(st.text(max_size=5)), draw(st.none() | st.integers(1, 100)), "anatomy")
        )
    return Diagnosis(tuple(found), reasoning=draw(st.text(max_size=5)))


def coordinates(diagnosis):
    return np.array([defect.box for defect in diagnosis.defects]).reshape(-1, 4)


@given(diagnoses(), st.integers(0, 2**32), st.sampled_from([0, 0.4, 1, 10, 35.5, 5000]))
def test_boxes_stay_boxes_and_move_at_most_by_the_amount(diagnosis, seed, amount):
    moved = jitter(diagnosis, np.random.default_rng(seed), amount)
    boxes, before = coordinates(moved), coordinates(diagnosis)
    assert boxes.min(initial=0) >= 0
    assert boxes.max(initial=0) <= 1000
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert np.abs(boxes - before).max(initial=0) <= amount + 0.5


@given(diagnoses(), st.integers(0, 2**32))
def test_nothing_but_boxes_changes(diagnosis, seed):
    moved = jitter(diagnosis, np.random.default_rng(seed))
    assert (moved.reasoning, moved.status) == (diagnosis.reasoning, diagnosis.status)
    assert [(d.type, d.reason, d.importance, d.subtype) for d in moved.defects] == [
        (d.type, d.reason, d.importance, d.subtype) for d in diagnosis.defects
    ]
    think = render_response(moved).partition("<answer>")[0]
    assert think == render_response(diagnosis).partition("<answer>")[0]
    assert parse_response(render_response(moved)) == moved


@given(diagnoses(), st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_boxes(diagnosis, seed):
    first, second = (jitter(diagnosis, np.random.default_rng(seed)) for _ in range(2))
    assert first == second


@given(diagnoses(), st.integers(0, 2**32))
def test_an_amount_of_nought_changes_nothing(diagnosis, seed):
    assert jitter(diagnosis, np.random.default_rng(seed), 0) == diagnosis


def test_offsets_are_uniform_and_each_coordinate_has_its_own():
    # Far from the borders and from each other, so that nothing is clamped.
    diagnosis = Diagnosis(tuple(Defect((400, 300, 700, 800), "artifact") for _ in range(20_000)))
    offsets = coordinates(jitter(diagnosis, np.random.default_rng(0))) - [400, 300, 700, 800]
    values, counts = np.unique(offsets, return_counts=True)
    assert values.tolist() == list(range(-10, 11))
    # Rounded U(−10, 10): 1/20 for each whole number, half as much for −10 and 10.
    expected = np.full(21, 80_000 / 20)
    expected[[0, -1]] /= 2
    assert np.abs(counts - expected).max() < 5 * np.sqrt(80_000 / 20)
    correlation = np.corrcoef(offsets.T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_thin_boxes_at_the_border_keep_an_area_for_any_draw():
    corners = [(0, 0, 1, 1), (999, 999, 1000, 1000), (0, 999, 1000, 1000), (500, 500, 501, 501)]
    diagnosis = Diagnosis(tuple(Defect(box, "artifact") for box in corners))
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(2000):
        boxes = coordinates(jitter(diagnosis, rng))
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        seen.add(tuple(boxes[3].tolist()))
    assert len(seen) > 1000


def test_each_draw_differs():
    diagnosis = Diagnosis((Defect((400, 300, 700, 800), "artifact"),))
    rng = np.random.default_rng(0)
    assert len({jitter(diagnosis, rng).defects[0].box for _ in range(50)}) > 45


@pytest.mark.parametrize("amount", [-1, float("inf"), float("nan")])
def test_an_impossible_amount_is_refused(amount):
    with pytest.raises(ValueError, match="amount of jitter"):
        jitter(Diagnosis(), np.random.default_rng(0), amount)
