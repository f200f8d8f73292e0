"""The loop keeps the best round, never a worse one, and takes no answer for no information."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from sdg import Defect, Diagnosis, Status
from sdg.errors import SdgError
from sdg.refinement import EditRequest, EditResult, EditSettings, Outcome, build_request, refine, severity

BOX = (250, 250, 750, 750)


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (level, level, level))


class Brightness:
    """A detector whose one defect is as important as the middle pixel is bright; 255 gets no answer."""

    def diagnose(self, pairs: Sequence) -> list[Diagnosis]:
        levels = [picture.getpixel((16, 16))[0] for picture, _ in pairs]
        return [self.one(level) for level in levels]

    def one(self, level: int) -> Diagnosis:
        if level == 255:
            return Diagnosis(status=Status.FAILED)
        return Diagnosis((Defect(BOX, "artifact", "too bright", level),) if level else ())


class Painter:
    """An editor that paints the whole picture in the next level given; None is a refusal."""

    def __init__(self, *levels: int | None) -> None:
        self.levels, self.requests = list(levels), []

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        self.requests += requests
        levels = [self.levels.pop(0) for _ in requests]
        return [EditResult(None, "Refused.") if n is None else EditResult(grey(n)) for n in levels]


def run(start: int, *levels: int | None, **options):
    painter = Painter(*levels)
    return refine(grey(start), "a cup", detector=Brightness(), editor=painter, **options), painter


def test_a_clean_picture_is_left_alone() -> None:
    result, painter = run(0)
    assert (result.outcome, result.changed, painter.requests) == (Outcome.ALREADY_CLEAN, 0, [])


def test_a_picture_with_too_little_wrong_is_left_alone() -> None:
    result, painter = run(40, from_severity=41)
    assert (result.outcome, result.changed, painter.requests) == (Outcome.LEFT_ALONE, 0, [])
    assert severity(result.diagnosis) == 40
    assert run(40, 0, from_severity=40)[0].outcome is Outcome.CLEAN
    assert run(255, from_severity=41)[0].outcome is Outcome.FAILED


def test_it_ends_once_the_picture_is_clean_and_changes_nothing_outside() -> None:
    result, painter = run(80, 40, 0, 0)
    assert result.outcome is Outcome.CLEAN
    assert len(painter.requests) == 2
    assert result.picture.getpixel((16, 16)) == (0, 0, 0)
    assert result.picture.getpixel((2, 2)) == (80, 80, 80)
    assert result.changed == pytest.approx(np.mean(np.asarray(result.picture)[..., 0] != 80))


def test_a_worse_round_is_dropped_and_the_next_starts_from_the_best() -> None:
    result, painter = run(80, 50, 90, 60)
    assert (result.outcome, severity(result.diagnosis)) == (Outcome.IMPROVED, 50)
    assert [request.picture.getpixel((16, 16))[0] for request in painter.requests] == [80, 50, 50]
    assert len({request.seed for request in painter.requests}) == 3


def test_a_picture_that_only_gets_worse_is_returned_as_it_was() -> None:
    result, _ = run(50, 60, 50, 70)
    assert result.outcome is Outcome.NO_BETTER
    assert result.picture.tobytes() == grey(50).tobytes()


def test_after_a_round_without_gain_edits_are_stronger_and_wider_until_one_gains() -> None:
    settings = EditSettings((0.4, 0.4), (0.8, 0.8), 0.0625, 0.25)
    _, painter = run(80, 90, 90, 50, 40, rounds=4, settings=settings)
    assert [request.strength for request in painter.requests] == pytest.approx([0.4, 0.7, 0.85, 0.4])
    widths = [int((request.strengths[16] > 0).sum()) for request in painter.requests]
    assert widths[0] == widths[3] < widths[1] < widths[2]


def test_escalation_ends_at_all_of_the_schedule_and_the_whole_shorter_side() -> None:
    settings = EditSettings((0.5, 0.75), (0.75, 1.0), 0.4, 1.0)
    assert settings.escalated(0) == settings
    twice = settings.escalated(2)
    assert (twice.artifact, twice.misalignment) == ((0.875, 0.9375), (0.9375, 1.0))
    assert (twice.artifact_reach, twice.misalignment_reach) == (1.0, 1.0)


def test_of_several_candidates_the_best_is_kept() -> None:
    result, _ = run(80, 70, 30, 255, None, rounds=1, candidates=4)
    assert severity(result.diagnosis) == 30
    assert [attempt.severity for attempt in result.attempts] == [70, 30, None, None]


def test_no_answer_about_an_edit_is_not_taken_for_clean() -> None:
    result, _ = run(80, 60, 255, 0)
    assert (result.outcome, severity(result.diagnosis)) == (Outcome.IMPROVED, 60)
    assert result.stopped


def test_no_answer_about_the_input_edits_nothing() -> None:
    result, painter = run(255)
    assert (result.outcome, painter.requests) == (Outcome.FAILED, [])


def test_a_refusal_is_reported_in_its_own_words() -> None:
    result, _ = run(80, None)
    assert (result.outcome, result.stopped) == (Outcome.FAILED, "Refused.")


@pytest.mark.parametrize("level", [None, 255], ids=["no edit", "no diagnosis"])
def test_where_a_later_round_gets_no_answer_what_was_gained_is_kept_and_no_gain_is_a_failure(level) -> None:
    result, _ = run(80, 90, level)
    assert result.outcome is Outcome.FAILED
    assert result.stopped
    result, _ = run(80, 60, level)
    assert result.outcome is Outcome.IMPROVED
    assert result.stopped


def test_a_cut_off_answer_has_no_severity() -> None:
    one = Defect(BOX, "artifact", "x", 10)
    assert severity(Diagnosis((one, Defect(BOX, "artifact")))) == 60
    assert severity(Diagnosis((one,), status="truncated")) is None
    assert severity(Diagnosis((one,), status="repaired", repairs=("dropped-item",))) is None


def test_a_request_names_the_most_important_defect_first() -> None:
    defects = (
        Defect(BOX, "artifact", "small crack", 20),
        Defect((0, 0, 100, 100), "misalignment", "no hat", 95),
    )
    request = build_request(grey(90), "a hat", Diagnosis(defects, "Looked twice."))
    assert request.instruction.index("no hat") < request.instruction.index("small crack")
    assert "critical" in request.instruction
    assert "Looked twice." in request.instruction
    assert request.marked.getpixel((8, 8)) == (255, 0, 0)
    assert request.picture.getpixel((8, 8)) == (90, 90, 90)


def test_a_request_for_a_clean_picture_asks_for_nothing() -> None:
    request = build_request(grey(90), "a hat", Diagnosis(reasoning="All is well."))
    assert request.instruction.endswith("All is well.\n\nNo defect was found. Keep the picture as it is.")
    assert not request.mask.any()


def test_heat_maps_are_shown_to_the_editor_and_joined_they_are_the_mask() -> None:
    left, below = np.array([[1.0, 0.0]]), np.array([[0.0], [0.5]])
    found = Diagnosis((Defect(BOX, "artifact", "crack", 100),), "Looked twice.")
    request = build_request(grey(1), "a hat", found, mode="heatmap", heat=(left, below))
    shown = [np.asarray(picture) / 255 for picture in request.heat]
    assert [picture.shape for picture in shown] == [(32, 32), (32, 32)]
    assert (shown[0][0, 0], shown[0][0, 31], shown[1][0, 0], shown[1][31, 0]) == (1, 0, 0, 128 / 255)
    assert request.mask == pytest.approx(np.maximum(*shown), abs=1 / 255)
    assert request.instruction.splitlines()[2:-1] == [
        "",
        "What an inspection of it noted:",
        "Looked twice.",
        "crack",
        "",
    ]
    assert "two heat maps" in request.instruction
    # The brightest spot has the strength of a box of that importance.
    dim = build_request(grey(1), "a hat", found, mode="heatmap", heat=(left / 4, below / 4))
    assert dim.strengths == pytest.approx(request.strengths, abs=0.02)
    assert dim.strengths.max() == pytest.approx(dim.strength) == pytest.approx(0.6)
    assert not build_request(grey(1), "a hat", found).heat
    for none in (None, left):
        with pytest.raises(ValueError, match="artifacts and misalignments"):
            build_request(grey(1), "a hat", found, mode="heatmap", heat=none)


def test_fixed_differs_from_sdg_in_what_it_is_told_and_not_in_strength() -> None:
    diagnosis = Diagnosis((Defect(BOX, "artifact", "crack", 100),))
    sdg, fixed = (build_request(grey(1), "a hat", diagnosis, mode=mode) for mode in ("sdg", "fixed"))
    assert sdg.strength == fixed.strength == EditSettings().artifact[1]
    assert "crack" not in fixed.instruction
    assert (fixed.mask == 1).all()
    assert fixed.marked.tobytes() == fixed.picture.tobytes()
    assert (fixed.strengths == fixed.strength).all()
    assert sdg.strengths.max() == sdg.strength


def test_each_box_has_its_own_strength_and_its_types_reach() -> None:
    found = Diagnosis((Defect((0, 0, 250, 250), "artifact", "crack", 1),
                       Defect((0, 750, 250, 1000), "misalignment", "not red", 100)))  # fmt: skip
    settings = EditSettings((0.5, 0.6), (0.8, 0.9), 0.125, 0.25)
    strengths = build_request(grey(1), "a hat", found, settings=settings).strengths
    assert (strengths[0, 0], strengths[31, 0]) == (0.5, 0.9)
    # The reach is 4 and 8 of 32 pixels; half of it has the box's own strength.
    assert strengths[0, 8:14] == pytest.approx(0.5 * np.array([1, 1, 2 / 3, 1 / 3, 0, 0]))
    assert strengths[31, 8:17] == pytest.approx(0.9 * np.array([1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0]))
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="reach"):
            EditSettings(artifact_reach=wrong)
    with pytest.raises(ValueError, match="weakest <= strongest"):
        EditSettings(misalignment=(0.9, 0.8))


def test_where_an_editor_says_its_edit_holds_counts() -> None:
    class Corner:
        concurrency = 1

        def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
            mask = np.zeros((32, 32))
            mask[16, 16] = mask[0, 0] = 1  # the second is outside of the request's mask
            return [EditResult(grey(0), mask=mask) for _ in requests]

    result = refine(grey(60), "a hat", detector=Brightness(), editor=Corner())
    after = np.asarray(result.picture)[..., 0]
    assert result.outcome is Outcome.CLEAN
    assert (after == 0).sum() == 2
    assert after[0, 0] == after[16, 16] == 0


@pytest.mark.parametrize(
    ("size", "prompt", "part"), [((32, 8), "a cup", "pixels"), ((32, 32), " ", "prompt")]
)
def test_what_cannot_be_edited_is_said_in_one_sentence(size: tuple, prompt: str, part: str) -> None:
    with pytest.raises(SdgError, match=part):
        build_request(Image.new("RGB", size), prompt, Diagnosis())
