"""Data sets of injected pictures in the layout of SDG-30K, generated in parallel, the same bytes for a seed.

    OUT/images/000000.png …    train.jsonl, validation.jsonl, test.jsonl (prompt-disjoint)    settings.json

Picture number i is drawn from a generator seeded by (seed, i), so that neither the number of workers nor an
interruption changes anything. The folder appears under its name once it is complete; until then the work
lies in `.OUT.partial`, and the same call again takes it up where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final, get_args

import numpy as np
from PIL import Image

from sdg import __version__
from sdg.data.jsonl import dump_object
from sdg.data.sdg30k import to_annotation
from sdg.errors import SdgError
from sdg.files import atomic_writer, write_text
from sdg.records import Record
from sdg.testbed.injection import Sample, sample
from sdg.testbed.prompts import Split, split_of
from sdg.testbed.world import Level

GENERATOR: Final = "injected"
"""The `generator` field of the records."""
SPLITS: Final[tuple[Split, ...]] = get_args(Split)

_CHUNK: Final = 100  # pictures a task; what an interruption can cost


@dataclass(frozen=True, slots=True)
class Settings:
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
    `if __name__ == "__main__"`, since they are started afresh. Raises SdgError where `out` is a file or
    holds something, where an unfinished data set of other settings is in the way, or the disk refuses.
    """
    if count < 1 or workers < 1:
        raise ValueError("A data set needs at least one picture and one worker.")
    out = Path(out).resolve()
    settings = Settings(count, seed, level, size)
    try:
        _check_free(out)
        partial_folder = _open_partial(out, settings)
        _draw_missing(partial_folder, settings, workers, on_progress or (lambda done: None))
        counts = _merge(partial_folder, settings)
        if out.exists():
            out.rmdir()
        partial_folder.rename(out)
    except OSError as error:
        raise SdgError(f"{out} cannot be written: {error.strerror or error}.") from error
    return counts


def to_record(drawn: Sample, filepath: str) -> Record:
    """The annotation record of a sample whose picture lies at `filepath`."""
    return Record(filepath, drawn.prompt, drawn.diagnosis, generator=GENERATOR, split=split_of(drawn.request))


def draw(settings: Settings, number: int) -> Sample:
    """Picture `number` of the data set with these settings."""
    rng = np.random.default_rng([settings.seed, number])
    return sample(rng, settings.level, size=settings.size)


def _check_free(out: Path) -> None:
    if out.is_file():
        raise SdgError(f"{out} is a file; give the name of a new folder.")
    if out.is_dir() and any(out.iterdir()):
        raise SdgError(f"{out} is not empty; give the name of a new folder, or empty it first.")


def _open_partial(out: Path, settings: Settings) -> Path:
    """The folder the work is done in, new or left by an interrupted call with the same settings."""
    folder = out.with_name(f".{out.name}.partial")
    note = folder / "settings.json"
    text = json.dumps(asdict(settings), indent=2) + "\n"
    if note.exists() and note.read_text("utf-8") != text:
        raise SdgError(f"{folder} holds an unfinished data set with other settings; delete it first.")
    for name in ("images", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_text(note, text)
    return folder


def _parts(folder: Path, settings: Settings) -> Iterator[tuple[int, Path]]:
    for first in range(0, settings.count, _CHUNK):
        yield first, folder / "parts" / f"{first:08d}.jsonl"


def _draw_missing(folder: Path, settings: Settings, workers: int, on_progress: Callable[[int], None]) -> None:
    missing = [first for first, part in _parts(folder, settings) if not part.exists()]
    done = settings.count - sum(_chunk_size(settings, first) for first in missing)
    on_progress(done)
    write = partial(_write_chunk, folder, settings)
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


def _chunk_size(settings: Settings, first: int) -> int:
    return min(_CHUNK, settings.count - first)


def _write_chunk(folder: Path, settings: Settings, first: int) -> int:
    """Write the pictures first … first + 99, and only then the file with their annotations."""
    count = _chunk_size(settings, first)
    lines = []
    for number in range(first, first + count):
        drawn = draw(settings, number)
        filepath = f"images/{number:06d}.png"
        # Level 1 is three times as fast as the default and costs a few per cent of size on such pictures.
        Image.fromarray(drawn.picture).save(folder / filepath, compress_level=1)
        lines.append(dump_object(to_annotation(to_record(drawn, filepath))))
    with atomic_writer(folder / "parts" / f"{first:08d}.jsonl") as file:
        file.write(b"".join(lines))
    return count


def _merge(folder: Path, settings: Settings) -> dict[Split, int]:
    """Sort the annotations by split into one file each, in the order of the pictures."""
    lines: dict[Split, list[bytes]] = {split: [] for split in SPLITS}
    for _, part in _parts(folder, settings):
        for line in part.read_bytes().splitlines(keepends=True):
            lines[json.loads(line)["split"]].append(line)
    counts = Counter({split: len(lines[split]) for split in SPLITS})
    for split in SPLITS:
        if lines[split]:
            with atomic_writer(folder / f"{split}.jsonl") as file:
                file.write(b"".join(lines[split]))
    shutil.rmtree(folder / "parts")
    return dict(counts)
