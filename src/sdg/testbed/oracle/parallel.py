"""The oracle over many pictures, on several cores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sdg.defects import Diagnosis
from sdg.testbed.oracle.diagnosis import diagnose
from sdg.testbed.oracle.pixels import as_picture

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
    one = partial(diagnose, most=most)
    return [one(picture, prompt) for picture, prompt in cases]
