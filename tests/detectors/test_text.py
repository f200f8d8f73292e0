"""The `ocr` detector and scorer: on lines given by hand, and on pictures that are drawn and read."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scripts
from PIL import Image

from sdg import load_detector
from sdg.detectors.text import difference, text_defects
from sdg.models.ocr import Line, reader
from sdg.scorers import load_scorer

SIZE = (200, 100)


def line(
    text: str, confidence: float = 0.99, box: tuple[float, float, float, float] = (20, 10, 120, 30)
) -> Line:
    return Line(text, confidence, box, box[2] - box[0], box[3] - box[1])


def test_a_misspelt_text_has_the_box_of_what_stands_there_and_says_the_difference() -> None:
    (found,) = text_defects([line("OKEN")], 'a sign "OPEN"', SIZE)
    assert (str(found.type), found.box) == ("misalignment", (100, 100, 600, 300))
    assert 'reads "OKEN" where the prompt asks for "OPEN": "k" stands for "p"' in found.reason
    assert 18 <= len(found.reason.split()) <= 45


def test_a_missing_text_is_told_with_what_stands_instead() -> None:
    (found,) = text_defects([line("Bakery")], 'a sign "OPEN"', SIZE)
    assert found.box == (100, 100, 600, 300)
    assert (
        'does not stand in the picture, not even misspelt; what can be read instead is "Bakery"'
        in found.reason
    )
    (found,) = text_defects([], 'a sign "OPEN"', SIZE)
    assert found.box == (0, 0, 1000, 1000)
    assert "no text can be read in the picture at all" in found.reason


def test_text_that_no_reading_is_sure_of_is_an_artifact() -> None:
    (found,) = text_defects([line("らミBンとで", 0.3)], "a street", SIZE)
    assert (str(found.type), found.subtype, found.box) == ("artifact", "garbled text", (100, 100, 600, 300))


@pytest.mark.parametrize(
    ("lines", "prompt"),
    [
        ([], "a street"),
        ([line("OPEN")], 'a sign "open"'),
        ([line("0PEN")], 'a sign "OPEN"'),
        ([line("OKEN", 0.7)], 'a sign "OPEN"'),  # perhaps it was misread
        ([line("anything")], "no text is asked for, and none forbidden"),
        ([line("を", 0.2, (0, 0, 200, 100))], "a texture that fills the picture"),
        ([line("AB", 0.2, (0, 0, 20, 20))], "as high as wide"),
    ],
)
def test_what_is_no_defect(lines: list[Line], prompt: str) -> None:
    assert text_defects(lines, prompt, SIZE) == []


def test_differences_in_words() -> None:
    assert difference("Trael", "Travel") == '"v" is left out'
    assert difference("Salee", "Sale") == '"e" is too much'
    assert difference("axbxcxdx", "abcd") == '"x" is too much, "x" is too much, "x" is too much and more'


@pytest.mark.parametrize("size", [(1, 1), (3, 5000)])
def test_boxes_stay_boxes_on_any_picture(size: tuple[int, int]) -> None:
    (found,) = text_defects([line("Bakery", box=(-3, -2, 900, 9000))], '"OPEN"', size)
    assert found.box == (0, 0, 1000, 1000)


@pytest.fixture(scope="module")
def signs() -> list:
    pytest.importorskip("rapidocr")
    return list(scripts.load("text_renders").signs(8, seed=3))


def test_drawn_signs_are_read(signs: list) -> None:
    found = load_detector("ocr").diagnose([(sign.picture, sign.prompt) for sign in signs])
    scores = load_scorer("ocr").score([sign.picture for sign in signs], [sign.prompt for sign in signs])
    for sign, diagnosis, score in zip(signs, found, scores, strict=True):
        wrong = bool(diagnosis.of_type("misalignment"))
        assert wrong == (sign.kind != "clean"), sign
        assert score is not None
        assert (score == 1) == (sign.kind == "clean")
    assert load_scorer("ocr").score([signs[0].picture], ["a cat"]) == [None]


def test_a_picture_that_cannot_be_read_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rapidocr")
    seen: list[tuple[int, ...]] = []

    class OwnError(Exception):
        """Of no class that anyone else knows, as rapidocr's are."""

    def engine(pixels: np.ndarray) -> SimpleNamespace:
        seen.append(pixels.shape[:2])
        if pixels.shape[0] == 7:
            raise OwnError("resize_w is 0")
        return SimpleNamespace(txts=None, boxes=None)

    monkeypatch.setattr(reader(), "_engine", engine)
    sizes = [(64, 64), (1, 400), (4000, 30), (9, 7), (20, 400)]
    pairs = [(Image.new("RGB", size), 'a sign "STOP"') for size in sizes]
    found = load_detector("ocr").diagnose(pairs)
    assert [one.status.value for one in found] == ["ok", "failed", "failed", "failed", "ok"]
    assert found[1].error == (
        "ocr: A picture of 1 × 400 pixels is too thin to be read: one side is more than 20 times the other."
    )
    assert found[3].error == "ocr: The text of the picture cannot be read (resize_w is 0)."
    assert seen == [(64, 64), (7, 9), (400, 20)]  # what is too thin never gets to where it would be enlarged
    assert load_scorer("ocr").score(*zip(*pairs, strict=True)) == [0.0, None, None, None, 0.0]
