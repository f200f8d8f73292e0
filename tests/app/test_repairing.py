"""Repairs of chosen defects: the others stay, and what lies outside of the masks is the same bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from app_models import FOUND, REPAIRED, edit, find
from PIL import Image

from sdg.app.looking import Looked
from sdg.app.repairing import Repair, repair
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.refinement.loop import Outcome
from sdg.refinement.request import EditRequest, EditResult


class Finder:
    """`app_models.find` as a detector."""

    def diagnose(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[Diagnosis]:
        return [find(picture, prompt) for picture, prompt in pairs]


@dataclass
class Painter:
    """`app_models.edit` as an editor that keeps what it was asked."""

    concurrency: int = 1
    asked: list[EditRequest] = field(default_factory=list)

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        self.asked += requests
        return [EditResult(edit(request)) for request in requests]


@pytest.fixture
def looked(tmp_path: Path) -> Looked:
    noise = np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    return Looked(tmp_path / "a.png", "a cat", Diagnosis(FOUND), "fake")


def mended(looked: Looked, chosen: Sequence[int], painter: Painter, **options) -> Repair:
    return repair(looked, chosen, detector=Finder(), editor=painter, **options)


def test_a_chosen_defect_is_repaired_and_the_other_stays(looked: Looked) -> None:
    result = mended(looked, [0], Painter(), rounds=3)
    assert result.refinement.outcome is Outcome.CLEAN
    assert result.found.defects == FOUND[1:]
    before, after = np.asarray(result.before), np.asarray(result.after)
    x0, y0, x1, y1 = (c * s // 1000 for c, s in zip(FOUND[0].box, (160, 120) * 2, strict=True))
    assert (after[y0:y1, x0:x1] == REPAIRED).all()
    far = np.ones((120, 160), bool)
    feather = round(0.03 * 120)
    far[max(0, y0 - feather - 1) : y1 + feather + 2, max(0, x0 - feather - 1) : x1 + feather + 2] = False
    assert (before[far] == after[far]).all()
    assert result.changed_outside == 0
    assert far.sum() <= result.outside < 120 * 160


def test_what_a_later_look_finds_elsewhere_is_not_edited(looked: Looked) -> None:
    class Restless(Finder):
        def diagnose(self, pairs):
            ghost = Defect((0, 0, 60, 60), "artifact", "A ghost.", 99)
            stubborn = Defect((150, 250, 350, 450), "artifact", "Still there.", 90)
            return [Diagnosis((ghost, stubborn, FOUND[1])) for _ in pairs]

    painter = Painter()
    result = repair(looked, [0], detector=Restless(), editor=painter, rounds=3)
    assert result.refinement.outcome is Outcome.NO_BETTER
    assert len(painter.asked) == 3
    assert all(request.mask[:8, :8].max() == 0 for request in painter.asked)
    assert all("ghost" not in request.instruction for request in painter.asked)
    assert len(result.found.defects) == 3, "what is shown in the end is all of it"


def test_a_chosen_defect_that_is_still_there_is_not_repaired_though_another_overlaps_it(
    looked: Looked,
) -> None:
    chosen = Defect((100, 100, 400, 400), "artifact", "The hand has six fingers.", 80)
    beside = Defect((250, 100, 550, 400), "artifact", "The sleeve is fused.", 60)  # IoU 1/3
    moved = replace(chosen, box=(150, 100, 450, 400))  # IoU 5/7 with the chosen one, 1/2 with the other

    class Unchanged(Finder):
        def diagnose(self, pairs):
            return [Diagnosis((moved, beside)) for _ in pairs]

    both = replace(looked, diagnosis=Diagnosis((chosen, beside)))
    painter = Painter()
    result = repair(both, [0], detector=Unchanged(), editor=painter, rounds=2)
    assert result.refinement.outcome is Outcome.NO_BETTER
    assert [attempt.diagnosis.defects for attempt in result.refinement.attempts] == [(moved,)] * 2


def test_an_editor_that_worked_around_the_boxes_is_held_to_them_or_not(looked: Looked) -> None:
    class Wide(Painter):
        def edit(self, requests):
            ones = [np.ones((120, 160)) for _ in requests]
            return [replace(one, mask=mask) for one, mask in zip(super().edit(requests), ones, strict=True)]

    strict = mended(looked, [0], Wide())
    assert (strict.changed_outside, strict.found.defects) == (0, FOUND[1:])
    assert strict.outside > 0
    wide = mended(looked, [0], Wide(), strict=False)
    assert (wide.outside, wide.changed_outside) == (0, 0)
    assert (np.asarray(wide.after) == REPAIRED).all()


def test_strength_is_a_multiple_within_bounds(looked: Looked) -> None:
    strengths = []
    for factor in (0.25, 1.0, 2.0):
        painter = Painter()
        mended(looked, [0], painter, strength=factor)
        strengths.append(painter.asked[0].strength)
    assert strengths[0] == pytest.approx(strengths[1] / 4)
    assert strengths[1] < strengths[2] <= 1


def test_nothing_chosen_is_refused(looked: Looked) -> None:
    for chosen in ([], [7], [-1]):
        with pytest.raises(SdgError, match="at least one defect"):
            mended(looked, chosen, Painter())
