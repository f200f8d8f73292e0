"""Corrections: what the editor holds is read strictly, and rows are added or replaced, never lost."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from app_models import FOUND
from hypothesis import given
from PIL import Image
from strategies import defects

from sdg.app.correcting import ROWS, corrected, save, to_edit
from sdg.app.looking import Looked
from sdg.data.formats import sdg30k
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.runs.begin import hold

BOX = {"box": [1, 2, 30, 40], "kind": "artifact", "reason": "A smear.", "importance": "45", "subtype": ""}


@pytest.fixture
def looked(tmp_path: Path) -> Looked:
    Image.new("RGB", (40, 30), (9, 9, 9)).save(tmp_path / "a.jpg")
    return Looked(tmp_path / "a.jpg", "a cat", Diagnosis(FOUND, "I looked."), "python:x.y")


@given(defects)
def test_what_is_not_changed_comes_back_as_it_was(defect: Defect) -> None:
    whole = replace(
        defect,
        reason=defect.reason.strip() or "A smear.",
        importance=defect.importance or 1,
        subtype=defect.subtype or None,
    )
    before = Diagnosis((whole,), "I looked.")
    box = {
        "box": list(whole.box),
        "kind": whole.type.value,
        "reason": whole.reason,
        "importance": str(whole.importance),
        "subtype": whole.subtype or "",
    }
    assert corrected({"of": ANY, "boxes": [box], "clean": False}, Looked(Path("a.jpg"), "", before)) == before


def test_the_editor_gets_what_was_found(looked: Looked) -> None:
    value = to_edit(looked)
    assert value["source"].startswith("data:image/")
    assert corrected(value, looked) == looked.diagnosis
    moved = value | {"boxes": [value["boxes"][0]]}
    assert corrected(moved, looked) == Diagnosis(FOUND[:1])  # the reasoning was about both
    assert corrected(value | {"boxes": [], "clean": True}, looked).is_clean
    with pytest.raises(SdgError, match="does not exist"):
        to_edit(replace(looked, picture=looked.picture.with_name("gone.png")))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "diagnose a picture first"),
        ({"boxes": 3}, "diagnose a picture first"),
        ({"boxes": [], "clean": False}, "or say that there is no problem"),
        ({"boxes": [BOX], "clean": True}, "keep one or the other"),
        ({"boxes": [BOX] * 201}, "200 boxes at most"),
        ({"boxes": [3]}, "Box 1: A box is an object"),
        ({"boxes": [BOX, BOX | {"reason": " "}]}, "Box 2: It has no reason"),
        ({"boxes": [BOX | {"reason": "a" * 2001}]}, "more than 2,000 characters"),
        ({"boxes": [BOX | {"importance": ""}]}, "whole number from 1 to 100"),
        ({"boxes": [BOX | {"importance": "²"}]}, "whole number from 1 to 100"),
        ({"boxes": [BOX | {"importance": "9" * 5000}]}, "from 1 to 100"),
        ({"boxes": [BOX | {"box": [1, 2, 3]}]}, "four integers"),
        ({"boxes": [BOX | {"box": [1, 2, 3, float("nan")]}]}, "four numbers"),
        ({"boxes": [BOX | {"box": [30, 2, 1, 40]}]}, "0 <= x0 < x1"),
        ({"boxes": [BOX | {"kind": "scratch"}]}, "'artifact' or 'misalignment'"),
        ({"boxes": [BOX | {"box": "x" * 10**6}]}, "four numbers"),
    ],
)
def test_what_is_no_whole_annotation_is_refused_in_a_sentence(value: Any, reason: str) -> None:
    with pytest.raises(SdgError, match=reason) as refusal:
        corrected({"of": ANY} | value if value else value, Looked(Path("a.jpg"), "", Diagnosis()))
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    "now",
    [
        {"picture": Path("b.jpg")},
        {"prompt": "a dog"},
        {"diagnosis": Diagnosis(FOUND[:1])},
        {"detector": "python:x.z"},
    ],
)
def test_boxes_of_an_earlier_diagnosis_are_not_saved_for_the_next(
    looked: Looked, now: dict[str, Any]
) -> None:
    with pytest.raises(SdgError, match="still held an earlier diagnosis"):
        corrected(to_edit(looked), replace(looked, **now))


def test_rows_are_added_and_the_row_of_the_same_picture_replaced(looked: Looked, tmp_path: Path) -> None:
    out = tmp_path / "out"
    file, count = save(looked, Diagnosis(FOUND[:1]), out)
    assert (file, count) == (out / ROWS, 1)
    other = replace(looked, prompt="a dog")
    assert save(other, Diagnosis(), out)[1] == 2
    assert save(looked, Diagnosis(FOUND[1:]), out)[1] == 2
    first, second = sdg30k.read_annotations(file)
    assert (first.prompt, first.diagnosis) == ("a dog", Diagnosis())
    assert (second.prompt, second.diagnosis) == ("a cat", Diagnosis(FOUND[1:]))
    assert (out / second.filepath).read_bytes() == looked.picture.read_bytes()
    said = second.metadata["corrected_from"]
    assert Diagnosis.from_dict({key: said[key] for key in ("defects", "reasoning")}) == looked.diagnosis
    assert len(list((out / "pictures").iterdir())) == 1
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_what_another_process_is_saving_is_waited_for(looked: Looked, tmp_path: Path) -> None:
    folder = tmp_path / "corrections"
    file, _ = save(looked, Diagnosis(), folder)
    with hold(file, file):  # as another page's process does
        other = threading.Thread(target=save, args=(replace(looked, prompt="a dog"), Diagnosis(), folder))
        other.start()
        other.join(0.3)
        assert other.is_alive()
        file.write_text(file.read_text() + file.read_text().replace("a cat", "a cow"))
    other.join()
    assert [record.prompt for record in sdg30k.read_annotations(file)] == ["a cat", "a cow", "a dog"]
    assert sorted(path.name for path in folder.iterdir()) == [ROWS, "pictures"]


def test_rows_that_cannot_be_read_are_left_alone(looked: Looked, tmp_path: Path) -> None:
    (tmp_path / ROWS).write_text('{"filepath": "x.png"\n')
    with pytest.raises(SdgError, match="line 1"):
        save(looked, Diagnosis(), tmp_path)
    assert (tmp_path / ROWS).read_text() == '{"filepath": "x.png"\n'
    (tmp_path / ROWS).write_text(json.dumps({"filepath": "x.png", "mine": 1}) + "\n")
    assert save(looked, Diagnosis(), tmp_path)[1] == 2
    assert json.loads((tmp_path / ROWS).read_text().splitlines()[0]) == {"filepath": "x.png", "mine": 1}


def test_a_file_that_is_no_picture_gets_no_row(looked: Looked, tmp_path: Path) -> None:
    looked.picture.write_text("no picture")
    with pytest.raises(SdgError):
        save(looked, Diagnosis(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
