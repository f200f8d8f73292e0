"""The oracle's verdict on one picture: what is seen, held against the prompt, as a Diagnosis.

`diagnose_all` gives it of many, on several cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from multiprocessing import get_context

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sdg.defects import BOX_SCALE, Defect, DefectType, Diagnosis
from sdg.testbed.conventions import LEAST_SIDE
from sdg.testbed.oracle.judgement import Contradiction, contradictions
from sdg.testbed.oracle.perception import SeenArtifact, perceive
from sdg.testbed.oracle.pixels import SIDE, Box, as_picture
from sdg.testbed.oracle.rating import rate_artifact, rate_contradiction
from sdg.testbed.oracle.reasons import reason_artifact, reason_contradiction
from sdg.testbed.oracle.traces import trace
from sdg.testbed.world.prompts import parse_prompt


def diagnose(image: Image.Image | ArrayLike, prompt: str, *, most: int | None = None) -> Diagnosis:
    """Find what is wrong with a picture of the testbed's kind.

    image: PIL image of any mode and size, or an array (H, W, 3) of uint8 or of floats in 0..1; it is looked
    at with 128 pixels a side. most: keep only so many defects, the most important ones.
    Raises ValueError where the prompt is not one of the testbed's, or the array is no picture; never
    because of what a picture shows.
    """
    request = parse_prompt(prompt)
    view = perceive(as_picture(image), request)
    parts, misalignments = contradictions(request, view)
    rated: list[tuple[int, Contradiction | SeenArtifact]] = [
        *((rate_contradiction(request, view.seen, item), item) for item in misalignments),
        *((rate_artifact(parts, item), item) for item in view.artifacts),
    ]
    if most is not None:
        rated = sorted(rated, key=lambda pair: -pair[0])[:most]
    rated.sort(key=_in_order)
    defects = []
    for importance, item in rated:
        if isinstance(item, Contradiction):
            type, reason = DefectType.MISALIGNMENT, reason_contradiction(request, view, parts, item)
        else:
            type, reason = DefectType.ARTIFACT, reason_artifact(view, item)
        defects.append(Defect(to_defect_box(item.box), type, reason, importance, item.subtype))
    return Diagnosis(tuple(defects), trace(request, view, parts, [item for _, item in rated]))


def to_defect_box(box: Box) -> Box:
    """Pixel box of the 128-pixel picture to 0–1000, rounded outwards, no side under 12 pixels."""
    x0, x1 = _widened(box[0], box[2])
    y0, y1 = _widened(box[1], box[3])
    low = (value * BOX_SCALE // SIDE for value in (x0, y0))
    high = (-(-value * BOX_SCALE // SIDE) for value in (x1, y1))
    return (*low, *high)  # type: ignore[return-value]


def _widened(low: int, high: int) -> tuple[int, int]:
    if high - low < LEAST_SIDE:
        low = min(max(0, low - (LEAST_SIDE - (high - low)) // 2), SIDE - LEAST_SIDE)
        high = low + LEAST_SIDE
    return low, high


def _in_order(rated: tuple[int, Contradiction | SeenArtifact]) -> tuple[bool, int, int]:
    """Misalignments first, then artifacts, each from left to right."""
    item = rated[1]
    x0, y0, x1, y1 = item.box
    return isinstance(item, SeenArtifact), x0 + x1, y0 + y1


_CHUNK = 32
"""Pictures a task."""

Case = tuple[Image.Image | ArrayLike, str]


def diagnose_all(
    cases: Iterable[Case], *, workers: int | None = None, most: int | None = None
) -> Iterator[Diagnosis]:
    """Diagnose (image, prompt) pairs as `diagnose` does, one Diagnosis for each, in order.

    workers: processes, by default as many as there are cores; with 1 everything runs in this process.
    Raises ValueError as `diagnose` does. Pictures are taken from `cases` only as they are needed.
    """
    workers = workers or os.cpu_count() or 1
    source = iter(cases)
    first = list(islice(source, _CHUNK))
    if workers == 1 or len(first) < _CHUNK:
        for image, prompt in chain(first, source):
            yield diagnose(image, prompt, most=most)
        return
    # Forking a process that runs torch's threads may hang; fresh processes import numpy and scipy only.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running: list[Future[list[Diagnosis]]] = []
        cases_left = first
        while cases_left or running:
            while cases_left and len(running) < 2 * workers:
                packed = [_packed(case) for case in cases_left]
                running.append(pool.submit(_diagnose_chunk, packed, most))
                cases_left = list(islice(source, _CHUNK))
            yield from running.pop(0).result()


def _packed(case: Case) -> tuple[NDArray[np.uint8], str]:
    """A case as bytes of the size that is looked at: little to send to another process."""
    return as_picture(case[0]).astype(np.uint8), case[1]


def _diagnose_chunk(cases: list[tuple[NDArray[np.uint8], str]], most: int | None) -> list[Diagnosis]:
    return [diagnose(picture, prompt, most=most) for picture, prompt in cases]
