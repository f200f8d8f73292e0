import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.data.formats import native
from sdg.errors import Faults, SdgError
from sdg.records import Record

DEFECT = {"box": [0, 0, 10, 10], "type": "artifact", "reason": "x", "importance": 3, "subtype": "anatomy"}
LINE = {"filepath": "a.png", "prompt": "a cat", "diagnosis": {"defects": [DEFECT]}}


@given(st.lists(st.from_type(Record), min_size=1, max_size=3))
def test_every_field_comes_back_as_it_was(tmp_path_factory, everything, records):
    path = tmp_path_factory.mktemp("native") / "a.jsonl"
    assert native.write(path, records) == len(records)
    assert everything(native.read(path)) == everything(records)


def test_a_line_reads_as_its_names_say(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(LINE))
    [record] = native.read(path)
    [defect] = record.diagnosis.defects
    assert (defect.box, defect.type, defect.importance, defect.subtype) == (
        (0, 0, 10, 10),
        "artifact",
        3,
        "anatomy",
    )
    assert record.to_dict() == LINE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 3}, "A record has no key 'seed'; anything else belongs into a record's 'metadata'."),
        ({"metadata": []}, "'metadata' is a JSON object, not []."),
        ({"diagnosis": []}, "A diagnosis is an object with a list of 'defects', not []."),
        ({"diagnosis": {"defects": None}}, "The defects are a JSON list, not None."),
        ({"diagnosis": {"defects": [], "status": "good"}}, "A diagnosis's status is one of ok, "),
        ({"diagnosis": {"defects": [], "repairs": "none"}}, "Repairs are a list of names, not 'none'."),
        ({"diagnosis": {"defects": [DEFECT], "status": "failed"}}, "status 'failed' knows no defects."),
        ({"diagnosis": {"defects": [DEFECT | {"box": 3}]}}, "Defect 1: A box is four integers"),
        (
            {"diagnosis": {"defects": [DEFECT | {"type": "both"}]}},
            "is 'artifact' or 'misalignment', not 'both'.",
        ),
        ({"diagnosis": {"defects": [DEFECT | {"importance": True}]}}, "from 1 to 100, not True."),
        ({"diagnosis": {"defects": [DEFECT | {"colour": 1}]}}, "Defect 1: A defect has no key 'colour'"),
        ({"diagnosis": {"defects": [DEFECT | {"subtype": 1}]}}, "Defect 1: 'subtype' is text, not 1."),
        ({"split": 1.5}, "'split' is text, not 1.5."),
    ],
)
def test_a_fault_names_file_line_and_reason(tmp_path, changes, reason):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps(LINE | changes))
    with pytest.raises(SdgError) as error:
        list(native.read(path))
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert reason in str(error.value)


def test_all_faults_of_a_line_are_known():
    bad = DEFECT | {"importance": 0}
    with pytest.raises(Faults) as error:
        Record.from_dict({"filepath": 1, "diagnosis": {"defects": [bad, DEFECT, bad | {"box": []}]}})
    assert [reason.split(":")[0] for reason in error.value.reasons] == [
        "'filepath' is text, not 1.",
        "'prompt' is missing.",
        "Defect 1",
        "Defect 3",
    ]
