"""What a page says of a diagnosis, and the files it offers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from app_models import FOUND
from everything import HOSTILE
from PIL import Image

from sdg.app.looking import Looked, page_of, require_picture, words, write_downloads
from sdg.app.working import Work, said
from sdg.defects import Diagnosis, Status
from sdg.errors import SdgError


@pytest.mark.parametrize(
    ("diagnosis", "sentence"),
    [
        (Diagnosis(), "No defects."),
        (Diagnosis(FOUND[:1]), "1 defect."),
        (Diagnosis(status=Status.FAILED, error="The server is off."), "The server is off."),
        (Diagnosis(status=Status.FAILED), "The detector gave no answer."),
        (
            Diagnosis(FOUND, status=Status.REPAIRED, repairs=("code-fence", "clamped-box", "clamped-box")),
            "2 defects. The answer was not in its exact form and has been read with care "
            "(code fence, clamped box ×2).",
        ),
        (
            Diagnosis(FOUND, status=Status.TRUNCATED),
            "2 defects. The answer was cut off: there may be more than is listed.",
        ),
    ],
)
def test_a_diagnosis_in_words(diagnosis: Diagnosis, sentence: str) -> None:
    assert words(diagnosis) == sentence


def test_a_lost_answer_is_never_called_clean() -> None:
    for status in (Status.FAILED, Status.UNPARSEABLE, Status.TRUNCATED):
        assert "No defects" not in words(Diagnosis(status=status))


def test_downloads_hold_the_diagnosis_and_the_overlay(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 3000)).save(tmp_path / "a.png")
    looked = Looked(tmp_path / "a.png", "a cat", Diagnosis(FOUND, "I looked."), "fake")
    as_json, overlay = write_downloads(looked, tmp_path)
    found = json.loads(as_json.read_text())
    assert (found.pop("prompt"), found.pop("detector")) == ("a cat", "fake")
    assert Diagnosis.from_dict(found) == looked.diagnosis
    with Image.open(overlay) as picture:
        assert 2048 < picture.width < 4000  # with the legend beside
    failed = Looked(looked.picture, "a cat", Diagnosis(status=Status.FAILED))
    assert write_downloads(failed, tmp_path) == (None, None)


def test_the_page_escapes_what_a_model_wrote(tmp_path: Path) -> None:
    html = page_of(Looked(tmp_path / "none.png", HOSTILE, Diagnosis(FOUND, HOSTILE), name=HOSTILE))
    assert "<script>" not in html
    assert "<img src=x" not in html
    assert "does not exist" in html
    assert said(HOSTILE).count("<") == 2


def test_work_ends_in_a_result_or_a_sentence() -> None:
    def refuse() -> None:
        raise SdgError("It is off.")

    def break_down() -> None:
        raise RuntimeError("line one\nline two")

    for function, result, problem in ((lambda: 3, 3, ""), (refuse, None, "It is off.")):
        work = Work(function)
        assert set(work.seconds()) == {0}
        assert (work.result, work.problem) == (result, problem)
    broken: Work[None] = Work(break_down)
    list(broken.seconds())
    assert broken.problem.startswith("This failed unexpectedly (line one)")


def test_work_that_no_one_waits_for_is_told_so() -> None:
    work: Work[int] = Work(lambda: 1)
    waiting = work.seconds()
    next(waiting)
    assert not work.abandoned.is_set()
    waiting.close()
    assert work.abandoned.is_set()


def test_a_picture_and_its_prompt_are_asked_for() -> None:
    with pytest.raises(SdgError, match="no picture yet"):
        require_picture(None, "a cat")
    with pytest.raises(SdgError, match="Give the prompt"):
        require_picture("a.png", "  ")
