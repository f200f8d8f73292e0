"""Defects in wire form: what is written comes back, and the truth is read strictly."""

import json
from dataclasses import asdict, replace

import pytest
import strategies
from hypothesis import given

from sdg.defects import Defect, Diagnosis
from sdg.response import parse_response, render_response
from sdg.response.strict import read_defects, read_diagnosis, write_defects, write_diagnosis


@given(strategies.diagnoses)
def test_what_is_written_comes_back(diagnosis):
    again = read_diagnosis(json.loads(json.dumps(write_diagnosis(diagnosis))))
    assert asdict(again) == asdict(replace(diagnosis, raw=""))  # raw is not for people


@given(strategies.answers.filter(lambda diagnosis: diagnosis.is_informative))
def test_the_items_are_those_of_a_response(diagnosis):
    answer = render_response(diagnosis, think=False).removeprefix("<answer>").removesuffix("</answer>")
    items = json.loads(answer)
    assert read_defects(items) == parse_response(render_response(diagnosis)).defects == diagnosis.defects
    # Only the subtype, which is not on the wire, is written beside it.
    assert [
        {k: v for k, v in item.items() if k != "subtype"} for item in write_defects(diagnosis.defects)
    ] == items


def test_axes_can_be_exchanged():
    [item] = write_defects([Defect((1, 2, 30, 40), "artifact")])
    assert read_defects([item], "yxyx")[0].box == (2, 1, 40, 30)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], "A diagnosis is an object"),
        ({"status": "ok"}, "A diagnosis is an object"),
        ({"defects": [{"label": "artifact"}]}, "Defect 1: 'box_2d' is missing."),
        ({"defects": [], "status": "fine"}, "status is one of ok"),
        ({"defects": [], "colour": "red"}, "no key 'colour'"),
        ({"defects": [], "repairs": "x"}, "Repairs are a list of names"),
    ],
)
def test_what_is_no_diagnosis_is_refused(value, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_diagnosis(value)


def test_nothing_known_stays_nothing_known():
    for status in ("failed", "unparseable", "truncated"):
        assert not read_diagnosis(write_diagnosis(Diagnosis(status=status))).is_informative
