"""Parquet as rows and as pictures, against pyarrow's own reading; what is no such file is one sentence."""

from __future__ import annotations

import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdg import Defect, Diagnosis, render_response
from sdg.errors import SdgError
from sdg.images import image_size, load_image
from sdg.io import jsonl
from sdg.io.parquet import prompts, stored_images
from sdg.io.predictions import read_prediction


def content(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4 + level, 3), (level, level, level)).save(stream, "PNG")
    return stream.getvalue()


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


@pytest.mark.parametrize("as_struct", [False, True])
def test_pictures_are_read_from_their_rows(tmp_path: Path, as_struct: bool) -> None:
    values = [content(level) for level in range(10)]
    column = [{"bytes": value, "path": "x.png"} for value in values] if as_struct else values
    path = write(tmp_path / "in.parquet", {"image": column, "prompt": [str(i) for i in range(10)]})
    found = stored_images(path)
    assert [image.name for image in found] == [f"in.parquet#{i}" for i in range(10)]
    assert prompts(path) == [str(i) for i in range(10)]
    order = [9, 0, 5, 1, 8, 2, 7, 3, 6, 4]
    with ThreadPoolExecutor(4) as pool:
        levels = list(pool.map(lambda at: load_image(found[at]).getpixel((0, 0))[0], order))
    assert levels == order
    assert image_size(found[6]) == (10, 3)
    assert pickle.loads(pickle.dumps(found[4])).content() == values[4]


def test_a_row_without_its_picture_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", {"image": [content(1), None], "filepath": ["a.png", "b.png"]})
    found = stored_images(path)
    assert (found[1].name, prompts(path)) == ("b.png", [None, None])
    with pytest.raises(SdgError, match=r"b\.png has no picture"):
        load_image(found[1])


def test_paths_are_no_pictures(tmp_path: Path) -> None:
    assert stored_images(write(tmp_path / "in.parquet", {"image": ["a.png"], "prompt": ["a"]})) == []


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
