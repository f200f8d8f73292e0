"""Parquet as rows, against pyarrow's own reading; what is no such file is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdg import Defect, Diagnosis, render_response
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
