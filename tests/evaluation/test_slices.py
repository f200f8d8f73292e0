"""Slices against evaluations of the part alone, and the rows the paper published."""

from __future__ import annotations

import pytest

from sdg import Defect
from sdg.evaluation import METRICS, PUBLISHED, evaluate, slices

CRITICAL = Defect((0, 0, 500, 500), "artifact", "x", 95, "anatomy")
MINOR = Defect((600, 600, 700, 700), "artifact", "x", 20, "texture")
UNKNOWN = Defect((900, 900, 990, 990), "misalignment", "x")
TRUTH = [[CRITICAL, MINOR], [UNKNOWN], [MINOR], []]
PREDICTED = [[CRITICAL], [UNKNOWN], [MINOR], [UNKNOWN]]
OF_TRUE_DEFECTS = {"BoxRe@0.1", "BoxRe@0.5", "ImpAcc@0.1", "DescCos@0.1"}


def by_value(parts):
    return {part.value: part for part in parts}


def test_a_generators_slice_is_the_evaluation_of_its_images():
    result = evaluate(TRUTH, PREDICTED, embedder="token-f1")
    parts = by_value(slices(result, "generator", ["FLUX", "SANA", "FLUX", None]))
    assert list(parts) == ["FLUX", "SANA"]
    alone = evaluate([TRUTH[0], TRUTH[2]], [PREDICTED[0], PREDICTED[2]], embedder="token-f1")
    assert parts["FLUX"].metrics == alone.metrics
    assert (parts["FLUX"].images, parts["FLUX"].defects) == (2, {"artifact": 3, "misalignment": 0})


def test_tiers_divide_the_true_defects():
    parts = by_value(slices(evaluate(TRUTH, PREDICTED), "tier"))
    assert list(parts) == ["critical", "minor"]
    assert parts["critical"].metrics["artifact"]["BoxRe@0.1"] == 1.0
    assert parts["minor"].metrics["artifact"]["BoxRe@0.1"] == 0.5
    assert (parts["minor"].images, parts["minor"].defects["artifact"]) == (2, 2)


@pytest.mark.parametrize("by", ["tier", "size", "subtype"])
def test_what_is_not_counted_over_true_defects_is_undefined(by):
    for part in slices(evaluate(TRUTH, PREDICTED, embedder="token-f1", bootstrap=20), by):
        for kind in ("artifact", "misalignment"):
            defined = {name for name, value in part.metrics[kind].items() if value is not None}
            assert defined <= OF_TRUE_DEFECTS
            assert defined == {name for name, bounds in part.intervals[kind].items() if bounds is not None}


def test_sizes_are_shares_of_the_image():
    boxes = {"small": (0, 0, 99, 99), "medium": (0, 0, 100, 100), "large": (0, 0, 200, 500)}
    for name, box in boxes.items():
        truth = [[Defect(box, "artifact")]]
        assert [part.value for part in slices(evaluate(truth, truth), "size")] == [name]


def test_every_true_defect_with_a_size_is_in_one_part():
    result = evaluate(TRUTH, PREDICTED)
    for by, known in (("size", 4), ("tier", 3), ("subtype", 3)):
        assert sum(sum(part.defects.values()) for part in slices(result, by)) == known


def test_subtypes_are_those_of_the_truth():
    parts = by_value(slices(evaluate(TRUTH, PREDICTED), "subtype"))
    assert list(parts) == ["anatomy", "texture"]
    assert parts["texture"].metrics["artifact"]["BoxRe@0.5"] == 0.5


def test_wrong_use_is_refused():
    result = evaluate(TRUTH, PREDICTED)
    with pytest.raises(ValueError, match="generator of every image"):
        slices(result, "generator")
    with pytest.raises(ValueError, match="not by 'colour'"):
        slices(result, "colour")


def test_published_rows_are_those_of_table_2():
    rows = {row.model: row.metrics for row in PUBLISHED}
    assert list(rows) == ["GPT-5.4", "Gemini 3 Pro", "SDG (SFT)", "SDG (GRPO)", "human"]
    assert rows["SDG (GRPO)"]["artifact"]["BoxF1@0.5"] == 0.263
    assert rows["GPT-5.4"]["misalignment"]["ImpAcc@0.1"] == 0.820
    assert rows["human"]["misalignment"]["DescCos@0.1"] is None
    assert all(set(metrics[kind]) < set(METRICS) for metrics in rows.values() for kind in metrics)
