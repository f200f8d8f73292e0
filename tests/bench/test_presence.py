"""Precision, recall and F1 of presence, by hand and against a loop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.bench.presence import presence


def test_by_hand():
    found = presence([True, True, True, False, False], [True, False, True, True, False])
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.f1 == pytest.approx(2 / 3)
    assert (found.pictures, found.present, found.found) == (5, 3, 3)


def test_what_is_undefined_is_none_and_not_zero():
    nothing = presence([False, False], [False, False])
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, None, None)
    assert set(nothing.intervals.values()) == {None}
    missed = presence([True, False], [False, False])
    assert (missed.precision, missed.recall, missed.f1) == (None, 0.0, 0.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_as_a_loop_counts_and_within_its_intervals(pairs):
    truth, said = zip(*pairs, strict=True)
    found = presence(truth, said)
    right = sum(a and b for a, b in pairs)
    if right:
        assert found.precision == pytest.approx(right / sum(said))
        assert found.recall == pytest.approx(right / sum(truth))
        assert found.f1 == pytest.approx(2 / (1 / found.precision + 1 / found.recall))
    for bounds in found.intervals.values():
        assert bounds is None or 0 <= bounds[0] <= bounds[1] <= 1


def test_sides_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="as many pictures"):
        presence([True], [True, False])
    with pytest.raises(ValueError, match="as many pictures"):
        presence([], [])
