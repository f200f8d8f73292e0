"""Where paths of data files may lead, and which path of a file an image's path stands for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.errors import SdgError
from sdg.io.paths import PathIndex, claimed_twice, data_path

STORED = ("images/a.png", "images/b.png", "more/b.png", "./c.png", "d e/f.png")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("images/a.png", ["images/a.png"]),
        ("./images/a.png", ["images/a.png"]),
        ("/data/images/a.png", ["images/a.png"]),
        ("a.png", ["images/a.png"]),
        ("elsewhere/a.png", ["images/a.png"]),
        ("/data/more/b.png", ["more/b.png"]),
        ("b.png", ["images/b.png", "more/b.png"]),
        ("elsewhere/b.png", ["images/b.png", "more/b.png"]),
        ("c.png", ["./c.png"]),
        ("d e\\f.png", ["d e/f.png"]),
        ("A.png", []),
        ("images", []),
        ("", []),
    ],
)
def test_the_same_path_then_the_same_end_then_the_same_name(asked: str, found: list[str]) -> None:
    assert list(PathIndex(STORED).find(asked)) == found


NAMES = st.lists(st.sampled_from(["a", "b", "c.png"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(NAMES, unique=True), NAMES)
def test_a_path_that_is_stored_is_always_found_and_alone(stored: list[str], asked: str) -> None:
    found = PathIndex(stored).find(asked)
    if asked in stored:
        assert found == (asked,)
    assert all(path.split("/")[-1] == asked.split("/")[-1] for path in found)


def test_two_spellings_of_a_path_are_one_claim() -> None:
    assert claimed_twice([("a/x", 1), ("./a/x", 1), ("b/x", 2), ("c/x", 2)]) == {2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ with a picture and links that lead inside, outside and in a circle; secret/ beside it."""
    place = tmp_path_factory.mktemp("place")
    for name in ("images/deep/a.png", "secret/a.png", "Images/a.png", "images-2/a.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    images = place / "images"
    (images / "in.png").symlink_to("deep/a.png")
    (images / "out.png").symlink_to(place / "secret" / "a.png")
    (images / "folder").symlink_to("../secret")
    (images / "round").symlink_to("round")
    (place / "link").symlink_to("images")
    return place


@pytest.mark.parametrize("folder", ["images", "link", "images/../link/deep/.."])
@pytest.mark.parametrize(
    "path",
    ["deep/a.png", "./deep//a.png", "in.png", "deep/../deep/a.png", "../images/deep/a.png", "none.png"],
)
def test_a_path_that_stays_in_the_folder_is_the_file_it_names(place: Path, folder: str, path: str) -> None:
    assert data_path(path, place / folder) == place / folder / path
    assert data_path(str(place / "images" / "deep" / "a.png"), place / folder).samefile(
        place / "images" / "deep" / "a.png"
    )


@pytest.mark.parametrize("folder", ["images", "link"])
@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../secret/a.png",
        "deep/../../secret/a.png",
        "out.png",
        "folder/a.png",
        "folder/../../images/none/../../secret/a.png",
        "../Images/a.png",
        "../images-2/a.png",
        "..",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused_unless_it_may(place: Path, folder: str, path: str) -> None:
    with pytest.raises(SdgError, match=r"leaves the folder .*; give the folder .*--images.*--allow-outside"):
        data_path(path, place / folder)
    assert data_path(path, place / folder, allow_outside=True) == place / folder / path


def test_another_folder_may_hold_it_too(place: Path) -> None:
    assert data_path("../secret/a.png", place / "images", place / "secret").read_text() == "secret/a.png"
    with pytest.raises(SdgError):
        data_path("../Images/a.png", place / "images", place / "secret")


@pytest.mark.parametrize("path", ["a\0b.png", "\ud800.png", "round/a.png", "n" * 5000])
def test_a_path_that_leads_nowhere_is_for_who_opens_it(place: Path, path: str) -> None:
    assert data_path(path, place / "images") == place / "images" / path


@given(
    st.lists(
        st.sampled_from(
            [
                "..",
                ".",
                "",
                "images",
                "Images",
                "secret",
                "deep",
                "folder",
                "in.png",
                "out.png",
                "a.png",
                "link",
            ]
        ),
        max_size=7,
    ),
    st.booleans(),
)
def test_no_spelling_reads_a_file_outside(place: Path, parts: list[str], absolute: bool) -> None:
    path = "/".join([str(place), *parts] if absolute else parts)
    try:
        found = data_path(path, place / "images")
    except SdgError:
        found = None
    try:
        here = (place / "images" / path).stat()  # by the system's own following of links
    except OSError:
        return
    held = [place / "images", *(place / "images").rglob("*")]
    inside = any(os.path.samestat(here, os.lstat(one)) for one in held)
    assert (found is not None) == inside
