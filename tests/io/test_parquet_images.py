"""Pictures inside of Parquet files."""

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

from sdg.errors import SdgError
from sdg.images import image_size, load_image
from sdg.io.parquet import prompts
from sdg.io.parquet_images import stored_images


def content(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4 + level, 3), (level, level, level)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, columns: dict[str, Any], group: int = 3) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


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


@pytest.mark.parametrize(
    ("kind", "value"), [(pa.int64(), 300_000_000), (pa.string(), "text"), (pa.list_(pa.int64()), [1, 2])]
)
def test_bytes_that_are_something_else_are_no_picture(tmp_path: Path, kind: pa.DataType, value: Any) -> None:
    column = pa.array([{"bytes": value, "more": b"x"}], pa.struct([("bytes", kind), ("more", pa.binary())]))
    (found,) = stored_images(write(tmp_path / "in.parquet", {"image": column, "prompt": ["a"]}))
    with pytest.raises(SdgError, match=r"in\.parquet#0 has no picture in its row"):
        found.content()


def test_a_picture_is_read_whatever_stands_beside_it(tmp_path: Path) -> None:
    no_text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    column = pa.StructArray.from_arrays([pa.array([content(1)]), no_text], ["bytes", "path"])
    (found,) = stored_images(write(tmp_path / "in.parquet", {"image": column}))
    assert found.content() == content(1)


def test_of_two_columns_called_image_none_is_taken(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([b"a"]), pa.array([b"b"])], names=["image", "image"])
    pq.write_table(table, tmp_path / "in.parquet")
    assert stored_images(tmp_path / "in.parquet") == []
