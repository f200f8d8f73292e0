"""An evaluation as a page: its tables, and the worst images with truth and prediction drawn on them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdg.errors import SdgError
from sdg.evaluation.join import Joined
from sdg.evaluation.result import Case, Evaluation, describe_settings, describe_status
from sdg.images import draw_overlay, load_image
from sdg.io.paths import data_path
from sdg.reporting.page import write_page
from sdg.reporting.thumbnails import Shown, show
from sdg.tables import Table

PICTURE_SIDE: Final = 640
"""Longer side of the pictures in a report, in pixels."""


@dataclass(frozen=True, slots=True)
class WorstImage:
    """One image with its errors; pictures: of truth and prediction, (name, defects, picture)."""

    path: str
    prompt: str
    errors: Case
    pictures: tuple[tuple[str, int, Shown], ...] = ()
    problem: str = ""


def write_evaluation(
    path: str | os.PathLike[str],
    evaluation: Evaluation,
    joined: Joined,
    tables: Iterable[Table],
    *,
    title: str = "SDG-Eval",
    statuses: Sequence[str] = (),
    images: str | os.PathLike[str] | None = None,
    allow_outside: bool = False,
    worst: int = 20,
) -> Path:
    """Write the report as one HTML file that needs no network; returns its path.

    joined: what was evaluated, for paths, prompts and all that did not pair up. statuses: how answers were
    read, a sentence each; by default those of `evaluation`. images: folder the paths are relative to; without
    it the worst cases are shown without pictures. An image that cannot be read, or whose path leads out of
    that folder and is not allowed to (allow_outside), is named with the reason in its place.
    Raises SdgError where the file cannot be written.
    """
    return write_page(
        path,
        "evaluation.html",
        scripts=(),
        title=title,
        statuses=statuses or [describe_status(evaluation.status)],
        settings=describe_settings(evaluation.settings),
        mismatch=joined.mismatch(),
        repairs=evaluation.status["repairs"],
        tables=tables,
        cases=[_worst_image(case, joined, images, allow_outside) for case in evaluation.worst(worst)],
    )


def _worst_image(
    case: Case, joined: Joined, images: str | os.PathLike[str] | None, allow_outside: bool
) -> WorstImage:
    path, prompt = joined.paths[case.image], joined.prompts[case.image]
    if images is None:
        return WorstImage(path, prompt, case)
    try:
        image = load_image(data_path(path, Path(images), allow_outside=allow_outside))
    except SdgError as error:
        return WorstImage(path, prompt, case, problem=str(error))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    # Errors have the first numbers.
    true = [*case.missed, *(pair[0] for pair in case.matched)]
    found = [*case.spurious, *(pair[1] for pair in case.matched)]
    pictures = tuple(
        (name, len(defects), show(draw_overlay(image, defects, min_side=PICTURE_SIDE), PICTURE_SIDE))
        for name, defects in (("truth", true), ("prediction", found))
    )
    return WorstImage(path, prompt, case, pictures)
