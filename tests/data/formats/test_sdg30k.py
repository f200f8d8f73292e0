import json
from pathlib import Path

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from sdg.data.formats import read_records, sdg30k, write_records
from sdg.defects import Defect, Diagnosis, Status
from sdg.errors import SdgError
from sdg.io.predictions import read_prediction, write_prediction
from sdg.records import Record
from sdg.response import cut_off, parse_response, render_response

ITEM = {"box_2d": [10, 20, 30, 40], "label": "artifact", "description": "Six fingers.", "importance": 45}
LINE = {"filepath": "a.png", "caption": "a cat", "ann_translated_bboxes": [ITEM]}


def write_lines(path: Path, *lines: dict) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read_one(tmp_path: Path, **changes: object) -> Record:
    [record] = sdg30k.read_annotations(write_lines(tmp_path / "ann.jsonl", LINE | changes))
    return record


def predict_one(tmp_path: Path, line: dict, **options: str) -> Record:
    [record] = read_records(write_lines(tmp_path / "pred.jsonl", line), "predictions", **options)
    return record


def test_an_annotation_becomes_a_record(tmp_path):
    record = read_one(tmp_path, generator="FLUX.2-dev", split="test", annotator=7, seed=3)
    assert record == Record(
        "a.png",
        "a cat",
        Diagnosis((Defect((10, 20, 30, 40), "artifact", "Six fingers.", 45),)),
        generator="FLUX.2-dev",
        split="test",
        annotator="7",
        metadata={"seed": 3},
    )


def test_an_empty_list_is_a_clean_image_and_null_an_unannotated_one(tmp_path):
    assert read_one(tmp_path, ann_translated_bboxes=[]).diagnosis == Diagnosis()
    assert read_one(tmp_path, ann_translated_bboxes=None).diagnosis is None
    assert read_one(tmp_path, ann_translated_bboxes=None, _diagnosis={}).diagnosis is None


def test_the_think_block_of_the_target_is_the_reasoning(tmp_path):
    target = "<think>\nStep 1\n</think>\n<answer>\n[]\n</answer>"
    assert read_one(tmp_path, ann_response=target).diagnosis.reasoning == "Step 1"


@pytest.mark.parametrize(
    "target",
    [
        "<think>a</think><answer>[]</answer>",
        "<think>\n\na\n\n</think>\n<answer>[]</answer>",
        "<think>a <\\/think> b</think><answer>[]</answer>",
        "<think>a</think><think>b</think><answer>[]</answer>",
        "<think>a</think><answer>[]</answer></think>",
        "  <think>a</think><answer>[]</answer>",
        "<THINK>a</THINK><answer>[]</answer>",
        "<answer>[]</answer>",
        "",
    ],
)
def test_the_reasoning_is_what_the_parser_reads(tmp_path, target):
    assert read_one(tmp_path, ann_response=target).diagnosis.reasoning == parse_response(target).reasoning


def test_the_label_both_is_one_defect_of_each_type(tmp_path):
    defects = read_one(tmp_path, ann_translated_bboxes=[ITEM | {"label": "both"}]).diagnosis.defects
    assert [defect.type for defect in defects] == ["artifact", "misalignment"]
    assert {(defect.box, defect.reason, defect.importance) for defect in defects} == {
        ((10, 20, 30, 40), "Six fingers.", 45)
    }


def test_desc_is_an_alias_and_what_is_missing_stays_unknown(tmp_path):
    items = [
        {"box_2d": [0, 0, 1, 1], "label": "artifact", "desc": "x"},
        {"box_2d": [0, 0, 1, 1], "label": "artifact"},
    ]
    first, second = read_one(tmp_path, ann_translated_bboxes=items).diagnosis.defects
    assert (first.reason, first.importance) == ("x", None)
    assert (second.reason, second.importance) == ("", None)


