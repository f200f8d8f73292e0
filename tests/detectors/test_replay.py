"""Stored responses: found by path, never guessed, and failures stay failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sdg
from sdg import Defect, Diagnosis
from sdg.data.formats import read_records
from sdg.detectors import BatchDiagnoser
from sdg.detectors.replay import ReplayDetector
from sdg.errors import SdgError

FOUND = Diagnosis((Defect((10, 20, 300, 400), "artifact", "the cup melts", 60),), "a cup")
RAW = sdg.render_response(FOUND)


def replay(folder: Path, *rows: dict[str, Any], **options: Any) -> ReplayDetector:
    file = folder / "stored.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return ReplayDetector(file, **options)


def row(path: str, response: str | None = RAW, **more: Any) -> dict[str, Any]:
    return {"filepath": path, "caption": "a", "response": response} | more


def test_a_stored_response_is_read_as_if_just_given(tmp_path: Path) -> None:
    stored = replay(tmp_path, row("x/a.png"), {"filename": "x/b.png", "response": "[]"})
    found = stored.diagnose([("x/b.png", "?"), ("x/a.png", "a"), ("/data/x/a.png", "a")])
    assert found[1] == FOUND
    assert found[1].raw == RAW
    assert found[0].status == "repaired"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"response": None}, "got no answer"),
        ({"response": None, "error": "The server answered 500: boom."}, "answered 500"),
        ({"response": "", "status": "failed"}, "got no answer"),
        ({"error": "late"}, "late"),
        ({"error": {"message": "late"}}, "got no answer"),
        ({"response": "[]", "error": ["late"]}, "got no answer"),
        ({"response": "[]", "refusal": "I cannot."}, "got no answer"),
        ({"response": "[]", "finish_reason": "content_filter"}, "got no answer"),
        ({"response": "[]", "finish_reason": "error"}, "got no answer"),
    ],
)
def test_a_stored_failure_is_a_failure(tmp_path: Path, more: dict[str, Any], sentence: str) -> None:
    ((_, outcome),) = replay(tmp_path, row("a.png") | more).stream([("a.png", "a")])
    assert outcome.status == "failed"
    assert sentence in outcome.error


def test_what_was_cut_off_stays_truncated(tmp_path: Path) -> None:
    (found,) = replay(tmp_path, row("a.png", status="truncated")).diagnose([("a.png", "a")])
    assert found.status == "truncated"
    assert found.defects == FOUND.defects


def test_a_stored_response_is_no_cleaner_than_its_line_says(tmp_path: Path) -> None:
    clean = row("a.png", sdg.render_response(Diagnosis()))
    for more, status in (
        ({"finish_reason": "stop", "status": "ok", "error": None, "refusal": ""}, "ok"),
        ({"finish_reason": "length"}, "truncated"),
        ({"status": "unparseable"}, "unparseable"),
        ({"response": '{"detail": []}'}, "unparseable"),
        ({"response": '{"choices": [{"message": {"content": "[]"}}]}'}, "unparseable"),
    ):
        stored = replay(tmp_path, clean | more)
        (found,), (record,) = stored.diagnose([("a.png", "a")]), read_records(tmp_path / "stored.jsonl")
        assert (found.status, found.is_clean) == (status, status == "ok"), more
        assert record.diagnosis == found
    (seen,) = replay(tmp_path, row("a.png", status="unparseable")).diagnose([("a.png", "a")])
    assert seen == FOUND


def test_an_image_without_a_response_fails(tmp_path: Path) -> None:
    ((_, outcome),) = replay(tmp_path, row("a.png")).stream([("b.png", "a")])
    assert outcome.status == "failed"
    assert outcome.error.endswith("stored.jsonl holds no response for b.png.")


def test_a_bare_name_counts_only_where_it_is_unambiguous(tmp_path: Path) -> None:
    stored = replay(tmp_path, row("x/a.png"), row("y/a.png"), row("z/b.png"))
    a, b = stored.diagnose([("a.png", "a"), ("/elsewhere/b.png", "a")])
    assert (a.status, b.status) == ("failed", "ok")
    # One stored response cannot be that of two images.
    both = stored.diagnose([("q/b.png", "a"), ("r/b.png", "a"), ("z/b.png", "a")])
    assert [d.status.value for d in both] == ["failed", "failed", "ok"]


def test_a_row_whose_path_agrees_in_part_needs_the_prompt_to_agree(tmp_path: Path) -> None:
    stored = replay(tmp_path, row("images/0.png", caption="a drawing "), row("b.png", caption=""))
    asked = [("pictures/0.png", "hi"), ("pictures/0.png", "a drawing"), ("/x/images/0.png", "hi")]
    other, same, whole = (stored.diagnose([pair])[0] for pair in asked)
    assert (other.status.value, same, whole) == ("failed", FOUND, FOUND)
    assert "images/0.png of" in str(other.error)
    assert "stored with another prompt than pictures/0.png has" in str(other.error)
    assert stored.diagnose([("0.png", "hi"), ("x/b.png", "hi")])[1] == FOUND
    assert stored.diagnose([("0.png", "hi")])[0].status == "failed"


def test_the_prompt_tells_two_responses_for_one_image_apart(tmp_path: Path) -> None:
    stored = replay(tmp_path, row("a.png", caption="one"), row("a.png", "[]", caption="two"))
    one, two, three = stored.diagnose([("a.png", "one"), ("a.png", "two"), ("a.png", "three")])
    assert one == FOUND
    assert two.defects == ()
    assert three.status == "failed"


def test_pictures_are_found_by_the_file_they_came_from(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    stored = replay(tmp_path, row("a.png"))
    with Image.open(tmp_path / "a.png") as opened:
        known, unknown = stored.diagnose([(opened, "a"), (Image.new("RGB", (4, 4)), "a")])
    assert (known, unknown.status.value) == (FOUND, "failed")


def test_a_profile_without_thinking_is_minded(tmp_path: Path) -> None:
    bare = row("a.png", "<answer>[]</answer>")
    assert replay(tmp_path, bare).diagnose([("a.png", "a")])[0].status == "repaired"
    assert replay(tmp_path, bare, require_think=False).diagnose([("a.png", "a")])[0].status == "ok"


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"response": "x"}, "line 1: 'filepath' is missing"),
        ({"filepath": "a.png"}, "line 1: 'response' is missing"),
        ({"filepath": "a.png", "response": 3}, "line 1: 'response' is the detector's raw text"),
    ],
)
def test_a_file_that_holds_no_responses_is_refused(
    tmp_path: Path, bad: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SdgError, match=r"stored\.jsonl") as caught:
        replay(tmp_path, bad)
    assert sentence in str(caught.value)


def test_only_what_is_wanted_is_streamed(tmp_path: Path) -> None:
    stored = replay(tmp_path, row("a.png"), row("b.png"))
    assert [index for index, _ in stored.stream([("a.png", "a"), ("b.png", "a")], {1})] == [1]


def test_columns_of_a_batch_are_not_all_images_of_a_run(tmp_path: Path) -> None:
    replay(tmp_path, row("a.png"))
    with pytest.raises(SdgError, match="among all images of a run"):
        BatchDiagnoser(f"replay:{tmp_path / 'stored.jsonl'}")({"image": ["a.png"], "prompt": ["a"]})
