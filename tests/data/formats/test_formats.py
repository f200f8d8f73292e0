import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdg.data import formats
from sdg.data.splits import assign_prompts, write_splits
from sdg.data.statistics import statistics
from sdg.data.validation import validate
from sdg.defects import Defect, Diagnosis
from sdg.errors import Faults, SdgError
from sdg.records import Record

RECORD = Record("a.png", "a cat", Diagnosis((Defect((0, 0, 500, 500), "artifact", "x", 5),), "thoughts"))


@pytest.fixture
def images(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    return tmp_path


NAMES = {
    "sdg": "a.jsonl",
    "sdg30k": "b.jsonl",
    "predictions": "c.jsonl",
    "coco": "d.json",
    "label-studio": "e.json",
    "hf": "folder",
}


@pytest.mark.parametrize("format", formats.FORMATS)
def test_each_format_is_written_recognised_and_read(images, format):
    path = images / NAMES[format]
    assert formats.write_records(path, [RECORD], format, images=images) == 1
    assert formats.guess_format(path) == format
    [record] = formats.read_records(path)
    assert (record.filepath, record.prompt, record.diagnosis) == ("a.png", "a cat", RECORD.diagnosis)
    [(_, make)] = formats.read_parts(path)
    assert list(make()) == [record]


@pytest.mark.parametrize("line", [{"filepath": "a.png", "error": "timed out"}, {"response": None}])
def test_a_failed_first_line_is_still_a_prediction(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    assert formats.guess_format(tmp_path / "a.jsonl") == "predictions"


def test_a_format_that_is_not_plain_is_asked_for(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "a.png"}')
    (tmp_path / "listed.jsonl").write_text('{"filepath": "a.png", "caption": "a cat"}\n')
    with pytest.raises(SdgError, match=r"listed\.jsonl lists pictures without annotations; call their texts"):
        formats.guess_format(tmp_path / "listed.jsonl")
    with pytest.raises(SdgError, match="is not plain from its first line; name it: sdg, sdg30k, predictions"):
        formats.guess_format(tmp_path / "a.jsonl")


@pytest.mark.parametrize("read", [formats.read_records, formats.read_parts])
def test_the_box_order_is_for_the_formats_that_have_several(tmp_path, read):
    formats.write_records(tmp_path / "a.jsonl", [RECORD], "sdg")
    with pytest.raises(SdgError, match="'sdg' have one order only"):
        read(tmp_path / "a.jsonl", box_order="yxyx")


def test_a_dataset_folder_needs_the_images(tmp_path):
    with pytest.raises(SdgError, match="give the folder they are in"):
        formats.write_records(tmp_path / "hf", [RECORD], "hf")


def _peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_files_stream_through_every_command(tmp_path):
    """Four times the lines may take a few dozen bytes a line more, never the two kilobytes each holds."""

    def write(lines):
        path = tmp_path / f"{lines}.jsonl"
        record = Record(
            "a.png", "", Diagnosis((Defect((0, 0, 9, 9), "artifact", "y" * 1000, 5),), "z" * 1000)
        )
        rows = (
            formats.sdg30k.to_annotation(record) | {"filepath": f"{n}.png", "caption": str(n)}
            for n in range(lines)
        )
        formats.jsonl.write_objects(path, rows)
        return path

    def use(path):
        def work():
            validate(path, print)
            statistics(formats.read_records(path))
            write_splits(path, tmp_path / "splits", assign_prompts(path, {"a": 1, "b": 1}))
            for format in ("sdg", "sdg30k", "predictions", "coco", "label-studio"):
                out = tmp_path / NAMES[format]
                formats.write_records(out, formats.read_records(path), format, size=(8, 8))

        return work

    few, many = write(500), write(2000)
    assert many.stat().st_size > 2000 * 2000
    use(few)()  # imports and caches
    assert _peak(use(many)) - _peak(use(few)) < 1500 * 300


# --- our own lines ---

DEFECT = {"box": [0, 0, 10, 10], "type": "artifact", "reason": "x", "importance": 3, "subtype": "anatomy"}
LINE = {"filepath": "a.png", "prompt": "a cat", "diagnosis": {"defects": [DEFECT]}}


@given(st.lists(st.from_type(Record), min_size=1, max_size=3))
def test_every_field_comes_back_as_it_was(tmp_path_factory, everything, records):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    assert formats.write_records(path, records, "sdg") == len(records)
    assert everything(formats.read_records(path, "sdg")) == everything(records)


def test_a_line_reads_as_its_names_say(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(LINE))
    [record] = formats.read_records(path, "sdg")
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
        list(formats.read_records(path, "sdg"))
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


@pytest.mark.parametrize("format", [name for name in formats.FORMATS if name != "label-studio"])
def test_what_is_known_goes_into_no_file_that_is_to_be_blind(tmp_path, format):
    with pytest.raises(SdgError, match=f"The format '{format}' is not blind, only label-studio can be"):
        formats.write_records(tmp_path / "out", [RECORD], format, blind=True, images=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_one_sentence_with_those_there_are(tmp_path):
    path = tmp_path / "o.jsonl"
    said = "'sdgg' is no format; those are sdg, sdg30k, predictions, coco, label-studio, hf"
    with pytest.raises(SdgError, match=said):
        formats.write_records(path, [], "sdgg")
    assert not path.exists()
    with pytest.raises(SdgError, match=said):
        formats.read_records(path, "sdgg")
    with pytest.raises(SdgError, match="'boxes' is no format"):
        formats.read_parts(path, "boxes")
