"""Which path of a file an image's path stands for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.io.paths import PathIndex, claimed_twice

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
