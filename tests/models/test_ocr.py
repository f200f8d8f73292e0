"""Quoted texts, edit distances and where a text stands among lines; reading itself is in test_text."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.models.ocr import (
    Line,
    edit_distance,
    find_text,
    plain,
    quoted_texts,
    same_drawing,
    similarity,
)


def line(text: str, x: float = 0, y: float = 0) -> Line:
    return Line(text, 0.99, (x, y, x + 50, y + 10), 50, 10)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('a sign that says "OPEN"', ["OPEN"]),
        ("“Keep Left” and ‘No Parking’ on «Exit»", ["Keep Left", "No Parking", "Exit"]),
        ("the cat's hat and the dogs' bone", []),
        ("a mug with 'don't stop' on it", ["don't stop"]),
        ('"" and "!" and " "', []),
        ('"twice" and "twice"', ["twice"]),
        ('an open " only', []),
        ('"' + "x" * 500 + '"', []),
        ('"' + "x" * 201 + '" and "STOP"', ["STOP"]),
        ("'" + "x" * 200 + "!' and 'STOP'", ["STOP"]),
        ('a 12" laptop beside a 15" one', []),
        ('an 8" x 10" photo', []),
        ("a 6'2\" man and a 5'4\" woman", []),
        ('a 12" laptop with the sticker "SIZE 12" on it', ["SIZE 12"]),
        ('an open " before a sign "STOP"', ["STOP"]),
        ("a '90s style photo of the dogs' park", []),
        ("a '90s photo of the sign 'STOP'", ["STOP"]),
        ("a rock 'n' roll sign", []),
        ("the letter 'N', then ‘24 hours’", ["N", "24 hours"]),
        ('一块写着"停车"的牌子,旁边是“出口”二字', ["停车", "出口"]),
        ("„Hallo“ beside »Welt« and « Exit »", ["Hallo", "Welt", "Exit"]),
    ],
)
def test_quoted_texts(prompt: str, texts: list[str]) -> None:
    assert quoted_texts(prompt) == texts


@pytest.mark.parametrize("piece", ['"', "'a ", "'", "a'", '"a', "«", "'a'a "])
def test_a_prompt_of_quotation_marks_alone_is_read_in_time(piece: str) -> None:
    assert len(quoted_texts(piece * 100_000)) < 3


@given(st.text(max_size=300))
def test_any_prompt_is_read_in_time(prompt: str) -> None:
    for text in quoted_texts(prompt):
        assert plain(text)
        assert text in prompt


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_edit_distance_as_its_definition_says(one: str, other: str) -> None:
    @cache
    def distance(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    assert edit_distance(one, other) == distance(one, other)
    assert 0 <= similarity(one, other) <= 1
    assert (similarity(one, other) == 1) == (one == other)


def test_a_text_is_found_over_ends_of_lines_and_within_a_line() -> None:
    lines = [line("WELCOME TO OUR"), line("HAPPY", y=20), line("Birthday party", y=40)]
    found = find_text("Happy Birthday!", lines)
    assert (found.text, found.score, found.lines) == ("HAPPY Birthday", 1, (lines[1], lines[2]))
    assert find_text("OPEN", [line("OPENN")]).score == pytest.approx(0.8)  # a letter too many is seen
    assert find_text("Book Store", [line("BookStore")]).score == 1  # blanks are the reader's guess
    assert find_text("OPEN", []).score == 0


def test_signs_that_look_the_same_are_no_misspelling() -> None:
    assert same_drawing("0PEN", "OPEN")
    assert same_drawing("HOTE|", "hotel")
    assert not same_drawing("OKEN", "OPEN")
