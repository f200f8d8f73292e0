"""What people enter is read strictly: Label Studio takes anything, rows do not."""

import copy
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio import verdict

from sdg.annotate.results import read_annotation, read_review, salvaged
from sdg.data.formats.label_studio import write_regions
from sdg.defects import Defect, Diagnosis
from sdg.errors import reasons

HAND = Defect((100, 200, 300, 400), "artifact", "The hand has six fingers.", 70, "anatomy")
HAT = Defect((500, 500, 700, 640), "misalignment", "The hat is blue.", 35)
BOTH = Diagnosis((HAND, HAT))


def drawn(diagnosis=BOTH):
    return copy.deepcopy(write_regions(diagnosis, "drawn", (640, 480)))


def faults(results) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_annotation(results)
    return " ".join(reasons(caught.value))


def of(results, control, region=0):
    return [one for one in results if one["from_name"] == control][region]


def test_what_was_drawn_is_read_as_it_is():
    assert read_annotation(drawn()).to_dict() == BOTH.to_dict()
    assert read_annotation(drawn(Diagnosis())).is_clean


def without(control):
    return lambda results: [one for one in results if one["from_name"] != control]


def change(control, key, value):
    def changed(results):
        of(results, control)["value"][key] = value
        return results

    return changed


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda results: [], "No box is drawn; a picture without defects gets one box"),
        (without("label"), "A box has no label"),
        (without("reason"), "Region 1 has no reason; say which part it is"),
        (without("importance"), "Region 2 has no importance; give a whole number"),
        (change("reason", "text", ["   "]), "Region 1 has no reason"),
        (change("reason", "text", ["long " * 500]), "longer than 2,000"),
        (change("importance", "number", 55.5), "importance is an integer from 1 to 100, not 55.5"),
        (change("importance", "number", 999), "importance is an integer from 1 to 100, not 999"),
        (change("label", "width", 0.1), "Region 1 is too small to be a defect"),
        (change("label", "x", 95), "leaves the image"),
        (change("label", "rotation", 30), "The box is turned; draw it upright"),
        (change("label", "rectanglelabels", ["dog"]), "labelled 'artifact', 'misalignment' or 'no problem'"),
        (lambda results: results + drawn(Diagnosis()), "'no problem' beside defects; keep one or the other"),
        (lambda results: [*results, {**results[0], "id": "twin"}], "Region 3 has no reason"),
        (lambda results: [*results, {**results[0], "from_name": "mood"}], "does not ask for: 'mood'"),
        (lambda results: "nothing", "An annotation is a list of results"),
        (lambda results: [None], "An annotation is a list of results"),
        (lambda results: [{"from_name": "label", "id": "a", "value": 3}], "A result is a JSON object"),
    ],
)
def test_each_fault_is_named_for_whoever_drew_it(spoil, words):
    assert words in faults(spoil(drawn()))


def test_the_same_box_twice_is_a_fault():
    twice = drawn() + [{**one, "id": "again"} for one in drawn(Diagnosis((HAND,)))]
    assert "Region 3 is the same box as another; delete one of them." in faults(twice)


def test_a_review_accepts_fixes_or_rejects():
    fixed = Diagnosis((HAND,))
    review, result = read_review(drawn() + verdict("accept"), BOTH)
    assert (review.verdict, result) == ("accept", BOTH)
    review, result = read_review(drawn(fixed) + verdict("fix", "No hat."), BOTH)
    assert (review.comment, result) == ("No hat.", fixed)
    review, result = read_review(verdict("reject", "Look at the hat."), BOTH)
    assert (review.verdict, review.comment, result) == ("reject", "Look at the hat.", BOTH)


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (drawn(), "The review has no verdict"),
        (drawn() + verdict("perhaps"), "The review has no verdict"),
        (drawn() + verdict("accept") + verdict("fix"), "The review has no verdict"),
        (drawn() + verdict("reject"), "no comment says why"),
        (drawn() + verdict("reject", "  "), "no comment says why"),
        (drawn() + verdict("fix"), "nothing was changed"),
        (drawn(Diagnosis((HAT,))) + verdict("accept"), "the defects were changed; choose fix"),
        (verdict("accept"), "No box is drawn"),
    ],
)
def test_a_review_that_contradicts_itself_goes_back(results, words):
    with pytest.raises(ValueError, match=words):
        read_review(results, BOTH)


def test_what_can_be_drawn_again_is_kept():
    results = drawn()
    of(results, "importance")["value"]["number"] = 999
    of(results, "label", 1)["value"]["x"] = 99
    (kept,) = salvaged(results).defects
    assert (kept.box, kept.reason, kept.importance) == (HAND.box, HAND.reason, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
RESULT = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "from_name": st.sampled_from(["label", "reason", "importance", "subtype", "verdict", "comment"])
        | JSON,
        "type": JSON,
        "value": st.dictionaries(
            st.sampled_from(["x", "y", "width", "height", "rectanglelabels", "text", "number", "choices"]),
            JSON | st.sampled_from([["artifact"], ["no problem"], 10.0]),
        )
        | JSON,
    },
)


@given(st.lists(RESULT | JSON, max_size=6) | JSON)
def test_whatever_a_server_says_is_an_annotation_or_a_fault(results):
    for read in (read_annotation, lambda one: read_review(one, BOTH)):
        with suppress(ValueError):
            assert read(results)
    assert len(salvaged(results).defects) <= 200