def test_other_box_orders_are_converted_only_on_request(tmp_path):
    path = write_lines(tmp_path / "ann.jsonl", LINE)
    assert next(sdg30k.read_annotations(path)).diagnosis.defects[0].box == (10, 20, 30, 40)
    assert next(read_records(path, box_order="yxyx")).diagnosis.defects[0].box == (20, 10, 40, 30)
    with pytest.raises(ValueError, match="xyxy"):
        read_records(path, box_order="yyxx")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"filepath": None}, "'filepath' is text, not None."),
        ({"filepath": ""}, "A record needs the path of its image"),
        ({"caption": 3}, "'caption' is text, not 3."),
        ({"generator": ["a"]}, "'generator' is text, not ['a']."),
        ({"ann_translated_bboxes": {}}, "The defects are a JSON list, not {}."),
        ({"ann_translated_bboxes": ["x"]}, "Defect 1: A defect is a JSON object, not 'x'."),
        ({"ann_translated_bboxes": [ITEM, {"label": "artifact"}]}, "Defect 2: 'box_2d' is missing."),
        ({"ann_translated_bboxes": [{"box_2d": [0, 0, 1, 1]}]}, "Defect 1: 'label' is missing."),
        ({"ann_translated_bboxes": [ITEM | {"box_2d": [0, 0, 1001, 9]}]}, "<= 1000, not [0, 0, 1001, 9]."),
        ({"ann_translated_bboxes": [ITEM | {"box_2d": [-1, 0, 5, 9]}]}, "not [-1, 0, 5, 9]."),
        ({"ann_translated_bboxes": [ITEM | {"box_2d": [5, 0, 5, 9]}]}, "not [5, 0, 5, 9]."),
        ({"ann_translated_bboxes": [ITEM | {"box_2d": [1, 2, 3]}]}, "A box is four integers"),
        ({"ann_translated_bboxes": [ITEM | {"box_2d": "1234"}]}, "A box is four integers"),
        ({"ann_translated_bboxes": [ITEM | {"box_2d": [0.5, 0, 5, 9]}]}, "A box is four integers"),
        ({"ann_translated_bboxes": [ITEM | {"label": "blur"}]}, "The label is 'artifact', 'misalignment' or"),
        ({"ann_translated_bboxes": [ITEM | {"label": ["both"]}]}, "not ['both']."),
        ({"ann_translated_bboxes": [ITEM | {"importance": 0}]}, "from 1 to 100, not 0."),
        ({"ann_translated_bboxes": [ITEM | {"importance": 101}]}, "from 1 to 100, not 101."),
        ({"ann_translated_bboxes": [ITEM | {"description": None}]}, "A reason is text, not None."),
        ({"ann_translated_bboxes": [ITEM | {"subtype": 3}]}, "'subtype' is text, not 3."),
        ({"_diagnosis": {"status": "fine"}}, "status is one of ok, repaired"),
    ],
)
def test_a_fault_in_the_truth_names_file_line_and_reason(tmp_path, changes, reason):
    path = write_lines(tmp_path / "ann.jsonl", LINE, LINE | changes)
    with pytest.raises(SdgError) as error:
        list(sdg30k.read_annotations(path))
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert reason in str(error.value)


@pytest.mark.parametrize("key", ["filepath", "caption", "ann_translated_bboxes"])
def test_a_missing_key_is_named(tmp_path, key):
    line = {name: value for name, value in LINE.items() if name != key}
    with pytest.raises(SdgError, match=f"line 1: '{key}' is missing"):
        list(sdg30k.read_annotations(write_lines(tmp_path / "ann.jsonl", line)))


def test_a_prediction_is_parsed_leniently(tmp_path):
    text = '<answer>[{"bbox": [30, 20, 10, 40.4], "label": "artifact"}, {"label": "artifact"}'
    record = predict_one(tmp_path, {"filename": "a.png", "caption": "a cat", "response": text, "model": "m"})
    assert (record.filepath, record.prompt, record.metadata) == ("a.png", "a cat", {"model": "m"})
    assert record.diagnosis == parse_response(text)
    assert (record.diagnosis.raw, record.diagnosis.defects[0].box) == (text, (10, 20, 30, 40))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"response": None}, ""),
        ({"response": None, "error": "timed out"}, "timed out"),
        ({"error": "timed out"}, "timed out"),
        ({"status": "failed"}, ""),
        ({"status": "failed", "response": "half an ans"}, ""),
        ({"response": "half an ans", "error": "timed out"}, "timed out"),
    ],
)
def test_no_response_or_an_error_is_a_failed_diagnosis(tmp_path, line, error):
    record = predict_one(tmp_path, {"filepath": "a.png"} | line)
    assert record.diagnosis == Diagnosis(status=Status.FAILED)
    assert (record.diagnosis.raw, record.diagnosis.error) == (line.get("response") or "", error)
    assert record.metadata == {}


def test_an_error_that_is_no_text_is_kept_as_it_is(tmp_path):
    record = predict_one(tmp_path, {"filepath": "a.png", "error": {"code": 429}})
    assert (record.diagnosis.status, record.diagnosis.error) == (Status.FAILED, "")
    assert record.metadata == {"error": {"code": 429}}


