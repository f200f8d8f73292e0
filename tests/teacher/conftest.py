"""A dozen pictures with short annotations."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from teacher import RIGHT, shortened, tag

from sdg.data.formats import read_records, write_records
from sdg.records import Record
from sdg.teacher.plan import prepare


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """short.jsonl with its pictures."""
    records = []
    for index, diagnosis in enumerate(RIGHT):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{index}.png")
        tag(tmp_path / f"{index}.png", index)
        record = Record(
            f"{index}.png", "a cat on a red chair", diagnosis, generator="g", metadata={"seed": index}
        )
        records.append(shortened(record))
    write_records(tmp_path / "short.jsonl", records, "sdg")
    return tmp_path / "short.jsonl"


@pytest.fixture
def given(short: Path):
    pictures, unknown = prepare(read_records(short), short.parent)
    assert unknown == []
    return pictures
