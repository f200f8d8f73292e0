"""Overlays of a run: which images get one, and where it lands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sdg
from sdg import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.reporting.overlays import draw_overlays
from sdg.runs.inputs import Item

FOUND = sdg.render_response(Diagnosis((Defect((100, 100, 800, 800), "artifact", "torn", 50),)))


def row(item: Item, response: str | None = FOUND) -> dict[str, Any]:
    failed = {"status": "failed", "error": "late"} if response is None else {}
    return {"filepath": item.filepath, "caption": item.prompt, "response": response} | failed


def test_every_image_with_an_answer_is_drawn_inside_of_the_folder(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "green").save(tmp_path / "a.png")
    file, folder = tmp_path / "a.png", tmp_path / "in" / "drawn"
    names = [
        "a.png",
        "a.jpg",
        "deep/b.png",
        "../../up.png",
        str(tmp_path / "abs.png"),
        "failed.png",
        "junk.png",
    ]
    items = [Item(name, "p", file) for name in names] + [Item("gone.png", "p", tmp_path / "gone.png")]
    responses = [FOUND] * 5 + [None, "no answer at all", FOUND]
    rows = [row(item, response) for item, response in zip(items, responses, strict=True)]
    assert draw_overlays(items, rows, folder) == 5
    drawn = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert drawn == sorted(
        ["a.png", "a-2.png", "deep/b.png", "up.png", (tmp_path / "abs.png").as_posix().lstrip("/")]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "in"]
    clean = Image.open(folder / "a.png").convert("RGB")
    assert len(np.unique(np.asarray(clean).reshape(-1, 3), axis=0)) > 3


def test_what_an_overlay_is_called_depends_on_the_images_alone(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "green").save(tmp_path / "a.png")
    names = ["u.parquet#0", "u.parquet#1", "u.parquet#10", "in/u.parquet#1", "b.jpg", "b.webp"]
    items = [Item(name, "p", tmp_path / "a.png") for name in (*names, "u.parquet#1")]
    responses = [None, FOUND, FOUND, FOUND, None, FOUND, FOUND]
    rows = [row(item, response) for item, response in zip(items, responses, strict=True)]
    drawn = ["b-2.png", "in/u.parquet#1.png", "u.parquet#1-2.png", "u.parquet#1.png", "u.parquet#10.png"]
    for answers, more in ((rows, []), (list(map(row, items)), ["b.png", "u.parquet#0.png"])):
        assert draw_overlays(items, answers, tmp_path / "drawn") == len(drawn + more)
        files = (tmp_path / "drawn").rglob("*.png")
        assert sorted(file.relative_to(tmp_path / "drawn").as_posix() for file in files) == sorted(
            drawn + more
        )
    Image.new("RGB", (60, 40), "green").save(tmp_path / "b-2.png")
    items[0] = Item("b-2.png", "p", tmp_path / "b-2.png")
    with pytest.raises(SdgError, match=r"overlay of b-2\.png|overlay of b\.webp"):
        draw_overlays(items, rows, tmp_path)


@pytest.mark.parametrize("name", ["nul\0.png", "half\ud800.png", "nul\0/b.png"])
def test_a_path_that_can_name_no_file_costs_its_image_alone(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (60, 40), "green").save(tmp_path / "a.png")
    items = [Item(name, "p", tmp_path / name), Item("a.png", "p", tmp_path / "a.png")]
    assert draw_overlays(items, map(row, items), tmp_path / "drawn") == 1
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["a.png"]


def test_no_image_is_drawn_over(tmp_path: Path) -> None:
    for name in ("a.png", "in/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), "green").save(tmp_path / name)
    before = (tmp_path / "in" / "b.png").read_bytes()
    items = [Item(name, "p", tmp_path / name) for name in ("a.png", "in/b.png")]
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "in" / "..", tmp_path / "link"):
        with pytest.raises(SdgError, match=r"overlay of a\.png in .* would replace an image; name another"):
            draw_overlays(items, map(row, items), folder)
    assert (tmp_path / "in" / "b.png").read_bytes() == before
    # Of another type it lies beside its image.
    Image.new("RGB", (60, 40), "green").save(tmp_path / "c.jpg")
    beside = [Item("c.jpg", "p", tmp_path / "c.jpg")]
    assert draw_overlays(beside, map(row, beside), tmp_path) == 1
