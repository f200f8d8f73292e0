"""The page of a blind study: pairs of pictures to rate by key or touch, in one file that needs no network.

It names pairs and pictures by ids alone and lists them in the order of these, so that nothing in it says
which system made what.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdg.reporting.page import write_page
from sdg.reporting.thumbnails import TO_JUDGE, Shown, Source, prepared, show_or_refuse

SIDE: Final = 1024
"""Longer side of each picture in pixels at most: what the paper's editor makes."""


@dataclass(frozen=True, slots=True)
class Question:
    """One pair to rate: its id, its prompt, and the two pictures, each with an id."""

    id: str
    prompt: str
    pictures: tuple[tuple[str, Source], tuple[str, Source]]


def write_study(
    path: str | os.PathLike[str],
    study: str,
    questions: Sequence[Question],
    *,
    seed: int = 0,
    side: int = SIDE,
    on_pair: Callable[[int], None] | None = None,
) -> Path:
    """Write the page of the study named `study`; returns its path.

    The browser draws the order of pairs, and what is left and right, from seed and annotator. side: longer
    side of the pictures in pixels at most. on_pair: is told how many pairs are written, after each.
    Raises SdgError where a picture cannot be read or the file cannot be written.
    """
    ordered = sorted(questions, key=lambda question: question.id)
    pictures = [
        picture for question in ordered for picture in sorted(question.pictures, key=lambda one: one[0])
    ]
    shown = prepared(lambda picture: (picture[0], show_or_refuse(picture[1], side, TO_JUDGE)), pictures)
    return write_page(
        path,
        "study.html",
        scripts=("person.js", "study.js"),
        styles=("study.css",),
        study=study,
        seed=seed,
        total=len(ordered),
        pairs=_pairs(ordered, shown, on_pair),
    )


def _pairs(
    questions: Sequence[Question],
    shown: Iterator[tuple[str, Shown]],
    on_pair: Callable[[int], None] | None,
) -> Iterator[tuple[Question, tuple[tuple[str, Shown], tuple[str, Shown]]]]:
    for done, question in enumerate(questions, start=1):
        yield question, (next(shown), next(shown))
        if on_pair is not None:
            on_pair(done)
