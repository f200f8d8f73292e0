"""Bootstrap and permutation test against naive loops, and the comparison of two predictions."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sdg import Defect, Diagnosis
from sdg.evaluation import METRICS, compare, evaluate, resampling
from sdg.evaluation.resampling import bootstrap_sums, draws, interval, swapped_sums
from sdg.evaluation.tables import comparison_tables


def make(rng, images, recall):
    """Each image has up to three artifacts, of which a detector finds a share, its boxes shifted."""
    truth, predicted = [], []
    for _ in range(images):
        true, found = [], []
        for at in range(rng.randint(0, 3)):
            true.append(Defect((at * 300, 0, at * 300 + 200, 200), "artifact", "x", rng.randint(1, 100)))
            if rng.random() < recall:
                shift = rng.randint(0, 90)
                box = (at * 300 + shift, 0, at * 300 + 200, 200)
                found.append(Defect(box, "artifact", "x", rng.randint(1, 100)))
        if rng.random() < 0.2:
            found.append(Defect((0, 800, 100, 1000), "misalignment", "x", 50))
        truth.append(true)
        predicted.append(found)
    return truth, predicted


def test_every_resample_draws_as_many_images_each_as_likely():
    table = np.eye(7)  # the sums are then the number of times each image was drawn
    drawn = bootstrap_sums(table, 20_000, seed=1)
    assert (drawn.sum(1) == 7).all()
    assert drawn.mean(0) == pytest.approx(np.ones(7), abs=0.05)
    assert drawn.var(0) == pytest.approx(np.full(7, 6 / 7), abs=0.05)  # multinomial
    assert (drawn == bootstrap_sums(table, 20_000, seed=1)).all()
    assert not (drawn == bootstrap_sums(table, 20_000, seed=2)).all()


def test_some_of_the_resamples_are_those_of_all(monkeypatch):
    monkeypatch.setattr(resampling, "_CHUNK", 150)  # three resamples at a time
    table = np.random.default_rng(0).random((50, 5)) * [1, 0, 2, 3, 0]
    whole = bootstrap_sums(table, 40, seed=1)
    drawn = list(draws(40, 50, np.random.default_rng(1)))
    assert len(drawn) == 14
    apart = np.zeros_like(whole)
    for some in (drawn[::2], drawn[1::2], []):
        assert bootstrap_sums(table, 40, 1, some, apart) is apart
    assert (apart == whole).all()


@pytest.mark.parametrize("pieces", [1, 30, 1 << 18])
def test_sums_are_those_of_the_images_drawn(pieces, monkeypatch):
    monkeypatch.setattr(resampling, "_ONE_THREAD", pieces)
    table = np.random.default_rng(0).integers(0, 9, (23, 4)).astype(float)
    drawn = np.random.default_rng(3).integers(0, 23, (11, 23), np.int32)
    assert (bootstrap_sums(table, 11, seed=3) == table[drawn].sum(1)).all()


def test_intervals_agree_with_a_naive_bootstrap():
    rng = random.Random(0)
    truth, predicted = make(rng, 60, 0.6)
    result = evaluate(truth, predicted, bootstrap=4000)
    samples = {name: [] for name in METRICS}
    for _ in range(300):
        chosen = rng.choices(range(60), k=60)
        again = evaluate([truth[i] for i in chosen], [predicted[i] for i in chosen])
        for name, value in again.metrics["artifact"].items():
            samples[name].append(value)
    for name in METRICS:
        point = result.metrics["artifact"][name]
        if point is None:
            assert result.intervals["artifact"][name] is None
            continue
        low, high = result.intervals["artifact"][name]
        assert low <= point <= high
        naive = np.quantile([v for v in samples[name] if v is not None], (0.025, 0.975))
        assert (low, high) == pytest.approx(tuple(naive), abs=0.04)


def test_an_interval_ignores_resamples_in_which_the_metric_is_undefined():
    samples = np.array([[0.0, np.nan, np.nan], [1.0, 0.5, np.nan]])
    low, high = interval(samples)
    assert low == pytest.approx([0.025, 0.5, np.nan], nan_ok=True)
    assert high == pytest.approx([0.975, 0.5, np.nan], nan_ok=True)


def test_swapping_keeps_the_total_and_moves_whole_images():
    first, second = (
        np.array([[8.0, 1.0], [0.0, 0.0], [2.0, 2.0]]),
        np.array([[0.0, 0.0], [4.0, 2.0], [1.0, 3.0]]),
    )
    one, other = swapped_sums(first, second, 500, seed=0)
    assert (one + other == (first + second).sum(0)).all()
    reachable = {
        tuple(sum(np.where(take, a, b) for take, a, b in zip(takes, first, second, strict=True)).tolist())
        for takes in np.ndindex(2, 2, 2)
    }
    assert {tuple(row) for row in one.tolist()} == reachable


def test_a_comparison_reports_the_difference_on_the_same_images():
    rng = random.Random(3)
    truth, good = make(rng, 150, 0.9)
    poor = [image[: len(image) // 2] for image in good]
    first, second = evaluate(truth, good), evaluate(truth, poor)
    result = compare(first, second, resamples=999)
    metric = "BoxRe@0.1"
    own, other = first.metrics["artifact"][metric], second.metrics["artifact"][metric]
    assert result.difference["artifact"][metric] == pytest.approx(own - other)
    low, high = result.intervals["artifact"][metric]
    assert 0 < low < own - other < high
    assert result.p_values["artifact"][metric] == 1 / 1000
    back = compare(second, first, resamples=999)
    assert back.difference["artifact"][metric] == pytest.approx(other - own)
    assert back.p_values["artifact"][metric] == 1 / 1000


def test_p_values_agree_with_a_naive_permutation_test():
    rng = random.Random(5)
    truth, first = make(rng, 40, 0.65)
    _, second = make(random.Random(6), 40, 0.65)
    second = [image if rng.random() < 0.3 else other for image, other in zip(second, first, strict=True)]
    result = compare(evaluate(truth, first), evaluate(truth, second), resamples=4000)
    observed = result.difference["artifact"]["BoxF1@0.1"]
    hits, rounds = 0, 200
    for _ in range(rounds):
        one, other = [], []
        for a, b in zip(first, second, strict=True):
            a, b = (b, a) if rng.random() < 0.5 else (a, b)
            one.append(a)
            other.append(b)
        scores = [evaluate(truth, side).metrics["artifact"]["BoxF1@0.1"] for side in (one, other)]
        hits += abs(scores[0] - scores[1]) >= abs(observed) - 1e-12
    assert 0.02 < result.p_values["artifact"]["BoxF1@0.1"] < 0.98
    assert result.p_values["artifact"]["BoxF1@0.1"] == pytest.approx(hits / rounds, abs=0.12)


def test_equal_predictions_do_not_differ():
    truth, predicted = make(random.Random(1), 30, 0.5)
    result = compare(evaluate(truth, predicted), evaluate(truth, predicted), resamples=50)
    for name, difference in result.difference["artifact"].items():
        if difference is None:
            assert result.p_values["artifact"][name] is None
            assert result.intervals["artifact"][name] is None
        else:
            assert (difference, result.p_values["artifact"][name]) == (0.0, 1.0)
            assert result.intervals["artifact"][name] == (0.0, 0.0)


def test_an_image_that_either_failed_on_is_left_out_of_both():
    defect = Defect((0, 0, 9, 9), "artifact")
    truth = [[defect]] * 3
    first = evaluate(truth, [[defect], [], Diagnosis(status="failed")])
    second = evaluate(truth, [[defect], Diagnosis(status="failed"), [defect]])
    result = compare(first, second, resamples=10)
    assert result.images == 1
    assert result.first["artifact"]["BoxRe@0.1"] == result.second["artifact"]["BoxRe@0.1"] == 1.0
    nothing = compare(evaluate([], []), evaluate([], []), resamples=10)
    assert (nothing.images, set(nothing.difference["artifact"].values())) == (0, {None})


def test_only_like_is_compared_with_like():
    defect = Defect((0, 0, 9, 9), "artifact")
    base = evaluate([[defect]], [[]])
    with pytest.raises(ValueError, match="same matching"):
        compare(base, evaluate([[defect]], [[]], matching="greedy"))
    with pytest.raises(ValueError, match="same images"):
        compare(base, evaluate([[defect]] * 2, [[]] * 2))
    with pytest.raises(ValueError, match="same truth"):
        compare(base, evaluate([[]], [[]]))
    others = [(5, 5, 9, 9), "artifact"], [(0, 0, 9, 9), "misalignment"], [(0, 0, 9, 9), "artifact", "", 70]
    for other in others:
        with pytest.raises(ValueError, match="same truth"):
            compare(base, evaluate([[Defect(*other)]], [[]]))
    with pytest.raises(ValueError, match="0 resamples or more"):
        compare(base, base, resamples=-1)


def test_without_resamples_there_are_differences_alone():
    defect = Defect((0, 0, 9, 9), "artifact")
    found = compare(evaluate([[defect]], [[defect]]), evaluate([[defect]], [[]]), resamples=0)
    assert found.difference["artifact"]["BoxRe@0.1"] == 1
    assert (found.intervals, found.p_values) == (None, None)
    tables = list(comparison_tables(found, "a", "b"))
    assert tables[0].columns == ("metric", "a", "b", "difference")
    assert {len(row) for table in tables for row in table.rows} == {4}


def test_the_truth_is_the_same_in_any_order_and_beside_what_is_left_out():
    one, other = Defect((0, 0, 9, 9), "artifact", "x", 5), Defect((1, 1, 5, 5), "artifact")
    failed = Diagnosis(status="failed")
    first = evaluate([[one, other], [one]], [[one], failed])
    second = evaluate([[other, one], [other]], [[one], [one]])
    assert compare(first, second, resamples=10).images == 1
