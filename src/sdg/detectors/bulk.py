"""A detector over many images, resumably: each result is written as soon as it is known.

`OUT.run.json` says with what the run was begun, `OUT.partial` collects results in the order they come, and
`OUT` appears at the end, in the order of the images.
"""

from __future__ import annotations

import os
import signal
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdg.defects import Diagnosis, Status
from sdg.detectors.base import StreamingDetector
from sdg.errors import SdgError
from sdg.images import StoredImage
from sdg.io import jsonl
from sdg.io.predictions import write_prediction
from sdg.records import Record
from sdg.response.strict import write_diagnosis
from sdg.runs.inputs import Item
from sdg.runs.journal import Key, Row, begin_file, earlier, journal, partial_of, require_once

CHUNK: Final = 1024
"""Pictures inside of files that a detector is given at once; a batch then needs few row groups."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The `number`-th of `count` equal parts of a run, from 1: neighbours, the first ones longer by one."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"A shard is K/N with K from 1 to N, not {self}.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, length: int) -> slice:
        """Its places among so many items."""
        size, more = divmod(length, self.count)
        start = (self.number - 1) * size + min(self.number - 1, more)
        return slice(start, start + size + (self.number <= more))

    @property
    def stem(self) -> str:
        """What its output is called in a folder of all of them."""
        return f"part-{self.number:05d}-of-{self.count:05d}"


ALL: Final = Shard()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to: how many images in all, how many of them diagnosed by it, and those that failed."""

    images: int
    diagnosed: int
    failed: tuple[Row, ...]


def run(
    detector: StreamingDetector,
    items: Sequence[Item],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    shard: Shard = ALL,
    on_result: Callable[[Row, int], None] | None = None,
) -> Summary:
    """Diagnose every item and write one line each to `out`: filepath, caption, response, status, error.

    That is the layout of the released predictions, as JSON Lines, or as Parquet where `out` is so called; a
    failed image has response null and its reason as `error`. Of several shards only the items of `shard`
    are this run's. Whenever the process dies, what is in `OUT.partial` counts, whole lines only; with
    `resume` images that are missing or failed are asked for again, the others never. Resuming without an
    earlier run begins one. `on_result` gets each new row once it is on disk, and how many are left; it is
    called by the journal's thread.
    Raises SdgError where an output exists already, where it was begun with other settings or for other
    images, where another process is writing it, and for items that are there twice.
    """
    out = Path(out)
    if not items:
        raise SdgError("There are no images to diagnose.")
    require_once([item.key for item in items], "image")
    own = range(len(items))[shard.of(len(items))]
    keys = [items[place].key for place in own]
    if not keys:
        raise SdgError(f"Shard {shard} has no images; make fewer shards.")
    # Only among all images of a run, whosever they are, is a stored answer seen to fit more than one.
    given = [slice(0, len(items))] if detector.stored else _parts(items, own)
    left = 0

    def kept(row: Row) -> None:
        nonlocal left
        left -= 1
        if on_result is not None:
            on_result(row, left)

    settings = {"detector": dict(detector.identity)} | ({} if shard == ALL else {"shard": str(shard)})
    with begin_file(out, settings, resume):
        with journal(partial_of(out), kept) as append, stopping(detector) as stopped:
            rows = earlier(out, _keyed, set(keys), "image")
            missing = [place for place in own if not _answered(rows.get(items[place].key))]
            left = len(missing)
            for part in given:
                pairs = [(item.file, item.prompt) for item in items[part]]
                first, last = (bisect_left(missing, place) for place in (part.start, part.stop))
                wanted = frozenset(place - part.start for place in missing[first:last])
                for place, diagnosis in detector.stream(pairs, wanted) if wanted else ():
                    item = items[part.start + place]
                    row = rows[item.key] = to_row(item, diagnosis)
                    append(row)
                if stopped():
                    break
        ordered = [rows[key] for key in keys]
        jsonl.write_objects(out, ordered)
        partial_of(out).unlink()
    failed = tuple(row for row in ordered if not _answered(row))
    return Summary(len(own), len(missing), failed)


def _parts(items: Sequence[Item], own: range) -> list[slice]:
    """What a detector is given at once: its shard, or neighbours where pictures lie together in a file."""
    size = CHUNK if any(isinstance(items[place].file, StoredImage) for place in own) else len(own)
    return [slice(start, min(start + size, own.stop)) for start in own[::size]]


@contextmanager
def stopping(detector: StreamingDetector) -> Iterator[Callable[[], bool]]:
    """At Ctrl-C what is answered already is still taken; a second one does not wait for that.

    Yields what says whether there was one.
    """
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        if stopped or not detector.stop():
            raise KeyboardInterrupt
        stopped = True

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if stopped:
        raise KeyboardInterrupt


def ask(detector: StreamingDetector, item: Item) -> Diagnosis:
    """The diagnosis of a single image."""
    return next(found for _, found in detector.stream([(item.file, item.prompt)]))


def readable(item: Item, diagnosis: Diagnosis) -> Row:
    """A diagnosis as JSON for people and scripts, its defects under the keys of the wire format.

    Where nothing is known `defects` is null, and `response` says what was answered.
    """
    unknown = {} if diagnosis.is_informative else {"defects": None, "response": diagnosis.raw or None}
    return {"filepath": item.filepath, "caption": item.prompt, **write_diagnosis(diagnosis), **unknown}


def to_row(item: Item, diagnosis: Diagnosis) -> Row:
    """One line of the output."""
    return write_prediction(Record(item.filepath, item.prompt, diagnosis), diagnosis.raw)


def _answered(row: Row | None) -> bool:
    return row is not None and row.get("status") != Status.FAILED.value


def _keyed(row: Mapping[str, Any]) -> tuple[Key, Row]:
    key = row.get("filepath"), row.get("caption")
    if not isinstance(key[0], str) or not isinstance(key[1], str) or "response" not in row:
        raise ValueError("This is no line that `sdg diagnose` wrote.")
    return (key[0], key[1]), dict(row)
