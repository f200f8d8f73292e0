"""A data set's folder while it is made: chunk by chunk, so that a kill loses at most the chunk in hand.

    OUT/images/000000.png …    train.jsonl, validation.jsonl, test.jsonl    settings.json

The folder appears under its name once it is complete; until then the work lies in `.OUT.partial`, and the
same settings again take it up where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdg.data.formats.sdg30k import to_annotation
from sdg.errors import SdgError
from sdg.io.files import atomic_writer, remove_folder, tidy, writing
from sdg.io.jsonl import dump_object
from sdg.records import Record
from sdg.runs.begin import begin, lock_of
from sdg.testbed.world.prompts import Split

SPLITS: Final[tuple[Split, ...]] = get_args(Split)
MANIFEST: Final = "settings.json"
PARTS: Final = "parts"
CHUNK: Final = 100
"""Pictures a chunk: what an interruption can cost."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A data set of `count` pictures that is being made in `folder`, to appear as `out`."""

    folder: Path
    out: Path
    count: int

    def chunk(self, first: int) -> range:
        """Numbers of the pictures of the chunk that begins with `first`."""
        return range(first, min(first + CHUNK, self.count))

    def missing(self) -> list[int]:
        """First numbers of the chunks that are not written yet."""
        if self.sorted():
            return []
        return [first for first in range(0, self.count, CHUNK) if not self._part(first).exists()]

    def done(self) -> int:
        """Number of pictures that are written."""
        return self.count - sum(len(self.chunk(first)) for first in self.missing())

    def write(self, first: int, drawn: Iterable[tuple[NDArray[np.uint8], Record]]) -> int:
        """Write a chunk's pictures, and only then the file with their annotations; returns how many."""
        lines = []
        for picture, record in drawn:
            # Level 1 is three times as fast as the default and costs a few per cent of size on such pictures.
            Image.fromarray(picture).save(self.folder / record.filepath, compress_level=1)
            lines.append(dump_object(to_annotation(record)))
        with atomic_writer(self._part(first)) as file:
            file.write(b"".join(lines))
        return len(lines)

    def fill(
        self,
        draw: Callable[[range], Iterable[tuple[NDArray[np.uint8], Record]]],
        *,
        max_minutes: float | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> dict[Split, int] | None:
        """Draw the chunks that are missing and finish; None where max_minutes ended it early.

        on_progress is told how many pictures are done.
        """
        began = monotonic()
        for first in self.missing():
            if max_minutes is not None and monotonic() - began > 60 * max_minutes:
                return None
            self.write(first, draw(self.chunk(first)))
            if on_progress is not None:
                on_progress(self.done())
        return self.finish()

    def sorted(self) -> bool:
        """Whether all annotations are in the files of their splits, as where `finish` was killed."""
        return not (self.folder / PARTS).exists() and any(file.exists() for file in self._files().values())

    def finish(self) -> dict[Split, int]:
        """Sort the annotations by split into one file each and give the folder its name."""
        if not self.sorted():
            lines: dict[Split, list[bytes]] = {split: [] for split in SPLITS}
            for first in range(0, self.count, CHUNK):
                for line in self._part(first).read_bytes().splitlines(keepends=True):
                    lines[json.loads(line)["split"]].append(line)
            for split, file in self._files().items():
                if lines[split]:
                    with atomic_writer(file) as stream:
                        stream.write(b"".join(lines[split]))
            remove_folder(self.folder / PARTS)
        tidy(self.folder)
        counts = {
            split: file.read_bytes().count(b"\n") if file.exists() else 0
            for split, file in self._files().items()
        }
        if self.out.exists():
            self.out.rmdir()
        self.folder.rename(self.out)
        lock_of(self.out / MANIFEST).unlink(missing_ok=True)
        return counts

    def _files(self) -> dict[Split, Path]:
        return {split: self.folder / f"{split}.jsonl" for split in SPLITS}

    def _part(self, first: int) -> Path:
        return self.folder / PARTS / f"{first:08d}.jsonl"


def image_path(number: int) -> str:
    """Where picture `number` of a data set lies, relative to its folder."""
    return f"images/{number:06d}.png"


@contextmanager
def building(out: str | os.PathLike[str], count: int, settings: dict[str, Any]) -> Iterator[Unfinished]:
    """Begin a data set, or go on with an interrupted one of the same settings; the caller finishes it.

    settings: everything the bytes depend on, as JSON values. Raises SdgError where `out` is a file or holds
    something, where an unfinished data set of other settings is in the way, or the disk refuses.
    """
    out = Path(out).resolve()
    folder = out.with_name(f".{out.name}.partial")
    with writing(out):
        if out.is_file():
            raise SdgError(f"{out} is a file; give the name of a new folder.")
        if out.is_dir() and any(out.iterdir()):
            raise SdgError(f"{out} is not empty; give the name of a new folder, or empty it first.")
        with begin(folder, folder / MANIFEST, settings, resume=True):
            unfinished = Unfinished(folder, out, count)
            if not unfinished.sorted():
                for name in ("images", PARTS):
                    (folder / name).mkdir(exist_ok=True)
            yield unfinished
