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

from sdg.defects import Defect, DefectType, Diagnosis
from sdg.testbed.importance import artifact_importance, misalignment_importance
from sdg.testbed.oracle.judgement import Cast, Contradiction, contradictions
from sdg.testbed.oracle.perception import Perception, SeenArtifact, perceive
from sdg.testbed.oracle.pixels import SIDE, as_picture
from sdg.testbed.oracle.reasons import reason_artifact, reason_contradiction
from sdg.testbed.oracle.traces import trace
from sdg.testbed.world.boxes import to_defect_box, widened
from sdg.testbed.world.prompts import parse_prompt
from sdg.testbed.world.scene import Request


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
    found: list[Contradiction | SeenArtifact] = [*misalignments, *view.artifacts]
    rated = [(_importance(request, view, parts, item), item) for item in found]
    if most is not None:
        rated = sorted(rated, key=lambda pair: -pair[0])[:most]
    rated.sort(key=_in_order)
    defects = []
    for importance, item in rated:
        if isinstance(item, Contradiction):
            type, reason = DefectType.MISALIGNMENT, reason_contradiction(request, view, parts, item)
        else:
            type, reason = DefectType.ARTIFACT, reason_artifact(view, item)
        defects.append(
            Defect(to_defect_box(widened(item.box, SIDE), SIDE), type, reason, importance, item.subtype)
        )
    return Diagnosis(tuple(defects), trace(request, view, parts, [item for _, item in rated]))


def _importance(request: Request, view: Perception, parts: Cast, item: Contradiction | SeenArtifact) -> int:
    if isinstance(item, Contradiction):
        colours = [view.seen[thing].colour for thing in item.things]
        return misalignment_importance(request, item.subtype, item.group, colours, item.box, SIDE)
    group = None
    if item.target >= 0:
        groups = (n for n in range(len(parts.members)) if item.target in parts.players(n))
        group = next(groups, -1)
    return artifact_importance(item.subtype, group, item.change, item.box, SIDE)


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
