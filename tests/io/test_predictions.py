"""One line of predictions: what is written comes back, and what is not an answer is never clean."""

import json
from dataclasses import asdict

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from sdg.defects import Diagnosis, Status
from sdg.io.predictions import read_prediction, write_prediction
from sdg.records import Record
from sdg.response import cut_off, parse_response

CLEAN = "<think>a</think><answer>[]</answer>"


@given(st.text(max_size=30) | st.just(CLEAN), st.booleans(), st.booleans(), strategies.texts)
def test_a_detectors_answer_comes_back_as_it_was_said(response, require_think, cut, prompt):
    found = parse_response(response, require_think=require_think)
    found = cut_off(found) if cut and response else found
    line = json.loads(json.dumps(write_prediction(Record("a.png", prompt, found), response)))
    assert list(line) == ["filepath", "caption", "response", "status"]
    assert (line["response"], line["status"]) == (response, found.status.value)
    again = read_prediction(line, require_think=require_think)
    assert asdict(again) == asdict(Record("a.png", prompt, found))


def test_a_failed_answer_has_its_error_beside_it():
    failed = Record("a.png", "a cat", Diagnosis(status="failed", error="It was late."))
    line = write_prediction(failed, "")
    assert line == {
        "filepath": "a.png",
        "caption": "a cat",
        "response": None,
        "status": "failed",
        "error": "It was late.",
    }
    again = read_prediction(line)
    assert (again, again.diagnosis.error) == (failed, "It was late.")


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_a_status_of_no_answer_outlives_a_response_that_reads_as_clean(status):
    read = read_prediction({"filepath": "a.png", "response": CLEAN, "status": status.value}).diagnosis
    assert read.is_clean is (status is Status.REPAIRED)  # of a mended answer the text says all
