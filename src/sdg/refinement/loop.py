"""Refinement: diagnose, edit, diagnose again; the best picture is kept, never one worse than the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdg.defects import Diagnosis
from sdg.detectors.base import Detector
from sdg.refinement.masks import changed_share, composite
from sdg.refinement.request import Editor, EditSettings, Mode, build_request, importance_of

HeatSource = Callable[[Image.Image, str, Diagnosis], Sequence[NDArray[np.floating]]]
"""Picture, prompt and what the detector found -> the heat maps of artifacts and of misalignments, 0 to 1."""


class Outcome(StrEnum):
    """What refinement came to."""

    ALREADY_CLEAN = "already clean"  # nothing was edited
    LEFT_ALONE = "left alone"  # nor here: too little is wrong
    CLEAN = "clean"  # an edit left no defect
    IMPROVED = "improved"
    NO_BETTER = "no better"  # no edit scored better, so the input is kept
    FAILED = "failed"  # nothing is gained, for the input, or the edits of a round, got no answer


@dataclass(frozen=True, slots=True)
class Attempt:
    """One edit: in which round, with which seed, what it looks like and what is wrong with it.

    picture and diagnosis are None where the editor gave none, `error` says why. severity is None where the
    diagnosis says too little to compare by.
    """

    round: int
    seed: int
    picture: Image.Image | None
    diagnosis: Diagnosis | None
    severity: int | None
    changed: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Refinement:
    """The picture that is kept, its diagnosis, and all that was tried.

    changed: share of the input's pixels that differ in `picture`. stopped: why it ended before its last
    round without a clean picture, "" otherwise.
    """

    picture: Image.Image
    diagnosis: Diagnosis
    before: Diagnosis
    outcome: Outcome
    changed: float
    attempts: tuple[Attempt, ...] = ()
    stopped: str = ""


def severity(diagnosis: Diagnosis) -> int | None:
    """Sum of the importances, 50 where one is missing; 0 is clean, None is not known.

    None also where items of the answer were lost: their sum would make a picture look better than it is.
    """
    if not diagnosis.is_whole:
        return None
    return sum(importance_of(defect) for defect in diagnosis.defects)


def refine(
    picture: Image.Image,
    prompt: str,
    *,
    detector: Detector,
    editor: Editor,
    mode: Mode | str = Mode.SDG,
    rounds: int = 3,
    candidates: int = 1,
    settings: EditSettings | None = None,
    heat: HeatSource | None = None,
    before: Diagnosis | None = None,
    from_severity: int = 1,
    seed: int = 0,
) -> Refinement:
    """Edit a picture for up to `rounds` rounds, or until the detector finds it clean.

    Each round edits the best picture so far, `candidates` times with seeds of their own, and goes on from
    the one with the least `severity`, if that is less than before. Whatever an editor returns is laid into
    the picture through the mask. While rounds bring nothing better, edits become stronger and wider
    (`EditSettings.escalated`). A clean picture, one whose severity is below `from_severity`, and one the
    detector has no answer for, is returned as it is; a round in which nothing could be edited or judged is
    the last one. `heat` is for mode `heatmap`, `before` the picture's diagnosis where it is known already.
    Raises SdgError for a picture without a prompt or too small, ValueError for rounds or candidates below 1.
    """
    if rounds < 1 or candidates < 1:
        raise ValueError("Refinement needs at least one round and one candidate.")
    picture = picture.convert("RGB")
    before = detector.diagnose([(picture, prompt)])[0] if before is None else before
    if before.is_clean:
        return Refinement(picture, before, before, Outcome.ALREADY_CLEAN, 0.0)
    if (least := severity(before)) is None:
        why = f"The input could not be diagnosed ({before.status.value})."
        return Refinement(picture, before, before, Outcome.FAILED, 0.0, (), why)
    if least < from_severity:
        return Refinement(picture, before, before, Outcome.LEFT_ALONE, 0.0)
    best, known, tried, stopped = picture, before, [], ""
    settings, idle = settings or EditSettings(), 0
    for turn in range(rounds):
        maps = heat(best, prompt, known) if heat is not None else None
        requests = [
            build_request(
                best,
                prompt,
                known,
                mode=mode,
                settings=settings.escalated(idle),
                heat=maps,
                seed=seed + turn * candidates + number,
            )
            for number in range(candidates)
        ]
        results = editor.edit(requests)
        edited = [
            None
            if result.picture is None
            else composite(best, result.picture, request.mask if result.mask is None else result.mask)
            for request, result in zip(requests, results, strict=True)
        ]
        judged = iter(detector.diagnose([(image, prompt) for image in edited if image is not None]))
        attempts = []
        for request, result, image in zip(requests, results, edited, strict=True):
            found = None if image is None else next(judged)
            score = None if found is None else severity(found)
            share = 0.0 if image is None else changed_share(picture, image)
            attempts.append(Attempt(turn + 1, request.seed, image, found, score, share, result.error))
        tried += attempts
        scored = [attempt for attempt in attempts if attempt.severity is not None]
        if not scored:
            error = next((attempt.error for attempt in attempts if attempt.error), "")
            stopped = error or "No edit of the round could be diagnosed."
            break
        winner = min(scored, key=lambda attempt: attempt.severity or 0)
        assert winner.picture is not None
        assert winner.diagnosis is not None
        assert winner.severity is not None
        if winner.severity < least:
            best, known, least, idle = winner.picture, winner.diagnosis, winner.severity, 0
        else:
            idle += 1
        if known.is_clean:
            break
    if known.is_clean:
        outcome = Outcome.CLEAN
    elif known is not before:
        outcome = Outcome.IMPROVED
    else:
        outcome = Outcome.FAILED if stopped else Outcome.NO_BETTER
    return Refinement(best, known, before, outcome, changed_share(picture, best), tuple(tried), stopped)
