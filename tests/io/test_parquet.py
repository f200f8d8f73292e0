"""Parquet as rows, against pyarrow's own reading; what is no such file is one sentence."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdg import Defect, Diagnosis, Record, render_response
from sdg.data.formats import Format, read_records, write_records
from sdg.data.splits import assign_prompts, write_splits
from sdg.errors import SdgError
from sdg.io import jsonl
from sdg.io.parquet import prompts
from sdg.io.predictions import read_prediction


def write(path: Path, columns: dict[str, Any], group: int = 3) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


DEFECT = Defect((0, 0, 10, 20), "artifact", "A bent edge.", 40, "geometry")
LINES = [
    {"filepath": "a.png", "caption": "a", "response": render_response(Diagnosis((DEFECT,))), "status": "ok"},
    {"filepath": "b.png", "caption": "b", "response": "<answer>[]</answer>", "status": "repaired"},
    {"filepath": "c.png", "caption": "c", "response": None, "status": "failed", "error": "It was late."},
    {"filepath": "d.png", "caption": "d", "response": "half \ud83d a sentence", "status": "unparseable"},
]


def test_predictions_come_back_as_they_are_in_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "found.parquet"
    assert jsonl.write_objects(path, LINES) == 4
    again = list(jsonl.read_objects(path))
    assert again[:3] == LINES[:3]
    assert again[3] == {**LINES[3], "response": "half ? a sentence"}
    assert [read_prediction(line) for line in again[:3]] == [read_prediction(line) for line in LINES[:3]]


def test_defects_stand_in_a_column_of_their_own_and_nothing_known_is_null(tmp_path: Path) -> None:
    path = tmp_path / "found.parquet"
    jsonl.write_objects(path, LINES)
    column = pq.read_table(path).column("defects").to_pylist()
    box = {"box": [0, 0, 10, 20], "type": "artifact", "reason": "A bent edge.", "importance": 40}
    assert column == [[{**box, "subtype": None}], [], None, None]  # a response tells no subtype


CLEAN = render_response(Diagnosis())


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ({"response": CLEAN}, "ok"),
        ({"response": "<answer>[]</answer>", "status": "ok"}, "ok"),  # by a profile without a think block
        ({"response": "<answer>[]</answer>"}, "repaired"),
        ({"response": CLEAN, "finish_reason": "length"}, "truncated"),
        ({"response": CLEAN, "finish_reason": "content_filter", "status": "ok"}, "failed"),
        ({"response": CLEAN, "refusal": "I cannot."}, "failed"),
        ({"response": CLEAN, "error": "It was late."}, "failed"),
        ({"response": None}, "failed"),
        ({"response": "", "finish_reason": "length"}, "unparseable"),
        ({"response": "No.", "status": "done"}, "unparseable"),
    ],
)
def test_the_column_status_is_how_the_line_reads(tmp_path: Path, line: dict[str, Any], status: str) -> None:
    path = tmp_path / "found.parquet"
    line = {"filepath": "a.png", "caption": "a", **line}
    jsonl.write_objects(path, [line])
    assert [row["status"] for row in jsonl.read_objects(path)] == [status]
    (record,) = read_records(path)
    assert record == read_prediction(line)


def test_generator_split_annotator_and_other_keys_come_back(tmp_path: Path) -> None:
    path = tmp_path / "found.parquet"
    more = {"generator": "FLUX", "split": "test", "annotator": "7", "seed": 10**30, "tags": ["\u00fc", None]}
    lines = [LINES[0] | more | {"_metadata": {"status": 5}}, {"filename": "b.png", "response": CLEAN}]
    jsonl.write_objects(path, lines)
    assert list(read_records(path)) == [read_prediction(line) for line in lines]
    names = pq.read_table(path).column_names
    assert names == [*LINES[2], "generator", "split", "annotator", "_metadata", "defects"]


def test_metadata_that_is_no_json_object_is_named(tmp_path: Path) -> None:
    day = LINES[0] | {"day": date(2026, 1, 1)}
    with pytest.raises(SdgError, match=r"record 1: This cannot be written as JSON: .*date is not JSON"):
        jsonl.write_objects(tmp_path / "a.parquet", [day])
    columns = {"filepath": ["a"], "caption": ["a"], "response": ["[]"], "_metadata": ["{half"]}
    with pytest.raises(SdgError, match=r"b\.parquet, row 1: '_metadata' is a JSON object, not '\{half'"):
        list(read_records(write(tmp_path / "b.parquet", columns)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"response": 5}, "'response' is the detector's raw text, not 5"),
        ({"status": 5}, "'status' is text, not 5"),
        ({"response": None, "error": {"code": 1}}, "'error' is text, not {'code': 1}"),
        ({"filepath": None}, "'filepath' is text, not None"),
    ],
)
def test_what_is_no_prediction_is_named_and_nothing_is_written(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "found.parquet"
    with pytest.raises(SdgError, match=re.escape(f"found.parquet holds predictions; record 2: {reason}")):
        jsonl.write_objects(path, [LINES[0], LINES[1] | change])
    assert not list(tmp_path.iterdir())


def test_predictions_are_parquet_by_their_name_and_other_formats_never(tmp_path: Path) -> None:
    path = tmp_path / "found.parquet"
    record = Record("a.png", "a", Diagnosis((DEFECT,)))
    assert write_records(path, [record], "predictions") == 1
    assert list(read_records(path)) == [record]
    for format in ("sdg", "sdg30k"):
        with pytest.raises(SdgError, match=r"b\.parquet holds predictions; record 1: 'response' is missing"):
            write_records(tmp_path / "b.parquet", [record], format)
    assert [file.name for file in tmp_path.iterdir()] == ["found.parquet"]


@pytest.mark.parametrize("format", ["coco", "hf", "label-studio"])
def test_values_that_json_lacks_are_refused_in_a_sentence(tmp_path: Path, format: Format) -> None:
    day = Record("a.png", "a", Diagnosis(), metadata={"day": date(2026, 1, 1)})
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(SdgError, match=r"(Element 1 of .*out\.json|a\.png): .*date is not JSON serializable"):
        write_records(tmp_path / "out.json", [day], format, images=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_split_of_values_that_json_lacks_is_one_sentence(tmp_path: Path) -> None:
    columns = {"filepath": ["a", "b"], "caption": ["a", "b"], "day": [date(2026, 1, 1)] * 2}
    path = write(tmp_path / "p.parquet", columns)
    assignment = assign_prompts(path, {"one": 1, "two": 1})
    with pytest.raises(SdgError, match=r"p\.parquet: .*date is not JSON serializable"):
        write_splits(path, tmp_path / "out", assignment)
    assert not list(tmp_path.rglob("*.jsonl"))


BOX = {"box_2d": [1, 2, 3, 4], "label": "artifact"}
DIAGNOSIS = {"defects": [{"box": [1, 2, 3, 4], "type": "artifact"}], "reasoning": "Step 1"}


@pytest.mark.parametrize(
    "lines",
    [
        [
            {"filepath": "a", "prompt": "a", "diagnosis": DIAGNOSIS, "metadata": {"seed": 7}},
            {"filepath": "b", "prompt": "b", "generator": "FLUX", "diagnosis": {"defects": []}},
            {"filepath": "c", "prompt": "c", "metadata": {"steps": 9}},
            {"filepath": "d", "prompt": "d", "diagnosis": {"defects": [], "status": "failed"}},
        ],
        [
            {"filepath": "a", "caption": "a", "ann_translated_bboxes": [{**BOX, "description": "d"}, BOX]},
            {"filepath": "b", "caption": "b", "ann_translated_bboxes": [{**BOX, "desc": "e"}], "seed": 3},
            {"filepath": "c", "caption": "c", "ann_translated_bboxes": []},
            {"filepath": "d", "caption": "d", "ann_translated_bboxes": None},
            {
                "filepath": "e",
                "caption": "e",
                "ann_translated_bboxes": [],
                "_diagnosis": {"status": "repaired"},
            },
        ],
        [
            {"filepath": "a", "caption": "a", "response": "[]", "_metadata": {"x": 1}, "annotator": "7"},
            {"filepath": "b", "caption": "b", "response": None},
            {"filepath": "c", "response": "[]", "status": "unparseable", "seed": 3},
        ],
    ],
)
def test_keys_that_a_row_lacks_are_lacking_and_not_null(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    jsonl.write_objects(tmp_path / "a.jsonl", lines)
    pq.write_table(pa.Table.from_pylist(lines, _schema(lines)), tmp_path / "a.parquet")
    assert list(read_records(tmp_path / "a.parquet")) == list(read_records(tmp_path / "a.jsonl"))


def _schema(lines: list[dict[str, Any]]) -> pa.Schema:
    """Of the keys of all lines, as `from_pylist` takes those of the first."""
    keys = dict.fromkeys(key for line in lines for key in line)
    return pa.schema([(key, pa.array([line.get(key) for line in lines]).type) for key in keys])


def test_a_struct_without_any_value_says_nothing(tmp_path: Path) -> None:
    """As some tools write a row that lacks it; an image without an answer is not clean then."""
    nothing = pa.array(
        [{"status": None, "raw": None}], pa.struct([("status", pa.string()), ("raw", pa.string())])
    )
    boxes = pa.array([None], pa.list_(pa.struct([("label", pa.string())])))
    columns = {"filepath": ["a"], "caption": ["a"], "ann_translated_bboxes": boxes, "_diagnosis": nothing}
    assert list(read_records(write(tmp_path / "a.parquet", columns))) == [Record("a", "a")]


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.parquet", {"filepath": ["a", "b"], "response": ["[]", "[]"], "caption": ["a", None]}
    )
    with pytest.raises(SdgError, match=r"p\.parquet, row 2: no caption"):
        list(jsonl.read_with(path, _strict))


def _strict(value: dict[str, Any]) -> str:
    if value["caption"] is None:
        raise ValueError("no caption")
    return str(value["caption"])


def test_what_is_no_parquet_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing PAR1")
    write(tmp_path / "empty.parquet", {"filepath": pa.array([], pa.string())})
    for name, sentence in (
        ("bad", "cannot be read as Parquet"),
        ("gone", "does not exist"),
        ("empty", "is empty; it holds no rows"),
    ):
        with pytest.raises(SdgError, match=sentence):
            list(jsonl.read_objects(tmp_path / f"{name}.parquet"))
    write(tmp_path / "numbers.parquet", {"prompt": [1], "image": [b"x"]})
    with pytest.raises(SdgError, match="holds no text"):
        prompts(tmp_path / "numbers.parquet")


def test_a_value_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    names = pa.array(["a.png", "b.png"])
    no_text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff\xfe", b"ok"], pa.binary()).buffers())
    far = pa.array([2**61, 0], pa.timestamp("ms"))
    for name, column in (("text", no_text), ("date", far)):
        path = write(tmp_path / f"{name}.parquet", {"filepath": names, "caption": names, "response": column})
        with pytest.raises(SdgError, match=rf"{name}\.parquet cannot be read as Parquet \("):
            list(read_records(path))
    path = write(tmp_path / "prompts.parquet", {"prompt": no_text})
    with pytest.raises(SdgError, match=r"prompts\.parquet cannot be read as Parquet \('utf-8' codec"):
        prompts(path)