def test_an_empty_error_and_another_status_mean_nothing(tmp_path):
    line = {"filepath": "a.png", "response": "<answer>[]</answer>", "error": None, "status": "done"}
    record = predict_one(tmp_path, line)
    assert record.diagnosis.is_clean
    assert record.metadata == {"error": None, "status": "done"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"response": "x"}, "'filepath' is missing."),
        ({"filepath": "a.png"}, "'response' is missing; where the detector failed it is null."),
        ({"filepath": "a.png", "response": []}, "'response' is the detector's raw text, not []."),
    ],
)
def test_a_line_that_is_no_prediction_is_an_error(tmp_path, line, reason):
    with pytest.raises(SdgError) as error:
        predict_one(tmp_path, line)
    assert str(error.value) == f"{tmp_path / 'pred.jsonl'}, line 1: {reason}"


def test_yxyx_predictions_are_turned_after_parsing(tmp_path):
    item = {"box_2d": [40, 10, 20, 30], "label": "artifact", "description": "x"}
    text = f"<think></think><answer>{json.dumps([item])}</answer>"
    record = predict_one(tmp_path, {"filepath": "a.png", "response": text}, box_order="yxyx")
    assert record.diagnosis.defects[0].box == (10, 20, 30, 40)
    # Written again, the boxes are xyxy: the raw text, which is not, does not survive.
    out = tmp_path / "out.jsonl"
    write_records(out, [record], "predictions")
    [again] = read_records(out, "predictions")
    assert again.diagnosis.defects == record.diagnosis.defects


def test_a_raw_response_is_written_as_it_was_unless_the_diagnosis_was_changed(tmp_path):
    raw = "Sure!\n<think>t</think><answer>[]</answer>"
    kept = Record("a.png", "", parse_response(raw))
    changed = Record("b.png", "", Diagnosis((Defect((0, 0, 1, 1), "artifact"),), raw=raw))
    write_records(tmp_path / "out.jsonl", [kept, changed], "predictions")
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert first["response"] == raw
    assert second["response"] == render_response(changed.diagnosis)


@pytest.mark.parametrize("diagnosis", [None, Diagnosis(status=Status.TRUNCATED)])
def test_what_no_response_says_is_not_written_as_one(tmp_path, diagnosis):
    with pytest.raises(SdgError, match=r"record 1: .*(no diagnosis|'truncated')"):
        write_records(tmp_path / "out.jsonl", [Record("a.png", "", diagnosis)], "predictions")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.from_type(Record), min_size=1, max_size=3))
def test_annotations_come_back_as_they_were(tmp_path_factory, everything, records):
    path = tmp_path_factory.mktemp("sdg30k") / "ann.jsonl"
    assert sdg30k.write_annotations(path, records) == len(records)
    assert everything(sdg30k.read_annotations(path)) == everything(records)


def test_an_image_of_which_nothing_is_known_is_never_written_as_clean(tmp_path):
    for diagnosis in (Diagnosis(status="failed"), Diagnosis(status="truncated"), None):
        assert sdg30k.to_annotation(Record("a.png", "", diagnosis))["ann_translated_bboxes"] is None


@pytest.mark.parametrize(
    "response",
    ["<think>a</think><answer>[]</answer>", "<think>no answer yet", "<answer>[]</answer> and then <answer>["],
)
def test_a_response_told_to_be_cut_off_is_never_clean(tmp_path, response):
    record = predict_one(tmp_path, {"filepath": "a.png", "response": response, "status": "truncated"})
    assert record.diagnosis.status is Status.TRUNCATED
    assert not record.diagnosis.is_clean
    assert record.metadata == {}
    assert read_prediction(write_prediction(record)) == record


responses = st.text(max_size=20) | st.builds(
    render_response, strategies.answers.filter(lambda diagnosis: diagnosis.is_informative)
)


def read(response, told_cut_off):
    diagnosis = parse_response(response)
    return cut_off(diagnosis) if told_cut_off and response else diagnosis


@given(
    st.lists(
        st.builds(
            lambda record, text, cut, told: Record(
                record.filepath,
                record.prompt,
                Diagnosis(status="failed", raw=text) if cut < 0 else read(text[: len(text) - cut], told),
                record.generator,
                record.split,
                record.annotator,
                record.metadata,
            ),
            st.from_type(Record),
            responses,
            st.integers(-1, 9),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_predictions_come_back_as_they_were(tmp_path_factory, everything, records):
    path = tmp_path_factory.mktemp("sdg30k") / "pred.jsonl"
    assert write_records(path, records, "predictions") == len(records)
    assert everything(read_records(path, "predictions")) == everything(records)
