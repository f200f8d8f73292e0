"""Images and prompts from the command line's words: files, folders, JSON Lines, and files of prompts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdg.errors import SdgError
from sdg.images import save_image
from sdg.runs.inputs import Item, gather


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("pics/b.png", "pics/a.JPG", "pics/deep/c.webp", "one.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "pics" / ".hidden.png").write_bytes(b"")
    (tmp_path / "pics" / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_folder_gives_its_images_in_order_and_each_only_once(folder: Path) -> None:
    items = gather(["one.png", "pics", "pics/b.png"], prompt="a")
    assert [item.filepath for item in items] == ["one.png", "pics/a.JPG", "pics/b.png", "pics/deep/c.webp"]
    assert {item.prompt for item in items} == {"a"}
    assert all(item.file.exists() for item in items)


def test_pictures_in_a_parquet_file_without_prompts_take_the_one_that_is_given(folder: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"image": [b"1", b"2"], "caption": ["a hat", None]})
    pq.write_table(table, folder / "in.parquet")
    found = gather(["in.parquet"], prompt="a cat", embedded=True)
    assert [item.prompt for item in found] == ["a hat", "a cat"]
    with pytest.raises(SdgError, match="has no prompt; give it with --prompt"):
        gather(["in.parquet"], embedded=True)


def test_a_parquet_file_without_pictures_and_paths_is_told_both_columns(folder: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"picture": [b"1"], "caption": ["a hat"]})
    pq.write_table(table, folder / "in.parquet")
    with pytest.raises(SdgError, match="row 1: 'filepath' names no picture, and 'image' holds none"):
        gather(["in.parquet"], embedded=True)


def test_drawings_inside_of_a_folder_and_folders_named_as_images_are_no_inputs(folder: Path) -> None:
    (folder / "pics" / "x.png").mkdir()
    assert [item.filepath for item in gather(["pics"], prompt="a", leave_out="pics/deep")] == [
        "pics/a.JPG",
        "pics/b.png",
    ]
    assert len(gather(["pics/deep"], prompt="a", leave_out="pics/deep")) == 1


def test_json_lines_name_images_relative_to_their_own_folder_or_another(folder: Path) -> None:
    listed = lines(
        folder / "pics" / "in.jsonl",
        {"filepath": "b.png", "caption": ""},
        {"filename": "x.png", "prompt": "p"},
    )
    assert gather([listed]) == [
        Item("b.png", "", folder / "pics" / "b.png"),
        Item("x.png", "p", folder / "pics" / "x.png"),
    ]
    assert gather([listed], images="elsewhere")[0].file == Path("elsewhere/b.png")


def test_a_file_of_prompts_is_looked_up_by_path(folder: Path) -> None:
    prompts = lines(
        folder / "prompts.jsonl",
        {"filepath": "deep/c.webp", "caption": "c"},
        {"filepath": "a.JPG", "caption": "a"},
        {"filepath": "other/b.png", "caption": "b"},
    )
    assert [item.prompt for item in gather(["pics"], prompts=prompts)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"filepath": "z.png", "caption": "z"}], "prompts.jsonl holds no prompt for one.png."),
        (
            [{"filepath": "one.png", "caption": "a"}, {"filepath": "one.png", "caption": "b"}],
            "prompts.jsonl holds more than one prompt for one.png.",
        ),
        ([{"filepath": "one.png"}], "prompts.jsonl, line 1: 'caption' is missing or no text."),
        ([{"caption": "a"}], "prompts.jsonl, line 1: 'filepath' is missing or no text."),
    ],
)
def test_a_prompt_is_never_guessed(folder: Path, rows: list[dict[str, Any]], sentence: str) -> None:
    lines(folder / "prompts.jsonl", *rows)
    with pytest.raises(SdgError) as caught:
        gather(["one.png"], prompts="prompts.jsonl")
    assert str(caught.value) == sentence


def test_sources_that_give_nothing_are_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(SdgError, match=r"none\.png does not exist"):
        gather(["none.png"], prompt="a")
    with pytest.raises(SdgError, match="empty holds no images"):
        gather(["empty"], prompt="a")
    with pytest.raises(SdgError, match=r"one\.png has no prompt; give it with --prompt"):
        gather(["one.png"])
    for name in ("rows.json", "rows.CSV"):
        (folder / name).write_text("[]")
        with pytest.raises(SdgError, match=rf"{name} is no picture; give rows .* as JSON Lines"):
            gather([name], prompt="a")


def test_what_leads_nowhere_is_an_image_that_will_fail(tmp_path: Path) -> None:
    save_image(Image.new("RGB", (2, 2)), tmp_path / "folder" / "b.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "folder.png").mkdir()
    items = gather([tmp_path], prompt="a")
    assert [item.file.name for item in items] == ["b.png", "gone.png", "loop.png"]


def test_linked_folders_are_followed_each_once_and_never_round_and_round(folder: Path) -> None:
    for name in ("away/d.png", "away/deeper/e.png", "other/f.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    for link, target in {
        "pics/again": "../away",
        "pics/linked": "../away",  # a second name
        "pics/a-way-to-deep": "deep",  # what lies there keeps its own name
        "pics/deep/up": "../../pics",
        "away/deeper/back": "../../away",
        "away/on": "../other",
    }.items():
        (folder / link).symlink_to(target)
    assert [item.filepath for item in gather(["pics"], prompt="a")] == [
        "pics/a.JPG",
        "pics/again/d.png",
        "pics/again/deeper/e.png",
        "pics/again/on/f.png",
        "pics/b.png",
        "pics/deep/c.webp",
    ]
    assert len(gather(["pics"], prompt="a", leave_out="other")) == 5  # by where a folder lies


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # permissions do not bind the superuser
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SdgError, match=r"secret cannot be listed: Permission denied\.$"):
        gather([tmp_path], prompt="a")
