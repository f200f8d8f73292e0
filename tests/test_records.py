import json
from dataclasses import asdict

import pytest
import strategies
from hypothesis import given

import sdg
from sdg.records import Record


def test_a_record_needs_a_path_and_a_prompt_only():
    record = sdg.Record("a.png", "a cat")
    assert isinstance(record, Record)
    assert (record.diagnosis, record.generator, record.split, record.annotator, record.metadata) == (
        None,
        None,
        None,
        None,
        {},
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"filepath": ""}, "the path of its image as text, not ''"),
        ({"filepath": None}, "the path of its image as text, not None"),
        ({"prompt": None}, "A record's prompt is text, not None"),
        ({"generator": ""}, "is a name or None, not ''"),
        ({"split": 1}, "is a name or None, not 1"),
        ({"annotator": 7}, "is a name or None, not 7"),
    ],
)
def test_what_is_no_record_is_refused_in_a_sentence(values, reason):
    with pytest.raises(ValueError, match=reason):
        Record(**{"filepath": "a.png", "prompt": "a cat"} | values)


@given(strategies.records)
def test_a_record_comes_back_whole_from_json(record):
    assert asdict(Record.from_dict(json.loads(json.dumps(record.to_dict())))) == asdict(record)


@given(strategies.json_values)
def test_any_other_json_is_refused_in_a_sentence(value):
    with pytest.raises(ValueError, match=r".") as caught:
        Record.from_dict(value)
    assert "\n" not in str(caught.value)
