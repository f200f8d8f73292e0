"""Data sets of injected pictures in the layout of SDG-30K, generated in parallel, the same bytes for a seed.

Picture number i is drawn from a generator seeded by (seed, i), so that neither the number of workers nor an
interruption changes anything. The layout is that of `sdg.testbed.datasets.folder`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from typing import Final

import numpy as np

from sdg._version import __version__
from sdg.records import Record
from sdg.testbed.datasets.folder import Unfinished, building, image_path
from sdg.testbed.injection import Sample, sample
from sdg.testbed.world.prompts import Split, split_of
from sdg.testbed.world.scene import Level

GENERATOR: Final = "injected"
"""The `generator` field of the records."""


@dataclass(frozen=True, slots=True)
class InjectedSettings:
    """Everything the bytes of a data set depend on."""

    count: int
    seed: int
    level: Level
    size: int
    version: str = __version__


def generate(
    out: str | os.PathLike[str],
    count: int,
    *,
    seed: int = 0,
    level: Level = "core",
    size: int = 128,
    workers: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> dict[Split, int]:
    """Write a data set of `count` pictures to the new folder `out`; returns the pictures of each split.

    on_progress is told how many pictures are done. With several workers, call this under
    `if __name__ == "__main__"`, since they are started afresh. Raises SdgError as `building` does.
    """
    if count < 1 or workers < 1:
        raise ValueError("A data set needs at least one picture and one worker.")
    settings = InjectedSettings(count, seed, level, size)
    with building(out, count, asdict(settings)) as unfinished:
        _draw_missing(unfinished, settings, workers, on_progress or (lambda done: None))
        return unfinished.finish()


def to_record(drawn: Sample, filepath: str) -> Record:
    """The annotation record of a sample whose picture lies at `filepath`."""
    return Record(filepath, drawn.prompt, drawn.diagnosis, generator=GENERATOR, split=split_of(drawn.request))


def draw(settings: InjectedSettings, number: int) -> Sample:
    """Picture `number` of the data set with these settings."""
    rng = np.random.default_rng([settings.seed, number])
    return sample(rng, settings.level, size=settings.size)


def _draw_missing(
    unfinished: Unfinished, settings: InjectedSettings, workers: int, on_progress: Callable[[int], None]
) -> None:
    missing = unfinished.missing()
    done = unfinished.done()
    on_progress(done)
    write = partial(_write_chunk, unfinished, settings)
    if min(workers, len(missing)) < 2:
        for first in missing:
            done += write(first)
            on_progress(done)
        return
    # Fresh processes: forking a process that may have threads can hang.
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(write, first) for first in missing]
        try:
            for task in as_completed(tasks):
                done += task.result()
                on_progress(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_chunk(unfinished: Unfinished, settings: InjectedSettings, first: int) -> int:
    drawn = ((draw(settings, number), image_path(number)) for number in unfinished.chunk(first))
    return unfinished.write(first, ((one.picture, to_record(one, path)) for one, path in drawn))
