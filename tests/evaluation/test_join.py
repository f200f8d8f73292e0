"""Truth and predictions meet by file path, and nothing gets lost on the way unsaid."""

from __future__ import annotations

import gc

import pytest

from sdg import Defect, Diagnosis, Record
from sdg.evaluation import join

CLEAN = Diagnosis()


def records(*paths, diagnosis=CLEAN):
    return [Record(path, f"prompt of {path}", diagnosis, generator="FLUX") for path in paths]


def test_order_does_not_matter():
    defect = Defect((0, 0, 9, 9), "artifact")
    truth = records("a", "b", diagnosis=Diagnosis((defect,), reasoning="long"))
    predicted = [*records("b"), *records("a", diagnosis=Diagnosis(raw="raw", status="repaired"))]
    joined = join(truth, predicted)
    assert joined.is_complete
    assert joined.mismatch() == ""
    assert joined.paths == ("a", "b")
    assert joined.prompts == ("prompt of a", "prompt of b")
    assert joined.generators == ("FLUX", "FLUX")
    assert [diagnosis.defects for diagnosis in joined.truth] == [(defect,)] * 2
    assert [str(diagnosis.status) for diagnosis in joined.predicted] == ["repaired", "ok"]


def test_reasonings_and_raw_responses_are_let_go_of():
    joined = join(
        records("a", diagnosis=Diagnosis(reasoning="long")),
        records("a", diagnosis=Diagnosis(raw="raw", reasoning="long", repairs=("code-fence",))),
    )
    assert joined.truth == (CLEAN,)
    assert (joined.predicted[0].raw, joined.predicted[0].repairs) == ("", ("code-fence",))


def test_missing_extra_duplicated_and_unannotated_are_told_apart():
    truth = [*records("a", "b", "c", "a"), *records("d", diagnosis=None)]
    predicted = [*records("b", "x", "d", "y", "b"), *records("c", diagnosis=None)]
    joined = join(truth, predicted)
    assert joined.paths == ("b",)
    assert joined.missing == ("a", "c")
    assert joined.extra == ("x", "y")
    assert joined.duplicated == ("b", "a")
    assert joined.unannotated == ("d",)
    assert not joined.is_complete
    assert joined.mismatch() == (
        "2 images (a, c) without a prediction; 2 images (x, y) without a truth; "
        "2 images (b, a) more than once in one file, where the first line counts; d not annotated"
    )


def test_of_a_duplicate_the_first_line_counts():
    first, second = Diagnosis((Defect((0, 0, 9, 9), "artifact"),)), CLEAN
    joined = join(records("a"), [*records("a", diagnosis=first), *records("a", diagnosis=second)])
    assert joined.predicted == (first,)


def test_long_lists_are_cut():
    joined = join(records(*"abcdef"), [])
    assert joined.mismatch() == "6 images (a, b, c and 3 more) without a prediction"


def test_the_garbage_collector_is_left_as_it_was():
    def broken():
        yield from records("a")
        raise RuntimeError

    assert gc.isenabled()
    with pytest.raises(RuntimeError):
        join(records("a"), broken())
    assert gc.isenabled()
