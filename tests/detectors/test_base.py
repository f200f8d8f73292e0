"""What detectors make of pairs they cannot ask about, each of which costs itself alone, and of arrays."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_server import CLEAN, Server, completion
from PIL import Image

import sdg
from sdg import Defect, Diagnosis, Record
from sdg.detectors import StreamingDetector
from sdg.detectors.base import FunctionDetector
from sdg.detectors.consensus import ConsensusDetector
from sdg.detectors.heatmap import HeatmapDetector
from sdg.detectors.openai import OpenAIDetector
from sdg.detectors.replay import ReplayDetector
from sdg.io.predictions import read_prediction, write_prediction
from sdg.prompting import Generation, PromptProfile

GREY = np.full((40, 30, 3), 77, np.uint8)


class Odd:
    """Something with a path that cannot be had."""

    def __fspath__(self) -> str:
        raise RuntimeError("no")


BAD: tuple[tuple[Any, str], ...] = (
    ((np.zeros((3, 8, 8), np.uint8), "a"), r"\(H, W\), \(H, W, 3\) or \(H, W, 4\), not \(3, 8, 8\)"),
    ((np.zeros((8, 8, 2), np.uint8), "a"), "not \\(8, 8, 2\\)"),
    ((np.zeros(8, np.uint8), "a"), "not \\(8,\\)"),
    ((np.zeros((0, 8, 3), np.uint8), "a"), "not 0×8"),
    ((np.zeros((8, 8, 3), np.int64), "a"), "uint8, uint16 or floats from 0 to 1, not int64"),
    ((np.zeros((8, 8, 3), bool), "a"), "not bool"),
    ((np.full((8, 8, 3), None), "a"), "not object"),
    ((np.zeros((8, 8, 3), complex), "a"), "not complex128"),
    ((np.full((8, 8, 3), 255.0), "a"), "values from 0 to 1"),
    ((np.full((8, 8), np.nan), "a"), "values from 0 to 1"),
    ((np.broadcast_to(np.uint8(0), (9000, 9000, 3)), "a"), "not 9000×9000"),
    ((None, "a"), "a PIL image or an array, not NoneType"),
    ((b"\x89PNG", "a"), "not bytes"),
    ((b"a.png", "a"), "not bytes"),
    ((Odd(), "a"), "not Odd"),
    (([[1]], "a"), "not list"),
    ((GREY, None), "A prompt is text, not NoneType"),
    ((GREY, b"a"), "A prompt is text, not bytes"),
    ((GREY, GREY), "A prompt is text, not ndarray"),
    (None, "A pair is an image and its prompt, not None"),
    (GREY, "A pair is an image and its prompt"),
    ((GREY,), "A pair is an image and its prompt"),
    ((GREY, "a", "b"), "A pair is an image and its prompt"),
    ("ab", "A pair is an image and its prompt, not 'ab'"),
)


@pytest.fixture(params=["function", "consensus", "openai", "replay", "heatmap", "hf"])
def detector(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StreamingDetector]:
    found = Diagnosis((Defect((10, 20, 300, 400), "artifact", "the cup melts", 60),))
    function = FunctionDetector("f", lambda picture, prompt: found)
    with (
        Server(lambda index, attempt: completion(CLEAN))
        if request.param == "openai"
        else nullcontext() as server
    ):
        match request.param:
            case "function":
                yield function
            case "consensus":
                yield ConsensusDetector(function, 3)
            case "openai":
                yield OpenAIDetector(server.url, "toy", PromptProfile(), timeout=5.0, first_pause=0.01)
            case "replay":
                row = {"filepath": "good.png", "caption": "a cup", "response": sdg.render_response(found)}
                (tmp_path / "stored.jsonl").write_text(json.dumps(row))
                yield ReplayDetector(tmp_path / "stored.jsonl")
            case "heatmap":
                for kind in ("artifact", "misalignment"):
                    np.save(tmp_path / f"good.{kind}.npy", np.zeros((8, 8), np.float32))
                yield HeatmapDetector(tmp_path)
            case "hf":
                folder = request.getfixturevalue("untaught")
                profile = PromptProfile(generation=Generation(max_new_tokens=8))
                yield sdg.load_detector(f"hf:{folder}?device=cpu&batch_size=4", profile=profile)


def test_a_pair_that_cannot_be_asked_costs_itself_alone(
    detector: StreamingDetector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(GREY).save(good)
    pairs: list[Any] = [(good, "a cup")]
    for bad, _ in BAD:
        pairs += [bad]
    pairs += [(str(good), "a cup")]
    with caplog.at_level(logging.WARNING, "sdg.detectors"):
        found = detector.diagnose(pairs)
    assert len(found) == len(pairs)
    assert [one.status == "failed" for one in found] == [False, *[True] * len(BAD), False]
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("image ")]
    assert len(said) == len(BAD)
    for number, (message, (_, reason)) in enumerate(zip(said, BAD, strict=True), start=1):
        assert message.startswith(f"image {number}: ")
        with pytest.raises(ValueError, match=reason):
            raise ValueError(message)
        assert len(message) < 300
        assert "\n" not in message


def test_nothing_but_bad_pairs_asks_nothing(detector: StreamingDetector) -> None:
    assert [one.status for one in detector.diagnose([(None, "a"), (3, "b")])] == ["failed", "failed"]  # type: ignore[list-item]
    assert detector.diagnose([]) == []


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (GREY, GREY),
        (GREY[..., 0], GREY),
        (np.dstack([GREY, np.full((40, 30), 255, np.uint8)]), GREY),
        (np.dstack([GREY, np.zeros((40, 30), np.uint8)]), np.full_like(GREY, 255)),
        (GREY / 255, GREY),
        ((GREY / 255).astype(np.float16), GREY),
        (GREY.astype(np.uint16) * 257, GREY),
        (GREY.astype(">u2") * np.uint16(257), GREY),
        (np.zeros((5, 4), np.float32), np.zeros((5, 4, 3), np.uint8)),
        (
            np.arange(60, dtype=np.uint8).reshape(4, 5, 3)[::-1, ::-1],
            np.arange(60).reshape(4, 5, 3)[::-1, ::-1],
        ),
    ],
)
def test_an_array_is_the_picture_of_its_pixels(pixels: Any, expected: Any) -> None:
    seen = []
    FunctionDetector("f", lambda picture, prompt: seen.append(picture) or Diagnosis()).diagnose(
        [(pixels, "a")]
    )  # type: ignore[func-returns-value]
    (picture,) = seen
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), expected)


SEEN = Defect((10, 20, 300, 400), "artifact", "the cup melts", 60)
SLIGHT = Defect((1, 2, 30, 40), "artifact", "a speck", 5)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "[]",  # which would read as a clean picture
        "The model says: it melts.",
        sdg.render_response(Diagnosis((SEEN, SLIGHT))),  # before the function filtered it
    ],
)
def test_what_a_function_found_is_what_its_stored_text_says(raw: str) -> None:
    (found,) = FunctionDetector("f", lambda picture, prompt: Diagnosis((SEEN,), raw=raw)).diagnose(
        [(GREY, "a")]
    )
    assert found == Diagnosis((SEEN,))
    assert sdg.parse_response(found.raw) == found


def test_a_text_that_says_what_a_function_found_stays_as_it_is() -> None:
    raw = sdg.render_response(Diagnosis((SEEN,))) + "\n\n"
    for diagnosis in (sdg.parse_response(raw), sdg.parse_response(raw[:-30]), sdg.parse_response("no idea")):
        (found,) = FunctionDetector("f", lambda *pair, given=diagnosis: given).diagnose([(GREY, "a")])
        assert (found, found.raw) == (diagnosis, diagnosis.raw)


def test_a_filtered_diagnosis_that_had_lost_an_item_is_never_a_whole_one() -> None:
    text = sdg.render_response(Diagnosis((SEEN, SLIGHT))).replace("30, 40", "30")
    lost = sdg.parse_response(text)
    assert lost.defects == (SEEN,)
    assert not lost.is_whole
    (found,) = FunctionDetector("f", lambda *pair: replace(lost, defects=())).diagnose([(GREY, "a")])
    assert not found.is_informative
    (found,) = FunctionDetector("f", lambda *pair: replace(lost, defects=(SLIGHT,))).diagnose([(GREY, "a")])
    row = write_prediction(Record("a.png", "a", found), found.raw)
    read = read_prediction(row).diagnosis
    assert read is not None
    assert read.defects == (SLIGHT,)
    assert not read.is_whole


@pytest.mark.parametrize("error", [RuntimeError("too small"), ValueError("too small"), KeyError("too small")])
def test_what_a_function_raises_costs_that_picture_alone(error: Exception) -> None:
    def function(picture: Image.Image, prompt: str) -> Diagnosis:
        if prompt == "bad":
            raise error
        return Diagnosis()

    pairs: list[Any] = [(GREY, "good"), (GREY, "bad"), (GREY, "good")]
    found = FunctionDetector("mine.f", function).diagnose(pairs)
    assert [one.status for one in found] == ["ok", "failed", "ok"]
    assert found[1].error.startswith(f"mine.f: {type(error).__name__}: ")
    assert "test_base.py:" in found[1].error


def test_a_picture_that_cannot_be_read_is_no_fault_of_the_function(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    (found,) = FunctionDetector("f", lambda *pair: Diagnosis()).diagnose([(tmp_path / "cut.png", "a")])
    assert found.status == "failed"
    assert not found.error.startswith("f:")
