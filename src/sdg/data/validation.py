"""Every fault of an annotation file, not only the first: what `sdg data validate` lists.

Records stream by; a few dozen bytes an image are kept, to notice an image that is listed twice.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sdg.data.formats import Format, read_parts
from sdg.errors import SdgError, reasons
from sdg.images import load_image
from sdg.io.paths import data_path
from sdg.records import Fault, Path, Record
from sdg.response.strict import BoxOrder


@dataclass(slots=True)
class Summary:
    """What a file holds: usable records with their defects, parts (lines, images, tasks) with a fault.

    statuses: how many diagnoses came to be in which way. images: how many image files were read.
    """

    records: int = 0
    clean: int = 0
    unannotated: int = 0
    unprompted: int = 0
    defects: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    images: int = 0
    faulty_parts: int = 0
    faults: int = 0

    def __str__(self) -> str:
        parts = [
            f"{_number(self.records, 'record')} ({self.clean:,} clean, {self.unannotated:,} unannotated)",
            _number(self.defects, "defect"),
        ]
        if self.unprompted:
            parts.append(f"{_number(self.unprompted, 'record')} without a prompt")
        parts += [f"{count:,} {status}" for status, count in sorted(self.statuses.items()) if status != "ok"]
        if self.images:
            parts.append(f"{_number(self.images, 'image')} read")
        faults = f"{_number(self.faults, 'fault')} in {_number(self.faulty_parts, 'place')}"
        parts.append(faults if self.faults else "no faults")
        return "; ".join(parts)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def validate(
    path: Path,
    on_fault: Callable[[Fault], None],
    *,
    format: Format | None = None,
    box_order: BoxOrder = "xyxy",
    images: Path | None = None,
    allow_outside: bool = False,
    on_record: Callable[[Record], object] = lambda record: None,
) -> Summary:
    """Read a file to its end, hand every fault to `on_fault` as it is found, and sum up.

    A fault is whatever the reader of the format refuses, an image listed twice by one annotator, and, where
    the folder `images` is given, an image file that is missing or cannot be read whole, or whose path leads
    out of it and is not allowed to (allow_outside).
    `on_record` hears of every usable record, for showing progress.
    Raises SdgError where the file cannot be read at all.
    """
    folder = None if images is None else pathlib.Path(images)
    found, seen = Summary(), set[int]()

    def is_new(*key: str | None) -> bool:
        before = len(seen)
        seen.add(hash(key))
        return len(seen) > before

    def look(record: Record) -> Iterator[str]:
        """Sum up a record; its faults."""
        found.records += 1
        found.unprompted += not record.prompt.strip()
        if record.diagnosis is None:
            found.unannotated += 1
        else:
            found.clean += record.diagnosis.is_clean
            found.defects += len(record.diagnosis.defects)
            found.statuses[record.diagnosis.status.value] += 1
        if not is_new(record.filepath, record.annotator):
            by = "" if record.annotator is None else f" by {record.annotator}"
            yield f"{record.filepath} is listed a second time{by}."
        if folder is not None and is_new(record.filepath):  # read once, however many annotators it has
            try:
                load_image(data_path(record.filepath, folder, allow_outside=allow_outside))
                found.images += 1
            except SdgError as error:
                yield str(error)

    for place, make in read_parts(path, format, box_order=box_order):
        records: list[Record] = []
        faults: list[str] = []
        try:
            records += make()
        except ValueError as error:
            faults += reasons(error)
        for record in records:
            faults += look(record)
            on_record(record)
        found.faulty_parts += bool(faults)
        found.faults += len(faults)
        for reason in faults:
            on_fault(Fault(str(path), place, reason))
    return found
