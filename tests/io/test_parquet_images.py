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
